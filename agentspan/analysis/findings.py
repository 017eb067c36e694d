"""Finds what goes with failure: features of runs whose failures differ by more than chance, within the same task.

Tasks differ in what they need and in how hard they are, so a feature of hard tasks would pass for a cause. Where too
few runs share a task, they are compared within the same agent, and the answer says that they are pooled. The share of
false findings among all is controlled (Benjamini and Hochberg); a feature that these numbers of runs cannot decide is
not tested (Tarone).

A feature is a yes or no of each run, such as whether a tool was used. The runs that are compared, and of those the ones
whose payloads are read, are bounded in number, so some are drawn: whole tasks, those with failed and passed runs first,
because only they can tell a cause from a hard task.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from agentspan.analysis.statistics import Strata, Table, benjamini_hochberg
from agentspan.storage.answers import RunBrief

COMPARED_RUNS = 2000
"""Runs that are compared, at most."""
READ_SPANS = 5000
"""Spans whose payloads are read: a tenth of a second."""
FEWEST_TASKS = 5
"""Tasks with several runs, at least, for runs to be compared within them. It is the rule of `drift`."""
PAIRED_SHARE = 0.5
"""The share of the runs that must be of these tasks: else most runs would not be looked at."""


def is_stratified(tasks: Iterable[Hashable], runs: int) -> bool:
    """Return whether so many runs are compared within tasks, from the task of each run that has one."""
    repeated = [number for number in Counter(tasks).values() if number > 1]
    return len(repeated) >= FEWEST_TASKS and sum(repeated) >= PAIRED_SHARE * runs


def drawn(
    runs: Sequence[RunBrief], failed: Collection[str], *, compared: int = COMPARED_RUNS, read: int = READ_SPANS
) -> tuple[list[RunBrief], list[RunBrief]]:
    """Return the runs that are compared, and those of them whose spans are read.

    Args:
        runs: the latest first. Without tasks the latest are compared, and read is a random part of both outcomes: with
            failed runs from a longer time than the passed ones, each change in that time would pass for a cause.
        failed: the ids of those that failed.
        compared: how many runs at most.
        read: how many spans at most.
    """
    if is_stratified([(run.agent_id, run.task) for run in runs if run.task is not None], len(runs)):
        groups = _by_task(runs, failed)
        chosen = [run for group in _fitting(groups, compared, len) for run in group]
    else:
        chosen = [*runs[:compared]]
        groups = [[run] for run in _mixed_by_run(chosen, failed)]
    kept = {run.id for run in chosen}
    groups = [group for group in groups if group[0].id in kept]
    return chosen, [run for group in _fitting(groups, read, _spans) for run in group]


def _by_task(runs: Sequence[RunBrief], failed: Collection[str]) -> list[list[RunBrief]]:
    """Return the runs by task, those with both outcomes first, then by the latest run of each."""
    tasks: dict[Hashable, list[RunBrief]] = defaultdict(list)
    for run in runs:
        tasks[run.id if run.task is None else (run.agent_id, run.task)].append(run)
    return sorted(tasks.values(), key=lambda group: len({run.id in failed for run in group}), reverse=True)


def _mixed_by_run(runs: Sequence[RunBrief], failed: Collection[str]) -> list[RunBrief]:
    """Return runs in a random order in which each beginning has as many of both outcomes, as long as there are some."""
    dice = random.Random(0)
    order = dice.sample(runs, len(runs))
    places: Counter[bool] = Counter()
    ranks = {}
    for run in order:
        ranks[run.id] = places[run.id in failed]
        places[run.id in failed] += 1
    return sorted(order, key=lambda run: ranks[run.id])


def _spans(group: Sequence[RunBrief]) -> int:
    return sum(run.spans for run in group)


def _fitting(
    groups: Iterable[list[RunBrief]], room: int, size: Callable[[list[RunBrief]], int]
) -> Iterator[list[RunBrief]]:
    for group in groups:
        if size(group) <= room:
            room -= size(group)
            yield group


FEWEST = 3
"""Runs that have a feature, and that lack it, at least."""


class Feature(NamedTuple):
    """A property that some runs have and others lack.

    Attributes:
        text: what it is, such as `Tool book_reservation used`.
        runs: the ids of the runs that have it.
        known: the ids of the runs of which it is known; None for all.
        lacking: what the other runs have in common, such as `Tool book_reservation not used`; "" for `no` and the text.
    """

    text: str
    runs: frozenset[str]
    known: frozenset[str] | None = None
    lacking: str = ""

    @property
    def opposite(self) -> str:
        """The words for the runs without it."""
        return self.lacking or f"no {self.text}"


FDR = 0.10
"""The share of false findings among all that is accepted."""
FALSE_ALARMS = 0.05
"""The share of sets of runs without any cause in which something may be found: the clearest finding needs this q (R. J.
Simes, Biometrika 73, 1986). By FDR alone it would be 10 %, as any finding in them is false."""
POWER = 0.8
DECIDABLE = 0.05
"""The smallest p that the numbers of runs must allow for a feature to be tested."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A feature that goes with failure. One that goes with passing is turned around: that runs lack it.

    Attributes:
        feature: what it is, such as `Tool book_reservation not used`.
        failed_with, failed: of how many failed runs how many have it. Only runs of which it is known count, in the
            tasks (or else agents) that the odds come from: those that both failed and passed, with and without it.
        passed_with, passed: the same of runs that passed.
        tasks: how many tasks (or else agents) these are.
        odds_ratio: how many times greater the odds of failing are with it, more than 1, within a task (or else agent).
            Infinite where in none of them a run with it passed and one without it failed. It may be more than 1 though
            the counts, which add up all tasks, give less: tasks are not equally hard.
        low, high: its interval at 95 %, exact where no run contradicts; of this feature alone.
        q: the share of false findings among those that are at least as clear as this one, corrected for all features
            that were tested.
        stratified: whether runs were compared within the same task.
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

    @property
    def is_turned(self) -> bool:
        """Return whether the counts, which add up all tasks, point the other way than the odds within a task."""
        return self.failed_with * (self.passed - self.passed_with) < self.passed_with * (self.failed - self.failed_with)


@dataclass(frozen=True, slots=True)
class Findings:
    """All that goes with failure, the clearest first.

    Attributes:
        findings: those with a q of at most FDR; within the same task, where there are tasks.
        pooled: those of all runs together that are none within the same task: the tasks themselves may cause them.
        runs: how many runs were compared.
        tasks: how many tasks have both failed and passed runs.
        tested: how many features could be decided.
        stratified: whether runs were compared within the same task.
        tested_pooled: how many features could be decided over all runs together: the q of each of `pooled` is corrected
            for so many, the interval of its odds ratio is not.
        detectable: if nothing was found: the least odds ratio that would have been found in four of five sets of such
            runs, as a feature of that number of runs which tells most; infinite if none would. None where nothing was
            tested, or something was found.
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
    """Return what goes with failure.

    Args:
        features: of the runs.
        failed: whether each run failed, by its id.
        strata: the agent and the task of each run; None where it has no task.
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
    names = {each.feature for each in found}
    others = tuple(each for each in pooled if each.feature not in names)
    return Findings(found, others, len(within), mixed, tested, True, tested_pooled, detectable)


def _mixed(failed: Mapping[str, bool], tasks: Mapping[str, Hashable]) -> int:
    """Return how many tasks have both outcomes."""
    seen: dict[Hashable, set[bool]] = defaultdict(set)
    for id, task in tasks.items():
        seen[task].add(failed[id])
    return sum(len(outcomes) == 2 for outcomes in seen.values())


def _tested(
    features: Sequence[Feature], failed: Mapping[str, bool], strata: Mapping[str, Hashable], *, stratified: bool
) -> tuple[tuple[Finding, ...], int, float | None]:
    """Return the findings, the clearest first; how many features were tested; and what could have been found."""
    tested: list[tuple[float, Feature, Strata]] = []
    for feature in features:
        found = Strata(_tables(feature, failed, strata))
        if found.smallest_p() <= DECIDABLE:
            tested.append((found.p(), feature, found))
    tested.sort(key=lambda each: each[0])  # stable: equal ones stay in the order of the features
    q_values = benjamini_hochberg([p for p, _, _ in tested])
    is_alarm = bool(q_values) and q_values[0] <= FALSE_ALARMS
    clear = [(q, each) for q, each in zip(q_values, tested, strict=True) if is_alarm and q <= FDR]
    detectable = None
    if tested and not clear:
        most = max((each for _, _, each in tested), key=lambda each: each.variance)
        detectable = most.detectable(FALSE_ALARMS / len(tested), POWER)
    findings = tuple(_finding(feature, found, q, stratified) for q, (_, feature, found) in clear)
    return findings, len(tested), detectable


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
