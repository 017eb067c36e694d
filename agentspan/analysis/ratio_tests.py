"""Tests of many ratios over the same two groups of runs: calls per run, failures per call, cost per run …

A ratio is the sum of a numerator over the sum of a denominator, each added up over whole runs: runs are the sample, and
a run changes its side as a whole. One shuffle of the runs serves all ratios; it is by far the most of the work.
"""

import random
from collections.abc import Callable, Sequence
from itertools import compress
from math import fsum, sqrt
from operator import mul
from statistics import NormalDist
from typing import NamedTuple

from agentspan.analysis.statistics import RELATIVE, paired_permutation_p

MOST_PERMUTED = 1000
"""Runs up to which they are permuted: 1,000 rounds of 40 ratios take 1.5 s there. Above, the normal approximation."""
ROUNDS = 1000
MORE_ROUNDS = 4000
"""Rounds that are added for the ratios whose p is below CLOSE, so that it can be small enough among many ratios."""
CLOSE = 0.01
FEW_PAIRS = 12
"""Pairs up to which all signs are tried (see paired_permutation_p): p is exact then."""
ENOUGH = 50
"""Rounds with as large a difference after which a ratio needs no more (J. Besag, P. Clifford, Biometrika 78, 1991): its
p is within a seventh then, and most ratios need a fifth of the rounds."""
TAIL = 20
"""Divisor of the least p that so many rounds can give. If no round has as large a difference, p is that of the normal
distribution with the variance of the rounds, and at least this quotient. Else one ratio of 100 could not be found."""


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
    number = len(ratios[0].above) if ratios else 0
    smaller = min(in_a, number - in_a)
    everyone = range(number)
    totals = [(fsum(ratio.above), fsum(ratio.below)) for ratio in ratios]
    reads = [
        (ratio.above.__getitem__, None if all(each == 1 for each in ratio.below) else ratio.below.__getitem__)
        for ratio in ratios
    ]

    def difference(place: int, chosen: Sequence[int]) -> float | None:
        above, below = reads[place]
        all_above, all_below = totals[place]
        up, down = sum(map(above, chosen)), float(smaller) if below is None else sum(map(below, chosen))
        rest = all_below - down
        return abs(up / down - (all_above - up) / rest) if down > 0 and rest > 0 else None

    places = everyone[:in_a] if smaller == in_a else everyone[in_a:]
    observed = [difference(place, places) for place in range(len(ratios))]
    return _ps(observed, difference, lambda dice: dice.sample(everyone, smaller), seed)


def sign_ps(groups: Sequence[Sequence[float]], *, seed: int = 0) -> list[float]:
    """Return the two-sided p of the mean of each group of differences being 0: pairs change their sign at random.

    Args:
        groups: the differences of pairs; none of them is empty. Up to FEW_PAIRS of them all signs are tried.
        seed: the same seed gives the same p.
    """
    most = max(map(len, groups), default=0)
    totals = [fsum(group) for group in groups]

    def difference(place: int, signs: Sequence[int]) -> float:
        return abs(totals[place] - 2 * sum(compress(groups[place], signs)))

    def signs(dice: random.Random) -> Sequence[int]:
        return [*map(int, f"{dice.getrandbits(most):0{most}b}")]

    many = [place for place, group in enumerate(groups) if len(group) > FEW_PAIRS]
    drawn = _ps([abs(totals[place]) for place in many], lambda at, chosen: difference(many[at], chosen), signs, seed)
    found = dict(zip(many, drawn, strict=True))
    return [found[place] if place in found else paired_permutation_p(group) for place, group in enumerate(groups)]


def tail_p(p: float, difference: float, error: float) -> float:
    """Return the p of a difference that no round of a permutation reached, whose least p is given (see TAIL)."""
    return min(p, max(p / TAIL, two_sided(difference, error)))


class _Count(NamedTuple):
    """The rounds of a ratio: how many, in how many the difference was as large, and the sum of the squares of all."""

    rounds: int
    as_large: int
    squares: float
    observed: float

    def plus(self, other: "_Count") -> "_Count":
        """Return both together."""
        return _Count(
            self.rounds + other.rounds, self.as_large + other.as_large, self.squares + other.squares, self.observed
        )

    @property
    def p(self) -> float:
        """The probability of so large a difference."""
        if self.as_large == ENOUGH:  # it stopped there
            return self.as_large / self.rounds
        p = (self.as_large + 1) / (self.rounds + 1)
        return p if self.as_large else tail_p(p, self.observed, sqrt(self.squares / self.rounds))


_Difference = Callable[[int, Sequence[int]], float | None]
"""The absolute difference of a ratio, by its place, in a round; None where a side lacks it."""
_Draw = Callable[[random.Random], Sequence[int]]


def _ps(observed: Sequence[float | None], difference: _Difference, draw: _Draw, seed: int) -> list[float]:
    """Return the p of each difference: of ROUNDS, and of MORE_ROUNDS beside them for those that are small."""
    counts = _counted(range(len(observed)), observed, difference, draw, ROUNDS, random.Random(seed))
    close = [place for place, count in counts.items() if count.p < CLOSE]
    more = _counted(close, observed, difference, draw, MORE_ROUNDS, random.Random(seed + 1))
    return [(count.plus(more[place]) if place in more else count).p for place, count in counts.items()]


def _counted(
    places: Sequence[int],
    observed: Sequence[float | None],
    difference: _Difference,
    draw: _Draw,
    rounds: int,
    dice: random.Random,
) -> dict[int, _Count]:
    """Return for each place in how many rounds its difference is as large as the observed one."""
    as_large, used = (dict.fromkeys(places, 0) for _ in range(2))
    squares = dict.fromkeys(places, 0.0)
    going = [*places]
    for _ in range(rounds if places else 0):
        drawn = draw(dice)
        for place in going:
            limit, found = observed[place], difference(place, drawn)
            # A round that leaves a side without the ratio says nothing against chance.
            as_large[place] += limit is None or found is None or found * RELATIVE + 1e-12 >= limit
            squares[place] += found * found if found is not None else 0.0
            used[place] += 1
        going = [place for place in going if as_large[place] < ENOUGH]
        if not going:
            break
    return {place: _Count(used[place], as_large[place], squares[place], observed[place] or 0.0) for place in places}


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
