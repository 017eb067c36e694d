"""The GitHub action around `agentspan check`: its steps that need no GitHub, as they stand."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import agentspan
from tests.checkout import ROOT


@pytest.mark.parametrize(("budget", "config", "code"), [(2, "", "0"), (0, "check.toml", "1")])
def test_the_check_writes_its_code_and_a_summary(budget: int, config: str, code: str, tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml", reason="needs PyYAML")
    action = yaml.safe_load((ROOT / ".github" / "actions" / "check" / "action.yml").read_text())
    step = action["runs"]["steps"][0]
    assert {*step["env"]} == {"AGENTSPAN", "CONFIG", "DB", "FILTER"}
    tracer = agentspan.Tracer(tmp_path / "runs.db", raise_errors=True)
    with tracer.run("shop"), tracer.span("tool", {"name": "look"}):
        pass
    tracer.shutdown()
    table = "budget" if config else "tool.agentspan.check.budget"
    (tmp_path / (config or "pyproject.toml")).write_text(f"[{table}]\nsteps = {budget}\n")
    command = tmp_path / "agentspan"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m agentspan "$@"\n')
    command.chmod(0o700)
    files = {name: str(tmp_path / name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    given = {"AGENTSPAN": str(command), "DB": "runs.db", "FILTER": "agent=shop", "CONFIG": config, **files}
    given["RUNNER_TEMP"] = str(tmp_path)
    environment = {**os.environ, **given, "PYTHONPATH": str(ROOT)}
    bash = ["bash", "-e", "-o", "pipefail", "-c", step["run"]]
    done = subprocess.run(bash, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, Path(files["GITHUB_OUTPUT"]).read_text()) == (0, f"code={code}\n"), done.stderr
    assert "budget steps" in Path(files["GITHUB_STEP_SUMMARY"]).read_text()
    assert (tmp_path / "agentspan.xml").exists()
