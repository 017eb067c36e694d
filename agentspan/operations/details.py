"""The API's resources made from rows, with what is read beside them: counts, costs, tags, scores, a run's purpose."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, cast

from agentspan.model import resources
from agentspan.model.agents import available_actions
from agentspan.model.resources import AgentInstance
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
from agentspan.model.score_resources import score
from agentspan.model.status import INSTANCE_STATUSES, OPEN
from agentspan.operations.context import Context
from agentspan.storage.protocol import Storage, span_counts
from agentspan.storage.scanning import count
from agentspan.storage.scores import said_of
from agentspan.storage.sums import sums_of


def resource_of(ctx: Context, row: Row) -> Any:
    """Return the resource of a row with all its fields."""
    if isinstance(row, AgentInstanceRow):
        return details_of(ctx.storage, row, ctx.account)
    if isinstance(row, AgentRow):
        counts = instance_counts(ctx.storage, row.id)
        actions = available_actions(row, has_instances=counts["total"] > 0)
        return resources.agent(row, ctx.account, actions=actions, counts=counts)
    return resources_of(ctx, [row])[0]


def resources_of(ctx: Context, rows: Sequence[Row], *, summaries: bool = True) -> list[Any]:
    """Return the resources of rows of one type, without what lists leave out.

    Args:
        summaries: fill the summaries of spans in.
    """
    account = ctx.account
    if isinstance(next(iter(rows), None), AgentInstanceRow):
        ids = [row.id for row in rows]
        counts, said = ctx.storage.counts(ids), said_of(ctx.storage, ids)
        runs = cast("Iterable[AgentInstanceRow]", rows)
        return [resources.instance(row, account, counts[row.id]._asdict(), **said[row.id]._asdict()) for row in runs]
    purposes = ctx.purposes_of(row for row in rows if isinstance(row, AgentSpanRow))
    made: list[Any] = []
    for row in rows:
        match row:
            case AgentSpanRow():
                made.append(resources.span(row, account, purposes[row.agent_instance_id], summary=summaries))
            case AgentRow():
                made.append(resources.agent(row, account))
            case AgentVersionRow():
                made.append(resources.agent_version(row, account))
            case AgentSchemaVersionRow():
                made.append(resources.schema_version(row, account))
            case ScoreRow():
                made.append(score(row))
    return made


def details_of(storage: Storage, row: AgentInstanceRow, account: AccountRow) -> AgentInstance:
    """Return an instance with the counts and costs of its spans."""
    statuses, types = Counter[str](), Counter[str]()
    costs: dict[str, float] = {}
    for each in sums_of(storage, row.id):
        statuses[each.status] += each.spans
        types[each.schema_name] += each.spans
        if each.cost_usd is not None:
            model = each.label or resources.NO_MODEL
            costs[model] = costs.get(model, 0.0) + each.cost_usd
    counts = span_counts(statuses)._asdict()
    tags, scores = said_of(storage, [row.id])[row.id]
    by_type, by_model = dict(sorted(types.items())), dict(sorted(costs.items()))
    return resources.instance(row, account, counts, tags=tags, scores=scores, types=by_type, costs=by_model)


def instance_counts(storage: Storage, agent_id: str) -> dict[str, int]:
    """Count an agent's instances by status, with their total and how many are finished."""
    counts: dict[str, int] = {}
    for status in INSTANCE_STATUSES:
        where: dict[str, Value] = {"agent_id": agent_id, "status": status}
        counts[status] = count(storage, "agent_instance", where)
    finished = sum(number for status, number in counts.items() if status not in OPEN)
    return {"total": sum(counts.values()), **counts, "finished": finished}
