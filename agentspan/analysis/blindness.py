"""Computes how small a drop of passed runs two groups of runs would show: the power of the tests of the outcome.

Up to MOST_EXACT runs of a group, or tasks, the distributions are exact: those of Fisher's test, and of the sign test of
tasks. Above, the normal approximation is used, which is wrong by less than a point there.
"""

from collections.abc import Callable, Iterator
from functools import cache
from math import ceil, comb, exp, lgamma, log, sqrt
from statistics import NormalDist
from typing import NamedTuple

from agentspan.analysis.statistics import fisher_p

ALPHA = 0.05
"""The level of the outcome, and the false discovery rate of other metrics where the outcome differs or is unknown."""
POWER = 0.8
MOST_EXACT = 200
MOST_TIMES = 1000
"""Times the runs up to which it is looked for how many would find a drop."""
PARTS = tuple(percent / 100 for percent in range(38, 63, 4))
"""The parts of the runs that the head may get, where it is looked for the fewest runs that find a drop: equal groups
are not always the best, since the exact test seldom errs in just 5 %. All parts and numbers would find 3 % fewer, in
seconds."""
UNLIKELY = 1e-7
"""Numbers of passed runs with a smaller probability are left out."""


class More(NamedTuple):
    """The further runs of each group that would find a drop, and the number of their tasks, if runs are paired."""

    base: int
    head: int
    pairs: int


class Blindness(NamedTuple):
    """The sizes of two groups, on which it depends how small a drop of passed runs is found.

    Attributes:
        share: of the runs that pass, from 0 to 1, before a drop.
        base, head: the runs with an outcome.
        pairs: tasks that are compared with themselves; 0 if runs are not paired.
        varies: the variance of the differences of the tasks.
        size: of the difference of a task that has one: its mean square through its mean.
    """

    share: float
    base: float
    head: float
    pairs: float
    varies: float
    size: float

    def drop(self, *, one_sided: bool = False) -> float:
        """Return the smallest drop that is found in 80 of 100 cases, from 0 to 1; 1 if no drop is.

        Args:
            one_sided: whether only a drop is looked for.
        """
        power = self._power(one_sided)
        if not self.share or power(self.share) < POWER:
            return 1.0
        return _bisected(lambda drop: power(drop) >= POWER, 0.0, self.share, 12)

    def more_for(self, drop: float) -> More | None:
        """Return how many more runs find such a drop, looking for drops only; None if no number does.

        Paired runs: as many of each task as there are, of more tasks. Others: with the fewest in all.
        """
        if drop > self.share:
            return None
        if self.pairs:
            tasks = _least(lambda tasks: self._of(ceil(tasks)).finds(drop), self.pairs, MOST_TIMES * self.pairs)
            found = None if tasks is None else self._of(ceil(tasks))
        else:
            found = self._fewest_for(drop)
        if found is None:
            return None
        base, head, pairs = (round(many - few) for many, few in zip(found[1:4], self[1:4], strict=True))
        return More(base, head, pairs)

    def _fewest_for(self, drop: float) -> "Blindness | None":
        """Return the sizes of unpaired groups, none smaller, that find such a drop with the fewest runs in all."""
        found = [each for part in PARTS if (each := self._least_split(drop, part)) is not None]
        return min(found, key=lambda each: each.base + each.head, default=None)

    def _least_split(self, drop: float, part: float) -> "Blindness | None":
        """Return the same, where this part of the runs is the head's as far as neither group gets smaller."""

        def split(runs: float) -> Blindness:
            total = ceil(runs)
            head = min(max(self.head, round(part * total)), total - self.base)
            return self._replace(base=total - head, head=head)

        now = self.base + self.head
        total = _least(lambda runs: split(runs).finds(drop), now, now * MOST_TIMES)
        return None if total is None else split(total)

    def finds(self, drop: float) -> bool:
        """Return whether such a drop is found in 80 of 100 cases, looking for drops only."""
        return self._power(True)(drop) >= POWER

    def _of(self, tasks: int) -> "Blindness":
        """Return the sizes with so many tasks, which have as many runs as these have."""
        base, head = (ceil(each * tasks / self.pairs - 1e-9) for each in (self.base, self.head))
        return self._replace(base=base, head=head, pairs=tasks)

    def _power(self, one_sided: bool) -> Callable[[float], float]:
        """Return the function from a drop to the share of cases in which it is found."""
        base, head, pairs = (ceil(each) for each in (self.base, self.head, self.pairs))
        level = ALPHA if one_sided else ALPHA / 2
        if not pairs and max(base, head) <= MOST_EXACT:

            @cache
            def is_drop(in_head: int, in_base: int) -> bool:
                p = fisher_p(in_head, head, in_base, base, one_sided=one_sided)
                return in_head * base < in_base * head and p <= ALPHA

            return lambda drop: _fisher_power(self.share, drop, base, head, is_drop)
        if pairs and pairs <= MOST_EXACT:
            return lambda drop: max(_sign_power(pairs, *signs(drop), level) for signs in (self._signs, self._unequal))
        return lambda drop: self._normal_power(drop, base, head, pairs, level)

    def _square(self, drop: float) -> float:
        """Return the mean square of a task's difference: it varies as it does, and by what a drop changes."""
        varies = self.varies + drop * (2 * self.share - 1 - drop) * self.pairs / self.head
        return max(0.0, varies) + drop * drop

    def _signs(self, drop: float) -> tuple[float, float]:
        """Return the share of tasks with a difference, all as large, and the share of those that got worse."""
        size = max(self.size, drop + (1 - drop) * min(1.0, self.pairs / self.head))
        differ = min(1.0, max(self._square(drop) / size**2, drop / size))
        return differ, min(1.0, (1 + drop / size / differ) / 2) if differ else 0.5

    def _unequal(self, drop: float) -> tuple[float, float]:
        """Return the shares of tasks that differ, and that got worse, whatever their size: runs of a task are alike."""
        in_base, in_head = (max(1, round(each / self.pairs)) for each in (self.base, self.head))
        after = dict(_binomial(in_head, max(0.0, self.share - drop)))
        worse = better = 0.0
        for passed, chance in _binomial(in_base, self.share):
            for in_task, other in after.items():
                worse += chance * other * (in_task * in_base < passed * in_head)
                better += chance * other * (in_task * in_base > passed * in_head)
        differ = worse + better
        return differ, worse / differ if differ else 0.5

    def _normal_power(self, drop: float, base: int, head: int, pairs: int, level: float) -> float:
        """Corrected for continuity: J. T. Casagrande, M. C. Pike, P. G. Smith, Biometrics 34, 1978."""
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


def _least(holds: Callable[[float], bool], low: float, most: float) -> float | None:
    """Return the smallest value from `low` up to `most` for which it holds; None if there is none."""
    if holds(low):
        return low
    high = 2 * low
    while not holds(high):
        high *= 2
        if high > most:
            return None
    return _bisected(holds, high / 2, high, 12)


def _bisected(holds: Callable[[float], bool], low: float, high: float, rounds: int) -> float:
    """Return the smallest value for which it holds, as it does for `high`."""
    for _ in range(rounds):
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


def _least_signs(number: int, level: float) -> int:
    """Return of so many signs how many must be the same: with so many or more by chance in this share of cases."""
    allowed, signs = int(level * 2**number), number + 1
    while signs and (allowed := allowed - comb(number, signs - 1)) >= 0:
        signs -= 1
    return signs


def _binomial(trials: int, share: float) -> Iterator[tuple[int, float]]:
    """Yield the numbers of successes that are likely enough, rising, with their probabilities."""
    if share in (0, 1) or not trials:
        yield round(trials * share), 1.0
        return
    for number in range(trials + 1):
        choose = lgamma(trials + 1) - lgamma(number + 1) - lgamma(trials - number + 1)
        chance = exp(choose + number * log(share) + (trials - number) * log(1 - share))
        if chance > UNLIKELY:
            yield number, chance
