"""`agentspan.evaluate`: trials are runs, verdicts compare them with a base, and nothing that goes wrong is hidden."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

import agentspan
from agentspan import clock
from agentspan.analysis.drift import detectable_drop, outcome_p, task_pairs
from agentspan.errors import InvalidValue
from agentspan.evaluation import Evaluation, calls, evaluate, exact, under
from agentspan.evaluation.verdicts import decide, planned
from agentspan.testing import CapturedRuns, capture
from tests.checkout import ROOT
from tests.evaluation.simulated_evaluations import Cell, drawn, facts, lowered, probabilities

CASES = [{"id": f"case {number}", "input": number, "expected": str(number)} for number in range(20)]


@pytest.fixture
def runs() -> Iterator[CapturedRuns]:
    with capture() as found:
        yield found


def passing(*, but: int = 0) -> Callable[[int], str]:
    """Return an agent that fails the first cases, so many of them, and passes the others."""

    def agent(number: int) -> str:
        with agentspan.span("llm", model="gpt-4.1") as span:
            span.set_result({"text": "", "usage": {"input_tokens": 1000, "output_tokens": 100}})
        return "wrong" if number < but else str(number)

    return agent


def evaluated(agent: Callable[[Any], Any], version: str | None = "2", **how: Any) -> Evaluation:
    return evaluate(agent, how.pop("cases", CASES), how.pop("scores", [exact]), name="agent", version=version, **how)


def test_a_worse_version_is_found_by_the_runs_of_the_same_tasks(runs: CapturedRuns) -> None:
    evaluated(passing(), "1", trials=2)
    found = evaluated(passing(but=8), trials=2, against="agent@1")
    assert found.verdict == "worse"
    assert found.difference == pytest.approx(-0.4)
    assert found.interval is not None
    assert found.interval.low < -0.4 < found.interval.high < 0
    assert (found.rate, len(found.trials), found.stopped) == (0.6, 40, None)
    assert "agent 2: worse than agent@1: −40 points" in str(found)
    assert "worse in 8 cases: case 0 (2/2 → 0/2)" in str(found)
    better = evaluated(passing(), "3", against="2")
    assert better.verdict == "better"
    same = evaluated(passing(), "4", against="1")
    assert same.verdict == "inconclusive"  # 20 equal tasks leave room for a drop of 14 points
    assert same.interval is not None
    assert same.interval.low == pytest.approx(-0.139, abs=0.001)
    assert evaluated(passing(), "4", against="1", show=0.15).verdict == "no difference"
    with agentspan.open(runs.storage) as db:
        assert {each.run.purpose for each in db.runs(task="case 3").runs} == {"eval"}
        assert db.runs(task="case 3").total == 6


def test_without_a_base_there_is_a_rate_and_no_verdict(runs: CapturedRuns) -> None:
    found = evaluated(passing(but=5), trials=2)
    assert (found.verdict, found.difference, found.rate) == ("inconclusive", None, 0.75)
    assert found.interval is not None
    assert found.interval.low == pytest.approx(0.509, abs=0.01)
    assert "75% of 40 trials passed" in str(found)


def test_an_exception_is_a_failed_run_and_a_scorer_that_raises_is_counted_and_never_0(runs: CapturedRuns) -> None:
    def agent(number: int) -> str:
        if number == 1:
            raise RuntimeError("down")
        return str(number)

    def picky(output: str) -> bool:
        if output == "2":
            raise ValueError("what is this?")
        return True

    found = evaluated(agent, scores=[picky], cases=CASES[:4])
    by_case = {each.case: each for each in found.trials}
    assert by_case["case 1"].is_failed
    assert by_case["case 1"].passed is False
    assert by_case["case 2"].passed is None
    assert found.not_scored == {"picky": 1}
    assert "67% of 3 trials passed" in str(found)
    assert "picky raised in 1 trial, which have no such score: ValueError: what is this?" in str(found)
    with agentspan.open(runs.storage) as db:
        failed = {each.run.task for each in db.runs(score="picky<1").runs}
        passed = {each.run.task for each in db.runs(score="picky>=1").runs}
    assert (failed, passed) == ({"case 1"}, {"case 0", "case 3"})


class _Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), asyncio.CancelledError(), _Mute()])
def test_whatever_a_program_or_a_scorer_raises_the_other_cases_go_on(error: BaseException, runs: CapturedRuns) -> None:
    def agent(number: int) -> str:
        if number == 1:
            raise error
        return str(number)

    async def later(number: int) -> str:
        return agent(number)

    async def waits(number: int) -> str:
        return (await asyncio.gather(later(number)))[0]

    def picky(output: str) -> bool:
        return bool(agent(int(output) - 1))

    def patient(output: str) -> Any:
        return waits(int(output) - 1)

    for program in (agent, waits):
        assert evaluated(program, None, cases=CASES[:3]).rate == pytest.approx(2 / 3)
    for scorer in (picky, patient):
        found = evaluated(str, None, scores=[scorer], outcome="status", cases=CASES[:4])
        assert (found.rate, dict(found.not_scored)) == (1, {"picky": 1} if scorer is picky else {"patient": 1})


def test_a_judge_that_spends_its_budget_gives_no_score(runs: CapturedRuns) -> None:
    def judge(output: str) -> bool:
        for _ in range(3):
            passing()(0)
        return True

    agentspan.configure(budget=agentspan.Budget(steps=2))
    found = evaluated(str, scores=[judge], cases=CASES[:2])
    assert (found.rate, found.not_scored) == (None, {"judge": 2})


def test_a_program_that_changes_its_input_changes_no_other_trial(runs: CapturedRuns) -> None:
    def agent(messages: list[str]) -> int:
        messages.append("an answer")
        return len(messages)

    for was_there in (False, True):
        found = evaluated(agent, cases=[{"id": "a", "input": ["a question"], "expected": 2}], trials=3)
        assert (found.rate, [each.was_there for each in found.trials]) == (1, [was_there] * 3)


def test_a_forked_child_that_exits_runs_no_further_trial(runs: CapturedRuns, tmp_path: Path) -> None:
    def agent(number: int) -> str:
        (tmp_path / f"{os.getpid()} {number}").touch()
        if number == 1:
            children.append(os.fork())
            if children[0] == 0:
                with agentspan.run("of the child") as run:
                    (tmp_path / run.name).touch()
                raise SystemExit(0)
        return str(number)

    parent, children = os.getpid(), list[int]()
    try:
        evaluated(agent, cases=CASES[:4])
    finally:
        if os.getpid() != parent:
            os._exit(0)
    os.waitpid(children[0], 0)
    assert len([*tmp_path.glob(f"{parent} *")]) == 4
    assert len([*tmp_path.iterdir()]) == 4 + 1
    assert (tmp_path / "of the child").exists(), "its run is no trial"


PROGRAM = """
import os, sys, agentspan
from agentspan.evaluation import evaluate, exact

def agent(number):
    with agentspan.span("tool", {"name": "look"}):
        if number == 1 and sys.argv[1] != "ends":
            agentspan.flush()
            print("in a trial", flush=True)
            sys.stdin.read() if sys.argv[1] == "waits" else os._exit(9)
    return str(number)

cases = [{"id": f"case {number}", "input": number, "expected": str(number)} for number in range(3)]
print(evaluate(agent, cases, [exact], name="agent", version="1"))
"""


@pytest.mark.full
def test_trials_that_run_elsewhere_are_said_and_those_of_a_dead_program_are_not(tmp_path: Path) -> None:
    environment = {**os.environ, "AGENTSPAN_DB": str(tmp_path / "runs.db")}

    def begun(how: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PROGRAM, how]
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    begun("dies").communicate()
    with begun("waits") as waits:
        assert waits.stdout is not None
        assert waits.stdout.readline() == "in a trial\n"
        told, _ = begun("ends").communicate()
        assert "1 trial of this evaluation still open" in told
        waits.communicate("")
    told, _ = begun("ends").communicate()
    assert "100% of 3 trials passed" in told
    assert "still open" not in told


def test_names_and_versions_are_found_again_as_runs_record_them(runs: CapturedRuns) -> None:
    for version in ("v1\n", 2.5):
        how: dict[str, Any] = {"name": "agent " * 50, "version": version}
        assert evaluate(str, CASES[:2], [exact], **how).rate == 1
        assert [each.was_there for each in evaluate(str, CASES[:2], [exact], **how).trials] == [True, True]


def test_the_steps_of_a_judge_are_a_run_of_their_own(runs: CapturedRuns) -> None:
    def polite(output: str) -> tuple[float, str, str]:
        for _ in range(2):
            passing()(0)
        return 0.9, "polite", "says please"

    with agentspan.run("around"):
        found = evaluated(passing(), scores=[polite], outcome="polite>0.5", cases=CASES[:1])
    names = {run.name: len(run.spans) for run in runs}
    assert names == {"around": 0, "agent": 1, "agent polite": 2}
    assert found.cost_usd == pytest.approx(3 * 0.0028)
    with agentspan.open(runs.storage) as db:
        (score,) = db.scores.list(found.run_ids[0])
    assert (score.value, score.label, score.explanation, score.source) == (0.9, "polite", "says please", "model")


def test_coroutines_run_at_the_same_time_in_one_loop(runs: CapturedRuns) -> None:
    loops, at_work, most = set(), 0, 0
    both = threading.Barrier(2)

    async def agent(number: int) -> str:
        nonlocal at_work, most
        loops.add(asyncio.get_running_loop())
        at_work += 1
        most = max(most, at_work)
        while most < 2:
            await asyncio.sleep(0)
        at_work -= 1
        with agentspan.span("tool"):
            return str(number)

    async def awaited(output: str, expected: str) -> bool:
        return output == expected

    found = evaluated(agent, scores=[awaited], workers=4)
    assert (found.rate, len(loops), len(found.trials)) == (1.0, 1, 20)
    assert {len(run.spans) for run in runs} == {1}
    assert both.n_waiting == 0


def test_an_early_stop_is_the_verdict(runs: CapturedRuns) -> None:
    evaluated(passing(), "1")
    found = evaluated(passing(but=20), against="1", stop="early", workers=1)
    assert (found.verdict, found.stopped, len(found.trials)) == ("worse", "early", 7)
    assert "of 7 pairs of trials, the first that differs of a case: 0 better, 7 worse" in str(found)
    assert "worse than 1: −100 points (of the pairs that differ, 52–100% are worse, at 95 %)" in str(found)
    assert found.interval is None
    again = evaluated(passing(but=20), against="1", stop="early")
    assert [each.was_there for each in again.trials] == [True] * 7
    assert again.verdict == "worse"


def test_a_budget_is_passed_by_one_run_a_worker_at_most(runs: CapturedRuns) -> None:
    one = 0.0028
    evaluated(passing(), "1")
    for workers, version in ((1, "2"), (3, "3")):
        found = evaluated(passing(), version, budget_usd=5.5 * one, show=1.0, workers=workers)
        assert found.stopped == "budget"
        assert 6 <= len(found.trials) <= 5 + workers
    assert "the budget of $0.0154 is spent" in str(found)


def test_a_budget_counts_what_judges_cost_in_earlier_calls(runs: CapturedRuns) -> None:
    def polite(output: str) -> bool:
        passing()(0)
        return True

    first = evaluated(passing(), scores=[polite], cases=CASES[:3])
    assert first.cost_usd == pytest.approx(6 * 0.0028)
    for scores in ([polite], [exact, polite]):
        again = evaluated(passing(), scores=scores, cases=CASES[:3], outcome="polite>=1", budget_usd=1.0)
        assert [each.was_there for each in again.trials] == [True] * 3
        assert again.cost_usd == pytest.approx(6 * 0.0028)
    more = evaluated(passing(), scores=[polite], cases=CASES, budget_usd=6 * 0.0028, show=1.0)
    assert (more.stopped, len(more.trials)) == ("budget", 3)


def test_a_budget_that_cannot_show_the_drop_starts_nothing(runs: CapturedRuns) -> None:
    evaluated(passing(but=5), "1", trials=2)
    found = evaluated(passing(), against="1", budget_usd=0.01)
    assert (found.verdict, found.stopped, found.trials) == ("inconclusive", "plan", ())
    assert "$0.0100 cannot show a drop of 10 points" in str(found)


def test_ctrl_c_leaves_a_partial_answer_and_the_same_call_goes_on_with_what_is_missing(runs: CapturedRuns) -> None:
    evaluated(passing(), "1")
    calls: list[int] = []

    def agent(number: int) -> str:
        calls.append(number)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return "wrong"

    found = evaluated(agent, against="1")
    assert (found.verdict, found.stopped, len(found.trials)) == ("inconclusive", "interrupted", 7)
    assert "inconclusive against 1 so far: −100 points" in str(found)
    again = evaluated(agent, against="1")
    assert (again.verdict, len(again.trials), len(calls)) == ("worse", 20, 8 + 13)
    assert "20 of 20 trials (7 of them from before)" in str(again)
    other = [{**case, "input": case["input"], "expected": "other"} for case in CASES]
    assert not any(each.was_there for each in evaluated(agent, cases=other).trials)
    assert not any(each.was_there for each in evaluated(agent, None, against="1").trials)


def test_a_base_has_neither_own_trials_nor_those_of_a_case_with_other_contents(runs: CapturedRuns) -> None:
    for expected in ("wrong", "0"):  # the expected output was corrected in between
        evaluated(passing(but=1), "1", cases=[{**CASES[0], "expected": expected}, CASES[1]])
    for _ in range(2):
        found = evaluated(passing(but=2), against="purpose=eval", cases=CASES[:2])
        assert found.base == {"case 0": [False], "case 1": [True]}
    with pytest.raises(InvalidValue, match="no finished run of these cases"):
        evaluated(passing(), "3", against="1", cases=[{**CASES[0], "expected": "other"}])


def test_a_base_is_checked_before_anything_runs(runs: CapturedRuns) -> None:
    def agent(number: int) -> str:
        raise AssertionError

    with pytest.raises(agentspan.NotFound):
        evaluated(agent, against="nobody@1")
    evaluated(passing(), "1", cases=CASES[:3])
    with pytest.raises(InvalidValue, match="evaluated version itself"):
        evaluated(agent, "1", against="agent@1")
    with pytest.raises(InvalidValue, match="no finished run of these cases"):
        evaluated(agent, cases=CASES[5:], against="agent@1")
    with pytest.raises(InvalidValue, match="score that no run has"):
        evaluated(agent, scores=[under(steps=3)], against="agent@1")
    with pytest.raises(InvalidValue, match="right>=1 is over a score that no scorer gives; the scorers are: exact"):
        evaluated(agent, outcome="right>=1")
    with pytest.raises(InvalidValue, match="must be text, such as"):
        evaluated(agent, against=1.0)
    with pytest.raises(InvalidValue, match="early needs a base"):
        evaluated(agent, stop="early")
    with pytest.raises(InvalidValue, match="a lambda has no name for its score"):
        evaluated(agent, scores=[lambda output: True])
    with pytest.raises(InvalidValue, match="'text': the arguments of a scorer are input, output, expected, run"):
        evaluated(agent, scores=[lambda text: True])
    assert len(runs) == 3


@pytest.mark.parametrize("on_spent", ["raise", "pause"])  # nobody is at a terminal: it does not wait for ever
def test_a_trial_that_spends_its_budget_fails_and_the_others_go_on(runs: CapturedRuns, on_spent: Any) -> None:
    @agentspan.run("inner", budget=agentspan.Budget(steps=2, on_spent=on_spent))
    def agent(number: int) -> str:
        for each in range(3 if number == 4 else 1):
            with agentspan.span("tool", {"name": "look", "arguments": {"number": each}}):
                pass
        return str(number)

    found = evaluated(agent)
    assert [each.case for each in found.trials if each.is_failed] == ["case 4"]
    assert (len(found.trials), found.rate) == (20, 0.95)


def test_a_run_that_the_program_begins_is_the_trial(runs: CapturedRuns) -> None:
    inner = agentspan.run("inner", version="9", tags=["a"], metadata={"own": 1})(passing())

    def strict(output: str) -> bool:
        inner(0)
        return True

    async def agent(number: int) -> str:
        return inner(number)

    shipped = [exact, calls(required=["gpt-4.1"]), under(steps=1), strict]
    found = evaluated(agent, scores=shipped, cases=CASES[:3], workers=2, budget_usd=1.0)
    assert found.rate == 1
    assert found.cost_usd == pytest.approx(6 * 0.0028)
    trials, judges = [run for run in runs if run.name == "agent"], [run for run in runs if run.name == "agent strict"]
    assert (len(runs), len(trials), len(judges)) == (6, 3, 3)
    assert {run.id for run in trials} == {*found.run_ids}
    with agentspan.open(runs.storage) as db:
        assert {each.run.purpose for each in db.runs().runs} == {"eval"}
        (row,) = (each for each in db.runs(task="case 2", tag="a").runs)
        assert (row.version, row.run.status) == ("2", "complete")
        assert db.runs(meta={"own": 1}, agent="agent").total == 3
    again = evaluated(agent, scores=shipped, cases=CASES[:3])
    assert [each.was_there for each in again.trials] == [True] * 3


def test_a_run_that_failed_did_not_pass_by_its_status_though_the_program_returned(runs: CapturedRuns) -> None:
    def agent(number: int) -> str:
        with suppress(ValueError), agentspan.run("inner"):
            if number == 1:
                raise ValueError
        return "caught"

    for _ in range(2):
        assert [each.passed for each in evaluated(agent, scores=[], cases=CASES[:3]).trials].count(False) == 1


def test_a_trial_without_a_step_took_as_long_as_its_call(runs: CapturedRuns) -> None:
    def agent(number: int) -> None:
        for _ in range(20):
            clock.monotonic_ns()  # takes a millisecond of the captured time

    assert evaluated(agent, scores=[], cases=CASES[:1]).rate == 1
    assert (runs.one().duration_ms or 0) >= 20


def test_cases_that_the_base_lacks_are_not_compared_and_fewer_trials_there_are_paired_once(runs: CapturedRuns) -> None:
    evaluated(passing(), "1", cases=CASES[:15])
    found = evaluated(passing(but=10), trials=3, against="1")
    assert found.comparison is not None
    assert (found.comparison.tasks, found.comparison.pairs.pairs) == (15, 15)
    assert found.verdict == "worse"
    assert found.difference == pytest.approx(-2 / 3)
    assert "5 cases without an outcome in the base: not compared" in str(found)


def test_a_base_that_was_chosen_because_it_failed_is_said(runs: CapturedRuns) -> None:
    evaluated(passing(but=20), "1")
    found = evaluated(passing(but=10), against="1")
    assert found.verdict == "inconclusive"
    assert "the base passed none of these cases, so that none could become worse" in str(found)


def test_cases_that_are_the_failures_of_the_base_give_no_verdict(runs: CapturedRuns) -> None:
    evaluated(passing(but=8), "1", trials=2)
    wrong = {8, 9}
    for number, tries in enumerate([1, 2]):  # two more cases fail in one trial of two

        def flaky(case: int, tries: int = tries) -> str:
            return "wrong" if tries == 1 and case in wrong else str(case)

        evaluated(flaky, "0", trials=number + 1, cases=CASES[8:])
    evaluated(passing(but=8), "0", trials=2, cases=CASES[:8])
    chosen = evaluated(passing(), "2", against="0", cases=CASES[:10])
    assert (chosen.verdict, chosen.comparison and chosen.comparison.tasks) == ("inconclusive", 10)
    assert "were chosen because they failed in the base" in str(chosen)
    assert evaluated(passing(), "2", against="0").verdict == "better"  # all cases
    evaluated(passing(but=10), "0 again", cases=CASES[:10])
    assert "passed none" in str(evaluated(passing(), "2", against="0 again", cases=CASES[:10]))


def test_a_scorer_that_raises_on_wrong_answers_gives_no_verdict(runs: CapturedRuns) -> None:
    def right(output: str, expected: str) -> bool:
        if output == "wrong":
            raise ValueError
        return True

    def by_answer(output: str, expected: str) -> bool:
        return output == expected

    by_answer.__name__ = "right"
    agent = {0: passing(but=10), 1: lambda number: "wrong" if 5 <= number < 15 else str(number)}
    evaluated(agent[0], "1", scores=[by_answer])
    found = evaluated(agent[1], scores=[right], against="1")
    assert found.verdict == "inconclusive"
    assert "10 trials without an outcome decide" in str(found)


def test_nothing_that_ran_is_said_and_trials_of_other_code_are_refused(runs: CapturedRuns, tmp_path: Path) -> None:
    def loaded(text: str) -> Callable[[Any], Any]:
        file = tmp_path / "program.py"
        file.write_text(text)
        made: dict[str, Any] = {}
        exec(compile(text, str(file), "exec"), made)
        agent: Callable[[Any], Any] = made["agent"]
        return agent

    evaluated(loaded("def agent(number):\n    return str(number)\n"))
    again = evaluated(loaded("# a comment\ndef agent(number):\n    return str(number)\n"))
    assert "nothing ran: all trials were there from before" in str(again)
    with pytest.raises(InvalidValue, match="2 has trials of other code"):
        evaluated(loaded("def agent(number):\n    return 'changed'\n"))


def test_each_trial_has_the_same_number_and_order_with_the_same_seed(runs: CapturedRuns) -> None:
    def order(seed: int, version: str) -> list[tuple[str, int]]:
        return [(each.case, each.number) for each in evaluated(passing(), version, trials=2, seed=seed).trials]

    assert order(1, "1") == order(1, "2") != order(2, "3")
    assert {number for _, number in order(1, "4")[:20]} == {1}


def test_a_trial_has_a_time_limit_and_the_other_ones_go_on(runs: CapturedRuns) -> None:
    async def waits(number: int) -> str:
        await asyncio.sleep(60 if number == 1 else 0)
        return str(number)

    def sleeps(number: int) -> str:
        time.sleep(60 if number == 1 else 0)
        return str(number)

    def computes(number: int) -> str:
        while number == 1:
            pass
        return str(number)

    for version, (agent, workers) in enumerate([(waits, 1), (waits, 2), (sleeps, 1), (computes, 1), (computes, 2)]):
        found = evaluated(agent, str(version), cases=CASES[:3], trial_timeout_s=0.05, workers=workers)
        assert {each.case: (each.passed, each.is_failed) for each in found.trials} == {
            "case 0": (True, False), "case 1": (False, True), "case 2": (True, False)
        }  # fmt: skip
        with agentspan.open(runs.storage) as db:
            (row,) = db.runs(agent="agent", version=str(version), task="case 1").runs
            assert "TrialTimeout" in (row.run.error or "")
    with pytest.raises(InvalidValue, match="trial_timeout_s"):
        evaluated(sleeps, trial_timeout_s=0)


def test_a_programs_own_timeout_is_no_time_limit_of_the_trial(runs: CapturedRuns) -> None:
    async def agent(number: int) -> str:
        raise TimeoutError("of a client")

    evaluated(agent, cases=CASES[:1], trial_timeout_s=60)
    with agentspan.open(runs.storage) as db:
        (row,) = db.runs(agent="agent").runs
        assert "of a client" in (row.run.error or "")


@pytest.mark.parametrize("outcome", [None, "status"])
def test_a_trial_that_was_killed_before_its_score_runs_again_and_its_cost_counts(
    runs: CapturedRuns, outcome: str | None
) -> None:
    def killed(output: str) -> bool:
        raise KeyboardInterrupt  # as a process that is killed here: the run has ended, and has no score

    killed.__name__ = "exact"
    for _ in range(3):
        found = evaluated(passing(), scores=[killed], cases=CASES[:1], budget_usd=0.008, show=1.0, outcome=outcome)
        assert found.stopped == "interrupted"
    found = evaluated(passing(), cases=CASES[:1], budget_usd=0.008, show=1.0, outcome=outcome)
    assert (found.stopped, found.trials) == ("budget", ())  # three trials at $0.0028
    found = evaluated(passing(), cases=CASES[:1], budget_usd=0.009, show=1.0, outcome=outcome)
    assert [each.was_there for each in found.trials] == [False]


def test_scores_from_0_to_1_without_a_rule_say_that_only_1_passes(runs: CapturedRuns) -> None:
    def close(output: str) -> float:
        return 0.9

    said = "20 trials scored between 0 and 1 and did not pass: only 1 passes without a rule such as"
    for _ in range(2):  # also where the trials were there
        assert said in str(evaluated(passing(), scores=[close]))
    assert "without a rule" not in str(evaluated(passing(), "3", scores=[close], outcome="close>=1"))


@pytest.mark.full
def test_the_commands_judge_drawn_outcomes_as_the_simulation_does(runs: CapturedRuns) -> None:
    for cell in (
        Cell("alike", 0.8, 1, 3, 0.0, 30),
        Cell("unlike", 0.8, 3, 3, 1.0, 30),
        Cell("alike", 0.5, 3, 1, 0.5, 30),
    ):
        dice, name = Random(3), f"{cell.in_base} and {cell.trials}"
        shares = probabilities(dice, cell)
        drawn_of = {
            "base": drawn(dice, shares, cell.in_base, cell.repeat),
            "head": drawn(dice, lowered(shares, 0.35), cell.trials, cell.repeat),
        }
        for version, trials in (("base", cell.in_base), ("head", cell.trials)):
            left = {case: [*own] for case, own in drawn_of[version].items()}

            def agent(case: str, left: dict[str, list[bool | None]] = left) -> bool:
                return bool(left[case].pop(0))

            found = evaluate(
                agent, [{"id": case, "input": case, "expected": True} for case in shares], [exact], name=name,
                version=version, trials=trials, against="base" if version == "head" else None,
            )  # fmt: skip
        simulated = decide(drawn_of["base"], drawn_of["head"], planned([*shares], cell.trials, 0), early=False)
        assert found.comparison is not None
        assert found.comparison.p == min(simulated.low, simulated.high)
        with agentspan.open(runs.storage) as db:
            diffed = db.drift(f"{name}@base", f"{name}@head", outcome="exact>=1")
        facts_of = facts(drawn_of["base"]), facts(drawn_of["head"])
        assert diffed.outcome is not None
        assert diffed.outcome.p == outcome_p(*facts_of, task_pairs(*facts_of))
        assert diffed.detectable == pytest.approx(detectable_drop(*facts_of))
