"""Simulated evaluations of known truth: how often a verdict errs, what it finds, and what stopping early saves."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import mean
from typing import NamedTuple

from agentspan.evaluation.plan import plan
from agentspan.evaluation.verdicts import Outcomes, decide, planned

SIZES = [(50, 1, 1), (50, 3, 3), (200, 3, 3), (50, 3, 1), (50, 1, 3)]
"""Cases, trials of the base, and trials."""
SHARE = 0.8
KINDS: Mapping[str, Callable[[random.Random], float]] = {
    "alike": lambda dice: SHARE,
    "unlike": lambda dice: dice.betavariate(0.4 * SHARE, 0.4 * (1 - SHARE)),
}
"""The kinds of tasks: each passes with the same probability, or most with one close to 0 or 1."""
Shares = Mapping[str, float]


class Simulated(NamedTuple):
    """Shares of simulated evaluations, from 0 to 1.

    Attributes:
        null_worse, null_better: equal versions with this verdict.
        drop: the mean drop that the plan says is found in 80 of 100 evaluations.
        of_few: the same where a few tasks make the drop.
        even: versions that are worse by this drop, and found to be: each task by as much.
        broken: versions that are worse by `of_few`, because some tasks never pass any more, and found to be.
        twice: versions that are worse by twice the drop, and found to be.
        saved: the runs that these did not take, of those planned.
    """

    null_worse: float
    null_better: float
    drop: float
    of_few: float
    even: float
    broken: float
    twice: float
    saved: float


class Evaluated(NamedTuple):
    """A verdict, and the share of the planned runs that it took."""

    verdict: str
    runs: float


def simulated(cases: int, in_base: int, trials: int, kind: str, *, early: bool, seeds: Iterable[int]) -> Simulated:
    """Return the shares of evaluations of so many cases, one for each seed."""
    null: list[Evaluated] = []
    even: list[Evaluated] = []
    broken: list[Evaluated] = []
    twice: list[Evaluated] = []
    drops = []
    for seed in seeds:
        dice = random.Random(seed)
        shares = {str(place): KINDS[kind](dice) for place in range(cases)}
        base = drawn(dice, shares, in_base)
        wanted = plan(base, [*shares], trials, show=1.0, early=early)
        drop, of_few = wanted.detectable or 1.0, wanted.broken or 1.0
        drops.append((drop, of_few))
        for group, other in (
            (null, shares),
            (even, lowered(shares, drop)),
            (broken, with_broken(dice, shares, of_few)),
            (twice, lowered(shares, 2 * drop)),
        ):
            group.append(evaluated(base, drawn(dice, other, trials), trials, early=early, seed=seed))
    drop, of_few = (mean(side) for side in zip(*drops, strict=True))
    nulls = _share(null, "worse"), _share(null, "better")
    found = _share(even, "worse"), _share(broken, "worse"), _share(twice, "worse")
    return Simulated(*nulls, drop, of_few, *found, saved=1 - mean(each.runs for each in twice))


def _share(group: Sequence[Evaluated], verdict: str) -> float:
    return sum(each.verdict == verdict for each in group) / len(group)


def drawn(dice: random.Random, shares: Shares, trials: int) -> dict[str, list[bool | None]]:
    """Return outcomes of so many trials of each case."""
    return {case: [dice.random() < share for _ in range(trials)] for case, share in shares.items()}


def lowered(shares: Shares, drop: float) -> Shares:
    """Return probabilities that are lower by `drop` on average: each by as much, where it has so much."""
    wanted = sum(shares.values()) - drop * len(shares)
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        is_more = sum(max(0.0, share - middle) for share in shares.values()) > wanted
        low, high = (middle, high) if is_more else (low, middle)
    return {case: max(0.0, share - low) for case, share in shares.items()}


def with_broken(dice: random.Random, shares: Shares, drop: float) -> Shares:
    """Return probabilities that are lower by `drop` on average, because some tasks never pass any more."""
    found, left = dict(shares), drop * len(shares)
    for case in dice.sample(sorted(found), len(found)):
        lost = min(left, found[case])
        found[case] -= lost
        left -= lost
    return found


def evaluated(base: Outcomes, head: Outcomes, trials: int, *, early: bool, seed: int) -> Evaluated:
    """Return the verdict on outcomes, as an evaluation with one worker comes to it.

    Without the interval, which takes most of the time: it tells `no difference` from `inconclusive` only.
    """
    order = planned([*head], trials, seed)
    found = decide(base, head, order, early=early)
    return Evaluated(found.verdict or "", found.stop.trials / len(order))
