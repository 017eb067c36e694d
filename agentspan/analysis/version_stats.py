"""Statistics of spans broken down by the version of the agent: a model or a tool compared across versions."""

from collections.abc import Sequence
from dataclasses import dataclass

from agentspan.analysis.runs import run_briefs
from agentspan.analysis.stats import Rest, shorten, stats
from agentspan.storage.answers import Progress, Stat
from agentspan.storage.protocol import Storage
from agentspan.storage.run_filter import RunFilter

MOST_VERSIONS = 20
"""Versions with statistics of their own, those of the latest runs: each takes 0.2 s among a million spans."""
MOST_LABELS = 2000
"""Types and labels that are broken down, those with the longest total time."""


@dataclass(frozen=True, slots=True)
class VersionStats:
    """The statistics of one version's spans.

    Attributes:
        agent: the agent's name.
        version: `default` if runs were recorded without one.
        runs: how many there are.
        stats: per span type and label, in the order of `stats`.
    """

    agent: str
    version: str
    runs: int
    stats: tuple[Stat, ...]

    @property
    def name(self) -> str:
        """The version as commands take it: `AGENT@VERSION`."""
        return f"{self.agent}@{self.version}"


@dataclass(frozen=True, slots=True)
class StatsByVersion:
    """Statistics of spans, of all versions together and of each.

    Attributes:
        stats: of all versions, also of those that are left out.
        versions: the one with the latest run first.
        left_out_versions, left_out_labels: how many versions have no statistics of their own, because there are more
            than 20; how many types and labels have none, because there are more than 2,000.
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
    """Return the statistics of the spans of runs that match, by version.

    Args:
        filter: of the runs; all when left out.
        since, until, progress: see stats.
        most_versions, most_labels: how many versions, and types and labels, are broken down.
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
