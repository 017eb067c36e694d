"""Work that this thread does while it waits for a server: to derive the next records while these are stored.

A storage that waits calls `step` while there is work, until the answer is there. One that never waits ignores this.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_here = threading.local()


@contextmanager
def doing(work: Callable[[], bool]) -> Iterator[None]:
    """Do some work whenever this thread waits for a server, for the length of the block.

    Args:
        work: does a part of it, which takes about a millisecond; returns whether there is more.
    """
    _here.work = work
    try:
        yield
    finally:
        _here.work = None


def has_work() -> bool:
    """Return whether this thread has work to do."""
    return getattr(_here, "work", None) is not None


def step() -> bool:
    """Do a part of the work; return whether there is more. What waits within the work itself has none to do."""
    work: Callable[[], bool] | None = getattr(_here, "work", None)
    if work is None:
        return False
    _here.work = None
    is_left = work()
    _here.work = work if is_left else None
    return is_left
