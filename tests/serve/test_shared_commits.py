"""Writes of spans that wait at the same moment share a reading and a commit, and learn nothing of each other."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from agentspan.api.context import Context, Plan
from agentspan.api.operation import Write
from agentspan.api.runs import RegisterInstance, StartInstance, TerminateInstance
from agentspan.api.spans import CreateSpan, FinishSpan, StartSpan
from agentspan.errors import AgentspanError, DatabaseBusy, InDoubt
from agentspan.model.changes import Outcome, Unit
from agentspan.serve.writes import WriteQueue
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Capabilities
from agentspan.storage.questions import Find


class Far(MemoryStorage):
    """Rows in memory, as if they were behind a network; notes the sizes of commits and readings.

    Attributes:
        fails: raised by each commit of several units.
        goes_on: what the first commit waits for, so that others come together meanwhile.
    """

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[int] = []
        self.readings: list[int] = []
        self.fails: AgentspanError | None = None
        self.goes_on = threading.Event()
        self.goes_on.set()

    def capabilities(self) -> Capabilities:
        return super().capabilities()._replace(concurrency=4)

    def apply(self, units: Sequence[Unit], *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> list[Outcome]:
        assert self.goes_on.wait(10)
        self.commits.append(len(units))
        if self.fails is not None and len(units) > 1:
            raise self.fails
        return super().apply(units, stop_at_refusal=stop_at_refusal, wait_s=wait_s)

    def ask(self, question: Any) -> Any:
        if isinstance(question, Find):
            self.readings.append(len(question.ids))
        return super().ask(question)


@pytest.fixture
def storage() -> Far:
    return Far()


@pytest.fixture
def context(storage: Far) -> Context:
    return Context(storage)


@pytest.fixture
def run(context: Context) -> str:
    id = RegisterInstance({"agent_id": "an-agent"}).run(context).row.id
    StartInstance({"agent_instance_id": id}).run(context)
    return id


def created(context: Context, run: str, **more: Any) -> str:
    fields = {"agent_instance_id": run, "schema_name": "tool", "status": "active", **more}
    id: str = CreateSpan(fields)(context)["details"]["id"]
    return id


def answers(storage: Far, context: Context, writes: Sequence[Write]) -> list[Any]:
    """Send writes that come together, behind two groups which are at work; return their answers, or errors."""
    queue = WriteQueue(context, 10.0)
    run = RegisterInstance({"agent_id": "another"}).run(context).row.id
    before = [FinishSpan({"agent_span_id": created(context, run)}) for _ in range(2)]

    async def send() -> list[Any]:
        storage.goes_on.clear()
        first = []
        for write in before:
            first.append(asyncio.create_task(queue.run(write)))
            while queue._queue or len(storage.readings) < len(first):
                await asyncio.sleep(0.001)
        rest = [asyncio.create_task(queue.run(write)) for write in writes]
        await asyncio.sleep(0)
        storage.goes_on.set()
        await asyncio.gather(*first)
        return await asyncio.gather(*rest, return_exceptions=True)

    storage.readings.clear()
    storage.commits.clear()
    return asyncio.run(send())


def status_of(answer: Any) -> str:
    return answer.code if isinstance(answer, AgentspanError) else str(answer["details"]["status"])


def test_writes_that_wait_together_are_one_reading_and_one_commit(storage: Far, context: Context, run: str) -> None:
    spans = [created(context, run) for _ in range(20)]
    said = answers(storage, context, [FinishSpan({"agent_span_id": id}) for id in spans])
    assert [status_of(each) for each in said] == ["complete"] * 20
    assert [each["details"]["id"] for each in said] == spans
    assert len(storage.commits) == len(storage.readings) <= 4  # two of them before


def test_of_several_that_finish_a_span_together_one_does(storage: Far, context: Context, run: str) -> None:
    span = created(context, run)
    said = answers(storage, context, [FinishSpan({"agent_span_id": span})] * 5)
    assert sorted(status_of(each) for each in said) == ["complete", *["invalid_action"] * 4]


def test_each_has_its_own_answer(storage: Far, context: Context, run: str) -> None:
    """Refusals, keys that were used, missing ids, starts and creations among finishes."""
    other = RegisterInstance({"agent_id": "an-agent"}).run(context).row.id
    ended = created(context, other)
    StartInstance({"agent_instance_id": other}).run(context)
    TerminateInstance({"agent_instance_id": other, "reason": "stop"}).run(context)
    pending, done = created(context, run, status="pending"), created(context, run, status="complete")
    keyed = {"agent_instance_id": run, "schema_name": "tool", "status": "active", "idempotency_key": "k"}
    own = "013xrzp12g3nqk8n4evtrcj59k8dhn3t"
    said = answers(
        storage,
        context,
        [
            StartSpan({"agent_span_id": pending}),
            FinishSpan({"agent_span_id": done}),
            FinishSpan({"agent_span_id": own[:-1] + "z"}),
            CreateSpan(keyed),
            CreateSpan(keyed),
            CreateSpan({**keyed, "schema_name": "another"}),
            CreateSpan({**keyed, "idempotency_key": None, "id": own}),
            CreateSpan({**keyed, "idempotency_key": None, "agent_instance_id": other}),
            CreateSpan({"schema_name": "tool"}),
            FinishSpan({"agent_span_id": ended}),
        ],
    )
    assert [status_of(each) for each in said] == [
        "active", "invalid_action", "not_found", "active", "active", "idempotency_key_already_used", "active",
        "active", "required_value", "complete",
    ]  # fmt: skip
    assert said[3] == said[4]
    assert said[6]["details"]["id"] == own
    assert [said[number].get("control") for number in (0, 7, 9)] == [None, *[{"terminate": True, "reason": "stop"}] * 2]


class Broken(FinishSpan):
    """An operation with a bug."""

    def plan(self, ctx: Context) -> Plan:
        raise AttributeError


def test_a_bug_costs_its_own_request_only(storage: Far, context: Context, run: str) -> None:
    spans = [created(context, run) for _ in range(3)]
    writes = [FinishSpan({"agent_span_id": id}) for id in spans]
    writes.insert(1, Broken({}))
    said = answers(storage, context, writes)
    assert isinstance(said.pop(1), AttributeError)
    assert [status_of(each) for each in said] == ["complete"] * 3


@pytest.fixture
def writes(context: Context, run: str) -> Callable[[], list[Write]]:
    return lambda: [FinishSpan({"agent_span_id": created(context, run)}) for _ in range(4)]


def test_each_write_of_a_group_that_failed_is_done_alone(
    storage: Far, context: Context, writes: Callable[[], list[Write]]
) -> None:
    """One of them may wait for a lock, or break a key that another program has stored at the same moment."""
    sent = writes()
    storage.fails = DatabaseBusy("a lock")
    said = answers(storage, context, sent)
    assert [status_of(each) for each in said] == ["complete"] * 4


def test_all_writes_of_a_group_whose_commit_is_in_doubt_are_in_doubt(
    storage: Far, context: Context, writes: Callable[[], list[Write]]
) -> None:
    sent = writes()
    storage.fails = InDoubt("stored, or not")
    said = answers(storage, context, sent)
    assert {type(each) for each in said} <= {InDoubt, dict}
    assert InDoubt in map(type, said)
