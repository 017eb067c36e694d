"""The API's envelopes: how HTTP and bulk write a row, a page of rows, or an error."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

from agentspan.api import from_rows
from agentspan.api.context import Context, Done
from agentspan.api.from_rows import resource_of, resources_of
from agentspan.api.resources import pagination
from agentspan.errors import AgentspanError, InvalidAction, ValidationErrors
from agentspan.model.columns import put_values
from agentspan.model.rows import (
    AgentSpanRow,
    Row,
)
from agentspan.storage.answers import CutRows, Rows
from agentspan.storage.questions import Find

Envelope = dict[str, Any]


class JsonText(str):
    """The stored JSON text of a value, which is sent without being decoded."""


class InPieces(Envelope):
    """An object that is too large to be made at once. A member may be JsonText, or an iterator instead of a list.

    serve.responses sends it, and keeps one item in memory at a time.
    """


def of_row(ctx: Context, row: Row, *, terminated: str | None = None, **beside: Any) -> Envelope:
    """Return the envelope of one resource; with the control signal if its instance was terminated."""
    resource = details(ctx, row)
    make = InPieces if isinstance(resource, InPieces) else Envelope
    return make(status="success", details=resource, **beside, **_control(terminated))


def of_one(details: Envelope) -> Envelope:
    """Return the envelope of a resource that is a dict already."""
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
    """Read and yield the items of a page one by one, each in its current state. Items removed since are left out.

    Items that were read already are read again, because many answers may wait for their clients at the same time.
    """
    for id in ids:
        found = _resources(ctx, [row for _, row in ctx.storage.ask(Find(id)).rows.values()], summaries=summaries)
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
    if not isinstance(next(iter(rows), None), AgentSpanRow):
        return [from_rows.plain(each) for each in resources_of(ctx, rows)]
    spans = cast("Sequence[AgentSpanRow]", rows)
    purposes, account_id, piece_bytes = ctx.purposes_of(spans), ctx.account.id, ctx.piece_bytes
    return [
        span(row, account_id, purposes[row.agent_instance_id], summary=summaries, piece_bytes=piece_bytes)
        for row in spans
    ]


def details(ctx: Context, row: Row) -> Envelope:
    """Return one resource with all its fields."""
    if isinstance(row, AgentSpanRow):
        return span(row, ctx.account.id, ctx.purpose_of(row), piece_bytes=ctx.piece_bytes)
    return from_rows.plain(resource_of(ctx, row))


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
"""The members of a span in an answer, in order. A copy has room for all of them; a growing dict takes twice as long."""
_SPAN["type"] = "agent_span"


def span(
    row: AgentSpanRow, account_id: str, purpose: str, *, summary: bool = True, piece_bytes: int | None = None
) -> Envelope:
    """Return a span in the form of the API, straight from its row: a model in between costs 15 µs.

    Args:
        piece_bytes: the bytes of a span's payloads above which the payloads stay JSON text; None for never.
    """
    size = from_rows.byte_size(row)
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
            described = errors.setdefault(field, {"code": "invalid_value", "message": message})
            if described["message"] != message:
                described["message"] += f"; {message}"
        answer["errors"] = errors
    if isinstance(error, InvalidAction):
        answer.update(_control(error.terminated))
    return answer
