"""Follows runs while they are recorded, in any process: returns the changes since the last look, by time."""

from collections.abc import Iterator
from typing import NamedTuple

from agentspan.analysis.tree import title_of
from agentspan.model import sensitive
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.model.status import OPEN
from agentspan.schemas.meaning import describe
from agentspan.schemas.span_types import Registry
from agentspan.storage.answers import SpanCounts
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Counts, Find, SpansOf
from agentspan.storage.scanning import scan


class Transition(NamedTuple):
    """A run or a span that reached a status.

    Attributes:
        at: when, as stored text.
        status: the status that it reached; the row may have a later one.
        depth: how deep a span lies in its run; 0 for a run and for what has no parent.
    """

    at: str
    status: str
    row: AgentInstanceRow | AgentSpanRow
    depth: int


class Recent(NamedTuple):
    """The transitions of a run that a reader is shown first.

    Attributes:
        run: the start of the run, if it lies before the others; at most one.
        passed: how many transitions between it and the others are not shown.
        shown: the last ones.
    """

    run: list[Transition]
    passed: int
    shown: list[Transition]


def recent(found: list[Transition], at: str, context: int) -> Recent:
    """Split the transitions of a run: those from a time on are shown, and so many before it.

    Args:
        found: all transitions of the run so far, by time.
        at: the time, as stored text.
        context: how many earlier ones are shown; with 0 the start of the run is not, either.
    """
    before = sum(transition.at < at for transition in found)
    first = max(0, before - context)
    passed = found[:first]
    if not context:
        return Recent([], 0, found[first:])
    start = [t for t in passed if isinstance(t.row, AgentInstanceRow)][-1:]
    return Recent(start, len(passed) - len(start), found[first:])


def title_before(span: AgentSpanRow, types: Registry, limit: int) -> str:
    """Return the title that a span had before it ended: the summary of its payload, without an outcome."""
    if span.status in OPEN:
        return title_of(span, limit)
    payload = sensitive.read(span.payload)[0]
    meaning = describe(
        types.resolve(span.schema_name), span.schema_name, "active", payload, None, None, check=(False, False)
    )
    return title_of(span._replace(summary=meaning.summary), limit)


class Follower:
    """Follows a run from its start, and then later runs, one at a time.

    Args:
        run: the run to begin with; None for the first one after `after`.
        after: the id of a run that is passed over, like all before it.
    """

    def __init__(self, storage: Storage, run: AgentInstanceRow | None = None, *, after: str = "") -> None:
        self._storage = storage
        self._after = after
        self.run = run
        self._run_status: str | None = None
        self._counts: SpanCounts | None = None
        self._known: dict[str, str] = {}
        self._depths: dict[str, int] = {}

    def look(self) -> list[Transition]:
        """Return the transitions since the last look. Rows that are written meanwhile are returned by the next look."""
        if self.run is None and not self._begin_next():
            return []
        assert self.run is not None
        run_id = self.run.id  # found before its spans: those of a finished run are then all there
        located = self._storage.ask(Find(run_id, instance_id=run_id)).rows.get(run_id)
        if located is None or not isinstance(located[1], AgentInstanceRow):
            self.leave()
            return []
        self.run = run = located[1]
        found = [*self._of_run(run), *self._of_spans(run)]
        # By time; where that is the same, a run begins before its spans and ends after them.
        found.sort(key=lambda t: (t.at, _ends_run(t), not isinstance(t.row, AgentInstanceRow), t.depth))
        return found

    def is_over(self) -> bool:
        """Return whether the followed run has ended and has no open span."""
        counts = self._counts
        return (
            self.run is not None
            and self.run.status not in OPEN
            and counts is not None
            and not counts.pending
            and not counts.active
        )

    def leave(self) -> None:
        """Go on to the next run."""
        if self.run is not None:
            self._after = self.run.id
        self.run = self._run_status = self._counts = None
        self._known.clear()
        self._depths.clear()

    def _begin_next(self) -> bool:
        self.run = next(scan(self._storage, AgentInstanceRow, after=self._after, limit=1), None)
        return self.run is not None

    def _of_run(self, run: AgentInstanceRow) -> Iterator[Transition]:
        before, self._run_status = self._run_status, run.status
        yield from (Transition(at, status, run, 0) for at, status in _since(run, before))

    def _of_spans(self, run: AgentInstanceRow) -> Iterator[Transition]:
        # Statuses only move forward, so equal counts mean that nothing moved: then no span needs to be read.
        counts = self._storage.ask(Counts([run.id]))[run.id]
        if counts == self._counts:
            return
        self._counts = counts
        for span in self._storage.ask(SpansOf(run.id)):
            before = self._known.get(span.id)
            if before == span.status:
                continue
            self._known[span.id] = span.status
            depth = self._depths.get(span.parent_span_id or "", -1) + 1
            self._depths[span.id] = depth
            yield from (Transition(at, status, span, depth) for at, status in _since(span, before))


def _ends_run(transition: Transition) -> bool:
    return isinstance(transition.row, AgentInstanceRow) and transition.status not in OPEN


def _since(row: AgentInstanceRow | AgentSpanRow, before: str | None) -> Iterator[tuple[str, str]]:
    """Yield the statuses that a row reached after an earlier one."""
    if row.status == "pending" and before is None:
        yield row.inserted_at, "pending"
    if row.started_at is not None and before in (None, "pending") and row.status != "cancelled":
        yield row.started_at, "active"
    if row.status not in OPEN:
        yield row.finished_at or row.updated_at, row.status
