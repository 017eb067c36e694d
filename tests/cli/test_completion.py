"""`agentspan setup`: the script of a shell, and what it completes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import agentspan
from tests.cli.calling import NAMES, call


@pytest.fixture
def db(tmp_path: Path) -> Path:
    tracer = agentspan.Tracer(tmp_path / "runs.db", raise_errors=True)
    for agent in ("booking", "research"):
        with tracer.run(agent, version="2", task="t1"):
            pass
    tracer.shutdown()
    return tmp_path / "runs.db"


def offered(db: Path, *words: str) -> list[str]:
    """Return the words that bash would offer in place of the last word."""
    env = {**os.environ, "AGENTSPAN_DB": str(db), "_AGENTSPAN_COMPLETE": "bash_complete"}
    env |= {"COMP_WORDS": " ".join(["agentspan", *words]), "COMP_CWORD": str(len(words))}
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'agentspan'; from agentspan.cli import main; main()"],
        env=env, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_commands_options_and_their_values_are_completed(db: Path) -> None:
    assert offered(db, "") == NAMES
    assert offered(db, "sh") == ["show"]
    assert "--failed" in offered(db, "show", "--")
    assert offered(db, "export", "--format", "ma") == ["markdown"]
    assert offered(db, "completion", "z") == ["zsh"]
    assert offered(db, "setup", "z") == ["zsh"]
    assert offered(db, "--to") == ["--touched", "--tool"]
    assert offered(db, "--since", "7d", "--out") == ["--outcome"]
    assert offered(db, "run", "a") == ["allow"]
    assert offered(db, "run", "allow", "--us") == ["--usd"]
    assert offered(db, "show", "--f") == ["--full", "--failed", "--follow"]
    assert offered(db, "show", "--follow", "--o") == ["--one"]


def test_runs_and_agents_of_the_file_are_completed(db: Path, tmp_path: Path) -> None:
    with agentspan.open(db) as opened:
        ids = [run.id for run in opened.agent_instances.list(sorting="-id")]
    assert offered(db, "show", "") == [*ids, "-"]
    assert offered(db, "why", ids[1][:30]) == [id for id in ids if id.startswith(ids[1][:30])]
    assert offered(db, "runs", "--agent", "re") == ["research"]
    assert offered(tmp_path / "none.db", "show", "") == []
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "broken.db").write_bytes(b"no database" * 100)
    assert offered(tmp_path / "broken.db", "show", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_calls_the_program(db: Path, shell: str) -> None:
    result = call(db, "setup", shell)
    assert result.exit_code == 0
    assert f"_AGENTSPAN_COMPLETE={shell}_complete" in result.output
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=result.output, text=True, check=True, timeout=60)
