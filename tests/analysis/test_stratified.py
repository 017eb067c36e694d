"""Tests within strata: published values, exact sums of fractions, and agreement with Fisher's test of one table."""

from fractions import Fraction
from itertools import product
from math import comb, inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentspan.analysis.statistics import Strata, Table, fisher_p
from tests.tiers import examples

BERKELEY = [
    Table(512, 313, 89, 19),
    Table(353, 207, 17, 8),
    Table(120, 205, 202, 391),
    Table(138, 279, 131, 244),
    Table(53, 138, 94, 299),
    Table(22, 351, 24, 317),
]
"""Admissions of men and women to six departments (P. Bickel, E. Hammel, J. O'Connell, Science 187, 1975)."""
PENICILLIN = [Table(0, 6, 0, 5), Table(3, 3, 0, 6), Table(6, 0, 2, 4), Table(5, 1, 6, 0), Table(2, 0, 5, 0)]
"""Rabbits at five doses (N. Mantel, JASA 58, 1963)."""


def test_berkeley_is_no_finding_within_departments() -> None:
    """R's mantelhaen.test(UCBAdmissions): X² = 1.4269, p = 0.2323, ratio 0.9046968, from 0.7719074 to 1.0603298."""
    strata = Strata(BERKELEY)
    assert not strata.is_exact
    assert strata.p() == pytest.approx(0.2323, abs=5e-5)
    effect = strata.effect()
    assert effect.odds_ratio == pytest.approx(0.9046968, abs=1e-6)
    assert (effect.interval.low, effect.interval.high) == pytest.approx((0.7719074, 1.0603298), abs=1e-5)
    pooled = Strata([Table(*map(sum, zip(*BERKELEY, strict=True)))])
    assert pooled.p() < 1e-20


def test_rabbits_are_counted_exactly() -> None:
    """R's mantelhaen.test(Rabbits, exact = TRUE): p = 0.03994, ratio 10.36102, from 1.077401 to 529.837399."""
    strata = Strata(PENICILLIN)
    assert strata.is_exact
    assert strata.p() == pytest.approx(0.03994, abs=5e-6)
    effect = strata.effect()
    assert effect.odds_ratio == pytest.approx(10.36102, rel=1e-4)
    bounds = (effect.interval.low, effect.interval.high)
    assert bounds == pytest.approx((1.077401, 529.837399), rel=5e-3)  # R stops there
    strata.is_exact = False  # without exact = TRUE: X² = 3.9286, p = 0.04747, ratio 7, from 1.026713 to 47.725133
    assert strata.p() == pytest.approx(0.04747, abs=5e-6)
    effect = strata.effect()
    assert effect.odds_ratio == pytest.approx(7)
    assert (effect.interval.low, effect.interval.high) == pytest.approx((1.026713, 47.725133), rel=1e-5)


cells = st.builds(Table, *[st.integers(0, 4)] * 4)


@settings(max_examples=examples(60))
@given(st.lists(cells, min_size=1, max_size=3))
def test_exact_p_is_the_sum_of_fractions(tables: list[Table]) -> None:
    strata = Strata(tables)
    if not strata.is_exact:
        return
    chances: dict[int, Fraction] = {}
    for numbers in product(*(range(table.range[0], table.range[1] + 1) for table in tables)):
        chance = Fraction(1)
        for number, (a, b, c, d) in zip(numbers, tables, strict=True):
            chance *= Fraction(comb(a + b, number) * comb(c + d, a + c - number), comb(a + b + c + d, a + c))
        chances[sum(numbers)] = chances.get(sum(numbers), Fraction(0)) + chance
    seen = chances[sum(table.failed_with for table in tables)]
    assert strata.p() == pytest.approx(float(sum(each for each in chances.values() if each <= seen)))
    least = min(sum(each for each in chances.values() if each <= one) for one in chances.values())
    assert strata.smallest_p() == pytest.approx(float(least))


@given(cells)
def test_one_stratum_is_fishers_test(table: Table) -> None:
    a, b, c, d = table
    if a + b and c + d:
        assert Strata([table]).p() == pytest.approx(fisher_p(a, a + b, c, c + d))


def test_strata_without_both_outcomes_say_nothing() -> None:
    silent = [Table(3, 0, 2, 0), Table(0, 2, 0, 5), Table(1, 1, 0, 0)]
    assert Strata(silent).p() == Strata(silent).smallest_p() == 1.0
    assert Strata([*silent, *PENICILLIN]).p() == Strata(PENICILLIN).p()


def test_an_effect_without_an_exception_has_no_upper_bound() -> None:
    effect = Strata([Table(1, 0, 0, 1)] * 8).effect()
    assert (effect.odds_ratio, effect.interval.high) == (inf, inf)
    assert effect.interval.low > 1
    assert Strata([Table(0, 1, 1, 0)] * 8).effect().odds_ratio == 0


def test_large_numbers_without_an_exception_have_an_exact_interval() -> None:
    """scipy's odds_ratio([[60, 0], [240, 300]]): infinite, from 19.37697 on; the approximation has 0 to infinity."""
    strata = Strata([Table(60, 0, 240, 300)])
    assert not strata.is_exact
    effect = strata.effect()
    assert (effect.odds_ratio, effect.interval.high) == (inf, inf)
    assert effect.interval.low == pytest.approx(19.37697, rel=1e-5)
    mirrored = Strata([Table(0, 60, 300, 240)]).effect()
    assert mirrored.odds_ratio == 0
    assert mirrored.interval.high == pytest.approx(1 / effect.interval.low)


def test_what_could_have_been_found_is_the_odds_ratio_of_that_power() -> None:
    """Four of five draws of 20 from 40 with these odds have a two-sided p of at most 0.05."""
    strata = Strata([Table(10, 10, 10, 10)])
    odds = strata.detectable(0.05, 0.8)
    weights = [comb(20, k) ** 2 * odds**k for k in range(21)]
    found = [k for k in range(21) if 2 * sum(comb(20, j) ** 2 for j in range(k, 21)) <= 0.05 * comb(40, 20)]
    assert sum(weights[k] for k in found) / sum(weights) == pytest.approx(0.8)
    assert strata.detectable(0.001, 0.8) > odds
    assert Strata([Table(40, 40, 40, 40)]).detectable(0.05, 0.8) < odds
    assert Strata([Table(1, 1, 0, 1)]).detectable(0.05, 0.8) == inf
