"""A program that records its spans itself and also exports them, to a server of the same file: each is stored once."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

import agentspan
from agentspan import Tracer
from agentspan.api.context import Context
from agentspan.otel import SpanProcessor
from agentspan.otel.receiving import Receiver
from agentspan.otel.sdk import span_of
from agentspan.serve import create_app
from tests.otel.exporting import trace_requests
from tests.otel.requests import protobuf_of
from tests.serve.asgi import Client
from tests.serve.otlp import PROTOBUF, runs, spans

AGENT = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "helper", "gen_ai.conversation.id": "c1"}
CHAT: dict[str, str | int] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "m",
    "gen_ai.usage.input_tokens": 3,
}
TOOL = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"}


class Exporter(SpanExporter):
    """Sends each span when it ends, in protobuf, as the exporter of OpenTelemetry does."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        for request in trace_requests([span_of(span) for span in spans]):
            answer = self._client.post("/v1/traces", content=protobuf_of(request), headers=PROTOBUF)
            assert (answer.status_code, answer.content) == (200, b"")
        return SpanExportResult.SUCCESS


@pytest.fixture(params=["recorded first", "exported first"])
def both(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Tracer, TracerProvider, Client]]:
    path = tmp_path / "runs.db"
    tracer = Tracer(path, raise_errors=True)
    provider = TracerProvider(resource=Resource({"service.name": "program"}), shutdown_on_exit=False)
    with Client(create_app(path)) as client:
        processors: list[Any] = [SpanProcessor(tracer), SimpleSpanProcessor(Exporter(client))]
        for processor in processors if request.param == "recorded first" else reversed(processors):
            provider.add_span_processor(processor)
        yield tracer, provider, client
        provider.shutdown()
    tracer.shutdown()


def test_each_span_is_stored_once(both: tuple[Tracer, TracerProvider, Client]) -> None:
    tracer, provider, _ = both
    otel = provider.get_tracer("instrumentor")
    with tracer.run("mine", session="s1", user="mia") as mine, tracer.span("chain", {"name": "plan"}) as plan:
        with otel.start_as_current_span("chat m", attributes=CHAT), tracer.span("tool", {"name": "inside"}):
            pass
        with otel.start_as_current_span("execute_tool search", attributes=TOOL):
            pass
    for _ in range(2):
        with (
            otel.start_as_current_span("invoke_agent helper", attributes=AGENT),
            otel.start_as_current_span("chat m", attributes=CHAT),
        ):
            pass
        with otel.start_as_current_span("chat m", attributes=CHAT):
            pass
    provider.shutdown()
    assert tracer.flush()
    found = spans(tracer.storage)
    assert sorted(row.schema_name for row in found) == ["agent"] * 2 + ["chain"] + ["llm"] * 5 + ["tool"] * 2
    assert {row.status for row in found} | {run.status for run in runs(tracer.storage)} == {"complete"}
    assert sum(row.input_tokens or 0 for row in found) == 15
    stored = {run.id: run for run in runs(tracer.storage)}
    assert len(stored) == 4, "mine, two of the agent, and that of the process"
    assert (stored[mine.id].session, stored[mine.id].user) == ("s1", "mia")
    assert [row.id for row in found if row.parent_span_id == plan.id] == [
        row.id for row in found if row.label in ("m", "search") and row.agent_instance_id == mine.id
    ]
    assert sorted(run.session or "" for run in stored.values()) == ["", "c1", "c1", "s1"]
    assert tracer.health().refused == 0


def test_a_run_that_a_program_records_goes_on_after_its_exported_spans(tmp_path: Path) -> None:
    tracer = Tracer(tmp_path / "runs.db", raise_errors=True)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SpanProcessor(tracer))
    otel, storage = provider.get_tracer("instrumentor"), agentspan.open(tmp_path / "runs.db").storage
    with otel.start_as_current_span("chat m", attributes=CHAT) as outside:
        pass
    with tracer.run("mine", session="s1") as mine, otel.start_as_current_span("chat m", attributes=CHAT) as inside:
        assert tracer.flush()
        receiver = Receiver(Context(storage))
        receiver.store([span_of(inside), span_of(outside)])
        receiver.end_idle(-1.0)
        assert {run.status for run in runs(storage) if run.id == mine.id} == {"active"}
        assert [run.status for run in runs(storage)].count("active") == 2, "that of the process, too"
    provider.shutdown()
    assert tracer.flush()
    assert {run.status for run in runs(storage)} == {"complete"}
    assert tracer.health().refused == 0
    storage.close()
    tracer.shutdown()
