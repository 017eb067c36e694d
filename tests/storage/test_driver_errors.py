"""No error of SQLite's driver leaves the backend: each method raises a StorageError, whatever happens to the file."""

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.errors import NotPermitted, NotStorable, StorageError
from agentspan.model.changes import Key, Move, Put, PutSpans, Unit
from agentspan.model.rows import Row
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import (
    Account,
    Compact,
    Counts,
    Damage,
    Find,
    LatestScores,
    NewestScores,
    Outlines,
    Query,
    RemoveKeys,
    RemoveRuns,
    RunFilter,
    RunSums,
    RunsWhere,
    Search,
    SpansOf,
    SpanStats,
    SpanSums,
    Tags,
    UsedBytes,
    Violations,
)
from agentspan.storage.sqlite import SQLiteStorage
from agentspan.testing.contract import T0, Rows

ROWS = Rows()
AGENT = ROWS.agent("a")
VERSION, SCHEMA, RUN = ROWS.family(AGENT)
SPAN = ROWS.span(RUN)
KEY = Key("create", "k", "h", T0)


READS: dict[str, Callable[[SQLiteStorage], object]] = {
    "account": lambda storage: storage.ask(Account()),
    "find": lambda storage: storage.ask(Find(RUN.id, SPAN.id, key=KEY)),
    "page": lambda storage: storage.ask(Query("agent_span", with_total=True)),
    "iter_spans": lambda storage: list(storage.ask(SpansOf(RUN.id))),
    "counts": lambda storage: storage.ask(Counts([RUN.id])),
    "violations": lambda storage: storage.ask(Violations([SPAN.id])),
    "outlines": lambda storage: storage.ask(Outlines(RUN.id)),
    "sums": lambda storage: storage.ask(SpanSums(RUN.id)),
    "newest_scores": lambda storage: storage.ask(NewestScores([RUN.id])),
    "latest_scores": lambda storage: storage.ask(LatestScores("reward")),
    "tags": lambda storage: storage.ask(Tags([RUN.id])),
    "check": lambda storage: storage.ask(Damage()),
    "used_bytes": lambda storage: storage.ask(UsedBytes()),
}
OTHERS: dict[str, Callable[[SQLiteStorage], object]] = {
    "find_runs": lambda storage: storage.ask(RunsWhere(RunFilter(), limit=1)),
    "span_stats": lambda storage: storage.ask(SpanStats()),
    "run_sums": lambda storage: storage.ask(RunSums([])),
    "search_spans": lambda storage: storage.ask(Search(["x"], limit=1)),
}
WRITES: dict[str, Callable[[SQLiteStorage], object]] = {
    "apply one": lambda storage: storage.apply([Unit((Put(ROWS.span(RUN), minted=True),))], wait_s=0),
    "apply a move": lambda storage: storage.apply([move({"summary": "x"})], wait_s=0),
    "apply several": lambda storage: storage.apply([Unit((Put(ROWS.span(RUN)),), None)] * 2, wait_s=0),
    "apply together": lambda storage: storage.apply([Unit((PutSpans([ROWS.span(RUN)]),))], wait_s=0),
    "group": lambda storage: storage.group(lambda lent: lent.apply([move({"summary": "y"})]), 0),
    "remove_runs": lambda storage: storage.ask(RemoveRuns([RUN.id], 0)),
    "remove_keys": lambda storage: storage.ask(RemoveKeys("9", 0)),
    "compact": lambda storage: storage.ask(Compact(0)),
}


def move(values: dict[str, Any], id: str = SPAN.id) -> Unit:
    return Unit((Move("agent_span", id, frozenset({"active"}), values),))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "runs.db"
    storage = SQLiteStorage(path)
    rows: list[Row] = [AGENT, VERSION, SCHEMA, RUN, SPAN, *(ROWS.span(RUN, summary="x" * 3000) for _ in range(50))]
    storage.apply([Unit(tuple(Put(row) for row in rows))])
    storage.close()
    return path


def no_driver_error(call: Callable[[SQLiteStorage], object], storage: SQLiteStorage) -> None:
    with suppress(StorageError, NotPermitted):
        call(storage)


@pytest.mark.full
@pytest.mark.parametrize("name", [*READS, *WRITES])
def test_a_closed_file(path: Path, name: str) -> None:
    storage = SQLiteStorage(path)
    storage.close()
    with pytest.raises(StorageError, match="closed"):
        (READS | WRITES)[name](storage)


@pytest.mark.parametrize("name", WRITES)
def test_a_file_that_is_only_read(path: Path, name: str) -> None:
    storage = SQLiteStorage(path, read_only=True)
    with pytest.raises(NotPermitted):
        WRITES[name](storage)
    storage.close()


@pytest.mark.full
@pytest.mark.parametrize("name", [*READS, *OTHERS, *WRITES])
def test_a_damaged_file(path: Path, name: str) -> None:
    storage = SQLiteStorage(path)
    storage.ask(Find(RUN.id))
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    no_driver_error((READS | OTHERS | WRITES)[name], storage)
    no_driver_error(lambda storage: storage.close(), storage)


@pytest.mark.full
@pytest.mark.parametrize("name", [*READS, *OTHERS, *WRITES])
def test_a_file_without_its_tables(path: Path, name: str) -> None:
    storage = SQLiteStorage(path)
    other = sqlite3.connect(path)
    for table in (
        "agent_spans",
        "agent_instances",
        "accounts",
        "schema_violations",
        "idempotency_keys",
        "scores",
        "tags",
    ):
        other.execute(f"alter table {table} rename to {table}_gone")
    other.commit()
    other.close()
    call = (READS | OTHERS | WRITES)[name]
    if name in ("check", "used_bytes", "compact"):
        no_driver_error(call, storage)
    else:
        with pytest.raises(StorageError, match="no such table"):
            call(storage)
    storage.close()


@pytest.mark.parametrize("name", ["apply one", "apply a move", "apply several", "apply together", "group"])
def test_a_full_disk(path: Path, name: str) -> None:
    storage = SQLiteStorage(path)
    connection = storage.direct._connections.writer()
    (pages,) = connection.execute("pragma page_count").fetchone()
    connection.execute(f"pragma max_page_count = {pages}")
    with pytest.raises(StorageError, match="full"):
        fill(storage, WRITES[name])
    storage.close()


@pytest.mark.parametrize("name", ["apply one", "apply a move", "apply several", "apply together", "group"])
def test_a_trigger_that_forbids_it(path: Path, name: str) -> None:
    other = sqlite3.connect(path)
    for verb in ("insert", "update"):
        other.execute(f"create trigger no_{verb} before {verb} on agent_spans begin select raise(abort, 'no'); end")
    other.commit()
    other.close()
    storage = SQLiteStorage(path)
    with pytest.raises(NotStorable):
        WRITES[name](storage)
    storage.close()


def fill(storage: SQLiteStorage, write: Callable[[SQLiteStorage], object]) -> None:
    """Write until there is no room."""
    for _ in range(500):
        write(storage)
        storage.apply([Unit((Put(ROWS.span(RUN, summary="x" * 3000)),))])


BAD = ("\ud800", 2**70)


@pytest.mark.parametrize("value", BAD, ids=["a lone surrogate", "a large number"])
def test_a_value_that_cannot_be_bound(path: Path, value: Any) -> None:
    storage = SQLiteStorage(path)
    row = ROWS.span(RUN)._replace(summary=value)
    works: tuple[Callable[[Storage], object], ...] = (
        lambda storage: storage.apply([Unit((Put(row, minted=True),))]),
        lambda storage: storage.apply([Unit((Put(row),)), Unit((Put(row),))]),
        lambda storage: storage.apply([Unit((PutSpans([row]),))]),
        lambda storage: storage.apply([move({"summary": value})]),
        lambda storage: storage.ask(Find(value)),
        lambda storage: storage.ask(Query("agent_span", {"summary": value})),
    )
    for work in works:
        with pytest.raises(NotStorable) as raised:
            work(storage)
        assert "ud800" not in str(raised.value)
        with pytest.raises(NotStorable):
            storage.group(work, 5.0)
    assert storage.ask(Find(row.id)).rows == {}
    storage.close()


def test_a_unit_that_cannot_be_stored_costs_no_other(path: Path) -> None:
    tracer = agentspan.Tracer(path, durability="commit", raise_errors=False)
    other = sqlite3.connect(path)
    other.execute(
        "create trigger no_bad before insert on agent_spans when new.payload like '%forbidden%' "
        "begin select raise(abort, 'no'); end"
    )
    other.commit()
    other.close()
    with tracer.run("a"):
        for name in ("one", "forbidden", "two"):
            with tracer.span("tool", {"name": name}):
                pass
    assert tracer.flush()
    assert tracer.health().failed >= 1
    assert tracer.health().waiting == 0
    tracer.shutdown()
    with agentspan.open(path) as reading:
        assert reading.runs(limit=1).runs[0].spans == 2


def test_what_a_storage_raises_is_no_os_error() -> None:
    for error in (StorageError, agentspan.DatabaseBusy, agentspan.DatabaseUnusable, NotStorable, NotPermitted):
        assert not issubclass(error, OSError)
