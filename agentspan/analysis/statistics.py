"""Tests and intervals for shares, means and ratios of runs, also by task, from the standard library only.

Exact where numbers are small, as they are where agents are compared: 20 runs, not 20,000. Nothing here reads a storage.
"""

import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import accumulate, compress
from math import exp, fsum, gcd, inf, lcm, lgamma, log, sqrt
from operator import add, mul
from statistics import NormalDist
from typing import NamedTuple

CONFIDENCE = 0.95
"""The confidence of all intervals that commands show."""
RELATIVE = 1 + 1e-7
"""The factor up to which two probabilities count as equal; rounding in another order of computation differs less."""
Q_MEANS = "q = the share of false findings among those at least as clear"
"""The explanation of a q of benjamini_hochberg in the output of all commands."""


@dataclass(frozen=True, slots=True)
class Interval:
    """The lower and upper bound of a confidence interval."""

    low: float
    high: float


def interval_text(interval: Interval) -> str:
    """Return an interval of a share in percent, `6–14%`; with a decimal if both ends were the same: `99.2–99.9%`."""
    low, high = 100 * interval.low, 100 * interval.high
    return f"{low:.0f}–{high:.0f}%" if f"{low:.0f}" != f"{high:.0f}" else f"{low:.1f}–{high:.1f}%"


def wilson(successes: int, trials: int, *, confidence: float = CONFIDENCE) -> Interval:
    """Return Wilson's score interval of a share, without continuity correction (E. B. Wilson, JASA 22, 1927).

    Raises:
        ValueError: there are no trials, or more successes than trials.
    """
    _check(successes, trials)
    z = _z(confidence)
    share, square = successes / trials, z * z / trials
    center = (share + square / 2) / (1 + square)
    half = z * sqrt(share * (1 - share) / trials + square / (4 * trials)) / (1 + square)
    return Interval(max(0.0, center - half), min(1.0, center + half))


def exact_interval(successes: int, trials: int, *, confidence: float = CONFIDENCE) -> Interval:
    """Return the exact interval of a share (C. Clopper and E. S. Pearson, Biometrika 26, 1934).

    Raises:
        ValueError: there are no trials, or more successes than trials.
    """
    _check(successes, trials)
    tail = (1 - confidence) / 2
    low = 0.0 if not successes else _root(lambda share: 1 - _at_most(successes - 1, trials, share) - tail, 0.0, 1.0)
    high = 1.0 if successes == trials else _root(lambda share: tail - _at_most(successes, trials, share), 0.0, 1.0)
    return Interval(low, high)


def fisher_p(successes_a: int, trials_a: int, successes_b: int, trials_b: int, *, one_sided: bool = False) -> float:
    """Return the p of Fisher's exact test that two groups have the same share of successes.

    Args:
        one_sided: return the probability of at most `successes_a` successes in A, given all four totals, instead of
            the two-sided p.

    Raises:
        ValueError: there are more successes than trials.
    """
    if not (0 <= successes_a <= trials_a and 0 <= successes_b <= trials_b):
        raise ValueError("successes must be from 0 to trials")
    successes = successes_a + successes_b
    least, most = max(0, successes - trials_b), min(trials_a, successes)
    chances = [
        _choose(trials_a, number) + _choose(trials_b, successes - number) - _choose(trials_a + trials_b, successes)
        for number in range(least, most + 1)
    ]
    probabilities = [exp(chance) for chance in chances]
    if one_sided:
        return min(1.0, fsum(probabilities[: successes_a - least + 1]))
    return _as_improbable(probabilities, probabilities[successes_a - least])


def paired_permutation_p(differences: Sequence[float], *, rounds: int = 1000, seed: int = 0) -> float:
    """Return the two-sided p that the mean difference of pairs is 0, by random signs of the differences.

    Args:
        differences: the difference of each pair, such as two runs of one task. For up to 12 pairs all combinations of
            signs are tried, so p is exact.
        rounds: the number of random combinations of signs; p is never less than 1 / (rounds + 1).
        seed: the seed of the random signs; the same seed gives the same p.

    Raises:
        ValueError: there are no pairs.
    """
    if not differences:
        raise ValueError("there are no pairs")
    observed = abs(fsum(differences))
    number = len(differences)
    if number <= 12:
        sums = (
            abs(fsum(-value if signs >> place & 1 else value for place, value in enumerate(differences)))
            for signs in range(1 << number)
        )
        return sum(each * RELATIVE >= observed for each in sums) / (1 << number)
    dice = random.Random(seed)
    as_large = 0
    for _ in range(rounds):
        signs = dice.getrandbits(number)
        total = fsum(-value if signs >> place & 1 else value for place, value in enumerate(differences))
        as_large += abs(total) * RELATIVE >= observed
    return (as_large + 1) / (rounds + 1)


def sign_tails(differences: Sequence[Fraction]) -> tuple[float, float]:
    """Return the one-sided ps that a mean of differences is so low, and so high, by chance: over all their signs.

    Exact: all 2 to the number of differences combinations are counted, as the coefficients of a product of binomials,
    whose exponents are the differences in units of their common denominator. The coefficients are the digits of one
    integer: 200 differences take half a millisecond. Where that integer would be larger than MOST_DIGITS bits, because
    denominators have little in common, p is from MORE_ROUNDS random signs.

    Raises:
        ValueError: there are no differences.
    """
    if not differences:
        raise ValueError("there are no differences")
    unit = lcm(*(each.denominator for each in differences))
    steps = [int(each * unit) for each in differences if each]
    factor = gcd(*steps) or 1
    steps = [each // factor for each in steps]
    digit = len(steps) + 1
    if sum(map(abs, steps)) * digit > MOST_DIGITS:
        half = paired_permutation_p([float(each) for each in differences], rounds=MORE_ROUNDS) / 2
        return (half, 1 - half) if sum(differences) < 0 else (1 - half, half)
    # Turning the signs of a subset lowers the sum by twice the subset's sum: count subsets with a sum from 0 on, to 0.
    sums = 1
    for each in steps:
        sums += sums << abs(each) * digit
    zero = -sum(each for each in steps if each < 0) * digit
    nines, all_of_them = (1 << digit) - 1, 1 << len(steps)
    at_least, at_most = sums >> zero, sums & (1 << zero + digit) - 1
    low, high = (each % nines or nines for each in (at_least, at_most))  # the sums of their digits
    return low / all_of_them, high / all_of_them


class PairedCase(NamedTuple):
    """The trials of one case on both sides: how many passed, of how many."""

    base_passed: int
    base: int
    head_passed: int
    head: int

    @property
    def difference(self) -> Fraction:
        """The share of passed trials of the head minus that of the base."""
        return Fraction(self.head_passed, self.head) - Fraction(self.base_passed, self.base)


def paired_tails(cases: Sequence[PairedCase], *, seed: int = 0) -> tuple[float, float]:
    """Return the one-sided ps that the mean difference of cases is so low, and so high, by chance.

    If each case has as many trials on both sides, exchanging the sides of a case is exact (sign_tails), whether its
    trials depend on each other or repeat. With other numbers, the differences of equal sides are skewed: signs alone
    find 7 to 13 % of equal versions worse. Then p is the larger one of two: that of the signs, which is exact if the
    trials of a case repeat each other, and that of all ways to share out the passed trials of a case, which is exact if
    they are independent; times UNEQUAL.

    Raises:
        ValueError: there are no cases.
    """
    signs = sign_tails([each.difference for each in cases])
    if all(each.base == each.head for each in cases):
        return signs
    shared = _shared_out_tails(cases, seed)
    low, high = (min(1.0, UNEQUAL * max(both)) for both in zip(signs, shared, strict=True))
    return low, high


def _shared_out_tails(cases: Sequence[PairedCase], seed: int) -> tuple[float, float]:
    """Return the ps of the difference over all ways to share out the passed trials of each case among its trials.

    Exact if the numbers of trials are those of one another's cases, else from MORE_ROUNDS random ways.
    """
    groups: dict[tuple[int, int], list[PairedCase]] = {}
    for each in cases:
        groups.setdefault((each.base, each.head), []).append(each)
    dice, observed, sums = random.Random(seed), 0.0, [0.0] * MORE_ROUNDS
    for (base, head), own in groups.items():
        tables = [Table(b, head - b, a, base - a) for a, _, b, _ in own]
        chances, least = _sum_of(tables), sum(table.range[0] for table in tables)
        passed, all_passed = sum(each.head_passed for each in own), sum(a + b for a, _, b, _ in own)
        if len(groups) == 1:
            at = passed - least
            return min(1.0, fsum(chances[: at + 1])), min(1.0, fsum(chances[at:]))
        values = [number / head - (all_passed - number) / base for number in range(least, least + len(chances))]
        observed += values[passed - least]
        sums = [*map(add, sums, dice.choices(values, chances, k=MORE_ROUNDS))]
    as_low, as_high = sum(each <= observed + 1e-9 for each in sums), sum(each >= observed - 1e-9 for each in sums)
    return (as_low + 1) / (MORE_ROUNDS + 1), (as_high + 1) / (MORE_ROUNDS + 1)


def mean_interval(differences: Sequence[float], *, confidence: float = CONFIDENCE, seed: int = 0) -> Interval:
    """Return the interval of the mean of differences to which the test of signs belongs (see sign_tails).

    Its bounds are percentiles of the means of random subsets (J. A. Hartigan, JASA 64, 1969): a shifted mean is outside
    where the test of the shifted differences is significant.
    """
    values, counts = zip(*Counter(differences).items(), strict=True)
    dice = random.Random(seed)
    means: list[float] = []
    while len(means) < INTERVAL_ROUNDS:
        drawn = [dice.getrandbits(number).bit_count() for number in counts]
        if total := sum(drawn):
            means.append(sum(map(mul, drawn, values)) / total)
    means.sort()
    outside = int((1 - confidence) / 2 * len(means))
    return Interval(means[outside], means[-1 - outside])


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Return the q of each p: the false discovery rate of all tests up to this q (Benjamini, Hochberg, 1995)."""
    adjusted, smallest = [0.0] * len(p_values), 1.0
    number = len(p_values)
    by_size = sorted(range(number), key=lambda place: p_values[place])
    for rank in range(number, 0, -1):
        place = by_size[rank - 1]
        smallest = min(smallest, p_values[place] * number / rank)
        adjusted[place] = smallest
    return adjusted


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _check(successes: int, trials: int) -> None:
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError("trials must be at least 1, and successes from 0 to trials")


def _as_improbable(chances: Sequence[float], chance: float) -> float:
    return min(1.0, fsum(each for each in chances if each <= chance * RELATIVE))


def _at_most(successes: int, trials: int, share: float) -> float:
    return fsum(binomial(number, trials, share) for number in range(successes + 1))


def binomial(successes: int, trials: int, share: float) -> float:
    """Return the probability of so many successes in trials that each succeed with the probability `share`."""
    if share in (0, 1):
        return float(successes == trials * share)
    return exp(_choose(trials, successes) + successes * log(share) + (trials - successes) * log(1 - share))


def _choose(number: int, chosen: int) -> float:
    """Return the logarithm of a binomial coefficient: the coefficient itself is too large for a float from 1,030 on."""
    if not 0 <= chosen <= number:
        return -inf
    return lgamma(number + 1) - lgamma(chosen + 1) - lgamma(number - chosen + 1)


def _root(rising: Callable[[float], float], low: float, high: float) -> float:
    """Return the root of a rising function between two bounds, by bisection."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2


def _root_of_odds(rising: Callable[[float], float]) -> float:
    """Return the odds ratio at which a rising function of its logarithm is 0."""
    return exp(_root(rising, -30.0, 30.0))


FEWEST_TASKS = 5
"""The least number of tasks that allows a comparison within tasks: those shared by two groups, or with several runs."""
PAIRED_SHARE = 0.5
"""The least share of runs, of each group, that must be of such tasks."""
ENOUGH = 5.0
"""The least distance of the expected number from both ends of its range that allows the normal approximation
(N. Mantel, J. Fleiss, American Journal of Epidemiology 112, 1980)."""


class Table(NamedTuple):
    """The 2×2 table of a stratum: failed and passed runs, with and without a feature."""

    failed_with: int
    passed_with: int
    failed_without: int
    passed_without: int

    @property
    def range(self) -> tuple[int, int]:
        """The least and the greatest number of failed runs with the feature that the margins of the table allow."""
        with_, failed = self.failed_with + self.passed_with, self.failed_with + self.failed_without
        return max(0, failed - self.failed_without - self.passed_without), min(with_, failed)


@dataclass(frozen=True, slots=True)
class Effect:
    """The common odds ratio of strata and its interval; the upper bound is infinite if nothing limits the ratio."""

    odds_ratio: float
    interval: Interval


class Strata:
    """Tests and effect sizes over stratified 2×2 tables. Strata whose margins determine the table are dropped.

    Args:
        tables: the table of each stratum.

    Attributes:
        variance: that of the number of failed runs with the feature: the larger, the more informative the tables.
    """

    def __init__(self, tables: Iterable[Table]) -> None:
        self.tables = [table for table in tables if table.range[0] < table.range[1]]
        self._least = sum(table.range[0] for table in self.tables)
        most = sum(table.range[1] for table in self.tables)
        self._seen = sum(table.failed_with for table in self.tables)
        moments = [_moments(table) for table in self.tables]
        self._expected = fsum(mean for mean, _ in moments)
        self.variance = fsum(variance for _, variance in moments)
        self.is_exact = min(self._expected - self._least, most - self._expected) < ENOUGH

    @cached_property
    def _chances(self) -> list[float]:
        return _sum_of(self.tables)

    def p(self, more: int = 0) -> float:
        """Return the two-sided p that the feature and failure are independent within each stratum.

        Args:
            more: by so many is the number of failed runs with the feature greater than it was.
        """
        if not self.tables:
            return 1.0
        seen = self._seen + more
        if self.is_exact:
            return _as_improbable(self._chances, self._chances[seen - self._least])
        distance = max(0.0, abs(seen - self._expected) - 0.5)  # continuity correction
        return 2 * NormalDist().cdf(-distance / sqrt(self.variance))

    def smallest_p(self) -> float:
        """Return the least p that is possible with the margins of the tables (R. E. Tarone, Biometrics 46, 1990)."""
        if not self.tables:
            return 1.0
        if not self.is_exact:
            return 0.0
        return _as_improbable(self._chances, min(self._chances[0], self._chances[-1]))

    @cached_property
    def _levels(self) -> list[float]:
        return [*accumulate(sorted(self._chances))]

    def chance_of(self, p: float) -> float:
        """Return the probability of a p of at most `p` by chance: less than `p` where few values are possible."""
        if not self.is_exact:
            return p
        place = bisect_right(self._levels, p * RELATIVE)
        return self._levels[place - 1] if place else 0.0

    def detectable(self, alpha: float, power: float) -> float:
        """Return the least odds ratio above 1 that a test at level `alpha` detects with probability `power`.

        Infinite if no odds ratio is detected.
        """
        chances = self._chances
        tail = 0.0
        place = len(chances)
        while place and tail + chances[place - 1] <= alpha / 2:
            place -= 1
            tail += chances[place]
        if place == len(chances):
            return inf
        return _root_of_odds(lambda odds: fsum(_at(chances, odds)[place:]) - power)

    def effect(self) -> Effect:
        """Return the common odds ratio with its interval: conditional and exact, or Mantel-Haenszel for large numbers.

        If no run contradicts the association, the exact one is used for large numbers, too, because the
        Mantel-Haenszel estimate then has no interval.
        """
        if not self.tables:
            return Effect(1.0, Interval(0.0, inf))
        return self._exact_effect() if self.is_exact else self._approximate_effect()

    def _exact_effect(self) -> Effect:
        """Return the odds ratio at which the expected number is the observed one, with an exact interval."""
        chances = self._chances
        place, last = self._seen - self._least, len(chances) - 1
        tail = (1 - CONFIDENCE) / 2

        def mean(odds: float) -> float:
            return fsum(k * chance for k, chance in enumerate(_at(chances, odds)))

        low = 0.0 if place == 0 else _root_of_odds(lambda odds: fsum(_at(chances, odds)[place:]) - tail)
        high = inf if place == last else _root_of_odds(lambda odds: tail - fsum(_at(chances, odds)[: place + 1]))
        estimate = 0.0 if place == 0 else inf if place == last else _root_of_odds(lambda odds: mean(odds) - place)
        return Effect(estimate, Interval(low, high))

    def _approximate_effect(self) -> Effect:
        """Return the Mantel-Haenszel odds ratio (J. Robins, N. Breslow and S. Greenland, Biometrics 42, 1986)."""
        for_, against, same, crossed, mixed = 0.0, 0.0, 0.0, 0.0, 0.0
        for a, b, c, d in self.tables:
            total = a + b + c + d
            agree, differ, one, other = (a + d) / total, (b + c) / total, a * d / total, b * c / total
            for_, against = for_ + one, against + other
            same, crossed, mixed = same + agree * one, crossed + differ * other, mixed + agree * other + differ * one
        if not for_ or not against:
            return self._exact_effect()
        spread = sqrt(same / (2 * for_**2) + mixed / (2 * for_ * against) + crossed / (2 * against**2))
        ratio, z = for_ / against, _z(CONFIDENCE)
        return Effect(ratio, Interval(ratio * exp(-z * spread), ratio * exp(z * spread)))


def _moments(table: Table) -> tuple[float, float]:
    """Return the mean and variance of the number of failed runs with the feature (hypergeometric distribution)."""
    a, b, c, d = table
    total, with_, failed = a + b + c + d, a + b, a + c
    variance = with_ * (total - with_) * failed * (total - failed) / (total**2 * (total - 1))
    return with_ * failed / total, variance


def _sum_of(tables: Sequence[Table]) -> list[float]:
    """Return the probability of each total number of failed runs with the feature, over all tables, rising."""
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
    """Return the hypergeometric probabilities of a table, each from its predecessor: no large binomials are needed."""
    least, most = table.range
    with_, failed = table.failed_with + table.passed_with, table.failed_with + table.failed_without
    rest = sum(table) - with_ - failed
    logs = [0.0]
    for number in range(least, most):
        step = (with_ - number) * (failed - number) / ((number + 1) * (rest + number + 1))
        logs.append(logs[-1] + log(step))
    return _summing_to_1(logs)


def _at(chances: Sequence[float], odds: float) -> list[float]:
    """Return probabilities reweighted to an odds ratio, whose logarithm is `odds`, from those at an odds ratio of 1."""
    return _summing_to_1([log(chance) + k * odds if chance else -inf for k, chance in enumerate(chances)])


def _summing_to_1(logs: Sequence[float]) -> list[float]:
    """Return the probabilities with these logarithms, which may all lack the same constant."""
    largest = max(logs)
    weights = [exp(each - largest) for each in logs]
    total = fsum(weights)
    return [weight / total for weight in weights]


MOST_PERMUTED = 1000
"""The largest number of runs that are permuted: 1,000 rounds of 40 ratios take 1.5 s for so many.

More runs are tested with the normal approximation.
"""
ROUNDS = 1000
MORE_ROUNDS = 4000
"""Further rounds for ratios whose p is below CLOSE: with more rounds p can be small enough among many ratios."""
CLOSE = 0.01
FEW_PAIRS = 12
"""The number of pairs up to which all combinations of signs are tried, so that p is exact."""
AS_LARGE = 50
"""The number of rounds with a difference as large as the observed one after which the rounds of a ratio stop.

Then p is within a seventh, and most ratios need a fifth of the rounds (J. Besag, P. Clifford, Biometrika 78, 1991).
"""
INTERVAL_ROUNDS = 1000
"""The number of random subsets of mean_interval: a bound is then within 0.7 percent of its confidence."""
UNEQUAL = 4 / 3
"""The factor of p where cases have other numbers of trials on both sides: where about half of the trials repeat, both
tests of paired_tails together would err in up to 6.3 % instead of 5 % (benchmarks/bench_evaluations.py)."""
MOST_DIGITS = 100_000_000
"""The largest number of bits of the integer that sign_tails counts with."""
TAIL = 20
"""The factor by which p may fall below the least p that a permutation can give.

If no round reaches the observed difference, p is that of a normal distribution with the variance of the rounds, but at
least the least p divided by TAIL. Without it, a single different ratio among 100 could not be found.
"""


class Ratio(NamedTuple):
    """The numerator and the denominator of a ratio for each run: first the runs of A, then those of B."""

    above: Sequence[float]
    below: Sequence[float]


def permutation_ps(ratios: Sequence[Ratio], in_a: int, *, seed: int = 0) -> list[float]:
    """Return for each ratio the two-sided p that it is the same in A and B, by permutation of the runs.

    A ratio whose denominators are all 0 on one side has a p of 1.

    Args:
        in_a: the number of runs in A, which come first.
        seed: the seed of the permutations; the same seed gives the same p.
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
    """Return for each group of differences the two-sided p that their mean is 0, by random signs of the differences.

    Args:
        groups: the differences of the pairs of each group, not empty. For up to FEW_PAIRS pairs all combinations of
            signs are tried.
        seed: the seed of the random signs; the same seed gives the same p.
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


class _Count(NamedTuple):
    """The result of the permutation rounds of one ratio.

    Attributes:
        rounds: the number of rounds.
        as_large: the number of rounds with a difference as large as the observed one.
        squares: the sum of the squared differences of all rounds.
        observed: the observed difference.
    """

    rounds: int
    as_large: int
    squares: float
    observed: float

    def plus(self, other: "_Count") -> "_Count":
        """Return the sums of this count and another one of the same ratio."""
        return _Count(
            self.rounds + other.rounds, self.as_large + other.as_large, self.squares + other.squares, self.observed
        )

    @property
    def p(self) -> float:
        """The probability of a difference at least as large as the observed one by chance."""
        if self.as_large == AS_LARGE:  # the rounds stopped early
            return self.as_large / self.rounds
        least = (self.as_large + 1) / (self.rounds + 1)
        if self.as_large:
            return least
        error = sqrt(self.squares / self.rounds)  # no round reached the observed difference: see TAIL
        return min(least, max(least / TAIL, two_sided(self.observed, error)))


_Difference = Callable[[int, Sequence[int]], float | None]
"""Returns the absolute difference of a ratio, given by its index, in a round; None if a side lacks the ratio."""
_Draw = Callable[[random.Random], Sequence[int]]


def _ps(observed: Sequence[float | None], difference: _Difference, draw: _Draw, seed: int) -> list[float]:
    """Return the p of each observed difference, from ROUNDS rounds, and MORE_ROUNDS further ones if p is small."""
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
    """Count for each ratio, by its index, the rounds whose difference is as large as the observed one."""
    as_large, used = (dict.fromkeys(places, 0) for _ in range(2))
    squares = dict.fromkeys(places, 0.0)
    going = [*places]
    for _ in range(rounds if places else 0):
        drawn = draw(dice)
        for place in going:
            limit, found = observed[place], difference(place, drawn)
            # A round in which a side lacks the ratio is no evidence against chance, so it counts as large.
            as_large[place] += limit is None or found is None or found * RELATIVE + 1e-12 >= limit
            squares[place] += found * found if found is not None else 0.0
            used[place] += 1
        going = [place for place in going if as_large[place] < AS_LARGE]
        if not going:
            break
    return {place: _Count(used[place], as_large[place], squares[place], observed[place] or 0.0) for place in places}


def normal_p(ratio: Ratio, in_a: int) -> float:
    """Return the two-sided p that a ratio is the same in A and B, by the normal approximation (delta method)."""
    a, b = (_estimate(ratio.above[part], ratio.below[part]) for part in (slice(in_a), slice(in_a, None)))
    if a is None or b is None:
        return 1.0
    return two_sided(a[0] - b[0], sqrt(a[1] + b[1]))


def two_sided(difference: float, error: float) -> float:
    """Return the two-sided p of a normally distributed difference with the standard error `error`."""
    if error == 0:
        return 1.0 if difference == 0 else 0.0
    return 2 * NormalDist().cdf(-abs(difference) / error)


def variance_of(above: Sequence[float], below: Sequence[float]) -> float | None:
    """Return the variance of the estimate of a ratio, clustered by run; None for fewer than two runs."""
    found = _estimate(above, below)
    return None if found is None else found[1]


def _estimate(above: Sequence[float], below: Sequence[float]) -> tuple[float, float] | None:
    """Return a ratio and the variance of its estimate; None for fewer than two runs, or if all denominators are 0."""
    number, total = len(above), fsum(below)
    if number < 2 or total <= 0:
        return None
    share = fsum(above) / total
    residuals = [up - share * down for up, down in zip(above, below, strict=True)]
    return share, fsum(map(mul, residuals, residuals)) * number / (number - 1) / total**2
