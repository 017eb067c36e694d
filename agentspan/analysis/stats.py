"""Statistics of spans per type, model and tool: counts, durations, tokens, cost; also per version of the agent."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from agentspan.analysis.runs import run_briefs
from agentspan.storage import row_by_row
from agentspan.storage.answers import Progress, Stat
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import RunFilter, SpanStats


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
        run: the id of the only run whose spans count; all runs when left out.
        since: the earliest started_at (else inserted_at) of a span that counts, as stored text (see clock).
        until: the end of the time range, exclusive, as stored text.
        runs: the ids of the only runs whose spans count; all when left out. `run` wins over `runs`.
        progress: called with (done, total) while an index is built.
    """
    asked = SpanStats(since, until, runs if run is None else [run], progress)
    # Reading the spans of one run is faster than building an index of all spans.
    return in_order(storage.ask(asked) if run is None else row_by_row.answer(storage, asked))


def in_order(found: Iterable[Stat]) -> list[Stat]:
    """Sort statistics: types by total time, the longest first, each followed by its labels by total time."""
    found = list(found)
    types = {stat.schema_name: (-stat.total_ms, stat.schema_name) for stat in found if stat.label is None}
    return sorted(found, key=lambda s: (types[s.schema_name], s.label is not None, -s.total_ms, s.label or ""))


class Rest(NamedTuple):
    """The number of rows that `shorten` left out: labels of the type `schema_name`, or types if that is None."""

    schema_name: str | None
    number: int


def shorten(found: list[Stat], rows: int) -> list[Stat | Rest]:
    """Shorten statistics to about `rows` types and labels; a Rest replaces the rows that are left out.

    At least half of the rows are types, if there are enough types. The labels with the longest total time stay.

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


MOST_VERSIONS = 20
"""The largest number of versions with their own statistics; the latest ones. Each takes 0.2 s per million spans."""
MOST_LABELS = 2000
"""The largest number of types and labels that are broken down by version: those with the longest total time."""


@dataclass(frozen=True, slots=True)
class VersionStats:
    """The statistics of one version's spans.

    Attributes:
        agent: the agent's name.
        version: the version; `default` for runs that were recorded without a version.
        runs: the number of runs of the version.
        stats: statistics per span type and label, the longest total time first.
    """

    agent: str
    version: str
    runs: int
    stats: tuple[Stat, ...]

    @property
    def name(self) -> str:
        """The name of the version as an argument of commands: `AGENT@VERSION`."""
        return f"{self.agent}@{self.version}"


@dataclass(frozen=True, slots=True)
class StatsByVersion:
    """Statistics of spans: of all versions together, and of each version.

    Attributes:
        stats: the statistics of all versions together, left-out versions included.
        versions: the statistics of each version, the version with the latest run first.
        left_out_versions: the number of versions without their own statistics, because there are more than 20.
        left_out_labels: the number of types and labels without statistics, because there are more than 2,000.
    """

    stats: tuple[Stat, ...]
    versions: tuple[VersionStats, ...]
    left_out_versions: int
    left_out_labels: int


def stats_by_version(
    storage: Storage,
    filter: RunFilter | None = None,
    *,
    since: str | None = None,
    until: str | None = None,
    progress: Progress | None = None,
    most_versions: int = MOST_VERSIONS,
    most_labels: int = MOST_LABELS,
) -> StatsByVersion:
    """Return the statistics of spans by version of the agent.

    Args:
        filter: selects the runs; all runs when left out.
        since, until: the time range of the spans, as stored text; the end is exclusive.
        progress: called with (done, total) while an index is built.
        most_versions: the largest number of versions with their own statistics.
        most_labels: the largest number of types and labels.
    """
    filter = filter or RunFilter()
    ids: dict[tuple[str, str], list[str]] = {}
    for run in run_briefs(storage, filter, progress=progress):
        ids.setdefault((run.agent, run.version), []).append(run.id)
    every: Sequence[str] | None = None if filter == RunFilter() else [id for group in ids.values() for id in group]
    found = stats(storage, since=since, until=until, runs=every, progress=progress)
    kept = {(each.schema_name, each.label) for each in shorten(found, most_labels) if not isinstance(each, Rest)}
    versions = []
    for (agent, version), group in [*ids.items()][:most_versions]:
        own = found if len(ids) == 1 else stats(storage, since=since, until=until, runs=group)
        shown = tuple(each for each in own if (each.schema_name, each.label) in kept)
        versions.append(VersionStats(agent, version, len(group), shown))
    return StatsByVersion(
        tuple(each for each in found if (each.schema_name, each.label) in kept),
        tuple(versions),
        max(0, len(ids) - most_versions),
        len(found) - len(kept),
    )
