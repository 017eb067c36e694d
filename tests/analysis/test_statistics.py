"""Tests and intervals: published values, exact sums of fractions, and the share of false findings."""

import random
from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentspan.analysis.statistics import (
    Interval,
    Ratio,
    benjamini_hochberg,
    exact_interval,
    fisher_p,
    interval_text,
    paired_permutation_p,
    permutation_ps,
    wilson,
)


def permutation_p(a: list[list[float]], b: list[list[float]], seed: int = 0) -> float:
    runs = [*a, *b]
    return permutation_ps([Ratio([*map(sum, runs)], [*map(len, runs)])], len(a), seed=seed)[0]


def near(interval: Interval, low: float, high: float) -> bool:
    return abs(interval.low - low) < 6e-5 and abs(interval.high - high) < 6e-5


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_as_newcombe_published_it(successes: int, trials: int, low: float, high: float) -> None:
    """R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3."""
    assert near(wilson(successes, trials), low, high)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(81, 263, 0.2527, 0.3676), (15, 148, 0.0578, 0.1617), (0, 20, 0.0, 0.1684), (1, 29, 0.0009, 0.1776)],
)
def test_exact_intervals_as_newcombe_published_them(successes: int, trials: int, low: float, high: float) -> None:
    """The same table, method 5."""
    assert near(exact_interval(successes, trials), low, high)


def test_fishers_lady_tasting_tea() -> None:
    assert fisher_p(3, 4, 1, 4) == pytest.approx(34 / 70)
    assert fisher_p(4, 4, 0, 4) == pytest.approx(2 / 70)


@given(st.integers(0, 12), st.integers(1, 12), st.integers(0, 12), st.integers(1, 12))
def test_fisher_is_the_sum_of_fractions(a: int, trials_a: int, b: int, trials_b: int) -> None:
    a, b = min(a, trials_a), min(b, trials_b)
    ways = [comb(trials_a, n) * comb(trials_b, a + b - n) for n in range(a + b + 1)]
    wanted = Fraction(sum(way for way in ways if way <= ways[a]), comb(trials_a + trials_b, a + b))
    assert fisher_p(a, trials_a, b, trials_b) == pytest.approx(float(wanted))
    assert fisher_p(a, trials_a, b, trials_b) == pytest.approx(fisher_p(b, trials_b, a, trials_a))


def test_large_numbers_do_not_overflow() -> None:
    assert fisher_p(2000, 4000, 1000, 4000) < 1e-100
    assert wilson(1, 10**9).high < 1e-8


def test_adjusted_p_values() -> None:
    """The 15 of Benjamini and Hochberg (JRSS B 57, 1995): at 5 % four are found."""
    given_p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.324, 0.4262, 0.5719, 0.6528,
               0.759, 1.0]  # fmt: skip
    shuffled = random.Random(1).sample(given_p, 15)
    assert sum(q <= 0.05 for q in benjamini_hochberg(shuffled)) == 4
    assert benjamini_hochberg([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.04, 0.04])
    assert benjamini_hochberg([]) == []


def test_spans_of_one_run_are_not_independent() -> None:
    """Half of the runs are slow as a whole: 400 spans say no more than the eight runs."""
    a = [[1.0] * 50, [1.0] * 50, [9.0] * 50, [9.0] * 50]
    b = [[1.0] * 50, [9.0] * 50, [9.0] * 50, [9.0] * 50]
    assert permutation_p(a, b) > 0.5
    assert permutation_p([[1.0], [1.1], [0.9], [1.0]] * 3, [[2.0], [2.1], [1.9]] * 4) < 0.01
    assert permutation_p(a, b, seed=1) == permutation_p(a, b, seed=1)


def test_pairs_are_exact_where_they_are_few() -> None:
    assert paired_permutation_p([1, 1, 1, 1]) == 2 / 16
    assert paired_permutation_p([1, -1]) == 1
    assert paired_permutation_p([1.0] * 20) < 0.002


def test_of_equal_agents_few_are_called_different() -> None:
    dice = random.Random(5)
    found = 0
    for seed in range(200):
        a, b = ([[dice.gauss(0, 1)] for _ in range(12)] for _ in range(2))
        found += permutation_p(a, b, seed=seed) <= 0.05
    assert found <= 18  # 10 are expected; 19 or more would come once in 200 times


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: wilson(1, 0),
        lambda: exact_interval(3, 2),
        lambda: fisher_p(2, 1, 0, 1),
        lambda: paired_permutation_p([]),
    ],
)
def test_wrong_numbers_are_errors(wrong: object) -> None:
    assert callable(wrong)
    with pytest.raises(ValueError, match=r"\w"):
        wrong()


@pytest.mark.parametrize(
    ("failed", "runs", "text"),
    [(36, 100, "27–46%"), (0, 10, "0–28%"), (3, 10_000, "0.0–0.1%"), (9_990, 10_000, "99.8–99.9%")],
)
def test_the_ends_of_an_interval_differ(failed: int, runs: int, text: str) -> None:
    assert interval_text(wilson(failed, runs)) == text
