"""Simulated comparisons of known truth: how often a verdict errs, what it finds, and what stopping early saves.

Outcomes are drawn at random, and pass through the functions that `evaluate`, `diff`, `versions` and `check` use.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import mean
from typing import Literal, NamedTuple

from agentspan.analysis.check import drop_p
from agentspan.analysis.drift import PASSED, group_sizes, outcome_p, task_pairs
from agentspan.analysis.drift_metrics import RunFacts
from agentspan.analysis.power import ALPHA
from agentspan.evaluation.plan import plan
from agentspan.evaluation.verdicts import Outcomes, compare, decide, planned

SIZES = [(1, 1), (1, 3), (1, 5), (5, 1), (5, 5)]
"""Trials of a case in the base, and in the evaluated version."""
SHARES = (0.5, 0.8, 0.95)
REPEATS = (0.0, 0.5, 1.0)
KINDS: Mapping[str, Callable[[random.Random, float], float]] = {
    "alike": lambda dice, share: share,
    "unlike": lambda dice, share: dice.betavariate(0.4 * share, 0.4 * (1 - share)),
}
"""The kinds of cases: each passes with the same probability, or most with one close to 0 or 1."""
Way = Literal["fixed", "early", "diff", "check"]
SHOW = 0.1
"""The drop that an evaluation is to show."""
Shares = Mapping[str, float]


class Cell(NamedTuple):
    """One kind of comparison.

    Attributes:
        kind: of the cases, of KINDS.
        share: of trials that pass, on average.
        in_base, trials: the numbers of trials of a case on both sides.
        repeat: the probability that a trial does as the first one of its case does.
    """

    kind: str
    share: float
    in_base: int
    trials: int
    repeat: float
    cases: int = 50


class Nulls(NamedTuple):
    """The shares of comparisons of equal versions with this verdict, from 0 to 1."""

    worse: float
    better: float
    early_worse: float
    early_better: float
    diff: float
    check: float


class Found(NamedTuple):
    """What one way of comparing promises and finds.

    Attributes:
        drop: the mean drop that it says is found in 80 of 100 comparisons.
        found: the share of versions that are worse by that drop and found to be.
        untold: the share of comparisons that say that no drop would be found; they are not in the others.
        saved: the share of the planned runs that early stopping saves at twice the drop.
    """

    drop: float
    found: float
    untold: float
    saved: float = 0.0


def cells(sizes: Iterable[tuple[int, int]] = SIZES) -> list[Cell]:
    """Return all cells of the table."""
    return [
        Cell(kind, share, *size, repeat) for size in sizes for kind in KINDS for share in SHARES for repeat in REPEATS
    ]


def probabilities(dice: random.Random, cell: Cell) -> Shares:
    """Return the probability of each case to pass."""
    return {str(place): KINDS[cell.kind](dice, cell.share) for place in range(cell.cases)}


def drawn(dice: random.Random, shares: Shares, trials: int, repeat: float = 0.0) -> dict[str, list[bool | None]]:
    """Return outcomes of so many trials of each case."""
    found: dict[str, list[bool | None]] = {}
    for case, share in shares.items():
        first = dice.random() < share
        others = [first if dice.random() < repeat else dice.random() < share for _ in range(trials - 1)]
        found[case] = [first, *others]
    return found


def lowered(shares: Shares, drop: float) -> Shares:
    """Return probabilities that are lower by `drop` on average: each by as much, where it has so much."""
    wanted = sum(shares.values()) - drop * len(shares)
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        is_more = sum(max(0.0, share - middle) for share in shares.values()) > wanted
        low, high = (middle, high) if is_more else (low, middle)
    return {case: max(0.0, share - low) for case, share in shares.items()}


def facts(outcomes: Outcomes) -> list[RunFacts]:
    """Return outcomes as the runs that `diff` and `check` compare."""
    return [
        RunFacts(f"{case} {number}", case, {PASSED: (float(bool(passed)), 1.0)})
        for case, own in outcomes.items()
        for number, passed in enumerate(own)
    ]


def nulls(cell: Cell, seeds: Iterable[int]) -> Nulls:
    """Return how often equal versions get a verdict, with one comparison for each seed."""
    counts, number = [0] * 6, 0
    for seed in seeds:
        dice = random.Random(f"{seed} {cell}")
        shares = probabilities(dice, cell)
        base, head = drawn(dice, shares, cell.in_base, cell.repeat), drawn(dice, shares, cell.trials, cell.repeat)
        order = planned([*head], cell.trials, seed)
        fixed, early = (decide(base, head, order, early=each).verdict for each in (False, True))
        runs = facts(base), facts(head)
        found = (
            fixed == "worse", fixed == "better", early == "worse", early == "better",
            outcome_p(*runs, task_pairs(*runs)) <= ALPHA, drop_p(runs[1], runs[0]) <= ALPHA,
        )  # fmt: skip
        counts = [count + each for count, each in zip(counts, found, strict=True)]
        number += 1
    return Nulls(*(count / number for count in counts))


def overlooked(cell: Cell, seeds: Iterable[int]) -> float:
    """Return how often an evaluation says `no difference` of a version that is worse by SHOW on average."""
    said, number = 0, 0
    for seed in seeds:
        dice = random.Random(f"{seed} {cell}")
        shares = probabilities(dice, cell)
        base = drawn(dice, shares, cell.in_base, cell.repeat)
        head = drawn(dice, lowered(shares, SHOW), cell.trials, cell.repeat)
        found = compare(base, head, planned([*head], cell.trials, seed), show=SHOW, early=False)
        said += found is not None and found.verdict == "no difference"
        number += 1
    return said / number


def power(cell: Cell, way: Way, seeds: Iterable[int]) -> Found:
    """Return what a way of comparing finds at the drop that it promises itself.

    The drop of a plan is that for trials that repeat, where they do. `diff` and `check` name theirs beside equal
    versions; the worse version is then drawn anew, with the base.
    """
    drops, found, saved, untold = list[float](), 0, 0.0, 0
    for seed in seeds:
        dice = random.Random(f"{seed} {cell}")
        shares = probabilities(dice, cell)
        base = drawn(dice, shares, cell.in_base, cell.repeat)
        early, order = way == "early", planned([*shares], cell.trials, seed)
        if way in ("diff", "check"):
            sizes = group_sizes(facts(base), facts(drawn(dice, shares, cell.trials, cell.repeat)))
            drop = 1.0 if sizes is None else sizes.drop(one_sided=way == "check")
        else:
            wanted = plan(base, [*shares], cell.trials, show=1.0, early=early)
            drop = (wanted.repeating if cell.repeat else wanted.detectable) or 1.0
        if drop > mean(shares.values()):
            untold += 1
            continue
        drops.append(drop)
        if way in ("diff", "check"):
            base = drawn(dice, shares, cell.in_base, cell.repeat)
        head = drawn(dice, lowered(shares, drop), cell.trials, cell.repeat)
        if way == "diff":
            pairs = task_pairs(facts(base), facts(head))
            is_lower = mean(map(mean, _known(head))) < mean(map(mean, _known(base)))
            found += is_lower and outcome_p(facts(base), facts(head), pairs) <= ALPHA
        elif way == "check":
            found += drop_p(facts(head), facts(base)) <= ALPHA
        else:
            found += decide(base, head, order, early=early).verdict == "worse"
        if early:
            twice = drawn(dice, lowered(shares, 2 * drop), cell.trials, cell.repeat)
            saved += 1 - decide(base, twice, order, early=True).stop.trials / len(order)
    number = len(drops) or 1
    return Found(mean(drops or [1.0]), found / number, untold / (len(drops) + untold), saved / number)


def _known(outcomes: Outcomes) -> list[Sequence[bool]]:
    return [[bool(each) for each in own] for own in outcomes.values()]
