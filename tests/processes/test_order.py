"""Journals that are adopted in another order than they were written in: what a record refers to may come later."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import agentspan
from tests.checkout import ROOT
from tests.journal.segment_files import segments_of
from tests.processes.stored import recover

BURST = """
import agentspan, os, sys
agentspan.configure(sys.argv[1])
with agentspan.run("a"):
    for _ in range(3000):
        with agentspan.span("tool", {"name": "x", "arguments": {"text": "y" * 300}}):
            pass
os.kill(os.getpid(), 9)
"""
FAMILY = """
import agentspan, os, sys
from agentspan.tuning import STANDARD
agentspan.configure(sys.argv[1], tuning=STANDARD._replace(drain_tick_s=500.0))
with agentspan.run("parent"):
    child = os.fork()
    with agentspan.span("tool", {"name": "x"}):
        pass
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    print("forked", flush=True)
    sys.stdin.read()
agentspan.shutdown()
"""
HOLD = """
import pathlib, sys
from agentspan.journal.segments import take_over
with take_over(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def start(code: str, *args: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def locked(path: Path) -> sqlite3.Connection:
    """Make a file, and keep writers out of it: what is recorded stays in the journal, the run's registration, too."""
    agentspan.open(path).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("begin immediate")
    return other


def spans_and_refusals(path: Path) -> tuple[int, list[tuple[str, int]]]:
    recover(path)
    connection = sqlite3.connect(path)
    (spans,) = connection.execute("select count(*) from agent_spans where status = 'complete'").fetchone()
    refused = connection.execute("select why, count(*) from refused_changes group by why").fetchall()
    connection.close()
    return spans, refused


@pytest.mark.full
def test_of_two_who_adopt_at_once_neither_takes_a_segment_before_those_that_it_follows(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    other = locked(path)
    with start(BURST, path) as writer:
        writer.communicate()
    other.close()
    segments = segments_of(path)
    assert len(segments) > 1
    with start(HOLD, segments[0]) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        agentspan.open(path).close()
        holder.communicate()
    assert spans_and_refusals(path) == (3000, [])


def test_a_forked_childs_spans_wait_for_the_run_of_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    other = locked(path)
    with start(FAMILY, path) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "forked\n"
        other.close()
        agentspan.open(path).close()  # the parent drains nothing now, as where it is busy
        parent.communicate()
    assert spans_and_refusals(path) == (2, [])
