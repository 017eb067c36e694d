"""Runs and programs that begin while their storage is away: all of it is in the file afterwards."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan import Tracer
from agentspan.journal.journal_folder import is_possible
from agentspan.recording.span_and_run import state_of
from tests.checkout import ROOT
from tests.journal.recorded import die, sink_of
from tests.waiting import until

pytestmark = pytest.mark.skipif(not is_possible(), reason="needs a journal")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep writers and, in a new file, readers out of a file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin exclusive")
        yield
        other.execute("rollback")


def one(path: Path, sql: str) -> Any:
    """The first row that a statement returns."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchone()


MISPLACED = """select count(*) from agent_spans s join agent_instances i on i.id = s.agent_instance_id
where s.agent_id <> i.agent_id"""


def record(tracer: Tracer, name: str = "a", spans: int = 2) -> agentspan.Run:
    """A run with tags and spans."""
    with tracer.run(name, version="1", tags=["x"]) as run:
        for _ in range(spans):
            with tracer.span("tool", {"name": "n"}):
                pass
    return run


@pytest.mark.parametrize("is_new", [True, False])
def test_a_program_that_starts_while_the_file_is_locked_records_all(tmp_path: Path, is_new: bool) -> None:
    path = tmp_path / "runs.db"
    if not is_new:
        agentspan.SQLiteStorage(path).close()
    with locked(path):
        tracer = Tracer(path)
        run = record(tracer)
        assert tracer.health()[:3] == (6, 0, 0)
    assert tracer.flush()
    assert tracer.health()[:3] == (6, 0, 0)
    assert one(path, "select run, agent, version, status, spans, tags from runs") == (
        run.id, "a", "1", "complete", 2, "x",
    )  # fmt: skip
    assert one(path, "select count(*) from writers") == (1,)
    assert one(path, MISPLACED) == (0,)
    tracer.shutdown()


def test_runs_that_begin_read_and_write_nothing_in_their_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, seen, connect = threading.get_ident(), [], sqlite3.connect

    def traced(*args: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*args, **options)
        connection.set_trace_callback(lambda sql: seen.append(sql) if threading.get_ident() == here else None)
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    tracer = Tracer(tmp_path / "runs.db")
    del seen[:]
    for number in range(20):
        record(tracer, f"agent {number % 3}")
    assert seen == []
    tracer.shutdown()


def test_names_are_resolved_when_the_file_is_back(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with closing(Tracer(path).storage):
        first = Tracer(path)
        record(first, "known")
        first.shutdown()
    with locked(path):
        tracers = [Tracer(path), Tracer(path)]
        for tracer in tracers:
            record(tracer, "known")
            record(tracer, "new")
            record(tracer, "new")
    for tracer in tracers:
        assert tracer.flush()
        assert tracer.health()[:5] == (18, 0, 0, 0, 0)
        record(tracer, "new")
        tracer.shutdown()
    assert one(path, "select count(*), count(distinct external_identifier) from agents") == (2, 2)
    assert one(path, "select count(*) from agent_versions") == (2,)
    assert one(path, "select count(*) from agent_schema_versions") == (2,)
    assert one(path, "select count(*), sum(spans), count(distinct agent) from runs") == (9, 18, 2)
    assert one(path, MISPLACED) == (0,)
    assert one(path, "select count(*) from refused_changes") == (0,)


@pytest.mark.parametrize("name", ["known", "new"])
def test_a_run_that_is_renamed_while_the_file_is_locked_has_the_new_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / "runs.db"
    first = Tracer(path)
    record(first, "known")
    first.shutdown()
    with locked(path):
        tracer = Tracer(path)
        block = tracer.run("guess")
        run = block.__enter__()
        with tracer.span("tool", {"name": "n"}):
            pass
        state_of(run).rename(name, "2")
        with tracer.span("tool", {"name": "n"}):
            pass
    assert tracer.flush()
    with tracer.span("tool", {"name": "n"}):
        pass
    block.__exit__(None, None, None)
    tracer.shutdown()
    assert one(path, f"select agent, version, spans, status from runs where run = '{run.id}'") == (
        name, "2", 3, "complete",
    )  # fmt: skip
    assert one(path, MISPLACED) == (0,)


@pytest.mark.parametrize("drained", [0, 1, 2, 3, 4, 5])
def test_a_killed_program_leaves_its_registration_and_is_recovered_from_any_point(tmp_path: Path, drained: int) -> None:
    path = tmp_path / "runs.db"
    first = Tracer(path)
    record(first, "a")
    first.shutdown()
    tracer = Tracer(path)
    sink = sink_of(tracer)
    sink.work.thread.running = object()  # type: ignore[assignment]  # nothing is drained but here
    runs = [record(tracer, "a"), record(tracer, "b")]
    for _ in range(drained):
        sink.work.drain.run(1.0, most=1)
    sink.work.thread.running = None
    die(tracer)
    agentspan.open(path).close()
    for run in runs:
        assert one(path, f"select status, spans from runs where run = '{run.id}'") == ("complete", 2)
    assert one(path, "select count(*) from agents") == (2,)
    assert one(path, MISPLACED) == (0,)
    assert one(path, "select count(*) from refused_changes") == (0,)


FAMILY = """
import agentspan, concurrent.futures, multiprocessing, os, sys

@agentspan.span("tool")
def step(number):
    return number

if __name__ == "__main__":
    agentspan.configure(sys.argv[1])
    with agentspan.run("parent"):
        child = os.fork()
        step(1)
        if child == 0:
            agentspan.flush(0.1)
            os._exit(0)
        os.waitpid(child, 0)
        spawn = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
            pool.submit(agentspan.propagate(step), 2).result()
    print(agentspan.health()[1:3], flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.mark.full
def test_children_of_a_program_that_cannot_register_its_run_record_in_it(tmp_path: Path) -> None:
    path, program = tmp_path / "runs.db", tmp_path / "family.py"
    program.write_text(FAMILY)
    agentspan.SQLiteStorage(path).close()
    with locked(path):
        done = subprocess.run(
            [sys.executable, program, path], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert done.stdout == "(0, 0)\n"
    agentspan.open(path).close()
    assert one(path, "select agent, status, spans from runs") == ("parent", "complete", 3)
    assert one(path, MISPLACED) == (0,)
    assert one(path, "select count(distinct writer_id) from agent_spans") == (3,)
    assert one(path, "select count(*) from refused_changes") == (0,)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_registers_the_runs_again_that_its_program_holds_and_no_others(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    agentspan.SQLiteStorage(path).close()
    tracer = Tracer(path)
    with locked(path):
        for _ in range(300):
            record(tracer, spans=0)
        with tracer.run("held"):
            child = os.fork()
            if child == 0:
                with tracer.span("tool", {"name": "in the child"}):
                    pass
                os._exit(sink_of(tracer).log.sequence)
            appended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert appended == 4  # its writer, the run, the begin and the end of its span
    tracer.shutdown()
    agentspan.open(path).close()
    assert one(path, "select count(*), sum(spans) from runs") == (301, 1)


def test_what_is_wrong_for_good_is_raised_at_once(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(b"no database" * 1000)
    for path in (damaged, tmp_path, tmp_path / "no folder" / "runs.db"):
        with pytest.raises(agentspan.DatabaseUnusable):
            agentspan.configure(path)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A full file system."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("needs a user who may mount file systems")
    with (folder / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(bytes(4096)):
            pass
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_program_that_starts_on_a_full_disk_records_all(disk: Path) -> None:
    path = disk / "runs.db"
    tracer = Tracer(path)
    record(tracer)
    assert tracer.health()[1] == 0
    os.unlink(disk / "filler")
    until(lambda: tracer.flush())
    assert tracer.health()[:3] == (6, 0, 0)
    assert one(path, "select agent, status, spans from runs") == ("a", "complete", 2)
    assert one(path, "select count(*) from writers") == (1,)
    tracer.shutdown()
