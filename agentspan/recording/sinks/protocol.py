"""The protocol of a sink, and the facts of spans and runs that a sink reads. Imports no Span, no Run and no Tracer."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from agentspan import clock
from agentspan.errors import DatabaseBusy
from agentspan.host import guard, let_through
from agentspan.journal.committer import Listener, Tally
from agentspan.journal.records import Begin, End, Parts
from agentspan.model.changes import Refused, Unit
from agentspan.model.rows import AgentInstanceRow
from agentspan.model.status import SpanStatus
from agentspan.schemas.span_types import SpanType
from agentspan.storage.protocol import NotTrustedYet


class RunFacts(Protocol):
    """The facts of a run that a sink reads."""

    @property
    def id(self) -> str:
        """The agent instance's PFID."""

    @property
    def registered_row(self) -> AgentInstanceRow | None:
        """The row that the run is registered with; None if the run could not be recorded."""


class SpanFacts(Protocol):
    """The facts of a span that a sink reads."""

    decoded: tuple[str, Any, int, str] | None
    """A cache of the sink until the span ends: a payload text, the decoded payload, a time in ns, the time as text."""

    @property
    def id(self) -> str:
        """The span's PFID."""

    @property
    def run(self) -> RunFacts:
        """The run that the span belongs to. It is recorded: its `registered_row` is not None."""

    @property
    def parent_span_id(self) -> str | None:
        """The id of the parent span, or None."""

    @property
    def schema_name(self) -> str:
        """The name of the span type."""

    @property
    def span_type(self) -> SpanType:
        """The span type that is registered under `schema_name` now."""

    @property
    def status(self) -> SpanStatus:
        """The status after the transition."""

    @property
    def payload(self) -> str | Parts:
        """The payload as JSON text, or in parts if it has lists whose elements may have been recorded before."""

    def payload_text(self) -> str:
        """Return the payload as JSON text."""
        ...

    @property
    def started_ns(self) -> int:
        """The wall-clock time of the start, in ns since the epoch; for a pending span, of its creation."""

    @property
    def writer_id(self) -> str:
        """The id of the process that created the span."""

    def learn(self, fact: Begin | End) -> None:
        """Set the type and the payload, and from an End also the status, that a foreign instrumentor reported."""


class SpanSink(Protocol):
    """Receives the transitions of a recorder in order, from any thread. Reports faults to a listener; never raises."""

    def created(self, span: SpanFacts, at_ns: int) -> None:
        """Write a new span, pending or active."""

    def created_raw(self, span: SpanFacts, reader: str, text: str, at_ns: int) -> None:
        """Write a new active span from a raw text, which `reader` parses later."""

    def started(self, span: SpanFacts) -> None:
        """Write that a pending span became active."""

    def updated(self, span: SpanFacts, at_ns: int) -> None:
        """Write the changed payload of an open span."""

    def finished(self, span: SpanFacts, result: str | None, at_ns: int, elapsed_ns: int) -> None:
        """Write the end of a span: its status, its result (JSON text), the time and the duration."""

    def finished_as(self, span: SpanFacts, result: str | None, at_ns: int, elapsed_ns: int) -> None:
        """Write the end of a span whose type and payload became known at its end."""

    def finished_raw(self, span: SpanFacts, reader: str, text: str, at_ns: int, elapsed_ns: int) -> None:
        """Write the end of a span from a raw text, which `reader` parses later."""

    def register(self, unit: Unit) -> None:
        """Write a unit that registers or renames a run. Its agent is resolved later (see journal.names)."""

    def write(self, unit: Unit) -> None:
        """Write any other unit: not of a span, and not the registration of a run."""


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


class Sink(SpanSink, Protocol):
    """Writes transitions as durably as the `durability` setting requires."""

    def counts(self) -> Counts:
        """Return the state of this sink."""
        ...

    def count_recorded(self) -> None:
        """Count a transition that the caller has written to the storage itself."""

    def restate(self, unit: Unit) -> None:
        """Write a unit that is no transition of this process, without counting it."""

    def put_aside(self, unit: Unit, error: Exception) -> None:
        """Keep a unit that the storage failed to apply, and write it later."""

    def hurry(self) -> None:
        """Drain the journal to the storage, if that takes only a moment."""

    def watch(self) -> None:
        """Check from now on whether runs of this process are terminated. Called when a run has begun."""

    def flush(self, wait_s: float) -> bool:
        """Write all waiting transitions to the storage. Return True if nothing waits any more."""
        ...

    def flush_at_end(self, wait_s: float) -> None:
        """Write all waiting transitions at the end of the program, without waiting for a server that is away."""
        ...

    def release(self, *, for_good: bool = False) -> None:
        """Close the files, after a flush. Without `for_good`, the next transition opens them again."""

    def leave(self) -> None:
        """In a forked child: drop the parent's files and threads without closing them."""


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

    It has each method of a SpanSink.

    Args:
        sink: stores the row of this process, and returns the sink that all later transitions go to directly.
    """

    def __init__(self, sink: Callable[[], SpanSink]) -> None:
        self._sink = sink

    def __getattr__(self, transition: str) -> Any:
        """Return the method of the real sink."""
        return getattr(self._sink(), transition)


class NoStorage:
    """Counts transitions after shutdown, or where no storage could be opened. It writes none.

    It has each method of a SpanSink.

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
