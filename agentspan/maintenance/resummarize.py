"""Renders the summaries of stored spans again, after a template has changed."""

from collections.abc import Iterator
from typing import NamedTuple

from agentspan import clock
from agentspan.api.context import Context
from agentspan.model import sensitive
from agentspan.model.changes import Applied, Move, Unit
from agentspan.model.rows import AgentInstanceRow, AgentSchemaVersionRow, AgentSpanRow
from agentspan.schemas.meaning import describe, label_of
from agentspan.schemas.span_types import Registry, from_schemas
from agentspan.storage.questions import Query, SpansOf

BATCH = 500


class Progress(NamedTuple):
    """Counts since the previous Progress: spans that were rendered, and those of them that changed."""

    seen: int
    changed: int


def resummarize(ctx: Context, instances: Iterator[AgentInstanceRow]) -> Iterator[Progress]:
    """Render again the spans of these instances, by the newest span types of each one's agent; yield after each batch.

    Summary, label, tokens, cost and `is_aggregate` are set; nothing else of a span is touched, and one that is the same
    is not written.
    """
    newest: dict[str, Registry] = {}
    for instance in instances:
        registry = newest.get(instance.agent_id)
        if registry is None:
            registry = newest[instance.agent_id] = _newest(ctx, instance.agent_id)
        batch: list[AgentSpanRow] = []
        for span in ctx.storage.ask(SpansOf(instance.id)):
            batch.append(span)
            if len(batch) == BATCH:
                yield _render(ctx, registry, batch)
                batch = []
        if batch:
            yield _render(ctx, registry, batch)


def _newest(ctx: Context, agent_id: str) -> Registry:
    query = Query("agent_schema_version", {"agent_id": agent_id}, descending=True, limit=1)
    rows = ctx.storage.ask(query).rows
    row = rows[0] if rows else None
    return from_schemas(row.span_type_schemas) if isinstance(row, AgentSchemaVersionRow) else Registry()


def _render(ctx: Context, registry: Registry, spans: list[AgentSpanRow]) -> Progress:
    units = [Unit((move,)) for span in spans if (move := _move(registry, span)) is not None]
    outcomes = ctx.storage.apply(units, wait_s=ctx.wait_s) if units else []
    return Progress(len(spans), sum(isinstance(outcome, Applied) for outcome in outcomes))


def _move(registry: Registry, span: AgentSpanRow) -> Move | None:
    span_type, payload = registry.resolve(span.schema_name), sensitive.read(span.payload)[0]
    meaning = describe(
        span_type,
        span.schema_name,
        span.status,
        payload,
        None if span.result_payload is None else sensitive.read(span.result_payload)[0],
        span.duration_ms,
        check=(False, False),
    )._replace(label=label_of(span_type, payload) if isinstance(payload, dict) else None)
    fresh = meaning.by_column()
    if meaning.cost_usd is None:  # else a cost that follows from prices would be lost
        fresh["cost_usd"] = span.cost_usd
    if span_type.lacks_liquid:  # another program rendered it, with python-liquid
        fresh["summary"] = span.summary
    if all(getattr(span, name) == value for name, value in fresh.items()):
        return None
    # Guarded by the status it was rendered for: a span that finishes meanwhile has a newer summary than this one.
    values, run_id = {**fresh, "updated_at": clock.now()}, span.agent_instance_id
    return Move("agent_span", span.id, frozenset({span.status}), values, instance_id=run_id)
