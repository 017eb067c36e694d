"""Connections to PostgreSQL that break during a commit: the change is stored once, and its outcome is the true one."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

import agentspan
from agentspan.errors import InDoubt, StorageError
from agentspan.ids import IdSource
from agentspan.model.changes import (
    LEAVES,
    OPEN,
    Applied,
    Key,
    KeyTaken,
    Move,
    Over,
    Put,
    PutSpans,
    Remove,
    Replayed,
    Unit,
)
from agentspan.model.rows import ROWS, AgentInstanceRow, AgentSpanRow, Row, TagRow
from agentspan.storage.location import Location
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.postgres.connection import Connection
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Counts, Find, Query, SpansOf, Violations
from agentspan.storage.registry import open_direct
from agentspan.testing.contract.base import T0, T1, Rows, finish, violation
from agentspan.tuning import STANDARD
from tests.journal.recorded import sink_of
from tests.postgres import Emptied, Server
from tests.postgres_proxy import Breaks, Proxy, proxy
from tests.waiting import until

psycopg = pytest.importorskip("psycopg", reason="needs psycopg")

pytestmark = pytest.mark.full

IDS = IdSource(7)


@pytest.fixture
def between(postgres_location: Location, postgres_server: Emptied) -> Iterator[Proxy]:
    """A proxy in front of the schema, whose URL names it."""
    with proxy(postgres_location.text) as made:
        yield made


@pytest.fixture
def storage(between: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    # The proxy looks for the texts of statements, which prepared ones are sent without.
    monkeypatch.setattr("psycopg._preparing.PrepareManager.prepare_threshold", None)
    made = open_direct(between.url)
    yield made
    made.close()


def changes(rows: Rows, run: AgentInstanceRow, spans: Sequence[AgentSpanRow], tag: TagRow) -> Iterator[Unit]:
    """One unit of each kind, whose subject is a row that is there afterwards."""
    agent = rows.agent()
    yield Unit((Put(agent),), agent.id)
    version, schema, other = rows.family(agent)
    other = other._replace(external_identifier="run 1")
    yield Unit((Put(version), Put(schema), Put(other)), other.id)
    for minted in (True, False):
        new = rows.span(run)
        yield Unit((Put(new, (), (violation(),), minted),), new.id)
    together = [rows.span(run, status=status) for status in ("complete", "active")]
    yield Unit((PutSpans(together, [(together[0].id, violation())]),), together[0].id)
    yield Unit((Move("agent_span", spans[0].id, OPEN, {"summary": "x", "updated_at": T1}),), spans[0].id)
    yield Unit((finish(spans[1].id, result_payload="{}"),), spans[1].id)
    yield Unit((finish(spans[2].id, "failed")._replace(instance_id=run.id),), spans[2].id)
    yield Unit((Move("agent_span", spans[3].id, OPEN, {"status": "complete"}, (violation(),)),), spans[3].id)
    over = Over(LEAVES["complete"] | {"complete"}, {"ended_late": 1}, adds=True)
    end = {"status": "failed", "updated_at": T1}
    yield Unit((Move("agent_span", spans[4].id, OPEN, end, over=(over,)),), spans[4].id)
    yield Unit((Put(TagRow(IDS.new(), run.id, "new", T0)), Remove("tag", tag.id)), run.id)
    yield Unit((Move("agent_instance", run.id, OPEN, {"status": "terminated", "termination_reason": "x"}),), run.id)
    yield Unit((finish(spans[5].id),), spans[5].id)


def everything(storage: Storage) -> dict[str, Any]:
    rows: dict[str, Any] = {type_: storage.ask(Query(type_)).rows for type_ in ROWS if type_ != "account"}
    rows["violations"] = storage.ask(Violations([row.id for row in rows["agent_span"]]))
    return rows


@pytest.mark.parametrize("breaks", ["after", "before", "silently"])
@pytest.mark.parametrize("has_key", [False, True], ids=["without a key", "with a key"])
def test_a_change_whose_commit_is_not_answered_is_stored_once(
    storage: Storage, between: Proxy, breaks: Breaks, has_key: bool
) -> None:
    like, rows = MemoryStorage(), Rows()
    version, schema, run = rows.family(agent := rows.agent())
    spans = [rows.span(run) for _ in range(6)]
    spans[4] = spans[4]._replace(status="complete", closed_by="abandoned")
    tag = TagRow(IDS.new(), run.id, "old", T0)
    begin: tuple[Row, ...] = (agent, version, schema, run, *spans, tag)
    stores: tuple[Storage, ...] = (storage, like)
    for each in stores:
        each.apply([Unit((Put(row),)) for row in begin])
    for number, unit in enumerate(changes(rows, run, spans, tag)):
        if has_key:
            unit = unit._replace(key=Key("op", str(number), "h", T0))
        between.breaks = breaks
        expected = like.apply([unit])
        outcome = storage.apply([unit], wait_s=5.0)
        assert between.breaks is None, f"unit {number} was committed without the message that is looked for"
        if outcome != expected:  # one statement, which was sent again with its key
            assert has_key
            assert isinstance(expected[0], Applied)
            assert outcome == [Replayed(expected[0].row, expected[0].terminated)]
        if has_key:
            assert storage.apply([unit])[0] == like.apply([unit])[0]
            other = unit._replace(key=Key("op", str(number), "another", T0))
            assert storage.apply([other]) == [KeyTaken()]
        assert everything(storage) == everything(like)
    assert between.broken == number + 1


@pytest.mark.parametrize("breaks", ["after", "before", "silently"])
@pytest.mark.parametrize("at", [b"put as", rb"commit\0"], ids=["changes", "commit"])
def test_changes_that_are_sent_together_are_stored_once(
    storage: Storage, between: Proxy, at: bytes, breaks: Breaks
) -> None:
    like, rows = MemoryStorage(), Rows()
    version, schema, run = rows.family(agent := rows.agent())
    spans = [rows.span(run) for _ in range(3)]
    stores: tuple[Storage, ...] = (storage, like)
    begin: tuple[Row, ...] = (agent, version, schema, run, *spans)
    for each in stores:
        each.apply([Unit((Put(row),)) for row in begin])
    new = [rows.span(run) for _ in range(3)]
    units = [Unit((Put(row, minted=number > 0),), row.id) for number, row in enumerate(new)]
    units += [
        Unit((finish(span.id)._replace(instance_id=run.id),), span.id, Key("op", span.id, "h", T0)) for span in spans
    ]
    units.append(Unit((finish(rows.ids.new())._replace(instance_id=run.id),)))  # refused
    between.at, between.breaks = at, breaks
    assert storage.apply(units, wait_s=5.0) == like.apply(units)
    assert between.broken == 1
    assert everything(storage) == everything(like)


def test_a_commit_that_is_not_answered_is_in_doubt_where_the_server_is_away(
    storage: Storage, between: Proxy, postgres_location: Location
) -> None:
    rows = Rows()
    version, schema, run = rows.family(agent := rows.agent())
    spans = [rows.span(run) for _ in range(2)]
    begin: tuple[Row, ...] = (agent, version, schema, run, *spans)
    storage.apply([Unit((Put(row),)) for row in begin])
    units = [Unit((PutSpans([rows.span(run), rows.span(run)]),)), Unit((finish(spans[0].id),))]
    for unit in units:
        assert storage.ask(Find(run.id)).rows  # a connection is there
        between.breaks, between.refuses = "after", True
        with pytest.raises(InDoubt, match="stored, or not") as raised:
            storage.apply([unit], wait_s=0.2)
        assert "sesame" not in str(raised.value)
        between.refuses = False
    assert storage.ask(Counts([run.id]))[run.id].total == 4
    assert storage.ask(Counts([run.id]))[run.id].complete == 1


def test_what_a_recorder_has_in_doubt_is_stored_once(storage: Storage, between: Proxy) -> None:
    tracer = agentspan.Tracer(storage, enabled=True)
    with tracer.run("a") as run:
        for number in range(6):
            until(lambda: not tracer.health().waiting)  # a thread writes what waits
            with tracer.span("tool", {"name": "x"}):
                if number % 2 == 0:
                    assert storage.ask(Find(run.id)).rows  # a connection is there
                    between.breaks, between.refuses = "after", True
            between.refuses = False
    tracer.flush()
    health = tracer.health()
    assert (health.failed, health.refused) == (0, 0)
    assert storage.ask(Counts([run.id]))[run.id].complete == 6
    assert storage.ask(Query("refused_change")).rows == []
    assert between.broken == 3
    tracer.shutdown()


def test_a_transaction_whose_connection_breaks_before_its_end_is_done_again(storage: Storage, between: Proxy) -> None:
    rows = Rows()
    version, schema, run = rows.family(agent := rows.agent())
    storage.apply([Unit((Put(row),)) for row in (agent, version, schema, run)])
    between.at, between.breaks = b"copy finished_spans", "after"
    assert storage.apply([Unit((PutSpans([rows.span(run, status="complete")]),))]) == [Applied()]
    assert between.broken == 1
    assert storage.ask(Counts([run.id]))[run.id].total == 1


def test_a_server_that_does_not_answer_is_not_waited_for_without_an_end(storage: Storage, between: Proxy) -> None:
    rows = Rows()
    version, schema, run = rows.family(agent := rows.agent())
    storage.apply([Unit((Put(row),)) for row in (agent, version, schema, run)])
    tuning = STANDARD._replace(postgres_write_s=0.1, postgres_statement_s=0.3, postgres_answer_s=0.3)
    hurried = open_direct(between.url, tuning=tuning)
    between.is_silent = True
    with pytest.raises(StorageError):
        hurried.ask(Find(run.id))
    with pytest.raises(StorageError):
        hurried.apply([Unit((Put(rows.span(run)),))], wait_s=0.1)
    between.is_silent = False
    assert hurried.apply([Unit((Put(rows.span(run)),))]) == [Applied()]
    hurried.close()


@pytest.mark.parametrize("number", [1, 2])
def test_a_transaction_whose_number_another_one_got_after_a_crash_is_not_taken_for_committed(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The first transaction registers a run, the second stores its spans."""
    server = Server(synchronous_commit="on", full_page_writes="on")
    crashes: list[str] = []
    commits = itertools.count(1)
    real: Any = Connection.execute

    def execute(connection: Any, query: Any, *args: Any, **how: Any) -> Any:
        if query == "commit" and next(commits) == number:
            crashes.append(query)
            server.kill()
            server.start()
            with psycopg.connect(server.url, autocommit=True) as other:  # which all commit; one has its number, mostly
                for _ in range(5):
                    other.execute("select pg_current_xact_id()")
        return real(connection, query, *args, **how)

    try:
        server.start()
        tracer = agentspan.Tracer(server.url)
        with tracer.run("before"):
            pass
        assert tracer.flush(30)
        sink_of(tracer).work.thread.running = object()  # type: ignore[assignment]  # nothing is moved before the flush
        with tracer.run("after"):
            for name in map(str, range(10)):
                with tracer.span("tool", {"name": name}):
                    pass
        monkeypatch.setattr(Connection, "execute", execute)
        assert tracer.flush(30)
        monkeypatch.undo()
        sink_of(tracer).work.thread.running = None
        health = tracer.health()
        tracer.shutdown()
        with agentspan.open(server.url) as db:
            runs = db.agent_instances.list()
            labels = [span.label for run in runs for span in db.storage.ask(SpansOf(run.id))]
    finally:
        server.remove()
    assert crashes
    assert labels == [*map(str, range(10))]
    assert (health.failed, health.refused, health.waiting) == (0, 0, 0)
