"""Capturing what the package's functions record: everything, whatever is configured, and nothing afterwards."""

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.testing import CapturedRuns, capture, load
from tests.testing.conftest import search


def test_what_is_recorded_in_the_block_is_captured_and_nothing_else() -> None:
    for name, block in (("before", None), ("within", capture), ("after", None)):
        if block is None:
            with agentspan.run(name):
                pass
            continue
        with block() as runs:
            with agentspan.run(name):
                pass
            assert runs.one().name == "within"
    assert runs.one().name == "within"  # it can still be read
    with load(os.environ["AGENTSPAN_DB"]) as loaded:
        assert [run.name for run in loaded] == ["before", "after"]


def test_the_configuration_of_before_goes_on_as_it_was() -> None:
    storage = agentspan.MemoryStorage()
    tracer = agentspan.configure(storage, strict_schemas=True)
    with agentspan.run("outside") as run:
        with capture():
            assert (agentspan.current_run(), agentspan.current_span()) == (None, None)
            search("x")
            assert agentspan.health().recorded > 0
        assert agentspan.current_run() is run
        search("y")
    assert agentspan.get_tracer() is tracer
    assert agentspan.configure(storage, strict_schemas=True) is tracer
    outside = CapturedRuns(storage).one()  # the storage was not closed meanwhile
    outside.assert_called("search", times=1, query="y")


def test_what_ends_after_the_block_is_not_captured_any_more() -> None:
    with capture() as runs, agentspan.run("a") as run:
        late = run.create_span("tool", {"name": "late"}, status="active")
    late.finish()
    assert [span.status for span in runs.one().spans] == ["active"]


def test_it_is_restored_after_an_exception() -> None:
    tracer = agentspan.configure(agentspan.MemoryStorage())
    with pytest.raises(KeyError), capture():
        raise KeyError
    assert agentspan.get_tracer() is tracer


@pytest.mark.parametrize("change", ["configure", "shutdown", "both"])
def test_a_change_of_configuration_ends_with_the_block(change: str, tmp_path: Path) -> None:
    storage = agentspan.MemoryStorage()
    tracer = agentspan.configure(storage)
    with capture() as runs:
        with agentspan.run("first"):
            pass
        if change != "shutdown":
            agentspan.configure(tmp_path / "other.db")
        if change != "configure":
            agentspan.shutdown()
        with agentspan.run("second"):
            pass
    assert [run.name for run in runs] == ["first", "second"]
    assert not (tmp_path / "other.db").exists()
    assert agentspan.get_tracer() is tracer
    with agentspan.run("after"):
        pass
    assert CapturedRuns(storage).one().name == "after"


def test_what_else_is_configured_holds(captured_runs: CapturedRuns) -> None:
    agentspan.configure("elsewhere.db", strict_schemas=True)
    with agentspan.run("a"), pytest.raises(agentspan.ValidationErrors), agentspan.span("llm", {"model": 7}):
        pass
    assert captured_runs.one().spans == []
    assert not Path("elsewhere.db").exists()


def test_faults_of_the_recorder_are_raised(captured_runs: CapturedRuns) -> None:
    agentspan.configure(raise_errors=False)
    with agentspan.run("a"), agentspan.span("tool", {"name": "x"}) as span:
        span.finish()
        with pytest.raises(agentspan.InvalidAction, match="is complete"):
            span.finish()


def test_without_any_configuration_there_is_none_afterwards() -> None:
    agentspan.shutdown()
    with capture():
        search("x")
    assert agentspan.health() == type(agentspan.health())()
    assert not Path(os.environ["AGENTSPAN_DB"]).exists()


def test_a_capture_within_another_takes_what_is_recorded_in_it(captured_runs: CapturedRuns) -> None:
    with capture() as inner:
        agentspan.configure("elsewhere.db")
        with agentspan.run("inner"):
            pass
    with agentspan.run("outer"):
        pass
    assert (inner.one().name, captured_runs.one().name) == ("inner", "outer")


def test_a_span_outside_any_run_has_a_run_of_the_same_name_under_every_runner(captured_runs: CapturedRuns) -> None:
    search("x")
    run = captured_runs.one()
    assert (run.name, run.status) == ("program", "complete")
    run.assert_tree("tool search")


def test_code_that_raises_is_captured_as_far_as_it_came(captured_runs: CapturedRuns) -> None:
    @agentspan.run("fragile")
    def fragile() -> None:
        search("fine")
        search("broken")

    with pytest.raises(TimeoutError, match="read timed out"):
        fragile()
    run = captured_runs.one()
    assert (run.status, run.error and run.error["type"]) == ("failed", "TimeoutError")
    run.assert_tree("tool search\ntool search (failed)")
    run.assert_no_open_spans()


def test_asynchronous_code_is_captured(captured_runs: CapturedRuns) -> None:
    @agentspan.span("tool")
    async def fetch(url: str, wait: asyncio.Event, done: asyncio.Event) -> str:
        await wait.wait()
        done.set()
        return url

    @agentspan.run("crawler")
    async def crawl() -> None:
        a, b = asyncio.Event(), asyncio.Event()
        b.set()
        async with agentspan.span("agent", {"name": "fetcher"}):
            await asyncio.gather(fetch("one", a, b), fetch("two", b, a))

    asyncio.run(crawl())
    run = captured_runs.one()
    run.assert_tree("agent fetcher\n  tool fetch\n  tool fetch")
    assert [call.arguments["url"] for call in run.calls("fetch")] == ["one", "two"]


def test_threads_are_captured_each_in_a_run_of_its_own_unless_they_get_the_context(captured_runs: CapturedRuns) -> None:
    with agentspan.run("main"), ThreadPoolExecutor(4) as pool:
        for number in range(20):
            pool.submit(contextvars.copy_context().run, search, f"inside {number}")
    thread = threading.Thread(target=search, args=("outside",))
    thread.start()
    thread.join()
    main, other = captured_runs
    main.assert_called("search", times=20)
    assert {call.arguments["query"] for call in main.calls("search")} == {f"inside {number}" for number in range(20)}
    assert other.name == "program"
    other.assert_called("search", times=1, query="outside")


def test_ids_clock_and_storage_are_ready_before_anything_is_recorded(captured_runs: CapturedRuns) -> None:
    assert list(captured_runs) == []
    db = agentspan.open(captured_runs.storage)
    instance = db.agent_instances.register("importer")
    assert captured_runs.one().id == instance.id


def test_a_test_function_can_be_run_without_pytest(agent: Callable[[], Any]) -> None:
    def check(captured_runs: CapturedRuns) -> None:
        agent()
        captured_runs.one().assert_called("search")

    with capture() as runs:
        check(runs)
