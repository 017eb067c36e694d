"""Additions to the spans of instrumentors, which leave these things out. None of them makes a span.

- DSPy: tokens and cost of its calls. DSPy has them in its history, which is written inside of the call's span. A
  program that turns it off has no tokens.
- LlamaIndex: the name of an agent, on the span of its run.
- smolagents: the end of an agent's span whose run raises, which OpenInference's instrumentor leaves open, and current.
  The run would end as abandoned when the program does, and all that the program does meanwhile would be inside of it.
- MCP's SDK (2.0 and later), which traces itself: arguments and results of tools. So its functions are wrapped that have
  a message before the message's span ends: two of the client, one of the server. A client starts a server over stdio
  with an environment of its own choice. A recorded program adds what `agentspan record` set in its own, so that the
  server is recorded, too, below the call: `inject` names the run in each message.
"""

import json
import os
from typing import Any
from weakref import WeakKeyDictionary

from opentelemetry import context
from opentelemetry.trace import Status, StatusCode, get_current_span

from agentspan.otel.instruments.instrument import Wrapping, unharmed
from agentspan.otel.instruments.known import MARK, NOTES
from agentspan.otel.trace_context import inject
from agentspan.storage.location import ENVIRONMENT

_COUNTS = {
    "llm.token_count.prompt": ("prompt_tokens", "input_tokens"),
    "llm.token_count.completion": ("completion_tokens", "output_tokens"),
}
_DETAILS = {
    "llm.token_count.prompt_details.cache_read": ("prompt_tokens_details", "cached_tokens"),
    "llm.token_count.completion_details.reasoning": ("completion_tokens_details", "reasoning_tokens"),
}


def _usage_of(entry: dict[str, Any]) -> dict[str, int | float]:
    """Return the attributes of an entry of DSPy's history; none of an answer of its cache, which has no usage."""
    usage = entry.get("usage") or {}
    found: dict[str, Any] = {
        name: next((usage[key] for key in keys if usage.get(key) is not None), None) for name, keys in _COUNTS.items()
    }
    for name, (group, key) in _DETAILS.items():
        of = usage.get(group)
        found[name] = of.get(key) if isinstance(of, dict) else getattr(of, key, None)
    if usage:
        found["llm.cost.total"] = entry.get("cost")
    return {name: value for name, value in found.items() if isinstance(value, int | float)}


def _dspy_history(module: Any) -> None:
    def wrap(update: Any) -> Any:
        def recorded(self: Any, entry: Any) -> Any:
            with unharmed:
                get_current_span().set_attributes(_usage_of(entry))
            return update(self, entry)

        return recorded

    DSPY.replace(module.BaseLM, "update_history", wrap)


DSPY = Wrapping({"dspy.clients.base_lm": _dspy_history})


AGENT = "agent.name"
_UNNAMED = "Agent"
"""The name of an agent that was given none."""


def _name_agent(id_: str, bound_args: Any = None, instance: Any = None, *_: Any, **__: Any) -> None:
    """Name the run of an agent; the instrumentor has made its span the current one."""
    name = getattr(instance, "name", None)
    if id_.partition("-")[0].endswith(".run") and isinstance(name, str) and name != _UNNAMED:
        get_current_span().set_attribute(AGENT, name)


def _llama_index_dispatcher(module: Any) -> None:
    def wrap(enter: Any) -> Any:
        def named(self: Any, *args: Any, **kwargs: Any) -> Any:
            entered = enter(self, *args, **kwargs)
            with unharmed:
                _name_agent(*args, **kwargs)
            return entered

        return named

    LLAMA_INDEX.replace(module.Dispatcher, "span_enter", wrap)


LLAMA_INDEX = Wrapping({"llama_index_instrumentation.dispatcher": _llama_index_dispatcher})


def _end_agent(before: Any, error: BaseException) -> None:
    """End the span that became current, unless the instrumentor did, and make the context of before current again."""
    span = get_current_span()
    if span is not get_current_span(before) and span.is_recording():
        if not isinstance(error, Exception):  # others have been noted
            span.record_exception(error)
            span.set_status(StatusCode.ERROR)
        span.end()
    context.attach(before)


def _smolagents(module: Any) -> None:
    def wrap(run: Any) -> Any:
        def ended(self: Any, *args: Any, **kwargs: Any) -> Any:
            before = context.get_current()
            try:
                return run(self, *args, **kwargs)
            except BaseException as error:
                with unharmed:
                    _end_agent(before, error)
                raise

        return ended

    SMOLAGENTS.replace(module.MultiStepAgent, "run", wrap)


SMOLAGENTS = Wrapping({"smolagents.agents": _smolagents})


METHOD = "tools/call"
ARGUMENTS, RESULT = "gen_ai.tool.call.arguments", "gen_ai.tool.call.result"


def _set_json(name: str, value: Any, span: Any = None) -> None:
    """Set an attribute of a span, or of the current one, as JSON."""
    with unharmed:
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
                _set_json(ARGUMENTS, (message.params or {}).get("arguments") or {})
                self.calls[str(message.id)] = get_current_span()
        elif self.headers and meta is None:  # a notification, for which the SDK makes a span in the server only
            message.params = {**(message.params or {}), "_meta": self.headers}

    def answered(self, id: Any, outcome: Any) -> None:
        """Note the answer to a request, whose span has not ended yet."""
        span = self.calls.pop(str(id), None)
        if span is not None and isinstance(outcome, dict):
            _set_json(RESULT, outcome, span)
            if outcome.get("isError") is True:
                texts = (part.get("text") for part in outcome.get("content") or () if isinstance(part, dict))
                span.set_attribute("error.type", "tool_error")
                span.set_status(Status(StatusCode.ERROR, next((text for text in texts if isinstance(text, str)), None)))


def _mcp_client(module: Any) -> None:
    sent: WeakKeyDictionary[Any, _Sent] = WeakKeyDictionary()

    def wrap_write(write: Any) -> Any:
        async def recorded(self: Any, message: Any, *args: Any, **kwargs: Any) -> Any:
            with unharmed:
                sent.setdefault(self, _Sent()).note(message)
            return await write(self, message, *args, **kwargs)

        return recorded

    def wrap_resolve(resolve: Any) -> Any:
        def recorded(self: Any, request_id: Any, outcome: Any) -> Any:
            with unharmed:
                sent.setdefault(self, _Sent()).answered(request_id, outcome)
            return resolve(self, request_id, outcome)

        return recorded

    MCP.replace(module.JSONRPCDispatcher, "_write", wrap_write)
    MCP.replace(module.JSONRPCDispatcher, "_resolve_pending", wrap_resolve)


def _mcp_server(module: Any) -> None:
    def wrap_call(call: Any) -> Any:
        async def recorded(self: Any, ctx: Any, call_next: Any) -> Any:
            async def call_recorded(ctx: Any) -> Any:
                if ctx.method == METHOD:
                    _set_json(ARGUMENTS, (ctx.params or {}).get("arguments") or {})
                result = await call_next(ctx)
                if ctx.method == METHOD:
                    _set_json(RESULT, result)
                return result

            return await call(self, ctx, call_recorded)

        return recorded

    MCP.replace(module.OpenTelemetryMiddleware, "__call__", wrap_call)


def _mcp_stdio(module: Any) -> None:
    def wrap(environment: Any) -> Any:
        def recorded() -> dict[str, str]:
            return {**environment(), **_passed_on()}

        return recorded

    MCP.replace(module, "get_default_environment", wrap)


def _passed_on() -> dict[str, str]:
    """Return the variables of `agentspan record`; none where the database is a URL, which may have a password."""
    site = os.environ.get(MARK)
    if not site or "://" in os.environ.get(ENVIRONMENT, ""):
        return {}
    ours = {name: os.environ[name] for name in (MARK, NOTES, ENVIRONMENT) if name in os.environ}
    return {**ours, "PYTHONPATH": site}


MCP = Wrapping(
    {"mcp.shared.jsonrpc_dispatcher": _mcp_client, "mcp.server._otel": _mcp_server, "mcp.client.stdio": _mcp_stdio}
)
ADDITIONS = {"dspy": DSPY, "llama-index": LLAMA_INDEX, "mcp": MCP, "smolagents": SMOLAGENTS}
"""The functions that are wrapped, by the name of the framework."""
