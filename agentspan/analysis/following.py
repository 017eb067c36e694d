"""Follows runs while any process records them: polls a storage, and returns the status changes since the last poll."""

from collections.abc import Iterator
from typing import NamedTuple

from agentspan.analysis.tree import title_of
from agentspan.model import sensitive
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.model.status import OPEN
from agentspan.schemas.meaning import describe
from agentspan.schemas.span_types import Registry
from agentspan.storage.access import scan
from agentspan.storage.answers import SpanCounts
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Counts, Find, SpansOf


class Transition(NamedTuple):
    """A change of the status of a run or a span.

    Attributes:
        at: the time of the change, as stored text.
        status: the new status; `row` may already have a later one.
        row: the run or span.
        depth: the number of spans around a span; 0 for a run and for a root span.
    """

    at: str
    status: str
    row: AgentInstanceRow | AgentSpanRow
    depth: int


class Recent(NamedTuple):
    """The transitions of a run to print when following it begins.

    Attributes:
        run: the start of the run, if it is earlier than `shown`; at most one transition.
        passed: the number of transitions between `run` and `shown`, which are not printed.
        shown: the latest transitions.
    """

    run: list[Transition]
    passed: int
    shown: list[Transition]


def recent(found: list[Transition], at: str, context: int) -> Recent:
    """Select the transitions of a run from a time on, with some earlier ones as context.

    Args:
        found: all transitions of the run so far, by time.
        at: the time, as stored text.
        context: the number of earlier transitions to include; with 0, the start of the run is left out, too.
    """
    before = sum(transition.at < at for transition in found)
    first = max(0, before - context)
    passed = found[:first]
    if not context:
        return Recent([], 0, found[first:])
    start = [t for t in passed if isinstance(t.row, AgentInstanceRow)][-1:]
    return Recent(start, len(passed) - len(start), found[first:])


def title_before(span: AgentSpanRow, types: Registry, limit: int) -> str:
    """Return the title of a span without its outcome, as it was before the span ended."""
    if span.status in OPEN:
        return title_of(span, limit)
    payload = sensitive.read(span.payload)[0]
    meaning = describe(
        types.resolve(span.schema_name), span.schema_name, "active", payload, None, None, check=(False, False)
    )
    return title_of(span._replace(summary=meaning.summary), limit)


class Follower:
    """Follows one run from its start, then the next runs, one at a time.

    Args:
        run: the first run to follow; None for the first run after `after`.
        after: the id of a run; this run and all earlier ones are skipped.
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
        """Return the transitions since the previous call. Rows written during a call are returned by the next one."""
        if self.run is None and not self._begin_next():
            return []
        assert self.run is not None
        run_id = self.run.id  # read the run before its spans, so that a finished run has all its spans
        located = self._storage.ask(Find(run_id, instance_id=run_id)).rows.get(run_id)
        if located is None or not isinstance(located[1], AgentInstanceRow):
            self.leave()
            return []
        self.run = run = located[1]
        found = [*self._of_run(run), *self._of_spans(run)]
        # At equal times, the start of a run sorts before its spans, and the end of a run after them.
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
        """Stop following the current run; the next call of `look` starts with the next run."""
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
        # Statuses only move forward, so equal counts mean that no status changed, and no span needs to be read.
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
    """Yield the time and status of each change of a row since the status `before`; of all changes if it is None."""
    if row.status == "pending" and before is None:
        yield row.inserted_at, "pending"
    if row.started_at is not None and before in (None, "pending") and row.status != "cancelled":
        yield row.started_at, "active"
    if row.status not in OPEN:
        yield row.finished_at or row.updated_at, row.status
