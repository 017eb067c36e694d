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
from contextlib import AbstractContextManager, contextmanager
from math import inf

from agentspan.errors import DatabaseBusy


class Unconnected(DatabaseBusy):
    """There is no open connection, and this thread must not open one. Nothing was sent to the server."""


class _Here(threading.local):
    """The limits and the work of the current thread.

    Attributes:
        most_s: the most seconds to wait for each answer.
        until: the monotonic time up to which it may wait for all answers together; infinite outside of a call.
        work: the work to do while it waits (see doing).
    """

    most_s = inf
    until = inf
    work: Callable[[], bool] | None = None


_here = _Here()


@contextmanager
def _with(name: str, value: object) -> Iterator[None]:
    before, thread, is_restored = getattr(_here, name), threading.get_ident(), True
    setattr(_here, name, value)
    try:
        yield
    except GeneratorExit:
        # An exception of a signal handler kept the end of the block from being called. The block is dropped later, by
        # any thread, which may have limits of its own by then.
        is_restored = threading.get_ident() == thread and getattr(_here, name) is value
        raise
    finally:
        if is_restored:
            setattr(_here, name, before)


def answers_within(seconds: float) -> AbstractContextManager[None]:
    """Within the block, let this thread wait at most `seconds` for each answer of a server."""
    return _with("most_s", min(_here.most_s, seconds))


def as_long_as_it_takes() -> AbstractContextManager[None]:
    """Within the block, let this thread wait for answers without a limit, for statements that change whole tables."""
    return _with("most_s", inf)


def in_a_call(seconds: float) -> AbstractContextManager[None]:
    """Within the block, let this thread wait at most `seconds` for all answers together, and open no connection.

    An inner block cannot extend the limit of an outer block.
    """
    return _with("until", min(_here.until, time.monotonic() + seconds))


def doing(work: Callable[[], bool]) -> AbstractContextManager[None]:
    """Within the block, call `work` whenever this thread waits for a server.

    Args:
        work: does a part of the work, about a millisecond long; returns whether more work is left.
    """
    return _with("work", work)


def most_s() -> float:
    """Return the most seconds that this thread may wait for the next answer; infinite outside of all blocks."""
    return min(_here.most_s, left_s())


def left_s() -> float:
    """Return the seconds that are left for all answers of this thread's recording call; infinite outside of a call."""
    return inf if may_connect() else max(_here.until - time.monotonic(), 0.0)


def may_connect() -> bool:
    """Return whether this thread may open a connection, which is forbidden within a recording call."""
    return _here.until == inf


def has_work() -> bool:
    """Return whether this thread has work to do while it waits for a server (see doing)."""
    return _here.work is not None


def step() -> bool:
    """Call the work of `doing` once; return whether more is left. While it runs, this thread has no other work."""
    work = _here.work
    if work is None:
        return False
    _here.work = None
    is_left = work()
    _here.work = work if is_left else None
    return is_left
