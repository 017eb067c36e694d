"""Calling a command as a person does, in this process, and as another process does."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from agentspan.cli import main


def call(db: Path, *args: str, columns: int = 80, stdin: str | None = None, **env: str) -> Result:
    """Call a command in this process."""
    return CliRunner().invoke(
        main, ["--db", str(db), *args], input=stdin, env={"COLUMNS": str(columns), **env}, catch_exceptions=False
    )


def lines(db: Path, *args: str, columns: int = 80) -> list[str]:
    """Return the lines of a command that succeeds."""
    result = call(db, *args, columns=columns)
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def process(db: Path, *args: str, **how: Any) -> "subprocess.Popen[str]":
    """Start a command in a process of its own."""
    command = [sys.executable, "-W", "error", "-m", "agentspan", "--db", str(db), *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", **how)
