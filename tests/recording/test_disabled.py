"""Recording that is disabled: programs run as they are, no file is made, and a call costs next to nothing."""

import asyncio
import pickle
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan import Health, Tracer
from agentspan.recording.span_and_run import state_of
from agentspan.testing.determinism import capture
from tests.recording.conftest import Program

PROGRAM = """
import os, sys, agentspan
@agentspan.span("tool")
def search(query):
    agentspan.current_span().set_result({"hits": 1})
    return query
with agentspan.run("bench") as run:
    search("x")
print(agentspan.get_tracer().enabled, agentspan.health().recorded, *os.listdir(sys.argv[1]))
"""


@pytest.fixture
def off(tmp_path: Path) -> Tracer:
    return Tracer(tmp_path / "runs.db", enabled=False, raise_errors=True)


def test_no_file_is_made_and_nothing_is_counted(tmp_path: Path) -> None:
    tracer = agentspan.configure(tmp_path / "nowhere" / "runs.db", enabled=False)

    @agentspan.span("tool")
    def fail(query: str) -> None:
        raise LookupError(query)

    with agentspan.run("bench", metadata={"x": object()}) as run:
        with pytest.raises(LookupError, match="x"):
            fail("x")
        with agentspan.span("llm", {"model": "m"}) as span:
            span.set_result({"text": "hi"})
        run.create_span("tool").cancel()
    assert agentspan.flush()
    assert tracer.health() == agentspan.health() == Health(0, 0, 0, 0, 0)
    agentspan.shutdown()
    assert list(tmp_path.iterdir()) == []


def test_functions_of_every_kind_do_what_they_do(off: Tracer) -> None:
    @off.span("tool")
    def plain(x: int) -> int:
        return x

    @off.span("tool")
    async def coroutine(x: int) -> int:
        return x

    @off.span("tool", reduce=sum)
    def generator(x: int) -> Generator[int, int, int]:
        got = yield x
        try:
            yield got
        except KeyError:
            yield -1
        return x

    @off.span("tool")
    async def async_generator(x: int) -> AsyncGenerator[int, int]:
        got = yield x
        try:
            yield got
        except KeyError:
            yield -1

    async def items() -> list[int]:
        steps: Any = async_generator(1)
        return [await anext(steps), await steps.asend(2), await steps.athrow(KeyError())]

    assert (plain(1), asyncio.run(coroutine(1))) == (1, 1)
    steps: Any = generator(1)
    assert [next(steps), steps.send(2), steps.throw(KeyError())] == [1, 2, -1]
    with pytest.raises(StopIteration) as stop:
        next(steps)
    assert stop.value.value == 1
    assert asyncio.run(items()) == [1, 2, -1]


def test_a_generator_that_is_not_read_to_its_end_is_closed(off: Tracer) -> None:
    closed = []

    @off.span
    def letters() -> Iterator[str]:
        try:
            yield "a"
        finally:
            closed.append("plain")

    @off.span
    async def async_letters() -> AsyncIterator[str]:
        try:
            yield "a"
        finally:
            closed.append("async")

    async def some() -> None:
        steps: Any = async_letters()
        await anext(steps)
        await steps.aclose()

    steps: Any = letters()
    next(steps)
    steps.close()
    asyncio.run(some())
    assert closed == ["plain", "async"]


def test_a_span_has_a_status_and_keeps_nothing(off: Tracer) -> None:
    with off.span("llm", {"model": "m"}) as span:
        assert (span.id, span.status, span.schema_name) == ("", "active", "llm")
        span.set_result({"text": "hi"})
        span.update_payload({"model": "n"})
    assert (span.status, state_of(span).result_members, span.parent_span_id) == ("complete", {}, None)
    with pytest.raises(LookupError), off.span("llm") as failed:
        raise LookupError
    with off.span("llm") as noted:
        noted.record_error(LookupError())
    assert (failed.status, noted.status) == ("failed", "failed")


def test_a_pending_span_goes_through_its_life(off: Tracer) -> None:
    with off.run("bench") as run:
        spans = [run.create_span("tool", {"name": "x"}) for _ in range(3)]
        assert [span.status for span in spans] == ["pending"] * 3
        with spans[0]:
            assert spans[0].status == "active"
        spans[1].start()
        spans[1].finish("failed")
        spans[2].cancel()
    assert [span.status for span in spans] == ["complete", "failed", "cancelled"]
    assert {span.run for span in spans} == {run}


def test_a_run_has_a_status_and_keeps_nothing(off: Tracer) -> None:
    with off.run("bench") as run:
        assert (run.id, run.name, run.status, run.terminated) == ("", "bench", "active", False)
        assert off.current_run() is run
    assert run.status == "complete"
    with pytest.raises(LookupError), off.run("bench") as failed:
        raise LookupError
    assert failed.status == "failed"


def test_what_is_active_can_be_talked_to_anywhere(off: Tracer) -> None:
    @off.run("bench")
    def main() -> str:
        off.current_run().set_result({"x": 1})  # type: ignore[union-attr]
        return step()

    @off.span("tool")
    def step() -> str:
        off.current_span().set_result({"x": 1})  # type: ignore[union-attr]
        off.current_span().run.create_span("tool").start()  # type: ignore[union-attr]
        return "done"

    assert (main(), step()) == ("done", "done")
    with off.span("tool") as span:
        span.run.set_result({"x": 1})


def test_a_coroutine_can_be_a_run(off: Tracer) -> None:
    @off.run("bench")
    async def main() -> str:
        return "done"

    assert asyncio.run(main()) == "done"


def test_configuring_again_switches_functions_that_are_decorated_already(tmp_path: Path) -> None:
    agentspan.configure(tmp_path / "runs.db", enabled=False)

    @agentspan.span("tool")
    def search(query: str) -> str:
        return query

    @agentspan.run("searcher")
    def main() -> str:
        return search("x")

    main()
    tracer = agentspan.configure(tmp_path / "runs.db")
    assert agentspan.current_span() is None
    main()
    assert agentspan.flush()
    assert tracer.health().recorded == 4
    assert agentspan.configure(tmp_path / "runs.db") is tracer
    off = agentspan.configure(tmp_path / "runs.db", enabled=False)
    main()
    with agentspan.open(tmp_path / "runs.db") as db:
        (run,) = db.agent_instances.list()
        assert len(db.agent_spans.list(run.id)) == 1
    assert off.health() == Health()


def test_a_block_that_was_entered_before_the_switch_ends_as_it_began(tmp_path: Path) -> None:
    agentspan.configure(tmp_path / "runs.db", enabled=False)
    with agentspan.run("before") as run, agentspan.span("tool") as span:
        tracer = agentspan.configure(tmp_path / "runs.db")
        with agentspan.span("tool") as inner:
            pass
    assert (run.status, span.status, inner.status) == ("complete", "complete", "complete")
    assert (run.id, span.id, tracer.health().failed) == ("", "", 0)
    assert inner.id


@pytest.mark.full
@pytest.mark.parametrize(
    ("said", "enabled"), [("1", False), ("true", False), ("", True), ("0", True), ("False", True), ("off", True)]
)
def test_the_environment_disables_a_program_that_says_nothing(
    said: str, enabled: bool, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    monkeypatch.setenv("AGENTSPAN_DB", str(folder / "runs.db"))
    monkeypatch.setenv("AGENTSPAN_DISABLED", said)
    switched_on, recorded, *files = program("-c", PROGRAM, folder).split()
    assert (switched_on, recorded != "0", "runs.db" in files) == (str(enabled), enabled, enabled)


def test_what_the_program_says_counts_more_than_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTSPAN_DISABLED", "1")
    assert [Tracer(":memory:", enabled=said).enabled for said in (None, True, False)] == [False, True, False]
    assert agentspan.configure(tmp_path / "runs.db", enabled=True).enabled
    assert not agentspan.configure(tmp_path / "runs.db").enabled
    monkeypatch.delenv("AGENTSPAN_DISABLED")
    assert agentspan.configure(tmp_path / "runs.db").enabled


def test_captured_runs_have_what_the_environment_would_disable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTSPAN_DISABLED", "1")
    with capture() as runs:
        with agentspan.run("bench"), agentspan.span("tool"):
            pass
        assert len(runs) == 1
        agentspan.configure(enabled=False)
        with agentspan.run("bench"):
            pass
        assert len(runs) == 1


def test_what_is_carried_to_another_process_disables_it(program: Program, tmp_path: Path) -> None:
    agentspan.configure(tmp_path / "runs.db", enabled=False)
    carried = tmp_path / "carried"
    carried.write_bytes(pickle.dumps(agentspan.propagate(sys.intern)))
    arrive = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb'))('x'));"
    said = program("-c", arrive + "import agentspan; print(agentspan.get_tracer().enabled)", carried, cwd=tmp_path)
    assert said.split() == ["x", "False"]
    assert agentspan.propagate(sys.intern)("x") == "x"


def python_calls(fn: Callable[[], Any]) -> list[str]:
    """The Python functions that a call goes through."""
    called = []

    def note(frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            called.append(frame.f_code.co_name)

    sys.setprofile(note)
    try:
        fn()
    finally:
        sys.setprofile(None)
    return called[1:]


def test_a_disabled_call_goes_through_few_functions(tmp_path: Path) -> None:
    agentspan.configure(tmp_path / "runs.db", enabled=False)

    @agentspan.span("tool")
    def search(query: str) -> str:
        return query

    @agentspan.run("searcher")
    def main(query: str) -> str:
        return query

    @agentspan.span("tool")
    async def fetch(query: str) -> str:
        return query

    @agentspan.span("tool")
    def letters(query: str) -> Iterator[str]:
        yield query

    def awaited() -> None:
        try:
            fetch("x").send(None)
        except StopIteration:
            pass

    steps = letters("x")
    expected = ["call", "get_recorder"]
    assert python_calls(lambda: search("x")) == [*expected, "search"]
    assert python_calls(lambda: main("x")) == [*expected, "main"]
    assert python_calls(awaited) == [*expected, "fetch"]
    assert python_calls(lambda: next(steps)) == ["call", "stream", "get_recorder", "letters"]
