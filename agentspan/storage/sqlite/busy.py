"""Waiting for a file whose write lock another connection holds.

SQLite's busy handler backs off to 100 ms and starves a waiting writer, so its timeout is 0 and waiting is done here.
"""

import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from agentspan.errors import DatabaseBusy

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
