"""Lists the runs that match a filter, with the sums over their spans; statistics of spans by type, label and version.

Conditions on scores, marks, signatures, tools and the like are evaluated first: ids of the matching runs replace them.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple, get_args

from agentspan import jsontext
from agentspan.analysis.by_name import find_run, resolved
from agentspan.analysis.failures import with_signature
from agentspan.analysis.filter_words import NAMES, filter_of
from agentspan.analysis.outcomes import parse
from agentspan.api.checks import MAX_OFFSET, count
from agentspan.errors import InvalidValue
from agentspan.model.rows import AgentInstanceRow, ScoreRow
from agentspan.model.scores import MARK, counting
from agentspan.schemas.span_types import fallback
from agentspan.storage import row_by_row
from agentspan.storage.access import outlines_of, scan
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import (
    BriefsWhere,
    Counts,
    LatestScores,
    RunFilter,
    RunSort,
    RunsWhere,
    SpanStats,
    Touched,
    Used,
)
from agentspan.storage.row_by_row import matches, names_of
from agentspan.storage.sums import Progress, RunBrief, RunList, RunSummary, Stat
from agentspan.text import repository_of

ANY_MARK = "*"


TOOLS = frozenset({"tool"})
MODELS = frozenset({"llm", "embedding"})
"""The built-in span types whose label is the name of a model."""


def by_ids(storage: Storage, filter: RunFilter, progress: Progress | None = None) -> RunFilter:
    """Return a filter in which `ids` replaces the conditions that need other rows, or a value in the metadata.

    These are `scores`, `mark`, `signature`, `touched`, `project`, `tool` and `model`.

    Args:
        progress: called with (done, total) while an index is built.

    Raises:
        InvalidValue: a condition on a score is not a rule, or the signature is not one.
    """
    ids = filter.ids
    for each in _sets(storage, filter, progress):
        ids = each if ids is None else ids & each
    filter = filter._replace(ids=ids, scores=(), mark=None, signature=None)
    return filter._replace(touched=None, project=None, tool=None, model=None)


def _sets(storage: Storage, filter: RunFilter, progress: Progress | None) -> Iterator[frozenset[str]]:
    for rule in map(parse, filter.scores):
        scores = storage.ask(LatestScores(rule.name, rule.source))
        yield frozenset(id for id, score in scores.items() if rule.holds(score))
    if filter.mark is not None:
        found = marked(storage)
        yield frozenset().union(*found.values()) if filter.mark == ANY_MARK else frozenset(found.get(filter.mark, ()))
    if filter.signature is not None:
        yield with_signature(storage, filter.signature)
    if filter.touched is not None:
        yield storage.ask(Touched(filter.touched))
    if filter.project is not None:
        yield in_project(storage, filter.project)
    if filter.tool is not None:
        yield storage.ask(Used(TOOLS, filter.tool, progress))
    if filter.model is not None:
        yield storage.ask(Used(MODELS, filter.model, progress))


def marked(storage: Storage) -> dict[str, set[str]]:
    """Return the words with which runs and steps are marked, each with the ids of these runs and of the steps' runs.

    Of a run the newest mark counts, of a step each mark that was not withdrawn.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for id, score in storage.ask(LatestScores(MARK)).items():
        found[score.label or ""].add(id)
    for row in counting(scan(storage, ScoreRow, {"name": MARK, "target_type": "agent_span"})):
        found[row.label or ""].add(row.agent_instance_id)
    return found


def in_project(storage: Storage, project: str) -> frozenset[str]:
    """Return the ids of the runs whose folder, the `cwd` in their metadata, belongs to a project.

    Args:
        project: a folder or a pattern (see RunFilter). `.`, `..` and `~` are those of this process.
    """
    if project in (".", "..") or project.startswith(("./", "../", "~")):
        project = os.path.abspath(os.path.expanduser(project))
    folders: dict[str, bool] = {}
    found = set()
    for run in scan(storage, AgentInstanceRow):
        folder = _cwd_of(run.metadata)
        if folder is None:
            continue
        if folder not in folders:
            folders[folder] = any(_is_within(each, project) for each in (folder, repository_of(folder)))
        if folders[folder]:
            found.add(run.id)
    return frozenset(found)


def folder_of(metadata: str | None) -> str | None:
    """Return the folder in which a run worked, of a worktree that of its repository; None without one."""
    folder = _cwd_of(metadata)
    return None if folder is None else repository_of(folder)


def _cwd_of(metadata: str | None) -> str | None:
    if metadata is None or '"cwd"' not in metadata:
        return None
    found = jsontext.decode(metadata)
    folder = found.get("cwd") if type(found) is dict else None
    return folder if type(folder) is str else None


def _is_within(folder: str, project: str) -> bool:
    parts = folder.replace("\\", "/").rstrip("/").split("/")
    if "/" not in project:
        return any(fnmatchcase(part, project) for part in parts if part)
    pattern = project.rstrip("/") or "/"
    return any(fnmatchcase("/".join(parts[:end]) or "/", pattern) for end in range(1, len(parts) + 1))


PAGE = 50


def find_runs(
    storage: Storage,
    filter: RunFilter | None = None,
    *,
    limit: int | None = PAGE,
    offset: int = 0,
    sort: RunSort = "started",
    progress: Progress | None = None,
) -> RunList:
    """Return a page of the runs that match a filter, the latest first, and the sums over all matching runs.

    Args:
        filter: selects the runs; all runs when left out.
        limit: the largest number of runs on the page; None for all.
        offset: the number of runs to skip.
        sort: the order, if not by creation: the longest first, the most expensive first …
        progress: called with (done, total) while an index is built.

    Raises:
        InvalidValue: the filter is invalid, `sort` is another text, or `limit` or `offset` is no number from 0 on.
    """
    if sort not in get_args(RunSort):
        raise InvalidValue("sort", f"must be one of {', '.join(get_args(RunSort))}")
    limit = None if limit is None else count("limit", limit, 0, MAX_OFFSET)
    offset = count("offset", offset, 0, MAX_OFFSET)
    return storage.ask(RunsWhere(by_ids(storage, filter or RunFilter(), progress), limit, offset, sort, progress))


def run_briefs(
    storage: Storage, filter: RunFilter | None = None, *, progress: Progress | None = None
) -> list[RunBrief]:
    """Return all runs that match a filter in brief form, without metadata and results, the latest first."""
    return storage.ask(BriefsWhere(by_ids(storage, filter or RunFilter(), progress), progress))


def ids_of(storage: Storage, filter: RunFilter, *, progress: Progress | None = None) -> list[str]:
    """Return the ids of all runs that match a filter, the latest first."""
    return [run.id for run in run_briefs(storage, filter, progress=progress)]


def selected(storage: Storage, keywords: Mapping[str, object]) -> RunFilter:
    """Return the RunFilter for the keyword arguments of a `Database` method, with AGENT@VERSION resolved.

    Raises:
        TypeError: a keyword is no name of the grammar.
    """
    unknown = [name for name in keywords if name not in NAMES]
    if unknown:
        raise TypeError(f"runs are not selected by {unknown[0]!r}; there are {', '.join(NAMES)}")
    return resolved(storage, filter_of(keywords))


def selected_ids(storage: Storage, run: str | None, keywords: Mapping[str, object]) -> list[str] | None:
    """Return the id of `run` in a list, or the ids of the runs that match `keywords`; None for all runs.

    Raises:
        InvalidValue: both `run` and keywords are set.
    """
    filter = selected(storage, keywords)
    if run is None:
        return None if filter == RunFilter() else ids_of(storage, filter)
    if filter != RunFilter():
        raise InvalidValue("run", "and filters of runs exclude each other")
    return [find_run(storage, run).id]


def ids_that_match(storage: Storage, rows: Iterable[AgentInstanceRow], filter: RunFilter) -> set[str]:
    """Return the ids of the given runs that match a filter. Only the condition `error` reads spans."""
    rows, filter = list(rows), by_ids(storage, filter)
    names = names_of(storage, rows)
    counts = storage.ask(Counts([row.id for row in rows]))
    found = set()
    for row in rows:
        agent, version = names[row.id]
        spans = counts[row.id]
        sums = (spans.total, spans.failed, spans.pending + spans.active, None, None, None, row.duration_ms)
        if matches(storage, RunSummary(row, agent, version, *sums), filter):
            found.add(row.id)
    return found


def stats(
    storage: Storage,
    *,
    run: str | None = None,
    since: str | None = None,
    until: str | None = None,
    runs: Collection[str] | None = None,
    progress: Progress | None = None,
) -> list[Stat]:
    """Return statistics per span type, each followed by those of its labels, in the order of `in_order`.

    Args:
        run: the id of the only run whose spans count; all runs when left out.
        since: the earliest started_at (else inserted_at) of a span that counts, as stored text (see clock).
        until: the end of the time range, exclusive, as stored text.
        runs: the ids of the only runs whose spans count; all when left out. `run` wins over `runs`.
        progress: called with (done, total) while an index is built.
    """
    if run is None:
        return in_order(storage.ask(SpanStats(since, until, runs, progress)))
    # Reading the outlines of one run is faster than building an index of all spans.
    return in_order(row_by_row.of_spans(outlines_of(storage, run), since, until))


def in_order(found: Iterable[Stat]) -> list[Stat]:
    """Sort statistics: models and tools first, then by total time, the longest first; each type before its labels."""
    found = list(found)
    types = {
        stat.schema_name: (fallback(stat.schema_name).name not in FIRST, -stat.total_ms, stat.schema_name)
        for stat in found
        if stat.label is None
    }
    return sorted(found, key=lambda s: (types[s.schema_name], s.label is not None, -s.total_ms, s.label or ""))


FIRST = frozenset({"llm", "tool", "mcp"})
"""The built-in span types whose statistics come first."""
ONCE = 8
"""The number of labels that occur once which `shorten` keeps of a type. More are names of single steps."""


class Rest(NamedTuple):
    """The number of rows that `shorten` left out: labels of the type `schema_name`, or types if that is None.

    `is_once` tells that they are labels that occur once.
    """

    schema_name: str | None
    number: int
    is_once: bool = False


def shorten(found: list[Stat], rows: int, *, once: int | None = ONCE) -> list[Stat | Rest]:
    """Shorten statistics to about `rows` types and labels; a Rest replaces the rows that are left out.

    At least half of the rows are types, if there are enough types. The labels with the longest total time stay.

    Args:
        found: statistics in the order of `stats`.
        once: the number of labels that occur once to keep of each type; None for no such limit.
    """
    types = [stat for stat in found if stat.label is None]
    single = _single(found, once)
    labels = [stat for stat in found if stat.label is not None and (stat.schema_name, stat.label) not in single]
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
        if alone := sum(name == type_.schema_name for name, _ in single):
            short.append(Rest(type_.schema_name, alone, is_once=True))
    if len(shown) < len(types):
        short.append(Rest(None, len(types) - len(shown)))
    return short


def _single(found: Iterable[Stat], once: int | None) -> set[tuple[str, str | None]]:
    """Return the types and labels of statistics of one span beyond the first `once` of their type."""
    kept = Counter[str]()
    single: set[tuple[str, str | None]] = set()
    for stat in found if once is not None else ():
        if stat.label is not None and stat.count == 1:
            kept[stat.schema_name] += 1
            if kept[stat.schema_name] > (once or 0):
                single.add((stat.schema_name, stat.label))
    return single


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
    kept = {
        (each.schema_name, each.label) for each in shorten(found, most_labels, once=None) if not isinstance(each, Rest)
    }
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
