"""`why` finds causes that were planted among real difficulties of tasks, in few runs and in many."""

import pytest
from planted import CAUSES, false_alarms, found, plant

from agentspan.analysis.associations import drawn, is_stratified
from agentspan.analysis.why import Why, why
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.sums import RunBrief
from tests.tiers import longer


def answered(cause: str | None, *, runs: int, seed: int, each: int = 5) -> Why:
    storage = MemoryStorage()
    plant(storage, cause, runs=runs, seed=seed, each=each)
    return why(storage)


@pytest.mark.parametrize(
    ("runs", "each"), [pytest.param(900, 2, marks=pytest.mark.full), pytest.param(3000, 5, marks=pytest.mark.nightly)]
)
def test_more_runs_find_no_less(runs: int, each: int) -> None:
    """The latest 5,000 spans are of about 460 runs; all tasks were run once before any of them was run again."""
    found = answered("argument", runs=runs, seed=0, each=each)
    first = found.findings.findings[0]
    assert (first.feature, first.stratified) == (CAUSES["argument"], True)
    assert first.q < 1e-6
    assert found.compared == min(runs, 2000)
    assert 400 < found.read < 500


@pytest.mark.parametrize("cause", CAUSES)
def test_each_cause_is_found_within_tasks(cause: str) -> None:
    """In 300 runs; benchmarks/bench_verdicts.py --planted 200 counts more sets, and 100 runs."""
    sets = longer("AGENTSPAN_TEST_SETS", 1, 1, 100)
    hits = sum(found(cause, runs=300, seed=seed) for seed in range(sets))
    assert hits >= 0.9 * sets


def test_nothing_is_found_where_outcomes_are_shuffled_within_tasks() -> None:
    """Of 300 shuffles 2 gave a false alarm in 100 runs, and 10 in 300."""
    shuffles = longer("AGENTSPAN_TEST_SHUFFLES", 10, 10, 500)
    assert false_alarms("argument", runs=100, seed=0, shuffles=shuffles) <= max(1, 0.05 * shuffles)


def brief(number: int, task: str | None, spans: int = 10) -> RunBrief:
    id = f"{number:04}"
    return RunBrief(id, "agent", "agent", "1", "complete", task, id, None, spans, 0, None, None)


def test_whole_tasks_are_drawn_those_with_both_outcomes_first() -> None:
    runs = [brief(number, f"t{number % 20}") for number in range(60)]
    failed = {run.id for run in runs if run.task in ("t3", "t17") or run.id in ("0005", "0049")}  # of t5 and t9
    compared, read = drawn(runs, failed, compared=40, read=100)
    assert len(compared) == 39
    assert [run.task for run in compared[:6]] == ["t5"] * 3 + ["t9"] * 3
    assert [run.task for run in read] == ["t5"] * 3 + ["t9"] * 3 + ["t0"] * 3


def test_a_task_that_does_not_fit_is_left_out_as_a_whole() -> None:
    runs = [brief(number, f"t{number % 6}", 10_000 if number == 3 else 10) for number in range(12)]
    _, read = drawn(runs, {"0000"}, read=5000)
    assert sorted(run.id for run in read) == [f"{number:04}" for number in range(12) if number % 6 != 3]


def test_without_tasks_the_latest_runs_are_compared_and_as_many_of_both_outcomes_read() -> None:
    runs = [brief(number, None) for number in range(100)]
    failed = {f"{number:04}" for number in range(0, 100, 10)}
    compared, read = drawn(runs, failed, compared=50, read=80)
    assert compared == runs[:50]
    assert (len(read), sum(run.id in failed for run in read)) == (8, 4)
    assert max(run.id for run in read) > "0020"  # they are of the whole time
    assert drawn(runs, failed, compared=50, read=80) == (compared, read)


def test_the_rule_for_comparing_within_tasks() -> None:
    assert is_stratified([1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6], 20)
    assert not is_stratified([1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6], 21)
    assert not is_stratified([1, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4], 11)


def test_the_order_of_planting_is_the_same_for_a_seed() -> None:
    answers = [answered("repeat", runs=50, seed=3) for _ in range(2)]
    assert answers[0].findings == answers[1].findings
    assert answers[0].failed == answers[1].failed > 0
