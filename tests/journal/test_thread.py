"""The thread that drains a journal: where the system has no thread for it, nothing is lost, and it comes later."""

import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import agentspan
from agentspan import Tracer
from agentspan.recording.recorder import LiveRuns
from tests.checkout import ROOT
from tests.journal.recorded import sink_of, statuses
from tests.waiting import until


def record(tracer: Tracer, number: int) -> None:
    for _ in range(number):
        with tracer.span("tool", {"name": "x"}):
            pass


def test_a_thread_that_cannot_be_started_is_tried_again_later_and_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    now, tries = [1000.0], []
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        tries.append(now[0])
        raise RuntimeError("can't start new thread")

    tracer = Tracer(tmp_path / "runs.db")
    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr("agentspan.disk.monotonic", lambda: now[0])
    record(tracer, 20)
    assert len(tries) == 1
    for _ in range(8):
        now[0] += 0.06
        record(tracer, 1)
    assert 2 <= len(tries) <= 5
    assert "cannot be started: can't start new thread" in caplog.text
    assert tracer.health()[:3] == (28 * 4, 0, 0)
    assert "can't start new thread" in (tracer.health().last_error or "")
    monkeypatch.setattr(threading.Thread, "start", start)
    now[0] += 10
    record(tracer, 1)
    thread = sink_of(tracer).work.thread.running
    assert thread is not None
    assert thread.is_alive()
    monkeypatch.undo()
    tracer.shutdown()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_fault_in_its_look_for_runs_does_not_end_the_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tracer, calls = Tracer(tmp_path / "runs.db"), []

    def fail(runs: LiveRuns) -> None:
        calls.append(runs)
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(LiveRuns, "active", fail)
        record(tracer, 1)
        until(lambda: calls)
    record(tracer, 1)
    until(lambda: statuses(tmp_path / "runs.db") == ["complete"] * 2)
    tracer.shutdown()


@pytest.mark.full
def test_without_a_thread_the_journal_is_drained_at_the_exit(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    code = """
import sys, threading, agentspan
def refuse(thread):
    raise RuntimeError("can't start new thread")
threading.Thread.start = refuse
agentspan.configure(sys.argv[1])
with agentspan.run("a"):
    for number in range(100):
        with agentspan.span("tool", {"name": "x"}):
            pass
"""
    done = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.count("\n") == 1
    with agentspan.open(path) as db:
        assert [run.span_counts.complete for run in db.agent_instances.list()] == [100]
    assert [file.name for file in tmp_path.iterdir()] == ["runs.db"]
