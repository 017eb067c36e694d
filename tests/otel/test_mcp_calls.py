"""MCP's SDK traces itself: its spans get arguments and results, and its servers over stdio are recorded, too."""

import asyncio
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind

import agentspan
from agentspan.model.rows import AgentSpanRow
from agentspan.otel.instruments import instrument, known
from tests.otel.fake_packages import without
from tests.otel.replaying import spans_in

SDK = {
    "__init__.py": "",
    "shared/__init__.py": "",
    "shared/_otel.py": "",
    "shared/jsonrpc_dispatcher.py": """
class JSONRPCDispatcher:
    def __init__(self):
        self.written, self.resolved = [], []
    async def _write(self, message, metadata=None):
        self.written.append(message)
    def _resolve_pending(self, request_id, outcome):
        self.resolved.append(outcome)
""",
    "server/__init__.py": "",
    "server/_otel.py": """
class OpenTelemetryMiddleware:
    async def __call__(self, ctx, call_next):
        return await call_next(ctx)
""",
    "client/__init__.py": "",
    "client/stdio.py": """
def get_default_environment():
    return {"PATH": "/bin"}
""",
}


class Message:
    """A message of JSON-RPC; a notification has no id."""

    def __init__(self, method: str, params: dict[str, Any] | None, id: int | None = None) -> None:
        self.method, self.params = method, params
        if id is not None:
            self.id = id


@pytest.fixture
def sdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A package with the names of MCP's SDK that are wrapped, turned on, with a file to record into."""
    for name, text in SDK.items():
        path = tmp_path / "packages" / "mcp" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    monkeypatch.setattr(sys, "meta_path", sys.meta_path.copy())
    monkeypatch.setattr(instrument, "version", lambda name: "2.3.0")
    agentspan.configure(tmp_path / "runs.db", raise_errors=True)
    with without("mcp"):
        assert agentspan.instrument("mcp") == (agentspan.Instrumented("mcp", "mcp", "2.3.0"),)
        yield importlib.import_module
        agentspan.uninstrument()
    agentspan.shutdown()


def spans() -> list[AgentSpanRow]:
    assert agentspan.flush()
    return spans_in(agentspan.get_tracer().storage)


def call(sdk: Any, answer: dict[str, Any]) -> Any:
    """Call a tool as the SDK's client does; return its dispatcher."""
    dispatcher = sdk("mcp.shared.jsonrpc_dispatcher").JSONRPCDispatcher()

    async def send() -> None:
        method = {"mcp.method.name": "tools/call"}
        otel = trace.get_tracer("mcp-python-sdk")
        with otel.start_as_current_span("MCP send tools/call weather", kind=SpanKind.CLIENT, attributes=method):
            params = {"name": "weather", "arguments": {"city": "Rome"}, "_meta": {}}
            await dispatcher._write(Message("tools/call", params, 7))
            dispatcher._resolve_pending("7", answer)

    asyncio.run(send())
    return dispatcher


def test_a_clients_call_has_its_arguments_and_its_result(sdk: Any) -> None:
    answer = {"content": [{"type": "text", "text": "rain"}], "isError": False}
    assert call(sdk, answer).resolved == [answer]
    (span,) = spans()
    assert (span.schema_name, span.status) == ("mcp", "complete")
    assert json.loads(span.payload)["arguments"] == {"city": "Rome"}
    assert json.loads(span.result_payload or "")["result"] == answer


def test_a_tool_that_failed_fails_its_call(sdk: Any) -> None:
    call(sdk, {"content": [{"type": "text", "text": "no such city"}], "isError": True})
    (span,) = spans()
    assert span.status == "failed"
    result = json.loads(span.result_payload or "")
    assert result["is_error"] is True
    assert result["error"] == {"type": "tool_error", "message": "no such city"}


def test_each_message_names_the_run_and_a_notification_the_request_before_it(sdk: Any) -> None:
    dispatcher = call(sdk, {})
    asyncio.run(dispatcher._write(Message("notifications/initialized", None)))
    asked, told = dispatcher.written
    (span,) = spans()
    assert asked.params["_meta"]["tracestate"].startswith(f"agentspan={span.agent_instance_id}:{span.id}")
    assert told.params["_meta"] == asked.params["_meta"]


def test_a_servers_call_has_its_arguments_and_its_result(sdk: Any) -> None:
    middleware = sdk("mcp.server._otel").OpenTelemetryMiddleware()

    async def answer(ctx: Message) -> dict[str, str]:
        return {"text": "rain"}

    async def serve() -> None:
        method = {"mcp.method.name": "tools/call"}
        otel = trace.get_tracer("mcp-python-sdk")
        with otel.start_as_current_span("tools/call weather", kind=SpanKind.SERVER, attributes=method):
            assert await middleware(Message("tools/call", {"arguments": {"city": "Rome"}}), answer) == {"text": "rain"}

    asyncio.run(serve())
    (span,) = spans()
    assert json.loads(span.payload)["arguments"] == {"city": "Rome"}
    assert json.loads(span.result_payload or "")["result"] == {"text": "rain"}


def test_a_servers_call_of_a_tool_that_failed_has_the_reason(sdk: Any) -> None:
    middleware = sdk("mcp.server._otel").OpenTelemetryMiddleware()

    async def answer(ctx: Message) -> dict[str, Any]:
        return {"content": [{"type": "text", "text": "no such city"}], "isError": True}

    async def serve() -> None:
        method = {"mcp.method.name": "tools/call", "error.type": "tool_error"}
        otel = trace.get_tracer("mcp-python-sdk")
        with otel.start_as_current_span("tools/call weather", kind=SpanKind.SERVER, attributes=method) as span:
            await middleware(Message("tools/call", {}), answer)
            span.set_status(trace.StatusCode.ERROR)

    asyncio.run(serve())
    (span,) = spans()
    assert json.loads(span.result_payload or "")["error"] == {"type": "tool_error", "message": "no such city"}


def test_a_server_of_a_recorded_program_is_recorded(sdk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTSPAN_DB", raising=False)
    monkeypatch.setenv("AGENTSPAN_TOKEN", "secret")
    environment = sdk("mcp.client.stdio").get_default_environment
    assert environment() == {"PATH": "/bin"}
    monkeypatch.setenv(known.MARK, "/site")
    monkeypatch.setenv("AGENTSPAN_DB", "/runs.db")
    ours = {known.MARK: "/site", "AGENTSPAN_DB": "/runs.db", "PYTHONPATH": "/site"}
    assert environment() == {"PATH": "/bin", **ours}
    monkeypatch.setenv("AGENTSPAN_DB", "postgresql://me:secret@host/runs")
    assert environment() == {"PATH": "/bin"}, "the server may be a program of others"
    agentspan.uninstrument("mcp")
    monkeypatch.setenv("AGENTSPAN_DB", "/runs.db")
    assert sdk("mcp.client.stdio").get_default_environment() == {"PATH": "/bin"}
