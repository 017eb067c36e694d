"""Writes and reads of a storage that waits for a server: several at the same time, and none on the event loop."""

import asyncio
import threading
from typing import Any

import pytest

from agentspan.api.context import Context
from agentspan.api.envelopes import Envelope
from agentspan.errors import DatabaseBusy, NotFound
from agentspan.serve import create_app
from agentspan.serve.writes import WriteQueue
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Capabilities
from agentspan.tuning import STANDARD
from tests.serve.asgi import Client
from tests.serve.servers import Api
from tests.waiting import until

THREADS = 4


class Far(MemoryStorage):
    """Rows in memory, as if they were behind a network; notes in which threads it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.called_in: set[tuple[str, str]] = set()

    def capabilities(self) -> Capabilities:
        return super().capabilities()._replace(concurrency=THREADS)

    def __getattribute__(self, name: str) -> Any:
        if name in ("apply", "ask", "group"):
            self.called_in.add((name, threading.current_thread().name.partition("_")[0]))
        return super().__getattribute__(name)


def together(writes: WriteQueue, *operations: Any) -> list[Any]:
    async def run() -> list[Any]:
        return await asyncio.gather(*map(writes.run, operations), return_exceptions=True)

    return asyncio.run(run())


def answer(text: str) -> Envelope:
    return {"status": "success", "details": text}


def test_so_many_operations_run_at_the_same_time_as_the_storage_says() -> None:
    meet, at_once, most = threading.Barrier(THREADS), [], []

    def operation(context: Context) -> Envelope:
        meet.wait(60)  # breaks if they run one after the other
        at_once.append(1)
        most.append(len(at_once))
        meet.wait(60)
        at_once.pop()
        return answer("done")

    said = together(WriteQueue(Context(Far()), 30.0), *[operation] * THREADS * 3)
    assert said == [answer("done")] * THREADS * 3
    assert max(most) <= THREADS


def test_a_refusal_and_a_bug_cost_no_other_request() -> None:
    def refuse(context: Context) -> Envelope:
        raise NotFound("no such thing")

    def fail(context: Context) -> Envelope:
        raise ZeroDivisionError

    said = together(WriteQueue(Context(Far())), refuse, fail, lambda context: answer("done"))
    assert [type(each) for each in said] == [NotFound, ZeroDivisionError, dict]


class Clock:
    """A clock that only moves when it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("agentspan.serve.writes.time", clock)
    return clock


def test_what_waits_too_long_for_its_turn_is_refused_and_not_done(clock: Clock) -> None:
    done: list[str] = []

    writes = WriteQueue(Context(Far()), 0.5)

    def pass_time() -> None:
        until(lambda: writes._crew.waiting == THREADS + 1)
        clock.now += 0.8

    meet = threading.Barrier(THREADS, pass_time)

    def slow(context: Context) -> Envelope:
        meet.wait(60)
        return answer("slow")

    def late(context: Context) -> Envelope:
        done.append("late")
        return answer("late")

    said = together(writes, *[slow] * THREADS, late)
    assert said[:-1] == [answer("slow")] * THREADS
    assert isinstance(said[-1], DatabaseBusy)
    assert done == []


def test_an_operation_may_wait_for_other_writers_as_long_as_its_request(clock: Clock) -> None:
    waits: list[float] = []

    def operation(context: Context) -> Envelope:
        waits.append(context.wait_s)
        return answer("")

    together(WriteQueue(Context(Far()), 7.0), operation)
    assert waits == [7.0]


def test_too_many_requests_are_refused_at_once() -> None:
    may_end = threading.Event()

    def operation(context: Context) -> Envelope:
        may_end.wait(60)
        return answer("")

    async def run() -> list[Any]:
        writes = WriteQueue(Context(Far()), tuning=STANDARD._replace(waiting_requests=2))
        tasks = [asyncio.create_task(writes.run(operation)) for _ in range(3)]
        await asyncio.sleep(0)
        may_end.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    said = asyncio.run(run())
    assert [isinstance(each, DatabaseBusy) for each in said] == [False, False, True]


def test_threads_without_work_end_and_begin_again() -> None:
    writes = WriteQueue(Context(Far()), tuning=STANDARD._replace(idle_thread_s=0.02))
    others = {*threading.enumerate()}
    for _ in range(3):
        assert together(writes, *[lambda context: answer("")] * 6) == [answer("")] * 6
        until(lambda: {*threading.enumerate()} <= others)


def test_no_request_calls_a_storage_that_waits_on_the_event_loop() -> None:
    storage = Far()
    app = create_app(storage)
    api = Client(app, "http://localhost/api/v1")
    storage.called_in.clear()
    said = Api(api)  # type: ignore[arg-type]
    run = said.instance("traveller")
    span = said.span(run)
    paths = [
        f"/agent_spans/{span}", f"/agent_spans/{span}/violations", f"/agent_spans?agent_instance_id={run}",
        f"/agent_instance/{run}", f"/agent_instance/show?agent_instance_id={run}", f"/agent_instance/{run}/scores",
        "/agent_instance", "/agent", "/ping", "/agent_deployment", "/environment", "/account",
    ]  # fmt: skip
    for path in paths:
        assert api.get(path).status_code in (200, 422), path
    assert said.finish(span).status_code == 200
    bulk = {"items": [{"_type": "agent_spans/list", "idempotency_key": "k" * 8, "agent_instance_id": run}]}
    assert api.post("/bulk", json=bulk).status_code == 200
    with Client(app, "http://localhost") as page:
        for path in ("/", f"/runs/{run}", f"/runs/{run}/spans", f"/runs/{run}/spans/{span}", "/runs.json"):
            assert page.get(path).status_code == 200
    api.close()
    names = {name for _, name in storage.called_in}
    assert "MainThread" not in names, storage.called_in
    assert {"agentspan-writer", "agentspan-reader"} <= names
