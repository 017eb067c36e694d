"""Counts of one sink, and the state of its storage. The parts of a sink share one of these."""

import threading
import time
from collections.abc import Callable
from typing import Any

from agentspan import clock
from agentspan.errors import DatabaseBusy
from agentspan.interrupts import guard, let_through
from agentspan.journal.committer import Listener, Tally
from agentspan.model.changes import Refused, Unit
from agentspan.storage.protocol import NotTrustedYet

PAUSE_S = 0.05
RETRY_NS = 50_000_000
"""How long a storage that took nothing is not tried again."""


class Deferred(Listener):
    """Passes outcomes on to a listener, and keeps an exception of it until all outcomes of a batch are counted."""

    def __init__(self, listener: Listener) -> None:
        self.raised: Exception | None = None
        self._listener = listener
        self.missing = listener.missing  # type: ignore[method-assign]
        self.registered = listener.registered  # type: ignore[method-assign]
        self.terminated = listener.terminated  # type: ignore[method-assign]

    def fault(self, error: Exception) -> None:
        """Pass a fault on to the recorder."""
        self._keeping(self._listener.fault, error)

    def refused(self, unit: Unit, refused: Refused) -> None:
        """Count a change that came too late, and pass it on."""
        self._keeping(self._listener.refused, unit, refused)

    def _keeping(self, call: Callable[..., None], *args: Any) -> None:
        with guard(report=self.keep):
            call(*args)

    def keep(self, error: Exception) -> None:
        """Keep an exception, unless there is an earlier one."""
        self.raised = self.raised or error

    def raise_kept(self) -> None:
        """Raise the exception that was kept, once."""
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
        lock: held while the counts or the backlog change. It is reentrant: a signal handler, or a generator that is
            collected, may record in the middle of that.
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
        """Add what became of records."""
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
        """Note that the storage took something."""
        self.last_error = None
        if self._is_failing:
            self._is_failing = False
            self.listener.recovered()

    def try_later(self) -> None:
        """Leave the storage alone for a moment."""
        self.retry_ns = clock.monotonic_ns() + RETRY_NS

    def may_try(self) -> bool:
        """Return whether that moment is over."""
        return clock.monotonic_ns() >= self.retry_ns


def until_trusted(look: Callable[[], bool], wait_s: float) -> bool:
    """Return what a look for rows in a file says, again and again while the file is not trusted yet.

    Raises:
        NotTrustedYet: it is not after `wait_s` seconds.
    """
    until = time.monotonic() + wait_s
    while True:
        try:
            return look()
        except NotTrustedYet:
            if time.monotonic() >= until:
                raise
        time.sleep(PAUSE_S)
