"""The sums over the spans of each run, by type and label: what comparisons of many runs are made of.

A storage with `Analytics` answers from its index; for others the spans are read one by one.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import TypeVar

from agentspan.model.rows import AgentSpanRow
from agentspan.schemas.meaning import returned_error
from agentspan.storage.analytics import RunSum
from agentspan.storage.protocol import Storage

N = TypeVar("N", int, float)
RAN = ("complete", "failed")
"""The statuses of spans that count: those that ran to an end."""


def run_sums(storage: Storage, runs: Collection[str]) -> list[RunSum]:
    """Return the sums of these runs (their ids), in any order."""
    analytics = storage.capabilities().analytics
    if analytics is not None:
        found = analytics.run_sums(runs)
        if found is not None:
            return found
    return [each for run in dict.fromkeys(runs) for each in summed(run, storage.iter_spans(run))]


def summed(run_id: str, spans: Iterable[AgentSpanRow]) -> Iterator[RunSum]:
    """Yield the sums over the spans of one run."""
    groups: dict[tuple[str, str | None], list[AgentSpanRow]] = {}
    for span in spans:
        if span.status in RAN:
            groups.setdefault((span.schema_name, span.label or None), []).append(span)
    for (name, label), group in groups.items():
        yield RunSum(
            run_id,
            name,
            label,
            len(group),
            sum(span.status == "failed" or returned_error(span) for span in group),
            sum(span.duration_ms or 0.0 for span in group),
            _sum(span.input_tokens for span in group),
            _sum(span.output_tokens for span in group),
            _sum(span.cost_usd for span in group),
            any(span.is_aggregate for span in group),
        )


def _sum(values: Iterable[N | None]) -> N | None:
    given = [value for value in values if value is not None]
    return sum(given) if given else None
