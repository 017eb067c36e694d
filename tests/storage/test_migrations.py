"""What becomes of files that older versions made: opened, read, recorded into; and files that only claim to be ours."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.analysis.runs import RunFilter, find_runs
from agentspan.errors import DatabaseUnusable
from agentspan.journal.events import SEPARATOR, decode_unit, encode_unit
from agentspan.journal.journal_folder import is_possible
from agentspan.maintenance.resummarize import resummarize
from agentspan.model.changes import Put, Unit
from agentspan.model.rows import AgentSpanRow
from agentspan.operations.context import Context
from agentspan.schemas.aggregates import is_aggregate
from agentspan.storage.protocol import Query
from agentspan.storage.scores import newest_scores
from agentspan.storage.sqlite import SQLiteStorage, tables
from agentspan.storage.sqlite.migrations import MIGRATIONS, Migration
from agentspan.tuning import STANDARD
from tests.storage.old_files import EIGHTH, FILES, FOURTH, NINTH, SEVENTH, SIXTH, THIRD, unpacked


def structure(path: Path) -> dict[str, str]:
    """Return the SQL of everything in a file, but for the table that is made when a run is rewritten."""
    connection = sqlite3.connect(path)
    found = dict(connection.execute("select name, sql from sqlite_master where sql is not null").fetchall())
    connection.close()
    return {name: sql for name, sql in found.items() if "rewritten_runs" not in name and name != "sqlite_sequence"}


def migrated(path: Path, migrations: Sequence[Migration], views: Mapping[str, str]) -> sqlite3.Connection:
    """Make a file by some of the migrations."""
    connection = sqlite3.connect(path, isolation_level=None)
    tables.migrate(connection, 0, migrations, views)
    return connection


def with_another(*, broken: bool = False) -> Sequence[Migration]:
    """Return the migrations of a later version."""

    def another(db: Any) -> None:
        db.table("agent_spans").add_column("mood", str)
        if broken:
            db.table("never_made").add_column("mood", str)

    return (*MIGRATIONS, another)


def test_the_first_migration_makes_what_the_code_before_made(tmp_path: Path) -> None:
    before = structure(unpacked(tmp_path))
    migrated(tmp_path / "new.db", MIGRATIONS[:1], tables.VIEWS).close()
    made = structure(tmp_path / "new.db")
    assert set(made) == set(before)
    for name in set(made) - set(tables.VIEWS):
        assert made[name] == before[name]


@pytest.mark.parametrize("name", sorted(file.name for file in FILES.glob("version-*.tar.gz")))
def test_an_old_file_becomes_what_a_new_one_is(tmp_path: Path, name: str) -> None:
    path = unpacked(tmp_path, name)
    agentspan.open(path).close()
    agentspan.open(tmp_path / "new.db").close()
    migrated, new = structure(path), structure(tmp_path / "new.db")
    assert migrated == new
    connection = sqlite3.connect(path)
    assert connection.execute("pragma user_version").fetchone() == (tables.CURRENT,)
    assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
    connection.close()


@pytest.mark.skipif(not is_possible(), reason="needs a journal")
def test_an_old_file_is_read_and_recorded_into_with_what_its_journal_holds(tmp_path: Path) -> None:
    path = unpacked(tmp_path)
    tracer = agentspan.Tracer(path, raise_errors=True)
    with tracer.run("today"), tracer.span("tool", {"name": "x"}):
        pass
    tracer.shutdown()
    with agentspan.open(path) as db:
        agents = {agent.id: agent.name for agent in db.agents.list()}
        runs = list(db.agent_instances.list(page_size=100))
        assert set(agents.values()) == {"planner", "by id", "killed", "never registered", "today"}
        (run,) = [run for run in runs if agents[run.agent_id] == "by id"]
        again = db.agent_spans.create(run.id, "tool", "active", {"name": "open"}, idempotency_key="create-1")
        assert len(db.agent_spans.list(run.id)) == 2  # that key was used before
        assert again.status == "active"
        spans = [span for run in runs for span in db.storage.iter_spans(run.id)]
        assert {"in Paris", "Tool second()", "Tool x()"} <= {span.summary for span in spans}
        (lookup,) = [span for span in spans if span.schema_name == "lookup"]
        assert [each.keyword for each in db.agent_spans.violations(lookup.id)] == ["required"]
        assert db.doctor().problems == []
    with agentspan.open(path, read_only=True) as db:
        assert db.storage.page(agentspan.storage.protocol.Query("refused_change")).rows == []


@pytest.mark.skipif(not is_possible(), reason="needs a journal")
def test_a_run_of_an_older_program_has_no_commit_also_where_its_journal_registers_it(tmp_path: Path) -> None:
    path = unpacked(tmp_path, THIRD)
    with agentspan.open(path) as db:
        found = find_runs(db.storage)
        assert {run.agent for run in found.runs} == {"planner", "broken", "by id", "killed", "never registered"}
        assert {run.run.git_commit for run in found.runs} == {None}
        assert find_runs(db.storage, RunFilter(git_commit="")).total == 0
        assert db.doctor().problems == []


def test_in_spans_of_an_older_program_nothing_is_marked_as_sensitive(tmp_path: Path) -> None:
    with agentspan.open(unpacked(tmp_path, FOURTH)) as db:
        runs = db.agent_instances.list()
        spans = [span for run in runs for span in db.agent_spans.list(run.id)]
        assert len(spans) == (6 if is_possible() else 5)
        assert not any(span.sensitive_encoding for span in spans)


@pytest.mark.skipif(not is_possible(), reason="needs a journal")
def test_runs_and_spans_of_an_older_program_have_none_of_the_newest_columns(tmp_path: Path) -> None:
    with agentspan.open(unpacked(tmp_path, SIXTH)) as db:
        runs = db.agent_instances.list()
        assert {(run.session, run.user) for run in runs} == {(None, None)}
        spans = [span for run in runs for span in db.storage.iter_spans(run.id)]
        assert {(span.response_id, span.cache_write_tokens) for span in spans} == {(None, None)}
        assert {"Tool first()", "LLM second"} <= {span.summary for span in spans}
        assert db.doctor().problems == []
    tracer = agentspan.Tracer(tmp_path / "runs.db", raise_errors=True)
    with tracer.run("today", session="trip-7", user="mia") as run, tracer.span("llm", model="m") as span:
        span.set_result({"text": "a", "response_id": "answer-1", "input_tokens": 9, "cache_write_tokens": 7})
    tracer.shutdown()
    with agentspan.open(tmp_path / "runs.db", read_only=True) as db:
        stored = db.agent_spans.get(span.id)
        assert (stored.response_id, stored.cache_write_tokens) == ("answer-1", 7)
        today = db.agent_instances.get(run.id)
        assert (today.session, today.user) == ("trip-7", "mia")


@pytest.mark.skipif(not is_possible(), reason="needs a journal")
def test_runs_of_an_older_program_have_no_task_tags_or_scores_and_new_runs_do(tmp_path: Path) -> None:
    path = unpacked(tmp_path, SEVENTH)
    with agentspan.open(path) as db:
        runs = db.agent_instances.list()
        assert len(runs) == 5  # that of the journal too
        assert {(run.task, run.git_dirty, *run.tags) for run in runs} == {(None, None)}
        assert newest_scores(db.storage, [run.id for run in runs]) == []
        assert {name for run in runs for name in run.quality_payloads} == {"reward"}
        assert db.doctor().problems == []
    tracer = agentspan.Tracer(path, raise_errors=True)
    with tracer.run("today", task="retail-3", tags=["nightly"]) as run:
        pass
    tracer.shutdown()
    with agentspan.open(path, read_only=True) as db:
        today = db.agent_instances.get(run.id)
        assert (today.task, today.tags) == ("retail-3", ["nightly"])


NAMES = [
    ":".join(parts) for n in range(5) for parts in product(("agent", "llm", "", "Agent", "agents", "a%"), repeat=n)
]


@pytest.mark.full
def test_the_third_migration_marks_the_spans_that_a_new_file_marks(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    connection = migrated(path, MIGRATIONS[:2], {})
    values = "'a', 'a', ?, '', 'complete', '{}', '', ''"
    columns = "id, agent_id, agent_instance_id, schema_name, schema_title, status, payload, inserted_at, updated_at"
    connection.executemany(f"insert into agent_spans ({columns}) values (?, {values})", enumerate(NAMES))
    agentspan.open(path).close()
    marked = dict(connection.execute("select schema_name, is_aggregate from agent_spans").fetchall())
    assert marked == {name: int(is_aggregate(name)) for name in NAMES}
    assert sum(marked.values()) > len(NAMES) / 10
    connection.close()


def test_an_older_program_goes_on_inserting_and_resummarize_marks_what_it_wrote(tmp_path: Path) -> None:
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
        (older,) = [row for row in db.storage.iter_spans(run.id) if row.id != span.id]
        assert (older.is_aggregate, find_runs(db.storage).totals.input_tokens) == (0, 3)
        rows: Any = db.storage.page(Query("agent_instance")).rows
        assert sum(progress.changed for progress in resummarize(Context(db.storage), iter(rows))) == 1
        assert [row.is_aggregate for row in db.storage.iter_spans(run.id)] == [1, 1]
        assert find_runs(db.storage).totals.input_tokens is None


def test_the_view_of_the_newest_version_shows_the_same_payloads(tmp_path: Path) -> None:
    path = unpacked(tmp_path, EIGHTH)
    shown = "select span, payload, result_payload from spans where agent = 'planner' order by span"
    connection = sqlite3.connect(path)
    before = connection.execute(shown).fetchall()
    stored = [text for (text,) in connection.execute("select payload from agent_spans")]
    assert {text.count('{"$content') for text in stored} == {1, 2}
    agentspan.open(path).close()
    assert connection.execute(shown).fetchall() == before
    assert [json.loads(payload)["model"] for _, payload, _ in before] == ["m"] * 8
    connection.close()


def test_the_agents_of_before_have_no_owner_and_may_get_one(tmp_path: Path) -> None:
    with agentspan.open(unpacked(tmp_path, NINTH)) as db:
        agents = list(db.agents.list())
        assert sorted(agent.name for agent in agents) == ["killed", "named", "planner"]
        assert {(agent.owner_person_id, agent.team_id, agent.risk_profile_id) for agent in agents} == {(None,) * 3}
        named = db.agents.show(external_identifier="by-id")
        assert db.agents.update(named.id, team_id="team-1").team_id == "team-1"
        assert db.agents.get(named.id).description == "for people"


def test_a_span_that_an_older_program_put_into_a_journal_is_marked_when_it_is_read() -> None:
    row = AgentSpanRow("s", "a", "r", None, "prefactor:agent:main", "", "complete", "{}", *[None] * 15)  # type: ignore[arg-type]
    _, _, text = encode_unit(Unit((Put(row),), "s")).partition(SEPARATOR)
    subject, [[*put, values, violations, minted]] = json.loads(text)
    older = json.dumps([subject, [[*put, values[:-2], violations, minted]]])
    (change,) = decode_unit(older).changes
    assert isinstance(change, Put)
    assert change.row == row._replace(is_aggregate=1)


def test_views_are_made_again_when_the_version_changes(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    agentspan.open(path).close()
    connection = sqlite3.connect(path, isolation_level=None)
    views = {**tables.VIEWS, "spans": "select id as span, mood from agent_spans"}
    tables.migrate(connection, tables.CURRENT, with_another(), views)
    assert connection.execute("select span, mood from spans").fetchall() == []
    connection.close()


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    agentspan.open(path).close()
    before = structure(path)
    with pytest.raises(DatabaseUnusable, match=r"agentspan file of version \d+, but its tables are others"):
        SQLiteStorage(path, migrations=with_another(broken=True))
    assert structure(path) == before
    agentspan.open(path).close()


def test_an_old_file_can_be_opened_to_read(tmp_path: Path) -> None:
    path = unpacked(tmp_path)
    with agentspan.open(path, read_only=True) as db:
        assert len(db.agent_instances.list()) > 1
    connection = sqlite3.connect(path)
    assert connection.execute("pragma user_version").fetchone() == (tables.CURRENT,)
    connection.close()


def test_the_migration_of_a_large_file_is_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tuning = STANDARD._replace(reported_migration_bytes=10_000)
    path = unpacked(tmp_path)
    for _ in range(2):
        agentspan.open(path, tuning=tuning).close()
        agentspan.open(tmp_path / "new.db", tuning=tuning).close()
    (told,) = caplog.messages
    assert told.startswith(f"{path} is brought up to date once (from file version 1 to {tables.CURRENT})")


def test_an_old_file_that_may_not_be_written_to_says_so(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    agentspan.open(path).close()
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
    agentspan.open(path).close()
    connection = sqlite3.connect(path, isolation_level=None)
    for view in tables.VIEWS:
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
    connection.execute(f"pragma application_id = {tables.APPLICATION_ID}")
    connection.execute("pragma user_version = 1")
    with pytest.raises(DatabaseUnusable, match=r"its tables are others"):
        SQLiteStorage(path, migrations=with_another())
    assert connection.execute("select name from sqlite_master").fetchall() == [("mine",)]
    connection.close()


def test_a_file_may_have_more_than_it_must(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    agentspan.open(path).close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("create table notes (run text, note text)")
    connection.execute("alter table agents add column team text")
    connection.close()
    with agentspan.open(path) as db:
        assert db.agents.create("a").name == "a"
