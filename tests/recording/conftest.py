"""Real programs that record, none of which outlives its test."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.checkout import ROOT

TIMEOUT_S = 60.0

Program = Callable[..., str]
"""Runs `python ARGS…` to its end, which must be a good one and without a word on stderr; returns what it says."""


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    """Run Python with some arguments, in the checkout."""
    started: list[subprocess.Popen[str]] = []
    monkeypatch.delenv("AGENTSPAN_DB")  # what a program does that was told of no file

    def run(*args: object, stdin: str | None = None, cwd: Path = ROOT) -> str:
        process = subprocess.Popen(
            [sys.executable, *map(str, args)],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # a group of its own, to be ended with all its children
        )
        started.append(process)
        out, err = process.communicate(stdin, timeout=TIMEOUT_S)
        assert (process.returncode, err) == (0, ""), out
        return out

    yield run
    for process in started:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.communicate()


@pytest.fixture
def recorded(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Run one of `tests.recording.programs` on a file, and return the path of the file."""
    monkeypatch.setenv("AGENTSPAN_DB", str(tmp_path / "default.db"))

    def run(name: str, *args: object) -> Path:
        path = tmp_path / "runs.db"
        program("-m", "tests.recording.programs", name, path, *args)
        return path

    return run


@pytest.fixture
def without_journals(tmp_path: Path) -> Iterator[Path]:
    """A file system on which there can be no journal."""
    folder = tmp_path / "other"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "ramfs", "ramfs", folder], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs a user who may mount file systems")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)
