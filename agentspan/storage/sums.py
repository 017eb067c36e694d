"""The sums over the spans of one run: how many there are of each status and type, and what they cost.

A storage that can add them up by itself claims the capability `sums`; for others the spans are read one by one.
"""

from collections.abc import Iterable

from agentspan.model.rows import AgentSpanRow
from agentspan.storage.protocol import SpanSum, Storage


def sums_of(storage: Storage, instance_id: str) -> list[SpanSum]:
    """Return the sums over the spans of an instance."""
    claimed = storage.capabilities().sums
    return claimed.sums(instance_id) if claimed is not None else added_up(storage.iter_spans(instance_id))


def added_up(spans: Iterable[AgentSpanRow]) -> list[SpanSum]:
    """Return the sums over spans of one run."""
    sums: dict[tuple[str, str, str | None], tuple[int, float | None]] = {}
    for span in spans:
        group = span.status, span.schema_name, span.label
        number, cost = sums.get(group, (0, None))
        if span.cost_usd is not None and not span.is_aggregate:
            cost = (cost or 0.0) + span.cost_usd
        sums[group] = number + 1, cost
    return [SpanSum(*group, *values) for group, values in sums.items()]
