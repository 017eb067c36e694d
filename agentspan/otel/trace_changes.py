"""Turns new spans of a trace into changes: rows to put, stored spans that look different now, columns of their run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentspan.model.changes import Move, Unit
from agentspan.model.rows import AgentSpanRow, Value
from agentspan.operations.context import Context
from agentspan.otel.identity import caller_id, span_id
from agentspan.otel.live_traces import LiveRun, LiveTrace, Seen, look_at, matters, slim
from agentspan.otel.mapping.mapped import Mapped
from agentspan.otel.mapping.resources import program_of
from agentspan.otel.mapping.values import values_in
from agentspan.otel.placing import Placing, named_by
from agentspan.otel.stored_rows import about_of, end_of, metadata_of, rewritten, row_of, times_of
from agentspan.otel.traces import Step, rank_of, root_of
from agentspan.otel.w3c import carried

FINISHED = frozenset({"active", "complete", "failed"})
"""The statuses of a run that its root's end replaces. A terminated one stays terminated."""
_ABOUT = ("session", "user")


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

    trace: LiveTrace
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


def changes_of(ctx: Context, placing: Placing, trace: LiveTrace, steps: Sequence[Step], now: str) -> TraceChanges:
    """Return what spans of a trace change.

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


def moves_of(ctx: Context, trace: LiveTrace, anew: Mapping[str, Mapped], now: str) -> list[Move]:
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
        named = named_by(root, program_of(root.span.resource), found.trace.id, is_root=True)
        columns |= placing.renamed(ctx, run, named, now)
        columns |= end_of(ctx, root.mapped, is_ended=root.span.end_ns is not None, times=times, now=now)
        scopes = sorted(run.scopes, key=lambda name: run.scopes[name])
        columns["metadata"] = metadata_of(ctx, root.span.resource, scopes, found.trace.id)
    elif run.row.status in ("complete", "failed"):
        columns |= {"finished_at": times.finished_at, "duration_ms": times.duration_ms}
    ordered = (root, *new) if found.root and root is not None else new
    for side in _ABOUT:
        said = next((text for step in ordered if (text := getattr(step.mapped.run, side))), None)
        columns[side] = _about(run, getattr(run.row, side), about_of(ctx, said), has_root=found.root > 0)
    run.start_ns = first_ns
    if not found.root:  # an end is written in any case: another process may have closed the run meanwhile
        columns = {name: value for name, value in columns.items() if getattr(run.row, name) != value}
    found.run = columns


def _about(run: LiveRun, stored: Value, said: str | None, *, has_root: bool) -> Value:
    """Return the session, or the user, of a run: the root's word counts most. Traces of a process may differ: None."""
    if not run.is_own:
        return said if stored == said or not run.end_ns else None
    return said if said is not None and (stored is None or has_root) else stored


def _add_scopes(run: LiveRun, steps: Iterable[Step]) -> None:
    for step in steps:
        name, start_ns = step.span.scope.name, step.span.start_ns
        if name:
            run.scopes[name] = min(start_ns, run.scopes.get(name, start_ns))


def units_of_run(run_id: str, columns: Mapping[str, Value], now: str) -> list[Unit]:
    """Return the units that set columns of a run. Its spans get its new agent with it (see Move)."""
    if not columns:
        return []
    return [Unit((Move("agent_instance", run_id, FINISHED, {**columns, "updated_at": now}),))]
