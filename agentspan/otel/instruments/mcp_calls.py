"""Adds arguments and results to the spans of MCP's SDK (2.0 and later), and has servers of its clients recorded.

The SDK traces itself, but leaves out what a tool was given and what it returned. So its functions are wrapped that have
a message before the message's span ends: two of the client, one of the server. It makes no span.

A client starts a server over stdio with an environment of its own choice. A recorded program adds what `agentspan
record` set in its own, so that the server is recorded, too, below the call: `inject` names the run in each message.
"""

import json
import os
from typing import Any
from weakref import WeakKeyDictionary

from opentelemetry.trace import Status, StatusCode, get_current_span

from agentspan.otel.instruments.known import MARK, NOTES
from agentspan.otel.instruments.on_import import Wrapping, unharmed
from agentspan.otel.trace_context import inject
from agentspan.storage.location import ENVIRONMENT

METHOD = "tools/call"
ARGUMENTS, RESULT = "gen_ai.tool.call.arguments", "gen_ai.tool.call.result"


def _tell(name: str, value: Any, span: Any = None) -> None:
    """Set an attribute of a span, or of the current one, as JSON."""
    with unharmed():
        is_model = hasattr(value, "model_dump")
        plain = value.model_dump(mode="json", by_alias=True, exclude_none=True) if is_model else value
        (get_current_span() if span is None else span).set_attribute(name, json.dumps(plain, default=str))


class _Sent:
    """The requests that a client has sent: the spans of calls of tools by their id, and the headers of the latest."""

    def __init__(self) -> None:
        self.calls: dict[str, Any] = {}
        self.headers: dict[str, str] = {}

    def note(self, message: Any) -> None:
        """Note a message that is sent, whose span is current; name the run in it."""
        if not hasattr(message, "params"):
            return  # an answer
        meta = (message.params or {}).get("_meta")
        if hasattr(message, "id"):
            if meta is not None:
                inject(meta)
                self.headers = {name: meta[name] for name in ("traceparent", "tracestate") if name in meta}
            if message.method == METHOD:
                _tell(ARGUMENTS, (message.params or {}).get("arguments") or {})
                self.calls[str(message.id)] = get_current_span()
        elif self.headers and meta is None:  # a notification, for which the SDK makes a span in the server only
            message.params = {**(message.params or {}), "_meta": self.headers}

    def answered(self, id: Any, outcome: Any) -> None:
        """Note the answer to a request, whose span has not ended yet."""
        span = self.calls.pop(str(id), None)
        if span is not None and isinstance(outcome, dict):
            _tell(RESULT, outcome, span)
            if outcome.get("isError") is True:
                texts = (part.get("text") for part in outcome.get("content") or () if isinstance(part, dict))
                span.set_attribute("error.type", "tool_error")
                span.set_status(Status(StatusCode.ERROR, next((text for text in texts if isinstance(text, str)), None)))


def _client(module: Any) -> None:
    sent: WeakKeyDictionary[Any, _Sent] = WeakKeyDictionary()

    def wrap_write(write: Any) -> Any:
        async def recorded(self: Any, message: Any, *args: Any, **kwargs: Any) -> Any:
            with unharmed():
                sent.setdefault(self, _Sent()).note(message)
            return await write(self, message, *args, **kwargs)

        return recorded

    def wrap_resolve(resolve: Any) -> Any:
        def recorded(self: Any, request_id: Any, outcome: Any) -> Any:
            with unharmed():
                sent.setdefault(self, _Sent()).answered(request_id, outcome)
            return resolve(self, request_id, outcome)

        return recorded

    WRAPPING.replace(module.JSONRPCDispatcher, "_write", wrap_write)
    WRAPPING.replace(module.JSONRPCDispatcher, "_resolve_pending", wrap_resolve)


def _server(module: Any) -> None:
    def wrap_call(call: Any) -> Any:
        async def recorded(self: Any, ctx: Any, call_next: Any) -> Any:
            async def told(ctx: Any) -> Any:
                if ctx.method == METHOD:
                    _tell(ARGUMENTS, (ctx.params or {}).get("arguments") or {})
                result = await call_next(ctx)
                if ctx.method == METHOD:
                    _tell(RESULT, result)
                return result

            return await call(self, ctx, told)

        return recorded

    WRAPPING.replace(module.OpenTelemetryMiddleware, "__call__", wrap_call)


def _stdio(module: Any) -> None:
    def wrap(environment: Any) -> Any:
        def recorded() -> dict[str, str]:
            return {**environment(), **_passed_on()}

        return recorded

    WRAPPING.replace(module, "get_default_environment", wrap)


def _passed_on() -> dict[str, str]:
    """Return the variables of `agentspan record`; none where the database is a URL, which may have a password."""
    site = os.environ.get(MARK)
    if not site or "://" in os.environ.get(ENVIRONMENT, ""):
        return {}
    ours = {name: os.environ[name] for name in (MARK, NOTES, ENVIRONMENT) if name in os.environ}
    return {**ours, "PYTHONPATH": site}


WRAPPING = Wrapping({"mcp.shared.jsonrpc_dispatcher": _client, "mcp.server._otel": _server, "mcp.client.stdio": _stdio})
