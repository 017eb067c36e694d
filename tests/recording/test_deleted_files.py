"""A file that is deleted or replaced while a program records: it goes on in the one that has the path."""

import contextlib
import gc
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan import Tracer
from agentspan.model.rows import AgentInstanceRow, WriterRow
from agentspan.recording.span_and_run import state_of
from agentspan.tuning import STANDARD
from tests.recording.busy_files import busy_for, unknown_writers


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def delete(path: Path) -> None:
    for suffix in ("-shm", "-wal", ""):  # a thread may make a new file as soon as there is none
        path.with_name(path.name + suffix).unlink(missing_ok=True)


LOOKS_ALWAYS = STANDARD._replace(file_look_s=-1.0)
BOTH = pytest.mark.parametrize("durability", ["journal", "commit"])


@BOTH
def test_a_run_whose_file_is_deleted_goes_on_in_a_new_one(tmp_path: Path, durability: Any) -> None:
    path = tmp_path / "runs.db"
    tracer = Tracer(path, durability=durability, tuning=LOOKS_ALWAYS)
    with tracer.run("mine", version="2", metadata={"a": 1}) as run, tracer.span("chain", {"name": "outer"}) as outer:
        assert tracer.flush()
        delete(path)
        with tracer.span("tool", {"name": "after"}) as after:
            pass
    assert tracer.flush()
    with agentspan.open(path) as db:
        (found,) = db.agent_instances.list()
        assert (found.id, found.status, found.metadata) == (run.id, "complete", {"a": 1})
        (span,) = db.agent_spans.list(run.id)
        assert (span.id, span.status, span.agent_id) == (after.id, "complete", found.agent_id)
        # The end of the one that went with the old file fits nothing here, and is kept.
        kept = [(row.subject, row.why, row.agent_instance_id) for row in db.doctor().refused]
        # Its record in a journal names no run.
        assert kept == [(outer.id, "missing", run.id if durability == "commit" else None)]
    assert rows(path, "select count(*) from writers") == [(1,)]


@pytest.mark.parametrize("row_type", [AgentInstanceRow, WriterRow])
def test_a_run_whose_file_is_deleted_goes_on_in_a_new_one_that_is_busy_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row_type: type
) -> None:
    """Its spans wait until the run is there."""
    path = tmp_path / "runs.db"
    tracer = Tracer(path, durability="commit", tuning=LOOKS_ALWAYS)
    with tracer.run("mine") as run:
        delete(path)
        busy_for(row_type, 1, monkeypatch)
        with tracer.span("tool", {"name": "after"}) as after:
            pass
    assert tracer.flush()
    with agentspan.open(path) as db:
        assert [(span.id, span.status) for span in db.agent_spans.list(run.id)] == [(after.id, "complete")]
        assert db.doctor().refused == []
    assert unknown_writers(path) == 0
    tracer.shutdown()


@BOTH
def test_runs_after_the_file_was_deleted_are_of_a_known_program(tmp_path: Path, durability: Any) -> None:
    path = tmp_path / "runs.db"
    tracer = Tracer(path, durability=durability, tuning=LOOKS_ALWAYS)
    for _ in range(3):
        with tracer.run("a"), tracer.span("tool", {"name": "x"}):
            pass
        assert tracer.flush()
        assert unknown_writers(path) == 0
        delete(path)
    assert tracer.health()[:3] == (12, 0, 0)
    tracer.shutdown()


@pytest.mark.parametrize("spans", [1, 5])
def test_nothing_that_is_journaled_after_the_file_was_deleted_is_lost(tmp_path: Path, spans: int) -> None:
    path = tmp_path / "runs.db"
    tracer = Tracer(path)
    with tracer.run("mine") as run:
        for _ in range(5):
            assert tracer.flush()
            delete(path)
            ids = []
            for _ in range(spans):
                with tracer.span("tool", {"name": "x"}) as span:
                    ids.append(span.id)
            assert tracer.flush()
            assert rows(path, "select id, status from agent_spans") == [(id, "complete") for id in ids]
            assert rows(path, "select id from agent_instances") == [(run.id,)]
            assert unknown_writers(path) == 0
    assert tracer.health()[:3] == (12 + 10 * (spans - 1), 0, 0)
    tracer.shutdown()


@contextlib.contextmanager
def deleted_at_once(path: Path) -> Iterator[None]:
    """Delete the file at the begin of the block; nothing is written before its end."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin immediate")
        delete(path)
        yield


def test_a_run_that_ends_before_it_is_noticed_is_in_the_new_file(tmp_path: Path) -> None:
    """The program holds it no more when its records are moved."""
    path = tmp_path / "runs.db"
    tracer = Tracer(path)
    ids = []
    for number in range(2):
        block = tracer.run("mine", version="2", metadata={"a": number}, session="s", tags=["x"])
        run = block.__enter__()
        assert tracer.flush()
        with deleted_at_once(path):
            with tracer.span("tool", {"name": "x"}) as span:
                pass
            ids.append((run.id, span.id))
            block.__exit__(None, None, None)
            del block, run
            gc.collect()
        assert tracer.flush()
    with agentspan.open(path) as db:
        (found,) = db.agent_instances.list()
        assert (found.id, found.status, found.metadata, found.session) == (ids[1][0], "complete", {"a": 1}, "s")
        assert found.tags == ["x"]
        assert [(span.id, span.status) for span in db.agent_spans.list(found.id)] == [(ids[1][1], "complete")]
        assert db.doctor().refused == []
    assert unknown_writers(path) == 0
    assert tracer.health()[:5] == (8, 0, 0, 0, 0)
    tracer.shutdown()


def test_a_run_that_was_renamed_has_its_new_name_in_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    tracer = Tracer(path)
    block = tracer.run("guess")
    state_of(block.__enter__()).rename("mine", "2")
    assert tracer.flush()
    with deleted_at_once(path):
        block.__exit__(None, None, None)
        del block
        gc.collect()
    assert tracer.flush()
    assert rows(path, "select agent, version, status from runs") == [("mine", "2", "complete")]
    assert rows(path, "select count(*) from refused_changes") == [(0,)]
    tracer.shutdown()


@BOTH
def test_the_end_of_a_run_is_in_the_new_file(tmp_path: Path, durability: Any) -> None:
    path = tmp_path / "runs.db"
    tracer = Tracer(path, durability=durability, tuning=LOOKS_ALWAYS)
    with tracer.run("mine") as run:
        assert tracer.flush()
        delete(path)
    assert tracer.flush()
    with agentspan.open(path) as db:
        assert [(found.id, found.status) for found in db.agent_instances.list()] == [(run.id, "complete")]
        assert db.doctor().refused == []
    tracer.shutdown()


@BOTH
def test_a_run_that_somebody_removed_stays_removed(tmp_path: Path, durability: Any) -> None:
    path = tmp_path / "runs.db"
    tracer = Tracer(path, durability=durability)
    with tracer.run("mine") as run:
        assert tracer.flush()
        with contextlib.closing(sqlite3.connect(path)) as other, other:
            other.execute("delete from agent_instances")
        with tracer.span("tool", {"name": "x"}) as span:
            pass
    assert tracer.flush()
    with agentspan.open(path) as db:
        assert list(db.agent_instances.list()) == []
        kept = {(row.subject, row.why, row.agent_instance_id) for row in db.doctor().refused}
        assert {subject for subject, *_ in kept} == {span.id, run.id}
        assert {(why, of) for _, why, of in kept} == {("missing", run.id)}
    tracer.shutdown()


@BOTH
def test_a_run_whose_file_is_replaced_goes_on_in_the_other_one(tmp_path: Path, durability: Any) -> None:
    path, other = tmp_path / "runs.db", tmp_path / "other.db"
    with agentspan.open(other) as db:
        theirs = db.agent_instances.register("theirs")
    tracer = Tracer(path, durability=durability, tuning=LOOKS_ALWAYS)
    with tracer.run("mine") as run:
        assert tracer.flush()
        delete(path)
        os.replace(other, path)
        with tracer.span("tool", {"name": "after"}):
            pass
    assert tracer.flush()
    with agentspan.open(path) as db:
        assert {found.id: found.status for found in db.agent_instances.list()} == {
            theirs.id: "pending",
            run.id: "complete",
        }
        assert len(db.agent_spans.list(run.id)) == 1


@BOTH
def test_runs_wait_while_another_programs_file_is_in_the_place(tmp_path: Path, durability: Any) -> None:
    path = tmp_path / "runs.db"
    tracer = Tracer(path, durability=durability, tuning=LOOKS_ALWAYS)
    with tracer.run("before"):
        pass
    assert tracer.flush()
    delete(path)
    path.write_bytes(b"of another program" * 100)
    for _ in range(2):
        with tracer.run("mine"), tracer.span("tool", {"name": "x"}):
            pass
    assert not tracer.flush()
    health = tracer.health()
    assert (health.failed, health.waiting) == (0, 8 if durability == "commit" else 0)
    assert "is not an SQLite database" in (health.last_error or "")
    assert path.read_bytes() == b"of another program" * 100
    path.unlink()
    assert tracer.flush()
    assert tracer.health()[:3] == (10, 0, 0)
    assert rows(path, "select agent, status, spans from runs") == [("mine", "complete", 1)] * 2
    assert unknown_writers(path) == 0
    tracer.shutdown()


def test_a_folder_that_is_gone_does_no_harm(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    tracer = Tracer(folder / "runs.db", durability="commit", tuning=LOOKS_ALWAYS)
    with tracer.run("gone"):
        delete(folder / "runs.db")
        folder.rmdir()
        with tracer.span("tool", {"name": "x"}):
            pass
        folder.mkdir()
        assert tracer.flush()
    with tracer.run("later"), tracer.span("tool", {"name": "x"}):
        pass
    assert tracer.health().failed == 0
