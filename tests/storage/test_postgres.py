"""What only the PostgreSQL backend has: its tables, connections, timeouts, locks and one-statement finishes."""

import json
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.errors import DatabaseBusy, DatabaseUnusable, InvalidValue, StorageError
from agentspan.model.changes import LEAVES, Applied, Key, Move, Put, PutSpans, Unit
from agentspan.model.columns import columns_of
from agentspan.model.rows import ROWS, AgentInstanceRow, AgentSpanRow
from agentspan.storage.location import Location
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Account, Counts, Damage, Find, Mend, Notes, Query, Select, SpansOf
from agentspan.storage.registry import open_direct
from agentspan.testing.contract.base import T0, T1, Rows, finish
from tests.checkout import ROOT
from tests.postgres import Emptied
from tests.storage.make_archive import exported, lacking
from tests.storage.old_files import SCHEMAS, archived_schema
from tests.waiting import until

psycopg = pytest.importorskip("psycopg", reason="needs psycopg")

from agentspan.storage.postgres.migrations import BEFORE  # noqa: E402  # needs psycopg
from agentspan.storage.postgres.statements import table_of  # noqa: E402
from agentspan.storage.postgres.storage import PostgresStorage  # noqa: E402

pytestmark = pytest.mark.full

PAGE = ROOT / "docs" / "postgresql.md"
HAS_ROLES = "select 1 from pg_roles where rolname = 'recorder'"
TYPES = {str: "text", int: "bigint", float: "double precision"}


@pytest.fixture
def storage(postgres_location: Location) -> Iterator[Storage]:
    made = open_direct(postgres_location)
    yield made
    made.close()


@pytest.fixture
def asked(postgres_server: Emptied, storage: Storage) -> Iterator[Callable[[str], list[Any]]]:
    """Executes SQL beside the storage."""
    with psycopg.connect(postgres_server.url, autocommit=True, options="-csearch_path=shared") as connection:
        yield lambda sql: connection.execute(sql).fetchall()


def run_in(storage: Storage) -> AgentInstanceRow:
    rows = Rows()
    agent = rows.agent()
    version, schema, run = rows.family(agent)
    storage.apply([Unit((Put(row),)) for row in (agent, version, schema, run)])
    return run


def run_of_before(storage: PostgresStorage) -> AgentInstanceRow:
    """Put a run into tables of an older version, whose agents have fewer columns."""
    rows = Rows()
    agent = rows.agent()
    columns = "id, external_identifier, name, description, status, inserted_at, updated_at"
    with storage._connections.lent(5) as connection:
        connection.execute(f"insert into agents ({columns}) values (%s, %s, %s, %s, %s, %s, %s)".encode(), agent[:7])
    version, schema, run = rows.family(agent)
    storage.apply([Unit((Put(row),)) for row in (version, schema, run)])
    return run


def test_the_tables_have_the_columns_of_the_rows(asked: Callable[[str], list[Any]]) -> None:
    found: dict[str, list[tuple[str, str, bool]]] = {}
    for table, *column in asked(
        "select table_name, column_name, data_type, is_nullable = 'YES' from information_schema.columns "
        "where table_schema = 'shared' order by ordinal_position"
    ):
        found.setdefault(table, []).append((column[0], column[1].replace("integer", "bigint"), column[2]))
    for type_, row in ROWS.items():
        columns = [
            (
                column.name,
                "timestamp with time zone" if column.holds == "time" else TYPES[column.type],
                column.nullable,
            )
            for column in columns_of(type_)
        ]
        for table in ("open_spans", "finished_spans") if row is AgentSpanRow else (table_of(type_),):
            extra = [("xid", "xid8", False)] if table == "finished_spans" else []
            assert sorted(found[table]) == sorted([*columns, *extra])  # a column that is added later is the last one


def test_the_views_have_the_columns_of_a_file(asked: Callable[[str], list[Any]], tmp_path: Path) -> None:
    agentspan.SQLiteStorage(tmp_path / "runs.db").close()
    file = sqlite3.connect(tmp_path / "runs.db")
    for view in ("runs", "spans", "agent_spans"):
        columns = f"select column_name from information_schema.columns where table_name = '{view}'"
        found = asked(f"{columns} and table_schema = 'shared' order by ordinal_position")
        columns = f"select name from pragma_table_info('{view}') where name <> 'contents'"
        assert sorted(found) == sorted(file.execute(columns).fetchall())
    file.close()


def test_keys_allow_distribution_by_run(asked: Callable[[str], list[Any]]) -> None:
    """Each unique key of what belongs to a run has the run in it, at the first place; there are no foreign keys."""
    found = asked(
        "select table_name from information_schema.columns where table_schema = 'shared' "
        "and column_name = 'agent_instance_id' and is_nullable = 'NO'"
    )
    by_run = {table for (table,) in found}
    keys = asked("select tablename, indexdef from pg_indexes where schemaname = 'shared' and indexdef like '%UNIQUE%'")
    assert len(keys) > 10
    for table, definition in keys:
        if table in by_run - {"agent_spans", "run_names", "otel_traces"}:
            assert "(agent_instance_id, " in definition or "(agent_instance_id)" in definition, definition
    assert asked("select 1 from pg_constraint where contype = 'f' and connamespace = 'shared'::regnamespace") == []


def test_texts_compare_by_code_points(asked: Callable[[str], list[Any]]) -> None:
    other = asked(
        "select table_name, column_name from information_schema.columns where table_schema = 'shared' and "
        "data_type = 'text' and collation_name is distinct from 'C' and table_name not in ('runs', 'spans')"
    )
    assert other == []


def test_a_program_that_cannot_connect_is_told_why_without_the_password() -> None:
    with pytest.raises(DatabaseUnusable, match="cannot be reached") as raised:
        agentspan.open("postgresql://mia:sesame@127.0.0.1:1/x?connect_timeout=2")
    assert "sesame" not in str(raised.value)
    with pytest.raises(InvalidValue) as wrong:
        agentspan.open("postgresql://mia:sesame@127.0.0.1/x?no_such_parameter=1")
    assert "sesame" not in str(wrong.value)
    with pytest.raises(InvalidValue, match="schema"):
        agentspan.open('postgresql://mia@127.0.0.1/x?schema=a";drop')


def test_a_reader_makes_no_tables(postgres_server: Emptied) -> None:
    location = postgres_server.new()
    with pytest.raises(DatabaseUnusable, match="open it once with a program that may write"):
        open_direct(location, read_only=True)


def test_tables_of_a_newer_version_are_left_alone(postgres_server: Emptied) -> None:
    location = postgres_server.new()
    open_direct(location).close()
    schema = location.text.partition("schema=")[2]
    with psycopg.connect(postgres_server.url) as connection:
        connection.execute(f"update {schema}.storage_version set version = 1000")
    with pytest.raises(DatabaseUnusable, match="install a newer agentspan"):
        open_direct(location)


@pytest.mark.parametrize("archive", SCHEMAS, ids=lambda archive: archive.name)
def test_tables_of_an_older_version_are_migrated_with_their_rows(postgres_server: Emptied, archive: Path) -> None:
    location = postgres_server.new()
    name = location.text.partition("?schema=")[2]
    archived = archived_schema(archive)
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        connection.execute(archived.sql.replace("archived.", f"{name}.").replace("SCHEMA archived", f"SCHEMA {name}"))
    with agentspan.open(location.text) as db:
        assert lacking(exported(db), archived.runs) == []
        assert db.storage.ask(Damage()) == []


@pytest.mark.parametrize("version", [1, BEFORE])
def test_tables_of_before_the_first_release_are_refused(postgres_server: Emptied, version: int) -> None:
    location = postgres_server.new()
    open_direct(location).close()
    name = location.text.partition("?schema=")[2]
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        connection.execute(f"update {name}.storage_version set version = {version}")
    for read_only in (True, False):
        with pytest.raises(DatabaseUnusable, match=rf"first release \(schema version {version}\), and stays"):
            open_direct(location, read_only=read_only)


def test_programs_that_start_together_make_the_tables_once(postgres_server: Emptied) -> None:
    location = postgres_server.new()
    accounts: list[object] = []

    def open_it() -> None:
        opened = open_direct(location)
        accounts.append(opened.ask(Account()))
        opened.close()

    threads = [threading.Thread(target=open_it) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(accounts) == 5
    assert len(set(accounts)) == 1


def test_connections_that_the_server_ended_are_replaced(storage: Storage, asked: Callable[[str], list[Any]]) -> None:
    run = run_in(storage)
    assert len(asked("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'agentspan'")) > 0
    until(lambda: asked("select 1 from pg_stat_activity where application_name = 'agentspan'") == [])
    assert storage.ask(Find(run.id)).rows[run.id][1] == run
    assert storage.apply([Unit((Put(Rows().span(run)),))]) == [Applied()]


def test_a_writer_waits_for_a_lock_no_longer_than_it_may(storage: Storage, postgres_server: Emptied) -> None:
    run, rows = run_in(storage), Rows()
    span = rows.span(run)
    storage.apply([Unit((Put(span),))])
    with psycopg.connect(postgres_server.url) as other:
        other.execute("select 1 from shared.open_spans for update")
        for wait_s in (0.0, 0.05):  # in PostgreSQL, a timeout of 0 is none
            with pytest.raises(DatabaseBusy):
                storage.apply([Unit((finish(span.id),))], wait_s=wait_s)
    assert storage.apply([Unit((finish(span.id),))]) == [Applied()]


def test_opposite_orders_of_runs_do_not_wait_for_each_other(storage: Storage) -> None:
    """Locks are taken in the order of the runs, so that no deadlock has to be found first, after a second."""
    runs, rows = [run_in(storage) for _ in range(6)], Rows()
    outcomes: list[object] = []

    def write(order: list[AgentInstanceRow]) -> None:
        for _ in range(5):
            outcomes.extend(storage.apply([Unit((Put(rows.span(run), minted=True),)) for run in order]))

    threads = [threading.Thread(target=write, args=(order,)) for order in (runs, runs[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [Applied()] * 60
    assert sum(counts.total for counts in storage.ask(Counts([run.id for run in runs])).values()) == 60


def test_a_finish_is_one_statement(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its key and its row, without BEGIN and COMMIT."""
    run, rows = run_in(storage), Rows()
    plain, keyed = rows.span(run), rows.span(run)
    storage.apply([Unit((Put(plain),)), Unit((Put(keyed),))], wait_s=1.0)
    statements = executed(monkeypatch)
    assert storage.apply([Unit((finish(plain.id),))], wait_s=1.0) == [Applied()]
    key = Key("finish", "k", "h", T0)
    done = keyed._replace(status="complete", updated_at=T1)
    assert storage.apply([Unit((finish(keyed.id),), keyed.id, key)], wait_s=1.0) == [Applied(done)]
    assert len(statements) == 2
    assert storage.ask(Find(key=key)).key == ("h", keyed.id)


@pytest.mark.parametrize("number", [2, 300])
def test_runs_of_one_call_take_as_many_statements_however_many_they_are(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Their registrations, with which a drain begins, and their ends."""
    run, rows = run_in(storage), Rows()
    runs = [run._replace(id=rows.ids.new()) for _ in range(number)]
    puts = [Unit((Put(each, minted=True),), each.id) for each in runs]
    values: dict[str, Any] = {"status": "complete", "finished_at": T1, "updated_at": T1}
    ends = [Unit((Move("agent_instance", each.id, LEAVES["complete"], values),)) for each in runs]
    statements = executed(monkeypatch)
    assert storage.apply([*puts, *ends]) == [*(Applied(each) for each in runs), *[Applied()] * number]
    assert len(statements) <= 10
    assert storage.ask(Find(runs[-1].id)).rows[runs[-1].id][1] == runs[-1]._replace(**values)


def executed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the statements that are executed from now on; a list that grows."""
    from agentspan.storage.postgres.connection import Connection

    statements: list[str] = []
    execute: Any = Connection.execute

    def noted(self: Any, query: Any, *args: Any, **how: Any) -> Any:
        statements.append(query)
        return execute(self, query, *args, **how)

    monkeypatch.setattr(Connection, "execute", noted)
    return statements


def test_open_and_finished_spans_are_one_relation(storage: Storage, asked: Callable[[str], list[Any]]) -> None:
    run, rows = run_in(storage), Rows()
    spans = [rows.span(run, status=status) for status in ("active", "complete", "pending", "failed")]
    storage.apply([Unit((PutSpans(spans),))])
    assert asked("select (select count(*) from open_spans), (select count(*) from finished_spans)") == [(2, 2)]
    assert storage.ask(Query("agent_span", {"agent_instance_id": run.id})).rows == spans


def test_spans_have_the_agent_of_their_run_and_get_it_again(
    storage: Storage, asked: Callable[[str], list[Any]]
) -> None:
    run, rows = run_in(storage), Rows()
    spans = [rows.span(run)._replace(agent_id="gone") for _ in range(3)]
    for unit in (Unit((Put(spans[0], minted=True),)), Unit((PutSpans(spans[1:]),))):
        assert isinstance(storage.apply([unit])[0], Applied)
    assert {span.agent_id for span in storage.ask(SpansOf(run.id))} == {run.agent_id}
    asked("update open_spans set agent_id = 'gone' returning id")
    assert storage.ask(Damage()) == ["3 of agent_spans have another agent than their run"]
    assert storage.ask(Mend(5.0)) == (0, 3)
    assert storage.ask(Damage()) == []


def test_a_history_is_stored_whole_in_each_span(storage: Storage, asked: Callable[[str], list[Any]]) -> None:
    payload = json.dumps({"messages": [{"role": "user", "content": "x" * 600}] * 20})
    run, rows = run_in(storage), Rows()
    spans = [rows.span(run, status="complete", payload=payload) for _ in range(2)]
    storage.apply([Unit((PutSpans(spans),))])
    assert asked("select payload from finished_spans") == [(payload,)] * 2


@pytest.mark.parametrize("table", ["agent_instances where id", "open_spans where agent_instance_id"])
def test_writers_of_different_runs_do_not_wait_for_each_other(
    storage: Storage, postgres_server: Emptied, table: str
) -> None:
    run, other, rows = run_in(storage), run_in(storage), Rows()
    spans = [rows.span(run), rows.span(other)]
    storage.apply([Unit((Put(span),)) for span in spans])
    with psycopg.connect(postgres_server.url) as writer:
        assert writer.execute(f"select 1 from shared.{table} = %s for update", (run.id,)).fetchall() == [(1,)]
        assert (
            storage.apply([Unit((finish(spans[1].id),)), Unit((Put(rows.span(other)),))], wait_s=0.0) == [Applied()] * 2
        )


def test_a_run_of_many_spans_is_read_in_parts(storage: Storage) -> None:
    run, rows = run_in(storage), Rows()
    spans = [rows.span(run) for _ in range(2500)]
    storage.apply([Unit((PutSpans(spans),))])
    assert list(storage.ask(SpansOf(run.id))) == spans
    left = storage.ask(SpansOf(run.id))
    next(left)
    left.close()  # type: ignore[attr-defined]
    assert storage.ask(Counts([run.id]))[run.id].total == 2500


@pytest.mark.parametrize("text", ["2026-01-01", "2026-01-01T00:00:00.000000Zz", "x", "", "2026-99-01T00:00:00.000000Z"])
def test_what_is_no_time_compares_as_text(storage: Storage, text: str) -> None:
    run = run_in(storage)
    span = Rows().span(run)
    storage.apply([Unit((Put(span),))])
    assert storage.ask(Query("agent_span", start_time=text)).rows == ([span] if text <= T0 else [])
    assert storage.ask(Query("agent_span", {"started_at": text})).rows == []


def test_ids_that_no_row_can_have_are_not_there(storage: Storage) -> None:
    assert storage.ask(Find("a\0b", "\ud800")).rows == {}
    assert storage.ask(Query("agent", {"name": "a\0b"}, with_total=True)) == ([], 0)
    assert storage.ask(Counts(["\0"]))["\0"].total == 0


def test_sql_leaves_nothing_behind(storage: Storage) -> None:
    run = run_in(storage)
    for query in ("commit", "set transaction read write", "begin", "copy agents to stdout", "vacuum", "listen x"):
        with pytest.raises(InvalidValue):
            storage.ask(Select(query))
    with pytest.raises(InvalidValue):
        storage.ask(Select("select 1; commit; delete from agents"))
    with pytest.raises(InvalidValue):
        storage.ask(Select("with gone as (delete from agents returning id) select id from gone"))
    answer = storage.ask(
        Select(
            "-- a comment\nselect count(*), sum(spans), max(started_at) from runs where run like '%' || ?",
            (run.id[-5:],),
        )
    )
    assert answer.rows == [(1, 0, T0)]


def test_the_roles_of_the_page_have_the_rights_that_they_need(storage: Storage, postgres_server: Emptied) -> None:
    (sql,) = re.findall(r"^```sql\n(create role.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    run, rows = run_in(storage), Rows()
    with psycopg.connect(postgres_server.url) as owner:
        owner.execute("drop owned by recorder, reader" if owner.execute(HAS_ROLES).fetchone() else "select 1")
        owner.execute("drop role if exists recorder, reader")
        owner.execute(sql.replace("schema agentspan", "schema shared").replace("agentspan.notes", "shared.notes"))
    url = postgres_server.url.replace("agentspan:sesame", "{}") + "?schema=shared"
    recorder = open_direct(url.format("recorder"))
    span = rows.span(run)
    assert recorder.apply([Unit((Put(span),)), Unit((finish(span.id),))]) == [Applied(), Applied()]
    recorder.close()
    reader = open_direct(url.format("reader"), read_only=True)
    assert agentspan.open(reader).runs().runs[0].spans == 1
    with pytest.raises(DatabaseUnusable, match="lacks a privilege"):
        reader.ask(Notes("logins/secret"))
    reader.close()
    mistaken = open_direct(url.format("reader"))
    with pytest.raises(DatabaseUnusable, match="lacks a privilege"):
        mistaken.apply([Unit((Put(rows.span(run)),))])
    mistaken.close()


def test_a_role_that_reads_all_tables_does_not_read_notes(postgres_server: Emptied) -> None:
    location = postgres_server.new()
    name = location.text.partition("?schema=")[2]
    with psycopg.connect(postgres_server.url) as owner:
        owner.execute(f"create schema {name}")
        owner.execute(f"create role of_{name}; create role writer_of_{name}")
        for grant, role in (("select", f"of_{name}"), ("select, insert, update, delete", f"writer_of_{name}")):
            owner.execute(f"alter default privileges in schema {name} grant {grant} on tables to {role}")
    open_direct(location).close()
    with psycopg.connect(postgres_server.url, options=f"-csearch_path={name}") as owner:
        asked = "select has_table_privilege(%s, 'notes', 'select')"
        assert [owner.execute(asked, (f"{of}of_{name}",)).fetchone() for of in ("", "writer_")] == [(False,), (True,)]


def test_a_closed_server_is_a_storage_error(tmp_path: Path) -> None:
    from tests.postgres import server

    with server() as url:
        storage = open_direct(url)
        run = run_in(storage)
    with pytest.raises(StorageError):
        storage.ask(Find(run.id))
    with pytest.raises(StorageError):
        storage.apply([Unit((Put(Rows().span(run)),))], wait_s=1.0)
    storage.close()
