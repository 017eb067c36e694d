"""Computes how small a drop of passed runs two groups of runs would show: the power of the tests of the outcome.

Up to MOST_EXACT runs of a group, or tasks, the distributions are exact: those of Fisher's test, and of the sign test of
tasks. Above, the normal approximation is used, which is wrong by less than a point there.
"""

from collections.abc import Callable, Iterator
from math import ceil, comb, exp, lgamma, log, sqrt
from statistics import NormalDist
from typing import NamedTuple

ALPHA = 0.05
"""The level of the outcome, and the false discovery rate of other metrics where the outcome differs or is unknown."""
POWER = 0.8
MOST_EXACT = 300
MOST_TIMES = 1000
"""Times the runs up to which it is looked for how many would find a drop."""
UNLIKELY = 1e-7
"""Numbers of passed runs with a smaller probability are left out."""


class Blindness(NamedTuple):
    """The sizes of two groups, on which it depends how small a drop of passed runs is found.

    Attributes:
        share: of the runs that pass, from 0 to 1, before a drop.
        base, head: the runs with an outcome.
        pairs: tasks that are compared with themselves; 0 if runs are not paired.
        varies: the mean square of the differences of the tasks.
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
        power = self._power(one_sided, 1.0)
        if not self.share or power(self.share) < POWER:
            return 1.0
        return _bisected(lambda drop: power(drop) >= POWER, 0.0, self.share, 12)

    def times_for(self, drop: float) -> float | None:
        """Return how many times the runs find such a drop, looking for drops only; None if no number does."""

        def is_found(times: float) -> bool:
            return drop <= self.share and self._power(True, times)(drop) >= POWER

        high = 1.0
        while not is_found(high):
            high *= 2
            if high > MOST_TIMES:
                return None
        return _bisected(is_found, high / 2, high, 12)

    def _power(self, one_sided: bool, times: float) -> Callable[[float], float]:
        """Return the function from a drop to the share of cases in which it is found, with so many times the runs."""
        base, head, pairs = (ceil(each * times - 1e-9) for each in (self.base, self.head, self.pairs))
        level = ALPHA if one_sided else ALPHA / 2
        if not pairs and max(base, head) <= MOST_EXACT:
            least = _Fisher(base, head, one_sided).least
            return lambda drop: _fisher_power(self.share, drop, base, head, least)
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


def _bisected(holds: Callable[[float], bool], low: float, high: float, rounds: int) -> float:
    """Return the smallest value for which it holds, as it does for `high`."""
    for _ in range(rounds):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


class _Fisher:
    """Fisher's exact test of two groups of these sizes: which numbers of passed runs are a drop."""

    def __init__(self, base: int, head: int, one_sided: bool) -> None:
        self._base, self._head, self._one_sided = base, head, one_sided
        self._most: dict[int, int] = {}

    def least(self, in_head: int, start: int) -> int:
        """Return how many runs of the base, from `start` on, must pass, so that so many of the head are a drop."""
        passed = start
        while passed <= self._base and in_head > self._most_of(passed + in_head):
            passed += 1
        return passed

    def _most_of(self, successes: int) -> int:
        """Return the most that may pass in the head of so many in both; -1 if none."""
        if successes not in self._most:
            self._most[successes] = self._found(successes)
        return self._most[successes]

    def _found(self, successes: int) -> int:
        least, most = max(0, successes - self._base), min(self._head, successes)
        chances = [1.0]
        for k in range(least, most):  # each from the one before
            step = (self._head - k) * (successes - k) / ((k + 1) * (self._base - successes + k + 1))
            chances.append(chances[-1] * step)
        total = sum(chances)
        falling, upper = sorted(chances), 0.0
        place, found = 0, least - 1
        lower = 0.0
        for k, chance in enumerate(chances):
            lower += chance
            if self._one_sided:
                upper = lower
            else:  # all that are as improbable, or more
                while place < len(falling) and falling[place] <= chance * (1 + 1e-7):
                    upper += falling[place]
                    place += 1
            if upper > ALPHA * total or (k and chance < chances[k - 1]):
                break
            found = least + k
        return found if found >= least else -1


def _fisher_power(share: float, drop: float, base: int, head: int, least: Callable[[int, int], int]) -> float:
    before = dict(_binomial(base, share))
    rest, passed, power = sum(before.values()), min(before, default=0), 0.0
    for in_head, chance in _binomial(head, max(0.0, share - drop)):
        wanted = least(in_head, passed)
        while passed < wanted:
            rest -= before.get(passed, 0.0)
            passed += 1
        power += chance * rest
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
