"""inject and extract: a run goes on in another service, also by OpenTelemetry's propagators; or it is pointed at."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import TracerProvider

import agentspan
from agentspan import Tracer
from agentspan.api.context import Context
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.otel import SpanProcessor, extract, inject
from agentspan.otel.identity import read_parent, span_id_of, trace_id_of
from agentspan.otel.otlp.requests import decode
from agentspan.otel.receiving import Receiver
from agentspan.storage.questions import Find
from tests.otel.exporting import trace_requests
from tests.otel.recorded import span as otel_span
from tests.otel.replaying import runs_in, spans_in
from tests.otel.requests import body_of, protobuf_of

SERVICE = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
import agentspan, agentspan.otel

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        with agentspan.otel.extract(self.headers):
            with agentspan.span("tool", name="look up"), agentspan.span("chain", name="inner"):
                passed_on = agentspan.otel.inject({})
            with agentspan.run("pricing"):
                pass
        with agentspan.span("tool", name="afterwards"):
            pass
        agentspan.flush()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(repr(passed_on).encode())
    def log_message(self, *_): pass

agentspan.configure(sys.argv[1], raise_errors=True)
assert not any(name.startswith("opentelemetry") for name in sys.modules)
server = HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.handle_request()
assert not any(name.startswith("opentelemetry") for name in sys.modules)
"""


def ask(path: Path, headers: dict[str, str]) -> dict[str, str]:
    """Send a request to a service in a process of its own, and return the headers that it would pass on."""
    with subprocess.Popen([sys.executable, "-c", SERVICE, str(path)], stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        request = urllib.request.Request(f"http://127.0.0.1:{int(service.stdout.readline())}/", headers=headers)
        with urllib.request.urlopen(request, timeout=20) as answer:
            said: dict[str, str] = eval(answer.read())
    assert service.returncode == 0
    return said


@pytest.fixture
def tracer(tmp_path: Path) -> Iterator[Tracer]:
    made = Tracer(tmp_path / "runs.db", raise_errors=True)
    yield made
    made.shutdown()


def named(tracer: Tracer) -> dict[str, AgentSpanRow]:
    assert tracer.flush()
    return {json.loads(row.payload).get("name", row.schema_name): row for row in spans_in(tracer.storage)}


def by_agent(tracer: Tracer) -> dict[str, AgentInstanceRow]:
    found = runs_in(tracer.storage)
    agents = tracer.storage.ask(Find(*(run.agent_id for run in found))).rows
    return {getattr(agents[run.agent_id][1], "name", ""): run for run in found}


def test_a_run_goes_on_in_another_process_with_the_same_file(tmp_path: Path, tracer: Tracer) -> None:
    with tracer.run("shop") as run, tracer.span("tool", {"name": "call"}) as call:
        headers = inject({"accept": "*/*"}, tracer=tracer)
        passed_on = ask(tmp_path / "runs.db", headers)
    found = named(tracer)
    assert found["look up"].parent_span_id == call.id
    assert {found[name].agent_instance_id for name in ("call", "look up", "inner")} == {run.id}
    assert found["afterwards"].agent_instance_id != run.id
    origin = json.loads(by_agent(tracer)["pricing"].metadata or "")["origin"]
    assert (origin["run"], origin["span"]) == (run.id, call.id)
    assert by_agent(tracer)["shop"].status == "complete"
    # A third service is told the same trace, and the innermost span of the second one.
    assert headers["traceparent"] == f"00-{trace_id_of(run.id)}-{span_id_of(call.id)}-01"
    assert passed_on["traceparent"] == f"00-{trace_id_of(run.id)}-{span_id_of(found['inner'].id)}-01"
    assert passed_on["tracestate"] == f"agentspan={run.id}:{found['inner'].id}"


@pytest.mark.full
def test_where_the_run_is_in_another_file_it_is_pointed_at(tmp_path: Path, tracer: Tracer) -> None:
    with tracer.run("shop") as run:
        passed_on = ask(tmp_path / "other.db", inject({}, tracer=tracer))
    with agentspan.open(tmp_path / "other.db") as other:
        found = runs_in(other.storage)
        spans = {json.loads(row.payload)["name"]: row for row in spans_in(other.storage)}
    assert run.id not in {row.id for row in found}
    assert spans["look up"].parent_span_id is None
    origins = {row.id: json.loads(row.metadata or "{}").get("origin") for row in found}
    told = {"run": run.id, "trace_id": trace_id_of(run.id), "span_id": span_id_of(run.id)}
    assert sorted(map(str, origins.values())) == sorted(map(str, [told, told, None])), "the two of the request have it"
    assert origins[spans["afterwards"].agent_instance_id] is None
    parent = read_parent(passed_on["traceparent"])
    assert parent is not None
    assert parent.trace_id == trace_id_of(run.id), "it is one trace for everyone"


def test_headers_are_found_in_any_case_and_as_bytes(tracer: Tracer) -> None:
    with tracer.run("shop") as run:
        headers = inject({}, tracer=tracer)
    forms: list[Any] = [
        {name.title(): value for name, value in headers.items()},
        [(name.encode(), value.encode()) for name, value in headers.items()],
    ]
    for form in forms:
        with extract(form, tracer=tracer), tracer.span("tool", {"name": "x"}) as span:
            assert span.run.id == run.id
    assert len(runs_in(tracer.storage)) == 1


def test_headers_that_say_nothing_and_an_empty_context_change_nothing(tracer: Tracer) -> None:
    assert inject({"a": "b"}, tracer=tracer) == {"a": "b"}
    for headers in ({}, {"traceparent": "nonsense"}, {"tracestate": f"agentspan={'0' * 32}"}):
        with extract(headers, tracer=tracer), tracer.span("tool", {"name": "x"}) as span:
            assert span.parent_span_id is None
    assert all(row.metadata is None for row in runs_in(tracer.storage))
    with extract(5, tracer=Tracer(tracer.storage)):  # type: ignore[arg-type]
        pass


def test_requests_at_the_same_time_are_kept_apart(tracer: Tracer) -> None:
    sent = []
    for _ in range(2):
        with tracer.run("shop"), tracer.span("tool", {"name": "call"}) as call:
            sent.append((call, inject({}, tracer=tracer)))
    first, second = (extract(headers, tracer=tracer) for _, headers in sent)
    with first:
        with second, tracer.span("tool", {"name": "in second"}) as span:
            assert span.parent_span_id == sent[1][0].id
        with tracer.span("tool", {"name": "in first"}) as span:
            assert (span.parent_span_id, span.run.id) == (sent[0][0].id, sent[0][0].run.id)
    assert tracer.current_run() is None


@pytest.fixture
def provider(tracer: Tracer) -> Iterator[TracerProvider]:
    made = TracerProvider(shutdown_on_exit=False)
    made.add_span_processor(SpanProcessor(tracer))
    yield made
    made.shutdown()


def test_a_service_that_is_instrumented_goes_on_without_extract(tracer: Tracer, provider: TracerProvider) -> None:
    with tracer.run("shop") as run, tracer.span("tool", {"name": "call"}) as call:
        headers = inject({}, tracer=tracer)
    there = provider.get_tracer("opentelemetry.instrumentation.asgi")
    with (
        there.start_as_current_span("GET /", propagate.extract(headers), trace.SpanKind.SERVER) as current,
        extract(headers, tracer=tracer),
        tracer.span("tool", {"name": "look up"}),
    ):
        passed_on = inject({}, tracer=tracer)
    (server,) = (row for row in spans_in_flushed(tracer) if row.schema_name == "GET /")
    assert (server.agent_instance_id, server.parent_span_id) == (run.id, call.id)
    assert named(tracer)["look up"].parent_span_id == server.id, "the span of the server is nearer"
    assert passed_on["traceparent"] == f"00-{trace_id_of(run.id)}-{current.get_span_context().span_id:016x}-01"
    assert len(runs_in(tracer.storage)) == 1


def spans_in_flushed(tracer: Tracer) -> list[AgentSpanRow]:
    assert tracer.flush()
    return spans_in(tracer.storage)


def test_a_run_that_opentelemetry_propagated_goes_on_by_extract(tracer: Tracer, provider: TracerProvider) -> None:
    headers: dict[str, str] = {}
    with provider.get_tracer("opentelemetry.instrumentation.httpx").start_as_current_span("GET"):
        propagate.inject(headers)
        with tracer.span("tool", {"name": "inside"}):
            assert inject({"x": "y"}, tracer=tracer)["traceparent"] == headers["traceparent"]
    assert tracer.flush()
    with extract(headers, tracer=tracer), tracer.span("tool", {"name": "look up"}):
        pass
    found = named(tracer)
    assert found["look up"].parent_span_id == found["inside"].parent_span_id
    assert len(runs_in(tracer.storage)) == 1


@pytest.mark.parametrize("how", ["extract", "processor", "export"])
def test_a_service_between_that_another_library_traces_is_the_caller(
    tracer: Tracer, provider: TracerProvider, how: str
) -> None:
    """It puts its own span into `traceparent`, and passes `tracestate` on as it came."""
    with tracer.run("shop") as run, tracer.span("tool", {"name": "call"}):
        headers = inject({}, tracer=tracer)
    parent = read_parent(headers["traceparent"])
    assert parent is not None
    between = otel_span({}, "between", parent_span_id=parent.span_id, trace_id=parent.trace_id, span_id="c" * 16)
    assert tracer.flush()
    Receiver(Context(tracer.storage)).store([replace(between, trace_state=headers["tracestate"])])
    passed_on = {**headers, "traceparent": f"00-{parent.trace_id}-{'c' * 16}-01"}
    if how == "extract":
        with extract(passed_on, tracer=tracer), tracer.span("tool", {"name": "look up"}):
            pass
    elif how == "processor":
        with provider.get_tracer("x").start_as_current_span("look up", propagate.extract(passed_on)):
            pass
    else:
        last = otel_span({}, "look up", parent_span_id="c" * 16, trace_id=parent.trace_id, span_id="d" * 16)
        Receiver(Context(tracer.storage)).store([replace(last, trace_state=headers["tracestate"])])
    found = named(tracer)
    assert found["look up"].agent_instance_id == found["between"].agent_instance_id == run.id
    assert found["between"].parent_span_id == found["call"].id
    assert found["look up"].parent_span_id == found["between"].id


def test_a_span_inside_of_one_of_opentelemetry_is_the_caller(tracer: Tracer, provider: TracerProvider) -> None:
    with provider.get_tracer("x").start_as_current_span("around"), tracer.span("tool", {"name": "call"}):
        headers = inject({}, tracer=tracer)
    assert tracer.flush()
    with extract(headers, tracer=tracer), tracer.span("tool", {"name": "look up"}):
        pass
    with provider.get_tracer("x").start_as_current_span("served", propagate.extract(headers)):
        pass
    found = named(tracer)
    assert found["call"].parent_span_id == found["around"].id
    assert found["look up"].parent_span_id == found["served"].parent_span_id == found["call"].id


def test_members_of_others_are_passed_on(tracer: Tracer) -> None:
    headers = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-00", "tracestate": "vendor=1"}
    with extract(headers, tracer=tracer), tracer.run("mine") as run:
        said = inject({}, tracer=tracer)
    assert said == {
        "traceparent": f"00-{'a' * 32}-{span_id_of(run.id)}-00",
        "tracestate": f"agentspan={run.id},vendor=1",
    }


def test_a_service_that_records_nothing_passes_headers_on(tracer: Tracer) -> None:
    with tracer.run("shop"), tracer.span("tool", {"name": "call"}):
        headers = inject({}, tracer=tracer)
    off = Tracer(enabled=False)
    with extract(headers, tracer=off), off.run("mine"), off.span("tool", {"name": "x"}):
        assert inject({}, tracer=off) == headers


@pytest.mark.parametrize("encoding", ["protobuf", "json"])
@pytest.mark.parametrize("has_span", [True, False])
def test_a_run_goes_on_in_a_service_that_exports_to_a_server(tracer: Tracer, encoding: str, has_span: bool) -> None:
    with tracer.run("shop", session="s1") as run, tracer.span("tool", {"name": "call"}) as call:
        inside = inject({}, tracer=tracer)
    headers = inside
    if not has_span:
        with tracer.run("shop", session="s1") as run:
            headers = inject({}, tracer=tracer)
    parent = read_parent(headers["traceparent"])
    assert parent is not None
    server = otel_span({}, "GET /", parent_span_id=parent.span_id, trace_id=parent.trace_id, span_id="c" * 16)
    child = otel_span({}, "child", parent_span_id="c" * 16, trace_id=parent.trace_id, span_id="d" * 16)
    for each in (child, server):  # as exporters send them; the trace of the run may still be in the journal
        (request,) = trace_requests([replace(each, trace_state=f"{headers['tracestate']},vendor=1")])
        body = protobuf_of(request) if encoding == "protobuf" else body_of(request)
        (found,) = decode("traces", body, f"application/{'x-protobuf' if encoding == 'protobuf' else 'json'}").spans
        Receiver(Context(tracer.storage)).store([found])
    stored = {row.schema_name: row for row in spans_in_flushed(tracer)}
    assert stored["GET /"].parent_span_id == (call.id if has_span else None)
    assert stored["child"].parent_span_id == stored["GET /"].id
    assert {stored[name].agent_instance_id for name in ("GET /", "child")} == {run.id}
    assert len(runs_in(tracer.storage)) == (1 if has_span else 2)
    assert {row.session for row in runs_in(tracer.storage)} == {"s1"}
