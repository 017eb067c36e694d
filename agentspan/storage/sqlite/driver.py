"""SQLite and its driver: converts its errors into agentspan's, waits for locks, and does checkpoints in a thread.

SQLite's own busy handler backs off to 100 ms and starves a waiting writer. So its timeout is 0, and `waiting` retries.

A checkpoint copies the write-ahead log into the database. By default, SQLite does one within a commit: every 4 MB, with
two fsyncs. That is 25 of the 65 µs that a span takes on average, 28 ms at once at 32 MB, and on a slow disk far more
than a recorder may wait. So a thread does it, and ends afterwards. SQLite does its own checkpoint only if the thread
does not keep up.

The thread also flushes the log to the disk about once a second, because with `synchronous=NORMAL` a commit does not
wait for the disk. For this, the thread lives as long as there are commits.
"""

import os
import random
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from agentspan import disk, files
from agentspan.errors import DatabaseBusy, DatabaseUnusable, NotStorable, StorageError
from agentspan.host import Bell, Thread, guard, start
from agentspan.storage.sqlite.file_guard import FileGuard
from agentspan.tuning import Tuning

DRIVER_ERRORS = (sqlite3.Error, UnicodeError, OverflowError)
"""The driver's exceptions: UnicodeError is for text that is not Unicode, OverflowError for too large integers."""


def is_damage(error: Exception) -> bool:
    """Return whether an error means that the content of the file cannot be read."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code == sqlite3.SQLITE_CORRUPT or isinstance(error, UnicodeDecodeError) or "decode to UTF-8" in str(error)


def was_deleted(error: Exception, path: Path) -> bool:
    """Return whether an error means that the file was deleted while it was opened."""
    code = getattr(error, "sqlite_errorcode", 0)
    if isinstance(error, FileNotFoundError) or code == sqlite3.SQLITE_READONLY_DBMOVED:
        return True
    return code & 0xFF == sqlite3.SQLITE_IOERR and not disk.exists(path)


def damaged(path: Path, why: str) -> DatabaseUnusable:
    """Return the error for a damaged file."""
    return DatabaseUnusable(f"{path} is damaged ({why}); `sqlite3 {path} .recover` can save its rows")


def storage_error(error: Exception, path: Path) -> StorageError:
    """Convert a driver's error into a StorageError whose message has the remedy.

    A wrong statement or value becomes NotStorable, without the value in its message. Faults of the disk or the file
    become StorageError or DatabaseUnusable.
    """
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if "user-defined function" in str(error):  # agentspan's SQL functions raise for text that is no JSON, or at Ctrl-C
        why = "a payload in it cannot be read"
        return DatabaseUnusable(f"reading was interrupted, or {path} is damaged ({why}); `agentspan doctor` checks it")
    if is_damage(error):  # the driver's message for undecodable text contains the text
        return damaged(path, str(error) if code else "a text in it is not UTF-8")
    if isinstance(error, UnicodeError | OverflowError):
        return NotStorable(f"{path} cannot hold a value: text that is not Unicode, or a number of more than 64 bits")
    if isinstance(error, sqlite3.ProgrammingError) and "closed" in str(error):
        return StorageError(f"{path} was closed in the middle of this: {error}")
    if not isinstance(error, sqlite3.OperationalError) and code != sqlite3.SQLITE_NOTADB:
        return NotStorable(f"{path} does not take this: {error}")
    if code == sqlite3.SQLITE_NOTADB:
        return DatabaseUnusable(f"{path} is not an SQLite database; choose another path, or move that file away")
    if code == sqlite3.SQLITE_CANTOPEN:
        return DatabaseUnusable(f"{path} cannot be opened; check that the folder is there and may be written to")
    if code == sqlite3.SQLITE_READONLY:
        return DatabaseUnusable(f"{path} may not be written to; check its permissions, or open it with read_only=True")
    if code == sqlite3.SQLITE_FULL:
        return StorageError(f"the disk of {path} is full; make room, recording goes on by itself")
    return StorageError(f"{path}: {error}")


T = TypeVar("T")

_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


def is_busy(error: sqlite3.Error) -> bool:
    """Return whether a driver's error means that another connection holds a lock. Extended codes are included."""
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _BUSY


def waiting(attempt: Callable[[], T], path: Path, wait_s: float) -> T:
    """Call `attempt` again while the database is busy, for about `wait_s` seconds, and return its result.

    The time is the sum of the sleeps: with a clock, a test that freezes time would wait for ever.

    Raises:
        DatabaseBusy: the database stayed busy.
    """
    slept, delay = 0.0, 0.0002
    while True:
        try:
            return attempt()
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
            if slept >= wait_s:
                raise DatabaseBusy(f"{path} stayed locked by another process for {wait_s:g} s; try again") from error
        # Short and random: eight processes that poll in step would collide again and again.
        pause = delay * random.uniform(0.5, 1.5)
        disk.sleep(pause)
        slept += pause
        delay = min(delay * 1.5, 0.004)


MAX_FRAMES = 12_000
"""The number of pages in the log (48 MB) after which SQLite does a checkpoint within a commit after all."""


class Checkpoints:
    """The checkpoints of one file.

    Args:
        guard: the guard of the file.
        lock: the lock that the writers of this process hold while they write.
        tuning: sizes and times; see agentspan/tuning.py.

    Attributes:
        connection: the connection of the checkpoint under way; None at other times.
        syncs: whether the thread flushes the log to the disk about once a second.
        paused: whether no thread may be started.
    """

    def __init__(self, guard: FileGuard, lock: Any, tuning: Tuning) -> None:
        self._guard = guard
        self._lock = lock
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

    def committed(self, rows: int = 1) -> None:
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
        watch, total = self._guard.watch, self._total
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
            with self._lock:
                is_as_it_was = self._guard.is_as_it_was()
            if not is_as_it_was:
                self._synced = total - 1  # so the next round checks again
            return
        self._synced = self._total  # the disk is full, or gone: the next write reports it

    def _checkpoint(self) -> None:
        with guard():  # busy, or the disk is full: the log keeps what it has, and the next one comes
            with self._lock:
                if not self._guard.is_as_it_was():
                    return
            try:
                with self._guard.fresh() as self.connection:
                    frames = _checkpoint(self.connection, "passive")
                    if frames > self._restart_pages:
                        _checkpoint(self.connection, "passive")  # again: fewer pages are left for the lock
                        with self._lock:
                            _checkpoint(self.connection, "restart")
            finally:
                self.connection = None


def _checkpoint(connection: sqlite3.Connection, how: str) -> int:
    frames: int = connection.execute(f"pragma wal_checkpoint({how})").fetchone()[1]
    return frames
