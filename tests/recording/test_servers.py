"""Recording into a server through connections that break: what a program waits for, and what it does not."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan import Tracer, ids
from agentspan.journal import journal_folder
from agentspan.journal.journal_folder import is_possible, spool_of
from agentspan.otel import inject
from agentspan.recording.sinks import journal_work
from agentspan.recording.tracer import recorder_of
from agentspan.storage.location import Location, parse
from agentspan.storage.postgres.connection import Connection
from agentspan.storage.protocol import new_account
from agentspan.storage.questions import Account, Find, Question, SpansOf
from agentspan.storage.registry import OpenedLater, open_direct
from agentspan.tuning import STANDARD
from tests.postgres import Emptied
from tests.postgres_proxy import Proxy, proxy
from tests.processes.server_away import Touches
from tests.waiting import until

psycopg = pytest.importorskip("psycopg", reason="needs psycopg")

pytestmark = pytest.mark.skipif(not is_possible(), reason="needs a journal")

SIZE = STANDARD.journal_segment_bytes
PATIENT = STANDARD._replace(recording_wait_s=9.0)
"""Calls wait for a server that answers late because the machine is busy."""
SMALL = STANDARD._replace(journal_limit_bytes=SIZE, backlog_units=10)


@pytest.fixture
def between(postgres_location: Location) -> Iterator[Proxy]:
    """A proxy in front of an empty schema, whose URL names it."""
    with proxy(postgres_location.text) as made:
        yield made


def record(tracer: Tracer) -> None:
    with tracer.run("a"), tracer.span("tool", {"name": "n"}):
        pass


def test_a_flush_goes_on_when_connections_were_lost_without_a_word(between: Proxy) -> None:
    tracer = Tracer(between.url, tuning=STANDARD._replace(server_answer_s=0.3))
    record(tracer)
    assert tracer.flush(30)
    for _ in range(3):
        between.lost += 1  # whatever is sent on open connections reaches nobody, and no answer comes
        record(tracer)
        assert tracer.flush(30)
        assert tracer.health().oldest_s == 0
    tracer.shutdown()


def test_a_write_gives_up_a_connection_that_was_lost_while_it_was_idle(between: Proxy) -> None:
    with agentspan.open(between.url, tuning=STANDARD._replace(postgres_write_s=0.1)) as db:
        db.agent_instances.register("a", "1", {"external_schema_version_identifier": "1", "span_type_schemas": []})
        before = between.accepted
        between.lost += 1
        db.storage.apply([], wait_s=0.2)  # not the time before, so the session is set to it first
        assert between.accepted == before + 1


def test_a_flush_waits_for_a_server_that_comes_back(between: Proxy) -> None:
    tracer = Tracer(between.url)
    between.refuses = True
    record(tracer)
    assert not tracer.flush(0.3)
    threading.Timer(0.5, setattr, (between, "refuses", False)).start()
    assert tracer.flush(30)
    tracer.shutdown()


def test_the_end_of_a_program_tries_a_server_that_is_away_once(between: Proxy) -> None:
    tracer = Tracer(between.url)
    between.refuses = True
    record(tracer)
    until(lambda: tracer.health().last_error is not None)
    before = between.accepted
    recorder_of(tracer).release()  # as at the exit
    assert between.accepted - before <= 2  # the thread may have tried it, too
    assert tracer.health().spooled_bytes > 0
    tracer.shutdown(0.1)


def partition_of_a_run(url: str) -> int:
    """Record a run, wherever it is stored; return the partition of its id."""
    tracer = Tracer(url)
    with tracer.run("a") as run:
        pass
    tracer.shutdown(0.1)
    return ids.decode(run.id)[1]


def test_a_program_that_starts_while_the_server_is_away_knows_its_account(
    between: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, reads, files = OpenedLater.ask, list[OpenedLater](), set[int]()

    def noted(late: OpenedLater, question: Question[Any]) -> Any:
        if isinstance(question, Account):
            reads.append(late)
        return real(late, question)

    monkeypatch.setattr(OpenedLater, "ask", noted)
    for number in (1, 2):
        tracer = Tracer(between.url)
        for _ in range(3):
            record(tracer)
            assert tracer.flush(60)
        assert len(reads) == 2 * number, "for ids, and for runs that go on in another database; not for each run"
        account = real(reads[-1], Account())
        files.add(Path(f"{spool(between.url)}.account").stat().st_ino)
        tracer.shutdown()
    assert len(files) == 1, "what is known is not written again"
    between.refuses = True
    assert partition_of_a_run(between.url) == account.partition


def test_the_account_is_that_of_the_database_that_is_there_now(between: Proxy) -> None:
    with agentspan.open(between.url) as db:
        account = db.storage.ask(Account())
    spool(between.url).parent.mkdir(exist_ok=True)
    journal_folder.write(spool(between.url), new_account())  # of the one that was there before
    tracer = Tracer(between.url)
    record(tracer)
    assert tracer.flush(60)
    tracer.shutdown()
    between.refuses = True
    assert partition_of_a_run(between.url) == account.partition


def stored(url: str) -> list[str]:
    """Return the labels of all spans, after what journals on this host have was moved."""
    with agentspan.open(url) as db:
        return [span.label or "" for run in db.agent_instances.list() for span in db.storage.ask(SpansOf(run.id))]


def spool(url: str) -> Path:
    folder = spool_of(parse(url))
    assert folder is not None
    return folder


def record_much(tracer: Tracer, spans: int) -> None:
    with tracer.run("a"):
        for number in range(spans):
            with tracer.span("tool", {"name": str(number), "arguments": {"text": "x" * 20_000}}):
                pass


def test_past_its_bytes_a_spool_keeps_the_oldest_and_counts_what_it_drops(between: Proxy) -> None:
    between.refuses = True
    tracer = Tracer(between.url, tuning=SMALL)
    touches = Touches()
    record_much(tracer, 200)
    health = tracer.health()
    assert health.waiting == 10
    assert health.failed > 200
    assert health.recorded + health.waiting + health.failed == 402
    assert SIZE // 2 < health.spooled_bytes < 3 * SIZE  # a full segment, and the one that was begun
    assert touches.count == 0  # the program waited for no server
    between.refuses = False
    assert tracer.flush(60)
    record(tracer)
    assert tracer.flush(60)
    assert tracer.health().failed == health.failed
    assert tracer.health().spooled_bytes == 0
    labels = stored(between.url)
    kept = (health.recorded + health.waiting) // 2  # besides the run; the end of the last one may be dropped
    assert sorted(labels) == sorted([*map(str, range(kept)), "n"])
    tracer.shutdown()


def is_dropped(tracer: Tracer) -> bool:
    """Record a run with a span; return whether something of it was dropped."""
    before = tracer.health().failed
    record(tracer)
    return tracer.health().failed > before


def test_past_its_age_a_spool_drops_what_is_new_until_the_server_is_back(between: Proxy) -> None:
    """Runs with all that is in them. One that goes on then is registered, with what it does from then on."""
    between.refuses = True
    tracer = Tracer(between.url, tuning=STANDARD._replace(server_away_s=0.3))
    assert not is_dropped(tracer)
    until(lambda: is_dropped(tracer))
    kept = tracer.health()
    assert kept.oldest_s > 0.3
    record(tracer)
    with tracer.run("goes on") as run:
        assert tracer.health()[:3] == (kept.recorded, kept.failed + 5, 0)
        between.refuses = False
        assert tracer.flush(60)
        until(lambda: not is_dropped(tracer))
        with tracer.span("tool", {"name": "in time"}) as span:
            pass
    assert tracer.flush(60)
    assert tracer.health().spooled_bytes == 0
    with agentspan.open(between.url) as db:
        assert db.agent_instances.get(run.id).status == "complete"
        assert [each.id for each in db.agent_spans.list(run.id)] == [span.id]
        # That during which dropping began may be one whose end is missing.
        assert len(db.agent_instances.list(status="active")) <= 1
    tracer.shutdown()


def test_the_cap_is_that_of_the_host_not_of_a_program(between: Proxy) -> None:
    between.refuses = True
    first = Tracer(between.url, tuning=SMALL)
    record_much(first, 100)
    kept = first.health().recorded
    first.shutdown(0.1)
    second = Tracer(between.url, tuning=SMALL)
    record(second)
    until(lambda: second.health().last_error is not None)
    until(lambda: recorder_of(second).sink.work.is_full)  # type: ignore[union-attr]
    before = second.health().recorded
    record_much(second, 10)
    assert second.health().recorded == before
    assert (second.health().waiting, second.health().failed) == (10, 12)
    between.refuses = False
    assert second.flush(60)
    assert len(stored(between.url)) == kept // 2 + 1 + 5  # the end of the fifth was dropped
    second.shutdown()


def test_what_a_program_leaves_in_a_spool_takes_no_more_of_the_disk_than_it_has(between: Proxy) -> None:
    between.refuses = True
    tracer = Tracer(between.url)
    record(tracer)
    (segment,) = spool(between.url).glob("*.segment")
    assert segment.stat().st_size == SIZE
    spooled = tracer.health().spooled_bytes
    recorder_of(tracer).release()  # as at the exit
    assert segment.stat().st_size < spooled + 100
    record(tracer)  # by another exit handler
    between.refuses = False
    assert tracer.flush(30)
    assert stored(between.url) == ["n", "n"]
    tracer.shutdown()


def test_the_run_of_a_request_is_stored_before_another_service_can_ask_for_it(between: Proxy) -> None:
    tracer = Tracer(between.url)
    record(tracer)
    assert tracer.flush(30)
    with agentspan.open(parse(between.url)) as db, tracer.run("a") as run:
        touches = Touches()
        for _ in range(300):  # a burst, which the thread lets pass for a while
            with tracer.span("tool", {"name": "n"}):
                pass
        inject({}, tracer=tracer)
        assert touches.count == 0  # the thread that drains talks to the server
        assert run.id in db.storage.capabilities().spool.direct.ask(Find(run.id)).rows  # type: ignore[union-attr]
    tracer.shutdown()


def test_a_request_does_not_wait_for_a_server_that_does_not_answer(
    between: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer = Tracer(between.url)
    record(tracer)
    assert tracer.flush(30)
    between.is_silent = True
    with tracer.run("a"):
        until(lambda: tracer.health().oldest_s > journal_work.SLOW_S)
        drained = recorder_of(tracer).sink.work.drain.last_drained  # type: ignore[union-attr]
        with monkeypatch.context() as patch:
            patch.setattr("agentspan.disk.sleep", lambda seconds: pytest.fail("it waited"))
            inject({}, tracer=tracer)
        assert recorder_of(tracer).sink.work.drain.last_drained == drained  # type: ignore[union-attr]
    between.is_silent = False
    assert tracer.flush(30)
    tracer.shutdown()


def statements_of_a_drain(tracer: Tracer, runs: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Record runs of a span each, and return how many statements it takes to store all of them at once."""
    work = recorder_of(tracer).sink.work  # type: ignore[union-attr]
    work.thread.stop(5)
    count = 0
    execute = Connection.execute

    def counting(*args: Any, **how: Any) -> Any:
        nonlocal count
        count += 1
        return execute(*args, **how)

    with monkeypatch.context() as patch:
        patch.setattr(type(work.thread), "start", lambda thread: None)
        for _ in range(runs):
            record(tracer)
        patch.setattr(Connection, "execute", counting)
        assert tracer.flush(30)
    return count


def test_a_run_among_many_takes_three_statements(postgres_location: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    tracer = Tracer(postgres_location)
    record(tracer)
    assert tracer.flush(30)
    few, many = (statements_of_a_drain(tracer, runs, monkeypatch) for runs in (10, 60))
    assert many - few <= 3 * 50  # is its id used, put it, end it; its agent is locked once for all
    tracer.shutdown()


def test_by_commits_what_a_server_that_is_away_did_not_take_waits_in_memory(
    between: Proxy, postgres_server: Emptied
) -> None:
    tracer = Tracer(between.url, durability="commit", tuning=PATIENT)
    record(tracer)
    assert stored(between.url) == ["n"]  # each transition was committed before its call returned
    between.refuses = True
    postgres_server.end_connections()
    for _ in range(3):
        record(tracer)
    assert tracer.health()[:3] == (4, 0, 12)
    with pytest.raises(agentspan.DatabaseUnusable):
        Tracer(between.url, durability="commit")
    between.refuses = False
    assert tracer.flush(30)
    assert stored(between.url) == ["n"] * 4
    assert tracer.health()[:3] == (16, 0, 0)
    tracer.shutdown()


def test_where_there_can_be_no_spool_each_transition_is_committed_and_that_is_said_once(
    between: Proxy, without_journals: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(without_journals))
    for _ in range(2):
        tracer = Tracer(between.url, tuning=PATIENT)
        record(tracer)
        assert list(without_journals.rglob("*.segment")) == []
        tracer.shutdown()
    assert stored(between.url) == ["n", "n"]
    assert [record.message for record in caplog.records if "file system ramfs" in record.message] != []
    assert len(caplog.records) == 1


def test_what_only_the_server_can_say_is_in_health_and_in_the_log(
    postgres_server: Emptied, caplog: pytest.LogCaptureFixture
) -> None:
    location = postgres_server.new()
    open_direct(location).close()
    schema = location.text.partition("schema=")[2]
    with psycopg.connect(postgres_server.url) as connection:
        connection.execute(f"update {schema}.storage_version set version = 1000")
    tracer = Tracer(location)
    record(tracer)
    until(lambda: tracer.health().last_error is not None)
    assert "install a newer agentspan" in (tracer.health().last_error or "")
    until(lambda: "install a newer agentspan" in caplog.text)  # the thread says it a moment later
    assert tracer.health()[:3] == (4, 0, 0)
    tracer.shutdown(0.1)
