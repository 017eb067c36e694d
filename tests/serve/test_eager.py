"""An awaitable that is started at once gives what it would give when it is awaited."""

import asyncio

import pytest

from agentspan.serve.app import Eager


async def answer(*waits: float) -> int:
    for wait in waits:
        await asyncio.sleep(wait)
    return 42


async def failing(*waits: float) -> None:
    await answer(*waits)
    raise LookupError


@pytest.mark.parametrize("waits", [(), (0,), (0.001, 0, 0.001)])
def test_the_result_is_the_same_wherever_it_waits(waits: tuple[float, ...]) -> None:
    async def run() -> tuple[bool, int]:
        started = Eager(answer(*waits))
        return started.is_done, await started

    assert asyncio.run(run()) == (not waits, 42)


def test_errors_are_raised_where_they_happen() -> None:
    async def run() -> None:
        with pytest.raises(LookupError):
            Eager(failing())
        with pytest.raises(LookupError):
            await Eager(failing(0.001))

    asyncio.run(run())


def test_a_deadline_reaches_what_has_started() -> None:
    ended: list[str] = []

    async def long() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("long")

    async def run() -> None:
        started = Eager(long())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await started

    asyncio.run(run())
    assert ended == ["long"]


def test_a_future_can_be_started() -> None:
    async def run() -> str:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        started = Eager(future)
        asyncio.get_running_loop().call_soon(future.set_result, "late")
        return await started

    assert asyncio.run(run()) == "late"
