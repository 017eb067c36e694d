"""Tests of many ratios over the same two groups of runs: calls per run, failures per call, cost per run …

A ratio is the sum of a numerator over the sum of a denominator, each added up over whole runs: runs are the sample, and
a run changes its side as a whole. One shuffle of the runs serves all ratios; it is by far the most of the work.
"""

import random
from collections.abc import Sequence
from math import fsum, sqrt
from operator import mul
from statistics import NormalDist
from typing import NamedTuple

from agentspan.analysis.statistics import RELATIVE

MOST_PERMUTED = 1000
"""Runs up to which they are permuted: 1,000 rounds of 40 ratios take 1.5 s there. Above, the normal approximation."""
ROUNDS = 1000
MORE_ROUNDS = 4000
"""Rounds that are added for the ratios whose p is below CLOSE, so that it can be small enough among many ratios."""
CLOSE = 0.01


class Ratio(NamedTuple):
    """A numerator and a denominator for each run, in the order of the runs: first those of A, then those of B."""

    above: Sequence[float]
    below: Sequence[float]


def permutation_ps(ratios: Sequence[Ratio], in_a: int, *, seed: int = 0) -> list[float]:
    """Return the two-sided p of each ratio being the same in A and B, by permutation of the runs.

    Args:
        in_a: how many of the runs are in A.
        seed: the same seed gives the same p.

    A ratio that a side lacks, as all of its denominators are 0, has the p 1.
    """
    as_large = _counted(ratios, in_a, ROUNDS, random.Random(seed))
    rounds = [ROUNDS] * len(ratios)
    close = [place for place, number in enumerate(as_large) if (number + 1) / (ROUNDS + 1) < CLOSE]
    if close:
        more = _counted([ratios[place] for place in close], in_a, MORE_ROUNDS, random.Random(seed + 1))
        for place, number in zip(close, more, strict=True):
            as_large[place] += number
            rounds[place] += MORE_ROUNDS
    return [(number + 1) / (of + 1) for number, of in zip(as_large, rounds, strict=True)]


def _counted(ratios: Sequence[Ratio], in_a: int, rounds: int, dice: random.Random) -> list[int]:
    """Return for each ratio in how many rounds its difference is as large as the observed one."""
    number = len(ratios[0].above) if ratios else 0
    smaller = min(in_a, number - in_a)
    places = [*range(in_a)] if smaller == in_a else [*range(in_a, number)]
    everyone = range(number)
    totals = [(fsum(ratio.above), fsum(ratio.below)) for ratio in ratios]
    reads = [(ratio.above.__getitem__, ratio.below.__getitem__) for ratio in ratios]

    def differences(chosen: Sequence[int]) -> list[float | None]:
        found: list[float | None] = []
        for (above, below), (all_above, all_below) in zip(reads, totals, strict=True):
            up, down = sum(map(above, chosen)), sum(map(below, chosen))
            rest = all_below - down
            found.append(abs(up / down - (all_above - up) / rest) if down > 0 and rest > 0 else None)
        return found

    observed = differences(places)
    as_large = [0] * len(ratios)
    for _ in range(rounds):
        for place, difference in enumerate(differences(dice.sample(everyone, smaller))):
            limit = observed[place]
            # A round that leaves a side without the ratio says nothing against chance.
            as_large[place] += limit is None or difference is None or difference * RELATIVE + 1e-12 >= limit
    return as_large


def normal_p(ratio: Ratio, in_a: int) -> float:
    """Return the two-sided p of a ratio being the same, clustered by run: the normal approximation (delta method)."""
    a, b = (_estimate(ratio.above[part], ratio.below[part]) for part in (slice(in_a), slice(in_a, None)))
    if a is None or b is None:
        return 1.0
    return two_sided(a[0] - b[0], sqrt(a[1] + b[1]))


def two_sided(difference: float, error: float) -> float:
    """Return the two-sided p of a normally distributed difference with this standard error."""
    if error == 0:
        return 1.0 if difference == 0 else 0.0
    return 2 * NormalDist().cdf(-abs(difference) / error)


def variance_of(above: Sequence[float], below: Sequence[float]) -> float | None:
    """Return the variance of the estimate of a ratio, clustered by run; None for less than two runs."""
    found = _estimate(above, below)
    return None if found is None else found[1]


def _estimate(above: Sequence[float], below: Sequence[float]) -> tuple[float, float] | None:
    """Return a ratio, and the variance of its estimate."""
    number, total = len(above), fsum(below)
    if number < 2 or total <= 0:
        return None
    share = fsum(above) / total
    residuals = [up - share * down for up, down in zip(above, below, strict=True)]
    return share, fsum(map(mul, residuals, residuals)) * number / (number - 1) / total**2
