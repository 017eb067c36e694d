"""The protocol of a sink, and the facts of spans and runs that a sink reads. Imports no Span, no Run and no Tracer."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from agentspan.journal.committer import Listener
from agentspan.journal.parts import Parts
from agentspan.journal.records import Begin, End
from agentspan.model.changes import SpanStatus, Unit
from agentspan.model.rows import AgentInstanceRow
from agentspan.schemas.span_types import SpanType


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
