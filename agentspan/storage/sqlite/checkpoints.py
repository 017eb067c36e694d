"""Moves the write-ahead log into the database (a checkpoint) in a thread of its own, so that no recording call has to.

SQLite does it by itself within a commit: every 4 MB, and with two fsyncs of everything since. That is 25 of the 65 µs
that a span costs on average, 28 ms at once at 32 MB, and far more than a recorder may wait on a slow disk. So a thread
does it, which lives no longer than that takes; SQLite's own comes only if the thread does not keep up.
"""

import sqlite3
import threading
from collections.abc import Callable
from typing import Any

from agentspan.interrupts import Thread, start
from agentspan.tuning import STANDARD

MAX_FRAMES = 12_000
"""Pages of the log (48 MB) after which SQLite checkpoints within a commit after all."""


class Checkpoints:
    """The checkpoints of one file.

    Args:
        connect: opens a connection of the thread's own.
        lock: what the writers of this process hold while they write.
        restart_pages: after so many pages of the log, writers wait for a moment, so that the log can restart.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        lock: Any,
        restart_pages: int = STANDARD.checkpoint_restart_pages,
    ) -> None:
        self._connect = connect
        self._lock = lock
        self._restart_pages = restart_pages
        self._thread: threading.Thread | None = None
        self.connection: sqlite3.Connection | None = None
        self.commits = 0
        self.paused = False

    def start(self) -> None:
        """Start a checkpoint unless one is under way. The caller holds the lock."""
        self.commits = 0
        if not self.paused and (self._thread is None or not self._thread.is_alive()):
            thread = Thread(target=self._run, name="agentspan-checkpoint", daemon=True)
            self._thread = thread  # before it runs: a fork waits for it
            try:
                start(thread)
            except RuntimeError:  # no thread can be started: the interpreter ends, or the system is at its limit
                self._thread = None

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait for a checkpoint under way. The caller must not hold the lock."""
        thread = self._thread
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(timeout_s)

    def _run(self) -> None:
        try:
            self.connection = connection = self._connect()
            try:
                frames = _checkpoint(connection, "passive")
                if frames > self._restart_pages:
                    _checkpoint(connection, "passive")  # what came meanwhile: the less there is, the shorter the wait
                    with self._lock:
                        _checkpoint(connection, "restart")
            finally:
                connection.close()
                self.connection = None
        except Exception:  # busy, or the disk is full: the log keeps what it has, and the next one comes
            pass


def _checkpoint(connection: sqlite3.Connection, how: str) -> int:
    frames: int = connection.execute(f"pragma wal_checkpoint({how})").fetchone()[1]
    return frames
