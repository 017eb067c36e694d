"""A decorated async generator does for its consumer what it did before, whatever that does."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import pytest

from agentspan import Tracer
from tests.recording.stored import only_span

Stream = AsyncGenerator[Any, Any]
Journal = list[Any]


async def plain() -> Stream:
    await asyncio.sleep(0)
    yield 1
    await asyncio.sleep(0)
    yield 2


async def stubborn() -> Stream:
    received: Journal = []
    while len(received) < 4:
        try:
            received.append((yield list(received)))
        except KeyError as error:
            received.append(str(error))


async def forgetful() -> Stream:
    try:
        yield 1
    except KeyError:
        await asyncio.sleep(0)
    raise ValueError("later")


async def chained() -> Stream:
    try:
        yield 1
    except KeyError as error:
        raise ValueError("because of that") from error


async def last_word() -> Stream:
    try:
        yield 1
    except GeneratorExit:
        return


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


async def leaking() -> Stream:
    yield 1
    raise StopAsyncIteration("a mistake")


async def send_all(stream: Stream) -> AsyncIterator[Any]:
    yield await anext(stream)
    for word in "abcd":
        yield await stream.asend(word)


async def send_and_throw(stream: Stream) -> AsyncIterator[Any]:
    yield await anext(stream)
    yield await stream.asend("a")
    yield await stream.athrow(KeyError("x"))
    yield await stream.asend(None)


async def throw(stream: Stream) -> AsyncIterator[Any]:
    yield await anext(stream)
    yield await stream.athrow(KeyError("k"))


async def throw_exit(stream: Stream) -> AsyncIterator[Any]:
    yield await anext(stream)
    yield await stream.athrow(GeneratorExit("enough"))


async def close(stream: Stream) -> AsyncIterator[Any]:
    yield await anext(stream)
    yield await stream.aclose()
    yield await stream.aclose()
    yield await anext(stream, "nothing more")


async def exhaust(stream: Stream) -> AsyncIterator[Any]:
    async for item in stream:
        yield item
    yield await anext(stream, "nothing more")


def told(consumer: Callable[[Stream], AsyncIterator[Any]], stream: Stream) -> Journal:
    """What a consumer sees of a stream, and the chain of what it fails with in the end."""
    seen: Journal = []

    async def consume() -> None:
        try:
            async for item in consumer(stream):
                seen.append(item)
        except BaseException as exception:
            error: BaseException | None = exception
            while error is not None:
                seen.append((type(error), str(error), error.__cause__ is not None, error.__suppress_context__))
                error = error.__context__

    asyncio.run(consume())
    return seen


CONSUMERS = [send_all, send_and_throw, throw, throw_exit, close, exhaust]


@pytest.mark.parametrize("consumer", CONSUMERS)
@pytest.mark.parametrize("make", [plain, stubborn, forgetful, chained, last_word, tidy, leaking])
def test_a_consumer_sees_no_difference(make: Callable[[], Stream], consumer: Any) -> None:
    tracer = Tracer(":memory:", raise_errors=True)
    assert told(consumer, tracer.span("chain")(make)()) == told(consumer, make())
    only_span(tracer)


@pytest.mark.parametrize(
    ("make", "consumer", "status", "result"),
    [
        (plain, exhaust, "complete", {"output": [1, 2]}),
        (plain, close, "complete", {"output": [1], "stopped": "closed"}),
        (tidy, close, "complete", {"output": [1], "stopped": "closed"}),
        (last_word, close, "complete", {"output": [1], "stopped": "closed"}),
        (plain, throw_exit, "complete", {"output": [1], "stopped": "closed"}),
        (plain, throw, "failed", {"output": [1]}),
        (leaking, exhaust, "failed", {"output": [1]}),
    ],
)
def test_a_span_ends_as_its_generator_did(tracer: Tracer, make: Any, consumer: Any, status: str, result: Any) -> None:
    told(consumer, tracer.span("chain")(make)())
    span = only_span(tracer)
    assert span.status == status
    assert span.result is not None
    assert {name: value for name, value in span.result.items() if name != "error"} == result
    assert (span.error is not None) == (status == "failed")
