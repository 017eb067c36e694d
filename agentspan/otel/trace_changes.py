"""Turns new spans of a trace into changes: rows to put, stored spans that look different now, columns of their run.

Runs whose root never arrives, and runs of processes, end some time after their last span.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from agentspan import clock
from agentspan.api.context import Context
from agentspan.model.changes import Move, Unit
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow, AgentVersionRow, Value
from agentspan.otel.identity import caller_id, span_id
from agentspan.otel.mapping.mapped import Mapped
from agentspan.otel.mapping.values import values_in
from agentspan.otel.placing import Placing
from agentspan.otel.recent_traces import RecentRun, RecentTrace, Seen, look_at, matters, slim
from agentspan.otel.stored_rows import about_of, end_of, ns_of, object_of, rewritten, row_of, stored_mapped, times_of
from agentspan.otel.traces import RunName, Step, conversation, name_of_trace, rank_of, root_of, run_metadata, trace_key
from agentspan.otel.w3c import carried
from agentspan.storage.questions import Find, Query, SpansOf

FINISHED = frozenset({"active", "complete", "failed"})
"""The statuses of a run that its root's end replaces. A terminated one stays terminated."""


@dataclass
class TraceChanges:
    """The changes that new spans make.

    Attributes:
        rows: of the new spans, by their id.
        again: the moves of stored spans that look different now.
        relevant: the new spans on which others depend.
        seen: how those look.
        run: the columns of the run that change.
        before: the row of the run without them.
        end_ns: when the last span of the run ended, as far as is known; 0 if none did.
        root: traces.rank_of the run's root, if it is among the new spans; else 0.
    """

    trace: RecentTrace
    rows: dict[str, AgentSpanRow] = field(default_factory=dict)
    again: list[Move] = field(default_factory=list)
    relevant: list[Step] = field(default_factory=list)
    seen: Seen = field(default_factory=lambda: Seen({}, {}))
    run: dict[str, Value] = field(default_factory=dict)
    end_ns: int = 0
    root: int = 0

    def __post_init__(self) -> None:
        self.before = self.trace.run.row

    @property
    def duplicates(self) -> set[str]:
        """The ids of the new spans that repeat a call of a model."""
        return {id for id, look in self.seen.looks.items() if look.kept is not None and id in self.rows}

    @property
    def step_bytes(self) -> dict[str, int]:
        """The bytes that each of the new spans on which others depend takes in memory, about."""
        rows = (self.rows[step.span.span_id] for step in self.relevant)
        return {row.id: 1000 + _memory_of(row.payload) + _memory_of(row.result_payload or "") for row in rows}

    @property
    def id_bytes(self) -> int:
        """The bytes that the ids of the new spans take."""
        return 120 * len(self.rows)

    def done(self, seen_s: float) -> None:
        """Note in the trace and its run that all of it is stored."""
        run = self.trace.run
        columns: dict[str, Any] = self.run
        run.row = run.row._replace(**columns)
        if "agent_id" in columns:
            run.named = None
        run.root = max(run.root, self.root)
        run.end_ns = max(run.end_ns, self.end_ns)
        run.start_ns = min([run.start_ns, *(step.span.start_ns for step in self.relevant)])
        run.seen_s = seen_s
        self.trace.seen.update(id for id, row in self.rows.items() if row.closed_by is None)
        self.trace.written.update(self.seen.looks)
        if self.trace.above is not None:  # the next trace may tell of another call of the same one
            self.trace.steps.update({step.span.span_id: step for step in self.relevant})


def _memory_of(payload: str) -> int:
    """Return how many bytes a payload takes, about: 160 a value and its name. Commas in prose have a blank behind."""
    return 2 * len(payload) + 160 * (values_in(payload) - payload.count(", "))


def changes_of(ctx: Context, placing: Placing, trace: RecentTrace, steps: Sequence[Step], now: str) -> TraceChanges:
    """Return the changes that spans of a trace make.

    Args:
        steps: in the order of their starts; those that are known to be stored are left out.
        now: stored text.
    """
    run = trace.run
    new: list[tuple[Step, tuple[str, str | None]]] = []
    ids: dict[str | None, str | None] = {None: None}  # siblings have one parent, and it may be here
    for step in steps:
        for each in (step.span.span_id, step.span.parent_span_id):
            if each is not None and each not in ids:
                ids[each] = span_id(run.row.id, trace.id, each)
        own, above = ids[step.span.span_id], ids[step.span.parent_span_id] or trace.above
        assert own is not None
        if own not in trace.seen:
            if step.span.trace_state:
                parent = step.span.parent_span_id
                above = parent and caller_id(run.row.id, carried(step.span.trace_state), trace.id, parent)
            new.append((step, (own, above)))
    found = TraceChanges(trace)
    if not new:
        return found
    slimmed = (slim(step, *own) for step, own in new if matters(step.mapped) and own[0] not in trace.steps)
    found.relevant = [*slimmed]
    if found.relevant:
        found.seen = look_at(trace, found.relevant)
    ends = (step.span.end_ns for step, _ in new if step.span.end_ns is not None)
    found.end_ns = max([run.end_ns, *ends])
    looks = found.seen.mapped
    for step, both in new:
        mapped = looks.get(both[0], step.mapped)
        found.rows[both[0]] = row_of(ctx, step.span, mapped, run.row, both, found.end_ns or None, now)
    found.again = moves_of(ctx, trace, {id: mapped for id, mapped in looks.items() if id not in found.rows}, now)
    _add_run(ctx, placing, found, [step for step, _ in new], now)
    return found


def moves_of(ctx: Context, trace: RecentTrace, anew: Mapping[str, Mapped], now: str) -> list[Move]:
    """Return the moves that store spans of a trace anew, by their ids."""
    moves: list[Move] = []
    for id, mapped in anew.items():
        span = trace.steps[id].span
        row = row_of(ctx, span, mapped, trace.run.row, (id, span.parent_span_id), trace.run.end_ns or None, now)
        moves.append(rewritten(row))
    return moves


def _add_run(ctx: Context, placing: Placing, found: TraceChanges, new: Sequence[Step], now: str) -> None:
    """Set the columns of the run that its new spans change."""
    run = found.trace.run
    if run.is_recorded:
        return
    _add_scopes(run, new)
    first_ns = min(run.start_ns, new[0].span.start_ns)
    times = times_of(first_ns, found.end_ns or None)
    columns: dict[str, Value] = {"started_at": times.started_at}
    root = root_of(new) if run.is_own and found.trace.above is None else None
    if root is not None and rank_of(root.span) > run.root:
        found.root = rank_of(root.span)
        named = name_of_trace(root.span, root.mapped.run, is_own=root.mapped.run.is_own)
        columns |= placing.renamed(ctx, run, named, now)
        columns |= end_of(ctx, root.mapped, is_ended=root.span.end_ns is not None, times=times, now=now)
        scopes = sorted(run.scopes, key=lambda name: run.scopes[name])
        columns["metadata"] = object_of(ctx, run_metadata(root.span.resource, scopes, found.trace.id))
    elif run.row.status in ("complete", "failed"):
        columns |= {"finished_at": times.finished_at, "duration_ms": times.duration_ms}
    ordered = (root, *new) if found.root and root is not None else new
    for side, said in zip(("session", "user"), conversation(ordered), strict=True):
        columns[side] = _about(run, getattr(run.row, side), about_of(ctx, said), has_root=found.root > 0)
    run.start_ns = first_ns
    if not found.root:  # an end is written in any case: another process may have closed the run meanwhile
        columns = {name: value for name, value in columns.items() if getattr(run.row, name) != value}
    found.run = columns


def _about(run: RecentRun, stored: Value, said: str | None, *, has_root: bool) -> Value:
    """Return the session, or the user, of a run: the root's word counts most. Traces of a process may differ: None."""
    if not run.is_own:
        return said if stored == said or not run.end_ns else None
    return said if said is not None and (stored is None or has_root) else stored


def _add_scopes(run: RecentRun, steps: Iterable[Step]) -> None:
    for step in steps:
        name, start_ns = step.span.scope.name, step.span.start_ns
        if name:
            run.scopes[name] = min(start_ns, run.scopes.get(name, start_ns))


def units_of_run(run_id: str, columns: Mapping[str, Value], now: str) -> list[Unit]:
    """Return the units that set columns of a run. The storage gives a new agent to its spans, too."""
    if not columns:
        return []
    return [Unit((Move("agent_instance", run_id, FINISHED, {**columns, "updated_at": now}),))]


_KEY = trace_key("").partition(":")[0] + ":"


class _Outline(NamedTuple):
    """The part of a stored span that its run's end depends on: a run may have more payloads than fit into memory."""

    started_at: str
    id: str
    parent: str | None
    end_ns: int


def _outline(row: AgentSpanRow) -> _Outline:
    return _Outline(row.started_at or "", row.id, row.parent_span_id, ns_of(row.finished_at))


def _row(ctx: Context, id: str, instance_id: str) -> AgentSpanRow:
    _, row = ctx.storage.ask(Find(id, instance_id=instance_id)).rows[id]
    assert isinstance(row, AgentSpanRow)
    return row


def is_to_end(run: RecentRun) -> bool:
    """Return whether a run is active, and no program records it."""
    return run.row.status == "active" and not run.is_recorded


def end(ctx: Context, placing: Placing, run: RecentRun) -> bool:
    """End a run that is active; return whether it was.

    One whose root is missing ends as its first span did. That is a guess: its root replaces it when it comes. One that
    a program records goes on.
    """
    if not is_to_end(run):
        return False
    before, now = run.row, clock.now()
    has_spans = run.is_own or run.is_loaded
    spans = [_outline(row) for row in ctx.storage.ask(SpansOf(before.id))] if has_spans else []
    times = times_of(run.start_ns, max([run.end_ns, *(span.end_ns for span in spans)]) or None)
    columns: dict[str, Any] = {"finished_at": times.finished_at, "duration_ms": times.duration_ms}
    columns["status"] = "complete"
    ids = {span.id for span in spans}
    tops = [span for span in spans if span.parent not in ids] if run.is_own else []
    if tops:
        mapped = stored_mapped(_row(ctx, min(tops).id, before.id))
        columns |= placing.renamed(ctx, run, _named(ctx, run, mapped), now)
        columns |= end_of(ctx, mapped, is_ended=True, times=times, now=now)
        columns |= {"closed_by": "abandoned", "closed_at": now}
    ctx.storage.apply(units_of_run(before.id, columns, now), wait_s=ctx.wait_s)
    if "agent_id" in columns:
        placing.remove_unused(ctx, [before])
    run.row = before._replace(**columns)
    return True


def _named(ctx: Context, run: RecentRun, mapped: Mapped) -> RunName:
    """Return the name of a run whose root is missing: that of its first span."""
    version = ctx.row(AgentVersionRow, run.row.agent_version_id).external_identifier
    name = mapped.payload.get("name") if mapped.type == "agent" else mapped.payload.get("otel", {}).get("name")
    return RunName(run.row.external_identifier or "", name if type(name) is str else mapped.schema_name, version)


def open_runs(ctx: Context) -> Iterator[AgentInstanceRow]:
    """Yield the active runs that came from OpenTelemetry."""
    for row in ctx.storage.ask(Query("agent_instance", {"status": "active"})).rows:
        if isinstance(row, AgentInstanceRow) and (row.external_identifier or "").startswith(_KEY):
            yield row
