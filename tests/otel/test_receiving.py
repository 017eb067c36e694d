"""Spans as they arrive: the transactions that they take, and the rows that are removed in between."""

import json
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import Mock

import pytest

from agentspan.api.context import Context
from agentspan.errors import DatabaseBusy
from agentspan.model.changes import Applied, Remove, Unit
from agentspan.model.rows import AgentInstanceRow, AgentRow, AgentSpanRow
from agentspan.otel import receiving
from agentspan.otel.placing import MAX_BYTES, Placing, RecentTraces
from agentspan.otel.receiving import Receiver, portions
from agentspan.otel.span import Event, Log, OtelSpan
from agentspan.recording.capture.plain import SentRedaction
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Storage, new_account
from agentspan.storage.questions import Query, SpansOf
from agentspan.storage.sqlite.storage import SQLiteStorage
from agentspan.tuning import STANDARD
from tests.otel.recorded import NAMES, recorded, span

T = TypeVar("T")
LONG = "The flight leaves JFK at 09:40, and Seattle will be rainy. " * 20


def _trace(number: int, text: str = "short") -> Iterator[OtelSpan]:
    """An agent with two calls of a model and one of a tool, its root last."""
    trace_id = f"{number:032x}"
    for each, kind in ((2, "LLM"), (3, "LLM"), (4, "TOOL"), (1, "AGENT")):
        said = {"openinference.span.kind": kind, "input.value": text} | ({"agent.name": "helper"} if each == 1 else {})
        above = None if each == 1 else f"{1:016x}"
        yield span(said, trace_id=trace_id, span_id=f"{each:016x}", parent_span_id=above)


def _spans(storage: Storage) -> list[AgentSpanRow]:
    runs = storage.ask(Query("agent_instance")).rows
    return [row for run in runs for row in storage.ask(SpansOf(run.id))]


@pytest.mark.parametrize(("text", "most"), [("short", 1), (LONG, 6)], ids=["short", "long"])
def test_a_span_of_a_known_trace_takes_one_commit_and_few_statements(tmp_path: Path, text: str, most: int) -> None:
    seen: list[str] = []
    with closing(SQLiteStorage(tmp_path / "runs.db")) as storage:
        receiver = Receiver(Context(storage, redacts=SentRedaction()))
        first, second, third, root = _trace(1, text)
        receiver.store([first])
        receiver.store([second])
        storage.direct._connections.writer().set_trace_callback(seen.append)
        receiver.store([third])
        storage.direct._connections.writer().set_trace_callback(None)
        assert len(seen) <= most, seen
        assert seen.count("begin immediate") <= 1
        assert sum(statement.startswith("insert into agent_spans") for statement in seen) == 1
        assert receiver.store([third])[:4] == (0, 0, 0, 1)
        receiver.store([root])
        assert len(_spans(storage)) == 4


def _call(number: int, attributes: dict[str, Any], **about: Any) -> OtelSpan:
    said = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", **attributes}
    return span(said, span_id=f"{number:016x}", start_ns=number + 1, end_ns=10**9, **about)


@pytest.mark.parametrize(
    "many",
    [pytest.param(json.dumps(["a1"] * 5_000), marks=pytest.mark.nightly), ["a1"] * 5_000],
    ids=["text", "list"],
)
def test_a_request_of_many_small_values_is_mapped_in_portions(storage: Storage, many: Any) -> None:
    spans = [_call(number, {"gen_ai.input.messages": many}, trace_id=f"{number % 4 + 1:032x}") for number in range(40)]
    receiver = Receiver(Context(storage), tuning=STANDARD._replace(otel_portion_bytes=5 * 2**19))
    tracemalloc.start()
    stored = receiver.store(spans)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (stored.runs, stored.spans, stored.known) == (1, 40, 0)
    assert receiver.store(spans)[:4] == (0, 0, 0, 40)
    assert peak < 34 * 2**20  # all of it takes 43 MB
    assert {len(json.loads(row.payload)["messages"]) for row in _spans(storage)} == {5_000}


def test_a_portion_begins_with_the_root_of_its_trace_and_each_span_is_in_one() -> None:
    long = json.dumps(["a"] * 1000)
    trace = [span({"k": long}, span_id=f"{each:016x}", parent_span_id=f"{9:016x}", start_ns=each) for each in (3, 1, 2)]
    root = span({}, span_id=f"{9:016x}", parent_span_id=None, start_ns=4)
    other = span({"k": long}, trace_id="e" * 32, start_ns=8)
    assert [*portions([*trace, root, other], 10**9)] == [[*trace, root, other]]
    found = [*portions([*trace, root, other], 400_000)]
    assert [[each.start_ns for each in portion] for portion in found] == [[4, 1], [2], [3], [8]]


@pytest.mark.full
@pytest.mark.parametrize("name", NAMES)
def test_portions_of_a_request_make_the_runs_that_the_whole_one_makes(name: str) -> None:
    found, logs = recorded(name)
    account, seen = new_account(), list[list[Any]]()
    for size in (STANDARD.otel_portion_bytes, 1):
        storage = MemoryStorage(account)
        Receiver(Context(storage), tuning=STANDARD._replace(otel_portion_bytes=size)).store(found, logs)
        about = [
            (row.id, row.parent_span_id, row.schema_name, row.payload, row.result_payload) for row in _spans(storage)
        ]
        seen.append(sorted(about, key=str))
    assert seen[0] == seen[1]


def test_remembered_calls_of_a_trace_are_bounded_by_their_memory() -> None:
    traces = RecentTraces()
    receiver = Receiver(Context(MemoryStorage(new_account())))
    receiver._recent = traces
    receiver._placing = Placing(traces)
    many = json.dumps(["a1"] * 50_000)
    for number in range(6):
        receiver.store([_call(number, {"gen_ai.input.messages": many})])
    trace = traces.get(_call(0, {}).trace_id)
    assert trace is not None
    assert 0 < len(trace.steps) < 6
    assert trace.bytes <= MAX_BYTES
    assert trace.steps.keys() == trace.sizes.keys() >= trace.written.keys()


def test_runs_that_are_idle_are_ended_some_at_a_time(tmp_path: Path) -> None:
    seen: list[str] = []
    with closing(SQLiteStorage(tmp_path / "runs.db")) as storage:
        receiver = Receiver(Context(storage))
        receiver.store([_call(each, {}, trace_id=f"{each + 1:032x}", parent_span_id="c" * 16) for each in range(50)])
        storage.direct._connections.writer().set_trace_callback(seen.append)
        assert [receiver.end_idle(-1.0, 30), receiver.end_idle(-1.0, 30), receiver.end_idle(-1.0, 30)] == [30, 20, 0]
        storage.direct._connections.writer().set_trace_callback(None)
        assert seen.count("begin immediate") == 3
        ended = [row for row in storage.ask(Query("agent_instance")).rows if isinstance(row, AgentInstanceRow)]
        assert {row.status for row in ended} == {"complete"}
        # To remove a version is to read all runs: it is tried once, for the last run that had it.
        assert len([statement for statement in seen if statement.startswith("delete from agent_versions")]) == 1


def test_runs_that_have_ended_are_forgotten_without_a_transaction(tmp_path: Path) -> None:
    seen: list[str] = []
    with closing(SQLiteStorage(tmp_path / "runs.db")) as storage:
        receiver = Receiver(Context(storage))
        receiver.store([each for number in range(50) for each in _trace(number + 1)])
        storage.direct._connections.writer().set_trace_callback(seen.append)
        assert receiver.end_idle(-1.0, 1) == 0
        storage.direct._connections.writer().set_trace_callback(None)
        assert "begin immediate" not in seen


def test_ends_that_fail_are_made_at_the_next_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(SQLiteStorage(tmp_path / "runs.db")) as storage:
        receiver = Receiver(Context(storage))
        receiver.store([_call(each, {}, trace_id=f"{each + 1:032x}", parent_span_id="c" * 16) for each in range(3)])
        with monkeypatch.context() as patched:
            patched.setattr(receiving, "end", Mock(side_effect=[True, DatabaseBusy("busy")]))
            with pytest.raises(DatabaseBusy):
                receiver.end_idle(-1.0)
        assert receiver.end_idle(-1.0) == 3


def test_a_receiver_that_was_stopped_stores_nothing_more(storage: Storage) -> None:
    receiver = Receiver(Context(storage))
    receiver.store(_trace(1))
    receiver.stop()
    with pytest.raises(DatabaseBusy, match="the server ends"):
        receiver.store(_trace(2))
    assert len(_spans(storage)) == 4


class _View:
    """A storage within a transaction: unusable after it."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.is_over = False

    def __getattr__(self, name: str) -> Any:
        assert not self.is_over
        return getattr(self._storage, name)


class _Lending(MemoryStorage):
    def group(self, work: Callable[[Any], T], wait_s: float) -> T:
        view = _View(self)
        try:
            return super().group(lambda _: work(view), wait_s)
        finally:
            view.is_over = True


def test_a_transaction_that_is_over_is_not_read_from() -> None:
    storage = _Lending(new_account())
    receiver = Receiver(Context(storage), tuning=STANDARD._replace(otel_traces=1))
    call = span({"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}, parent_span_id="c" * 16)
    receiver.store([span({"gen_ai.operation.name": "invoke_agent"}, span_id="c" * 16), call])
    receiver.store(_trace(2))  # the first trace is not remembered any more
    said = Event("gen_ai.user.message", 5, {}, {"content": "hello"})
    receiver.store([], [Log(call.trace_id, call.span_id, said)])
    assert ["hello" in row.payload for row in _spans(storage) if '"model":"m"' in row.payload] == [True]


def test_a_run_is_named_anew_after_its_agent_was_removed(storage: Storage) -> None:
    receiver = Receiver(Context(storage))
    for number in (1, 2):
        receiver.store(reversed([*_trace(number)]))
    for run in storage.ask(Query("agent_instance")).rows:
        for row in storage.ask(SpansOf(run.id)):
            storage.apply([Unit((Remove("agent_span", row.id),))])
    for type_ in ("otel_trace", "agent_instance", "agent_version", "agent_schema_version", "agent"):
        for each in storage.ask(Query(type_)).rows:
            assert storage.apply([Unit((Remove(type_, each.id),))]) == [Applied()]
    *steps, root = _trace(3)
    receiver.store(steps)
    receiver.store([root])
    (agent,) = storage.ask(Query("agent")).rows
    assert isinstance(agent, AgentRow)
    assert agent.name == "helper"
    assert {row.agent_id for row in _spans(storage)} == {agent.id}
