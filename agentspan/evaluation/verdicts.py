"""The verdict on a version: a stop before the end, or the comparison of two groups of trials, task by task.

Pure functions of outcomes: nothing here reads a storage, so that a simulation of a whole verdict takes a millisecond.

Stopping early: trial k of a case is paired with trial k of the same task in the base, and each trial is used once. If
the versions are equal, both orders of a pair that differs are equally likely, whatever the tasks are. E is the
likelihood of the differing pairs under an unknown probability (the mixture of J. Ville and of R. Krichevsky and
V. Trofimov, IEEE Transactions on Information Theory 27, 1981), divided by that under one half. Among equal versions E
ever reaches 20 in at most 5 % of evaluations, half of them in each direction. Comparing majorities of the trials so far
with those of the base has no such guarantee.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lgamma, log, pi
from statistics import mean
from typing import Literal, NamedTuple

from agentspan.analysis.power import ALPHA
from agentspan.analysis.statistics import FEWEST_TASKS, Interval, exact_interval, mean_interval, sign_tails

EVIDENCE = 20.0
"""The E at which an evaluation stops early."""
EARLY_ALPHA = ALPHA / 2
"""The level of the comparison at the end where an early stop was possible: a stop has the other half."""

Verdict = Literal["better", "worse", "no difference", "inconclusive"]
Stopped = Literal["early", "budget", "interrupted", "plan"]
Key = tuple[str, int]
"""A trial: the id of its case, and its number from 0."""
Outcomes = Mapping[str, Sequence[bool | None]]
"""The outcomes of the trials of each case, in their order; None where the outcome is unknown."""


class Pairs(NamedTuple):
    """Pairs of trials, each one of the base and one of the evaluated version, and how many differ in each direction.

    Attributes:
        pairs: the number of pairs.
        better: the number of pairs in which only the evaluated version passed.
        worse: the number of pairs in which only the base passed.
    """

    pairs: int = 0
    better: int = 0
    worse: int = 0

    def plus(self, base: Sequence[bool | None], head: bool | None) -> "Pairs":
        """Return the counts with one more pair; the same if an outcome is unknown.

        Args:
            base: the outcome of the trial in the base; empty if it has no such trial.
        """
        before = base[0] if base else None
        if before is None or head is None:
            return self
        return Pairs(self.pairs + 1, self.better + (head > before), self.worse + (head < before))

    @property
    def is_clear(self) -> bool:
        """True if the evidence is enough to stop."""
        return log_evidence(self.better, self.worse) >= log(EVIDENCE)

    @property
    def difference(self) -> float:
        """The share of passed trials minus that of the base, over these pairs."""
        return (self.better - self.worse) / self.pairs if self.pairs else 0.0

    def interval(self) -> Interval:
        """Return the interval of the difference that holds at any time with 95 %, given how many pairs differ.

        It is made from those probabilities of a better pair that the evidence does not rule out.
        """
        better, worse, number = self.better, self.worse, self.better + self.worse
        if not number:
            return Interval(-1.0, 1.0)

        def is_ruled_out(share: float) -> bool:
            chance = better * log(share) + worse * log(1 - share)
            return log_evidence(better, worse) - number * log(2) - chance >= log(EVIDENCE)

        middle = min(max(better / number, 1e-9), 1 - 1e-9)
        low, high = (_edge(is_ruled_out, middle, end) for end in (1e-12, 1 - 1e-12))
        scale = number / self.pairs
        return Interval((2 * low - 1) * scale, (2 * high - 1) * scale)


def log_evidence(better: int, worse: int) -> float:
    """Return the logarithm of E for the pairs that differ: so many better, and so many worse."""
    number = better + worse
    return number * log(2) + lgamma(better + 0.5) + lgamma(worse + 0.5) - lgamma(number + 1) - log(pi)


def _edge(is_ruled_out: Callable[[float], bool], inside: float, end: float) -> float:
    if not is_ruled_out(end):
        return end
    for _ in range(50):
        middle = (inside + end) / 2
        inside, end = (inside, middle) if is_ruled_out(middle) else (middle, end)
    return inside


@dataclass(frozen=True, slots=True)
class Comparison:
    """The evaluated version beside the base.

    Attributes:
        verdict: `better` or `worse` by more than chance; `no difference`: a drop that was to be shown is ruled out;
            `inconclusive`: none of them.
        difference: the share of passed trials minus that of the base, from -1 to 1; the mean over tasks, or over pairs
            of trials if the evaluation stopped early.
        interval: the interval of the difference, at the confidence of the verdict: 90 %, or 95 % with early stopping.
        confidence: of the interval, from 0 to 1.
        p: the one-sided p of a difference in this direction; None if the evaluation stopped early.
        tasks: the number of compared tasks.
        base, head: the mean share of passed trials over these tasks.
        pairs: the pairs of trials until the early stop, or all of them.
        is_early: whether the evaluation stopped early.
    """

    verdict: Verdict
    difference: float
    interval: Interval
    confidence: float
    p: float | None
    tasks: int
    base: float
    head: float
    pairs: Pairs
    is_early: bool = False


def planned(cases: Sequence[str], trials: int, seed: int) -> list[Key]:
    """Return the order of all trials, as case and number from 0: all first trials, then all second ones …

    Each round has its own order of the cases, from the seed. So whenever an evaluation stops, no case has had two
    trials more than another.
    """
    dice = random.Random(seed)
    return [(case, number) for number in range(trials) for case in dice.sample(sorted(cases), len(cases))]


def _interval(differences: Sequence[Fraction], confidence: float) -> Interval:
    """Return the interval of the mean difference.

    If few tasks differ, it is widened to the exact bounds of the shares of tasks that got worse, and better.
    """
    found = mean_interval([float(each) for each in differences], confidence=confidence)
    worse, better = sum(each < 0 for each in differences), sum(each > 0 for each in differences)
    if worse + better >= FEWEST_TASKS:
        return found
    most = [exact_interval(each, len(differences), confidence=confidence).high for each in (worse, better)]
    return Interval(min(found.low, -most[0]), max(found.high, most[1]))


class Stop(NamedTuple):
    """The place in the order of the trials at which an evaluation stops early.

    Attributes:
        pairs: the counts of pairs up to the stop, or of all.
        trials: the number of trials up to the stop, or of all.
        is_clear: whether the evidence was ever enough to stop.
    """

    pairs: Pairs
    trials: int
    is_clear: bool


def first_clear(base: Outcomes, head: Outcomes, order: Sequence[Key], *, stops: bool = True) -> Stop:
    """Return the first place in the order at which the evidence of the pairs is enough to stop, else the end.

    Without `stops`, count all pairs.

    Args:
        order: the finished trials in their planned order, as case and number from 0. In the order in which they
            finished the test would not hold: a trial that fails may end sooner.
    """
    found = Pairs()
    for at, (case, number) in enumerate(order, start=1):
        found = found.plus(base.get(case, ())[number : number + 1], head[case][number])
        if stops and found.is_clear:
            return Stop(found, at, is_clear=True)
    return Stop(found, len(order), is_clear=False)


class Course:
    """The finished trials of an evaluation in their planned order, and whether a further one may begin.

    Attributes:
        stopped: why no further trial begins; None while they may.
        spent_usd: the cost of the finished trials.
    """

    def __init__(self, order: Sequence[Key], base: Outcomes, *, early: bool, budget_usd: float | None) -> None:
        self._order, self._base, self._early, self._budget_usd = order, base, early, budget_usd
        self._passed: dict[Key, bool | None] = {}
        self._pairs, self._seen = Pairs(), 0
        self.stopped: Stopped | None = None
        self.spent_usd = 0.0

    def add(self, key: Key, passed: bool | None, cost_usd: float | None) -> None:
        """Add a finished trial, unless it was added before. Stop if the pairs up to the first gap are evidence enough.

        In the order in which they finish the test would not hold (see first_clear).
        """
        if key in self._passed:
            return
        self._passed[key] = passed
        self.spent_usd += cost_usd or 0.0
        while self._early and self._seen < len(self._order) and self._order[self._seen] in self._passed:
            case, number = key = self._order[self._seen]
            self._seen += 1
            self._pairs = self._pairs.plus(self._base.get(case, ())[number : number + 1], self._passed[key])
            if self._pairs.is_clear:
                self.stopped = self.stopped or "early"
                return

    def may_begin(self) -> bool:
        """Return whether a further trial may begin: nothing has stopped them, and the budget is not spent."""
        if self.stopped is None and self._budget_usd is not None and self.spent_usd >= self._budget_usd:
            self.stopped = "budget"
        return self.stopped is None


class Decision(NamedTuple):
    """The verdict before its interval: `better` or `worse` by more than chance, or None.

    Attributes:
        stop: the pairs of trials, and whether they ended the evaluation early.
        shares: the shares of passed trials of each compared task, of the base and of the evaluated version.
        low, high: the one-sided ps of so low, and of so high, a difference; not computed after an early stop.
    """

    verdict: Literal["better", "worse"] | None
    stop: Stop
    shares: list[tuple[Fraction, Fraction]]
    low: float = 1.0
    high: float = 1.0


def decide(base: Outcomes, head: Outcomes, order: Sequence[Key], *, early: bool) -> Decision:
    """Return whether finished trials are better or worse than the base by more than chance (see `compare`)."""
    shares = []
    for case in head:
        before, own = ([each for each in side.get(case, ()) if each is not None] for side in (base, head))
        if before and own:
            shares.append((Fraction(sum(before), len(before)), Fraction(sum(own), len(own))))
    stop = first_clear(base, head, order, stops=early)
    if stop.is_clear or not shares:
        way: Literal["better", "worse"] = "better" if stop.pairs.better > stop.pairs.worse else "worse"
        return Decision(way if stop.is_clear else None, stop, shares)
    level = EARLY_ALPHA if early else ALPHA
    low, high = sign_tails([own - before for before, own in shares])
    return Decision("worse" if low <= level else "better" if high <= level else None, stop, shares, low, high)


def compare(base: Outcomes, head: Outcomes, order: Sequence[Key], *, show: float, early: bool) -> Comparison | None:
    """Return the verdict on finished trials; None if no case has outcomes on both sides.

    Args:
        base, head: the outcomes of the base and of the evaluated version.
        order: the finished trials in their planned order, as case and number from 0.
        show: the drop that is to be shown, from 0 to 1.
        early: whether the evaluation stops early: then the comparison at the end has half the level.
    """
    found = decide(base, head, order, early=early)
    if not found.shares:
        return None
    pairs, tasks = found.stop.pairs, len(found.shares)
    before, after = (float(mean(side)) for side in zip(*found.shares, strict=True))
    if found.stop.is_clear and found.verdict is not None:
        difference, interval, p = pairs.difference, pairs.interval(), None
        return Comparison(found.verdict, difference, interval, 0.95, p, tasks, before, after, pairs, is_early=True)
    confidence = 1 - 2 * (EARLY_ALPHA if early else ALPHA)
    interval = _interval([own - other for other, own in found.shares], confidence)
    verdict: Verdict = found.verdict or ("no difference" if interval.low > -show else "inconclusive")
    lowest = min(found.low, found.high)
    return Comparison(verdict, after - before, interval, confidence, lowest, tasks, before, after, pairs)
