"""Statistics of the spans of each type, and of each model and tool: counts, durations, tokens, cost."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.model.status import OPEN
from agentspan.schemas.meaning import returned_error
from agentspan.storage.analytics import BOUNDS_MS, Progress, Stat, bucket_of
from agentspan.storage.protocol import Storage
from agentspan.storage.scanning import scan

__all__ = ["BOUNDS_MS", "Rest", "Stat", "shorten", "stats"]


def stats(
    storage: Storage,
    *,
    run: str | None = None,
    since: str | None = None,
    until: str | None = None,
    runs: Collection[str] | None = None,
    progress: Progress | None = None,
) -> list[Stat]:
    """Return statistics per span type, each followed by those of its labels. The longest total time comes first.

    Args:
        run: only the spans of this run (its id).
        since: the earliest started_at (else inserted_at) that counts, as stored text (see clock).
        until: the first time that no longer counts.
        runs: ids of the only runs whose spans count; all when left out.
        progress: called with how much is done, and of how much, while there is an index to be built.
    """
    found: list[Stat] | None = None
    analytics = storage.capabilities().analytics
    if run is None and analytics is not None:
        found = analytics.span_stats(since=since, until=until, runs=runs, progress=progress)
    if found is None:
        ids = runs if run is None else [run]
        found = of_spans(span for span in _spans(storage, ids) if _within(span, since, until))
    return in_order(found)


def in_order(found: Iterable[Stat]) -> list[Stat]:
    """Sort types by their total time, each followed by its labels in the same order."""
    found = list(found)
    types = {stat.schema_name: (-stat.total_ms, stat.schema_name) for stat in found if stat.label is None}
    return sorted(found, key=lambda s: (types[s.schema_name], s.label is not None, -s.total_ms, s.label or ""))


class Rest(NamedTuple):
    """The number of what `shorten` left out at this place: labels of a span type, or types where that is None."""

    schema_name: str | None
    number: int


def shorten(found: list[Stat], rows: int) -> list[Stat | Rest]:
    """Leave out types and labels until so many rows are left; a Rest stands where some were left out.

    At least half of the rows are for types, if there are so many. The labels with the longest total time stay.

    Args:
        found: statistics in the order of `stats`.
    """
    types = [stat for stat in found if stat.label is None]
    labels = [stat for stat in found if stat.label is not None]
    shown = {stat.schema_name for stat in types[: max(1, rows // 2, rows - len(labels))]}
    longest = sorted((s for s in labels if s.schema_name in shown), key=lambda stat: -stat.total_ms)
    kept = {(stat.schema_name, stat.label) for stat in longest[: max(0, rows - len(shown))]}
    short: list[Stat | Rest] = []
    for type_ in types:
        if type_.schema_name not in shown:
            continue
        own = [stat for stat in labels if stat.schema_name == type_.schema_name]
        some = [stat for stat in own if (stat.schema_name, stat.label) in kept]
        short += [type_, *some]
        if len(some) < len(own):
            short.append(Rest(type_.schema_name, len(own) - len(some)))
    if len(shown) < len(types):
        short.append(Rest(None, len(types) - len(shown)))
    return short


@dataclass(slots=True)
class _Group:
    counts: dict[str, int] = field(default_factory=dict)
    durations: list[float] = field(default_factory=list)
    given: int | None = None
    made: int | None = None
    cost: float | None = None
    is_aggregate: bool = False

    def add(self, span: AgentSpanRow) -> None:
        status = "failed" if span.status == "complete" and returned_error(span) else span.status
        self.counts[status] = self.counts.get(status, 0) + 1
        if span.status in ("complete", "failed"):
            self.durations.append(span.duration_ms or 0.0)
        if span.input_tokens is not None:
            self.given = (self.given or 0) + span.input_tokens
        if span.output_tokens is not None:
            self.made = (self.made or 0) + span.output_tokens
        if span.cost_usd is not None:
            self.cost = (self.cost or 0.0) + span.cost_usd
        if span.is_aggregate:
            self.is_aggregate = True


def of_spans(spans: Iterable[AgentSpanRow]) -> list[Stat]:
    """Return the statistics of these spans, in any order."""
    groups: dict[tuple[str, str | None], _Group] = {}
    for span in spans:
        groups.setdefault((span.schema_name, None), _Group()).add(span)
        if span.label:
            groups.setdefault((span.schema_name, span.label), _Group()).add(span)
    return [_stat(name, label, group) for (name, label), group in groups.items()]


def _stat(schema_name: str, label: str | None, group: _Group) -> Stat:
    durations = sorted(group.durations)
    histogram = [0] * (len(BOUNDS_MS) + 1)
    for duration in durations:
        histogram[bucket_of(duration)] += 1
    p50, p95, p99 = (durations[rank(len(durations), part)] if durations else None for part in (50, 95, 99))
    return Stat(
        schema_name,
        label,
        sum(group.counts.values()),
        group.counts.get("failed", 0),
        group.counts.get("cancelled", 0),
        sum(group.counts.get(status, 0) for status in OPEN),
        p50,
        p95,
        p99,
        durations[-1] if durations else None,
        sum(durations),
        tuple(histogram),
        group.given,
        group.made,
        group.cost,
        group.is_aggregate,
    )


def rank(count: int, percent: int) -> int:
    """Return the place, from zero, of a percentile among so many sorted values (nearest rank)."""
    return -(-count * percent // 100) - 1


def _spans(storage: Storage, runs: Iterable[str] | None) -> Iterator[AgentSpanRow]:
    for run in (row.id for row in scan(storage, AgentInstanceRow)) if runs is None else runs:
        yield from storage.iter_spans(run)


def _within(span: AgentSpanRow, since: str | None, until: str | None) -> bool:
    at = span.started_at or span.inserted_at
    return (since is None or at >= since) and (until is None or at < until)
