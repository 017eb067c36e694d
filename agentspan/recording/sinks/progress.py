"""The counts of one sink and the state of its storage, in an object that all parts of the sink share."""

import threading
import time
from collections.abc import Callable
from typing import Any

from agentspan import clock
from agentspan.errors import DatabaseBusy
from agentspan.host import guard, let_through
from agentspan.journal.committer import Listener, Tally
from agentspan.model.changes import Refused, Unit
from agentspan.storage.protocol import NotTrustedYet

PAUSE_S = 0.05
RETRY_NS = 50_000_000
"""The pause after a storage failed, in ns, before it is tried again."""


class Deferred(Listener):
    """Passes outcomes on to a listener. Keeps its exception until all outcomes of a batch are counted."""

    def __init__(self, listener: Listener) -> None:
        self.raised: Exception | None = None
        self._listener = listener
        self.missing = listener.missing  # type: ignore[method-assign]
        self.registered = listener.registered  # type: ignore[method-assign]
        self.terminated = listener.terminated  # type: ignore[method-assign]

    def fault(self, error: Exception) -> None:
        """Pass a fault on to the listener."""
        self._keeping(self._listener.fault, error)

    def refused(self, unit: Unit, refused: Refused) -> None:
        """Pass a refused change on to the listener."""
        self._keeping(self._listener.refused, unit, refused)

    def _keeping(self, call: Callable[..., None], *args: Any) -> None:
        with guard(report=self.keep):
            call(*args)

    def keep(self, error: Exception) -> None:
        """Keep an exception, unless there is an earlier one."""
        self.raised = self.raised or error

    def raise_kept(self) -> None:
        """Raise the kept exception of the listener, if there is one, and forget it."""
        raised, self.raised = self.raised, None
        if raised is not None:
            raise raised


class Progress:
    """Counts of transitions, and the state of the storage.

    Args:
        listener: receives faults.

    Attributes:
        recorded, refused, failed: see Counts.
        last_error: see Counts.
        retry_ns: the monotonic time before which the storage is not tried again.
        lock: held while the counts or the backlog change. Reentrant, because a signal handler or the collection of a
            generator may record during such a change.
    """

    def __init__(self, listener: Listener) -> None:
        self.recorded = 0
        self.refused = 0
        self.failed = 0
        self.last_error: str | None = None
        self.retry_ns = 0
        self.lock = threading.RLock()
        self.listener = listener
        self.deferred = Deferred(listener)
        self._is_failing = False

    def count(self, tally: Tally) -> None:
        """Add the outcomes of some records to the counts."""
        with self.lock:
            self.recorded += tally.recorded
            self.refused += tally.refused
            self.failed += tally.failed

    def storage_failed(self, error: Exception) -> None:
        """Note that the storage took nothing. That it was busy is not a fault that it recovers from.

        What a signal handler raised says nothing about the storage: it goes on.
        """
        let_through(error)
        self.last_error = str(error)
        self._is_failing = self._is_failing or not isinstance(error, DatabaseBusy)

    def storage_took(self) -> None:
        """Note that a write to the storage succeeded, and report the recovery from an earlier fault."""
        self.last_error = None
        if self._is_failing:
            self._is_failing = False
            self.listener.recovered()

    def try_later(self) -> None:
        """Pause: do not try the storage again for RETRY_NS."""
        self.retry_ns = clock.monotonic_ns() + RETRY_NS

    def may_try(self) -> bool:
        """Return whether the storage may be tried now: no pause after a failure is under way."""
        return clock.monotonic_ns() >= self.retry_ns


def until_trusted(look: Callable[[], bool], wait_s: float) -> bool:
    """Return the result of `look`, which looks for rows in a file. Repeat it while the file is not trusted yet.

    Raises:
        NotTrustedYet: the file is still not trusted after `wait_s` seconds.
    """
    until = time.monotonic() + wait_s
    while True:
        try:
            return look()
        except NotTrustedYet:
            if time.monotonic() >= until:
                raise
        time.sleep(PAUSE_S)
