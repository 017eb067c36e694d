"""What a file is, what is refused as one, and that each refusal says what to do."""

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.errors import DatabaseUnusable, NotPermitted, StorageError
from agentspan.model.changes import Put, Unit
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find, SpansOf
from agentspan.storage.sqlite import SQLiteStorage, migrations, opening
from agentspan.testing.contract import Rows


def test_a_new_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    with agentspan.open(tmp_path / "runs.db") as db:
        db.agents.create("a")
        for file in tmp_path.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_closing_leaves_one_file(tmp_path: Path) -> None:
    with agentspan.open(tmp_path / "runs.db") as db:
        db.agents.create("a")
        db.agents.list()
    assert [file.name for file in tmp_path.iterdir()] == ["runs.db"]


def test_an_existing_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    agentspan.SQLiteStorage(path).close()
    path.chmod(0o640)
    agentspan.open(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_the_file_is_in_wal_mode_and_marked_as_ours(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    agentspan.SQLiteStorage(path).close()
    connection = sqlite3.connect(path)
    assert connection.execute("pragma journal_mode").fetchone() == ("wal",)
    assert connection.execute("pragma application_id").fetchone() == (migrations.APPLICATION_ID,)
    assert connection.execute("pragma user_version").fetchone() == (migrations.CURRENT,)
    connection.close()


def test_every_table_is_strict(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    agentspan.SQLiteStorage(path).close()
    connection = sqlite3.connect(path)
    found = {name: strict for _, name, kind, _, _, strict in connection.execute("pragma table_list") if kind == "table"}
    connection.close()
    ours = {name: strict for name, strict in found.items() if not name.startswith("sqlite_")}
    assert set(ours) >= {
        "agents",
        "agent_versions",
        "agent_schema_versions",
        "agent_instances",
        "agent_spans",
        "schema_violations",
        "idempotency_keys",
        "writers",
    }
    assert set(ours.values()) == {1}


def test_an_up_to_date_file_does_not_import_sqlite_utils(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    agentspan.SQLiteStorage(path).close()
    code = (
        "import sys, agentspan\n"
        f"agentspan.configure({str(path)!r})\n"
        "with agentspan.run('a'), agentspan.span('llm', {'model': 'm'}): pass\n"
        "print([m for m in ('sqlite_utils', 'jsonschema', 'asyncio', 'pydantic.main', 'click') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are my notes, " * 100)
    with pytest.raises(DatabaseUnusable, match=r"notes\.txt is not an SQLite database; choose another path"):
        agentspan.open(path)
    assert path.read_text().startswith("these are my notes")


def test_another_programs_database_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("create table mine (a)")
    connection.commit()
    before = connection.execute("select sql from sqlite_master").fetchall()
    with pytest.raises(DatabaseUnusable, match="tables of another program; choose another path"):
        agentspan.open(path)
    connection.execute("pragma user_version = 1")
    with pytest.raises(DatabaseUnusable, match="database of another program; choose another path"):
        agentspan.open(path)
    assert connection.execute("select sql from sqlite_master").fetchall() == before
    connection.close()


def test_a_newer_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    agentspan.open(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"pragma user_version = {migrations.CURRENT + 1}")
    connection.close()
    for read_only in (False, True):
        with pytest.raises(DatabaseUnusable, match=r"newer agentspan .*; install a newer agentspan"):
            agentspan.open(path, read_only=read_only)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnusable, match=r"the folder .*nowhere does not exist; create it"):
        agentspan.open(tmp_path / "nowhere" / "runs.db")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnusable, match="is a folder; name a file"):
        agentspan.open(tmp_path)


def test_an_old_sqlite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnusable, match=r"is 3\.37\.2, agentspan needs 3\.38\.0; use a newer build of Python"):
        SQLiteStorage(tmp_path / "runs.db", sqlite_version=(3, 37, 2))
    assert not (tmp_path / "runs.db").exists()


def test_a_damaged_file_is_reported_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with agentspan.open(path) as db:
        run = db.agent_instances.register("a")
        for number in range(200):
            db.agent_spans.create(run.id, "tool", "active", {"name": str(number)})
    damaged = bytearray(path.read_bytes())
    damaged[4096 * 3 :] = b"\x55" * (len(damaged) - 4096 * 3)
    path.write_bytes(damaged)
    with pytest.raises(DatabaseUnusable, match="damaged"), agentspan.open(path) as db:
        db.agent_spans.list(run.id)


def test_a_path_may_have_any_characters(tmp_path: Path) -> None:
    path = tmp_path / "ä b?c#d%41.db"
    with agentspan.open(path) as db:
        db.agents.create("a")
    assert path.exists()
    assert len(list(tmp_path.iterdir())) == 1


def test_read_only_reads_and_refuses_to_write(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with agentspan.open(path) as db:
        db.agents.create("a")
    with agentspan.open(path, read_only=True) as db:
        assert [agent.name for agent in db.agents.list()] == ["a"]
        with pytest.raises(NotPermitted, match="read_only"):
            db.agents.create("b")


def test_read_only_sees_what_a_writer_commits_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    agentspan.SQLiteStorage(path).close()
    with agentspan.open(path) as db, agentspan.open(path, read_only=True) as reader:
        assert len(reader.agents.list()) == 0
        db.agents.create("a")
        assert len(reader.agents.list()) == 1


def test_read_only_does_not_make_a_file(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnusable, match="nothing has been recorded there yet"):
        agentspan.open(tmp_path / "runs.db", read_only=True)
    assert not (tmp_path / "runs.db").exists()
    (tmp_path / "empty.db").touch()
    with pytest.raises(DatabaseUnusable, match="open it once to write"):
        agentspan.open(tmp_path / "empty.db", read_only=True)


def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    with agentspan.open(tmp_path / "empty.db") as db:
        db.agents.create("a")
    with agentspan.open(tmp_path / "empty.db", read_only=True) as db:
        assert [agent.name for agent in db.agents.list()] == ["a"]


def test_a_failed_migration_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"

    def half(db: object) -> None:
        migrations.MIGRATIONS[0](db)  # type: ignore[arg-type]
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        SQLiteStorage(path, migrations=(half,))
    connection = sqlite3.connect(path)
    assert connection.execute("select count(*) from sqlite_master").fetchone() == (0,)
    connection.close()
    agentspan.open(path).close()


def test_a_file_that_was_replaced_is_noticed_when_a_run_starts(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    with tracer.run("before"):
        pass
    assert tracer.flush()
    for file in tmp_path.glob("runs.db*"):
        if file.is_file():
            file.unlink()
    with tracer.run("after"), tracer.span("tool", {"name": "x"}):
        pass
    tracer.shutdown()
    with agentspan.open(path, read_only=True) as db:
        assert [agent.name for agent in db.agents.list()] == ["after"]


def test_a_copy_of_the_file_is_the_whole_recording(tmp_path: Path) -> None:
    with agentspan.open(tmp_path / "runs.db") as db:
        run = db.agent_instances.register("a")
    shutil.copy(tmp_path / "runs.db", tmp_path / "copy.db")
    with agentspan.open(tmp_path / "copy.db") as copy:
        assert copy.agent_instances.get(run.id) == run


def test_a_frozen_clock_does_not_make_a_busy_file_wait_for_ever(tmp_path: Path) -> None:
    from freezegun import freeze_time

    path = tmp_path / "runs.db"
    agentspan.SQLiteStorage(path).close()
    with agentspan.open(path) as db:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("begin immediate")
        db.agents._ctx.wait_s = 0.05
        with (
            freeze_time("2026-01-01"),
            pytest.raises(agentspan.DatabaseBusy, match=r"(stayed locked|kept) .* try again"),
        ):
            db.agents.create("a")
        other.execute("rollback")
        other.close()
        db.agents._ctx.wait_s = 10.0
        assert db.agents.create("a").name == "a"


@pytest.mark.skipif(os.geteuid() == 0, reason="needs a user who is not root")
def test_a_file_that_may_not_be_written_says_so(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    agentspan.open(path).close()
    path.chmod(0o400)
    with pytest.raises(DatabaseUnusable, match="permissions"):
        agentspan.open(path).agents.create("a")


def test_a_replaced_file_is_noticed_by_those_who_had_it_open(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with agentspan.open(path) as db:
        run = db.agent_instances.register("old")
        for _ in range(2):
            db.agent_spans.create(run.id, "tool", "active", {"name": "x"})
        reading = db.storage.ask(SpansOf(run.id))
        next(reading)
        for file in tmp_path.iterdir():
            file.unlink()
        assert db.storage.ask(Find(run.id)).rows == {}  # a reader of its own, which finds the new file
        db.agent_instances.register("new")
        reading.close()  # type: ignore[attr-defined]
        assert db.storage.ask(Find(run.id)).rows == {}
        assert [agent.name for agent in db.agents.list()] == ["new"]
    with agentspan.open(path, read_only=True) as db:
        assert [agent.name for agent in db.agents.list()] == ["new"]


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_group_whose_file_is_deleted_is_in_the_new_file_or_raises(tmp_path: Path, goes_on: bool) -> None:
    """Its work is called once only, so it cannot be done again."""
    calls: list[None] = []
    agent = Unit((Put(Rows().agent("a")),))

    def work(storage: Storage) -> None:
        calls.append(None)
        storage.apply([agent])
        if not goes_on:
            delete()

    def delete() -> None:
        for file in tmp_path.iterdir():
            file.unlink()

    with agentspan.open(tmp_path / "runs.db") as db:
        db.agents.create("before")
        if goes_on:
            delete()
            db.storage.group(work, 1.0)
        else:
            with pytest.raises(StorageError, match=r"runs\.db was deleted or replaced in the middle"):
                db.storage.group(work, 1.0)
        assert [found.name for found in db.agents.list()] == ["a"] * goes_on
    assert len(calls) == 1


@pytest.mark.parametrize("times", [1, 5, 1000])
def test_a_file_that_is_deleted_while_it_is_made_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    path, left = tmp_path / "runs.db", [None] * times
    prepare = opening.prepare

    def deleted_before(*args: Any, **how: Any) -> None:
        if left:
            left.pop()
            path.unlink()
        prepare(*args, **how)

    monkeypatch.setattr(opening, "prepare", deleted_before)
    if times > 100:
        with pytest.raises(StorageError, match=r"runs\.db is deleted again and again"):
            agentspan.SQLiteStorage(path)
        return
    with agentspan.open(path) as db:
        db.agents.create("a")
    with agentspan.open(path, read_only=True) as db:
        assert [agent.name for agent in db.agents.list()] == ["a"]


def test_a_fork_leaves_a_thread_nothing_of_sqlite_to_free(tmp_path: Path) -> None:
    with agentspan.open(tmp_path / "runs.db") as db:
        db.agents.create("a")
        cursor = db.storage.direct._connections.cursor  # type: ignore[attr-defined]  # as a thread has it that wrote just now
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        with pytest.raises(sqlite3.ProgrammingError, match="closed cursor"):
            cursor.fetchone()
        db.agents.create("b")
