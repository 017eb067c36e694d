"""Calling a command as a person does, in this process, and as another process does."""

import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner, Result

from agentspan.cli import main
from agentspan.cli.app import COMMANDS, HELPS

NAMES = [name for section in COMMANDS.values() for name in section]
"""The names of all commands, as help lists them."""
EVERY = [*HELPS]
"""The same, and the ways that have options of their own, by the names that they had as commands."""


def work_of(command: click.Command) -> Callable[..., None]:
    """Return the function of a command that gets an opened Database and the values of its options."""
    assert command.callback is not None
    return inspect.unwrap(command.callback)


def named(name: str) -> click.Command:
    """Return the command of a name, as `main` finds it."""
    found = main.get_command(click.Context(main), name)
    assert found is not None
    return found


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
