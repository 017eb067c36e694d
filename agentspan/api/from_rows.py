"""Makes the API's resources from rows, and reads what else they need: counts, costs, tags, scores, a run's purpose."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from pydantic import BaseModel

from agentspan.api.context import Context
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
)
from agentspan.model.columns import values_of
from agentspan.model.registration import available_actions
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
from agentspan.model.schema_versions import UNNAMED
from agentspan.model.status import INSTANCE_STATUSES, OPEN, Purpose
from agentspan.storage.access import count
from agentspan.storage.answers import span_counts
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Counts, SpanSums
from agentspan.storage.row_by_row import labels_of

NO_MODEL = "unknown"
"""The name under which CostBreakdown counts the cost of spans that have no label."""


def resource_of(ctx: Context, row: Row) -> Any:
    """Return the resource of a row with all its fields."""
    if isinstance(row, AgentSpanRow):
        return span(row, ctx.account, ctx.purpose_of(row))
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
                made.append(span(row, account, purposes[row.agent_instance_id], summary=summaries))
            case AgentRow():
                made.append(agent(row, account))
            case AgentVersionRow():
                made.append(agent_version(row, account))
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


def span(row: AgentSpanRow, account: AccountRow, purpose: str, *, summary: bool = True) -> AgentSpan:
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
    return _bytes_of(payload) + _bytes_of(result)


def _bytes_of(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


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


def agent_version(row: AgentVersionRow, account: AccountRow) -> AgentVersion:
    """Make an agent's version from its row."""
    return AgentVersion(account_id=account.id, **values_of(row))


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
