"""The tests and intervals of analysis against scipy's, which is for tests only."""

from math import inf, isclose, sqrt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentspan.analysis.drift_metrics import chi_square_p
from agentspan.analysis.statistics import (
    Strata,
    Table,
    benjamini_hochberg,
    exact_interval,
    fisher_p,
    paired_permutation_p,
    two_sided,
    wilson,
)

numpy = pytest.importorskip("numpy", reason="needs numpy")
stats = pytest.importorskip("scipy.stats", reason="needs scipy")

pytestmark = pytest.mark.full

p_values = st.lists(st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=30)
tables = st.builds(Table, *[st.integers(0, 12)] * 4)


def near(wanted: Any) -> Any:
    return pytest.approx(wanted, rel=1e-6, abs=1e-9)


@st.composite
def counts(draw: st.DrawFn) -> tuple[int, int]:
    trials = draw(st.integers(1, 300))
    return draw(st.integers(0, trials)), trials


@given(counts(), st.sampled_from([0.8, 0.95, 0.99]))
def test_intervals_of_a_share(given: tuple[int, int], confidence: float) -> None:
    tested = stats.binomtest(*given)
    for method, own in (("exact", exact_interval), ("wilson", wilson)):
        found = own(*given, confidence=confidence)
        assert (found.low, found.high) == near(tuple(tested.proportion_ci(confidence, method)))


@given(counts(), counts())
def test_fishers_exact_test(a: tuple[int, int], b: tuple[int, int]) -> None:
    table = [[a[0], a[1] - a[0]], [b[0], b[1] - b[0]]]
    assert fisher_p(*a, *b) == near(stats.fisher_exact(table).pvalue)
    assert fisher_p(*a, *b, one_sided=True) == near(stats.fisher_exact(table, alternative="less").pvalue)


@given(p_values)
def test_false_discovery_rates(given: list[float]) -> None:
    assert benjamini_hochberg(given) == pytest.approx([*stats.false_discovery_control(given)])


@given(st.lists(st.integers(-5, 5), min_size=2, max_size=9))
def test_pairs_are_permuted_exactly(differences: list[int]) -> None:
    wanted = stats.permutation_test(
        (numpy.array(differences, float),),
        lambda x: abs(x.mean()),
        permutation_type="samples",
        alternative="greater",
        vectorized=False,
        n_resamples=inf,
    )
    assert paired_permutation_p(differences) == pytest.approx(wanted.pvalue)


@given(tables)
def test_the_odds_ratio_of_one_stratum(table: Table) -> None:
    strata = Strata([table])
    if not strata.tables:
        return
    wanted = stats.contingency.odds_ratio([[table[0], table[1]], [table[2], table[3]]], kind="conditional")
    found = strata.effect()
    if strata.is_exact:
        assert strata.p() == near(stats.fisher_exact([[*table[:2]], [*table[2:]]]).pvalue)
        ours = (found.odds_ratio, found.interval.low, found.interval.high)
        theirs = (wanted.statistic, *wanted.confidence_interval(0.95))
        assert all(isclose(one, other, rel_tol=1e-4, abs_tol=1e-6) for one, other in zip(ours, theirs, strict=True))


@given(st.lists(tables, min_size=1, max_size=6))
def test_strata_are_sums_of_hypergeometric_numbers(given: list[Table]) -> None:
    strata = Strata(given)
    if not strata.tables:
        return
    margins = [(sum(table), table[0] + table[2], table[0] + table[1]) for table in strata.tables]
    seen = sum(table.failed_with for table in strata.tables)
    if strata.is_exact:
        chances = numpy.ones(1)
        for margin in margins:
            chances = numpy.convolve(chances, stats.hypergeom.pmf(range(margin[2] + 1), *margin))
        wanted = chances[chances <= chances[seen] * (1 + 1e-7)].sum()
        assert strata.p() == near(wanted)
    else:
        means, variances = zip(*(stats.hypergeom.stats(*margin) for margin in margins), strict=True)
        distance = max(0.0, abs(seen - sum(means)) - 0.5)
        assert strata.p() == near(2 * stats.norm.sf(distance / sqrt(sum(variances))))


def test_normal_and_chi_square_tails() -> None:
    for difference in (0.0, 0.5, 2.0, -3.5):
        assert two_sided(difference, 1.0) == pytest.approx(2 * stats.norm.sf(abs(difference)))
    for freedom in (1.0, 1.7, 4.0, 25.0):
        for p in (0.1, 0.05, 0.01, 0.001):
            assert chi_square_p(float(stats.chi2.isf(p, freedom)), freedom) == pytest.approx(p, rel=0.2, abs=0.001)
