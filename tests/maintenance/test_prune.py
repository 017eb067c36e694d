"""Letting go of what is old, on both storages; and what a file gives back."""

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from freezegun import freeze_time

import agentspan
from agentspan.database import Database
from agentspan.errors import InvalidValue
from agentspan.maintenance.prune import KEY_DAYS
from agentspan.model.changes import SpanStatus
from agentspan.model.rows import AgentInstanceRow
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.questions import Compact, Counts, Damage, Find, Query, RemoveRuns, SpansOf, Violations
from tests.checkout import ROOT
from tests.cli.calling import call
from tests.tuned import tuned

LATER = "9999-01-01T00:00:00Z"


def add(
    db: Database, number: int, status: str | None = "complete", span: SpanStatus = "complete", size: int = 10
) -> str:
    with freeze_time(f"2026-01-{number + 1:02}"):
        run = db.agent_instances.register("a")
        db.agent_instances.start(run.id)
        for text in "xyz":  # equal ones would be stored once
            db.agent_spans.create(
                run.id, "llm", span, {"model": 5, "text": text * size}, {} if span != "active" else None
            )
        if status is not None:
            db.agent_instances.finish(run.id, status)  # type: ignore[arg-type]
    return run.id


def ids(db: Database) -> list[str]:
    return [row.id for row in db.storage.ask(Query("agent_instance")).rows]


def test_runs_that_finished_before_a_time_are_removed_with_all_of_theirs(db: Database) -> None:
    runs = [add(db, number) for number in range(4)]
    spans = [span.id for span in db.storage.ask(SpansOf(runs[0]))]
    assert db.storage.ask(Violations(spans))[spans[0]] != []
    planned = db.prune(older_than="2026-01-03T00:00:00Z", dry_run=True)
    assert (planned, ids(db)) == ((2, 6, 0, None, None), runs)
    done = db.prune(older_than="2026-01-03T00:00:00Z")
    assert (done[:3], ids(db)) == ((2, 6, 0), runs[2:])
    assert dict(db.storage.ask(Find(*spans, runs[0])).rows) == {}
    assert db.storage.ask(Violations(spans))[spans[0]] == []
    assert db.storage.ask(Counts(runs[:1]))[runs[0]].total == 0
    assert db.prune(older_than="2026-01-03T00:00:00Z")[:3] == (0, 0, 0)


PROGRAM = """
import sys, time, agentspan
agentspan.configure(sys.argv[1], durability=sys.argv[2])
for number in range(5):
    messages = []
    with agentspan.run("done"):
        for step in range(4):
            messages.append({"role": "user", "content": f"PROMPT {number} {step} " + "w" * 300})
            with agentspan.span("llm", {"model": "m", "messages": list(messages)}):
                pass
agentspan.flush()
if sys.argv[3] == "in a run":
    block = agentspan.run("lives")
    block.__enter__()
print("ready", flush=True)
while sys.stdin.readable():
    if sys.argv[3] == "in a run":
        with agentspan.span("tool", {"name": "alive"}):
            pass
    time.sleep(0.05)
"""


@pytest.mark.parametrize("mode", ["in a run", "idle"])
@pytest.mark.parametrize("durability", ["journal", "commit"])
def test_nothing_of_what_was_removed_stays_in_the_folder_of_a_program_that_runs(
    tmp_path: Path, durability: str, mode: str
) -> None:
    def left() -> list[Path]:
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        return [path for path in files if b"PROMPT" in path.read_bytes()]

    path = tmp_path / "runs.db"
    command = [sys.executable, "-c", PROGRAM, str(path), durability, mode]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert left()
        with agentspan.open(path) as db:
            assert db.prune(older_than=LATER)[:2] == (5, 20)
        until = time.monotonic() + 30
        while left() and time.monotonic() < until:
            time.sleep(0.05)
        found = left()
        process.kill()
    assert found == []


def test_the_log_is_emptied_of_what_was_removed_once_a_reader_has_left_it(tmp_path: Path) -> None:
    """A reader of another connection holds the log for a while; nobody writes afterwards."""
    path = tmp_path / "runs.db"
    with agentspan.open(path) as db, agentspan.open(path) as remover:
        with freeze_time("2026-01-01"):
            run = db.agent_instances.register("a")
            db.agent_instances.start(run.id)
            db.agent_spans.create(run.id, "llm", "complete", {"text": "PROMPT"}, {})
            db.agent_instances.finish(run.id, "complete")
        reader = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        reader.execute("begin")
        reader.execute("select count(*) from agent_spans").fetchone()
        leaves = threading.Timer(0.3, reader.close)
        leaves.start()
        assert remover.prune(older_than=LATER)[:2] == (1, 1)
        leaves.join()
        assert b"PROMPT" not in Path(f"{path}-wal").read_bytes()


def test_what_was_removed_is_overwritten_in_the_file(tmp_path: Path) -> None:
    """Also where other rows are on the same pages."""
    path = tmp_path / "runs.db"
    with agentspan.open(path) as db:
        for name in ("REMOVED", "STAYS", "REMOVED"):
            run = db.agent_instances.register(name)
            db.agent_instances.start(run.id)
            for number in range(20):
                db.agent_spans.create(run.id, "llm", "complete", {"text": f"{name} {number}"}, {})
            db.agent_instances.finish(run.id, "complete")
        removed = [run.id for run in db.agent_instances.list()][::2]
        assert db.prune(only=lambda rows: [row.id for row in rows if row.id in removed]).runs == 2
    assert b"REMOVED 1" not in path.read_bytes()
    assert b"STAYS 1" in path.read_bytes()


def test_what_is_alive_stays(db: Database) -> None:
    living = [add(db, 0, None), add(db, 1, None, "active"), add(db, 2, "complete", "active")]
    gone = add(db, 3)
    assert db.prune(older_than=LATER).runs == 1
    assert ids(db) == living
    assert db.storage.ask(RemoveRuns([*living, gone, "0" * 32], 5)) == (0, 0)


def test_what_failed_can_be_kept(db: Database) -> None:
    kept = [add(db, 0, "failed"), add(db, 1, "complete", "failed")]
    add(db, 2)
    assert db.prune(older_than=LATER, keep_failed=True).runs == 1
    assert ids(db) == kept
    assert db.prune(older_than=LATER).runs == 2


def test_old_idempotency_keys_go_too(db: Database) -> None:
    with freeze_time("2026-01-01"):
        db.agent_instances.register("a", idempotency_key="old-key-1")
    with freeze_time(f"2026-01-{KEY_DAYS + 1:02}"):
        db.agent_instances.register("a", idempotency_key="new-key-1")
    with freeze_time(f"2026-01-{KEY_DAYS + 1:02} 00:00:01"):
        assert db.prune(dry_run=True).keys == 1
        assert db.prune().keys == 1
        assert db.prune().keys == 0
        again = db.agent_instances.register("a", idempotency_key="new-key-1")
        assert again.id == ids(db)[1]
    assert db.prune(dry_run=True).keys == 1


def test_a_storage_without_a_file_has_no_size() -> None:
    with agentspan.open(MemoryStorage()) as db:
        assert Compact not in db.storage.capabilities().answers
        assert db.prune().freed_bytes is None
        with pytest.raises(InvalidValue, match="max_bytes: this storage lies in no file"):
            db.prune(max_bytes=5)
        with pytest.raises(InvalidValue, match="older_than"):
            db.prune(older_than="yesterday")


@pytest.mark.full
def test_a_file_becomes_smaller_by_what_is_said(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with agentspan.open(path) as db:
        for number in range(20):
            add(db, number, size=100_000)
        size = path.stat().st_size + os.path.getsize(f"{path}-wal")
        done = db.prune(older_than="2026-01-11T00:00:00Z")
        now = path.stat().st_size + os.path.getsize(f"{path}-wal")
        assert done.freed_bytes == size - now > 10 * 300_000
        done = db.prune(max_bytes=1_500_000)
        assert path.stat().st_size <= 1_500_000
        assert len(ids(db)) == 4  # each has 300 kB
        assert db.storage.ask(Damage()) == []


def test_a_file_that_cannot_give_pages_back_learns_it(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    agentspan.SQLiteStorage(path).close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("pragma auto_vacuum = none")
    connection.execute("vacuum")
    assert connection.execute("pragma auto_vacuum").fetchone() == (0,)
    connection.close()
    with agentspan.open(path) as db:
        add(db, 1, size=100_000)
        assert (db.prune(older_than=LATER).freed_bytes or 0) > 300_000
    connection = sqlite3.connect(path)
    assert connection.execute("pragma auto_vacuum").fetchone() == (2,)
    connection.close()


@pytest.mark.full
def test_others_record_while_a_file_is_pruned(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with agentspan.open(path) as db:
        for number in range(20):
            add(db, number, size=20_000)
    tracer = agentspan.Tracer(path)
    ended = threading.Event()

    def record() -> None:
        while not ended.is_set():
            with tracer.run("live"), tracer.span("tool", {"name": "x"}):
                pass

    thread = threading.Thread(target=record)
    thread.start()
    with agentspan.open(path) as db:
        done = db.prune(older_than="2026-02-01T00:00:00Z")
    ended.set()
    thread.join()
    health = tracer.health()
    tracer.shutdown()
    assert (done.runs, health.failed) == (20, 0)
    with agentspan.open(path, read_only=True) as db:
        assert all(run.status == "complete" for run in db.agent_instances.list(page_size=100))


@tuned(page_rows=2)
def test_runs_that_begin_while_runs_are_looked_at_do_not_keep_it_going(db: Database) -> None:
    old = [add(db, number) for number in range(3)]
    looked: list[str] = []

    def only(rows: Sequence[AgentInstanceRow]) -> list[str]:
        looked.extend(row.id for row in rows)
        assert len(looked) < 10
        for _ in range(3):
            db.agent_instances.register("busy")
        return [row.id for row in rows]

    assert db.prune(only=only).runs == 3
    assert looked[:3] == old


def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with agentspan.open(path) as db:
        for number in range(3):
            add(db, number, size=50_000)
        db.agent_instances.register("a", idempotency_key="a-key-123")
    said = call(path, "prune", "--older-than", "2026-01-02", "--dry-run").output
    assert said == "would remove 1 run with 3 spans, and 0 idempotency keys\n"
    lines = call(path, "prune", "--older-than", "2026-01-02").output.splitlines()
    assert lines[0] == "removed 1 run with 3 spans, and 0 idempotency keys"
    assert lines[1].endswith(" bytes freed")
    assert int(lines[1].split()[0].replace(",", "")) > 100_000
    assert "would remove about 2 runs" in call(path, "prune", "--max-size", "1k", "--dry-run").output
    assert '"dry_run": false' in call(path, "prune", "--max-size", "1GB", "--keep-failed", "--json").output
    assert "max_size: must be such as 500MB" in call(path, "prune", "--max-size", "lots").output
    assert "older_than: must be such as" in call(path, "prune", "--older-than", "lots").output
    assert "does not exist" in call(tmp_path / "no.db", "prune").output


def test_a_backup_is_whole_private_and_taken_while_others_write(tmp_path: Path) -> None:
    path, copy = tmp_path / "runs.db", tmp_path / "copy.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    with tracer.run("a"):
        with tracer.span("tool", {"name": "x"}):
            said = call(path, "backup", str(copy)).output
        assert said == f"copied to {copy}: {copy.stat().st_size:,} bytes\n"
    tracer.shutdown()
    assert copy.stat().st_mode & 0o777 == 0o600
    assert sorted(file.name for file in tmp_path.iterdir() if "copy" in file.name) == ["copy.db"]
    with agentspan.open(copy, read_only=True) as db:
        assert [run.status for run in db.agent_instances.list()] == ["active"]
        assert db.storage.ask(Damage()) == []
    refused = call(path, "backup", str(copy))
    assert (refused.exit_code, "exists already" in refused.output) == (1, True)
    assert "the folder" in call(path, "backup", str(tmp_path / "no" / "x.db")).output
    assert '"bytes": ' in call(path, "backup", str(tmp_path / "second.db"), "--json").output


@pytest.mark.full
def test_a_backup_has_what_dead_programs_left_in_their_journals(tmp_path: Path) -> None:
    path, copy = tmp_path / "runs.db", tmp_path / "copy.db"
    code = f"""
import os, agentspan
agentspan.configure({str(path)!r})
with agentspan.run("a"), agentspan.span("tool", {{"name": "x"}}):
    os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert call(path, "backup", str(copy)).exit_code == 0
    with sqlite3.connect(copy) as connection:
        assert connection.execute("select status from agent_spans").fetchall() == [("active",)]
    connection.close()
