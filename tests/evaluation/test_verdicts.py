"""The statistics of evaluations: exact tests of signs, evidence at any time, plans; simulated whole verdicts."""

import random
from fractions import Fraction
from itertools import product
from math import exp

import pytest

from agentspan.analysis.statistics import (
    UNEQUAL,
    PairedCase,
    mean_interval,
    paired_permutation_p,
    paired_tails,
    sign_tails,
)
from agentspan.evaluation.plan import plan
from agentspan.evaluation.verdicts import Outcomes, Pairs, compare, first_clear, log_evidence, planned
from tests.evaluation.simulated_evaluations import Cell, cells, nulls, power
from tests.tiers import longer

SETS = longer("AGENTSPAN_TEST_EVALUATIONS", 60, 60, 1000)


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


def test_the_interval_of_pairs_leaves_out_one_half_where_they_are_clear() -> None:
    for pairs in (Pairs(30, 0, 7), Pairs(30, 2, 16), Pairs(30, 3, 9), Pairs(30, 15, 1), Pairs(30, 0, 0)):
        interval = pairs.interval()
        assert (interval.low < 0.5) is not pairs.is_clear
        share = max(pairs.better, pairs.worse) / max(1, pairs.better + pairs.worse)
        assert interval.low - 1e-9 <= share <= interval.high + 1e-9


def test_only_the_first_pair_of_a_case_that_differs_is_evidence() -> None:
    base: dict[str, list[bool | None]] = {each: [True] * 5 for each in "abcdef"}
    head: dict[str, list[bool | None]] = {each: [False] * 5 for each in "abcdef"}
    found = first_clear(base, head, planned([*base], 5, seed=0))
    assert found == ((6, 0, 6), 30, False)  # 30 pairs differ, and six are worth six
    assert first_clear(base | {"g": [True]}, head | {"g": [False]}, planned([*base, "g"], 1, seed=0)).is_clear


def test_the_tails_of_unequal_numbers_hold_for_trials_that_repeat_and_for_independent_ones() -> None:
    cases = [PairedCase(1, 1, 2, 3), PairedCase(1, 1, 1, 3), PairedCase(0, 1, 1, 3), PairedCase(1, 1, 0, 3)]
    shared = []  # all ways to share out the passed trials of each case: one of four is that of the base
    for ways in product(range(4), repeat=len(cases)):
        total = Fraction(0)
        for case, way in zip(cases, ways, strict=True):
            passed = [1] * (case.base_passed + case.head_passed) + [0] * (4 - case.base_passed - case.head_passed)
            in_base = passed.pop(way)
            total += Fraction(sum(passed), 3) - in_base
        shared.append(total)
    observed = sum(each.difference for each in cases)
    low = sum(each <= observed for each in shared) / len(shared)
    signs = sign_tails([each.difference for each in cases])
    assert paired_tails(cases)[0] == pytest.approx(UNEQUAL * max(low, signs[0]))
    mixed = [*cases, PairedCase(2, 2, 1, 2)]
    assert paired_tails(mixed)[0] == pytest.approx(paired_tails(mixed, seed=1)[0], rel=0.1)
    equal = [PairedCase(2, 2, 1, 2), PairedCase(1, 2, 0, 2)]
    assert paired_tails(equal) == sign_tails([each.difference for each in equal])


def test_a_verdict_stands_only_if_it_holds_with_missing_outcomes_failed_and_passed() -> None:
    base: dict[str, list[bool | None]] = {str(each): [each < 12] for each in range(30)}
    silent: dict[str, list[bool | None]] = {str(each): [True if each >= 12 else None] for each in range(30)}
    order = planned([*base], 1, seed=0)
    for early in (False, True):
        found = compare(base, silent, order, show=0.1, early=early)
        assert found is not None
        assert found.verdict == "inconclusive"
        assert "12 trials without an outcome decide" in str(found.doubt)
    few = silent | {str(each): [True] for each in range(11)}
    found = compare(base, few, order, show=0.1, early=False)
    assert found is not None
    assert (found.verdict, found.doubt) == ("better", None)


def test_cases_that_could_not_become_worse_or_were_chosen_by_their_outcome_give_no_verdict() -> None:
    ids, order = [str(each) for each in range(20)], planned([str(each) for each in range(20)], 1, seed=0)
    passed: Outcomes = {id: [True] for id in ids}
    for base, chosen, verdict in (
        ({id: [False] for id in ids}, None, "inconclusive"),
        ({id: [id == "1"] for id in ids}, None, "better"),
        ({id: [id == "1"] for id in ids}, "failed", "inconclusive"),
        ({id: [id == "1"] for id in ids}, "passed", "better"),
    ):
        found = compare(base, passed, order, show=0.1, early=False, chosen=chosen)  # type: ignore[arg-type]
        assert found is not None
        assert found.verdict == verdict
        assert (found.doubt is not None) == (verdict == "inconclusive")


def test_an_interval_has_the_confidence_of_its_verdict_and_is_wider_where_numbers_differ() -> None:
    dice = random.Random(1)
    ids = [str(case) for case in range(40)]
    base: Outcomes = {id: [dice.random() < 0.7] for id in ids}
    head: Outcomes = {id: [dice.random() < 0.7 for _ in range(5)] for id in ids}
    differences = [sum(map(bool, head[id])) / 5 - bool(base[id][0]) for id in ids]
    for early, confidence in ((False, 0.9), (True, 0.95)):
        found = compare(base, head, planned(ids, 5, seed=0), show=0.1, early=early)
        assert found is not None
        assert found.interval is not None
        assert found.confidence == pytest.approx(confidence)
        alone = mean_interval(differences, confidence=confidence)
        assert found.interval.low < alone.low < found.difference < alone.high < found.interval.high


@pytest.mark.parametrize(("trials", "verdict"), [(1, "no difference"), (3, "inconclusive")])
def test_a_drop_is_not_ruled_out_by_less_than_a_case_where_trials_repeat(trials: int, verdict: str) -> None:
    base: dict[str, list[bool | None]] = {str(case): [case >= 4] * trials for case in range(50)}
    head: dict[str, list[bool | None]] = {str(case): [case < 4 or case >= 8] * trials for case in range(50)}
    found = compare(base, head, planned([*base], trials, seed=0), show=0.1, early=False)
    assert found is not None
    assert found.verdict == verdict


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
    assert (found.repeating or 0) > (found.broken or 1)
    unequal = plan(base | {"0": [*base["0"], True]}, ids, 3, show=0.1, early=False)
    assert (found.detectable or 1) < (unequal.detectable or 0)
    early = plan(base, ids, 3, show=0.1, early=True)
    assert (found.detectable or 1) < (early.detectable or 0)
    assert found.is_too_dear is ((found.needed_usd or 0) > 2)
    assert plan(base, ids, 3, show=0.95, early=False, budget_usd=1.0).is_too_dear
    assert "no base" in str(plan(None, ids, 3, show=0.1, early=False))
    few: Outcomes = {id: [True] for id in ids[:3]}
    assert str(plan(few, ids[:3], 1, show=0.1, early=False)).startswith("3 cases × 1 trial show no drop; ")


def test_a_plan_never_promises_less_than_could_give_a_verdict() -> None:
    ids = [str(number) for number in range(50)]
    one: Outcomes = {id: [id != "1"] for id in ids}
    repeating: Outcomes = {id: [id != "1"] * 5 for id in ids}
    for base, trials in ((one, 1), (one, 5), (repeating, 5), (repeating, 1)):
        for early, least in ((False, 5), (True, 6)):
            assert (plan(base, ids, trials, show=0.1, early=early).detectable or 0) >= least / 50
    independent: Outcomes = {id: [True] * 4 + [id != "1"] for id in ids}
    assert 5 / 250 <= (plan(independent, ids, 5, show=0.1, early=False).detectable or 0) < 5 / 50


WRONG_BEFORE = [
    Cell("alike", 0.95, 1, 5, 0.0), Cell("alike", 0.9, 1, 10, 0.5), Cell("alike", 0.8, 5, 5, 1.0),
    Cell("alike", 0.95, 5, 1, 0.0),
]  # fmt: skip
"""Where equal versions had a verdict in 7 to 33 of 100 comparisons."""


@pytest.mark.parametrize("cell", WRONG_BEFORE)
def test_equal_versions_seldom_have_a_verdict(cell: Cell) -> None:
    assert max(nulls(cell, range(SETS))) <= 0.05 + 2 * (0.05 * 0.95 / SETS) ** 0.5


@pytest.mark.nightly
@pytest.mark.parametrize("cell", cells(), ids=str)
def test_verdicts_err_and_find_as_they_promise(cell: Cell) -> None:
    assert max(nulls(cell, range(SETS))) <= 0.05 + 2.5 * (0.05 * 0.95 / SETS) ** 0.5
    for way in ("fixed", "early", "diff", "check"):
        found = power(cell, way, range(SETS // 4))
        assert found.untold == 1 or found.found >= 0.75 - 2.5 * (0.75 * 0.25 / (SETS // 4)) ** 0.5
