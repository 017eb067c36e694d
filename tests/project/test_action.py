"""The GitHub actions around `agentspan check` and `evaluate`: their steps that need no GitHub, as they stand."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import agentspan
from tests.checkout import ROOT


def _first_step(name: str, given: dict[str, str], folder: Path) -> tuple[str, str]:
    """Run the first step of an action; return what it writes as output and as summary."""
    yaml = pytest.importorskip("yaml", reason="needs PyYAML")
    action = yaml.safe_load((ROOT / ".github" / "actions" / name / "action.yml").read_text())
    step = action["runs"]["steps"][0]
    assert {*step["env"]} == {"AGENTSPAN", *given}
    command = folder / "agentspan"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m agentspan "$@"\n')
    command.chmod(0o700)
    files = {name: str(folder / name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    environment = {**os.environ, **given, **files, "AGENTSPAN": str(command), "RUNNER_TEMP": str(folder)}
    bash = ["bash", "-e", "-o", "pipefail", "-c", step["run"]]
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(bash, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    output, summary = (Path(path).read_text() for path in files.values())
    return output, summary


@pytest.mark.parametrize(("budget", "config", "code"), [(2, "", "0"), (0, "check.toml", "1")])
def test_the_check_writes_its_code_and_a_summary(budget: int, config: str, code: str, tmp_path: Path) -> None:
    tracer = agentspan.Tracer(tmp_path / "runs.db", raise_errors=True)
    with tracer.run("shop"), tracer.span("tool", {"name": "look"}):
        pass
    tracer.shutdown()
    table = "budget" if config else "tool.agentspan.check.budget"
    (tmp_path / (config or "pyproject.toml")).write_text(f"[{table}]\nsteps = {budget}\n")
    output, summary = _first_step("check", {"DB": "runs.db", "FILTER": "agent=shop", "CONFIG": config}, tmp_path)
    assert output == f"code={code}\n"
    assert "budget steps" in summary
    assert (tmp_path / "agentspan.xml").exists()


@pytest.mark.parametrize(("answer", "code"), [("right", "0"), ("wrong", "1")])
def test_the_evaluation_writes_its_code_and_a_summary(answer: str, code: str, tmp_path: Path) -> None:
    tracer = agentspan.Tracer(tmp_path / "runs.db", raise_errors=True)
    for number in range(30):
        with tracer.run("shop", version="1", task=f"case {number}") as run:
            pass
        run.score("exact", number % 5 > 0)
    tracer.shutdown()
    (tmp_path / "app.py").write_text(f"def agent(request):\n    return {answer!r}\n")
    cases = [f'{{"id": "case {number}", "input": {number}, "expected": "right"}}\n' for number in range(30)]
    (tmp_path / "my cases.jsonl").write_text("".join(cases))
    options = "--against=1\n--name=shop\n\n--version=2 of today\n--score=exact\n"
    given = {"DB": "runs.db", "PROGRAM": "app:agent", "CASES": "my cases.jsonl", "OPTIONS": options}
    output, summary = _first_step("evaluate", given, tmp_path)
    assert output == f"code={code}\n", summary
    assert summary.startswith("**agentspan evaluate: ")
    assert "shop 2 of today: " in summary
    assert (tmp_path / "agentspan-evaluate.xml").exists()
