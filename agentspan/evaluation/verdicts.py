"""The verdict on a version: a stop before the end, or the comparison of two groups of trials, task by task.

Pure functions of outcomes: nothing here reads a storage, so that a simulation of a whole verdict takes a millisecond.

Stopping early: trial k of a case is paired with trial k of the same case in the base. If the versions are equal, both
orders of the first pair of a case that differs are equally likely, whatever the cases are, and also if the trials of a
case repeat. A second pair of the case would not be: it may repeat the first. E is the likelihood of these pairs under
an unknown probability (the mixture of J. Ville and of R. Krichevsky and V. Trofimov, IEEE Transactions on Information
Theory 27, 1981), divided by that under one half. Among equal versions E ever reaches 20 in at most 5 % of evaluations,
half of them in each direction. Comparing majorities of the trials so far with those of the base has no such guarantee.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import hypot, lgamma, log, pi
from statistics import mean
from typing import Literal, NamedTuple

from agentspan.judging import (
    ALPHA,
    FEWEST_TASKS,
    Chosen,
    Interval,
    PairedCase,
    Verdict,
    doubt_of,
    exact_interval,
    mean_interval,
    paired_tails,
    share_interval,
    variance_of,
)

EVIDENCE = 20.0
"""The E at which an evaluation stops early."""
EARLY_ALPHA = ALPHA / 2
"""The level of the comparison at the end where an early stop was possible: a stop has the other half."""

Stopped = Literal["early", "budget", "interrupted", "plan"]
Key = tuple[str, int]
"""A trial: the id of its case, and its number from 0."""
Outcomes = Mapping[str, Sequence[bool | None]]
"""The outcomes of the trials of each case, in their order; None where the outcome is unknown."""


class Pairs(NamedTuple):
    """Pairs of trials, each one of the base and one of the evaluated version. A case counts until its first difference.

    Attributes:
        pairs: the number of pairs that were looked at.
        better: the number of cases whose first pair that differs is better: only the evaluated version passed.
        worse: the number of cases whose first pair that differs is worse: only the base passed.
    """

    pairs: int = 0
    better: int = 0
    worse: int = 0

    @property
    def is_clear(self) -> bool:
        """True if the evidence is enough to stop."""
        return log_evidence(self.better, self.worse) >= log(EVIDENCE)

    def interval(self) -> Interval:
        """Return the interval of the share of worse pairs, or of better ones if these are more, of those that differ.

        It is made from those probabilities that the evidence does not rule out, so it holds at any time with 95 %.
        """
        most, least = max(self.better, self.worse), min(self.better, self.worse)
        if not most:
            return Interval(0.0, 1.0)

        def is_ruled_out(share: float) -> bool:
            chance = most * log(share) + least * log(1 - share)
            return log_evidence(most, least) - (most + least) * log(2) - chance >= log(EVIDENCE)

        middle = min(most / (most + least), 1 - 1e-9)
        low, high = (_edge(is_ruled_out, middle, end) for end in (1e-12, 1 - 1e-12))
        return Interval(low, high)


class _Bets:
    """The pairs of trials in their planned order. Only the first pair of a case that differs is evidence."""

    def __init__(self, base: Outcomes) -> None:
        self._base, self._differ, self.pairs = base, set[str](), Pairs()

    def add(self, case: str, number: int, passed: bool | None) -> bool:
        """Add a trial. Return whether the evidence is enough to stop."""
        before = next(iter(self._base.get(case, ())[number : number + 1]), None)
        if before is not None and passed is not None and case not in self._differ:
            pairs, better, worse = self.pairs
            self.pairs = Pairs(pairs + 1, better + (passed > before), worse + (passed < before))
            self._differ |= {case} if passed != before else set()
        return self.pairs.is_clear


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
        difference: the share of passed trials minus that of the base, from -1 to 1: the mean over tasks. After an early
            stop these are the tasks and trials up to the stop.
        interval: the interval of the difference, at the confidence of the verdict: 90 %, or 95 % with early stopping.
            None if the evaluation stopped early: the evidence then bounds `pairs.interval()`.
        confidence: of the interval, from 0 to 1.
        p: the one-sided p of a difference in this direction; None if the evaluation stopped early.
        tasks: the number of compared tasks.
        base, head: the mean share of passed trials over these tasks.
        pairs: the pairs of trials until the early stop, or all of them.
        is_early: whether the evaluation stopped early.
        doubt: why a verdict is withheld, so that it is `inconclusive`; None if it is not.
    """

    verdict: Verdict
    difference: float
    interval: Interval | None
    confidence: float
    p: float | None
    tasks: int
    base: float
    head: float
    pairs: Pairs
    is_early: bool = False
    doubt: str | None = None


def planned(cases: Sequence[str], trials: int, seed: int) -> list[Key]:
    """Return the order of all trials, as case and number from 0: all first trials, then all second ones …

    Each round has its own order of the cases, from the seed. So whenever an evaluation stops, no case has had two
    trials more than another.
    """
    dice = random.Random(seed)
    return [(case, number) for number in range(trials) for case in dice.sample(sorted(cases), len(cases))]


def _interval(cases: Sequence[PairedCase], confidence: float) -> Interval:
    """Return the interval of the mean difference.

    It is widened where the test of signs is not exact: if few tasks differ, to the exact bounds of the shares of tasks
    that got worse, and better; if numbers of trials differ, by the intervals of both shares (R. G. Newcombe, Statistics
    in Medicine 17, 1998).
    """
    differences = [each.difference for each in cases]
    found = mean_interval([float(each) for each in differences], confidence=confidence)
    worse, better = sum(each < 0 for each in differences), sum(each > 0 for each in differences)
    if worse + better < FEWEST_TASKS:
        most = [exact_interval(each, len(differences), confidence=confidence).high for each in (worse, better)]
        found = Interval(min(found.low, -most[0]), max(found.high, most[1]))
    if all(each.base == each.head for each in cases):
        return found
    ones, sides = [1.0] * len(cases), []
    for place in (0, 2):
        shares = [each[place] / each[place + 1] for each in cases]
        share, trials = mean(shares), float(sum(each[place + 1] for each in cases))
        variance = variance_of(shares, ones)
        sides.append((share, share_interval(share, variance, least=len(cases), most=trials, confidence=confidence)))
    (base, of_base), (head, of_head) = sides
    low = head - base - hypot(head - of_head.low, of_base.high - base)
    high = head - base + hypot(of_head.high - head, base - of_base.low)
    return Interval(min(found.low, low), max(found.high, high))


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
    bets = _Bets(base)
    for at, (case, number) in enumerate(order, start=1):
        if bets.add(case, number, head[case][number]) and stops:
            return Stop(bets.pairs, at, is_clear=True)
    return Stop(bets.pairs, len(order), is_clear=False)


class Course:
    """The finished trials of an evaluation in their planned order, and whether a further one may begin.

    Attributes:
        stopped: why no further trial begins; None while they may.
        spent_usd: the cost of the finished trials.
    """

    def __init__(self, order: Sequence[Key], base: Outcomes, *, early: bool, budget_usd: float | None) -> None:
        self._order, self._early, self._budget_usd = order, early, budget_usd
        self._passed: dict[Key, bool | None] = {}
        self._bets, self._seen = _Bets(base), 0
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
            key = self._order[self._seen]
            self._seen += 1
            if self._bets.add(*key, self._passed[key]):
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
        cases: the trials of each compared case: those up to the stop.
        low, high: the one-sided ps of so low, and of so high, a difference; not computed after an early stop.
    """

    verdict: Literal["better", "worse"] | None
    stop: Stop
    cases: list[PairedCase]
    low: float = 1.0
    high: float = 1.0


def decide(base: Outcomes, head: Outcomes, order: Sequence[Key], *, early: bool) -> Decision:
    """Return whether finished trials are better or worse than the base by more than chance (see `compare`)."""
    stop = first_clear(base, head, order, stops=early)
    of_head: dict[str, list[bool]] = {}
    for case, number in order[: stop.trials]:
        if (passed := head[case][number]) is not None:
            of_head.setdefault(case, []).append(passed)
    cases = [
        PairedCase(sum(before), len(before), sum(own), len(own))
        for case, own in of_head.items()
        if (before := [each for each in base.get(case, ()) if each is not None])
    ]
    if stop.is_clear or not cases:
        way: Literal["better", "worse"] = "better" if stop.pairs.better > stop.pairs.worse else "worse"
        return Decision(way if stop.is_clear else None, stop, cases)
    level = EARLY_ALPHA if early else ALPHA
    low, high = paired_tails(cases)
    return Decision("worse" if low <= level else "better" if high <= level else None, stop, cases, low, high)


def compare(
    base: Outcomes, head: Outcomes, order: Sequence[Key], *, show: float, early: bool, chosen: Chosen | None = None
) -> Comparison | None:
    """Return the verdict on finished trials; None if no case has outcomes on both sides.

    A verdict is withheld if missing outcomes, or how the cases were chosen, decide it (see doubt_of).

    Args:
        base, head: the outcomes of the base and of the evaluated version.
        order: the finished trials in their planned order, as case and number from 0.
        show: the drop that is to be shown, from 0 to 1.
        early: whether the evaluation stops early: then the comparison at the end has half the level.
        chosen: how the cases were chosen, if by their outcomes in the base.
    """
    found = decide(base, head, order, early=early)
    if not found.cases:
        return None
    verdict, interval = _judged(found, show=show, early=early)
    missing = sum(head[case][number] is None for case, number in order)
    missing += sum(base[case].count(None) for case in {case for case, _ in order} & base.keys())

    def filled(passed: bool) -> Verdict:
        of_both = _filled(base, head, order, passed=passed)
        return _judged(decide(*of_both, order, early=early), show=show, early=early)[0]

    could_fall = any(any(own) for own in base.values())
    doubt = doubt_of(verdict, filled, missing=missing, could_fall=could_fall, chosen=chosen)
    before, after = (float(mean(Fraction(each[place], each[place + 1]) for each in found.cases)) for place in (0, 2))
    return Comparison(
        "inconclusive" if doubt else verdict, after - before, interval, 1 - 2 * (EARLY_ALPHA if early else ALPHA),
        None if interval is None else min(found.low, found.high), len(found.cases), before, after, found.stop.pairs,
        found.stop.is_clear, doubt,
    )  # fmt: skip


def _judged(found: Decision, *, show: float, early: bool) -> tuple[Verdict, Interval | None]:
    """Return the verdict, and the interval of the difference; None after an early stop."""
    if found.stop.is_clear and found.verdict is not None:
        return found.verdict, None
    interval = _interval(found.cases, 1 - 2 * (EARLY_ALPHA if early else ALPHA))
    if found.verdict is not None:
        return found.verdict, interval
    # Corrected for continuity: without it, a drop of `show` is ruled out in up to 7 % where trials of a case repeat.
    steps = [abs(each.difference) for each in found.cases if each.difference and min(each.base, each.head) > 1]
    half = min(steps) / 2 if len(steps) >= FEWEST_TASKS else 0  # the bounds of fewer are exact
    low, high = (float(end + side * half / len(found.cases)) for end, side in ((interval.low, -1), (interval.high, 1)))
    return "no difference" if low > -show else "inconclusive", Interval(low, high)


def _filled(
    base: Outcomes, head: Outcomes, order: Sequence[Key], *, passed: bool
) -> tuple[dict[str, list[bool | None]], dict[str, list[bool | None]]]:
    """Return the outcomes with one for each missing one: this one in finished trials, the other one in the base."""
    before: dict[str, list[bool | None]] = {
        case: [not passed if each is None else each for each in own] for case, own in base.items()
    }
    after = {case: [*own] for case, own in head.items()}
    for case, number in order:
        if after[case][number] is None:
            after[case][number] = passed
    return before, after
