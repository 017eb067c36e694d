"""Converts errors of the sqlite3 driver into agentspan's errors, and waits for SQLite's locks.

SQLite's own busy handler backs off to 100 ms and starves a waiting writer. So its timeout is 0, and `waiting` retries.
"""

import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from agentspan.errors import DatabaseBusy, DatabaseUnusable, NotStorable, StorageError

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
    return code & 0xFF == sqlite3.SQLITE_IOERR and not path.exists()


def damaged(path: Path, why: str) -> DatabaseUnusable:
    """Return the error for a damaged file."""
    return DatabaseUnusable(f"{path} is damaged ({why}); `sqlite3 {path} .recover` can save its rows")


def storage_error(error: Exception, path: Path) -> StorageError:
    """Convert a driver's error into a StorageError whose message has the remedy.

    A wrong statement or value becomes NotStorable, without the value in its message. Faults of the disk or the file
    become StorageError or DatabaseUnusable.
    """
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if "user-defined function" in str(error):  # agentspan's SQL functions raise for text that is no JSON
        return damaged(path, "a payload in it cannot be read")
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
        time.sleep(pause)
        slept += pause
        delay = min(delay * 1.5, 0.004)
