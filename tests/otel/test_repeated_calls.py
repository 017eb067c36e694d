"""LiteLLM's own callback beside another instrumentor: each call of a model stands once, in the run that it is of."""

import asyncio
import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import StatusCode, set_span_in_context

import agentspan
from agentspan.api.context import Context
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.otel import SpanProcessor
from agentspan.otel.receiving import Receiver, import_spans
from agentspan.otel.span import OtelSpan
from agentspan.recording.capture.plain import SentRedaction
from agentspan.storage.protocol import Storage
from agentspan.tuning import STANDARD
from tests.otel.recorded import span
from tests.otel.replaying import readable, runs_in, spans_in

OPENINFERENCE = "openinference.instrumentation.litellm"
_numbers = itertools.count(1)


def agent(calls: Sequence[OtelSpan]) -> list[OtelSpan]:
    """The trace of an agent, with calls in it."""
    said = {"openinference.span.kind": "AGENT", "agent.name": "weatherman"}
    around = span(said, "weatherman", "my.agent", start_ns=1, end_ns=90_000_000_000)
    return [around, *calls]


def call(start_ms: int, *, number: int, status: str = "OK") -> OtelSpan:
    """A call as OpenInference's instrumentor records it: without the id of the answer."""
    said = {
        "openinference.span.kind": "LLM",
        "llm.model_name": "openai/m",
        "llm.input_messages.0.message.content": f"question {number}",
        **({"llm.token_count.prompt": 10, "llm.token_count.completion": 4} if status == "OK" else {}),
    }
    start_ns = start_ms * 1_000_000
    about: dict[str, Any] = {"span_id": f"{number:016x}", "parent_span_id": "b" * 16, "status": status}
    return span(said, "acompletion", OPENINFERENCE, start_ns=start_ns, end_ns=start_ns + 30_000_000, **about)


def told_again(start_ms: int, *, status: str = "OK") -> OtelSpan:
    """The same call as LiteLLM's callback records it: in a trace of its own."""
    said = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "m"}
    if status == "OK":
        said |= {"gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 4, "gen_ai.cost.total_cost": 0.5}  # type: ignore[dict-item]
    start_ns = start_ms * 1_000_000 + 500_000
    number = next(_numbers)
    about: dict[str, Any] = {"trace_id": f"{number:032x}", "span_id": f"{number:016x}", "status": status}
    about |= {"kind": "CLIENT", "resource": {"service.name": "litellm"}}
    return span(said, "chat m", "litellm", start_ns=start_ns, end_ns=start_ns + 28_000_000, **about)


FIRST = agent([call(1000, number=1), call(1010, number=2), call(2000, number=3, status="ERROR")])
AGAIN = (1010, "OK"), (1000, "OK"), (2000, "ERROR")


def assert_each_call_stands_once(storage: Storage) -> None:
    (run,) = runs_in(storage)
    spans = spans_in(storage)
    calls = [each for each in spans if each.schema_name == "llm"]
    assert [each.status for each in sorted(calls, key=lambda each: str(each.started_at))] == [
        *["complete"] * 2,
        "failed",
    ]
    assert sum(each.input_tokens or 0 for each in spans) == 20
    assert [each.cost_usd for each in calls if each.status == "complete"] == [0.5, 0.5]
    twins = [each for each in spans if "duplicate_of" in each.payload]
    assert len(twins) == 3
    above = {each.id: each for each in spans}
    assert {_depth(each, above) for each in (*calls, *twins)} == {1, 2}
    assert run.status == "complete"


def _depth(row: AgentSpanRow, above: dict[str, AgentSpanRow]) -> int:
    return 0 if row.parent_span_id is None else 1 + _depth(above[row.parent_span_id], above)


@pytest.mark.parametrize("ends_first", [False, True])
def test_live_it_is_a_duplicate_in_the_run_of_the_call(tmp_path: Path, *, ends_first: bool) -> None:
    tracer = agentspan.Tracer(tmp_path / "live.db", raise_errors=True)
    processor = SpanProcessor(tracer)
    again = [told_again(start_ms, status=status) for start_ms, status in AGAIN]
    for each in FIRST:
        processor.on_start(readable(each, has_ended=False))
    for each in (*FIRST[1:], *(FIRST[:1] if ends_first else ())):
        processor.on_end(readable(each))
    for each in again:
        processor.on_start(readable(each, has_ended=False, has_attributes=False))
        processor.on_end(readable(each))
    if not ends_first:
        processor.on_end(readable(FIRST[0]))
    assert tracer.flush()
    assert_each_call_stands_once(tracer.storage)
    processor.shutdown()
    tracer.shutdown()


@pytest.mark.parametrize("is_reversed", [False, True])
def test_imported_it_is_a_duplicate_in_the_run_of_the_call(storage: Storage, *, is_reversed: bool) -> None:
    spans = [*FIRST, *(told_again(start_ms, status=status) for start_ms, status in AGAIN)]
    done = import_spans(Context(storage, redacts=SentRedaction()), spans[::-1] if is_reversed else spans)
    assert (done.runs, done.spans, done.duplicates) == (1, 7, 3)
    assert_each_call_stands_once(storage)
    assert import_spans(Context(storage, redacts=SentRedaction()), spans).known == 7


def test_sent_it_is_a_duplicate_whether_the_root_of_the_run_has_come_or_not(storage: Storage) -> None:
    receiver = Receiver(Context(storage, redacts=SentRedaction()))
    receiver.store(FIRST[1:])
    for start_ms, status in AGAIN:
        receiver.store([told_again(start_ms, status=status)])
    receiver.store(FIRST[:1])
    assert_each_call_stands_once(storage)


def test_alone_it_is_the_call(tmp_path: Path, storage: Storage) -> None:
    import_spans(Context(storage, redacts=SentRedaction()), [told_again(1000)])
    tracer = agentspan.Tracer(tmp_path / "live.db", raise_errors=True)
    processor = SpanProcessor(tracer)
    again = told_again(1000)
    processor.on_start(readable(again, has_ended=False, has_attributes=False))
    processor.on_end(readable(again))
    processor.shutdown()
    assert tracer.flush()
    for each in (storage, tracer.storage):
        assert [(row.schema_name, row.input_tokens, row.cost_usd) for row in spans_in(each)] == [("llm", 10, 0.5)]
    tracer.shutdown()


FRAMEWORK, CLIENT = "openinference.instrumentation.langchain", "openinference.instrumentation.openai"
ASKED: dict[str, str | int] = {"openinference.span.kind": "LLM", "llm.model_name": "m", "llm.token_count.prompt": 5}


class _Program:
    """A program whose framework has an instrumentor that makes no span current, and whose client has one, too."""

    def __init__(self, storage: Path) -> None:
        self.tracer = agentspan.Tracer(storage, raise_errors=True)
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SpanProcessor(self.tracer))
        self.graph = self.provider.get_tracer(FRAMEWORK).start_span("graph")

    def begin(self) -> Any:
        """Begin a call of the framework."""
        return self.provider.get_tracer(FRAMEWORK).start_span("AzureChatOpenAI", set_span_in_context(self.graph))

    def ask(self) -> None:
        """Call the client, which knows of no other span."""
        with self.provider.get_tracer(CLIENT).start_as_current_span("ChatCompletion", attributes=ASKED):
            pass

    def call(self) -> None:
        """Call the model by the framework."""
        called = self.begin()
        self.ask()
        called.set_attributes(ASKED)
        called.end()

    def ended(self) -> tuple[list[AgentInstanceRow], list[AgentSpanRow]]:
        """End the program; return its runs, and the steps that call a model."""
        self.graph.set_attribute("openinference.span.kind", "CHAIN")
        self.graph.set_status(StatusCode.ERROR, "no station")
        self.graph.end()
        self.provider.shutdown()
        assert self.tracer.flush()
        return runs_in(self.tracer.storage), [
            each for each in spans_in(self.tracer.storage) if each.schema_name == "llm"
        ]


def test_a_client_that_knows_no_span_of_its_framework_makes_no_second_run(tmp_path: Path) -> None:
    program = _Program(tmp_path / "a.db")
    program.call()
    program.call()
    (run,), calls = program.ended()
    assert run.status == "failed"
    assert [call.input_tokens for call in calls] == [5, 5]


def test_calls_in_threads_and_of_a_loop_stand_once(tmp_path: Path) -> None:
    program = _Program(tmp_path / "a.db")

    async def ask() -> None:
        called = await asyncio.to_thread(program.begin)  # as LangChain calls its handlers
        await asyncio.sleep(0)
        program.ask()
        called.set_attributes(ASKED)
        called.end()

    async def many() -> None:
        await asyncio.gather(*(ask() for _ in range(3)))

    asyncio.run(many())
    with ThreadPoolExecutor(3) as pool:
        [*pool.map(lambda _: program.call(), range(3))]
    runs, calls = program.ended()
    assert (len(runs), len(calls)) == (1, 6)


def test_a_call_that_no_framework_makes_is_in_the_run_of_the_program(tmp_path: Path) -> None:
    """Before, after, or in another thread than the framework's call."""
    program = _Program(tmp_path / "a.db")
    program.ask()
    program.call()
    program.ask()
    called = program.begin()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(program.ask).result()
    called.end()
    runs, calls = program.ended()
    assert sorted(run.status for run in runs) == ["complete", "failed"]
    assert sum(call.input_tokens or 0 for call in calls) == 4 * 5


def sent_by_framework(*starts_ms: int) -> list[OtelSpan]:
    """A graph that fails, with calls of 40 ms in it, as LangChain's instrumentor sends them."""
    about: dict[str, Any] = {"resource": {"service.name": "shop"}, "trace_id": "f" * 32}
    graph = span({"openinference.span.kind": "CHAIN"}, "graph", FRAMEWORK, end_ns=9 * 10**9, status="ERROR", **about)
    return [
        *(
            span(ASKED, "ChatOpenAI", FRAMEWORK, **about, span_id=f"{at:016x}", parent_span_id="b" * 16,
                 start_ns=at * 10**6, end_ns=(at + 40) * 10**6)
            for at in starts_ms
        ),
        graph,
    ]  # fmt: skip


def sent_by_client(start_ms: int, service: str = "shop", tokens: int = 5, last_ms: int = 20) -> OtelSpan:
    """A call of the client, in a trace of its own."""
    times = {"start_ns": start_ms * 10**6, "end_ns": (start_ms + last_ms) * 10**6}
    about: dict[str, Any] = {"resource": {"service.name": service}, "trace_id": f"{next(_numbers):032x}", **times}
    return span({**ASKED, "llm.token_count.prompt": tokens}, "ChatCompletion", CLIENT, **about)


@pytest.mark.parametrize("is_whole", [False, True])
def test_a_clients_trace_in_a_request_with_its_frameworks_call_is_the_same_call(
    storage: Storage, *, is_whole: bool
) -> None:
    inside = [sent_by_client(at) for at in (1510, 1505)]
    spans = [*inside, *sent_by_framework(1500, 1501)]
    done = Receiver(Context(storage, redacts=SentRedaction())).store(spans, is_whole=is_whole)
    (run,) = runs_in(storage)
    assert (run.status, done.duplicates) == ("failed", 2)
    assert [each.input_tokens for each in spans_in(storage) if each.schema_name == "llm"] == [5, 5]
    assert import_spans(Context(storage, redacts=SentRedaction()), spans).known == 5


@pytest.mark.parametrize(
    "other",
    [
        sent_by_client(1510, service="proxy"),
        sent_by_client(1510, tokens=6),
        sent_by_client(1510, last_ms=31),
        sent_by_client(1499),
    ],
    ids=["another process", "other tokens", "ends later", "began before"],
)
def test_a_clients_trace_that_may_be_another_call_stays_a_call(storage: Storage, other: OtelSpan) -> None:
    import_spans(Context(storage, redacts=SentRedaction()), [other, *sent_by_framework(1500)])
    assert sorted(run.status for run in runs_in(storage)) == ["complete", "failed"]
    assert sum(each.schema_name == "llm" for each in spans_in(storage)) == 2


def test_a_frameworks_call_is_that_of_one_client_call(storage: Storage) -> None:
    receiver = Receiver(Context(storage, redacts=SentRedaction()))
    receiver.store([sent_by_client(1505), sent_by_client(1506), *sent_by_framework(1500)])
    receiver.store([sent_by_client(1507)])
    assert sum(each.input_tokens or 0 for each in spans_in(storage)) == 15, "of three, one is in the framework's call"


def test_calls_at_the_same_time_are_each_that_of_one_framework_call(storage: Storage) -> None:
    """In a loop of asyncio, all calls of the framework may begin before the first one of the client."""
    first, second, _ = sent_by_framework(1500, 1519)
    first = replace(first, end_ns=1_541_000_000)
    inside = [sent_by_client(1521, last_ms=18), sent_by_client(1522, last_ms=36)]
    Receiver(Context(storage, redacts=SentRedaction())).store([first, second, *inside])
    assert sum(each.input_tokens or 0 for each in spans_in(storage)) == 10


def test_a_framework_call_may_begin_seconds_before_its_client_call(storage: Storage) -> None:
    waited = replace(sent_by_framework(1500)[0], end_ns=8_000_000_000)
    Receiver(Context(storage, redacts=SentRedaction())).store([waited, sent_by_client(7000)])
    assert sum(each.input_tokens or 0 for each in spans_in(storage)) == 5


@pytest.mark.full
def test_calls_of_many_traces_in_a_file_stand_once(storage: Storage) -> None:
    spans: list[OtelSpan] = []
    for number in range(400):
        at = 1500 + 100 * number
        spans += [replace(sent_by_framework(at)[0], trace_id=f"{10_000 + number:032x}"), sent_by_client(at + 5)]
    receiver = Receiver(Context(storage, redacts=SentRedaction()), tuning=STANDARD._replace(otel_traces=300))
    assert receiver.store(spans, is_whole=True).duplicates == 400


def test_a_server_that_was_started_again_knows_the_process_of_a_trace(storage: Storage) -> None:
    *calls, graph = sent_by_framework(1500, 1600)
    for sent in ([calls[0]], [calls[1], sent_by_client(1605), graph]):
        Receiver(Context(storage, redacts=SentRedaction())).store(sent)
    assert sum(each.input_tokens or 0 for each in spans_in(storage)) == 10


def test_litellm_tells_a_clients_call_again_that_no_agent_made(storage: Storage) -> None:
    alone = replace(call(1000, number=1), parent_span_id=None)
    import_spans(Context(storage, redacts=SentRedaction()), [alone, told_again(1000)])
    assert [run.status for run in runs_in(storage)] == ["complete"]
    assert sum(each.input_tokens or 0 for each in spans_in(storage)) == 10


@pytest.mark.full
def test_litellm_tells_a_call_again_that_comes_in_another_batch(storage: Storage) -> None:
    """Of 501 spans, LiteLLM's 250th is the last of a batch, and begins just before the call that it repeats."""
    spans = [replace(call(900, number=900), parent_span_id=None, trace_id=f"{900:032x}")]
    for number in range(1001, 1251):
        alone = replace(call(1000 * number, number=number), parent_span_id=None, trace_id=f"{number:032x}")
        spans += [told_again(1000 * number - 1), alone]
    import_spans(Context(storage, redacts=SentRedaction()), spans)
    assert sum(each.input_tokens or 0 for each in spans_in(storage)) == 251 * 10


def test_a_clients_call_below_another_span_is_that_of_its_framework(storage: Storage, tmp_path: Path) -> None:
    """As in a service: the client's call stands below the request, beside the graph."""
    *calls, graph = sent_by_framework(1500, 1501)
    request = span({}, "request", "mine", trace_id=graph.trace_id, span_id="e" * 16, end_ns=10**10)
    inside = [
        replace(sent_by_client(at), trace_id=graph.trace_id, span_id=f"{number:016x}", parent_span_id="e" * 16)
        for number, at in enumerate((1510, 1505, 1541), 1)  # the last one is not the framework's
    ]
    import_spans(
        Context(storage, redacts=SentRedaction()),
        [*inside, *calls, replace(graph, span_id="b" * 16, parent_span_id="e" * 16), request],
    )
    assert sum(each.input_tokens or 0 for each in spans_in(storage)) == 3 * 5

    program = _Program(tmp_path / "a.db")
    with program.tracer.run("service"), program.tracer.span("request"):
        program.graph = program.provider.get_tracer(FRAMEWORK).start_span("graph")
        program.call()
        _, llm = program.ended()
    assert sum(each.input_tokens or 0 for each in llm) == 5
