"""The tasks: each is listed, runs its commands in order, and names existing tests."""

import subprocess
import sys
from pathlib import Path

import pytest

import tasks
from tests.checkout import ROOT


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "tasks", *arguments], cwd=ROOT, capture_output=True, encoding="utf-8", timeout=60
    )


def test_every_task_is_listed_and_described() -> None:
    done = run()
    assert done.returncode == 2
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for name in (*tasks.TASKS, "all"):
        assert f"  {name} " in done.stderr
        assert f"`python -m tasks {name}`" in text
    assert run("tests", "slow").stderr.endswith("unknown task: slow\n")


def test_the_first_command_that_fails_ends_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = tmp_path / "made"
    first = [sys.executable, "-c", "import sys; open(sys.argv[1], 'w'); sys.exit(int(sys.argv[2]))", str(made)]
    never = [sys.executable, "-c", "import sys; open(sys.argv[1], 'w')", str(tmp_path / "never")]
    monkeypatch.setitem(tasks.TASKS, "one", ("", [first]))
    monkeypatch.setitem(tasks.TASKS, "two", ("", [never]))
    assert tasks.main(["one", "--", "3"]) == 3
    assert made.exists()
    monkeypatch.setitem(tasks.TASKS, "one", ("", [[*first, "7"]]))
    assert tasks.main(["one", "two"]) == 7
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize("named", [["lint"], ["js"]])
@pytest.mark.parametrize("in_ci", [False, True])
def test_javascript_is_skipped_without_node_only_on_somebodys_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], named: list[str], in_ci: bool
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(tasks.TASKS, "lint", ("", [tasks.JAVASCRIPT]))
    monkeypatch.delenv("CI", raising=False)
    if in_ci:
        monkeypatch.setenv("CI", "1")
    assert tasks.main(named) == (1 if in_ci or named == ["js"] else 0)
    assert "npx is missing" in capsys.readouterr().err
