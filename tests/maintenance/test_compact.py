"""Making a file smaller, whose payloads an older version stored whole; interrupted, and beside other programs."""

import base64
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.analysis.search import search
from agentspan.database import Database
from agentspan.errors import NotPermitted, StorageError
from agentspan.maintenance.compact import Compacted
from agentspan.model.rows import Row
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Query
from agentspan.storage.sqlite.contents.numbering import Numbering
from agentspan.tuning import STANDARD
from tests.cli.calling import call
from tests.storage.old_files import FIFTH, unpacked

CALLS = 12


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def record(path: Path, runs: int = 3, calls: int = CALLS) -> int:
    """Record runs of llm calls with whole histories; return the size of the file."""
    with agentspan.open(path) as db:
        tracer = agentspan.Tracer(db.storage, durability="commit", raise_errors=True)
        for number in range(runs):
            with tracer.run("agent"):
                messages: list[dict[str, str]] = []
                for turn in range(calls):
                    messages.append({"role": "user", "content": f"run {number} turn {turn} " + "x" * 2000})
                    with tracer.span("llm", {"model": "m", "messages": messages}) as span:
                        span.set_result({"content": f"answer {turn} " + "y" * 600})
        tracer.flush()
        return size(db)


def as_before(path: Path) -> None:
    """Store each payload whole, as older versions did."""
    with agentspan.open(path, read_only=True) as db:
        whole = [(row.payload, row.result_payload, row.id) for row in spans(db)]  # type: ignore[union-attr]
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executemany("update agent_spans set payload = ?, result_payload = ?, contents = 0 where id = ?", whole)
    for table in ("contents", "blobs", "content_runs"):
        connection.execute(f"delete from {table}")
    connection.execute("vacuum")
    connection.close()


def size(db: Database) -> int:
    file = db.storage.capabilities().file
    assert file is not None
    file.compact(5.0)
    return file.file_bytes()


def spans(db: Database) -> list[Row]:
    return db.storage.page(Query("agent_span")).rows


def problems(db: Database) -> list[str]:
    check = db.storage.capabilities().check
    assert check is not None
    return check.check()


def sql(path: Path, query: str) -> list[Any]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def test_an_older_file_takes_the_room_of_a_new_one_and_is_read_as_before(path: Path) -> None:
    new = record(path, runs=2, calls=40)
    as_before(path)
    numbers = sql(path, "select id, rowid from agent_spans order by id")
    with agentspan.open(path) as db:
        before, old = spans(db), size(db)
        done = db.compact()
        assert done == Compacted(80, old, size(db))
        assert spans(db) == before
        assert done.bytes_after < 1.1 * new < 0.2 * old
        assert problems(db) == []
        assert db.compact() == Compacted(0, done.bytes_after, done.bytes_after)
    ranges = sql(path, "select payload ->> '$.messages' from agent_spans order by id")
    assert [text for (text,) in ranges] == [f'{{"$contents":"{each}"}}' for each in each_range(40) * 2]
    assert sql(path, "select id, rowid from agent_spans order by id") == numbers


def each_range(calls: int) -> list[str]:
    """The ranges of histories that begin with one message and grow by one."""
    return ["1", *(f"1-{last}" for last in range(2, calls + 1))]


def test_a_file_of_the_version_before_is_compacted(tmp_path: Path) -> None:
    path = unpacked(tmp_path, FIFTH)
    with agentspan.open(path) as db:
        before = spans(db)
        whole = sql(path, "select count(*) from agent_spans where contents = 0")
        assert db.compact().spans > 0
        assert spans(db) == before
        assert problems(db) == []
        assert sql(path, "select count(*) from agent_spans where contents = 0") < whole


def test_the_index_stays_as_it_is(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(path)
    as_before(path)
    with agentspan.open(path) as db:
        found = search(db.storage, "turn answer")
        assert found.total == 3 * CALLS
        index = path.with_name("runs.db-index")
        state = sql(index, "select * from state")
        db.compact()
        assert search(db.storage, "turn answer") == found
        assert sql(index, "select * from state") == state


def test_open_spans_are_not_touched(path: Path) -> None:
    with agentspan.open(path) as db:
        run = db.agent_instances.register("a")
        db.agent_instances.start(run.id)
        payload = {"messages": [{"content": "z" * 900}]}
        ids = [db.agent_spans.create(run.id, "llm", status, payload).id for status in ("active", "pending", "complete")]
        as_before(path)
        before = spans(db)
        assert db.compact().spans == 1
        assert spans(db) == before
        assert sql(path, "select id from agent_spans where contents") == [(ids[2],)]
        db.agent_spans.finish(ids[0], result_payload={"documents": [{"content": "z" * 900}]})
        assert db.compact().spans == 1
        assert len(sql(path, "select * from contents")) == 2  # results have parts of their own
        assert problems(db) == []


def test_base64_is_stored_as_bytes_once(path: Path) -> None:
    image = base64.b64encode(random.Random(1).randbytes(3000)).decode()
    with agentspan.open(path) as db:
        run = db.agent_instances.register("a")
        for payload in ({"image": image}, {"name": "$blob:1", "image": image}, {"messages": [{"content": image}]}):
            db.agent_spans.create(run.id, "tool", "complete", {"name": "look", **payload}, {"output": "$blob"})
    as_before(path)
    with agentspan.open(path) as db:
        before = spans(db)
        assert db.compact().spans == 3
        assert spans(db) == before
        assert sql(path, "select length(data) from blobs") == [(3000,)]
        assert db.compact().spans == 0
        assert spans(db) == before
        assert problems(db) == []


def stop_at(number: int) -> Callable[..., None]:
    """Return a function that raises at a call, as Ctrl-C does."""
    calls = 0

    def stop(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            raise KeyboardInterrupt

    return stop


def in_the_middle(patched: pytest.MonkeyPatch, number: int) -> None:
    """Interrupt the rewriting of a span after its parts were stored, before the commit."""
    stop, write = stop_at(number), Numbering.write

    def written(numbering: Numbering) -> None:
        write(numbering)
        stop()

    patched.setattr(Numbering, "write", written)


@pytest.mark.full
@pytest.mark.parametrize("number", [1, 2, 9])
@pytest.mark.parametrize("between", [False, True])
def test_interrupted_within_a_step_or_between_two_it_goes_on_later(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int, between: bool
) -> None:
    record(path, runs=2)
    as_before(path)
    with agentspan.open(path, tuning=STANDARD._replace(rewrite_step_spans=1 if between else 4)) as db:
        before = spans(db)
        with monkeypatch.context() as patched:
            if not between:
                in_the_middle(patched, number)
            with pytest.raises(KeyboardInterrupt):
                db.compact(stop_at(number) if between else None)
        assert spans(db) == before
        assert problems(db) == []
        (done,) = sql(path, "select count(*) from agent_spans where contents")[0]
        assert done == (number if between else (number - 1) // 4 * 4)
        assert db.compact().spans == 2 * CALLS - done
        assert spans(db) == before
        assert problems(db) == []
        assert len(sql(path, "select * from contents")) == 2 * 2 * CALLS


OTHER = """
import sys, agentspan
with agentspan.open(sys.argv[1]) as db:
    run, open_ = sys.argv[2:4]
    messages = [{"role": "user", "content": f"turn {turn} " + "x" * 2000} for turn in range(30)]
    print("begins", flush=True)
    for turn in range(1, 31):
        db.agent_spans.create(run, "llm", "complete", {"model": "m", "messages": messages[:turn]}, {})
    db.agent_spans.finish(open_, result_payload={"text": "late " * 200})
"""


@pytest.mark.full
def test_another_program_writes_to_the_same_run_meanwhile(path: Path) -> None:
    with agentspan.open(path, tuning=STANDARD._replace(rewrite_step_spans=1)) as db:
        run = db.agent_instances.register("a")
        db.agent_instances.start(run.id)
        messages = [{"role": "user", "content": f"turn {turn} " + "x" * 2000} for turn in range(20)]
        open_ = db.agent_spans.create(run.id, "llm", "active", {"messages": messages})
        for turn in range(1, 21):
            db.agent_spans.create(run.id, "llm", "complete", {"model": "m", "messages": messages[:turn]}, {})
        as_before(path)
        before = spans(db)
        writing = subprocess.Popen(
            [sys.executable, "-c", OTHER, path, run.id, open_.id], stdout=subprocess.PIPE, text=True
        )
        assert writing.stdout is not None
        writing.stdout.readline()
        assert db.compact().spans == 20
        assert writing.wait() == 0
        writing.stdout.close()
        found = spans(db)
        assert found[1:21] == before[1:21]
        assert [row.payload for row in found[21:41]] == [row.payload for row in before[1:21]]  # type: ignore[union-attr]
        assert len(found) == 51
        assert problems(db) == []
        assert db.compact().spans == 1  # the one that was open
        assert len(sql(path, "select * from contents where text like '%turn%'")) == 30


def test_pruning_a_compacted_file_leaves_no_parts(path: Path) -> None:
    record(path)
    as_before(path)
    with agentspan.open(path) as db:
        db.compact()
        assert len(sql(path, "select * from contents")) == 3 * 2 * CALLS
        assert db.prune(older_than="9999-01-01T00:00:00Z").runs == 3
        assert problems(db) == []
    assert [sql(path, f"select count(*) from {table}") for table in ("contents", "content_runs")] == [[(0,)], [(0,)]]


def test_where_it_cannot_be_done_an_error_says_so(path: Path) -> None:
    record(path, runs=1)
    as_before(path)
    with agentspan.open(path, read_only=True) as db, pytest.raises(NotPermitted):
        db.compact()
    with pytest.raises(StorageError, match="'memory' has no file"):
        agentspan.open(MemoryStorage()).compact()


def test_the_command_says_what_it_won(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(path, runs=1, calls=30)
    as_before(path)
    before = os.path.getsize(path)
    answer = call(path, "compact")
    rewritten, sizes = answer.output.splitlines()
    assert rewritten == "30 spans rewritten"
    assert sizes == f"{before / 1e6:.1f} MB -> {os.path.getsize(path) / 1e3:.1f} kB"
    assert call(path, "compact", "--json").output.split() == (
        f'{{ "spans": 0, "bytes_before": {os.path.getsize(path)}, "bytes_after": {os.path.getsize(path)} }}'.split()
    )

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Database, "compact", interrupted)
    answer = call(path, "compact")
    assert answer.exit_code == 1
    assert "goes on with the rest" in answer.output
