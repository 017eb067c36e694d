"""Tests of a 2 × 2 table within strata, such as tasks: what differs between strata cannot pass for an effect.

Exact where numbers are small: given the margins of each table, the number of exposed failures is a sum of
hypergeometric numbers, whose distribution is computed. Where numbers are large, it is the normal approximation of
Cochran, Mantel and Haenszel (N. Mantel and W. Haenszel, JNCI 22, 1959).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import exp, fsum, inf, log, sqrt
from statistics import NormalDist
from typing import NamedTuple

from agentspan.analysis.statistics import RELATIVE, Interval

ENOUGH = 5.0
"""How far the expected number is from both ends of its range, at least, for the approximation (N. Mantel, J. Fleiss,
American Journal of Epidemiology 112, 1980)."""


class Table(NamedTuple):
    """A stratum's table: of those with a feature and those without it, how many failed and how many passed."""

    failed_with: int
    passed_with: int
    failed_without: int
    passed_without: int

    @property
    def range(self) -> tuple[int, int]:
        """The least and the greatest possible number of failures with the feature, given the margins."""
        with_, failed = self.failed_with + self.passed_with, self.failed_with + self.failed_without
        return max(0, failed - self.failed_without - self.passed_without), min(with_, failed)


@dataclass(frozen=True, slots=True)
class Effect:
    """The common odds ratio of the strata, and its interval; infinite where nothing bounds it."""

    odds_ratio: float
    interval: Interval


class Strata:
    """The informative ones of the strata: those in which the margins leave something open.

    Args:
        tables: a table for each stratum.
    """

    def __init__(self, tables: Iterable[Table]) -> None:
        self.tables = [table for table in tables if table.range[0] < table.range[1]]
        self._least = sum(table.range[0] for table in self.tables)
        most = sum(table.range[1] for table in self.tables)
        self._seen = sum(table.failed_with for table in self.tables)
        moments = [_moments(table) for table in self.tables]
        self._expected = fsum(mean for mean, _ in moments)
        self._variance = fsum(variance for _, variance in moments)
        self.is_exact = min(self._expected - self._least, most - self._expected) < ENOUGH
        self._chances = _sum_of(self.tables) if self.is_exact else []

    def p(self) -> float:
        """Return the two-sided p of the feature and failure being independent within each stratum."""
        if not self.tables:
            return 1.0
        if self.is_exact:
            return self._as_improbable(self._chances, self._chances[self._seen - self._least])
        distance = max(0.0, abs(self._seen - self._expected) - 0.5)  # continuity
        return 2 * NormalDist().cdf(-distance / sqrt(self._variance))

    def smallest_p(self) -> float:
        """Return the least p that these margins allow, whatever failed (R. E. Tarone, Biometrics 46, 1990)."""
        if not self.tables:
            return 1.0
        if not self.is_exact:
            return 0.0
        return self._as_improbable(self._chances, min(self._chances[0], self._chances[-1]))

    @property
    def variance(self) -> float:
        """The variance of the number of failures with the feature: how much these margins can tell."""
        return self._variance

    def detectable(self, alpha: float, power: float) -> float:
        """Return the least odds ratio above 1 whose p is at most alpha with this probability; infinite if none is."""
        chances = self._all_chances()
        tail = 0.0
        place = len(chances)
        while place and tail + chances[place - 1] <= alpha / 2:
            place -= 1
            tail += chances[place]
        if place == len(chances):
            return inf
        return exp(_root(lambda odds: fsum(_at(chances, odds)[place:]) - power))

    def effect(self, *, confidence: float = 0.95) -> Effect:
        """Return the common odds ratio: conditional and exact, or that of Mantel and Haenszel.

        Where no run contradicts, the exact one is computed for large numbers, too: the other has no interval then.
        """
        if not self.tables:
            return Effect(1.0, Interval(0.0, inf))
        return self._exact_effect(confidence) if self.is_exact else self._approximate_effect(confidence)

    @staticmethod
    def _as_improbable(chances: Sequence[float], chance: float) -> float:
        return min(1.0, fsum(each for each in chances if each <= chance * RELATIVE))

    def _all_chances(self) -> Sequence[float]:
        return self._chances if self.is_exact else _sum_of(self.tables)

    def _exact_effect(self, confidence: float) -> Effect:
        """Find the odds ratios at which the number is the mean, and at which each of its tails has what is left."""
        chances = self._all_chances()
        place, last = self._seen - self._least, len(chances) - 1
        tail = (1 - confidence) / 2

        def mean(odds: float) -> float:
            return fsum(k * chance for k, chance in enumerate(_at(chances, odds)))

        low = 0.0 if place == 0 else exp(_root(lambda odds: fsum(_at(chances, odds)[place:]) - tail))
        high = inf if place == last else exp(_root(lambda odds: tail - fsum(_at(chances, odds)[: place + 1])))
        estimate = 0.0 if place == 0 else inf if place == last else exp(_root(lambda odds: mean(odds) - place))
        return Effect(estimate, Interval(low, high))

    def _approximate_effect(self, confidence: float) -> Effect:
        """J. Robins, N. Breslow and S. Greenland, Biometrics 42, 1986."""
        for_, against, same, crossed, mixed = 0.0, 0.0, 0.0, 0.0, 0.0
        for a, b, c, d in self.tables:
            total = a + b + c + d
            agree, differ, one, other = (a + d) / total, (b + c) / total, a * d / total, b * c / total
            for_, against = for_ + one, against + other
            same, crossed, mixed = same + agree * one, crossed + differ * other, mixed + agree * other + differ * one
        if not for_ or not against:
            return self._exact_effect(confidence)
        spread = sqrt(same / (2 * for_**2) + mixed / (2 * for_ * against) + crossed / (2 * against**2))
        z = NormalDist().inv_cdf((1 + confidence) / 2)
        ratio = for_ / against
        return Effect(ratio, Interval(ratio * exp(-z * spread), ratio * exp(z * spread)))


def _moments(table: Table) -> tuple[float, float]:
    """Return mean and variance of a hypergeometric number."""
    a, b, c, d = table
    total, with_, failed = a + b + c + d, a + b, a + c
    variance = with_ * (total - with_) * failed * (total - failed) / (total**2 * (total - 1))
    return with_ * failed / total, variance


def _sum_of(tables: Sequence[Table]) -> list[float]:
    """Return the chances of each sum of the numbers of failures with the feature, from the least on."""
    chances = [1.0]
    for table in tables:
        own = _chances(table)
        longer = [0.0] * (len(chances) + len(own) - 1)
        for place, chance in enumerate(chances):
            for more, each in enumerate(own):
                longer[place + more] += chance * each
        chances = longer
    return chances


def _chances(table: Table) -> list[float]:
    """Return the chances of a hypergeometric number, each from the one before: no binomial coefficient is computed."""
    least, most = table.range
    with_, failed = table.failed_with + table.passed_with, table.failed_with + table.failed_without
    rest = sum(table) - with_ - failed
    logs = [0.0]
    for number in range(least, most):
        step = (with_ - number) * (failed - number) / ((number + 1) * (rest + number + 1))
        logs.append(logs[-1] + log(step))
    largest = max(logs)
    weights = [exp(each - largest) for each in logs]
    total = fsum(weights)
    return [weight / total for weight in weights]


def _at(chances: Sequence[float], odds: float) -> list[float]:
    """Return the chances at the logarithm of an odds ratio, from those at 0."""
    logs = [log(chance) + k * odds if chance else -inf for k, chance in enumerate(chances)]
    largest = max(logs)
    weights = [exp(each - largest) for each in logs]
    total = fsum(weights)
    return [weight / total for weight in weights]


def _root(rising: Callable[[float], float]) -> float:
    """Return where a rising function of the logarithm of an odds ratio is 0."""
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2
