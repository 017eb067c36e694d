"""The API's envelopes: how HTTP and bulk write a row, a page of rows, or an error."""

from collections.abc import Iterator, Mapping, Sequence
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
from agentspan.operations.context import Context, Done
from agentspan.operations.details import details_of, instance_counts
from agentspan.storage.protocol import CutRows, Rows
from agentspan.storage.scores import Said, said_of

Envelope = dict[str, Any]


class JsonText(str):
    """A value as the JSON text that is stored: it is sent without being decoded."""


class InPieces(Envelope):
    """An object that is too large to be made at once. A member may be JsonText, or an iterator instead of a list.

    Whoever sends it (see serve.responses) keeps one item in memory at a time.
    """


def of_row(ctx: Context, row: Row, *, terminated: str | None = None, **beside: Any) -> Envelope:
    """Return the envelope of one resource; with the control signal if its instance was terminated."""
    resource = details(ctx, row)
    make = InPieces if isinstance(resource, InPieces) else Envelope
    return make(status="success", details=resource, **beside, **_control(terminated))


def of_one(details: Envelope) -> Envelope:
    """Return the envelope of a resource that is made already."""
    return {"status": "success", "details": details}


def of_all(items: Sequence[Envelope]) -> Envelope:
    """Return the envelope of a list without pages."""
    return {"status": "success", "summaries": items, "pagination": None, "sorting": None}


def _control(terminated: str | None) -> Envelope:
    return {} if terminated is None else {"control": {"terminate": True, "reason": terminated}}


def of_done(ctx: Context, outcome: Done) -> Envelope:
    """Return the envelope of an operation's result; with the control signal for spans, and for ends of instances."""
    return of_row(ctx, outcome.row, terminated=outcome.control)


def of_page(
    ctx: Context, page: Rows, *, sorting: str | None, offset: int, page_size: int, summaries: bool = True
) -> Envelope:
    """Return the envelope of a list; in pieces if it is large (see Context.piece_bytes)."""
    place = _place(page, sorting, offset, page_size)
    if isinstance(page, CutRows):
        ids = [*(row.id for row in page.rows), *page.rest]
        return InPieces(status="success", summaries=_one_by_one(ctx, ids, summaries=summaries), **place)
    items = _resources(ctx, page.rows, summaries=summaries)
    if InPieces in map(type, items):
        return InPieces(status="success", summaries=iter(items), **place)
    return {"status": "success", "summaries": items, **place}


def _one_by_one(ctx: Context, ids: Sequence[str], *, summaries: bool) -> Iterator[Envelope]:
    """Read the items of a page one by one, each as it is then, and yield them. What was removed since is left out.

    Those that were read already are read again: many answers may wait for their clients at the same time.
    """
    for id in ids:
        found = _resources(ctx, [row for _, row in ctx.storage.find(id).rows.values()], summaries=summaries)
        while found:
            yield found.pop()


def _place(page: Rows, sorting: str | None, offset: int, page_size: int) -> Envelope:
    field = (sorting or "id").removeprefix("-")
    direction = "desc" if (sorting or "").startswith("-") else "asc"
    return {
        "pagination": pagination(page.counted(), offset, page_size).model_dump(),
        "sorting": {"field": field, "direction": direction} if sorting else None,
    }


def _resources(ctx: Context, rows: Sequence[Row], *, summaries: bool) -> list[Envelope]:
    runs = [row.id for row in rows if isinstance(row, AgentInstanceRow)]
    counts, said = (ctx.storage.counts(runs), said_of(ctx.storage, runs)) if runs else ({}, {})
    purposes = ctx.purposes_of(row for row in rows if isinstance(row, AgentSpanRow))
    return [_resource(ctx, row, counts, said, purposes, summaries=summaries) for row in rows]


def details(ctx: Context, row: Row) -> Envelope:
    """Return one resource with all its fields."""
    if isinstance(row, AgentSpanRow):
        return span(row, ctx.account.id, ctx.purpose_of(row), piece_bytes=ctx.piece_bytes)
    if isinstance(row, AgentRow):
        counts = instance_counts(ctx.storage, row.id)
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
        purpose = purposes[row.agent_instance_id]
        return span(row, account.id, purpose, summary=summaries, piece_bytes=ctx.piece_bytes)
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


def span(
    row: AgentSpanRow, account_id: str, purpose: str, *, summary: bool = True, piece_bytes: int | None = None
) -> Envelope:
    """Return a span as the API writes it, straight from its row: a model in between costs 15 µs.

    Args:
        piece_bytes: bytes of payloads from which they stay text.
    """
    size = resources.byte_size(row)
    if piece_bytes is not None and size > piece_bytes:
        answer: Envelope = InPieces(_SPAN)
        put_values(row._replace(payload="{}", result_payload=None), answer)
        answer["payload"] = JsonText(row.payload)
        answer["result_payload"] = None if row.result_payload is None else JsonText(row.result_payload)
    else:
        answer = _SPAN.copy()
        put_values(row, answer)
    answer["account_id"] = account_id
    answer["purpose"] = purpose
    answer["payload_byte_size_estimate"] = size
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
