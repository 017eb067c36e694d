"""Runs that go on at once keep apart: each call of a decorated function ends its own run."""

import asyncio
import contextvars
import gc
import threading
import types
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan import Tracer
from agentspan.recording import tracer as tracing
from agentspan.recording.recorder import Recorder
from agentspan.recording.tracer import recorder_of
from agentspan.testing import CapturedRuns, capture
from tests.journal.recorded import sink_of


def ends(storage: Any) -> list[tuple[str, Any]]:
    """The status and result of each run."""
    return [(run.status, run.result) for run in CapturedRuns(storage)]


def test_a_task_that_is_collected_ends_its_own_run(tracer: Tracer) -> None:
    @tracer.run("worker")
    async def work(number: int, *, is_lost: bool) -> int:
        began.append(number)
        if is_lost:
            await asyncio.get_running_loop().create_future()  # nobody holds it, so the task is collected
        await goes_on.wait()
        return number

    began: list[int] = []
    goes_on = asyncio.Event()

    async def main() -> None:
        lost = asyncio.create_task(work(1, is_lost=True))
        await asyncio.sleep(0)
        kept = asyncio.create_task(work(2, is_lost=False))
        await asyncio.sleep(0)
        assert began == [1, 2]
        del lost
        gc.collect()
        assert [status for status, _ in ends(tracer.storage)] == ["failed", "active"]
        goes_on.set()
        assert await kept == 2

    asyncio.run(main())
    assert ends(tracer.storage) == [("failed", None), ("complete", {"output": 2})]


def test_calls_whose_steps_run_in_copies_of_the_context_end_their_own_runs(tracer: Tracer) -> None:
    @types.coroutine
    def pause() -> Iterator[None]:
        yield

    @tracer.run("worker")
    async def work(number: int) -> int:
        await pause()
        return number

    def step(call: Coroutine[Any, Any, int]) -> None:
        try:
            contextvars.copy_context().run(call.send, None)
        except StopIteration:
            pass

    first, second = work(1), work(2)
    step(first)
    step(second)
    step(first)
    assert ends(tracer.storage) == [("complete", {"output": 1}), ("active", None)]
    step(second)
    assert ends(tracer.storage) == [("complete", {"output": 1}), ("complete", {"output": 2})]


@pytest.mark.parametrize("form", ["decorated", "block"])
def test_a_run_that_goes_on_while_the_file_is_changed_ends_in_its_own(tmp_path: Path, form: str) -> None:
    shared = agentspan.run("worker")
    began, may_end = threading.Event(), threading.Event()

    def work(number: int) -> int:
        began.set()
        may_end.wait(10)
        return number

    def call(number: int) -> None:
        if form == "decorated":
            shared(work)(number)
            return
        with shared as run:
            run.set_result({"output": work(number)})

    agentspan.configure(tmp_path / "1.db")
    first = threading.Thread(target=call, args=(1,))
    first.start()
    began.wait(10)
    tracer = agentspan.configure(tmp_path / "2.db")
    with shared as second:
        may_end.set()
        first.join(10)
        assert second.status == "active"
        assert agentspan.current_run() is second
    tracer.flush()
    assert ends(tracer.storage) == [("complete", None)]


def test_what_a_program_sets_on_its_spans_and_runs_changes_nothing(tracer: Tracer) -> None:
    with tracer.run("a") as run, tracer.span("tool", {"name": "x"}) as span:
        for name in ("result", "error", "type", "instance", "answer", "end"):
            setattr(span, name, "mine")
            setattr(run, name, "mine")
    (captured,) = CapturedRuns(tracer.storage)
    assert (captured.status, captured.result, captured.error) == ("complete", None, None)
    assert [(each.status, each.result) for each in captured.spans] == [("complete", None)]


def test_time_in_which_nothing_was_recorded_is_no_time_that_a_record_has_waited(tmp_path: Path) -> None:
    tracer = Tracer(tmp_path / "runs.db")
    with tracer.run("a"):
        tracer.flush()
        work = sink_of(tracer).work
        work.thread.stop(5)
        work.drain._moved_ns -= 3_600_000_000_000  # an hour ago
        with tracer.span("tool", {"name": "x"}):
            assert tracer.health().oldest_s < 60
    tracer.shutdown()


def test_a_unit_that_cannot_be_committed_goes_to_the_journal_when_there_is_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer = Tracer(tmp_path / "runs.db")
    with tracer.run("a") as run:
        tracer.flush()
        sink = sink_of(tracer)
        sink.work.thread.stop(5)
        monkeypatch.setattr(type(sink.work.thread), "start", lambda thread: None)
        sink._overflow.is_on = sink.log.alert = True  # the disk was full a moment ago
        sink.commits.progress.retry_ns = 2**63

        def busy(units: Any, **how: Any) -> Any:
            sink._overflow.is_on = False  # and has room again
            raise agentspan.DatabaseBusy("busy")

        with monkeypatch.context() as patch:
            patch.setattr(recorder_of(tracer).store, "apply", busy)
            run.create_span("tool", {"name": "x"})
        assert tracer.health().waiting == 0
        assert tracer.health().spooled_bytes > 0
    tracer.shutdown()
    assert [len(each.spans) for each in CapturedRuns(agentspan.open(tmp_path / "runs.db").storage)] == [1]


def test_an_exception_at_the_end_of_a_capture_ends_the_capture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(recorder: Recorder, wait_s: float) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), capture(), agentspan.run("a"):
        monkeypatch.setattr(Recorder, "shutdown", interrupted)
    assert agentspan.configure(tmp_path / "after.db").storage.capabilities().backend == "sqlite"


def test_a_tracer_is_returned_also_after_an_exception_while_the_last_one_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTSPAN_DB", str(tmp_path))  # a folder: no database

    def interrupted(recorder: Recorder) -> Tracer:
        monkeypatch.undo()
        monkeypatch.setenv("AGENTSPAN_DB", str(tmp_path))
        raise KeyboardInterrupt

    monkeypatch.setattr(tracing, "tracer_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        agentspan.get_tracer()
    assert isinstance(agentspan.get_tracer(), Tracer)
    assert agentspan.propagate(len)([1]) == 1


def test_the_reason_why_nothing_is_recorded_does_not_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTSPAN_DB", str(tmp_path))
    step = agentspan.span(len)
    for _ in range(20):
        step([])
    traceback, frames = recorder_of(agentspan.get_tracer()).broken.__traceback__, 0  # type: ignore[union-attr]
    while traceback is not None:
        traceback, frames = traceback.tb_next, frames + 1
    assert frames < 20


def test_a_setting_that_is_misspelt_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"configure\(\) got an unexpected keyword argument 'durable'"):
        agentspan.configure(tmp_path / "runs.db", durable=True)  # type: ignore[call-arg]
