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
    before = most_s()
    _here.most_s = min(before, seconds)
    try:
        yield
    finally:
        _here.most_s = before


def most_s() -> float:
    """Return the seconds that this thread waits for an answer at most; infinite outside of such blocks."""
    most: float = getattr(_here, "most_s", float("inf"))
    return most
