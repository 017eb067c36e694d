"""Finds features of runs that are associated with failure by more than chance, within the same task.

Tasks differ in what they need and in how hard they are, so a feature of hard tasks could be mistaken for a cause. If
too few runs share a task, runs are compared within the same agent, and the result is marked as pooled. The false
discovery rate is controlled (Benjamini and Hochberg). A feature is not tested if the numbers of runs cannot give a
small enough p (Tarone).

A feature is true or false for each run, such as whether a tool was used. The number of compared runs is limited, and
so is the number of runs whose payloads are read, so runs are sampled: whole tasks, first those with failed and passed
runs, because only they can distinguish a cause from a hard task.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from agentspan.analysis.features import Feature
from agentspan.analysis.statistics import FEWEST_TASKS, PAIRED_SHARE, RELATIVE, Strata, Table
from agentspan.storage.sums import RunBrief

COMPARED_RUNS = 2000
"""The largest number of runs that are compared."""
READ_SPANS = 5000
"""The largest number of spans whose payloads are read; so many take 0.1 s."""


def is_stratified(tasks: Iterable[Hashable], runs: int) -> bool:
    """Return whether runs are compared within tasks.

    Args:
        tasks: the task of each run that has one.
        runs: the number of all runs. Enough of them must be of tasks with several runs, else comparing within tasks
            would ignore most runs.
    """
    repeated = [number for number in Counter(tasks).values() if number > 1]
    return len(repeated) >= FEWEST_TASKS and sum(repeated) >= PAIRED_SHARE * runs


def drawn(
    runs: Sequence[RunBrief], failed: Collection[str], *, compared: int = COMPARED_RUNS, read: int = READ_SPANS
) -> tuple[list[RunBrief], list[RunBrief]]:
    """Sample runs; return those to compare, and those of them whose spans are read.

    Without tasks, the latest runs are compared, and the runs to read are a random sample of both outcomes: if the
    failed runs covered a longer period than the passed ones, every change in that period would look like a cause.

    Args:
        runs: all runs, the latest first.
        failed: the ids of the failed runs.
        compared: the largest number of runs to compare.
        read: the largest number of spans to read.
    """
    if is_stratified([(run.agent_id, run.task) for run in runs if run.task is not None], len(runs)):
        groups = _by_task(runs, failed)
        chosen = [run for group in _fitting(groups, compared, len) for run in group]
    else:
        chosen = [*runs[:compared]]
        groups = [[run] for run in _mixed_by_run(chosen, failed)]
    kept = {run.id for run in chosen}
    groups = [group for group in groups if group[0].id in kept]
    fitting = _fitting(groups, read, lambda group: sum(run.spans for run in group))
    return chosen, [run for group in fitting for run in group]


def _by_task(runs: Sequence[RunBrief], failed: Collection[str]) -> list[list[RunBrief]]:
    """Group runs by task: first the tasks with failed and passed runs, then the others, each by their latest run."""
    tasks: dict[Hashable, list[RunBrief]] = defaultdict(list)
    for run in runs:
        tasks[run.id if run.task is None else (run.agent_id, run.task)].append(run)
    return sorted(tasks.values(), key=lambda group: len({run.id in failed for run in group}), reverse=True)


def _mixed_by_run(runs: Sequence[RunBrief], failed: Collection[str]) -> list[RunBrief]:
    """Shuffle runs so that failed and passed runs alternate, until runs of one outcome are used up."""
    dice = random.Random(0)
    order = dice.sample(runs, len(runs))
    places: Counter[bool] = Counter()
    ranks = {}
    for run in order:
        ranks[run.id] = places[run.id in failed]
        places[run.id in failed] += 1
    return sorted(order, key=lambda run: ranks[run.id])


def _fitting(
    groups: Iterable[list[RunBrief]], room: int, size: Callable[[list[RunBrief]], int]
) -> Iterator[list[RunBrief]]:
    for group in groups:
        if size(group) <= room:
            room -= size(group)
            yield group


FDR = 0.10
"""The accepted share of false findings among all findings."""
FALSE_ALARMS = 0.02
"""The accepted share of false alarms: sets of runs without any cause in which something is found nevertheless.

FDR alone would allow 10 %, because any finding in such a set is false. So the clearest p must be one that so few sets
with shuffled outcomes reach (P. H. Westfall and S. S. Young, Resampling-Based Multiple Testing, 1993).
"""
SHUFFLES = 600
POWER = 0.8
DECIDABLE = 0.05
"""A feature is tested only if the numbers of runs allow a p of at most this value."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A feature that is associated with failure. A feature associated with passing is replaced by its opposite.

    Attributes:
        feature: the name of the feature, such as `Tool book_reservation not used`.
        failed_with: the number of failed runs with the feature.
        failed: the number of failed runs. Only runs for which the feature is known count, in informative tasks (or
            agents): those with failed and passed runs, and with runs with and without the feature.
        passed_with, passed: the numbers of passed runs with the feature, and of all passed runs, counted likewise.
        odds_ratio: the factor, above 1, by which the odds of failing are greater with the feature, within a task (or
            agent). Infinite if in no task a run with the feature passed and one without it failed. It can contradict
            the counts, which are sums over all tasks, because tasks are not equally hard.
        low, high: the 95 % interval of the odds ratio of this feature alone; exact if no run contradicts.
        q: the share of false findings among the findings that are at least as clear, corrected for all tested features.
        stratified: True if runs were compared within tasks; False if within agents.
        tasks: the number of informative tasks (or agents).
        also: the names of further findings that say no more: among the runs with the feature, and among those without
            it, they do not go with failure.
    """

    feature: str
    failed_with: int
    failed: int
    passed_with: int
    passed: int
    odds_ratio: float
    low: float
    high: float
    q: float
    stratified: bool
    tasks: int
    also: tuple[str, ...] = ()

    def over(self, other: "Finding") -> "Finding":
        """Return this finding, which says all that another one does."""
        return replace(self, also=(*self.also, other.feature, *other.also))

    @property
    def is_turned(self) -> bool:
        """True if the counts, which are sums over all tasks, contradict the odds ratio within tasks."""
        return self.failed_with * (self.passed - self.passed_with) < self.passed_with * (self.failed - self.failed_with)


@dataclass(frozen=True, slots=True)
class Findings:
    """All findings about a set of runs, the clearest first.

    Attributes:
        findings: the findings with a q of at most 0.1; within tasks if enough runs share tasks, else pooled.
        pooled: further findings over all runs together that were not found within tasks: the tasks may cause them.
        runs: the number of compared runs.
        tasks: the number of tasks with both failed and passed runs.
        tested: the number of tested features.
        stratified: whether runs were compared within tasks.
        tested_pooled: the number of features tested over all runs together. The q of each pooled finding is corrected
            for this number; the interval of its odds ratio is not.
        detectable: the least odds ratio of the most informative feature that would be found in four of five such sets
            of runs, if it were the only cause; infinite if none would. None if nothing was tested.
    """

    findings: tuple[Finding, ...]
    pooled: tuple[Finding, ...]
    runs: int
    tasks: int
    tested: int
    stratified: bool
    tested_pooled: int
    detectable: float | None = None


def find(
    features: Sequence[Feature], failed: Mapping[str, bool], strata: Mapping[str, tuple[str, str | None]]
) -> Findings:
    """Return the features that are associated with failure.

    Args:
        features: the features of the runs to test.
        failed: whether each run failed, by run id.
        strata: the agent and the task of each run, by run id; the task is None for a run without one.
    """
    agents: dict[str, Hashable] = {id: strata[id][0] for id in failed}
    tasks: dict[str, Hashable] = {id: strata[id] for id in failed if strata[id][1] is not None}
    mixed = _mixed(failed, tasks)
    stratified = is_stratified(tasks.values(), len(failed))
    pooled, tested_pooled, detectable = _tested(features, failed, agents, stratified=False)
    if not stratified:
        return Findings(pooled, (), len(failed), 0, tested_pooled, False, tested_pooled, detectable)
    within = {id: is_failed for id, is_failed in failed.items() if id in tasks}
    found, tested, detectable = _tested(features, within, tasks, stratified=True)
    names = {name for each in found for name in (each.feature, *each.also)}
    others = tuple(each for each in pooled if each.feature not in names)
    return Findings(found, others, len(within), mixed, tested, True, tested_pooled, detectable)


def _mixed(failed: Mapping[str, bool], tasks: Mapping[str, Hashable]) -> int:
    """Return the number of tasks with both failed and passed runs."""
    seen: dict[Hashable, set[bool]] = defaultdict(set)
    for id, task in tasks.items():
        seen[task].add(failed[id])
    return sum(len(outcomes) == 2 for outcomes in seen.values())


def _tested(
    features: Sequence[Feature], failed: Mapping[str, bool], strata: Mapping[str, Hashable], *, stratified: bool
) -> tuple[tuple[Finding, ...], int, float | None]:
    """Return the findings, the clearest first; the number of tested features; and the detectable odds ratio."""
    tested: list[tuple[float, Feature, Strata]] = []
    for feature in features:
        found = Strata(_tables(feature, failed, strata))
        if found.smallest_p() <= DECIDABLE:
            tested.append((found.p(), feature, found))
    tested.sort(key=lambda each: each[0])  # stable: features with equal p keep their order
    q_values = _discrete_q([p for p, _, _ in tested], [each for _, _, each in tested])
    is_alarm = bool(tested) and _by_chance(tested, failed, strata) <= FALSE_ALARMS
    clear = [(q, each) for q, each in zip(q_values, tested, strict=True) if is_alarm and q <= FDR]
    detectable = None
    if tested:
        most = max((each for _, _, each in tested), key=lambda each: each.variance)
        detectable = most.detectable(_level([each for _, _, each in tested]), POWER)
    findings: list[tuple[Feature, Finding]] = []
    order = {feature.text: place for place, feature in enumerate(features)}
    for q, (_, feature, found) in clear:
        one = _finding(feature, found, q, stratified)
        for place, (first, finding) in enumerate(findings):
            if not _says_more(feature, first, failed, strata):
                if order[feature.text] < order[first.text] and not _says_more(first, feature, failed, strata):
                    findings[place] = feature, one.over(finding)  # either says all: the earlier one tells more
                else:
                    findings[place] = first, finding.over(one)
                break
        else:
            findings.append((feature, one))
    return tuple(finding for _, finding in findings), len(tested), detectable


def _says_more(feature: Feature, first: Feature, failed: Mapping[str, bool], strata: Mapping[str, Hashable]) -> bool:
    """Return whether a feature goes with failure among the runs with the first one, or among those without it."""
    known = failed.keys() if first.known is None else first.known & failed.keys()
    parts = {id: (strata[id], id in first.runs) for id in known}
    return Strata(_tables(feature, {id: failed[id] for id in known}, parts)).p() <= DECIDABLE


def _by_chance(
    tested: Sequence[tuple[float, Feature, Strata]], failed: Mapping[str, bool], strata: Mapping[str, Hashable]
) -> float:
    """Return the probability that any p is as small as the smallest one, if nothing goes with failure.

    Outcomes are shuffled within strata, so that columns that say the same count once. It takes no shuffles where the
    sum of the chances decides. Features that are known of other runs than most are not shuffled, but added up.
    """
    least = tested[0][0]
    chances = [found.chance_of(least) for _, _, found in tested]
    total = sum(chances)
    if total <= FALSE_ALARMS or max(chances) > FALSE_ALARMS:
        return total
    sets = Counter(feature.known for _, feature, _ in tested if feature.known is not None)
    read = frozenset(failed) if not sets else max(sets, key=lambda known: (sets[known], len(known)))
    groups: dict[Hashable, list[str]] = defaultdict(list)
    for id in sorted(failed):
        groups[strata[id], id in read].append(id)
    order = [id for group in groups.values() for id in group]
    place = {id: at for at, id in enumerate(order)}
    rest, cells, p_values = 0.0, [], dict[tuple[int, int], float]()
    for chance, (_, feature, found) in zip(chances, tested, strict=True):
        if feature.known is not None and feature.known != read:
            rest += chance
        else:
            known = failed.keys() if feature.known is None else feature.known & failed.keys()
            runs = sum(1 << place[id] for id in feature.runs & known)
            cells.append((runs, sum(failed[id] for id in feature.runs & known), found))
    outcomes = [[failed[id] for id in group] for group in groups.values()]
    dice, reached = random.Random(0), 0
    for _ in range(SHUFFLES):
        drawn = 0
        at = 0
        for group in outcomes:
            dice.shuffle(group)
            for is_failed in group:
                drawn |= is_failed << at
                at += 1
        for number, (runs, seen, found) in enumerate(cells):
            more = (runs & drawn).bit_count() - seen
            if (number, more) not in p_values:
                p_values[number, more] = found.p(more)
            if p_values[number, more] <= least * RELATIVE:
                reached += 1
                break
    return min(total, rest + (reached + 1) / (SHUFFLES + 1))


def _level(tested: Sequence[Strata]) -> float:
    """Return the largest p that so few sets reach by chance that it is a finding, if no test depends on another."""
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        fits = sum(each.chance_of(middle) for each in tested) <= FALSE_ALARMS
        low, high = (middle, high) if fits else (low, middle)
    return low


def _discrete_q(ps: Sequence[float], tested: Sequence[Strata]) -> list[float]:
    """Return the q of each p, the smallest first: Benjamini and Hochberg's, for tests with few possible values.

    The expected number of tests that reach a p by chance takes the place of the number of tests times p (J. F. Heyse,
    2011): a thing that few runs have seldom reaches a small p, so that it costs the others little.
    """
    found, smallest = [1.0] * len(ps), 1.0
    for place in reversed(range(len(ps))):
        smallest = min(smallest, sum(each.chance_of(ps[place]) for each in tested) / (place + 1))
        found[place] = smallest
    return found


def _tables(feature: Feature, failed: Mapping[str, bool], strata: Mapping[str, Hashable]) -> Iterable[Table]:
    counts: dict[Hashable, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for id in failed if feature.known is None else feature.known & failed.keys():
        counts[strata[id]][2 * (id not in feature.runs) + (not failed[id])] += 1
    return (Table(*cells) for cells in counts.values())


def _finding(feature: Feature, found: Strata, q: float, stratified: bool) -> Finding:
    failed_with, passed_with, failed_without, passed_without = map(sum, zip(*found.tables, strict=True))
    failed, passed = failed_with + failed_without, passed_with + passed_without
    effect = found.effect()
    text, odds, low, high = feature.text, effect.odds_ratio, effect.interval.low, effect.interval.high
    if odds < 1:
        failed_with, passed_with = failed_without, passed_without
        text, odds, low, high = feature.opposite, _inverse(odds), _inverse(high), _inverse(low)
    return Finding(
        text, failed_with, failed, passed_with, passed, odds, low, high, q, stratified, len(found.tables)
    )  # fmt: skip


def _inverse(ratio: float) -> float:
    return inf if ratio == 0 else 1 / ratio
