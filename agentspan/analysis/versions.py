"""The versions of an agent side by side, and whether the newest one differs from the one before by more than chance."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import NamedTuple

from agentspan.analysis.by_name import AT, resolved
from agentspan.analysis.costs import unpriced_runs
from agentspan.analysis.drift import LEAST, Drift, drift
from agentspan.analysis.drift_metrics import Measure
from agentspan.analysis.filter_words import parse
from agentspan.analysis.fingerprints import PartChange, changed_part
from agentspan.analysis.outcomes import Judge, decided, missed_rule, one, outcomes
from agentspan.analysis.runs import find_runs, run_briefs
from agentspan.analysis.statistics import Interval, wilson
from agentspan.errors import InvalidValue
from agentspan.model.changes import OPEN
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import RunFilter, RunSums
from agentspan.storage.row_by_row import tokens_of
from agentspan.storage.sums import Progress, RunSummary
from agentspan.text import one_line

MOST_VERSIONS = 200
"""The largest number of versions that are listed; the newest ones."""


class AgentVersions(NamedTuple):
    """The number of versions and runs of an agent.

    Attributes:
        versions: the number of versions with a run.
        newest: the version whose first run is the latest; `default` for runs without a version.
        last_at: when the latest run started, as stored text.
    """

    agent: str
    versions: int
    newest: str
    runs: int
    last_at: str


@dataclass(frozen=True, slots=True)
class Version:
    """Sums over the runs of a version.

    Attributes:
        version: the version; `default` for runs without a version.
        runs: the number of runs.
        known: the number of runs with an outcome.
        failed: the number of failed runs.
        interval: the 95 % interval of the share of failed runs; None without a run with an outcome.
        open: the number of runs that have not ended.
        duration_ms: the median duration (nearest rank) of the runs that have ended; None without one.
        tokens, cost_usd, steps: the mean over the runs that have ended, as `drift` compares it: a run without a value
            counts as 0, and a run with calls of a model without a known price has no cost; steps are finished spans
            without aggregates. None if no run has a value.
        total_usd: the known costs of all runs; None if none is known.
        first_at, last_at: when the first and the last run started, as stored text.
    """

    version: str
    runs: int
    known: int
    failed: int
    interval: Interval | None
    open: int
    duration_ms: float | None
    tokens: float | None
    cost_usd: float | None
    total_usd: float | None
    steps: float | None
    first_at: str
    last_at: str


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions of an agent.

    Attributes:
        agent: the name of the agent.
        outcome: the rule that decides whether a run failed; None if the status decides.
        versions: the versions, first the one whose first run is the latest.
        left_out: the number of earlier versions that are not listed.
        missed: if the status decides: a rule over a score that some runs missed, as text; None without one.
    """

    agent: str
    outcome: str | None
    versions: tuple[Version, ...]
    left_out: int
    missed: str | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two groups of runs of an agent, compared.

    Attributes:
        base, head: the names of the two groups, such as versions.
        base_filter, head_filter: the filters of the groups. Those of a part of the fingerprint are ids.
        drift: the comparison.
        change: the change of a part of the fingerprint that makes the groups; None for versions.
    """

    base: str
    head: str
    base_filter: RunFilter
    head_filter: RunFilter
    drift: Drift
    change: PartChange | None = None


def agents(
    storage: Storage, filter: RunFilter | None = None, *, progress: Progress | None = None
) -> list[AgentVersions]:
    """Return the agents of the runs that match a filter, those with the most versions first."""
    first: dict[str, dict[str, str]] = {}
    runs: dict[str, list[str]] = {}
    for run in run_briefs(storage, filter, progress=progress):
        firsts = first.setdefault(run.agent, {})
        firsts[run.version] = min(run.began, firsts.get(run.version, run.began))
        runs.setdefault(run.agent, []).append(run.began)
    found = [
        AgentVersions(
            agent, len(firsts), max(firsts, key=lambda each: firsts[each]), len(runs[agent]), max(runs[agent])
        )
        for agent, firsts in first.items()
    ]
    return sorted(found, key=lambda each: (-each.versions, -each.runs, each.agent))


def versions(
    storage: Storage,
    agent: str,
    filter: RunFilter | None = None,
    judge: Judge = None,
    *,
    progress: Progress | None = None,
) -> Versions:
    """Return the versions of an agent, the newest first.

    Args:
        agent: the name of the agent.
        filter: further conditions of the runs.
        judge: decides whether a run failed; when left out, as outcomes.decided finds.
        progress: called with (done, total) while an index is built.

    Raises:
        NotFound: no agent has the name.
        InvalidValue: the rule is over a score that no run has.
    """
    wanted = resolved(storage, (filter or RunFilter())._replace(agent=agent))
    found = find_runs(storage, wanted, limit=None, progress=progress).runs
    rows = [each.run for each in found]
    rule = decided(storage, rows, judge)
    passed = outcomes(storage, rows, rule)
    groups: dict[str, list[RunSummary]] = {}
    for each in found:
        groups.setdefault(each.version, []).append(each)
    sums = storage.ask(RunSums([row.id for row in rows], progress))
    unpriced, steps = unpriced_runs(sums), Counter[str]()
    for own in sums:
        steps[own.run_id] += 0 if own.is_aggregate else own.spans
    every = [_version(*group, passed, unpriced, steps) for group in groups.items()]
    every.sort(key=lambda one: one.first_at, reverse=True)
    missed = missed_rule(storage, rows) if rule is None else None
    return Versions(
        found[0].agent if found else agent,
        one(rule),
        tuple(every[:MOST_VERSIONS]),
        max(0, len(every) - MOST_VERSIONS),
        None if missed is None else str(missed.rule),
    )


def _version(
    name: str,
    runs: Sequence[RunSummary],
    passed: Mapping[str, bool | None],
    unpriced: Collection[str],
    steps: Mapping[str, int],
) -> Version:
    known = [outcome for run in runs if (outcome := passed[run.run.id]) is not None]
    failed = known.count(False)
    ended = [run for run in runs if run.run.status not in OPEN]
    took = [run.duration_ms for run in ended if run.duration_ms is not None]
    costs = [run.cost_usd for run in runs if run.cost_usd is not None]
    began = [run.run.started_at or run.run.inserted_at for run in runs]
    return Version(
        name,
        len(runs),
        len(known),
        failed,
        wilson(failed, len(known)) if known else None,
        len(runs) - len(ended),
        median_low(took) if took else None,
        _mean(map(tokens_of, ended)),
        _mean(run.cost_usd for run in ended if run.run.id not in unpriced),
        sum(costs) if costs else None,
        _mean(steps.get(run.run.id, 0) for run in ended),
        min(began),
        max(began),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of values, of which None counts as 0; None if all are None."""
    found = [*values]
    known = [value for value in found if value is not None]
    return sum(known) / len(found) if known else None


def comparison(
    storage: Storage,
    agent: str,
    filter: RunFilter | None = None,
    judge: Judge = None,
    *,
    base: str | None = None,
    head: str | None = None,
    by: str | None = None,
    least: Mapping[Measure, float] = LEAST,
    with_calls: bool = False,
    progress: Progress | None = None,
) -> Comparison:
    """Compare two groups of runs of an agent: its newest version with the one before, unless others are named.

    Args:
        agent: the name of the agent.
        filter: further conditions of the runs of both groups.
        judge: decides whether a run passed; when left out, as outcomes.decided finds for the two groups.
        base, head: a version of the agent, or a filter in one text, such as `agent@1.0` or `tag=nightly`. Without
            `head`, the newest version; without `base`, the version before `head`.
        by: a part of the fingerprint, whose newest value is compared with the value before it, instead of versions.
        least, with_calls, progress: as for drift.

    Raises:
        NotFound: no agent has the name.
        InvalidValue: there is no version to compare with; the part has had one value only; the rule is unknown.
    """
    wanted = resolved(storage, (filter or RunFilter())._replace(agent=agent))
    if by is not None:
        if base is not None or head is not None:
            raise InvalidValue("by", "finds the groups itself: base and head do not go with it")
        change = changed_part([run.run for run in find_runs(storage, wanted, limit=None).runs], by)
        names = change.names()
        filters = (RunFilter(ids=change.base), RunFilter(ids=change.head))
    else:
        change = None
        names = _names(storage, wanted, base, head)
        filters = (group_of(storage, wanted, names[0]), group_of(storage, wanted, names[1]))
    found = drift(storage, *filters, judge=judge, least=least, with_calls=with_calls, progress=progress)
    return Comparison(*names, *filters, found, change)


def _names(storage: Storage, filter: RunFilter, base: str | None, head: str | None) -> tuple[str, str]:
    """Return the names of the base and of the head; the missing ones are the newest version and the one before."""
    if base is not None and head is not None:
        return base, head
    first: dict[str, str] = {}
    for run in run_briefs(storage, filter._replace(version=None)):
        first[run.version] = min(run.began, first.get(run.version, run.began))
    order = sorted(first, key=lambda version: first[version], reverse=True)
    if head is None:
        head = next((each for each in order if each != base), None)
    if head is None:
        raise InvalidValue("head", f"{one_line(str(filter.agent), 60)!r} has no other version to compare with")
    if base is None:
        later = order[order.index(head) + 1 :] if head in order else order
        base = next(iter(later), None)
    if base is None:
        raise InvalidValue("base", f"{one_line(str(filter.agent), 60)!r} has no version before {one_line(head, 60)!r}")
    return base, head


def group_of(storage: Storage, filter: RunFilter, name: str) -> RunFilter:
    """Return the filter of a group: of a version of the agent, or, if it has `=` or `@`, of a filter in one text."""
    own = filter._replace(version=name)
    if not ("=" in name or AT in name) or find_runs(storage, own, limit=0).total:
        return own
    return resolved(storage, parse(name))
