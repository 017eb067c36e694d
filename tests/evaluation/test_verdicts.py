"""The statistics of evaluations: exact tests of signs, evidence at any time, plans; simulated whole verdicts."""

import random
from fractions import Fraction
from itertools import product
from math import exp

import pytest

from agentspan.analysis.statistics import mean_interval, paired_permutation_p, sign_tails
from agentspan.evaluation.plan import plan
from agentspan.evaluation.verdicts import Pairs, compare, first_clear, log_evidence, planned
from tests.evaluation.simulated_evaluations import KINDS, simulated
from tests.tiers import longer

SETS = longer("AGENTSPAN_TEST_EVALUATIONS", 20, 60, 2000)


def test_the_tails_of_signs_count_every_combination() -> None:
    differences = [Fraction(each, 6) for each in (3, -2, 0, -6, 4, -2, -1)]
    sums = [sum(d * sign for d, sign in zip(differences, signs, strict=True)) for signs in product((1, -1), repeat=7)]
    observed = sum(differences)
    low, high = sign_tails(differences)
    assert low == sum(each <= observed for each in sums) / 128
    assert high == sum(each >= observed for each in sums) / 128
    assert low * 2 == paired_permutation_p([float(each) for each in differences])


def test_differences_with_nothing_in_common_have_an_approximate_tail() -> None:
    dice = random.Random(1)
    differences = [Fraction(-1, prime) for prime in range(9001, 9061)] + [Fraction(dice.randrange(99), 10007)]
    low, high = sign_tails(differences)
    assert low < 0.01 < 0.9 < high
    with pytest.raises(ValueError, match="no differences"):
        sign_tails([])


def test_an_interval_has_0_outside_where_the_test_of_signs_is_significant() -> None:
    for worse in range(10):
        differences = [Fraction(-1)] * worse + [Fraction(1)] * 2 + [Fraction(0)] * 20
        interval = mean_interval([float(each) for each in differences], confidence=0.9)
        low, _ = sign_tails(differences)
        if not 0.03 < low < 0.07:  # the interval is of random subsets
            assert (interval.high < 0) == (low <= 0.05)


def test_evidence_averages_to_1_among_equal_versions() -> None:
    for number in range(1, 12):
        average = sum(exp(log_evidence(sum(each), number - sum(each))) for each in product((0, 1), repeat=number))
        assert average / 2**number == pytest.approx(1)
    assert not Pairs(6, 0, 6).is_clear
    assert Pairs(7, 0, 7).is_clear


def test_the_interval_of_pairs_leaves_out_0_where_they_are_clear() -> None:
    for pairs in (Pairs(30, 0, 7), Pairs(30, 2, 16), Pairs(30, 3, 9), Pairs(30, 15, 1), Pairs(30, 0, 0)):
        interval = pairs.interval()
        assert (interval.low < 0 < interval.high) is not pairs.is_clear
        assert interval.low - 1e-9 <= pairs.difference <= interval.high + 1e-9


def test_the_order_goes_trial_by_trial_so_that_any_stop_is_balanced() -> None:
    order = planned(["b", "a", "c"], 2, seed=1)
    assert sorted(order[:3]) == [("a", 0), ("b", 0), ("c", 0)]
    assert sorted(order[3:]) == [("a", 1), ("b", 1), ("c", 1)]
    assert planned(["c", "b", "a"], 2, seed=1) == order != planned(["a", "b", "c"], 2, seed=2)


def test_a_trial_is_paired_with_the_trial_of_its_number_and_each_counts_once() -> None:
    base: dict[str, list[bool | None]] = {"a": [True], "b": [True, None], "c": [False, True]}
    head: dict[str, list[bool | None]] = {"a": [False, False], "b": [False, False], "c": [None, False]}
    found = first_clear(base, head, planned(["a", "b", "c"], 2, seed=0))
    assert found.pairs == (3, 0, 3)
    assert (found.is_clear, found.trials) == (False, 6)
    assert compare({"d": [True]}, head, [], show=0.1, early=False) is None


def test_a_plan_says_what_it_can_show_and_what_more_would_take() -> None:
    dice = random.Random(1)
    ids = [str(number) for number in range(50)]
    base: dict[str, list[bool | None]] = {id: [dice.random() < 0.8 for _ in range(3)] for id in ids}
    found = plan(base, ids, 3, show=0.1, early=False, run_usd=0.006, budget_usd=2.0)
    assert found.detectable == pytest.approx(0.133, abs=0.02)
    assert found.broken == pytest.approx(0.165, abs=0.02)
    assert found.needed is not None
    assert found.needed > 3
    assert "50 cases × 3 trials show a drop of " in str(found)
    early = plan(base, ids, 3, show=0.1, early=True)
    assert (found.detectable or 1) < (early.detectable or 0)
    assert found.is_too_dear is ((found.needed_usd or 0) > 2)
    assert plan(base, ids, 3, show=0.95, early=False, budget_usd=1.0).is_too_dear
    assert "no base" in str(plan(None, ids, 3, show=0.1, early=False))


@pytest.mark.nightly
@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_verdicts_err_and_find_as_they_promise(kind: str, early: bool) -> None:
    found = simulated(50, 3, 3, kind, early=early, seeds=range(SETS))
    error = 2 * (0.05 * 0.95 / SETS) ** 0.5
    assert found.null_worse <= 0.05 + error
    assert found.even >= 0.75 - 2 * error
    assert not early or found.saved >= 0.5
