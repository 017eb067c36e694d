"""Limits how long this thread waits for a server: for each answer, or for all answers to one recording call.

A storage waits minutes for a long statistic. A thread that moves records executes short statements only, and has the
next records waiting: an answer that takes long will not come, because a proxy or a firewall has lost the connection. A
call that records waits a fraction of a second, and makes no connection: looking up a host's name has no limit.

While a thread waits for a server, it may do other work: derive the next records while these are stored. A storage that
waits calls `step` while there is work, until the answer is there. One that never waits ignores this.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agentspan.errors import DatabaseBusy

_here = threading.local()


class Unconnected(DatabaseBusy):
    """There is no connection, and this thread makes none. Nothing was sent."""


@contextmanager
def answers_within(seconds: float) -> Iterator[None]:
    """Wait for no answer longer than this, in this thread, for the length of the block."""
    with _set(min(_most_s(), seconds)):
        yield


@contextmanager
def as_long_as_it_takes() -> Iterator[None]:
    """Wait as long as the storage would, in this thread, for the length of the block: it changes whole tables."""
    with _set(float("inf")):
        yield


@contextmanager
def in_a_call(seconds: float) -> Iterator[None]:
    """Wait no longer than this for all answers together, in this thread, for the length of the block; do not connect.

    A block in another one ends no later than that one.
    """
    before = _until()
    _here.until = min(before, time.monotonic() + seconds)
    try:
        yield
    finally:
        _here.until = before


@contextmanager
def _set(seconds: float) -> Iterator[None]:
    before = _most_s()
    _here.most_s = seconds
    try:
        yield
    finally:
        _here.most_s = before


def most_s() -> float:
    """Return the seconds that this thread waits for the next answer at most; infinite outside of such blocks."""
    return min(_most_s(), left_s())


def left_s() -> float:
    """Return the seconds that this thread may wait for any answer in its recording call; infinite outside of one."""
    until = _until()
    return until if until == float("inf") else max(until - time.monotonic(), 0.0)


def may_connect() -> bool:
    """Return whether this thread may make a connection: it is in no recording call."""
    return _until() == float("inf")


def _most_s() -> float:
    most: float = getattr(_here, "most_s", float("inf"))
    return most


def _until() -> float:
    until: float = getattr(_here, "until", float("inf"))
    return until


_meanwhile_here = threading.local()


@contextmanager
def doing(work: Callable[[], bool]) -> Iterator[None]:
    """Do some work whenever this thread waits for a server, for the length of the block.

    Args:
        work: does a part of it, which takes about a millisecond; returns whether there is more.
    """
    _meanwhile_here.work = work
    try:
        yield
    finally:
        _meanwhile_here.work = None


def has_work() -> bool:
    """Return whether this thread has work to do."""
    return getattr(_meanwhile_here, "work", None) is not None


def step() -> bool:
    """Do a part of the work; return whether there is more. What waits within the work itself has none to do."""
    work: Callable[[], bool] | None = getattr(_meanwhile_here, "work", None)
    if work is None:
        return False
    _meanwhile_here.work = None
    is_left = work()
    _meanwhile_here.work = work if is_left else None
    return is_left
