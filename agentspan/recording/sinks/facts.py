"""The facts of spans and runs that a sink reads, and those that it reports. Imports no Span, no Run and no Tracer."""

import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from agentspan import clock, disk
from agentspan.errors import DatabaseBusy
from agentspan.host import guard, let_through
from agentspan.journal.committer import Listener, Tally
from agentspan.journal.records import Begin, End, Parts
from agentspan.model.changes import InstanceStatus, Refused, SpanStatus, Unit
from agentspan.model.rows import AgentInstanceRow
from agentspan.schemas.span_types import SpanType
from agentspan.storage.access import Identity
from agentspan.storage.protocol import NotTrustedYet, Storage


class RunFacts:
    """The facts of a run that a sink and the recorder read; the base class of RunState.

    Attributes:
        id: the agent instance's PFID; "" if the run could not be recorded.
        status: the status, as far as this process knows.
        termination_reason: the reason of the termination; None if the process has not found a termination.
        registered_row: the row that the run is registered with; None if the run could not be recorded.
        stored_in: the storage that has the run, if it was registered there at once.
        spending: the sums of a run with a budget, or inside of one; None for any other run.
    """

    id = ""
    status: InstanceStatus = "pending"
    termination_reason: str | None = None
    registered_row: AgentInstanceRow | None = None
    stored_in: Identity | None = None
    spending: Any = None

    def learn(self, reason: str) -> None:
        """Set the run to terminated, with the reason of the first termination."""
        if self.termination_reason is None:
            self.termination_reason = reason
            self.status = "terminated"

    def tell(self) -> None:
        """Call the program's `on_terminate` function, once in a run."""
        raise NotImplementedError

    def confirm(self, stored: AgentInstanceRow) -> None:
        """Set the row that the run is stored with."""
        raise NotImplementedError

    def register_again(self, storage: Storage) -> None:
        """Register the run in the current storage, if the storage does not have it."""
        raise NotImplementedError


class SpanFacts:
    """The facts of a span that a sink reads; the base class of SpanState.

    Attributes:
        run: the run that the span belongs to. A sink gets only spans whose run has a `registered_row`.
        id: the span's PFID; "" if the span could not be recorded.
        parent_span_id: the id of the parent span, or None.
        schema_name: the name of the span type.
        status: the status after the transition.
        payload: the payload as JSON text, or in parts if it has lists whose elements may have been recorded before. A
            text, because the program may change the object that it passed.
        started_ns: the wall-clock time of the start, in ns since the epoch; for a pending span, of its creation.
        writer_id: the id of the process that created the span.
        decoded: a cache of the sink until the span ends: a payload text, the decoded payload, a time in ns, the time as
            text.
    """

    run: RunFacts
    parent_span_id: str | None
    schema_name: str
    writer_id: str
    # Defaults of the class, because setting all of them for each span costs 0.3 µs.
    id = ""
    status: SpanStatus = "pending"
    payload: str | Parts = "{}"
    started_ns = 0
    decoded: tuple[str, Any, int, str] | None = None

    @property
    def span_type(self) -> SpanType:
        """The span type that is registered under `schema_name` now."""
        raise NotImplementedError

    def payload_text(self) -> str:
        """Return the payload as JSON text."""
        if isinstance(self.payload, Parts):
            self.payload = self.payload.text()
        return self.payload

    def learn(self, fact: Begin | End) -> None:
        """Set the type and the payload, and from an End also the status, that a foreign instrumentor reported."""
        self.schema_name, self.payload = fact.schema_name, fact.payload
        if isinstance(fact, End):
            self.status = fact.status


class Counts(NamedTuple):
    """The state of a sink, in transitions.

    Attributes:
        recorded: durable transitions, in the storage or in a journal.
        waiting: transitions that wait in memory and are not durable yet.
        refused: transitions that came too late. They are in the table refused_changes.
        failed: lost transitions.
        journaled: the part of `recorded` that is in the journal and not in the storage yet.
        spooled_bytes: the size of the `journaled` records.
        oldest_s: seconds that the oldest transition outside the storage has waited, at least; 0.0 if none waits.
        last_error: the error of the latest attempt to write to the storage; None if that attempt succeeded.
    """

    recorded: int
    waiting: int
    refused: int
    failed: int
    journaled: int
    spooled_bytes: int
    oldest_s: float
    last_error: str | None


class RunListener(Listener):
    """Receives the outcomes of a recorder's changes, and finds its terminated runs. This base class has no runs."""

    def terminations(self) -> Mapping[str, str]:
        """Return the terminated runs among the active runs of this process: the reason by the id of the run."""
        return {}

    def learn(self, terminations: Mapping[str, str]) -> None:
        """Notify the runs with these ids that they were terminated."""

    def has_runs(self) -> bool:
        """Return whether a run of this process is active."""
        return False


class First:
    """Stands in for a sink until the first transition, prepares the sink then, and passes the transition on.

    It has each method with which a sink receives a transition.

    Args:
        sink: stores the row of this process, and returns the sink that all later transitions go to directly.
    """

    def __init__(self, sink: Callable[[], Any]) -> None:
        self._sink = sink

    def __getattr__(self, transition: str) -> Any:
        """Return the method of the real sink."""
        return getattr(self._sink(), transition)


class NoStorage:
    """Counts transitions after shutdown, or where no storage could be opened. It writes none.

    It has each method with which a sink receives a transition.

    Args:
        count: called once for each transition.
    """

    def __init__(self, count: Callable[[], None]) -> None:
        self._count = count

    def __getattr__(self, transition: str) -> Any:
        """Return a method that counts a transition, for the method name of any kind of transition."""
        return lambda *_: self._count()


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

    def refused(self, storage: Storage, unit: Unit, refused: Refused) -> None:
        """Pass a refused change on to the listener."""
        self._keeping(self._listener.refused, storage, unit, refused)

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
        """Note that a write failed. Unless the error is DatabaseBusy, the next success is reported as a recovery.

        An exception of a signal handler is no failure of the storage, and is raised again.
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
    until = disk.monotonic() + wait_s
    while True:
        try:
            return look()
        except NotTrustedYet:
            if disk.monotonic() >= until:
                raise
        disk.sleep(PAUSE_S)
