"""Details of runs and agents that lists leave out: counts of what belongs to them, and what it cost."""

from collections import Counter
from typing import TYPE_CHECKING

from agentspan import forks
from agentspan.model.rows import AccountRow, AgentInstanceRow, Value
from agentspan.model.status import INSTANCE_STATUSES, OPEN
from agentspan.storage.protocol import Storage, span_counts
from agentspan.storage.scanning import count
from agentspan.storage.scores import said_of
from agentspan.storage.sums import sums_of

if TYPE_CHECKING:
    from agentspan.model.resources import AgentInstance


def details_of(storage: Storage, row: AgentInstanceRow, account: AccountRow) -> "AgentInstance":
    """Return an instance with the counts and costs of its spans."""
    with forks.importing:
        from agentspan.model import resources

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
