"""Ends the runs whose root never arrives, some time after their last span, and the runs of processes."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from agentspan import clock
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow, AgentVersionRow
from agentspan.operations.context import Context
from agentspan.otel.live_traces import LiveRun, Named
from agentspan.otel.mapping.mapped import Mapped
from agentspan.otel.placing import Placing
from agentspan.otel.stored_rows import end_of, ns_of, stored_mapped, times_of
from agentspan.otel.trace_changes import units_of_run
from agentspan.otel.traces import trace_key
from agentspan.storage.questions import Find, Query, SpansOf

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


def is_to_end(run: LiveRun) -> bool:
    """Return whether a run is active, and no program records it."""
    return run.row.status == "active" and not run.is_recorded


def end(ctx: Context, placing: Placing, run: LiveRun) -> bool:
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


def _named(ctx: Context, run: LiveRun, mapped: Mapped) -> Named:
    """Return the name of a run whose root is missing: that of its first span."""
    version = ctx.row(AgentVersionRow, run.row.agent_version_id).external_identifier
    name = mapped.payload.get("name") if mapped.type == "agent" else mapped.payload.get("otel", {}).get("name")
    return Named(run.row.external_identifier or "", name if type(name) is str else mapped.schema_name, version)


def open_runs(ctx: Context) -> Iterator[AgentInstanceRow]:
    """Yield the active runs that came from OpenTelemetry."""
    for row in ctx.storage.ask(Query("agent_instance", {"status": "active"})).rows:
        if isinstance(row, AgentInstanceRow) and (row.external_identifier or "").startswith(_KEY):
            yield row
