"""The API's envelopes: how HTTP and bulk write a row, a page of rows, or an error; and resources, made from rows.

A resource needs more than its row: counts, costs, tags, scores, the purpose of a run. They are read here.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from pydantic import BaseModel

from agentspan.api.context import Context, Done
from agentspan.api.resources import (
    Agent,
    AgentInstance,
    AgentSchemaVersion,
    AgentSpan,
    AgentVersion,
    AvailableActions,
    CostBreakdown,
    InstanceCounts,
    Score,
    SpanCounts,
    pagination,
)
from agentspan.errors import AgentspanError, InvalidAction, ValidationErrors
from agentspan.model.changes import INSTANCE_STATUSES, OPEN, Purpose
from agentspan.model.columns import put_values, values_of
from agentspan.model.registration import UNNAMED, available_actions
from agentspan.model.rows import (
    AccountRow,
    AgentInstanceRow,
    AgentRow,
    AgentSchemaVersionRow,
    AgentSpanRow,
    AgentVersionRow,
    Row,
    ScoreRow,
    Value,
)
from agentspan.storage.access import count
from agentspan.storage.answers import CutRows, Rows, span_counts
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Counts, Find, SpanSums
from agentspan.storage.row_by_row import labels_of

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
        return [plain(each) for each in resources_of(ctx, rows)]
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
    return plain(resource_of(ctx, row))


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
    size = byte_size(row)
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


NO_MODEL = "unknown"
"""The name under which CostBreakdown counts the cost of spans that have no label."""


def resource_of(ctx: Context, row: Row) -> Any:
    """Return the resource of a row with all its fields."""
    if isinstance(row, AgentSpanRow):
        return span_of(row, ctx.account, ctx.purpose_of(row))
    if isinstance(row, AgentInstanceRow):
        return details_of(ctx.storage, row, ctx.account)
    if isinstance(row, AgentRow):
        counts = instance_counts(ctx.storage, row.id)
        actions = available_actions(row, has_instances=counts["total"] > 0)
        return agent(row, ctx.account, actions=actions, counts=counts)
    return resources_of(ctx, [row])[0]


def resources_of(ctx: Context, rows: Sequence[Row], *, summaries: bool = True) -> list[Any]:
    """Return the resources of rows of one type, without the fields that lists leave out.

    Args:
        summaries: True to fill in the summaries of spans.
    """
    account = ctx.account
    if isinstance(next(iter(rows), None), AgentInstanceRow):
        ids = [row.id for row in rows]
        counts, labels = ctx.storage.ask(Counts(ids)), labels_of(ctx.storage, ids)
        runs = cast("Iterable[AgentInstanceRow]", rows)
        return [instance(row, account, counts[row.id]._asdict(), **labels[row.id]._asdict()) for row in runs]
    purposes = ctx.purposes_of(row for row in rows if isinstance(row, AgentSpanRow))
    made: list[Any] = []
    for row in rows:
        match row:
            case AgentSpanRow():
                made.append(span_of(row, account, purposes[row.agent_instance_id], summary=summaries))
            case AgentRow():
                made.append(agent(row, account))
            case AgentVersionRow():
                made.append(AgentVersion(account_id=account.id, **values_of(row)))
            case AgentSchemaVersionRow():
                made.append(schema_version(row, account))
            case ScoreRow():
                made.append(score(row))
    return made


def details_of(storage: Storage, row: AgentInstanceRow, account: AccountRow) -> AgentInstance:
    """Return an instance with the counts and costs of its spans."""
    statuses, types = Counter[str](), Counter[str]()
    costs: dict[str, float] = {}
    for each in storage.ask(SpanSums(row.id)):
        statuses[each.status] += each.spans
        types[each.schema_name] += each.spans
        if each.cost_usd is not None:
            model = each.label or NO_MODEL
            costs[model] = costs.get(model, 0.0) + each.cost_usd
    counts = span_counts(statuses)._asdict()
    tags, scores = labels_of(storage, [row.id])[row.id]
    by_type, by_model = dict(sorted(types.items())), dict(sorted(costs.items()))
    return instance(row, account, counts, tags=tags, scores=scores, types=by_type, costs=by_model)


def instance_counts(storage: Storage, agent_id: str) -> dict[str, int]:
    """Count an agent's instances by status, with their total and how many are finished."""
    counts: dict[str, int] = {}
    for status in INSTANCE_STATUSES:
        where: dict[str, Value] = {"agent_id": agent_id, "status": status}
        counts[status] = count(storage, "agent_instance", where)
    finished = sum(number for status, number in counts.items() if status not in OPEN)
    return {"total": sum(counts.values()), **counts, "finished": finished}


def span_of(row: AgentSpanRow, account: AccountRow, purpose: str, *, summary: bool = True) -> AgentSpan:
    """Make a span from its row and the purpose of its instance."""
    values = values_of(row)
    if not summary:
        values["summary"] = None
    size = byte_size(row)
    return AgentSpan(account_id=account.id, purpose=cast(Purpose, purpose), payload_byte_size_estimate=size, **values)


def byte_size(row: AgentSpanRow) -> int:
    """Return the size of a span's payloads in bytes."""
    payload, result = row.payload, row.result_payload or ""
    if payload.isascii() and result.isascii():
        return len(payload) + len(result)
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in (payload, result))


def instance(
    row: AgentInstanceRow,
    account: AccountRow,
    counts: Mapping[str, int],
    *,
    tags: Sequence[str],
    scores: Sequence[ScoreRow],
    types: Mapping[str, int] | None = None,
    costs: Mapping[str, float] | None = None,
) -> AgentInstance:
    """Make an instance from its row, its tags, its scores, and the counts and costs of its spans.

    Args:
        counts: the number of spans by status.
        types: the number of spans by type; None in lists.
        costs: the costs by model, in US dollars; None in lists.
    """
    values = values_of(row)
    values["git_dirty"] = None if row.git_dirty is None else bool(row.git_dirty)
    if costs is not None:
        total = sum(costs.values()) if costs else None
        values["cost_breakdown"] = CostBreakdown(total_cost=total, by_model=dict(costs))
    for field, unnamed in (("quality_payloads", "quality_payload"), ("quality_summaries", "quality_summary")):
        values[field] = values[field] or {}
        values[unnamed] = values[field].pop(UNNAMED, None)
    return AgentInstance(
        account_id=account.id,
        environment_id=account.environment_id,
        agent_deployment_id=account.agent_deployment_id,
        span_counts=SpanCounts(**counts),
        tags=[*tags],
        scores=[score(each) for each in scores],
        span_schema_counts=None if types is None else dict(types),
        **values,
    )


def agent(
    row: AgentRow,
    account: AccountRow,
    *,
    actions: Mapping[str, bool] | None = None,
    counts: Mapping[str, int] | None = None,
) -> Agent:
    """Make an agent from its row; with its available actions and the counts of its instances, if they are passed."""
    return Agent(
        account_id=account.id,
        available_actions=None if actions is None else AvailableActions(**actions),
        instance_counts=None if counts is None else InstanceCounts(**counts),
        **values_of(row),
    )


def schema_version(row: AgentSchemaVersionRow, account: AccountRow) -> AgentSchemaVersion:
    """Make a schema version from its row."""
    values = values_of(row)
    schemas = {item["name"]: item for item in values["quality_schemas"] or []}
    unnamed = schemas.pop(UNNAMED, None)
    values["quality_schemas"] = [*schemas.values()]
    values["quality_schema"] = unnamed and {name: value for name, value in unnamed.items() if name != "name"}
    return AgentSchemaVersion(account_id=account.id, **values)


def score(row: ScoreRow) -> Score:
    """Make a score from its row."""
    return Score(**values_of(row))


def plain(model: BaseModel) -> dict[str, Any]:
    """Return a resource as plain JSON. pydantic does not convert payloads, because it refuses lone surrogates."""
    kept = {name: value for name, value in model if isinstance(value, dict | list) or name == "result_payload"}
    dumped = model.model_dump(mode="json", exclude=set(kept))
    if isinstance(model, AgentInstance):
        kept["scores"] = [plain(each) for each in model.scores]
    return {name: kept.get(name, dumped.get(name)) for name in type(model).model_fields}
