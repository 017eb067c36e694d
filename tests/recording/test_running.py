"""Tasks, task groups and threads: what happens in them is nested in what began them, and nowhere else."""

import asyncio
import functools
import sys
import threading
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agentspan import Tracer
from agentspan.testing import CapturedRun, CapturedRuns


@pytest.fixture
def step(tracer: Tracer) -> Callable[[str], str]:
    """A recorded function."""

    @tracer.span
    def step(name: str) -> str:
        return name

    return step


@pytest.fixture
def work(tracer: Tracer) -> Callable[[str], Awaitable[str]]:
    """A coroutine function with a step of its own; it lets the others go on in between."""

    @tracer.span
    async def lookup() -> None:
        await asyncio.sleep(0)

    async def work(name: str) -> str:
        async with tracer.span("agent", {"name": name}):
            await asyncio.sleep(0)
            await lookup()
        return name

    return work


def the_run(tracer: Tracer, name: str = "main") -> CapturedRun:
    """The only run, which is complete, as is everything in it."""
    run = CapturedRuns(tracer.storage).one()
    run.assert_no_failures()
    run.assert_no_open_spans()
    assert (run.name, run.status) == (name, "complete")
    assert tracer.current_run() is None
    return run


WORKERS = """
    chain boss
      agent one
        tool lookup
      agent two
        tool lookup
"""


async def with_gather(work: Any) -> None:
    await asyncio.gather(work("one"), work("two"))


async def with_tasks(work: Any) -> None:
    for task in [asyncio.create_task(work(name)) for name in ("one", "two")]:
        await task


async def with_a_task_group(work: Any) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(work("one"))
        group.create_task(work("two"))


async def with_timeouts(work: Any) -> None:
    async with asyncio.timeout(60):
        await asyncio.wait_for(work("one"), 60)
    await asyncio.wait([asyncio.ensure_future(work("two"))])


async def with_shields(work: Any) -> None:
    await asyncio.shield(work("one"))
    for finished in asyncio.as_completed([work("two")]):
        await finished


async def with_a_queue(work: Any) -> None:
    queue: asyncio.Queue[str | None] = asyncio.Queue()

    async def worker() -> None:
        while (name := await queue.get()) is not None:
            await work(name)

    task = asyncio.create_task(worker())
    for name in ("one", "two", None):
        queue.put_nowait(name)
    await task


async def with_callbacks(work: Any) -> None:
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    tasks: list[asyncio.Task[Any]] = []

    def begin() -> None:
        tasks.extend(asyncio.ensure_future(work(name)) for name in ("one", "two"))
        done.set()

    loop.call_soon(begin)
    await done.wait()
    await asyncio.gather(*tasks)


async def with_eager_tasks(work: Any) -> None:
    if sys.version_info < (3, 12):
        pytest.skip("needs Python 3.12 or newer")
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    await asyncio.gather(work("one"), work("two"))


WAYS = [
    with_gather,
    with_tasks,
    with_a_task_group,
    with_timeouts,
    with_shields,
    with_a_queue,
    with_callbacks,
    with_eager_tasks,
]


@pytest.mark.parametrize("begin", WAYS)
def test_what_tasks_do_is_nested_in_what_began_them(tracer: Tracer, work: Any, begin: Any) -> None:
    async def main() -> None:
        async with tracer.run("main"):
            with tracer.span("chain", {"name": "boss"}) as boss:
                await begin(work)
                assert tracer.current_span() is boss

    asyncio.run(main())
    the_run(tracer).assert_tree(WORKERS)


def test_tasks_of_several_runs_at_once_do_not_mix(tracer: Tracer, work: Any) -> None:
    @tracer.run("main")
    async def serve(name: str) -> None:
        await asyncio.gather(work(f"{name}1"), work(f"{name}2"))

    async def main() -> None:
        await asyncio.gather(*map(serve, "abc"))

    asyncio.run(main())
    runs = list(CapturedRuns(tracer.storage))
    assert sorted(run.tree() for run in runs) == [
        f"agent {name}1\n  tool lookup\nagent {name}2\n  tool lookup" for name in "abc"
    ]


def test_a_task_that_outlives_its_span_keeps_it_as_its_parent(tracer: Tracer, work: Any) -> None:
    async def main() -> None:
        async with tracer.run("main"):
            with tracer.span("chain", {"name": "boss"}):
                task = asyncio.create_task(work("late"))
            await task

    asyncio.run(main())
    the_run(tracer).assert_tree("chain boss\n  agent late\n    tool lookup")


def test_a_timeout_fails_what_it_cancels_and_nothing_else(tracer: Tracer) -> None:
    @tracer.span("tool")
    async def slow() -> None:
        await asyncio.Event().wait()

    @tracer.span("agent", {"name": "patient"})
    async def patient() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await slow()

    async def main() -> None:
        async with tracer.run("main"):
            await patient()

    asyncio.run(main())
    run = CapturedRuns(tracer.storage).one()
    run.assert_tree("agent patient\n  tool slow (failed)")
    assert run.find("slow")[0].error["type"] == "asyncio.exceptions.CancelledError"


def test_one_failure_in_a_task_group_cancels_and_fails_the_others(tracer: Tracer) -> None:
    @tracer.span("tool")
    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("boom")

    @tracer.span("tool")
    async def wait() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        async with tracer.run("main"), asyncio.TaskGroup() as group:
            group.create_task(wait())
            group.create_task(fail())

    with pytest.raises(ExceptionGroup):
        asyncio.run(main())
    run = CapturedRuns(tracer.storage).one()
    run.assert_tree("tool wait (failed)\ntool fail (failed)")
    assert run.error is not None
    assert run.error["exceptions"] == [{"type": "ValueError", "message": "boom"}]


def test_a_cancelled_task_that_cleans_up_records_that_too(tracer: Tracer, step: Any) -> None:
    @tracer.span("chain")
    async def careful() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            step("cleaning")

    async def main() -> None:
        task = asyncio.create_task(careful())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    CapturedRuns(tracer.storage).one().assert_tree("chain careful (failed)\n  tool step")


def test_a_coroutine_that_is_never_finished_leaves_no_open_span(tracer: Tracer) -> None:
    class Forever:
        def __await__(self) -> Generator[None]:
            yield

    @tracer.span
    async def abandoned() -> None:
        await Forever()

    coroutine = abandoned()
    coroutine.send(None)
    del coroutine
    run = CapturedRuns(tracer.storage).one()
    run.assert_no_open_spans()
    assert run.spans[0].error["type"] == "GeneratorExit"
    assert tracer.current_run() is None


def test_threads_of_asyncio_nest_as_tasks_do(tracer: Tracer, step: Any) -> None:
    async def main() -> None:
        async with tracer.run("main"):
            with tracer.span("chain", {"name": "boss"}):
                await asyncio.gather(*(asyncio.to_thread(step, name) for name in "ab"))

    asyncio.run(main())
    the_run(tracer).assert_tree("chain boss\n  tool step\n  tool step")


def test_executors_of_asyncio_nest_with_propagate_only(tracer: Tracer, step: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with tracer.run("main"):
            await loop.run_in_executor(None, tracer.propagate(step), "inside")
            await loop.run_in_executor(None, step, "outside")

    asyncio.run(main())
    trees = {run.name: run.spans[0].arguments for run in CapturedRuns(tracer.storage)}
    assert trees.pop("main") == {"name": "inside"}
    assert list(trees.values()) == [{"name": "outside"}]


def test_threads_without_propagate_have_runs_of_their_own(tracer: Tracer, step: Any) -> None:
    with tracer.run("main"), ThreadPoolExecutor(2) as pool:
        pool.submit(step, "a").result()
        thread = threading.Thread(target=step, args=("b",))
        thread.start()
        thread.join()
    main, *others = CapturedRuns(tracer.storage)
    assert (main.name, main.tree()) == ("main", "")
    assert [run.tree() for run in others] == ["tool step"] * 2


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_anyio_task_groups_and_threads_nest(tracer: Tracer, step: Any, backend: str) -> None:
    anyio = pytest.importorskip("anyio", reason="needs anyio")
    pytest.importorskip(backend, reason=f"needs {backend}")

    async def work(name: str) -> None:
        async with tracer.span("agent", {"name": name}):
            await anyio.sleep(0)
            await anyio.to_thread.run_sync(step, name)

    async def main() -> None:
        async with tracer.run("main"):
            with tracer.span("chain", {"name": "boss"}):
                async with anyio.create_task_group() as group:
                    group.start_soon(work, "one")
                    group.start_soon(work, "two")
                with anyio.move_on_after(0):
                    await work("late")

    anyio.run(main, backend=backend)
    (boss,) = CapturedRuns(tracer.storage).one().roots
    assert (boss.status, sorted(f"{child.name} {child.status} {len(child.children)}" for child in boss.children)) == (
        "complete",
        ["late failed 0", "one complete 1", "two complete 1"],
    )


def test_trio_nurseries_threads_and_generators_nest(tracer: Tracer, step: Any) -> None:
    trio = pytest.importorskip("trio", reason="needs trio")

    async def work(name: str) -> None:
        async with tracer.span("agent", {"name": name}):
            await trio.lowlevel.checkpoint()
            await trio.to_thread.run_sync(step, name)

    @tracer.span("chain")
    async def items() -> Any:
        for number in range(2):
            await trio.lowlevel.checkpoint()
            step("item")
            yield number

    async def main() -> None:
        async with tracer.run("main"), trio.open_nursery() as nursery:
            nursery.start_soon(work, "one")
            with trio.CancelScope() as scope:
                scope.cancel()
                await work("cancelled")
            async for _ in items():
                pass

    trio.run(main)
    roots = CapturedRuns(tracer.storage).one().roots
    assert sorted(f"{root.name} {root.status} {len(root.children)}" for root in roots) == [
        "cancelled failed 0",
        "items complete 2",
        "one complete 1",
    ]


def test_a_profiler_and_a_tracer_of_the_interpreter_see_a_program_that_works(tracer: Tracer, step: Any) -> None:
    seen = {"profile": 0, "trace": 0}

    def watch(kind: str, *event: Any) -> Any:
        seen[kind] += 1
        step("watcher") if seen[kind] == 50 else None
        return functools.partial(watch, kind)

    before = sys.getprofile(), sys.gettrace()
    with tracer.run("main"):
        sys.setprofile(functools.partial(watch, "profile"))
        sys.settrace(functools.partial(watch, "trace"))
        try:
            for _ in range(10):
                step("watched")
        finally:
            sys.setprofile(before[0])
            sys.settrace(before[1])
    run = the_run(tracer)
    assert min(seen.values()) > 50
    assert len(run.calls("step", name="watched")) == 10
    assert len(run.calls("step", name="watcher")) == 2
