"""The log is moved into the database by a thread that comes and goes, never by the caller unless that falls behind."""

import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.storage.sqlite import driver
from agentspan.tuning import STANDARD


def record(tracer: agentspan.Tracer, spans: int) -> None:
    with tracer.run("burst"):
        for number in range(spans):
            with tracer.span("tool", {"name": str(number)}):
                pass


def checkpointing() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "agentspan-checkpoint"]


def committing(path: Path, **tuning: Any) -> agentspan.Tracer:
    """Record into a storage with these sizes."""
    storage = agentspan.SQLiteStorage(path, tuning=STANDARD._replace(**tuning))
    return agentspan.Tracer(storage, raise_errors=True, durability="commit")


@pytest.mark.full
def test_a_burst_is_checkpointed_and_its_log_stays_small(tmp_path: Path) -> None:
    tracer = committing(tmp_path / "runs.db", checkpoint_commits=50, checkpoint_restart_pages=300)
    for _ in range(6):
        record(tracer, 500)  # some 2,200 pages
        for thread in checkpointing():  # a busy machine may not have let it begin yet
            thread.join()
    size = (tmp_path / "runs.db-wal").stat().st_size
    assert size < 6_000 * 4096
    tracer.shutdown()
    assert not (tmp_path / "runs.db-wal").exists()
    assert sqlite3.connect(tmp_path / "runs.db").execute("select count(*) from agent_spans").fetchone() == (3000,)


def test_the_thread_comes_after_many_commits_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def remember(thread: threading.Thread) -> None:
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", remember)
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True, durability="commit", sync_every_s=None)
    record(tracer, 490)
    assert "agentspan-checkpoint" not in [thread.name for thread in started]  # a slow disk may have begun another one
    record(tracer, 10)
    assert "agentspan-checkpoint" in [thread.name for thread in started]
    tracer.shutdown()
    assert [thread for thread in checkpointing() if thread in started] == []  # others may have theirs


def test_a_caller_is_not_asked_to_checkpoint(tmp_path: Path) -> None:
    storage = agentspan.SQLiteStorage(tmp_path / "runs.db")
    writer = storage.direct._connections.writer()
    assert writer.execute("pragma wal_autocheckpoint").fetchone() == (driver.MAX_FRAMES,)


def test_a_checkpoint_that_cannot_be_done_hurts_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracer = committing(tmp_path / "runs.db", checkpoint_commits=10)

    def connect(file: object) -> sqlite3.Connection:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(tracer.storage.direct._connections.guard, "_connect", connect)  # type: ignore[attr-defined]
    record(tracer, 100)
    tracer.shutdown()
    assert tracer.health().failed == 0


def test_without_another_thread_recording_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracer = committing(tmp_path / "runs.db", checkpoint_commits=10)

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    record(tracer, 100)
    tracer.shutdown()
    assert tracer.health()[:5] == (202, 0, 0, 0, 0)


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_in_the_middle_of_checkpoints_leaves_both_recording(tmp_path: Path) -> None:
    tracer = committing(tmp_path / "runs.db", checkpoint_commits=5)
    for _ in range(20):
        record(tracer, 10)
        child = os.fork()
        if child == 0:
            try:
                record(tracer, 10)
                tracer.shutdown()
            finally:
                os._exit(tracer.health().failed)
        assert os.waitpid(child, 0)[1] == 0
    tracer.shutdown()
    connection = sqlite3.connect(tmp_path / "runs.db")
    assert connection.execute("select count(*) from agent_spans where status = 'complete'").fetchone() == (400,)
    assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
