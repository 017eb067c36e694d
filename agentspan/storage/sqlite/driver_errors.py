"""The errors of the driver, turned into ours at the boundary, with what to do; and waiting for a write lock.

SQLite's busy handler backs off to 100 ms and starves a waiting writer, so its timeout is 0 and waiting is done here.
"""

import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from agentspan.errors import DatabaseBusy, DatabaseUnusable, NotStorable, StorageError

DRIVER_ERRORS = (sqlite3.Error, UnicodeError, OverflowError)
"""The exceptions of the driver: the last two for text that is not Unicode, and for integers of more than 64 bits."""


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
    """Turn a driver's error into ours, with what to do; called once, at the boundary.

    A wrong statement or value becomes NotStorable, without the value; faults of the disk or the file become the others.
    """
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if "user-defined function" in str(error):  # ours raise an exception at a text that is no JSON
        return damaged(path, "a payload in it cannot be read")
    if is_damage(error):  # the driver's words for a text that is none have the text in them
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
    """Return whether a driver's error means that another connection holds the lock (extended codes included)."""
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _BUSY


def waiting(attempt: Callable[[], T], path: Path, wait_s: float) -> T:
    """Call `attempt` until the database is not busy, for about `wait_s` seconds.

    Time is the sum of the sleeps, not read from a clock: with a frozen clock this would wait for ever.

    Raises:
        DatabaseBusy: it stayed busy.
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
        # Short and uneven: eight processes polling in step would keep meeting each other.
        pause = delay * random.uniform(0.5, 1.5)
        time.sleep(pause)
        slept += pause
        delay = min(delay * 1.5, 0.004)
