"""Connections that are lent to reads, and the number of ids that a statement of theirs has."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

T = TypeVar("T")

CHUNK = 500
"""The most ids in one statement."""

Lend = Callable[[], AbstractContextManager[sqlite3.Connection]]
"""Lends a connection whose statements all see the same state."""


def chunks(ids: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield ids, or what has one, in portions of which each fits into one statement."""
    return (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))
