"""Limits how long this thread waits for each answer of a server.

A storage waits minutes for a long statistic. A thread that moves records executes short statements only, and has the
next records waiting: an answer that takes long will not come, because a proxy or a firewall has lost the connection.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_here = threading.local()


@contextmanager
def answers_within(seconds: float) -> Iterator[None]:
    """Wait for no answer longer than this, in this thread, for the length of the block."""
    with _set(min(most_s(), seconds)):
        yield


@contextmanager
def as_long_as_it_takes() -> Iterator[None]:
    """Wait as long as the storage would, in this thread, for the length of the block: it changes whole tables."""
    with _set(float("inf")):
        yield


@contextmanager
def _set(seconds: float) -> Iterator[None]:
    before = most_s()
    _here.most_s = seconds
    try:
        yield
    finally:
        _here.most_s = before


def most_s() -> float:
    """Return the seconds that this thread waits for an answer at most; infinite outside of such blocks."""
    most: float = getattr(_here, "most_s", float("inf"))
    return most
