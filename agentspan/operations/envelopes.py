"""The API's envelopes: how HTTP and bulk write a row, a page of rows, or an error."""

from collections.abc import Mapping
from typing import Any

from agentspan.errors import AgentspanError, InvalidAction, ValidationErrors
from agentspan.model import resources
from agentspan.model.agents import available_actions
from agentspan.model.columns import put_values
from agentspan.model.pages import pagination
from agentspan.model.rows import (
    AgentInstanceRow,
    AgentRow,
    AgentSchemaVersionRow,
    AgentSpanRow,
    AgentVersionRow,
    Row,
)
from agentspan.operations import agents
from agentspan.operations.context import Context, Done
from agentspan.operations.run_details import details_of
from agentspan.storage.protocol import Rows
from agentspan.storage.scores import Said, said_of

Envelope = dict[str, Any]


def of_row(ctx: Context, row: Row, *, terminated: str | None = None, **beside: Any) -> Envelope:
    """Return the envelope of one resource; with the control signal if its instance was terminated."""
    return {"status": "success", "details": details(ctx, row), **beside, **_control(terminated)}


def _control(terminated: str | None) -> Envelope:
    return {} if terminated is None else {"control": {"terminate": True, "reason": terminated}}


def of_done(ctx: Context, outcome: Done) -> Envelope:
    """Return the envelope of an operation's result; with the control signal for spans, and for ends of instances."""
    return of_row(ctx, outcome.row, terminated=outcome.control)


def of_page(
    ctx: Context, page: Rows, *, sorting: str | None, offset: int, page_size: int, summaries: bool = True
) -> Envelope:
    """Return the envelope of a list."""
    runs = [row.id for row in page.rows if isinstance(row, AgentInstanceRow)]
    counts, said = (ctx.storage.counts(runs), said_of(ctx.storage, runs)) if runs else ({}, {})
    purposes = ctx.purposes_of(row for row in page.rows if isinstance(row, AgentSpanRow))
    items = [_resource(ctx, row, counts, said, purposes, summaries=summaries) for row in page.rows]
    field = (sorting or "id").removeprefix("-")
    direction = "desc" if (sorting or "").startswith("-") else "asc"
    return {
        "status": "success",
        "summaries": items,
        "pagination": pagination(page.counted(), offset, page_size).model_dump(),
        "sorting": {"field": field, "direction": direction} if sorting else None,
    }


def details(ctx: Context, row: Row) -> Envelope:
    """Return one resource with all its fields."""
    if isinstance(row, AgentSpanRow):
        return span(row, ctx.account.id, ctx.purpose_of(row))
    if isinstance(row, AgentRow):
        counts = agents.instance_counts(ctx, row.id)
        actions = available_actions(row, has_instances=counts["total"] > 0)
        return resources.plain(resources.agent(row, ctx.account, actions=actions, counts=counts))
    if isinstance(row, AgentInstanceRow):
        return resources.plain(details_of(ctx.storage, row, ctx.account))
    return _resource(ctx, row, {}, {}, {})


def _resource(
    ctx: Context,
    row: Row,
    counts: Mapping[str, Any],
    said: Mapping[str, Said],
    purposes: Mapping[str, str],
    *,
    summaries: bool = True,
) -> Envelope:
    account = ctx.account
    if isinstance(row, AgentSpanRow):
        return span(row, account.id, purposes[row.agent_instance_id], summary=summaries)
    if isinstance(row, AgentInstanceRow):
        return resources.plain(resources.instance(row, account, counts[row.id]._asdict(), **said[row.id]._asdict()))
    if isinstance(row, AgentRow):
        return resources.plain(resources.agent(row, account))
    if isinstance(row, AgentVersionRow):
        return resources.plain(resources.agent_version(row, account))
    assert isinstance(row, AgentSchemaVersionRow)
    return resources.plain(resources.schema_version(row, account))


_SPAN: Envelope = dict.fromkeys(
    (
        "type",
        "id",
        "account_id",
        *AgentSpanRow._fields,
        "purpose",
        "payload_byte_size_estimate",
        "risk_level",
        "risk_score",
    )
)
"""The members of a span, in their order. A copy has room for all of them; a dict that grows takes twice as long."""
_SPAN["type"] = "agent_span"


def span(row: AgentSpanRow, account_id: str, purpose: str, *, summary: bool = True) -> Envelope:
    """Return a span as the API writes it, straight from its row: a model in between costs 15 µs."""
    answer = _SPAN.copy()
    put_values(row, answer)
    answer["account_id"] = account_id
    answer["purpose"] = purpose
    answer["payload_byte_size_estimate"] = resources.byte_size(row)
    if not summary:
        answer["summary"] = None
    return answer


def of_error(error: AgentspanError) -> Envelope:
    """Return the envelope of an error."""
    answer: Envelope = {"status": "error", "code": error.code, "message": str(error)}
    if isinstance(error, ValidationErrors):
        errors: dict[str, dict[str, str]] = {}
        for field, problem in zip(error.fields, error.problems, strict=True):
            message = problem.partition(": ")[2]
            told = errors.setdefault(field, {"code": "invalid_value", "message": message})
            if told["message"] != message:
                told["message"] += f"; {message}"
        answer["errors"] = errors
    if isinstance(error, InvalidAction):
        answer.update(_control(error.terminated))
    return answer
