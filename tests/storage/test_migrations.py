"""What becomes of files that older versions made: opened, read, recorded into; and files that only claim to be ours."""

import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.analysis.runs import find_runs
from agentspan.api.context import Context
from agentspan.errors import DatabaseUnusable
from agentspan.journal.journal_folder import is_possible
from agentspan.maintenance import rederive
from agentspan.model.rows import AgentSpanRow
from agentspan.storage.questions import Query, SpansOf
from agentspan.storage.sqlite import SQLiteStorage, migrations
from agentspan.storage.sqlite.migrations import BEFORE, MIGRATIONS, Migration
from agentspan.tuning import STANDARD
from tests.storage.make_archive import exported, lacking
from tests.storage.old_files import VERSIONS, unpacked


def structure(path: Path) -> dict[str, str]:
    """Return the SQL of everything in a file, but for the table that is made when a run is rewritten."""
    connection = sqlite3.connect(path)
    found = dict(connection.execute("select name, sql from sqlite_master where sql is not null").fetchall())
    connection.close()
    # A column that a migration has added stands behind the others, on the same line.
    return {
        name: re.sub(r"\s+", "", sql)
        for name, sql in found.items()
        if "rewritten_runs" not in name and name != "sqlite_sequence"
    }


def with_another(*, broken: bool = False) -> Sequence[Migration]:
    """Return the migrations of a later version."""

    def another(db: Any) -> None:
        db.table("agent_spans").add_column("mood", str)
        if broken:
            db.table("never_made").add_column("mood", str)

    return (*MIGRATIONS, another)


@pytest.mark.parametrize("archive", VERSIONS, ids=lambda archive: archive.name)
def test_an_old_file_becomes_what_a_new_one_is(tmp_path: Path, archive: Path) -> None:
    path = unpacked(tmp_path, archive)
    agentspan.open(path).close()
    agentspan.SQLiteStorage(tmp_path / "new.db").close()
    assert structure(path) == structure(tmp_path / "new.db")
    connection = sqlite3.connect(path)
    assert connection.execute("pragma user_version").fetchone() == (migrations.CURRENT,)
    assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
    connection.close()


@pytest.mark.parametrize("archive", VERSIONS, ids=lambda archive: archive.name)
@pytest.mark.skipif(not is_possible(), reason="needs a journal")
def test_an_old_file_has_the_rows_that_the_code_of_then_read_also_those_of_its_journal(
    tmp_path: Path, archive: Path
) -> None:
    path = unpacked(tmp_path, archive)
    tracer = agentspan.Tracer(path, raise_errors=True)
    with tracer.run("today"), tracer.span("tool", {"name": "x"}):
        pass
    tracer.shutdown()
    connection = sqlite3.connect(path)
    shown = "select span, payload, result_payload from spans where agent = 'by id' order by span"
    before = connection.execute(shown).fetchall()
    with agentspan.open(path) as db:
        assert lacking(exported(db), (tmp_path / "runs.jsonl").read_text()) == []
        assert {agent.name for agent in db.agents.list()} == {"by id", "killed", "today"}
        (run,) = [run for run in db.agent_instances.list() if run.agent_version_id and run.quality_payloads]
        spans = len(db.agent_spans.list(run.id, page_size=100))
        first = db.agent_spans.list(run.id)[0]
        assert [each.keyword for each in db.agent_spans.violations(first.id)] == ["required"]
        assert (len(db.agent_spans.list(run.id, page_size=100)), db.doctor().problems) == (spans, [])
    assert connection.execute(shown).fetchall() == before
    connection.close()


@pytest.mark.parametrize("version", range(1, BEFORE + 1))
def test_a_file_of_before_the_first_release_is_refused_unchanged(tmp_path: Path, version: int) -> None:
    path = tmp_path / "runs.db"
    agentspan.SQLiteStorage(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"pragma user_version = {version}")
    before = path.read_bytes()
    for read_only in (True, False):
        with pytest.raises(DatabaseUnusable, match=rf"\(file version {version}\), and stays .* run `agentspan export`"):
            agentspan.open(path, read_only=read_only)
    with pytest.raises(DatabaseUnusable, match="before the first release"):
        agentspan.Tracer(path)
    assert path.read_bytes() == before


def test_an_older_program_goes_on_inserting_and_rederive_marks_what_it_wrote(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with agentspan.open(path) as db:
        run = db.agent_instances.register("a")
        db.agent_instances.start(run.id)
        span = db.agent_spans.create(run.id, "agent", "complete", {"name": "x"}, {"input_tokens": 3})
        connection = sqlite3.connect(path, isolation_level=None)
        names = [name for name in AgentSpanRow._fields if name not in ("id", "is_aggregate")]
        columns = ", ".join(names)
        copied = f"select substr(id, 1, 28) || '0000', {columns} from agent_spans"
        connection.execute(f"insert into agent_spans (id, {columns}) {copied}")
        connection.close()
        (older,) = [row for row in db.storage.ask(SpansOf(run.id)) if row.id != span.id]
        assert (older.is_aggregate, find_runs(db.storage).totals.input_tokens) == (0, 3)
        rows: Any = db.storage.ask(Query("agent_instance")).rows
        assert sum(progress.changed for progress in rederive.summaries(Context(db.storage), iter(rows))) == 1
        assert [row.is_aggregate for row in db.storage.ask(SpansOf(run.id))] == [1, 1]
        assert find_runs(db.storage).totals.input_tokens is None


def test_views_are_made_again_when_the_version_changes(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    agentspan.SQLiteStorage(path).close()
    connection = sqlite3.connect(path, isolation_level=None)
    views = {**migrations.VIEWS, "spans": "select id as span, mood from agent_spans"}
    migrations.migrate(connection, migrations.CURRENT, with_another(), views)
    assert connection.execute("select span, mood from spans").fetchall() == []
    connection.close()


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    agentspan.SQLiteStorage(path).close()
    before = structure(path)
    with pytest.raises(DatabaseUnusable, match=r"agentspan file of version \d+, but its tables are others"):
        SQLiteStorage(path, migrations=with_another(broken=True))
    assert structure(path) == before
    agentspan.open(path).close()


def test_an_older_file_can_be_opened_to_read(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    agentspan.SQLiteStorage(path).close()
    SQLiteStorage(path, read_only=True, migrations=with_another()).close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("pragma user_version").fetchone() == (migrations.CURRENT + 1,)


def test_the_migration_of_a_large_file_is_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tuning = STANDARD._replace(reported_migration_bytes=10_000)
    path = tmp_path / "runs.db"
    agentspan.SQLiteStorage(path).close()
    for _ in range(2):
        SQLiteStorage(path, migrations=with_another(), tuning=tuning).close()
        agentspan.SQLiteStorage(tmp_path / "new.db", tuning=tuning).close()
    (told,) = caplog.messages
    assert told.startswith(f"{path} is brought up to date once (from file version {migrations.CURRENT} to ")


def test_an_old_file_that_may_not_be_written_to_says_so(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    agentspan.SQLiteStorage(path).close()
    before = path.read_bytes()
    with pytest.raises(DatabaseUnusable, match=r"made by an older agentspan .*cannot be brought up to date from here"):
        SQLiteStorage(path, read_only=True, migrations=with_another(broken=True))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "lacks"),
    [
        ("alter table agent_spans drop column label", r"column agent_spans\.label"),
        ("alter table agent_instances rename column purpose to aim", r"column agent_instances\.purpose"),
        ("drop table schema_violations", "table schema_violations"),
        ("delete from accounts", "row of table accounts"),
    ],
)
def test_a_file_that_lacks_something_is_refused_when_it_is_opened(tmp_path: Path, change: str, lacks: str) -> None:
    path = tmp_path / "runs.db"
    agentspan.SQLiteStorage(path).close()
    connection = sqlite3.connect(path, isolation_level=None)
    for view in migrations.VIEWS:
        connection.execute(f"drop view {view}")
    connection.execute(change)
    connection.close()
    for read_only in (False, True):
        with pytest.raises(DatabaseUnusable, match=f"has no {lacks}; restore a copy"):
            agentspan.open(path, read_only=read_only)


def test_a_file_that_only_says_an_old_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("create table mine (a)")
    connection.execute(f"pragma application_id = {migrations.APPLICATION_ID}")
    connection.execute(f"pragma user_version = {migrations.CURRENT}")
    with pytest.raises(DatabaseUnusable, match=r"its tables are others"):
        SQLiteStorage(path, migrations=with_another())
    assert connection.execute("select name from sqlite_master").fetchall() == [("mine",)]
    connection.close()


def test_a_file_may_have_more_than_it_must(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    agentspan.SQLiteStorage(path).close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("create table notes (run text, note text)")
    connection.execute("alter table agents add column team text")
    connection.close()
    with agentspan.open(path) as db:
        assert db.agents.create("a").name == "a"
