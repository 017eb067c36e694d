"""A verdict on outcomes is withheld, and says why, where missing outcomes or the choice of the cases decide it."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.analysis.doubts import chosen_by
from agentspan.model.changes import Purpose
from tests.cli.calling import call

RULE = ("--outcome", "right>=1")


def record(path: Path, version: str, outcomes: Iterable[bool | None], *, purpose: Purpose = "live") -> None:
    """Record a run for each outcome; None is a run that completes without the score."""
    with agentspan.open(path) as db:
        for number, passed in enumerate(outcomes):
            about: Any = {"agent_version": {"external_identifier": version}, "task": f"case {number}"}
            metadata = {"trial": 1} if purpose == "eval" else {}
            run = db.agent_instances.register("bot", purpose=purpose, metadata=metadata, **about)
            db.agent_instances.start(run.id)
            db.agent_instances.finish(run.id, "complete")
            if passed is not None:
                db.scores.record(run.id, "right", float(passed))


def texts(path: Path, config: str = "[baseline]\nfilter = 'bot@1'\ndrop = 0.5\n") -> dict[str, str]:
    """Return what each command says of version 2 beside version 1."""
    (path.parent / "check.toml").write_text(f"outcome = 'right>=1'\n{config}")
    checked = call(path, "check", "bot@2", "--config", str(path.parent / "check.toml"), "--json").output
    diff = json.loads(call(path, "diff", "bot@1", "bot@2", *RULE, "--json").output)
    listed = json.loads(call(path, "versions", "bot", *RULE, "--json").output)["comparison"]
    finding = json.loads(checked)["findings"][-1]
    return {
        "diff": f"{diff['verdict']}: {diff['text']}",
        "versions": f"{listed['verdict']}: {listed['text']}",
        "check": f"{finding['verdict']}: {finding['text']}",
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.mark.parametrize("purpose", ["live", "eval"])
def test_outcomes_that_are_missing_decide_no_verdict_of_any_command(path: Path, purpose: Purpose) -> None:
    record(path, "1", [number < 20 for number in range(30)], purpose=purpose)
    record(path, "2", [True if number < 20 else None for number in range(30)], purpose=purpose)  # the scorer raised
    for command, said in texts(path).items():
        assert said.startswith("inconclusive: "), command
        assert "10 runs without an outcome decide: if all had passed, or failed, it would be another" in said, command
    assert "10 runs without an outcome decide" in call(path, "diff", "bot@1", "bot@2", *RULE).output.replace(
        "\n   ", ""
    )


def test_a_few_missing_outcomes_leave_a_verdict_that_holds_either_way(path: Path) -> None:
    record(path, "1", [True] * 29 + [None])
    record(path, "2", [False] * 15 + [True] * 14 + [None])
    found = texts(path)
    assert [said.partition(":")[0] for said in found.values()] == ["worse", "worse", "fail"]


def test_runs_that_nobody_judged_are_not_missing_where_most_were_not(path: Path) -> None:
    record(path, "1", [True] * 12 + [None] * 20)
    record(path, "2", [False] * 12 + [None] * 20)
    assert [said.partition(":")[0] for said in texts(path).values()] == ["worse", "worse", "fail"]


def test_cases_that_were_chosen_because_they_failed_give_no_verdict_of_any_command(path: Path) -> None:
    record(path, "1", [number >= 10 for number in range(40)])
    record(path, "2", [True] * 10)
    for command, said in texts(path).items():
        assert said.startswith("inconclusive: "), command
        assert "these cases were chosen because they failed in the base" in said, command


def test_a_base_that_passed_nothing_gives_no_verdict_of_any_command(path: Path) -> None:
    record(path, "1", [False] * 12)
    record(path, "2", [True] * 12)
    for command, said in texts(path).items():
        assert said.startswith("inconclusive: "), command
        assert "the base passed none of these cases, so that none could become worse" in said, command


def test_a_part_of_the_cases_that_was_drawn_by_chance_is_not_chosen() -> None:
    failed, passed = [[False, True]], [[True, True]]
    assert chosen_by(failed * 8, passed * 30) == "failed"
    assert chosen_by(failed * 8 + passed * 8, passed * 30) == "failed"
    assert chosen_by(passed * 8, failed * 30) == "passed"
    assert chosen_by(failed * 8 + passed * 32, passed * 4) is None
    assert chosen_by(failed * 8 + passed * 32, failed * 2 + passed * 8) is None
    assert chosen_by(failed * 8, []) is None
