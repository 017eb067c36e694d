"""Computes the costs of stored calls of models again: after prices have changed, or for runs that have none."""

from collections.abc import Iterator
from typing import NamedTuple

from agentspan import clock
from agentspan.api.context import Context
from agentspan.model import sensitive
from agentspan.model.changes import Applied, Move, Unit
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.schemas.meaning import describe
from agentspan.schemas.prices import own_prices
from agentspan.storage.questions import SpansOf

BATCH = 500


class Repriced(NamedTuple):
    """Counts since the previous one: spans that were looked at, and those of them whose cost changed."""

    seen: int
    changed: int


def reprice(ctx: Context, instances: Iterator[AgentInstanceRow]) -> Iterator[Repriced]:
    """Set the costs of finished spans by today's prices; yield after each batch.

    A cost that a payload has stays; a model without known prices has none, never zero.

    Raises:
        InvalidValue: the file of prices of one's own cannot be read.
    """
    own_prices()
    for instance in instances:
        batch: list[AgentSpanRow] = []
        for span in ctx.storage.ask(SpansOf(instance.id)):
            batch.append(span)
            if len(batch) == BATCH:
                yield _reprice(ctx, batch)
                batch = []
        if batch:
            yield _reprice(ctx, batch)


def _reprice(ctx: Context, spans: list[AgentSpanRow]) -> Repriced:
    units = [Unit((move,)) for span in spans if (move := _move(ctx, span)) is not None]
    outcomes = ctx.storage.apply(units, wait_s=ctx.wait_s) if units else []
    return Repriced(len(spans), sum(isinstance(outcome, Applied) for outcome in outcomes))


def _move(ctx: Context, span: AgentSpanRow) -> Move | None:
    span_type = ctx.registry_of(span.agent_instance_id).resolve(span.schema_name)
    if span.finished_at is None or (span_type.label_field != "model" and span.is_aggregate == span_type.is_aggregate):
        return None
    payload = sensitive.read(span.payload)[0]
    result = None if span.result_payload is None else sensitive.read(span.result_payload)[0]
    cost = describe(span_type, span.schema_name, span.status, payload, result, span.duration_ms, (False, True)).cost_usd
    if cost == span.cost_usd:
        return None
    values = {"cost_usd": cost, "updated_at": clock.now()}
    return Move("agent_span", span.id, frozenset({span.status}), values, instance_id=span.agent_instance_id)
