"""A run with all its fields, also those that lists leave out: its spans by type, and what they cost."""

from collections import Counter
from typing import TYPE_CHECKING

from agentspan import forks
from agentspan.model.rows import AccountRow, AgentInstanceRow
from agentspan.storage.answers import span_counts
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import SpanSums
from agentspan.storage.scores import said_of

if TYPE_CHECKING:
    from agentspan.model.resources import AgentInstance


def details_of(storage: Storage, row: AgentInstanceRow, account: AccountRow) -> "AgentInstance":
    """Return an instance with the counts and costs of its spans."""
    with forks.importing:
        from agentspan.model import resources

    statuses, types = Counter[str](), Counter[str]()
    costs: dict[str, float] = {}
    for each in storage.ask(SpanSums(row.id)):
        statuses[each.status] += each.spans
        types[each.schema_name] += each.spans
        if each.cost_usd is not None:
            model = each.label or resources.NO_MODEL
            costs[model] = costs.get(model, 0.0) + each.cost_usd
    counts = span_counts(statuses)._asdict()
    tags, scores = said_of(storage, [row.id])[row.id]
    by_type, by_model = dict(sorted(types.items())), dict(sorted(costs.items()))
    return resources.instance(row, account, counts, tags=tags, scores=scores, types=by_type, costs=by_model)
