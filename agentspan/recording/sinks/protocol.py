"""The protocol of a sink, and the facts that a sink reads of a span. A sink knows no Span, no Run and no Tracer."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from agentspan.journal.committer import Listener
from agentspan.journal.parts import Parts
from agentspan.journal.records import Begin, End
from agentspan.model.changes import Unit
from agentspan.model.rows import AgentInstanceRow
from agentspan.model.status import SpanStatus
from agentspan.schemas.span_types import SpanType


class RunFacts(Protocol):
    """The facts of a run that a sink reads."""

    @property
    def id(self) -> str:
        """The agent instance's PFID."""

    @property
    def registered_row(self) -> AgentInstanceRow | None:
        """The row that the run is registered with; None where it could not be recorded."""


class SpanFacts(Protocol):
    """The facts of a span that a sink reads."""

    decoded: tuple[str, Any, int, str] | None
    """A sink keeps here, until the span ends: a payload text, that payload decoded, a time in ns, that time as text."""

    @property
    def id(self) -> str:
        """The span's PFID."""

    @property
    def run(self) -> RunFacts:
        """The run that the span belongs to. It is recorded: its `registered_row` is not None."""

    @property
    def parent_span_id(self) -> str | None:
        """The id of the span around it."""

    @property
    def schema_name(self) -> str:
        """The name of the span type."""

    @property
    def span_type(self) -> SpanType:
        """The span type that the name means now."""

    @property
    def status(self) -> SpanStatus:
        """The status after the transition."""

    @property
    def payload(self) -> str | Parts:
        """The payload as JSON text; in parts if it has lists, which may have been recorded before."""

    def payload_text(self) -> str:
        """Return the payload as JSON text."""
        ...

    @property
    def started_ns(self) -> int:
        """The wall clock's time when the span started, in ns; of a pending span, when it was created."""

    @property
    def writer_id(self) -> str:
        """The id of the process that created the span."""

    def learn(self, told: Begin | End) -> None:
        """Take the type, the payload and, at the end, the status that a foreign instrumentor told."""


class SpanSink(Protocol):
    """Takes the transitions of a recorder in order, from any thread. Faults go to a listener, never to the caller."""

    def created(self, span: SpanFacts, at_ns: int) -> None:
        """Write a new span, pending or active."""

    def created_raw(self, span: SpanFacts, reader: str, text: str, at_ns: int) -> None:
        """Write a new active span from a text that is read later (see journal.raw_records)."""

    def started(self, span: SpanFacts) -> None:
        """Write that a pending span became active."""

    def updated(self, span: SpanFacts, at_ns: int) -> None:
        """Write the changed payload of an open span."""

    def finished(self, span: SpanFacts, result: str | None, at_ns: int, elapsed_ns: int) -> None:
        """Write the last status of a span, its result (JSON text) and its duration."""

    def finished_as(self, span: SpanFacts, result: str | None, at_ns: int, elapsed_ns: int) -> None:
        """Write the same, and the type and the payload, which were learnt at the end."""

    def finished_raw(self, span: SpanFacts, reader: str, text: str, at_ns: int, elapsed_ns: int) -> None:
        """Write the same from a text that is read later."""

    def register(self, unit: Unit) -> None:
        """Write a unit that registers or renames a run, whose names are resolved later (see recovery.names)."""

    def write(self, unit: Unit) -> None:
        """Write a unit that concerns something else than a span."""


class Counts(NamedTuple):
    """The state of a sink. Counts are transitions.

    Attributes:
        recorded: durable, in the storage or in a journal.
        waiting: not durable yet; they wait in memory.
        refused: kept in the table refused_changes, because they came too late.
        failed: lost.
        journaled: of `recorded`, those in the journal that are not in the storage yet.
        spooled_bytes: the size of those.
        oldest_s: seconds that the oldest transition outside the storage has waited, at least; 0.0 where none waits.
        last_error: why the storage took nothing at the last attempt; None where it took something.
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
        """Write a unit that is no transition of this process, and is not counted as one."""

    def put_aside(self, unit: Unit, error: Exception) -> None:
        """Keep a unit that the storage could not take, and write it later."""

    def hurry(self) -> None:
        """Move to the storage what is in the journal, if that takes but a moment."""

    def watch(self) -> None:
        """Look from now on whether the runs of this process are terminated: one has begun."""

    def flush(self, wait_s: float) -> bool:
        """Write to the storage what waits; return whether nothing waits any more."""
        ...

    def flush_at_end(self, wait_s: float) -> None:
        """Write what waits while the program ends, which waits for no server that is away."""
        ...

    def release(self, *, for_good: bool = False) -> None:
        """Close files, after a flush. Unless it is for good, the next transition opens them again."""

    def leave(self) -> None:
        """In a forked child: drop the parent's files and threads without closing them."""


class RunListener(Listener):
    """Receives the outcomes of a recorder's changes, and looks after its runs; this one has no runs."""

    def terminations(self) -> Mapping[str, str]:
        """Return the reason for each active run of this process that the storage has as terminated, by its id."""
        return {}

    def learn(self, terminations: Mapping[str, str]) -> None:
        """Pass terminations on to the runs."""

    def has_runs(self) -> bool:
        """Return whether a run of this process is active."""
        return False


class First:
    """Prepares the real sink at the first transition, and passes that on.

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
        count: called for each.
    """

    def __init__(self, count: Callable[[], None]) -> None:
        self._count = count

    def __getattr__(self, transition: str) -> Any:
        """Return what takes a transition of any kind."""
        return lambda *_: self._count()
