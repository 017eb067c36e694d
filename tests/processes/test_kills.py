"""SIGKILL at any moment: what was acknowledged is there, once, and nothing is left over."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import agentspan
from tests.checkout import ROOT
from tests.processes.stored import check_integrity, recover
from tests.tiers import longer

# Of each kind. The figure of the README was made with AGENTSPAN_TEST_KILLS=40: two hundred of all kinds.
KILLS = longer("AGENTSPAN_TEST_KILLS", 1, 2, 200)


@pytest.fixture(autouse=True)
def _no_program_outlives_its_test() -> Iterator[None]:
    yield
    while _started:
        end(_started.pop())


_started: list["subprocess.Popen[str]"] = []


def start(*args: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.processes.recorders", *map(str, args)]
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, start_new_session=True)
    _started.append(process)
    return process


def end(process: "subprocess.Popen[str]") -> list[str]:
    """Kill a program and all its children; return what they acknowledged."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    assert process.stdout is not None
    said = [] if process.stdout.closed else process.stdout.read().splitlines(keepends=True)
    process.stdout.close()
    process.wait()
    return [line.strip() for line in said if line.endswith("\n")]


def check(path: Path, said: list[str]) -> None:
    """Compare what was acknowledged with what is in the file."""
    recover(path)
    check_integrity(path)
    connection = sqlite3.connect(path)
    spans = dict(connection.execute("select id, status from agent_spans"))
    runs = dict(connection.execute("select id, status from agent_instances"))
    updated = {id for (id,) in connection.execute("select id from agent_spans where payload like '%arguments%'")}
    half = "select count(*) from agent_spans where status = 'complete' and (result_payload is null or summary is null)"
    assert connection.execute(half + " and label = 'x'").fetchone() == (0,)
    assert connection.execute("select count(*) from refused_changes").fetchone() == (0,)
    connection.close()
    acknowledged: dict[str, set[str]] = {}
    for word, id in (line.split() for line in said):
        acknowledged.setdefault(word, set()).add(id)
    # A program may be killed before it has acknowledged a run, or while its children go on.
    assert acknowledged.get("run", set()) <= {id for id, status in runs.items() if status == "active"}
    assert acknowledged["started"] <= set(spans)
    assert acknowledged.get("updated", set()) <= updated
    assert acknowledged["finished"] <= {id for id, status in spans.items() if status == "complete"}
    assert len(acknowledged["finished"]) > 0


@pytest.mark.parametrize("threads", [1, 4, 16])
def test_killed_among_threads(tmp_path: Path, threads: int) -> None:
    path, said = tmp_path / "runs.db", []
    for _ in range(KILLS):
        process = start("threads", path, threads)
        assert process.stdout is not None
        line = ""
        while not line.startswith("finished"):  # a busy machine may not get so far in a time that is fixed
            line = process.stdout.readline().strip()
            assert line, "the program ended"
            said.append(line)
        time.sleep(random.uniform(0.0, 0.2))
        said += end(_started.pop())
    check(path, said)


@pytest.mark.parametrize("parent_dies", ["yes", "no"])
def test_killed_among_parents_and_children(tmp_path: Path, parent_dies: str) -> None:
    path, said = tmp_path / "runs.db", []
    for _ in range(KILLS):
        process = start("family", path, parent_dies)
        assert process.stdout is not None
        pids, has_finished = 0, False
        while pids < 3 or not has_finished:
            line = process.stdout.readline().strip()
            assert line, "the programs ended"
            said.append(line)
            pids += line.startswith("pid")
            has_finished |= line.startswith("finished")
        time.sleep(random.uniform(0.0, 0.2))
        said += end(_started.pop())
    check(path, [line for line in said if not line.startswith("pid")])


@pytest.mark.full
def test_a_burst_and_a_kill_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    assert start("burst", path, 20_000).wait() == -signal.SIGKILL
    recover(path)
    with agentspan.open(path) as db:
        (run,) = db.agent_instances.list()
        assert (run.status, run.span_counts.complete, run.span_counts.active) == ("active", 20_000, 1)
        assert db.doctor(dry_run=True).refused_total == 0
    check_integrity(path)
