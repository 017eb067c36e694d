"""Tests of cases in a pytest of its own: their runs, and the one verdict over all trials."""

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import agentspan
from agentspan.errors import InvalidValue
from agentspan.testing.cases import settings_of
from tests.testing.pytests import finished_pytest

KEPT = Path(".agentspan", "tests.db")
CASES = "\n".join(
    json.dumps({"id": f"double {number}", "input": number, "expected": 2 * number}) for number in range(8)
)
AGENT = """
import agentspan

@agentspan.span
def look(number):
    return number

def double(number, version="1.1", wrong=()):
    with agentspan.run("doubler", version=version, metadata={"own": 1}):
        with agentspan.run("helper"):
            return -1 if look(number) in wrong else 2 * number
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with cases, and two trials of each by version 1.0, which passed."""
    (tmp_path / "cases.jsonl").write_text(CASES)
    (tmp_path / KEPT).parent.mkdir()
    tracer = agentspan.Tracer(tmp_path / KEPT, raise_errors=True)
    for number in [*range(8), *range(8)]:
        with tracer.run("doubler", version="1.0", task=f"double {number}") as run:
            pass
        run.score("passed", True)
        with tracer.run("poor", version="1.0", task=f"double {number}") as run:
            pass
        run.score("passed", number == 0)
    tracer.shutdown()
    return tmp_path


def test_a_verdict_over_all_trials_decides_and_not_a_trial_that_failed(folder: Path) -> None:
    test = """
import agentspan, pytest
from agent import double, look

@pytest.mark.agentspan_cases("cases.jsonl", trials=2, against="1.0")
def test_double(case):
    assert double(case.input, wrong=[3]) == case.expected

@pytest.mark.agentspan_cases([{"id": "a", "input": 1}, {"id": "b", "input": 2}, {"id": "c", "input": 3}],
                             at_least=0.5, name="steps", version="7")
def test_steps(case):
    if case.input == 3:
        pytest.skip("no trial")
    case.score("seen", look(case.input))
    assert look(case.input) == 1

@pytest.mark.agentspan_cases([{"input": "x"}], budget_usd=1)
def test_records_nothing(case):
    pass

@pytest.mark.agentspan_cases("cases.jsonl", trials=2, against="1.0", stop="early", name="poor", version="2")
def test_better(case):
    pass

@pytest.mark.agentspan_cases([{"input": 1}, {"input": 2}, {"input": 3}], budget_usd=0.0005, name="dear")
def test_dear(case):
    with agentspan.span("llm", model="gpt-4.1-mini") as call:
        call.set_result({"text": "", "usage": {"input_tokens": 900, "output_tokens": 20}})
"""
    done = finished_pytest(folder, "-rs", agent=AGENT, test_it=test)
    said = done.stdout
    assert done.returncode == 0, said + done.stderr
    assert "26 passed, 10 skipped, 3 not passed" in said
    assert "? test_it.py::test_double: doubler 1.1: inconclusive against 1.0: −12 points" in said
    assert "worse in 1 case: double 3 (2/2 → 0/2)" in said
    assert "not passed: test_it.py::test_double[double 3-2]: AssertionError: assert -1 == 6 · run " in said
    assert "✓ test_it.py::test_steps: steps 7: 50% of 2 trials passed" in said
    assert "✓ test_it.py::test_better: poor 2: better than 1.0: +88 points" in said
    assert "8 of 16 trials; passed by passed>=1; stopped early: of 8 pairs of trials, the first" in said
    assert "100% of 2 trials passed (95 % interval 16% … 100%); no base to compare with; the budget of $0.0005" in said
    assert re.search(r"SKIPPED \[8\] test_it.py:\d+: not run: the verdict is clear", said)
    assert "not run: the budget is spent" in said
    assert "· test_it.py::test_records_nothing: test_records_nothing: 100% of 1 trial passed" in said
    assert "  1 trial without a known cost, for the budget $0: record models and usage in the run" in said
    with agentspan.open(folder / KEPT) as db:
        assert db.runs(agent="poor", version="2").total == 8
        assert {each.run.purpose for each in db.runs(agent="helper").runs} == {"live"}  # only the outer run is a trial
        (steps,) = db.runs(agent="steps", version="7", task="a").runs
        assert (steps.run.purpose, steps.spans) == ("eval", 2)
        own = db.runs(agent="doubler", version="1.1", task="double 3").runs[0].run
        test_id = "test_it.py::test_double[double 3-2]"
        facts = {"own": 1, "input": 3, "expected": 6, "trial": 2, "test": test_id}
        assert own.purpose == "eval"
        assert facts.items() <= json.loads(own.metadata or "").items()
    agentspan.configure(folder / KEPT)
    evaluated = agentspan.evaluate(
        pytest.fail, folder / "cases.jsonl", name="doubler", version="1.1", trials=2, outcome="passed>=1"
    )
    assert [each.was_there for each in evaluated.trials] == [True] * 16
    assert evaluated.rate == 14 / 16


@pytest.mark.full
def test_a_worse_version_and_a_missing_base_fail_the_session_also_with_xdist(folder: Path) -> None:
    test = """
import pytest
from agent import double

@pytest.mark.agentspan_cases("cases.jsonl", trials=20, against="1.0", stop="early")
def test_worse(case):
    assert double(case.input, "1.2", wrong=range(7)) == case.expected

@pytest.mark.agentspan_cases("cases.jsonl", against="0.9")
def test_no_base(case):
    double(case.input)

@pytest.mark.agentspan_cases("cases.jsonl", at_least=0.8)
def test_rarely(case):
    assert double(case.input, "1.3", wrong=range(2)) == case.expected
"""
    done = finished_pytest(folder, "-p", "xdist.plugin", "-n", "2", agent=AGENT, test_it=test)
    said = done.stdout
    assert done.returncode == 1, said + done.stderr
    assert " skipped, " in said
    assert "✗ test_it.py::test_worse: doubler 1.2: worse than 1.0: −88 points" in said  # of 8 pairs
    assert "of 160 trials; passed by passed>=1; stopped early: of 8 pairs of trials, the first" in said
    assert "✗ test_it.py::test_no_base: not compared: against: 0.9 has no run" in said
    assert "✗ test_it.py::test_rarely: doubler 1.3: 75% of 8 trials passed" in said
    assert said.count("agentspan show") == 6  # in the failures, in that of the session, and in the summary


@pytest.mark.parametrize(
    ("args", "named", "message"),
    [
        ((), {}, "a file of cases, or a list"),
        (("f.jsonl",), {"trails": 3}, "no argument 'trails'; there are trials, against"),
        (("f.jsonl",), {"trials": 0}, "whole number from 1 on"),
        (("f.jsonl",), {"at_least": 80}, "share above 0, at most 1"),
        (("f.jsonl",), {"at_least": 0.8, "against": "1.0"}, "the comparison decides, or the share"),
        (("f.jsonl",), {"outcome": "exact>"}, "exact>"),
        (("f.jsonl",), {"stop": "early"}, "needs a base"),
        (("f.jsonl",), {"budget_usd": 0}, "above 0"),
    ],
)
def test_a_wrong_argument_of_the_marker_is_named(args: tuple[Any, ...], named: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        settings_of(pytest.Mark("agentspan_cases", args, named, _ispytest=True))


def test_a_worse_session_has_a_failure_in_junit_xml(folder: Path) -> None:
    test = """
import pytest, time
from agent import double

@pytest.mark.agentspan_cases("cases.jsonl", trials=2, against="1.0")
def test_worse(case):
    assert double(case.input, "1.2", wrong=range(8)) == case.expected

@pytest.mark.agentspan_cases("cases.jsonl", trials=2, against="1.0")
def test_alike(case):
    assert double(case.input, "1.3") == case.expected

@pytest.mark.agentspan_cases([{"input": 0}, {"input": 60}], trial_timeout_s=0.05, at_least=0.5)
def test_slow(case):
    time.sleep(case.input)
"""
    done = finished_pytest(folder, "--junitxml=report.xml", agent=AGENT, test_it=test)
    assert done.returncode == 1, done.stdout + done.stderr
    root = ElementTree.parse(folder / "report.xml").getroot()
    failed = [each for each in root.iter("testcase") if each.find("failure") is not None]
    assert [each.get("name") for each in failed] == ["verdict"]
    assert "worse than 1.0" in ElementTree.tostring(failed[0], encoding="unicode")
    assert root[0].get("failures") == "1"
    assert "TrialTimeout" in done.stdout
