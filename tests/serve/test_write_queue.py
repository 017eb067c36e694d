"""Where writes happen: groups on the event loop, a thread for what must wait, and nobody pays for another's fault."""

import asyncio
import itertools
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentspan.api.context import Context
from agentspan.api.envelopes import Envelope
from agentspan.api.runs import RegisterInstance
from agentspan.api.spans import CreateSpan, FinishSpan
from agentspan.errors import DatabaseBusy, NotFound, NotPermitted, NotStorable
from agentspan.model.changes import Move, Unit
from agentspan.serve.writes import WAIT_S, Work, WriteQueue
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.questions import SpansOf
from agentspan.storage.sqlite import SQLiteStorage
from agentspan.tuning import STANDARD

TOOL = {"schema_name": "tool", "status": "active"}


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[SQLiteStorage]:
    made = SQLiteStorage(tmp_path / "runs.db")
    yield made
    made.close()


@pytest.fixture
def ctx(storage: SQLiteStorage) -> Context:
    return Context(storage)


@pytest.fixture
def instance(ctx: Context) -> str:
    id: str = RegisterInstance({"agent_id": "an-agent"})(ctx)["details"]["id"]
    return id


def queue_of(ctx: Context, *, wait_s: float = WAIT_S, **tuning: Any) -> WriteQueue:
    """A queue whose slices are long, however slow the machine is."""
    return WriteQueue(ctx, wait_s, STANDARD._replace(**{"loop_slice_s": 60.0, **tuning}))


def create(instance: str, **fields: Any) -> Work:
    return CreateSpan({"agent_instance_id": instance, **TOOL, **fields})


def finish(span: str) -> Work:
    return FinishSpan({"agent_span_id": span})


def broken(context: Context) -> Envelope:
    """An operation with a bug, which takes its whole transaction with it."""
    wrong: Any = {"summary": object()}
    context.storage.apply([Unit((Move("agent_span", "x", frozenset(), wrong),))])
    raise AssertionError("not reached")


def spans(ctx: Context, instance: str) -> list[str]:
    return [row.status for row in ctx.storage.ask(SpansOf(instance))]


def together(writer: WriteQueue, *operations: Work) -> list[Any]:
    """What operations answer that come in one turn of the loop."""

    async def run() -> list[Any]:
        return await asyncio.gather(*map(writer.run, operations), return_exceptions=True)

    return asyncio.run(run())


def test_what_comes_in_one_turn_shares_a_commit(storage: SQLiteStorage, ctx: Context, instance: str) -> None:
    statements: list[str] = []
    storage.direct._connections.writer().set_trace_callback(statements.append)
    answers = together(queue_of(ctx), *[create(instance)] * 20)
    assert {answer["status"] for answer in answers} == {"success"}
    assert statements.count("commit") == 1
    assert spans(ctx, instance) == ["active"] * 20


def test_each_is_refused_or_not_by_itself_and_sees_those_before_it(ctx: Context, instance: str) -> None:
    writer = queue_of(ctx)
    [first] = together(writer, create(instance))
    id = first["details"]["id"]
    done, twice, other, lost = together(writer, finish(id), finish(id), create(instance), create("x" * 32))
    assert done["details"]["status"] == "complete"
    assert twice.code == "invalid_action"
    assert other["status"] == "success"
    assert isinstance(lost, NotFound)
    assert spans(ctx, instance) == ["complete", "active"]


def test_what_breaks_a_commit_costs_itself_only(ctx: Context, instance: str) -> None:
    before, wrong, after = together(queue_of(ctx), create(instance), broken, create(instance))
    assert before["status"] == after["status"] == "success"
    assert isinstance(wrong, NotStorable)
    assert spans(ctx, instance) == ["active", "active"]


def test_a_turn_takes_no_more_than_its_slice(ctx: Context, instance: str) -> None:
    writer = queue_of(ctx, loop_slice_s=0.0)
    order: list[str] = []

    async def write() -> None:
        await writer.run(create(instance))
        order.append("write")

    async def ping() -> None:
        while order.count("write") < 5:
            await asyncio.sleep(0)
            order.append("ping")

    async def run() -> None:
        await asyncio.gather(*(write() for _ in range(5)), ping())

    asyncio.run(run())
    writes = [number for number, name in enumerate(order) if name == "write"]
    assert all(later - earlier > 1 for earlier, later in itertools.pairwise(writes)), order


def test_a_file_that_is_only_read_says_so_to_each(ctx: Context, instance: str, tmp_path: Path) -> None:
    reading = SQLiteStorage(tmp_path / "runs.db", read_only=True)
    results = together(queue_of(Context(reading)), create(instance), create("x" * 32))
    assert [type(result) for result in results] == [NotPermitted, NotFound]
    reading.close()


class Locked:
    """Another program that writes until it is let go."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("begin immediate")

    def let_go(self) -> None:
        self.connection.execute("rollback")
        self.connection.close()


def test_who_waits_for_another_program_holds_up_nobody(ctx: Context, instance: str, tmp_path: Path) -> None:
    async def run() -> list[Any]:
        writer = queue_of(ctx, wait_s=60)
        other = Locked(tmp_path / "runs.db")
        waiting = [asyncio.ensure_future(writer.run(create(instance))) for _ in range(3)]
        while not writer._crew.waiting:
            await asyncio.sleep(0)
        waiting.append(asyncio.ensure_future(writer.run(create(instance))))  # while the thread waits
        await asyncio.sleep(0.02)
        assert not any(future.done() for future in waiting)
        other.let_go()
        return await asyncio.gather(*waiting)

    assert [answer["status"] for answer in asyncio.run(run())] == ["success"] * 4
    assert spans(ctx, instance) == ["active"] * 4


def test_what_met_a_busy_file_together_is_committed_together(
    storage: SQLiteStorage, ctx: Context, instance: str, tmp_path: Path
) -> None:
    statements: list[str] = []
    storage.direct._connections.writer().set_trace_callback(statements.append)

    async def run() -> None:
        writer = queue_of(ctx, wait_s=60)
        other = Locked(tmp_path / "runs.db")
        waiting = [asyncio.ensure_future(writer.run(create(instance))) for _ in range(20)]
        while not writer._crew.waiting:
            await asyncio.sleep(0)
        other.let_go()
        await asyncio.gather(*waiting)

    asyncio.run(run())
    assert statements.count("commit") < 4  # the thread may begin before all of them have met the busy file
    assert spans(ctx, instance) == ["active"] * 20


def test_who_waited_long_enough_is_told_that_the_file_is_busy(ctx: Context, instance: str, tmp_path: Path) -> None:
    writer = queue_of(ctx, wait_s=0.05)
    other = Locked(tmp_path / "runs.db")
    refused = together(writer, create(instance), create(instance))
    other.let_go()
    assert [type(result) for result in refused] == [DatabaseBusy] * 2
    assert together(writer, create(instance))[0]["status"] == "success"
    assert spans(ctx, instance) == ["active"]


def test_too_many_need_not_even_wait(ctx: Context, instance: str, tmp_path: Path) -> None:
    async def run() -> None:
        writer = queue_of(ctx, wait_s=60, waiting_requests=2)
        other = Locked(tmp_path / "runs.db")
        waiting = [asyncio.ensure_future(writer.run(create(instance))) for _ in range(2)]
        while not writer._crew.waiting:
            await asyncio.sleep(0)
        with pytest.raises(DatabaseBusy):
            await writer.run(create(instance))
        other.let_go()
        await asyncio.gather(*waiting)

    asyncio.run(run())


def test_what_takes_long_runs_in_a_thread_in_its_turn(ctx: Context, instance: str) -> None:
    where: list[str] = []

    def noted(context: Context) -> Envelope:
        where.append(threading.current_thread().name)
        return {}

    async def run() -> None:
        writer = queue_of(ctx)
        await asyncio.gather(writer.run(noted), writer.run(noted, is_long=True), writer.run(noted))
        await writer.run(noted)  # the loop has its turn back

    asyncio.run(run())
    assert where[:2] == ["MainThread", "agentspan-writer"]
    assert where[3] == "MainThread"


def test_who_hung_up_is_no_trouble_to_the_others(ctx: Context, instance: str) -> None:
    async def run() -> Any:
        writer = queue_of(ctx)
        gone = asyncio.ensure_future(writer.run(create(instance)))
        await asyncio.sleep(0)
        gone.cancel()
        return await writer.run(create(instance))

    assert asyncio.run(run())["status"] == "success"
    assert spans(ctx, instance) == ["active", "active"]


def test_a_loop_that_ended_leaves_nothing_in_the_way_of_the_next(ctx: Context, instance: str) -> None:
    writer = queue_of(ctx)

    async def leave() -> None:
        leaving = asyncio.ensure_future(writer.run(create(instance)))
        await asyncio.sleep(0)  # it is in the queue, and its turn never comes
        assert not leaving.done()

    asyncio.run(leave())
    assert together(writer, create(instance))[0]["status"] == "success"


class Plain(MemoryStorage):
    """A storage without groups."""

    group: Any = None


@pytest.mark.parametrize("make", [MemoryStorage, Plain])
def test_any_storage_will_do(make: Callable[[], MemoryStorage]) -> None:
    ctx = Context(make())
    instance = RegisterInstance({"agent_id": "an-agent"})(ctx)["details"]["id"]
    results = together(queue_of(ctx), create(instance), create("x" * 32), create(instance))
    assert [type(result) for result in results] == [dict, NotFound, dict]
    assert spans(ctx, instance) == ["active", "active"]
