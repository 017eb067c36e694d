"""`agentspan evaluate`: exit codes, what it prints, JUnit, and the trials that are missing."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.cli.calling import call

PROGRAM = """
import agentspan

def right(number):
    return str(number)

def wrong(number):
    with agentspan.span("tool", name="lookup"):
        if number < 8:
            raise LookupError("no such booking")
    return str(number)

def loud(number):
    print("I look it up")

def nice(output):
    return "nice", "text"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "evaluated_program.py").write_text(PROGRAM)
    rows = [{"id": f"case {number}", "input": number, "expected": str(number)} for number in range(12)]
    (tmp_path / "cases.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "exits.py").write_text("raise SystemExit(0)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_exit_codes_and_output_follow_the_verdict(folder: Path) -> None:
    db = folder / "runs.db"

    def evaluated(function: str, *more: str) -> tuple[int, str]:
        words = ("evaluate", f"evaluated_program:{function}", "--cases", "cases.jsonl", "--name", "agent", *more)
        done = call(db, *words, columns=120)
        return done.exit_code, done.output

    code, text = evaluated("right", "--score", "exact", "--score", "evaluated_program:nice", "--version", "1")
    assert code == 0
    assert "agent 1: 100% of 12 trials passed" in text
    assert "nice raised in 12 trials" in text
    code, text = evaluated("wrong", "--score", "exact", "--version", "2", "--against", "1", "--junit", "report.xml")
    assert code == 1
    assert "✗ agent 2: worse than 1: −67 points" in text
    assert "failed: Tool lookup: LookupError: no such booking (8 runs)" in text
    assert "why --agent agent --version 2 --outcome 'exact>=1'" in text
    suite = ElementTree.parse(folder / "report.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("13", "1")
    code, text = evaluated("wrong", "--score", "exact", "--version", "2", "--against", "1", "--json")
    assert code == 1
    assert [each["was_there"] for each in json.loads(text)["trials"]] == [True] * 12
    Path("some.jsonl").write_text("".join((folder / "cases.jsonl").read_text().splitlines(keepends=True)[3:]))
    code, text = evaluated("wrong", "--score", "exact", "--version", "2", "--against", "1", "--cases", "some.jsonl")
    assert " is worse than " not in text  # the verdict is said once
    assert "other measures: " in text
    assert (
        "q of passed is 0.062, but the verdict is worse: q looks in both directions, the verdict in one (p 0.031)"
    ) in " ".join(text.split())
    table = call(db, "versions", "agent", "--cases", columns=60).stdout.splitlines()
    assert "1 → 2: 8 cases worse, 0 better, 4 equal (4 always passed)" in table
    assert [line.split() for line in table if line.startswith("case")][:2] == [
        ["case", "1", "2"], ["case", "0", "1/1", "0/1", "worse"]
    ]  # fmt: skip
    assert json.loads(call(db, "versions", "agent", "--cases", "--json").stdout)["cases"]["worse"] == 8
    assert call(db, "versions", "agent", "--cases", "--by", "model").exit_code == 2
    shown = call(db, "diff", "agent@1", "agent@2", "--cases", "--outcome", "exact>=1").stdout
    assert "agent@1 → agent@2: 8 cases worse, 0 better, 4 equal (4 always passed)" in shown
    assert call(db, "diff", "-", "-", "--cases").exit_code == 2
    lines = call(db, "show", "-", columns=120).stdout.splitlines()
    assert (lines[2], lines[3]) == ("    trial 1 of case case 1 in evaluation agent 2", "    trials: 1 ✗ this run")
    base = json.loads(call(db, "runs", "--version", "1", "--task", "case 1", "--json").stdout)["runs"][0]["id"]
    assert lines[4].startswith("    1: 1 ✓ ")
    case = json.loads(call(db, "show", "-", "--json").stdout)["run"]["case"]
    assert [each["run_id"] for each in case["base_runs"]] == [base]
    listed = call(db, "runs", "--purpose", "eval", columns=160).stdout
    assert "case 11 · trial 1: 11" in listed
    assert listed.splitlines()[-1].startswith("24 of 24 runs")
    assert call(db, "runs", "--purpose", "live").stdout.startswith("no run matches")
    code, text = evaluated("right", "--score", "exact", "--version", "3", "--against", "agent@1", "--markdown")
    assert code == 3
    assert "**agentspan evaluate: ? agent 3: inconclusive against agent@1: +0 points" in text


def test_what_a_program_prints_is_not_in_the_answer(folder: Path) -> None:
    done = call(folder / "runs.db", "evaluate", "evaluated_program:loud", "--cases", "cases.jsonl", "--json")
    assert json.loads(done.stdout)["planned"] == 12
    assert done.stderr.count("I look it up") == 12


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("evaluated_program", "--cases", "cases.jsonl"), "is not MODULE:FUNCTION, such as app:agent"),
        (("evaluated_program:nothing", "--cases", "cases.jsonl"), "evaluated_program has no nothing"),
        (("no_such_program:agent", "--cases", "cases.jsonl"), "no_such_program cannot be imported"),
        (("exits:agent", "--cases", "cases.jsonl"), "exits cannot be imported: SystemExit: 0"),
        (("evaluated_program:right", "--cases", "no.jsonl"), "no.jsonl cannot be read"),
        (
            ("evaluated_program:right", "--cases", "cases.jsonl", "--junit", "no/report.xml"),
            "12 of 12 trials; passed by status Error: cannot write no/report.xml",
        ),
        (("evaluated_program:right", "--cases", "cases.jsonl", "--against", "a@1"), "no agent is named"),
    ],
)
def test_what_cannot_be_evaluated_exits_with_2(words: tuple[str, ...], message: str, folder: Path) -> None:
    done = call(folder / "runs.db", "evaluate", *words, columns=120)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
