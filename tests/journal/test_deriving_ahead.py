"""Records that are derived while a server stores those before them: the same rows, whatever goes wrong."""

import itertools
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentspan
from agentspan import Tracer
from agentspan.errors import DatabaseBusy
from agentspan.journal.committer import Committer
from agentspan.journal.deriving import Batch, BatchInSteps
from agentspan.journal.records import LOST
from agentspan.recording.sinks.drain import Drain
from agentspan.storage.location import Location
from agentspan.storage.patience import Patience
from agentspan.storage.questions import SpansOf
from agentspan.storage.sqlite import SQLiteStorage
from agentspan.tuning import STANDARD
from tests.journal.recorded import Program, by_commits, journaled, perform, programs, refused, rows, sink_of
from tests.postgres_proxy import proxy

Apply = Callable[..., list[Any]]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What each step returned that was done while a storage worked."""
    found: list[bool] = []
    real = BatchInSteps.step

    def step(begun: BatchInSteps) -> bool:
        found.append(real(begun))
        return found[-1]

    monkeypatch.setattr(BatchInSteps, "step", step)
    return found


@contextmanager
def slow_file(each: int, fails_at: int = 0) -> Iterator[None]:
    """Files that work like a server: so many steps before a commit and after it; one commit fails, after the steps."""
    real: Apply = SQLiteStorage.apply
    wait, count = Committer.waiting, 0
    work: Callable[[], bool] = bool

    def waiting(committer: Committer, patience: Patience) -> Committer:
        nonlocal work
        work = patience.meanwhile or bool
        return wait(committer, patience)

    def apply(storage: SQLiteStorage, *args: Any, **options: Any) -> list[Any]:
        nonlocal count
        for _ in range(each):
            work()
        count += 1
        if count == fails_at:
            raise DatabaseBusy("the file is busy")
        outcomes = real(storage, *args, **options)
        for _ in range(each):
            work()
        return outcomes

    with patch.object(SQLiteStorage, "apply", apply), patch.object(Committer, "waiting", waiting):
        yield


def in_small_portions(tracer: Tracer, size: int) -> Drain:
    """Drain a tracer as if a server were behind it, in portions of at least so many bytes."""
    drain = sink_of(tracer).work.drain
    drain.derives_ahead = True
    drain._chunk = drain._least = size
    return drain


@pytest.mark.full
@given(
    program=programs,
    size=st.integers(1, 400),
    each=st.integers(0, 3),
    bodies=st.integers(1, 4),
    fails_at=st.integers(0, 6),
)
def test_what_is_derived_ahead_leaves_what_commits_leave(
    template: Path, program: Program, size: int, each: int, bodies: int, fails_at: int
) -> None:
    tuning = STANDARD._replace(derived_ahead_records=bodies, derived_spans=1, drain_portion_bytes=size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.db"
        program = [op for op in program if op != ("flush",)]
        expected = by_commits(template, Path(folder) / "commits.db", program)
        with journaled(template, path, tuning) as tracer:
            in_small_portions(tracer, size)
            perform(tracer, program, tracer.flush)
            with slow_file(each, fails_at):
                while not tracer.flush():
                    pass
            health = tracer.health()
            assert (health.waiting, health.refused) == (0, 0)
        assert rows(path) == expected
        assert refused(path) == []


def histories(tracer: Tracer, calls: int) -> list[Any]:
    """Record calls that each send one message more than the one before; return what they sent."""
    sent = [{"role": "user", "content": f"{number} " + "x" * 600} for number in range(calls)]
    with tracer.run("a"):
        for length in range(1, calls + 1):
            with tracer.span("llm", {"model": "m", "messages": sent[:length]}):
                pass
    return [sent[:length] for length in range(1, calls + 1)]


def payloads(db: Any) -> list[Any]:
    with agentspan.open(db) as found:
        (run,) = found.agent_instances.list()
        return [json.loads(span.payload) for span in found.storage.ask(SpansOf(run.id))]


@pytest.mark.parametrize("fails_at", [0, 2, 3, 5])
def test_elements_are_noted_in_the_order_of_records(tmp_path: Path, steps: list[bool], fails_at: int) -> None:
    path = tmp_path / "runs.db"
    tuning = STANDARD._replace(batch_histories_characters=20_000, drain_portion_bytes=16_000)
    tracer = Tracer(path, tuning=tuning)  # a portion is several batches
    sink_of(tracer).work.thread.running = object()  # type: ignore[assignment]  # there is one already
    in_small_portions(tracer, 16_000)
    sent = histories(tracer, 100)
    with slow_file(2, fails_at):
        while not tracer.flush():
            pass
    sink_of(tracer).work.thread.running = None
    tracer.shutdown()
    assert len(steps) > 3
    found = payloads(path)
    assert LOST not in json.dumps(found)
    assert [each["messages"] for each in found] == sent


def test_a_step_that_fails_is_done_again_in_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[bool]
) -> None:
    fails = [True]
    tracer = Tracer(tmp_path / "runs.db", tuning=STANDARD._replace(drain_portion_bytes=4_000))
    work = sink_of(tracer).work
    work.thread.running = object()  # type: ignore[assignment]
    in_small_portions(tracer, 4_000)
    sent = histories(tracer, 20)
    real = BatchInSteps._go_on

    def go_on(begun: BatchInSteps, most: int) -> bool:
        is_left = real(begun, most)
        if fails and most == STANDARD.derived_ahead_records:
            raise RuntimeError(fails.pop())
        return is_left

    monkeypatch.setattr(BatchInSteps, "_go_on", go_on)
    with slow_file(1):
        assert tracer.flush()
    work.thread.running = None
    tracer.shutdown()
    assert not fails
    assert tracer.health().failed == 0
    assert [each["messages"] for each in payloads(tmp_path / "runs.db")] == sent


class Interrupt(BaseException):
    """What a signal handler may raise."""


@pytest.mark.parametrize("raised", [Interrupt(), RecursionError(), ValueError()])
@pytest.mark.parametrize(("name", "at"), [("_row", 1), ("_row", 3), ("_derive", 1), ("_add_other", 3), ("add", 1)])
def test_what_an_exception_left_half_done_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, at: int, raised: BaseException
) -> None:
    """Whatever raises in the middle of a step, and whoever hides it."""
    tracer = Tracer(tmp_path / "runs.db", tuning=STANDARD._replace(derived_ahead_records=7, derived_spans=3))
    work = sink_of(tracer).work
    work.thread.running = object()  # type: ignore[assignment]
    sent = histories(tracer, 12)
    real: Callable[..., Any] = getattr(Batch, name)
    calls, is_step, real_begin = itertools.count(), False, Committer.begin

    def fail(batch: Batch, *args: Any) -> Any:
        done = real(batch, *args)
        if next(calls) == at and is_step:
            raise raised
        return done

    def begin(committer: Committer, bodies: Sequence[bytes], elements: Any) -> BatchInSteps:
        nonlocal is_step
        begun = real_begin(committer, bodies, elements)
        is_step = True
        with suppress(Interrupt):
            while begun.step():
                pass
        is_step = False
        assert not begun.step(), "what broke goes on although it is begun again in its turn"
        return begun

    monkeypatch.setattr(Batch, name, fail)
    monkeypatch.setattr(Committer, "begin", begin)
    assert tracer.flush()
    monkeypatch.undo()
    work.thread.running = None
    tracer.shutdown()
    assert next(calls) > at
    assert tracer.health()[:2] == (2 * len(sent) + 2, 0)
    assert [each["messages"] for each in payloads(tmp_path / "runs.db")] == sent


def test_what_was_derived_ahead_waits_for_the_next_drain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    added: list[int] = []
    real = Batch.add

    def add(batch: Batch, bodies: Sequence[bytes]) -> int:
        added.append(real(batch, bodies))
        return added[-1]

    tracer = Tracer(tmp_path / "runs.db", tuning=STANDARD._replace(drain_portion_bytes=4_000))
    work = sink_of(tracer).work
    work.thread.running = object()  # type: ignore[assignment]
    drain = in_small_portions(tracer, 4_000)
    histories(tracer, 60)
    monkeypatch.setattr(Batch, "add", add)
    drain.makes_way = True  # it stops after each portion
    turns = 1
    with slow_file(2):
        while not drain.run(0.1):
            turns += 1
    work.thread.running = None
    tracer.shutdown()
    assert turns > 5
    assert sum(added) == tracer.health().recorded + 1  # and the program itself


def test_what_another_drain_has_stored_is_not_taken_from_what_was_derived_ahead(tmp_path: Path) -> None:
    tracer = Tracer(tmp_path / "runs.db", tuning=STANDARD._replace(drain_portion_bytes=4_000))
    work = sink_of(tracer).work
    work.thread.running = object()  # type: ignore[assignment]
    drain = in_small_portions(tracer, 4_000)
    sent = histories(tracer, 60)
    drain.makes_way = True
    with slow_file(1):
        for _ in range(4):
            drain.run(0.1)
            drain.run(0.1, most=1000)  # as a call that records does where there is much
        while not drain.run(0.1):
            pass
    work.thread.running = None
    tracer.shutdown()
    assert tracer.health()[:4] == (2 * len(sent) + 2, 0, 0, 0)
    assert [each["messages"] for each in payloads(tmp_path / "runs.db")] == sent


@pytest.mark.full
def test_while_a_server_stores_some_the_next_are_derived(postgres_location: Location, steps: list[bool]) -> None:
    with proxy(postgres_location.text) as between:
        tracer = Tracer(between.url)
        tracer.flush(30)
        sink_of(tracer).work.thread.running = object()  # type: ignore[assignment]
        with tracer.run("a"):
            for number in range(6000):
                with tracer.span("tool", {"name": str(number), "arguments": {"text": "x" * 300}}) as span:
                    span.set_result({"output": str(number)})
        between.delay_s = 0.02  # answers take longer than it takes to derive what follows, however fast this machine is
        assert tracer.flush(60)
        sink_of(tracer).work.thread.running = None
        tracer.shutdown()
    assert len(steps) > 10  # 48 where nothing else runs
    with agentspan.open(postgres_location) as db:
        (run,) = db.agent_instances.list()
        spans = [*db.storage.ask(SpansOf(run.id))]
    assert [json.loads(span.payload)["name"] for span in spans] == [*map(str, range(6000))]
    assert {span.status for span in spans} == {"complete"}
