"""`run allow` gives a run more of its budget; `show` and `runs` print it; `record --budget` limits a program."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import agentspan
from tests.cli.calling import call


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Path]:
    """A file with an open run that has a budget, and with a run inside of it."""
    tracer = agentspan.Tracer(tmp_path / "runs.db", raise_errors=True)
    budget = agentspan.Budget(usd=5, steps=4, repeats=9, on_spent="pause")
    with tracer.run("a", budget=budget):
        with tracer.span("llm", {"model": "gpt-4.1"}) as span:
            span.set_result({"input_tokens": 10, "output_tokens": 1, "cost_usd": 1.5})
        with tracer.run("inner"), tracer.span("llm", {"model": "nobody/knows-it"}) as span:
            span.set_result({"input_tokens": 100_000, "output_tokens": 0})
        tracer.flush()
        yield tmp_path / "runs.db"
    tracer.shutdown()


def outer(db: Path) -> str:
    with agentspan.open(db, read_only=True) as opened:
        return opened.agent_instances.list()[0].id


def test_show_and_runs_print_what_was_used_and_who_allowed_more(db: Path) -> None:
    run = outer(db)
    use = "budget $2.00 of $5.00 ($0.50 estimated) · 2 of 4 steps · at most 9 repeats"
    assert use in " ".join(call(db, "show", run).output.split())
    said = call(db, "allow", run, "--usd", "+2", "--steps", "1", "--as", "kim").output
    assert said == f"run {run} is allowed usd +2, steps +1\n"
    text = " ".join(call(db, "show", run).output.split())
    assert "budget $2.00 of $7.00 ($0.50 estimated) · 2 of 5 steps · at most 9 repeats" in text
    assert "kim allowed usd +2, steps +1" in text
    assert "part" not in text
    assert "  budget $2.00 of $7.00" in call(db, "runs").output
    listed = json.loads(call(db, "runs", "--json").output)["runs"]
    assert [each["budget"] and each["budget"]["limits"]["usd"]["left"] for each in listed] == [None, 5.0]
    shown = json.loads(call(db, "show", run, "--json").output)["run"]["budget"]
    assert (shown["on_spent"], shown["waits"], [each["by"] for each in shown["allowed"]]) == ("pause", False, ["kim"])


def test_allow_without_amounts_gives_as_much_again(db: Path) -> None:
    document = json.loads(call(db, "allow", outer(db), "--json").output)
    assert document["allowed"] == "usd +5, steps +4, repeats +9"
    assert document["budget"]["limits"]["steps"]["most"] == 8


def test_a_run_is_paused_until_more_of_the_spent_limit_is_allowed(db: Path) -> None:
    run = outer(db)
    with agentspan.open(db) as opened:
        opened.scores.record(run, "budget", label="spent", explanation="steps: 4 of 4")
    for limit, is_paused in (("--usd", True), ("--steps", False)):
        call(db, "allow", run, limit, "1")
        assert ("paused" in call(db, "show", run).output) is is_paused


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--minutes", "5"], "the budget has no such limit; it has usd, steps, repeats"),
        (["--usd", "-5"], "must be a number above 0"),
        (["--usd", "nan"], "must be a number above 0"),
        (["--steps", "1.5"], "must be a whole number above 0"),
    ],
)
def test_what_cannot_be_allowed_is_refused(db: Path, arguments: list[str], says: str) -> None:
    result = call(db, "allow", outer(db), *arguments)
    assert result.exit_code == (2 if says.startswith("must be") else 1)
    assert says in result.output


def test_a_run_inside_of_another_or_without_a_budget_or_that_has_ended_is_refused(db: Path, tmp_path: Path) -> None:
    inner = json.loads(call(db, "runs", "--json").output)["runs"][0]["id"]
    assert "is complete: it takes no further step" in call(db, "allow", inner).output
    tracer = agentspan.Tracer(tmp_path / "other.db")
    with tracer.run("b"):
        tracer.flush()
        assert "the run has no budget" in call(tmp_path / "other.db", "allow", "-").output


def test_record_limits_each_run_of_a_program(tmp_path: Path) -> None:
    program = tmp_path / "agent.py"
    program.write_text(
        "import agentspan\n\n@agentspan.span\ndef f(): pass\nwith agentspan.run('a'):\n    while True: f()\n"
    )
    db = tmp_path / "runs.db"
    limits = ("--budget", "steps=3", "--budget", "usd=1")
    command = [sys.executable, "-m", "agentspan", "record", "--db", str(db), *limits, sys.executable, str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "BudgetExceeded" in done.stderr
    assert "of $1.00 · 3 of 3 steps" in " ".join(call(db, "show", "-").output.split())
    for wrong in ("dollars=3", "usd=-1", "usd", "usd=1,usd=2"):
        result = call(db, "record", "--budget", wrong, "true")
        assert (result.exit_code, "--budget" in result.output) == (2, True)
