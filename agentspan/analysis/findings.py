"""Finds what goes with failure: features of runs whose failures differ by more than chance, within the same task.

Tasks differ in what they need and in how hard they are, so a feature of hard tasks would pass for a cause. Where too
few runs share a task, they are compared within the same agent, and the answer says that they are pooled. The share of
false findings among all is controlled (Benjamini and Hochberg); a feature that these numbers of runs cannot decide is
not tested (Tarone).
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from agentspan.analysis.drawing import is_stratified
from agentspan.analysis.feature import Feature
from agentspan.analysis.statistics import benjamini_hochberg
from agentspan.analysis.stratified import Strata, Table

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
