"""Decorated async generators: as those that are not async, and whoever closes them, none is closed twice."""

import asyncio
import contextvars
import gc
import sys
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from agentspan import Tracer
from agentspan.testing import CapturedRuns
from tests.recording.stored import only_span

pytestmark = pytest.mark.usefixtures("small_heap")

Stream = AsyncGenerator[Any, Any]
Journal = list[Any]


async def plain() -> Stream:
    await asyncio.sleep(0)
    yield 1
    await asyncio.sleep(0)
    yield 2


async def tidy() -> Stream:
    try:
        yield 1
    finally:
        await asyncio.sleep(0)


async def deaf() -> Stream:
    try:
        yield 1
    except GeneratorExit:
        yield 2


def test_a_generator_that_will_not_be_closed_says_so(tracer: Tracer) -> None:
    async def main() -> None:
        stream = tracer.span("chain")(deaf)()
        await anext(stream)
        with pytest.raises(RuntimeError, match="async generator ignored GeneratorExit"):
            await stream.aclose()
        assert await anext(stream, None) is None

    asyncio.run(main())
    assert only_span(tracer).result == {"output": [1, 2]}


def problems_in(main: Callable[[], Any]) -> list[str]:
    """Run a coroutine function in an event loop, and return what the loop complains of."""
    problems: list[str] = []

    async def watched() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: problems.append(context["message"]))
        await main()

    asyncio.run(watched())
    return problems


@pytest.mark.parametrize("how", ["held until the loop ends", "dropped", "collected"])
def test_a_generator_that_its_consumer_left_is_closed_by_the_event_loop_once(tracer: Tracer, how: str) -> None:
    journal: Journal = []
    held: list[Any] = []

    @tracer.span("chain")
    async def careful() -> Stream:
        try:
            yield 1
            yield 2
        finally:
            journal.append("closing")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            journal.append("closed")

    async def main() -> None:
        stream = careful()
        held.append(stream)
        async for _ in stream:
            break
        if how == "collected":
            await stream.asend(stream)  # a cycle
        if how != "held until the loop ends":
            held.clear()
            del stream
            gc.collect()
            for _ in range(10):
                await asyncio.sleep(0)
            assert journal == ["closing", "closed"]

    assert problems_in(main) == []
    assert journal == ["closing", "closed"]
    assert only_span(tracer).result is not None
    assert only_span(tracer).result["stopped"] == "closed"


def step_by_hand(awaitable: Any) -> Any:
    """Drive something that awaits nothing, without an event loop."""
    try:
        awaitable.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits for something")


async def plain_by_hand() -> Stream:
    yield 1


@pytest.mark.parametrize("how", ["dropped", "collected"])
def test_a_generator_that_is_driven_by_hand_is_closed_when_it_is_dropped(tracer: Tracer, how: str) -> None:
    journal: Journal = []

    @tracer.span("chain")
    async def by_hand() -> Stream:
        try:
            received = yield 1
            yield received
        finally:
            journal.append("closed")

    stream: Any = by_hand()
    assert step_by_hand(anext(stream)) == 1
    if how == "collected":
        step_by_hand(stream.asend(stream))
    del stream
    gc.collect()
    assert journal == ["closed"]
    assert only_span(tracer).result is not None


def test_a_generator_whose_event_loop_is_gone_leaves_no_open_span(tracer: Tracer) -> None:
    journal: Journal = []

    @tracer.span("chain")
    async def left() -> Stream:
        try:
            yield 1
        finally:
            journal.append("closed")

    async def begin(stream: Stream) -> Any:
        return await anext(stream)

    loop = asyncio.new_event_loop()
    stream: Any = left()
    assert loop.run_until_complete(begin(stream)) == 1
    loop.close()
    del stream
    gc.collect()
    assert journal == []  # there is nobody who could await it: Python drops it as it is
    assert only_span(tracer).result == {"output": [1], "stopped": "closed"}


def test_who_watches_generators_is_told_of_the_decorated_one_and_is_left_in_place(tracer: Tracer) -> None:
    told_of: list[Any] = []
    before = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(told_of.append, None)
    try:
        mine = sys.get_asyncgen_hooks()
        stream: Any = tracer.span("chain")(plain_by_hand)()
        step_by_hand(anext(stream))
        assert sys.get_asyncgen_hooks() == mine
    finally:
        sys.set_asyncgen_hooks(*before)
    assert told_of == [stream]
    step_by_hand(stream.aclose())


def test_its_own_calls_are_its_children_and_its_consumers_are_not(tracer: Tracer) -> None:
    @tracer.span
    async def step(name: str) -> None:
        await asyncio.sleep(0)

    @tracer.span("chain")
    async def source() -> Stream:
        async with tracer.span("agent", {"name": "scout"}):
            for number in range(2):
                await step("generator")
                yield number

    async def main() -> None:
        async with tracer.run("a"), aclosing(source()) as stream:
            async for _ in stream:
                await step("consumer")

    asyncio.run(main())
    run = CapturedRuns(tracer.storage).one()
    run.assert_tree("""
        chain source
          agent scout
            tool step
            tool step
        tool step
        tool step
    """)
    assert {span.arguments["name"] for span in run.roots[1:]} == {"consumer"}


def test_generators_of_several_tasks_do_not_mix(tracer: Tracer) -> None:
    @tracer.span
    async def step() -> None:
        await asyncio.sleep(0)

    @tracer.span("chain")
    async def source(turns: int) -> Stream:
        for number in range(turns):
            await step()
            yield number

    async def consume(turns: int) -> None:
        async with tracer.span("agent", {"name": str(turns)}):
            async for _ in source(turns):
                await step()

    async def main() -> None:
        async with tracer.run("a"):
            await asyncio.gather(*map(consume, (3, 1, 2)))

    asyncio.run(main())
    for agent in CapturedRuns(tracer.storage).one().roots:
        turns = int(agent.name)
        assert [child.title for child in agent.children] == ["chain source", *["tool step"] * turns]
        assert [child.title for child in agent.children[0].children] == ["tool step"] * turns


def test_a_generator_entered_in_one_task_can_be_closed_in_another(tracer: Tracer) -> None:
    stream: Any = tracer.span("chain")(tidy)()

    async def begin() -> None:
        with tracer.span("agent", {"name": "begins"}):
            await anext(stream)

    async def end() -> None:
        with tracer.span("agent", {"name": "ends"}) as span:
            await stream.aclose()
            assert tracer.current_span() is span

    async def main() -> None:
        async with tracer.run("a"):
            await asyncio.create_task(begin())
            await asyncio.create_task(end())

    asyncio.run(main())
    CapturedRuns(tracer.storage).one().assert_tree("""
        agent begins
          chain tidy
        agent ends
    """)


class Forever:
    def __await__(self) -> Any:
        yield


def test_closing_one_that_waits_leaves_the_closers_context_alone(tracer: Tracer) -> None:
    @tracer.span("chain")
    async def waiting() -> Stream:
        yield 1
        await Forever()

    async def consume() -> None:
        async for _ in waiting():
            pass

    consumer = consume()
    with tracer.run("one"):
        contextvars.copy_context().run(consumer.send, None)
    with tracer.run("two"), tracer.span("tool", {"name": "x"}) as span:
        consumer.close()
        assert tracer.current_span() is span
    assert [run.tree() for run in CapturedRuns(tracer.storage)] == ["chain waiting", "tool x"]


def test_a_consumer_that_is_cancelled_while_the_generator_waits_fails_it(tracer: Tracer) -> None:
    @tracer.span("chain")
    async def waiting() -> Stream:
        yield 1
        await asyncio.Event().wait()

    async def consume() -> None:
        async for _ in waiting():
            pass

    async def main() -> None:
        task = asyncio.create_task(consume())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert problems_in(main) == []
    span = only_span(tracer)
    assert (span.status, span.error["type"]) == ("failed", "asyncio.exceptions.CancelledError")


def test_a_block_around_a_yield_never_raises(tracer: Tracer) -> None:
    @asynccontextmanager
    async def transaction() -> AsyncIterator[None]:
        async with tracer.span("chain", {"name": "transaction"}):
            yield

    async def undecorated() -> Stream:
        async with tracer.span("chain", {"name": "undecorated"}):
            yield 1

    async def begin(stream: Stream) -> None:
        await anext(stream)

    async def main() -> None:
        async with tracer.run("a"):
            async with transaction():
                pass
            stream = undecorated()
            await asyncio.create_task(begin(stream))
            await asyncio.create_task(stream.aclose())
            assert tracer.current_span() is None

    assert problems_in(main) == []
    run = CapturedRuns(tracer.storage).one()
    run.assert_tree("chain transaction\nchain undecorated (failed)")  # with GeneratorExit, which came through the block


def test_a_generator_that_is_over_is_let_go(tracer: Tracer) -> None:
    class Item:
        pass

    kept: list[weakref.ref[Item]] = []

    @tracer.span("chain")
    async def items() -> Stream:
        item = Item()
        kept.append(weakref.ref(item))
        yield item

    async def main() -> None:
        stream = items()
        async for _ in stream:
            pass
        del _
        assert kept[0]() is None

    asyncio.run(main())
    assert only_span(tracer).status == "complete"
