"""The operations on scores over JSON, for HTTP and bulk: each takes a request's fields, returns the API's envelope."""

from collections.abc import Mapping
from typing import Any

from agentspan.errors import InvalidValue, RequiredValue
from agentspan.model import resources
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow, ScoreRow
from agentspan.model.score_resources import score
from agentspan.operations import request, scores
from agentspan.operations.context import Context
from agentspan.operations.envelopes import Envelope

Fields = Mapping[str, Any]
SAID = ("name", "value", "label", "explanation", "source", "identifier", "withdraw", "idempotency_key")


def score_agent_instance(ctx: Context, fields: Fields) -> Envelope:
    """agent_instances/score."""
    return _record(ctx, fields, "agent_instance_id", AgentInstanceRow)


def score_agent_span(ctx: Context, fields: Fields) -> Envelope:
    """agent_spans/score."""
    return _record(ctx, fields, "agent_span_id", AgentSpanRow)


def list_scores_of_instance(ctx: Context, fields: Fields) -> Envelope:
    """The scores of an instance, without those of its spans."""
    return _list(ctx, fields, "agent_instance_id", AgentInstanceRow)


def list_scores_of_span(ctx: Context, fields: Fields) -> Envelope:
    """The scores of a span."""
    return _list(ctx, fields, "agent_span_id", AgentSpanRow)


def _record(ctx: Context, fields: Fields, name: str, target_type: type[scores.Target]) -> Envelope:
    unknown = fields.keys() - {*SAID, name, "_type", "details"}
    if unknown:  # a score without a judge that was named, such as by `by`, would be another score
        raise InvalidValue(min(unknown), f"is no field of a score; there are {', '.join(SAID)}")
    said = {field: value for field, value in fields.items() if field in SAID}
    done = scores.record(ctx, _id(fields, name), target_type=target_type, **said)
    assert isinstance(done.row, ScoreRow)
    return {"status": "success", "details": resources.plain(score(done.row))}


def _list(ctx: Context, fields: Fields, name: str, target_type: type[scores.Target]) -> Envelope:
    with_history = request.flag("include_history", fields.get("include_history"))
    rows = scores.of_target(ctx, _id(fields, name), target_type=target_type, with_history=with_history)
    found = [resources.plain(score(row)) for row in rows]
    return {"status": "success", "summaries": found, "pagination": None, "sorting": None}


def _id(fields: Fields, name: str) -> Any:
    value = fields.get(name)
    if value is None:
        raise RequiredValue(name, "is required")
    return value
