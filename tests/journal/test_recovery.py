"""Large journals and many who bring them in: each record once, and a person sees how far it is."""

import os
import pty
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import agentspan
from agentspan.cli import app
from agentspan.journal.journal_folder import folder_of
from tests.checkout import ROOT
from tests.journal.recorded import leave, statuses
from tests.journal.segment_files import segments_of


@pytest.mark.full
def test_of_several_processes_that_come_at_once_each_record_is_brought_in_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "runs.db"
    leave(path, 1000, monkeypatch, 40 * 1024)
    assert len(segments_of(path)) >= 15
    code = "import agentspan, sys; sys.stdin.readline(); agentspan.open(sys.argv[1]).close()"
    command = [sys.executable, "-c", code, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    workers = [subprocess.Popen(command, **pipes) for _ in range(4)]  # type: ignore[call-overload]
    for worker in workers:
        worker.stdin.write("\n")
        worker.stdin.flush()
    for worker in workers:
        assert worker.communicate(timeout=60)[1] == ""
        assert worker.returncode == 0
    assert segments_of(path) == []
    assert statuses(path) == ["complete"] * 1000


@pytest.mark.full
def test_a_command_shows_a_bar_on_a_terminal_while_it_reads_a_large_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "runs.db"
    leave(path, app.LARGE // 500, monkeypatch, 1024 * 1024)
    monkeypatch.setenv("COLUMNS", "80")
    mine, theirs = pty.openpty()
    command = [sys.executable, "-m", "agentspan", "--db", str(path), "doctor", "--dry-run"]
    process = subprocess.Popen(command, stderr=theirs, stdout=subprocess.PIPE, cwd=ROOT)
    os.close(theirs)
    said = b""
    try:
        while chunk := os.read(mine, 4096):
            said += chunk
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(mine)
    process.communicate()
    assert process.returncode == 0
    assert b"100%" in said
    assert b"transitions of programs that were killed are in the file now" in said
    assert segments_of(path) == []


@pytest.mark.full
@pytest.mark.parametrize("before", ["", "one('early')", "[one('x' * 900) for _ in range(3000)]; agentspan.flush()"])
def test_a_type_that_was_registered_during_a_run_is_known_when_its_program_was_killed(
    tmp_path: Path, before: str
) -> None:
    path = tmp_path / "runs.db"
    code = f"""
import agentspan, os, signal, sys, time
agentspan.configure(sys.argv[1])
def one(name):
    with agentspan.span("late", {{"name": name}}):
        pass
with agentspan.run("a"):
    {before or "pass"}
    agentspan.flush()
    agentspan.span_type("late", template="Late {{{{name}}}}")
    one("first")
    agentspan.flush()
    agentspan.span_type("late", template="Later {{{{name}}}}")
    one("last")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, timeout=60, check=False)
    agentspan.open(path).close()
    with closing(sqlite3.connect(path)) as connection:
        said = connection.execute("select summary from agent_spans order by id desc limit 2").fetchall()
    assert said == [("Later last",), ("Late first",)]
    assert not folder_of(path).exists()
