"""Computes the smallest drop of passed runs that two groups of runs can detect: the power of the outcome's tests.

For up to MOST_EXACT runs per group, or tasks, the distributions are exact: of Fisher's test, or of the sign test of
tasks. For more, the normal approximation is used, which is then wrong by less than a point.
"""

from collections.abc import Callable, Iterator
from functools import cache
from math import ceil, comb, log2, sqrt
from statistics import NormalDist
from typing import NamedTuple

from agentspan.analysis.statistics import UNEQUAL, binomial, fisher_p

ALPHA = 0.05
"""The level of the outcome's test; the false discovery rate of other metrics if the outcome differs or is unknown."""
POWER = 0.8
MOST_EXACT = 200
MOST_TIMES = 1000
"""The largest multiple of the present runs that the search for enough runs tries."""
PARTS = tuple(percent / 100 for percent in range(38, 63, 4))
"""The shares of the runs that the head gets, in the search for the fewest runs that detect a drop.

Equal groups are not always best, since the exact test seldom errs in just 5 %. Trying all shares and numbers would need
3 % fewer runs, but takes seconds.
"""
UNLIKELY = 1e-7
"""Numbers of passed runs with a smaller probability are ignored."""


class More(NamedTuple):
    """The further runs of each group, and further tasks if runs are paired, that would detect a drop."""

    base: int
    head: int
    pairs: int


class GroupSizes(NamedTuple):
    """The sizes and variances of two groups, which determine the smallest detectable drop of passed runs.

    Attributes:
        share: the share of passed runs before a drop, from 0 to 1.
        base, head: the number of runs with an outcome in each group.
        pairs: the number of tasks by which runs are paired; 0 if they are not paired.
        varies: the variance of the tasks' differences.
        size: the typical size of a task's difference, if not 0: the sum of squares divided by the sum of sizes.
        least: the least size of a task's difference, by which no test is blind to a smaller drop: 1 where a task has
            one run or its runs repeat each other.
        is_equal: whether each task has as many runs in both groups.
        noise: the variance of a task's mean in the head, in that of one run: 1 over its runs, or more if they repeat.
        alike: how far the tasks are alike, from 0 (each passes always or never) to 1.
    """

    share: float
    base: float
    head: float
    pairs: float
    varies: float
    size: float
    least: float = 0.0
    is_equal: bool = True
    noise: float = 1.0
    alike: float = 1.0

    def drop(self, *, one_sided: bool = False) -> float:
        """Return the smallest drop that is detected in 80 of 100 cases, from 0 to 1; 1 if no drop is detectable.

        Args:
            one_sided: whether the test only looks for drops.
        """
        power = self._power(one_sided=one_sided)
        if not self.share or power(self.share) < POWER:
            return 1.0
        return _bisected(lambda drop: power(drop) >= POWER, 0.0, self.share)

    def more_for(self, drop: float) -> More | None:
        """Return the further runs that detect a drop in a one-sided test; None if no number does.

        If runs are paired, further tasks are added, with as many runs per task as now. Otherwise the split between the
        groups is chosen that needs about the fewest runs in all.
        """
        if drop > self.share:
            return None
        if self.pairs:
            tasks = _least(lambda tasks: self._of(ceil(tasks)).finds(drop), self.pairs)
            found = None if tasks is None else self._of(ceil(tasks))
        else:
            splits = [each for part in PARTS if (each := self._least_split(drop, part)) is not None]
            found = min(splits, key=lambda each: each.base + each.head, default=None)
        if found is None:
            return None
        base, head, pairs = (round(many - few) for many, few in zip(found[1:4], self[1:4], strict=True))
        return More(base, head, pairs)

    def _least_split(self, drop: float, part: float) -> "GroupSizes | None":
        """Return the fewest runs that detect a drop if the head has the share `part`; no group gets smaller."""

        def split(runs: float) -> GroupSizes:
            total = ceil(runs)
            head = min(max(self.head, round(part * total)), total - self.base)
            return self._replace(base=total - head, head=head)

        total = _least(lambda runs: split(runs).finds(drop), self.base + self.head)
        return None if total is None else split(total)

    def finds(self, drop: float, *, one_sided: bool = True) -> bool:
        """Return whether the test detects a drop in 80 of 100 cases."""
        return self._power(one_sided=one_sided)(drop) >= POWER

    def _of(self, tasks: int) -> "GroupSizes":
        """Return the sizes with another number of tasks and the same number of runs per task."""
        base, head = (ceil(each * tasks / self.pairs - 1e-9) for each in (self.base, self.head))
        return self._replace(base=base, head=head, pairs=tasks)

    def _power(self, *, one_sided: bool) -> Callable[[float], float]:
        """Return the power function: from a drop to the share of cases in which it is detected."""
        base, head, pairs = (ceil(each) for each in (self.base, self.head, self.pairs))
        level = ALPHA if one_sided else ALPHA / 2
        if not pairs and max(base, head) <= MOST_EXACT:

            @cache
            def is_drop(in_head: int, in_base: int) -> bool:
                p = fisher_p(in_head, head, in_base, base, one_sided=one_sided)
                return in_head * base < in_base * head and p <= ALPHA

            return lambda drop: _fisher_power(self.share, drop, base, head, is_drop)
        if not pairs:
            return lambda drop: self._normal_power(drop, base, head, pairs, level)
        if not self.is_equal:
            level /= UNEQUAL
        # The fewest tasks that give a verdict if all of them got worse, by the least that is possible.
        least = ceil(-log2(level)) * self.least / pairs

        def power(drop: float) -> float:
            if drop < least * (1 - 1e-9):
                return 0.0
            if pairs <= MOST_EXACT and self.is_equal:
                return _sign_power(pairs, *self._signs(drop), level)
            return self._normal_power(drop, base, head, pairs, level)

        return power

    def _square(self, drop: float) -> float:
        """Return the mean square of the tasks' differences after a drop, which changes their mean and variance."""
        varies = self.varies + drop * (1 - 2 * self.alike * (1 - self.share) - drop) * self.noise
        return max(0.0, varies) + drop * drop

    def _signs(self, drop: float) -> tuple[float, float]:
        """Return the share of tasks that differ, assuming equal differences; and the share of these that got worse."""
        size = max(self.size, drop + (1 - drop) * self.noise)
        differ = min(1.0, max(self._square(drop) / size**2, drop / size))
        return differ, min(1.0, (1 + drop / size / differ) / 2) if differ else 0.5

    def _normal_power(self, drop: float, base: int, head: int, pairs: int, level: float) -> float:
        """Return the power by the normal approximation, corrected for continuity.

        J. T. Casagrande, M. C. Pike, P. G. Smith, Biometrics 34, 1978.
        """
        after = self.share - drop
        if pairs:
            square = self._square(drop)
            chance, real = sqrt(square / pairs), sqrt(max(0.0, square - drop * drop) / pairs)
        else:
            both = (base * self.share + head * after) / (base + head)
            chance = sqrt(both * (1 - both) * (1 / base + 1 / head))
            real = sqrt(self.share * (1 - self.share) / base + after * (1 - after) / head)
        over = drop - (1 / base + 1 / head) / 2 - NormalDist().inv_cdf(1 - level) * chance
        return NormalDist().cdf(over / real) if real else float(over > 0)


def _least(holds: Callable[[float], bool], low: float) -> float | None:
    """Return about the smallest value from `low` to MOST_TIMES `low` for which a monotonic condition holds, or None."""
    if holds(low):
        return low
    high = 2 * low
    while not holds(high):
        high *= 2
        if high > MOST_TIMES * low:
            return None
    return _bisected(holds, high / 2, high)


def _bisected(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Return about the smallest value between `low` and `high` for which a condition holds that holds for `high`."""
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _fisher_power(share: float, drop: float, base: int, head: int, is_drop: Callable[[int, int], bool]) -> float:
    before = [*_binomial(base, share)]
    start, power = 0, 0.0
    for in_head, chance in _binomial(head, max(0.0, share - drop)):
        while start < len(before) and not is_drop(in_head, before[start][0]):
            start += 1
        power += chance * sum(each for _, each in before[start:])
    return power


def _sign_power(pairs: int, differ: float, worse: float, level: float) -> float:
    power = 0.0
    for number, chance in _binomial(pairs, differ):
        least = _least_signs(number, level)
        power += chance * sum(each for signs, each in _binomial(number, worse) if signs >= least)
    return power


@cache
def _least_signs(number: int, level: float) -> int:
    """Return the least number of equal signs, out of `number`, that a one-sided sign test finds significant."""
    allowed, signs = int(level * 2**number), number + 1
    while signs and (allowed := allowed - comb(number, signs - 1)) >= 0:
        signs -= 1
    return signs


def _binomial(trials: int, share: float) -> Iterator[tuple[int, float]]:
    """Yield the numbers of successes and their binomial probabilities, rising, without those below UNLIKELY."""
    if share in (0, 1) or not trials:
        yield round(trials * share), 1.0
        return
    width = 6 * sqrt(trials * share * (1 - share)) + 6
    first = max(0, int(trials * share - width))
    chance, odds = binomial(first, trials, share), share / (1 - share)
    for number in range(first, min(trials, int(trials * share + width)) + 1):
        if chance > UNLIKELY:
            yield number, chance
        chance *= (trials - number) / (number + 1) * odds  # each from the one before: a sixth of the time
