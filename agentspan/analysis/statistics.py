"""Tests and intervals for shares, means and ratios of runs, also by task, from the standard library only.

Exact where numbers are small, as they are where agents are compared: 20 runs, not 20,000. Nothing here reads a storage.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from math import exp, fsum, inf, lgamma, log, sqrt
from operator import mul
from statistics import NormalDist
from typing import NamedTuple

RELATIVE = 1 + 1e-7
"""Two probabilities count as equal up to this factor: the same one, computed in another order, differs by less."""
Q_MEANS = "q = the share of false findings among those at least as clear"
"""The words for a q of benjamini_hochberg, which every command uses."""


@dataclass(frozen=True, slots=True)
class Interval:
    """The bounds of an estimate."""

    low: float
    high: float


def wilson(successes: int, trials: int, *, confidence: float = 0.95) -> Interval:
    """Return Wilson's score interval of a share, without continuity correction (E. B. Wilson, JASA 22, 1927).

    Raises:
        ValueError: there are no trials, or more successes than trials.
    """
    _check(successes, trials)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, square = successes / trials, z * z / trials
    center = (share + square / 2) / (1 + square)
    half = z * sqrt(share * (1 - share) / trials + square / (4 * trials)) / (1 + square)
    return Interval(max(0.0, center - half), min(1.0, center + half))


def exact_interval(successes: int, trials: int, *, confidence: float = 0.95) -> Interval:
    """Return the exact interval of a share (C. Clopper and E. S. Pearson, Biometrika 26, 1934).

    Raises:
        ValueError: there are no trials, or more successes than trials.
    """
    _check(successes, trials)
    tail = (1 - confidence) / 2
    low = 0.0 if not successes else _bisected(lambda share: 1 - _at_most(successes - 1, trials, share) - tail)
    high = 1.0 if successes == trials else _bisected(lambda share: tail - _at_most(successes, trials, share))
    return Interval(low, high)


def binomial_p(successes: int, trials: int, share: float = 0.5) -> float:
    """Return the exact two-sided p of so many successes if each has a probability of `share`.

    It is the sum of the probabilities of all numbers that are as improbable as this one, or more. With a share of 0.5,
    and only the pairs that differ, it is McNemar's exact test.

    Raises:
        ValueError: there are more successes than trials, or `share` is no probability.
    """
    if not 0 <= share <= 1:
        raise ValueError("share must be from 0 to 1")
    if not 0 <= successes <= trials:
        raise ValueError("successes must be from 0 to trials")
    return _as_improbable([_binomial(number, trials, share) for number in range(trials + 1)], successes)


def fisher_p(successes_a: int, trials_a: int, successes_b: int, trials_b: int, *, one_sided: bool = False) -> float:
    """Return Fisher's exact two-sided p of two shares being the same; or the one of so few successes in A, or fewer.

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
    return _as_improbable(probabilities, successes_a - least)


def permutation_p(
    a: Sequence[Sequence[float]], b: Sequence[Sequence[float]], *, rounds: int = 1000, seed: int = 0
) -> float:
    """Return the two-sided p of two means being the same, clustered by run: whole runs change sides, not spans.

    Args:
        a, b: the values of each run; a run without values counts for nothing.
        rounds: how many random assignments; p is never less than 1 / (rounds + 1).
        seed: the same seed gives the same p.

    Raises:
        ValueError: a side has no values.
    """
    runs = [(fsum(values), len(values)) for values in [*a, *b] if values]
    in_a = sum(1 for values in a if values)
    if not 0 < in_a < len(runs):
        raise ValueError("each side needs a run with values")
    observed = _difference(runs, in_a)
    dice = random.Random(seed)
    as_large = 0
    for _ in range(rounds):
        dice.shuffle(runs)
        as_large += _difference(runs, in_a) * RELATIVE >= observed
    return (as_large + 1) / (rounds + 1)


def paired_permutation_p(differences: Sequence[float], *, rounds: int = 1000, seed: int = 0) -> float:
    """Return the two-sided p of a mean difference of pairs being 0: pairs change their sign at random.

    Args:
        differences: of each pair, such as two runs of one task. Up to 12 of them all signs are tried: p is exact then.
        rounds, seed: see permutation_p.

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


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p adjusted for many tests, so that one false finding is as seldom as with one (S. Holm, 1979)."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(_by_size(p_values)):
        largest = max(largest, (len(p_values) - rank) * p_values[place])
        adjusted[place] = min(1.0, largest)
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Return q of each p: the share of false findings among all with this q or less (Benjamini, Hochberg, 1995)."""
    adjusted, smallest = [0.0] * len(p_values), 1.0
    number = len(p_values)
    for rank, place in zip(range(number, 0, -1), reversed(_by_size(p_values)), strict=True):
        smallest = min(smallest, p_values[place] * number / rank)
        adjusted[place] = smallest
    return adjusted


def _by_size(p_values: Sequence[float]) -> list[int]:
    return sorted(range(len(p_values)), key=lambda place: p_values[place])


def _difference(runs: Sequence[tuple[float, int]], in_a: int) -> float:
    """Return how far the means of the first runs and of the others are from each other."""
    means = []
    for side in (runs[:in_a], runs[in_a:]):
        means.append(fsum(total for total, _ in side) / sum(number for _, number in side))
    return abs(means[0] - means[1])


def _check(successes: int, trials: int) -> None:
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError("trials must be at least 1, and successes from 0 to trials")


def _as_improbable(chances: Sequence[float], place: int) -> float:
    return min(1.0, fsum(chance for chance in chances if chance <= chances[place] * RELATIVE))


def _at_most(successes: int, trials: int, share: float) -> float:
    return fsum(_binomial(number, trials, share) for number in range(successes + 1))


def _binomial(successes: int, trials: int, share: float) -> float:
    if share in (0, 1):
        return float(successes == trials * share)
    return exp(_choose(trials, successes) + successes * log(share) + (trials - successes) * log(1 - share))


def _choose(number: int, chosen: int) -> float:
    """Return the logarithm of a binomial coefficient: the coefficient itself is too large for a float from 1,030 on."""
    if not 0 <= chosen <= number:
        return -inf
    return lgamma(number + 1) - lgamma(chosen + 1) - lgamma(number - chosen + 1)


def _bisected(rising: Callable[[float], float]) -> float:
    """Return where a rising function of a share is 0."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2


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


MOST_PERMUTED = 1000
"""Runs up to which they are permuted: 1,000 rounds of 40 ratios take 1.5 s there. Above, the normal approximation."""
ROUNDS = 1000
MORE_ROUNDS = 4000
"""Rounds that are added for the ratios whose p is below CLOSE, so that it can be small enough among many ratios."""
CLOSE = 0.01
FEW_PAIRS = 12
"""Pairs up to which all signs are tried (see paired_permutation_p): p is exact then."""
AS_LARGE = 50
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
        if self.as_large == AS_LARGE:  # it stopped there
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
        going = [place for place in going if as_large[place] < AS_LARGE]
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
