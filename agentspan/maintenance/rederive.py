"""Derives summaries and costs of stored spans again, after templates or prices have changed."""

from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from typing import Any, NamedTuple

from agentspan import clock
from agentspan.api.context import Context
from agentspan.model import columns
from agentspan.model.changes import Applied, Move, Unit
from agentspan.model.rows import AgentInstanceRow, AgentSchemaVersionRow, AgentSpanRow
from agentspan.schemas.prices import own_prices
from agentspan.schemas.span_types import Registry, describe, from_schemas, label_of
from agentspan.storage.access import scan
from agentspan.storage.questions import SpansOf

BATCH = 500


class Progress(NamedTuple):
    """The counts of one batch: `seen` spans were derived again, and `changed` of them were changed."""

    seen: int
    changed: int


def summaries(ctx: Context, instances: Iterator[AgentInstanceRow]) -> Iterator[Progress]:
    """Derive the spans of instances again by the newest span types of each instance's agent; yield after each batch.

    Summary, label, tokens, cost and `is_aggregate` are set, and no other column. A span without a difference is not
    written.
    """
    newest = cache(lambda agent_id: _newest(ctx, agent_id))
    return _moved(ctx, instances, lambda instance, span: _summary(newest(instance.agent_id), span))


def costs(ctx: Context, instances: Iterator[AgentInstanceRow]) -> Iterator[Progress]:
    """Derive the costs of finished spans again by today's prices; yield after each batch.

    A cost in a payload stays. A model without known prices gets no cost, never zero.

    Raises:
        InvalidValue: the user's own file of prices cannot be read.
    """
    own_prices()
    return _moved(ctx, instances, lambda _, span: _cost(ctx, span))


def _moved(
    ctx: Context,
    instances: Iterator[AgentInstanceRow],
    derived: Callable[[AgentInstanceRow, AgentSpanRow], dict[str, Any]],
) -> Iterator[Progress]:
    """Write the derived columns of each span that differ from the stored ones, in batches."""
    for instance in instances:
        spans = iter(ctx.storage.ask(SpansOf(instance.id)))
        while batch := [(span, derived(instance, span)) for span in islice(spans, BATCH)]:
            yield _write(ctx, batch)


def _write(ctx: Context, derived: list[tuple[AgentSpanRow, dict[str, Any]]]) -> Progress:
    units = []
    for span, fresh in derived:
        if any(getattr(span, name) != value for name, value in fresh.items()):
            # The guard is the status for which the columns were derived: a span that finishes meanwhile has newer ones.
            values, run_id = {**fresh, "updated_at": clock.now()}, span.agent_instance_id
            units.append(Unit((Move("agent_span", span.id, frozenset({span.status}), values, instance_id=run_id),)))
    outcomes = ctx.storage.apply(units, wait_s=ctx.wait_s) if units else []
    return Progress(len(derived), sum(isinstance(outcome, Applied) for outcome in outcomes))


def _newest(ctx: Context, agent_id: str) -> Registry:
    row = next(scan(ctx.storage, AgentSchemaVersionRow, {"agent_id": agent_id}, descending=True, limit=1), None)
    return Registry() if row is None else from_schemas(row.span_type_schemas)


def _summary(registry: Registry, span: AgentSpanRow) -> dict[str, Any]:
    span_type, (payload, result) = registry.resolve(span.schema_name), _payloads(span)
    check = (False, False)
    meaning = describe(span_type, span.schema_name, span.status, payload, result, span.duration_ms, check)
    meaning = meaning._replace(label=label_of(span_type, payload) if isinstance(payload, dict) else None)
    fresh = meaning.by_column()
    if meaning.cost_usd is None:  # else a cost that follows from prices would be lost
        fresh["cost_usd"] = span.cost_usd
    if span_type.lacks_liquid:  # another program rendered it, with python-liquid
        fresh["summary"] = span.summary
    return fresh


def _cost(ctx: Context, span: AgentSpanRow) -> dict[str, Any]:
    span_type = ctx.registry_of(span.agent_instance_id).resolve(span.schema_name)
    if span.finished_at is None or (span_type.label_field != "model" and span.is_aggregate == span_type.is_aggregate):
        return {}
    payload, result = _payloads(span)
    meaning = describe(span_type, span.schema_name, span.status, payload, result, span.duration_ms, (False, True))
    return {"cost_usd": meaning.cost_usd}


def _payloads(span: AgentSpanRow) -> tuple[Any, Any]:
    result = span.result_payload
    return columns.read_payload(span.payload)[0], None if result is None else columns.read_payload(result)[0]
