"""Several that adopt one dead program's journal, and a doctor beside them: what was acknowledged stands."""

import multiprocessing
import os
import subprocess
import sys
import threading
from contextlib import closing, nullcontext, suppress
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan import Tracer
from agentspan.cli.keep import _lines as lines_of
from agentspan.errors import StorageError
from agentspan.journal import adopting
from agentspan.journal.adopting import Adoption
from agentspan.journal.journal_folder import folder_of
from agentspan.journal.records import Record, read
from agentspan.journal.segments import Left, take_over
from agentspan.model.rows import AgentSpanRow
from agentspan.recording.sinks.journal import JournalSink
from agentspan.recording.sinks.journal_work import DrainThread
from agentspan.recording.tracer import recorder_of
from agentspan.storage.questions import Find, Query
from agentspan.storage.sqlite import SQLiteStorage
from agentspan.tuning import STANDARD
from tests.checkout import ROOT
from tests.journal.recorded import die, leave, refused, rows
from tests.journal.segment_files import segments_of
from tests.waiting import until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def statuses(path: Path) -> set[str]:
    column = AgentSpanRow._fields.index("status")
    return {row[column] for row in rows(path)["agent_spans"]}


def test_who_meets_another_that_adopts_a_segment_leaves_what_follows_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(path, 300, monkeypatch, 40 * 1024)
    first = segments_of(path)[0]
    held = take_over(first)
    assert held is not None
    with held, closing(SQLiteStorage(path)) as storage:
        found = len(segments_of(path))
        assert Adoption(lambda: nullcontext(storage), path.with_name("runs.db.spool")).adopt() == 0
        assert len(segments_of(path)) == found
    with closing(SQLiteStorage(path)) as storage:
        Adoption(lambda: nullcontext(storage), path.with_name("runs.db.spool")).adopt()
    assert segments_of(path) == []
    assert statuses(path) == {"complete"}
    assert refused(path) == []


def _adopt(path: str, barrier: Barrier, doctor: bool) -> None:
    barrier.wait(30)
    with agentspan.open(path, tuning=STANDARD._replace(recovery_batch_records=20)) as db:
        if doctor:
            db.doctor()
        else:
            db.agent_instances.list()


@pytest.mark.full
def test_of_many_that_adopt_at_once_none_loses_an_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(path, 1500, monkeypatch, 40 * 1024)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(4)
    adopters = [context.Process(target=_adopt, args=(str(path), barrier, number < 2)) for number in range(4)]
    for adopter in adopters:
        adopter.start()
    for adopter in adopters:
        adopter.join(60)
        assert adopter.exitcode == 0
    with agentspan.open(path) as db:
        db.doctor()
    assert segments_of(path) == []
    assert statuses(path) == {"complete"}
    assert refused(path) == []


def test_the_doctor_reads_what_a_dead_program_left_before_it_closes_anything(path: Path) -> None:
    code = """
import agentspan, os, signal, sys
agentspan.configure(sys.argv[1])
with agentspan.run("a"):
    span = agentspan.span("tool", {"name": "invoice"}).__enter__()
    agentspan.flush()
    print("open", flush=True)
    sys.stdin.readline()
    span.set_result({"output": "paid"})
    span.__exit__(None, None, None)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdout.readline()
        with agentspan.open(path) as db:
            db.agent_instances.list()  # its look, of which there is one a second
            program.stdin.write(b"\n")
            program.stdin.flush()
            program.wait()
            (found,) = db.doctor().runs
            assert (found.closed_run, found.closed_spans) == (True, 0)
            (span,) = db.agent_spans.list(found.run.id)
    assert (span.status, span.result_payload, span.closed_by) == ("complete", {"output": "paid"}, None)


@pytest.mark.full
def test_the_doctor_leaves_open_what_another_is_adopting(path: Path) -> None:
    code = """
import agentspan, os, sys
agentspan.configure(sys.argv[1])
with agentspan.run("a"), agentspan.span("tool", {"name": "x"}):
    agentspan.flush()
    with agentspan.span("tool", {"name": "y"}):
        os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=True)
    (segment,) = segments_of(path)
    held = take_over(segment)
    assert held is not None
    with agentspan.open(path, tuning=STANDARD._replace(doctor_s=0.05)) as db:
        with held:
            (found,) = db.doctor().runs
            assert (found.life, found.closed_run, found.closed_spans, found.left_open) == ("dead", False, 0, 1)
        (found,) = db.doctor().runs
        assert (found.life, found.closed_run, found.closed_spans, found.left_open) == ("dead", True, 2, 0)


LEAVES_THREE = """
import agentspan, os, sys
for name in "abc":
    if os.fork() == 0:
        tracer = agentspan.Tracer(sys.argv[1])
        tracer.run(name).__enter__()
        tracer.span("tool", {"name": name}).__enter__()
        os._exit(0)
    os.wait()
os._exit(0)
"""


def test_a_read_stops_recovering_after_a_while_and_says_what_waits(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    subprocess.run([sys.executable, "-c", LEAVES_THREE, str(path)], cwd=ROOT, check=True)
    with agentspan.open(path, tuning=STANDARD._replace(read_adopts_s=0.0)) as db:
        assert len(db.agent_instances.list()) == 1
        assert len(db.agent_instances.list()) == 1  # the next look is due a second later
    (warning,) = [record.getMessage() for record in caplog.records if "dead programs" in record.getMessage()]
    assert warning.startswith("2 journals of dead programs (")
    with agentspan.open(path) as db:
        assert len(db.agent_instances.list()) == 3


def test_the_doctor_says_which_journals_and_runs_wait(path: Path) -> None:
    subprocess.run([sys.executable, "-c", LEAVES_THREE, str(path)], cwd=ROOT, check=True)
    with agentspan.open(path, tuning=STANDARD._replace(read_adopts_s=0.0, doctor_s=1e-9)) as db:
        report = db.doctor()
    assert report.waiting_journals == 2
    assert report.waiting_bytes > 0
    assert "! 2 journals of dead programs (" in "\n".join(lines_of(report, dry_run=False))
    with agentspan.open(path) as db:
        db.agent_instances.list()
    with agentspan.open(path, tuning=STANDARD._replace(doctor_s=1e-9)) as db:
        report = db.doctor()
        assert (len(report.runs), report.waiting_journals, report.waiting_bytes, report.waiting_runs) == (1, 0, 0, 1)
    assert "! 1 open run left for the next `doctor`" in lines_of(report, dry_run=True)
    with agentspan.open(path) as db:
        assert db.doctor().waiting_runs == 0
    assert statuses(path) == {"failed"}


def test_runs_of_a_journal_whose_span_types_went_with_the_file_of_before_are_stored(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Only the first registration in a segment has the span types. Where it was committed to a file that is gone, the
    next runs have none; the runs of the next segment have them again, of the same agent."""
    code = """
import agentspan, os, sys
from agentspan.tuning import STANDARD
tuning = STANDARD._replace(drain_tick_s=500.0, journal_segment_bytes=64 * 1024, journal_segment_growth=1)
tracer = agentspan.Tracer(sys.argv[1], tuning=tuning)
for _ in range(8):
    with tracer.run("a"), tracer.span("tool", {"name": "x", "text": "y" * 10_000}):
        pass
os._exit(9)
"""
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=False)
    first, *others = [each for each in segments_of(path) if each.suffix == ".segment"]
    assert others
    left = take_over(first)
    assert left is not None
    with left:
        found = [each for each in read(left.data, left.start, after=left.after) if isinstance(each, Record)]
        registration = next(each for each in found if each.body[:1] == b"R")
        left.trim(registration.end, registration.sequence + 1)  # as after its commit
    with agentspan.open(path) as db:
        runs = db.agent_instances.list()
        assert len(runs) == 7
        assert len({run.agent_schema_version_id for run in runs}) == 2
        assert {run.agent_id for run in runs} == {agent.id for agent in db.agents.list()}
    # Of the run that only the file of before had.
    assert [why for _, why, *_ in refused(path)] == ["missing"] * 2
    warning = "2 changes of dead programs came too late, or their run is not stored; `agentspan doctor` lists them"
    assert warning in [record.getMessage() for record in caplog.records]


def test_an_end_replaces_what_the_doctor_guessed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal of a dead program that the doctor could not see, because it was on another disk, comes back."""
    monkeypatch.setattr(DrainThread, "start", lambda thread: None)
    tracer = Tracer(path)
    with tracer.run("a") as run, tracer.span("tool", {"name": "x"}) as span:
        planned = run.create_span("tool", {"name": "planned"})
        tracer.flush()
        planned.start()
        planned.finish(result_payload={"output": "done"})
        span.set_result({"output": "paid"})
    die(tracer)
    spool = path.with_name("runs.db.spool")
    spool.rename(path.with_name("aside"))
    writer = recorder_of(tracer).writer_id
    monkeypatch.setattr("agentspan.journal.writers.life_of", lambda row, hosts=(): "dead")
    with agentspan.open(path) as db:
        assert db.doctor().runs[0].closed_run
        closed = {each.id: each for each in db.agent_spans.list(run.id)}
        assert [closed[id].status for id in (span.id, planned.id)] == ["failed", "cancelled"]
    path.with_name("aside").rename(spool)
    with agentspan.open(path) as db:
        now = {each.id: each for each in db.agent_spans.list(run.id)}
        assert [now[id].status for id in (span.id, planned.id)] == ["complete", "complete"]
        assert [now[id].result_payload for id in (span.id, planned.id)] == [{"output": "paid"}, {"output": "done"}]
        for id in (span.id, planned.id):
            assert (now[id].closed_by, now[id].closed_at, now[id].ended_late) == (
                "abandoned",
                closed[id].closed_at,
                True,
            )
            assert now[id].started_at <= now[id].finished_at  # type: ignore[operator]
        after = db.agent_instances.get(run.id)
        assert (after.status, after.error, after.closed_by, after.ended_late) == ("complete", None, "abandoned", True)
        assert after.writer_id == writer
        assert db.doctor().refused_total == 0


def test_a_look_that_races_with_a_shutdown_is_silent(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    leave(path, 50, monkeypatch, 40 * 1024)
    looking, closed = threading.Event(), threading.Event()
    real = take_over

    def late(segment: Path) -> Left | None:
        left = real(segment)
        looking.set()
        closed.wait(10)
        return left

    tracer = Tracer(path)
    sink = recorder_of(tracer).sink
    assert isinstance(sink, JournalSink)
    with monkeypatch.context() as patch:
        patch.setattr(adopting, "take_over", late)
        looker = threading.Thread(target=lambda: sink.work._adoption.look(at_once=True))
        looker.start()
        looking.wait(10)
        tracer.shutdown()
        closed.set()
        looker.join(10)
    assert caplog.text == ""
    agentspan.open(path).close()
    assert statuses(path) == {"complete"}


def test_recording_never_touches_the_storage_in_the_programs_thread(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer = Tracer(path, raise_errors=True, tuning=STANDARD._replace(termination_look_s=0.0))
    touched: list[int] = []
    for name in ("ask", "apply", "group"):
        real = getattr(SQLiteStorage, name)

        def spy(self: SQLiteStorage, *args: object, real: object = real, **named: object) -> object:
            touched.append(threading.get_ident())
            return real(self, *args, **named)  # type: ignore[operator]

        monkeypatch.setattr(SQLiteStorage, name, spy)
    with tracer.run("a"):
        with tracer.span("tool", {"name": "first"}):  # makes the program known
            pass
        touched.clear()
        for number in range(2000):
            with tracer.span("tool", {"name": str(number)}):
                pass
        assert threading.get_ident() not in touched
        tracer.flush()
        assert touched
    tracer.shutdown()


@pytest.mark.full
def test_a_run_that_another_process_terminated_learns_of_it_while_it_waits(path: Path) -> None:
    tracer = Tracer(path)
    with tracer.run("a") as run:
        code = "import agentspan, sys; agentspan.open(sys.argv[1]).agent_instances.terminate(sys.argv[2], 'enough')"
        subprocess.run([sys.executable, "-c", code, str(path), run.id], cwd=ROOT, check=True, env={**os.environ})
        sink = recorder_of(tracer).sink
        assert isinstance(sink, JournalSink)
        until(lambda: sink.work.terminations.found)
        with tracer.span("tool", {"name": "next"}):
            assert run.termination_reason == "enough"
    tracer.shutdown()


class Failing(SQLiteStorage):
    """A file of which one read fails, as of a server that goes away in between."""

    reads_until = -1

    def ask(self, question: Any) -> Any:
        self.reads_until -= isinstance(question, (Find, Query))
        if self.reads_until == 0:
            raise StorageError("it went away")
        return super().ask(question)


def test_a_storage_that_goes_away_while_a_journal_is_adopted_makes_no_record_unreadable(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(path, 20, monkeypatch, 40 * 1024)
    storage = Failing(path)
    adoption = Adoption(lambda: nullcontext(storage), folder_of(path))
    failures = 0
    while segments_of(path):
        failures += 1
        storage.reads_until = failures
        with suppress(StorageError):
            adoption.adopt()
    assert failures > 1
    assert refused(path) == []
    assert len(rows(path)["agent_spans"]) == 20
    assert statuses(path) == {"complete"}
    storage.close()
