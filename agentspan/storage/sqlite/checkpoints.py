"""Copies the write-ahead log into the database (a checkpoint) in a thread, so that no recording call has to do it.

By default, SQLite does a checkpoint within a commit: every 4 MB, with two fsyncs. That is 25 of the 65 µs that a span
takes on average, 28 ms at once at 32 MB, and on a slow disk far more than a recorder may wait. So a thread does it, and
ends afterwards. SQLite does its own checkpoint only if the thread does not keep up.

The thread also flushes the log to the disk about once a second, because with `synchronous=NORMAL` a commit does not
wait for the disk. For this, the thread lives as long as there are commits.
"""

import os
import sqlite3
import threading
from collections.abc import Callable
from typing import Any

from agentspan import files
from agentspan.host import Bell, Thread, guard, start
from agentspan.storage.sqlite.file_watch import Watch
from agentspan.storage.sqlite.mending import close_one
from agentspan.tuning import Tuning

MAX_FRAMES = 12_000
"""The number of pages in the log (48 MB) after which SQLite does a checkpoint within a commit after all."""


class Checkpoints:
    """The checkpoints of one file.

    Args:
        connect: opens a connection for the thread.
        lock: the lock that the writers of this process hold while they write.
        is_as_it_was: returns whether only SQLite has changed the file. If not, there is no checkpoint.
        watch: returns the watch of the file.
        tuning: sizes and times; see agentspan/tuning.py.

    Attributes:
        connection: the connection of the checkpoint under way; None at other times.
        syncs: whether the thread flushes the log to the disk about once a second.
        paused: whether no thread may be started.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        lock: Any,
        is_as_it_was: Callable[[], bool],
        watch: Callable[[], Watch],
        tuning: Tuning,
    ) -> None:
        self._connect = connect
        self._lock = lock
        self._is_as_it_was = is_as_it_was
        self._watch = watch
        self._restart_pages = tuning.checkpoint_restart_pages
        self._most_commits = tuning.checkpoint_commits
        self._sync_after_s = tuning.sync_after_s or 0.0
        self.syncs = tuning.sync_every_s is not None
        self._thread: threading.Thread | None = None
        self._bell = Bell()
        self.connection: sqlite3.Connection | None = None
        self._commits = self._total = self._synced = 0
        self._is_due = False
        self._synced_log: object = None
        self.paused = False

    def committed(self, rows: int) -> None:
        """Count a commit, and start the thread if a checkpoint or a flush is due. The caller holds the writers' lock.

        A commit of one row adds 4 pages to the log, a commit of 40 rows 19 pages, of 200 rows 39 pages.
        """
        self._total += 1
        self._commits = commits = self._commits + 1 + rows // 8
        if commits >= self._most_commits:
            self._commits, self._is_due = 0, True
            self._start()
            self._bell.ring()
        elif self.syncs and self._thread is None:
            self._start()

    def wait(self, timeout_s: float | None = None) -> None:
        """Stop the thread after its current step, and wait until it has ended. The caller must not hold the lock."""
        thread = self._thread
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            self._bell.is_last = True
            self._bell.ring()
            thread.join(timeout_s)

    def sync(self) -> None:
        """Flush the log to the disk; for a new log, also its folder.

        Raises:
            OSError: the disk cannot store it.
        """
        watch, total = self._watch(), self._total
        if watch.log is None:
            self._synced = total
            return
        try:
            files.sync(watch.log_path)
            if self._synced_log != watch.log:
                files.sync(os.path.dirname(watch.log_path))
                self._synced_log = watch.log
        except FileNotFoundError:  # whoever looks at the file next notices it
            return
        self._synced = total

    def _start(self) -> None:
        if not self.paused and (self._thread is None or not self._thread.is_alive()):
            self._bell = bell = Bell()
            thread = Thread(target=self._run, args=(bell,), name="agentspan-checkpoint", daemon=True)
            self._thread = thread  # before it starts: a fork must wait for the thread
            try:
                start(thread)
            except RuntimeError:  # no thread can be started: the interpreter ends, or the system is at its limit
                self._thread = None

    def _run(self, bell: Bell) -> None:
        while True:
            if self._is_due:
                self._is_due = False
                self._checkpoint()
            elif self.syncs and not bell.is_last:
                bell.wait(self._sync_after_s)
                if not self._is_due or bell.is_last:
                    self._sync_and_look()
            if bell.is_last or not self._has_work():
                self._thread = None  # before the check: a later commit starts a new thread
                if bell.is_last or not self._has_work() or self._thread is not None:
                    return
                self._thread = threading.current_thread()

    def _has_work(self) -> bool:
        return self._is_due or (self.syncs and self._synced != self._total)

    def _sync_and_look(self) -> None:
        with guard():
            total = self._total
            self.sync()
            if not self._is_as_it_was():
                self._synced = total - 1  # and look again
            return
        self._synced = self._total  # the disk is full, or gone: what is written next says so

    def _checkpoint(self) -> None:
        with guard():  # busy, or the disk is full: the log keeps what it has, and the next one comes
            if not self._is_as_it_was():
                return
            self.connection = connection = self._connect()
            try:
                frames = _checkpoint(connection, "passive")
                if frames > self._restart_pages:
                    _checkpoint(connection, "passive")  # again: fewer pages are left for the lock
                    with self._lock:
                        _checkpoint(connection, "restart")
            finally:
                close_one(connection)
                self.connection = None


def _checkpoint(connection: sqlite3.Connection, how: str) -> int:
    frames: int = connection.execute(f"pragma wal_checkpoint({how})").fetchone()[1]
    return frames
