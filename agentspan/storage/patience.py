"""Limits how long the current thread waits for a server: for each answer, or for all answers to one recording call.

A reader may wait minutes for a long statistic. A thread that drains a journal executes short statements only. If one of
them takes long, no answer will come, because a proxy or a firewall has lost the connection. A recording call waits a
fraction of a second and opens no connection, because looking up a host's name has no time limit.

While a thread waits for a server, it may do other work: derive the next records while the last ones are stored. A
storage calls `step` while it waits, as long as there is work. A storage that never waits ignores this module.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agentspan.errors import DatabaseBusy

_here = threading.local()


class Unconnected(DatabaseBusy):
    """There is no open connection, and this thread must not open one. Nothing was sent to the server."""


@contextmanager
def answers_within(seconds: float) -> Iterator[None]:
    """Within the block, let this thread wait at most `seconds` for each answer of a server."""
    with _set(min(_most_s(), seconds)):
        yield


@contextmanager
def as_long_as_it_takes() -> Iterator[None]:
    """Within the block, let this thread wait for answers without a limit, for statements that change whole tables."""
    with _set(float("inf")):
        yield


@contextmanager
def in_a_call(seconds: float) -> Iterator[None]:
    """Within the block, let this thread wait at most `seconds` for all answers together, and open no connection.

    An inner block cannot extend the limit of an outer block.
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
    """Return the most seconds that this thread may wait for the next answer; infinite outside of all blocks."""
    return min(_most_s(), left_s())


def left_s() -> float:
    """Return the seconds that are left for all answers of this thread's recording call; infinite outside of a call."""
    until = _until()
    return until if until == float("inf") else max(until - time.monotonic(), 0.0)


def may_connect() -> bool:
    """Return whether this thread may open a connection, which is forbidden within a recording call."""
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
    """Within the block, call `work` whenever this thread waits for a server.

    Args:
        work: does a part of the work, about a millisecond long; returns whether more work is left.
    """
    _meanwhile_here.work = work
    try:
        yield
    finally:
        _meanwhile_here.work = None


def has_work() -> bool:
    """Return whether this thread has work to do while it waits for a server (see doing)."""
    return getattr(_meanwhile_here, "work", None) is not None


def step() -> bool:
    """Do a part of this thread's work, and return whether more is left. Work that waits is not called recursively."""
    work: Callable[[], bool] | None = getattr(_meanwhile_here, "work", None)
    if work is None:
        return False
    _meanwhile_here.work = None
    is_left = work()
    _meanwhile_here.work = work if is_left else None
    return is_left
