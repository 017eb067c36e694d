"""Recording through a journal, from the program's side: what it reads back, what it survives, what it leaves."""

import gc
import os
import shutil
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan import Tracer
from agentspan.errors import StorageError
from agentspan.journal import adopting
from agentspan.journal.journal_folder import folder_of
from agentspan.journal.segments import take_over
from agentspan.journal.spool import segments
from agentspan.recording.git_commit import commit_replaced
from agentspan.recording.sinks.journal_work import DrainThread, Ticks
from agentspan.recording.tracer import recorder_of
from agentspan.schemas.span_types import describe
from agentspan.storage.questions import Find, SpansOf
from agentspan.storage.sqlite import SQLiteStorage
from agentspan.tuning import STANDARD
from tests.journal.recorded import Untrimmed, die, sink_of, statuses
from tests.journal.segment_files import segments_of
from tests.tiers import every
from tests.waiting import until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def undrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is drained but by who asks for it."""
    monkeypatch.setattr(DrainThread, "start", lambda thread: None)


def record(tracer: Tracer, spans: int = 1) -> None:
    with tracer.run("a"):
        for number in range(spans):
            with tracer.span("tool", {"name": str(number)}):
                pass


READS: dict[str, Callable[[agentspan.Database, str, str], Any]] = {
    "get": lambda db, run, span: db.agent_spans.get(span).status,
    "list": lambda db, run, span: db.agent_spans.list(run)[0].status,
    "instance": lambda db, run, span: "complete" if db.agent_instances.get(run).span_counts.complete else "",
    "instances": lambda db, run, span: "complete" if db.agent_instances.list()[0].span_counts.complete else "",
    "iter": lambda db, run, span: next(iter(db.storage.ask(SpansOf(run)))).status,
    "find": lambda db, run, span: db.storage.ask(Find(span)).rows[span][1].status,  # type: ignore[union-attr]
}


@pytest.mark.usefixtures("undrained")
@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("before", [False, True])
def test_a_program_sees_its_own_writes(path: Path, read: str, read_only: bool, before: bool) -> None:
    tracer = Tracer(path, raise_errors=True)
    db = agentspan.open(path, read_only=read_only) if before else None
    with tracer.run("a") as run, tracer.span("tool", {"name": "x"}) as span:
        pass
    db = db or agentspan.open(path, read_only=read_only)
    assert READS[read](db, run.id, span.id) == "complete"
    with run.create_span("tool", {"name": "y"}, status="active"):
        pass
    assert [found.status for found in db.agent_spans.list(run.id)] == ["complete", "complete"]
    db.close()
    tracer.shutdown()


@pytest.mark.usefixtures("undrained")
def test_testing_load_and_bulk_see_them_too(path: Path) -> None:
    tracer = Tracer(path, raise_errors=True)
    record(tracer)
    assert [span.status for run in agentspan.testing.load(path) for span in run.spans] == ["complete"]
    record(tracer)
    with agentspan.open(path) as db:
        (run, _) = db.agent_instances.list(sorting="id")
        answer = db.bulk([{"_type": "agent_spans/list", "idempotency_key": "a" * 8, "agent_instance_id": run.id}])
        assert "'status': 'complete'" in str(answer)
    tracer.shutdown()


@pytest.mark.usefixtures("undrained")
def test_a_link_to_the_file_is_the_file(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "latest.db"
    link.symlink_to(path)
    tracer = Tracer(path, raise_errors=True)
    record(tracer)
    with agentspan.open(link) as db:
        assert db.agent_instances.list()[0].span_counts.complete == 1
    record(tracer)
    die(tracer)
    with agentspan.open(link) as db:
        assert [run.span_counts.complete for run in db.agent_instances.list()] == [1, 1]
    assert sorted(each.name for each in tmp_path.iterdir() if "spool" in each.name) == []


@pytest.mark.usefixtures("undrained")
def test_a_read_sees_all_of_a_long_journal(path: Path) -> None:
    at_once = STANDARD._replace(read_drains_s=0.0, recording_wait_s=0.0, drain_portion_bytes=1024)
    tracer = Tracer(path, raise_errors=True, tuning=at_once)  # a round is over at once
    record(tracer, 300)
    with agentspan.open(path) as db:
        assert db.agent_instances.list()[0].span_counts.complete == 300
    tracer.shutdown()


@pytest.mark.usefixtures("undrained")
def test_what_the_recorder_meets_is_not_raised_where_somebody_reads(path: Path) -> None:
    tracer = Tracer(path)
    record(tracer)
    sink_of(tracer).commits.progress.deferred.raised = RuntimeError("ours")
    with agentspan.open(path) as db:
        assert db.agent_instances.list()[0].span_counts.complete == 1
    tracer.shutdown()


def test_a_look_that_fails_costs_no_span(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracer = Tracer(path, tuning=STANDARD._replace(termination_look_s=0.0))
    with tracer.run("a"), monkeypatch.context() as patch:

        def fail(*asked: Any) -> Any:
            raise StorageError("no more files may be opened")

        patch.setattr(type(recorder_of(tracer).store), "ask", fail)
        with tracer.span("tool", {"name": "x"}):
            pass
    assert tracer.flush()
    assert tracer.health()[:3] == (4, 0, 0)
    tracer.shutdown()
    assert statuses(path) == ["complete"]


def test_a_tracer_that_is_dropped_leaves_nothing_undone(path: Path) -> None:
    gc.collect()  # what tests before this one dropped
    before = len(os.listdir("/proc/self/fd"))
    tracer = Tracer(path)
    record(tracer, 50)
    del tracer
    gc.collect()
    until(lambda: statuses(path) == ["complete"] * 50)
    # The index of its log is closed with the next file: a finalizer would swallow what signal handlers raise in it.
    until(lambda: gc.collect() >= 0 and len(os.listdir("/proc/self/fd")) <= before + 1)

    def adopted() -> bool:  # not while the thread that drains has its segment
        agentspan.open(path).close()
        return segments_of(path) == []

    until(adopted)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_change_reaches_the_file_by_itself(path: Path) -> None:
    tracer = Tracer(path)
    with tracer.run("a"), tracer.span("tool", {"name": "x"}):
        until(lambda: statuses(path) == ["active"])
    until(lambda: statuses(path) == ["complete"])
    tracer.shutdown()


@pytest.mark.parametrize("what", ["segment", "folder"])
def test_a_deleted_segment_is_noticed_and_recording_goes_on(path: Path, what: str) -> None:
    tracer = Tracer(path)
    with tracer.run("a"):
        with tracer.span("tool", {"name": "before"}):
            pass
        if what == "segment":
            for segment in segments_of(path):
                segment.unlink()
        else:
            shutil.rmtree(path.with_name("runs.db.spool"))
        for _ in range(3):
            with tracer.span("tool", {"name": "after"}):
                pass
        until(lambda: tracer.health().recorded == 9 and sink_of(tracer).work.drain.journaled == 0)
        until(lambda: sink_of(tracer).log._segment is None or sink_of(tracer).log._segment.is_there())  # type: ignore[union-attr]
        with tracer.span("tool", {"name": "in a new one"}):
            assert [take_over(segment) for segment in segments_of(path)] == [None]
    tracer.shutdown()
    assert statuses(path) == ["complete"] * 5
    assert tracer.health()[:3] == (12, 0, 0)


@pytest.mark.usefixtures("undrained")
def test_what_dead_processes_left_is_brought_in_by_one_that_lives(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = Tracer(path)
    record(dead, 20)
    die(dead)
    monkeypatch.undo()
    living = Tracer(path)
    with living.run("b"):
        until(lambda: _record_one(living) and len(statuses(path)) > 20)
        until(lambda: statuses(path)[:20] == ["complete"] * 20)
    living.shutdown()
    assert segments_of(path) == []


def _record_one(tracer: Tracer) -> bool:
    with tracer.span("tool", {"name": "living"}):
        return True


@pytest.mark.usefixtures("undrained")
def test_reads_look_for_what_was_left_once_a_second(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Path] = []

    def look(folder: Path) -> list[Path]:
        looks.append(folder)
        return segments(folder)

    monkeypatch.setattr(adopting, "segments", look)
    folder_of(path).mkdir(0o700, parents=True)
    began = time.monotonic()
    db = agentspan.open(path)
    run = db.agent_instances.register("a")
    for _ in range(20):
        db.agent_instances.get(run.id)
    assert 1 <= len(looks) <= 2 + (time.monotonic() - began)
    db.close()


@pytest.mark.usefixtures("undrained")
def test_an_end_of_a_program_does_not_take_over_the_work_of_many(path: Path) -> None:
    for _ in range(3):
        dead = Tracer(path)
        record(dead, 50)
        die(dead)
    tuning = STANDARD._replace(recovery_batch_records=10)
    adoption = adopting.Adoption(lambda: shared(path), path.with_name("runs.db.spool"), tuning=tuning)
    adoption.look(at_once=True, most_s=-1.0)
    assert 0 < len(statuses(path)) < 50
    adoption.look(at_once=True)
    assert statuses(path) == ["complete"] * 150
    assert segments_of(path) == []


def shared(path: Path) -> Any:
    return closing(SQLiteStorage(path))


@pytest.mark.usefixtures("undrained")
def test_a_change_that_came_too_late_is_kept_once_however_often_it_is_read(path: Path, tmp_path: Path) -> None:
    tracer = Tracer(path)
    with tracer.run("a") as run:
        span = run.create_span("tool", {"name": "x"}, status="active")
        tracer.flush()
        with agentspan.open(path) as db:
            db.agent_spans.finish(span.id, result_payload={"output": "by another"})
        span.finish("failed", {"error": {"type": "E", "message": "mine"}})
    shutil.copytree(path.with_name("runs.db.spool"), tmp_path / "aside")
    die(tracer)
    for _ in range(3):
        with agentspan.open(path) as db:
            report = db.doctor()
            assert [(row.subject, row.why, row.stored_status) for row in report.refused] == [
                (span.id, "status", "complete")
            ]
            assert db.agent_spans.get(span.id).result_payload == {"output": "by another"}
        shutil.copytree(tmp_path / "aside", path.with_name("runs.db.spool"))


@pytest.mark.usefixtures("undrained")
def test_a_span_that_went_on_after_it_was_stored_keeps_that_when_it_is_read_again(path: Path) -> None:
    """Killed between the commit and the mark, while others went on to append."""
    tracer = Tracer(path)
    with Untrimmed(), tracer.run("a") as run:
        span = run.create_span("tool", {"name": "x"})
        tracer.flush()
        span.update_payload({"arguments": {"a": 1}})
        span.start()
        die(tracer)
    with agentspan.open(path) as db:
        found = db.agent_spans.get(span.id)
        assert (found.status, found.payload) == ("active", {"name": "x", "arguments": {"a": 1}})


@pytest.mark.usefixtures("undrained")
def test_a_run_whose_agent_others_made_meanwhile_is_brought_in_with_its_spans(path: Path) -> None:
    tracer, theirs = Tracer(path), Tracer(path, durability="commit")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("begin immediate")
    with tracer.run("same agent", version="1") as run, tracer.span("tool", {"name": "x"}):
        pass
    other.execute("rollback")
    with theirs.run("same agent", version="1"):
        pass
    die(tracer)
    with agentspan.open(path) as db:
        (first, second) = db.agent_instances.list(sorting="id")
        assert first.agent_id == second.agent_id
        (span,) = db.agent_spans.list(run.id)
        assert (span.status, span.agent_id) == ("complete", first.agent_id)
        assert db.doctor().refused_total == 0
    other.close()


@pytest.mark.usefixtures("undrained")
def test_a_run_that_waited_in_the_journal_has_the_commit_of_its_program(path: Path) -> None:
    agentspan.open(path).close()
    tracer, other = Tracer(path), sqlite3.connect(path, isolation_level=None)
    other.execute("begin immediate")
    with commit_replaced("ab" * 20), tracer.run("a") as run:
        pass
    other.execute("rollback")
    other.close()
    die(tracer)
    with agentspan.open(path) as db:
        assert db.agent_instances.get(run.id).git_commit == "ab" * 20
        assert db.doctor().refused_total == 0


def not_bad(span_type: Any, schema_name: str, *args: Any) -> Any:
    """A bug of ours, in what is made of the spans of one type."""
    if schema_name == "bad":
        raise RuntimeError("a bug of ours")
    return describe(span_type, schema_name, *args)


def test_one_span_that_cannot_be_derived_costs_no_other(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentspan.journal.deriving.describe", not_bad)
    tracer = Tracer(path)
    with tracer.run("a"):
        for name in ("tool", "bad", "tool"):
            with tracer.span(name, {"name": "x"}):
                pass
    tracer.flush()
    assert statuses(path) == ["complete"] * 2
    assert (tracer.health().failed, sink_of(tracer).work.drain.journaled) == (2, 0)
    tracer.shutdown()


class Cursed(SQLiteStorage):
    """A bug of a backend: it cannot store what has a certain word in it."""

    def apply(self, units: Any, **options: Any) -> Any:
        if any("cursed" in repr(unit) and "RefusedChangeRow" not in repr(unit) for unit in units):
            raise ValueError("a bug of the backend")
        return super().apply(units, **options)


@pytest.mark.usefixtures("undrained")
def test_each_record_is_counted_as_recorded_refused_or_failed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one batch: a run and a span that the storage fails on, what needs that run, and a span that is not derived."""
    monkeypatch.setattr("agentspan.journal.deriving.describe", not_bad)
    tracer = Tracer(Cursed(path))
    with tracer.run("cursed"), tracer.span("tool", {"name": "without a run"}):
        pass
    with tracer.run("a"):
        for name, tool in (("tool", "x"), ("bad", "x"), ("tool", "cursed"), ("tool", "y")):
            with tracer.span(name, {"name": tool}):
                pass
    assert tracer.flush()
    health = tracer.health()
    # Of the span that could not be derived two records; of one that is put whole, with its end, one.
    assert (health.failed, health.refused) == (1 + 1 + 2, 2)
    assert health.recorded + health.refused + health.failed == 2 * (2 + 5)
    assert statuses(path) == ["complete"] * 2
    with agentspan.open(path) as db:
        assert (db.doctor().refused_total, db.doctor().damage_total) == (2, 4)
    tracer.shutdown()


@pytest.mark.usefixtures("undrained")
def test_a_dead_segment_with_such_a_span_is_read_to_its_end_and_the_span_kept(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer = Tracer(path)
    with tracer.run("a"):
        for name in ("tool", "bad", "tool"):
            with tracer.span(name, {"name": "x"}):
                pass
    die(tracer)
    monkeypatch.setattr("agentspan.journal.deriving.describe", not_bad)
    with agentspan.open(path) as db:
        assert [row.why for row in db.doctor(dry_run=True).damage] == ["unreadable"] * 2
    assert statuses(path) == ["complete"] * 2
    assert segments_of(path) == []


@pytest.mark.parametrize("shape", ["decorated", "with"])
def test_a_span_takes_two_records_few_calls_and_none_of_the_system(
    path: Path, monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    tracer = Tracer(path, raise_errors=True)
    calls: Counter[str] = Counter()

    @tracer.span("tool")
    def search(query: str) -> str:
        return query

    def one() -> None:
        if shape == "decorated":
            search("x" * 250)
            return
        with tracer.span("tool", {"name": "search", "arguments": {"query": "x" * 250}}) as span:
            span.set_result({"output": "y" * 280})

    def count(frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            calls["python"] += 1
        elif event == "c_call":
            calls[getattr(argument, "__module__", None) or "method"] += 1

    with tracer.run("a"):
        one()
        before = sink_of(tracer).log.sequence
        counted: list[Counter[str]] = []
        for _ in range(200):
            calls = Counter()
            sys.setprofile(count)
            try:
                one()
            finally:
                sys.setprofile(None)
            counted.append(calls)
        assert sink_of(tracer).log.sequence == before + 2 * 200
    # Of the spans in the middle, which are the same on every machine: now and then one takes new random bits (once a
    # millisecond, so more of them on a slow machine) or a new segment.
    counted.sort(key=Counter.total)
    usual = counted[len(counted) // 2]
    assert not usual.keys() & {*SYSTEM}, usual
    assert usual["python"] <= 28, usual
    assert usual.total() <= 68, usual
    tracer.shutdown()


SYSTEM = ("posix", "fcntl", "mmap", "_io", "_sqlite3", "sqlite3", "_thread", "_socket", "select")


@pytest.mark.usefixtures("undrained")
def test_a_thousand_spans_are_two_inserts_in_one_commit(path: Path) -> None:
    tracer = Tracer(path, raise_errors=True)
    seen: list[str] = []
    with tracer.run("a"):
        tracer.flush()
        for _ in range(1000):
            with tracer.span("tool", {"name": "x"}):
                pass
        connection = tracer.storage.direct._connections.writer()  # type: ignore[attr-defined]
        connection.set_trace_callback(lambda statement: seen.append(statement.split(" ")[0]))
        tracer.flush()
        connection.set_trace_callback(None)
    assert seen == ["begin", "savepoint", "select", "insert", "insert", "release", "commit"]
    tracer.shutdown()


BROKEN = {
    "nothing": b"",
    "an end of nothing": b"F",
    "an end with too much": b"F\x1fx\x1fcomplete\x1f1\x1f1\x1f{}\x1f{}",
    "a start of nothing": b"S",
    "a payload of nothing": b"U",
    "a unit of nothing": b"X",
    "a span without a payload": b"C\x1fx",
    "a payload that is three": b"C\x1fx\x1fi\x1fa\x1f\x1ftool\x1factive\x1f1700000000000000000\x1f{}],5,[{}",
    "no text": b"C\xff",
}


@pytest.mark.usefixtures("undrained")
@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("spans", every(2, [3, 120]))
@pytest.mark.parametrize("record", BROKEN)
def test_a_record_that_says_nothing_costs_no_other(path: Path, record: str, spans: int, killed: bool) -> None:
    tracer = Tracer(path)
    with tracer.run("a"):
        for number in range(spans):
            with tracer.span("tool", {"name": str(number)}):
                pass
            if number == 1:
                assert sink_of(tracer)._append(BROKEN[record])
    if killed:
        die(tracer)
        with agentspan.open(path) as db:
            assert db.doctor().damage_total == 1
        assert segments_of(path) == []
    else:
        assert tracer.flush()
        assert (tracer.health().failed, sink_of(tracer).work.drain.journaled) == (1, 0)
        tracer.shutdown()
    assert statuses(path) == ["complete"] * spans


@pytest.mark.usefixtures("undrained")
@pytest.mark.parametrize("why", ["a bug of the backend's", "a run that is gone"])
def test_what_comes_too_late_is_kept_beside_a_span_that_cannot_be_stored(path: Path, why: str) -> None:
    tracer = Tracer(Choosy(path))
    with tracer.run("a") as run:
        spans = [run.create_span("tool", {"name": str(number)}, status="active") for number in range(60)]
        for span in spans:
            span.finish()
        if why == "a run that is gone":
            gone = f"C\x1f{spans[0].id[:-1]}z\x1fnowhere\x1fa\x1f\x1ftool\x1factive\x1f{time.time_ns()}\x1f{{}}"
            sink_of(tracer)._append(gone.encode())
        else:
            run.create_span("tool", {"name": "bad"}, status="active").finish()
        sink_of(tracer)._append(f"F\x1f{spans[5].id}\x1ffailed\x1f{time.time_ns()}\x1f5\x1f".encode())
    tracer.flush()
    assert statuses(path) == ["complete"] * 60
    with closing(sqlite3.connect(path)) as connection:
        late = connection.execute("select stored_status from refused_changes where subject = ?", (spans[5].id,))
        assert late.fetchall() == [("complete",)]
    tracer.shutdown()


@pytest.mark.usefixtures("undrained")
def test_a_type_is_known_where_the_run_waited_in_the_journal(path: Path) -> None:
    agentspan.open(path).close()
    schema = {"type": "object", "required": ["what"]}
    agentspan.span_type("deploy", payload=schema, title="Deploy it", template="Deploying {{what}}")
    tracer, other = Tracer(path), sqlite3.connect(path, isolation_level=None)
    other.execute("begin immediate")
    with tracer.run("a") as run:
        for number in range(120):
            run.create_span("deploy", {"what": "it"} if number % 2 else {}, status="active").finish()
    other.execute("rollback")
    other.close()
    die(tracer)
    agentspan.open(path).close()
    with closing(sqlite3.connect(path)) as connection:
        summaries = connection.execute("select schema_title, summary, count(*) from agent_spans group by 1, 2")
        assert summaries.fetchall() == [("Deploy it", "Deploying", 60), ("Deploy it", "Deploying it", 60)]
        assert connection.execute("select count(*) from schema_violations").fetchone() == (60,)


@pytest.mark.usefixtures("undrained")
def test_a_program_whose_run_got_another_agent_goes_on_at_the_same_speed(path: Path) -> None:
    tracer, theirs = Tracer(path), Tracer(path, durability="commit")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("begin immediate")
    with tracer.run("same agent", version="1") as run:
        run.create_span("tool", {"name": "x"}, status="active").finish()
        other.execute("rollback")
        other.close()
        with theirs.run("same agent", version="1"):
            pass
        tracer.flush()
        for _ in range(1000):
            run.create_span("tool", {"name": "x"}, status="active").finish()
        seen: list[str] = []
        connection = tracer.storage.direct._connections.writer()  # type: ignore[attr-defined]
        connection.set_trace_callback(lambda statement: seen.append(statement.split(" ")[0]))
        tracer.flush()
        connection.set_trace_callback(None)
    assert seen.count("insert") == 2
    tracer.shutdown()
    theirs.shutdown()
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("select agents.name, count(*) from agent_spans join agents on agent_id = agents.id")
        assert found.fetchall() == [("same agent", 1001)]


class Choosy(SQLiteStorage):
    """A backend with a bug: it cannot store a span that is called `bad`, alone or among others."""

    def apply(self, units: Any, **options: Any) -> Any:
        if '{"name":"bad"}' in str(units):
            raise RuntimeError("a bug of the backend's")
        return super().apply(units, **options)


@pytest.mark.usefixtures("undrained")
def test_one_span_that_a_backend_cannot_store_costs_no_other(path: Path) -> None:
    tracer = Tracer(Choosy(path))
    with tracer.run("a"):
        for name in ("x", "bad", "y"):
            with tracer.span("tool", {"name": name}):
                pass
    tracer.flush()
    assert statuses(path) == ["complete"] * 2
    assert (tracer.health().failed, sink_of(tracer).work.drain.journaled) == (1, 0)
    tracer.shutdown()


@pytest.mark.usefixtures("undrained")
def test_a_burst_is_let_pass_for_three_seconds(path: Path) -> None:
    tracer = Tracer(path, tuning=STANDARD._replace(drain_tick_s=0.5))
    work, ticks, drained = sink_of(tracer).work, Ticks(50), []
    with tracer.run("a"):
        tracer.flush()
        for spans in [60] * 8 + [1]:  # the last tick has few records
            for _ in range(spans):
                with tracer.span("tool", {"name": "x"}):
                    pass
            work.tick(ticks)
            drained.append(not work.drain.journaled)
    assert drained == [False] * 5 + [True] + [False] * 2 + [True]
    tracer.shutdown()


def test_the_thread_begins_with_a_record_and_ends_after_the_last_run(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer = Tracer(path, tuning=STANDARD._replace(drain_quiet_ticks=2))
    work = sink_of(tracer).work
    thread, look, looks = work.thread, work.terminations.look, []
    assert thread.running is None
    with tracer.run("a"):
        assert tracer.flush()
        with monkeypatch.context() as patch:
            patch.setattr(work.terminations, "look", lambda: (looks.append(1), look()))
            until(lambda: len(looks) > 2)  # where it is quiet, it goes on to look whether the run was terminated
    for _ in range(2):
        record(tracer)
        assert thread.running is not None
        until(lambda: thread.running is None)
    assert statuses(path) == ["complete"] * 2
    tracer.shutdown()


@pytest.mark.usefixtures("undrained")
def test_segments_grow_to_eight_times_the_first(path: Path) -> None:
    size = 16 * 1024
    tracer = Tracer(path, tuning=STANDARD._replace(journal_segment_bytes=size))
    record(tracer, 1500)
    sizes = [file.stat().st_size for file in segments_of(path)]
    assert (min(sizes), max(sizes)) == (size, 8 * size)
    tracer.shutdown()


@pytest.mark.usefixtures("undrained")
def test_a_copy_of_the_folder_and_then_of_the_file_has_all_that_was_recorded(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy" / "runs.db"
    copy.parent.mkdir()
    tracer = Tracer(path)
    record(tracer, 20)
    shutil.copytree(path.with_name("runs.db.spool"), copy.with_name("runs.db.spool"))
    record(tracer, 20)
    tracer.flush()  # all of it leaves the folder, and is in the file
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    os.chmod(copy, 0o600)
    tracer.shutdown()
    with agentspan.open(copy) as db:
        assert [run.span_counts.complete for run in db.agent_instances.list()] == [20, 20]
        assert db.doctor().refused == []
