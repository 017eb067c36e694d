"""A fault of ours stays ours: full, locked, read-only, or a bug; the program never notices."""

import logging
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan import Tracer, clock, disk
from agentspan.errors import StorageError
from agentspan.model.rows import WriterRow
from agentspan.recording.recorder import Recorder
from agentspan.recording.sinks import commit
from agentspan.recording.tracer import recorder_of
from agentspan.storage.sqlite import opening
from agentspan.storage.sqlite.contents import FileConnection
from agentspan.tuning import STANDARD
from tests.recording.busy_files import busy_for, unknown_writers
from tests.recording.stored import spans_of
from tests.waiting import until


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the recorder slept while it waited for others, in seconds, in the thread of the program."""
    pauses: list[float] = []
    here, sleep = threading.get_ident(), time.sleep

    def note(seconds: float) -> None:
        (pauses.append if threading.get_ident() == here else sleep)(seconds)

    monkeypatch.setattr("agentspan.disk.sleep", note)
    return pauses


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("needs a user who may mount file systems")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def steps(tracer: Tracer) -> Callable[[int], str]:
    @tracer.span
    def step(number: int) -> str:
        return f"{number}" * 1000

    return step


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "agentspan"]


def test_a_full_disk_costs_nothing_and_when_there_is_room_again_recording_goes_on(
    small_disk: Path, caplog: pytest.LogCaptureFixture, slept: list[float]
) -> None:
    tracer = Tracer(small_disk / "runs.db", durability="commit")
    step = steps(tracer)
    with tracer.run("full"):
        for number in range(500):
            assert step(number) == f"{number}" * 1000
        health = tracer.health()
        assert health.failed == 0
        assert health.waiting > 100
        assert slept == []  # no call waits for room
        subprocess.run(["mount", "-o", "remount,size=60m", small_disk], check=True)
        assert tracer.flush()
        assert step(500)
    assert tracer.health()[:5] == (2 + 2 * 501, 0, 0, 0, 0)
    full, again = warnings(caplog)
    assert "full" in full
    assert "the storage takes records again" in again
    tracer.shutdown()
    connection = sqlite3.connect(small_disk / "runs.db")
    assert connection.execute("select count(*) from agent_spans where status = 'complete'").fetchone() == (501,)
    assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
    connection.close()


def test_a_disk_that_becomes_read_only_does_no_harm(small_disk: Path) -> None:
    tracer = Tracer(small_disk / "runs.db", durability="commit")
    step = steps(tracer)
    with tracer.run("read-only"):
        step(1)
        tracer.storage.direct._connections.guard.leave()  # type: ignore[attr-defined]  # an open file may be written to all the same
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
        assert step(2) == "2" * 1000
        subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
        assert tracer.flush()
    assert [span.status for span in spans_of(tracer)] == ["complete"] * 2
    tracer.shutdown()


def test_a_file_is_opened_again_that_was_opened_just_before_its_disk_could_be_written_to(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = opening.connect

    def connect_for_reading(path: Path, **how: Any) -> FileConnection:  # SQLite does what it can
        read_only = ["mount", "-o", "remount,ro", str(small_disk)]  # refused while a thread has a file open to write
        until(lambda: subprocess.run(read_only, check=False, stderr=subprocess.DEVNULL).returncode == 0)
        connection = connect(path, **how)
        subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
        return connection

    tracer = Tracer(small_disk / "runs.db", durability="commit")
    step = steps(tracer)
    with tracer.run("read-only"):
        step(1)
        tracer.storage.direct._connections.guard.leave()  # type: ignore[attr-defined]
        with monkeypatch.context() as patch:
            patch.setattr(opening, "connect", connect_for_reading)
            assert step(2) == "2" * 1000
        assert tracer.flush()
    assert [span.status for span in spans_of(tracer)] == ["complete"] * 2
    tracer.shutdown()


def test_a_file_that_stays_locked_makes_one_call_wait_a_quarter_of_a_second(tmp_path: Path, slept: list[float]) -> None:
    tracer = Tracer(tmp_path / "runs.db", durability="commit")
    step = steps(tracer)
    other = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
    with tracer.run("locked"):
        other.execute("begin immediate")
        step(1)
        assert 0.25 <= sum(slept) < 0.26
        for number in range(100):
            step(number)
        assert sum(slept) < 0.26
        other.execute("rollback")
        assert tracer.flush()
    assert tracer.health()[:5] == (2 + 2 * 101, 0, 0, 0, 0)
    other.close()


@pytest.mark.parametrize("times", [1, 2, 9])
def test_a_run_is_never_stored_before_its_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Else nobody could close it, where the program is killed right then."""
    path = tmp_path / "runs.db"
    tracer = Tracer(path, durability="commit")
    busy_for(WriterRow, times, monkeypatch)
    with tracer.run("a"):
        assert unknown_writers(path) == 0
        with tracer.span("tool", {"name": "x"}):
            assert unknown_writers(path) == 0
        with tracer.run("b"):
            assert unknown_writers(path) == 0
    while not tracer.flush(0.1):
        assert unknown_writers(path) == 0
    assert tracer.health()[:3] == (6, 0, 0)
    with agentspan.open(path) as db:
        assert {run.status for run in db.agent_instances.list()} == {"complete"}
        assert db.doctor().refused == []
    assert unknown_writers(path) == 0
    tracer.shutdown()


def test_what_waits_is_bounded_and_what_is_lost_is_counted(tmp_path: Path) -> None:
    tracer = Tracer(tmp_path / "runs.db", durability="commit", tuning=STANDARD._replace(backlog_units=50))
    step = steps(tracer)
    other = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
    with tracer.run("bounded"):
        other.execute("begin immediate")
        for number in range(100):
            assert step(number)
        assert tracer.health()[:3] == (1, 150, 50)
        other.execute("rollback")
    other.close()


def test_a_thread_writes_what_waits_and_no_call_that_records_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer = Tracer(tmp_path / "runs.db", durability="commit")
    step = steps(tracer)
    other = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
    with tracer.run("many"):
        tried: dict[int, list[int]] = {}
        apply = recorder_of(tracer).store.apply

        def remember(units: Any, **how: Any) -> Any:
            tried.setdefault(threading.get_ident(), []).append(len(units))
            return apply(units, **how)

        monkeypatch.setattr(recorder_of(tracer).store, "apply", remember)
        other.execute("begin immediate")
        for number in range(1000):
            step(number)
        other.execute("rollback")
        until(lambda: not tracer.health().waiting)
        step(1000)
        mine = tried.pop(threading.get_ident())
        assert mine == [1, 1, 1]  # the first call, and the last two when nothing waited any more
        (others,) = tried.values()
        assert max(others) == commit.BATCH
        assert tracer.flush()
    assert tracer.health()[:5] == (2 + 2 * 1001, 0, 0, 0, 0)
    other.close()


PLACES = [
    "agentspan.recording.sinks.commit.describe",
    "agentspan.recording.sinks.commit.spans.created",
    "agentspan.recording.sinks.commit.spans.finished",
    "agentspan.recording.capture.capture.Capture.object",
    "agentspan.recording.capture.capture.Arguments.bind",
    "agentspan.recording.run_state.register",
    "agentspan.recording.run_state.instances.finished",
    "agentspan.storage.sqlite.SQLiteStorage.apply",
    "agentspan.storage.sqlite.SQLiteStorage.ask",
    "agentspan.ids.IdSource.new",
    "agentspan.clock.now",
    "agentspan.clock.wall_ns",
]


@pytest.mark.parametrize("place", PLACES)
def test_a_bug_anywhere_reaches_the_program_only_when_asked_to(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tracer = Tracer(tmp_path / "runs.db", durability="commit")
    strict = Tracer(tmp_path / "strict.db", raise_errors=True, durability="commit")

    class Bug(Exception):
        pass

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise Bug("sk-aaaaaaaaaaaaaaaaaaaaaaaaaaaaa")

    monkeypatch.setattr(place, fail)
    caplog.set_level(logging.WARNING)

    def program(tracer: Tracer) -> list[Any]:
        step = steps(tracer)

        @tracer.span("chain")
        def items() -> Iterator[int]:
            yield from (1, 2)

        @tracer.span
        def broken() -> None:
            raise KeyError("theirs")

        with tracer.run("a") as run:
            with tracer.span("tool", {"name": "x"}) as span:
                span.set_result({"output": 1})
                span.update_payload({"more": 2})
            run.create_span("tool", {"name": "planned"}).cancel()
            with pytest.raises(KeyError, match="theirs"):
                broken()
            return [step(1), *items()]

    assert program(tracer) == ["1" * 1000, 1, 2]
    assert tracer.current_run() is None
    assert tracer.health().failed > 0 or "bind" in place  # that loses the arguments, not the span
    assert len([message for message in warnings(caplog) if "Bug" in message]) == 1
    assert "sk-aaa" not in caplog.text
    with pytest.raises(Bug):
        program(strict)


def test_a_file_that_fails_right_after_a_run_was_stored_gets_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer = Tracer(tmp_path / "runs.db", durability="commit")

    def fail(recorder: Recorder) -> None:
        raise StorageError("for a moment")

    with monkeypatch.context() as patched:
        patched.setattr(Recorder, "follow_file", fail)
        with tracer.run("a"):
            pass
    with agentspan.open(tracer.storage) as db:
        assert [run.status for run in db.agent_instances.list()] == ["complete"]
    tracer.shutdown()


MOVING = [
    "agentspan.journal.log.Log.take",
    "agentspan.journal.records._change",
    "agentspan.journal.deriving.Batch._add_other",
    "agentspan.journal.deriving.Batch._row",
    "agentspan.journal.committer.Committer._fitted",
    "agentspan.journal.names.Names.resolved",
    "agentspan.storage.sqlite.connections.Connections.writer",
    "agentspan.storage.sqlite.writes._put",
    "agentspan.storage.sqlite.driver.Checkpoints.committed",
    "agentspan.storage.sqlite.contents.Numbering.write",
]


@pytest.mark.parametrize("error", [MemoryError, OSError])
@pytest.mark.parametrize("place", MOVING)
def test_nothing_is_lost_where_memory_or_descriptors_run_out_while_a_journal_is_moved(
    tmp_path: Path, place: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer, calls = Tracer(tmp_path / "runs.db"), []

    def fail(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(place, fail)
        with tracer.run("a"), tracer.span("llm", {"model": "m", "messages": [{"role": "user", "content": "x" * 600}]}):
            pass
        assert not tracer.flush()
        assert calls
    with tracer.run("a"), tracer.span("tool", {"name": "x"}):
        pass
    until(tracer.flush)  # the first one may tell what happened
    assert tracer.health()[:3] == (8, 0, 0)
    assert [span.status for span in spans_of(tracer)] == ["complete"] * 2
    with agentspan.open(tracer.storage) as db:
        assert db.doctor().refused == []
    tracer.shutdown()


def test_the_clock_of_the_machine_set_back_makes_no_negative_duration(tmp_path: Path) -> None:
    from freezegun import freeze_time

    tracer = Tracer(tmp_path / "runs.db", raise_errors=True, durability="commit")
    with freeze_time("2026-01-01 12:00:00") as frozen, tracer.run("a"), tracer.span("tool", {"name": "x"}):
        frozen.move_to("2026-01-01 11:00:00")
    (span,) = spans_of(tracer)
    assert span.started_at is not None
    assert span.finished_at == span.started_at


@pytest.mark.parametrize("durability", ["journal", "commit"])
@pytest.mark.parametrize("hours", [-1, 1])
def test_a_duration_is_right_although_the_wall_clock_is_changed(
    tmp_path: Path, durability: Any, hours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer, wall_ns = Tracer(tmp_path / "runs.db", raise_errors=True, durability=durability), clock.wall_ns
    with tracer.run("a"), tracer.span("tool", {"name": "x"}):
        monkeypatch.setattr(clock, "wall_ns", lambda: wall_ns() + hours * 3600 * 10**9)
    (span,) = spans_of(tracer)
    assert span.started_at is not None
    assert span.finished_at is not None
    assert span.finished_at >= span.started_at
    assert 0 <= span.duration_ms < 60_000
    tracer.shutdown()


def test_an_interrupted_wait_is_the_programs_to_handle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while a call waits for a locked file is no fault of ours: it goes to the program."""
    tracer = Tracer(tmp_path / "runs.db", durability="commit")
    other = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    step = steps(tracer)
    with tracer.run("a"):
        other.execute("begin immediate")
        with monkeypatch.context() as patch:
            patch.setattr(disk, "sleep", interrupt)
            with pytest.raises(KeyboardInterrupt):
                step(1)
        other.execute("rollback")
        assert step(2) == "2" * 1000
    assert tracer.current_run() is None
    other.close()


def test_a_run_that_could_not_be_registered_at_once_finds_the_agent_that_others_made_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    tracer, theirs = Tracer(path, durability="commit"), Tracer(path, durability="commit")
    step = steps(tracer)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("begin immediate")
    with tracer.run("same agent", version="1") as run:
        step(1)
        other.execute("rollback")
        with theirs.run("same agent", version="1") as before:
            pass
        step(2)
    assert tracer.flush()
    assert theirs.flush()
    assert tracer.health()[:5] == (2 + 4, 0, 0, 0, 0)
    with agentspan.open(path) as db:
        mine, first = db.agent_instances.get(run.id), db.agent_instances.get(before.id)
        assert (mine.status, mine.agent_id) == ("complete", first.agent_id)
        assert mine.agent_version_id == first.agent_version_id
        spans = db.agent_spans.list(run.id)
        assert [(span.status, span.agent_id) for span in spans] == [("complete", first.agent_id)] * 2
        assert len(db.agents.list()) == 1
    assert other.execute("select count(*) from spans").fetchone() == (2,)
    other.close()


def test_many_runs_that_wait_together_all_fit_in_afterwards(tmp_path: Path, slept: list[float]) -> None:
    path = tmp_path / "runs.db"
    tracer, theirs = Tracer(path, durability="commit"), Tracer(path, durability="commit")
    step = steps(tracer)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("begin immediate")
    for number in range(300):  # more than one transaction of what waits
        with tracer.run("same agent", version=str(number % 7)):
            step(number)
    other.execute("rollback")
    with theirs.run("same agent", version="3"):
        pass
    assert tracer.flush(30)
    assert theirs.flush(30)
    assert tracer.health()[:5] == (300 * 4, 0, 0, 0, 0)
    connection = other.execute("select count(*), count(distinct agent) from spans where status = 'complete'")
    assert connection.fetchone() == (300, 1)
    assert other.execute("select count(*), count(distinct version) from runs where status = 'complete'").fetchone() == (
        301,
        7,
    )
    other.close()


def test_a_value_that_lies_about_its_class_is_returned_and_recorded(tracer: Tracer) -> None:
    class Liar:
        @property  # type: ignore[misc]
        def __class__(self) -> Any:
            raise RuntimeError("no class")

    @tracer.span
    def lie() -> Any:
        return liar

    @tracer.run("liars")
    def agent() -> Any:
        return lie()

    liar = Liar()
    assert agent() is liar
    assert [span.status for span in spans_of(tracer)] == ["complete"]
    assert tracer.current_span() is None


def test_a_fault_whose_message_cannot_be_read_stays_ours(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Unreadable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    class Broken(dict[str, Any]):
        def keys(self) -> Any:
            raise Unreadable

        def __iter__(self) -> Any:
            raise Unreadable

    tracer = Tracer(tmp_path / "runs.db", durability="commit")
    with tracer.run("a"), tracer.span("tool", {"name": "x"}) as span:
        span.set_result({"a": 1})
        span.set_result(Broken(b=2))
    assert [found.status for found in spans_of(tracer)] == ["complete"]
    assert all("Traceback" not in message for message in warnings(caplog))


def test_the_end_of_a_program_waits_two_seconds_for_a_locked_file(tmp_path: Path, slept: list[float]) -> None:
    tracer = Tracer(tmp_path / "runs.db", durability="commit")
    step = steps(tracer)
    other = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
    with tracer.run("locked"):
        other.execute("begin immediate")
        step(1)
    del slept[:]
    recorder_of(tracer).release()  # what Python calls at the exit
    assert 1.9 < sum(slept) < 2.1
    other.execute("rollback")
    other.close()
    tracer.shutdown()


def test_configure_waits_ten_seconds_for_a_file_without_a_journal(tmp_path: Path, slept: list[float]) -> None:
    path = tmp_path / "runs.db"
    agentspan.SQLiteStorage(path).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("pragma locking_mode = exclusive")
    other.execute("begin exclusive")
    with pytest.raises(agentspan.DatabaseBusy):
        agentspan.configure(path, durability="commit")
    assert 9.9 < sum(slept) < 10.5
    other.close()
    agentspan.configure(path, durability="commit")


def test_what_comes_before_a_file_without_a_journal_can_be_opened_is_lost_and_counted(
    without_journals: Path, monkeypatch: pytest.MonkeyPatch, slept: list[float]
) -> None:
    path = without_journals / "runs.db"
    agentspan.SQLiteStorage(path).close()
    monkeypatch.setenv("AGENTSPAN_DB", str(path))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("pragma locking_mode = exclusive")
    other.execute("begin exclusive")
    for _ in range(2):  # the second one does not try to open it: it is tried once a second
        with agentspan.run("lost"):
            pass
        assert 0.2 < sum(slept) < 0.3
    assert agentspan.health()[:3] == (0, 4, 0)
    other.close()
    monkeypatch.setattr("agentspan.recording.tracer._retry_at_ns", 0)
    with agentspan.run("kept"):
        pass
    with agentspan.open(path) as db:
        assert [run.status for run in db.agent_instances.list()] == ["complete"]
    assert agentspan.health().recorded == 2
