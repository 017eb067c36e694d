"""`agentspan` without a command: the answer about the last day, or the first steps."""

from pathlib import Path

import pytest

import agentspan
from tests.cli.calling import call, lines


@pytest.fixture
def db(tmp_path: Path) -> Path:
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    for n in range(6):
        name = f"tool_{n}_{'x' * 100}"
        with pytest.raises(KeyError), tracer.run("shop", version=str(n)), tracer.span("tool", {"name": name}):
            raise KeyError("rows")
    with tracer.run("shop") as run:
        run.score("reward", 0)
    with tracer.run("shop") as run:
        run.score("reward", 1)
    tracer.shutdown()
    return path


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_answer_has_at_most_twelve_lines_that_fit(db: Path, columns: int) -> None:
    shown = lines(db, columns=columns)
    assert len(shown) <= 12
    commands = [line for line in shown if line.startswith("  agentspan")]
    assert all(len(line) <= columns for line in shown if line not in commands)
    assert commands[0].startswith("  agentspan why --db ")
    assert " ".join(shown[:2]).startswith("8 runs in the last day: 6 failed, 1 missed reward ≥ 1.")


@pytest.mark.parametrize("is_made", [False, True])
def test_without_runs_there_are_three_lines_that_lead_to_one(tmp_path: Path, is_made: bool) -> None:
    path = tmp_path / "none.db"
    if is_made:
        with agentspan.open(path) as db:
            db.agents.create("a")
    shown = lines(path, columns=200)
    assert len(shown) == 3
    assert [line.split()[:2] for line in shown] == [
        ["agentspan", "demo"],
        ["agentspan", "import"],
        ["import", "agentspan;"],
    ]
    assert path.exists() is is_made


def test_an_outcome_of_the_project_is_used(db: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.agentspan]\noutcome = 'reward>=2'\n")
    monkeypatch.chdir(tmp_path)
    assert lines(db, columns=200)[0] == "8 runs in the last day: 6 failed, 2 missed reward ≥ 2."


def test_a_cause_of_one_version_says_so(tmp_path: Path) -> None:
    tracer = agentspan.Tracer(tmp_path / "runs.db", raise_errors=True)
    for version in "1" * 12 + "2" * 8:
        with tracer.run("shop", version=version) as run:
            if version == "2":
                with pytest.raises(KeyError), tracer.span("tool", {"name": "fetch"}):
                    raise KeyError("rows")
                run.finish("failed")
    tracer.shutdown()
    assert lines(tmp_path / "runs.db")[1] == "     8 × Tool fetch: KeyError: <text> · only in 2"


def test_an_unknown_command_is_still_an_error(db: Path) -> None:
    assert call(db, "overvw").exit_code == 2


def test_runs_show_the_verdict_and_the_cause(db: Path) -> None:
    shown = lines(db, "runs", "-n", "3", columns=60)
    assert "✓ passed" in shown[1]
    assert "≠ missed" in shown[2]
    assert shown[3] == "  reward 0 < 1"
    assert "✗ failed" in shown[4]
    assert shown[5].startswith("  Tool tool_5_xxx")
