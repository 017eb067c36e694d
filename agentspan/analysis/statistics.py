"""Tests and intervals for shares and means of runs, from the standard library only.

Exact where numbers are small, as they are where agents are compared: 20 runs, not 20,000. Nothing here reads a storage.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, fsum, inf, lgamma, log, sqrt
from statistics import NormalDist

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
