"""The patience of a caller: how long a storage waits for a server, and what its thread does until then.

A reader may wait minutes for a long statistic. A thread that drains a journal executes short statements only. If one of
them takes long, no answer will come, because a proxy or a firewall has lost the connection. A recording call waits a
fraction of a second and opens no connection, because looking up a host's name has no time limit.

So a caller passes on a storage with its limits: `waiting(storage, Patience(answer_s=30))`. A storage that never waits
has no method `waiting`, and is passed on as it is.
"""

import time
from collections.abc import Callable
from math import inf
from typing import NamedTuple, TypeVar

from agentspan.errors import DatabaseBusy
from agentspan.storage.protocol import Storage

T = TypeVar("T")


class Unconnected(DatabaseBusy):
    """There is no open connection, and a recording call must not open one. Nothing was sent to the server."""


class Patience(NamedTuple):
    """The limits of a caller, and its work.

    Attributes:
        answer_s: the most seconds to wait for each answer.
        until: the monotonic time up to which all answers together may take. It is finite for a recording call.
        meanwhile: does a part of some work, about a millisecond long, and returns whether more work is left. It is
            called while an answer is awaited, but not within itself.
    """

    answer_s: float = inf
    until: float = inf
    meanwhile: Callable[[], bool] | None = None

    @property
    def may_connect(self) -> bool:
        """True if a connection may be opened: not in a recording call."""
        return self.until == inf

    def left_s(self) -> float:
        """Return the seconds that are left for all answers; infinite if they have no limit together."""
        return inf if self.until == inf else max(self.until - time.monotonic(), 0.0)

    def most_s(self) -> float:
        """Return the most seconds to wait for the next answer."""
        return min(self.answer_s, self.left_s())

    def within(self, other: "Patience") -> "Patience":
        """Return the shorter limits of both, with the work of this one, or else of the other."""
        answer_s, until, meanwhile = self
        return Patience(
            answer_s if answer_s < other[0] else other[0],
            until if until < other[1] else other[1],
            meanwhile or other[2],
        )  # `min` would take a tenth longer, for each recording call


ENDLESS = Patience()
"""The patience of a reader: without limits of its own."""


def of_a_call(seconds: float) -> Patience:
    """Return the patience of a recording call that may wait so many seconds from now on."""
    return Patience(inf, time.monotonic() + seconds)


def waiting(storage: Storage, patience: Patience) -> Storage:
    """Return a storage that waits as `patience` says, within the limits that it has; itself if it never waits."""
    limited: Callable[[Patience], Storage] | None = getattr(storage, "waiting", None)
    return storage if limited is None else limited(patience)


def sharing(shared: T, **own: object) -> T:
    """Return another object of the same class that shares all attributes with `shared`, now and later, but `own`.

    Args:
        own: attributes that the class lists in its `__slots__`, beside `__dict__`.
    """
    made = object.__new__(type(shared))
    made.__dict__ = shared.__dict__
    for name, value in own.items():
        setattr(made, name, value)
    return made
