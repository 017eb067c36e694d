"""Adds facts that instrumentors leave out to their spans. Makes no span itself.

- Claude Agent SDK: the cost that the SDK reports, which knows of models and requests that the messages leave out. The
  instrumentor leaves the cost out, because it is a sum of the session.
- DSPy: tokens and cost of calls. DSPy writes them to its history while the span of the call is current. A program that
  turns the history off gets no tokens.
- LlamaIndex: the name of an agent, on the span of its run.
- smolagents: the end of an agent's span if its run raises. OpenInference's instrumentor leaves the span open and
  current. Then later spans of the program would be inside it, and the run would end as abandoned with the program.
- MCP's SDK (2.0 and later), which traces itself: arguments and results of tools. The wrapped functions, two of the
  client and one of the server, handle a message before its span ends. A client also starts a server over stdio with
  an environment of its own choice. A recorded client adds the variables of `agentspan record`, so that the server is
  recorded, too, below the call: `inject` names the run in each message.
"""

import json
import os
from typing import Any
from weakref import WeakKeyDictionary

from opentelemetry import context
from opentelemetry.trace import Status, StatusCode, get_current_span

from agentspan.otel.instruments.known import MARK, NOTES
from agentspan.otel.instruments.wrapping import Wrapping, unharmed
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
    """Return tokens and cost in an entry of DSPy's history, as attributes; a cached answer has no usage, so none."""
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
    DSPY.before(module.BaseLM, "update_history", lambda _, entry: get_current_span().set_attributes(_usage_of(entry)))


DSPY = Wrapping({"dspy.clients.base_lm": _dspy_history})


_COST = "llm.cost.total"


def _claude_messages(module: Any) -> None:
    sums: dict[Any, float] = {}

    def note(message: Any, span: Any, *_: Any, **__: Any) -> None:
        total, session = getattr(message, "total_cost_usd", None), getattr(message, "session_id", None)
        if isinstance(total, int | float):
            before = sums.get(session, 0.0)
            sums[session] = total
            span.set_attribute(_COST, total - before if total >= before else total)

    CLAUDE.before(module, "_process_message", note)


CLAUDE = Wrapping({"openinference.instrumentation.claude_agent_sdk._wrappers": _claude_messages})


AGENT = "agent.name"
_UNNAMED = "Agent"
"""LlamaIndex's name for an agent that the program did not name."""


def _name_agent(id_: str, bound_args: Any = None, instance: Any = None, *_: Any, **__: Any) -> None:
    """Set the agent's name on the current span, which the instrumentor has made for the agent's run."""
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
    """End the agent's span if the instrumentor left it open, and restore the context from before the run."""
    span = get_current_span()
    if span is not get_current_span(before) and span.is_recording():
        if not isinstance(error, Exception):  # the instrumentor records an Exception itself
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
    """Set an attribute to a value as JSON, on `span`, or on the current span if `span` is None."""
    with unharmed:
        is_model = hasattr(value, "model_dump")
        plain = value.model_dump(mode="json", by_alias=True, exclude_none=True) if is_model else value
        (get_current_span() if span is None else span).set_attribute(name, json.dumps(plain, default=str))


def _error_text(outcome: Any) -> str | None:
    """Return the first text of a tool's result that is an error, which is "" without one; None if it is no error."""
    plain = outcome.model_dump(by_alias=True) if hasattr(outcome, "model_dump") else outcome
    if not isinstance(plain, dict) or plain.get("isError") is not True:
        return None
    texts = (part.get("text") for part in plain.get("content") or () if isinstance(part, dict))
    return next((text for text in texts if isinstance(text, str)), "")


class _Sent:
    """The requests that an MCP client has sent.

    Attributes:
        calls: the spans of calls of tools that have no answer yet, by the id of the request.
        headers: the trace headers of the latest request.
    """

    def __init__(self) -> None:
        self.calls: dict[str, Any] = {}
        self.headers: dict[str, str] = {}

    def note(self, message: Any) -> None:
        """Add trace headers to an outgoing message; if it calls a tool, add its arguments to the current span."""
        if not hasattr(message, "params"):
            return  # an answer has no parameters
        meta = (message.params or {}).get("_meta")
        if hasattr(message, "id"):
            if meta is not None:
                inject(meta)
                self.headers = {name: meta[name] for name in ("traceparent", "tracestate") if name in meta}
            if message.method == METHOD:
                _set_json(ARGUMENTS, (message.params or {}).get("arguments") or {})
                self.calls[str(message.id)] = get_current_span()
        elif self.headers and meta is None:  # the SDK makes a span for a notification in the server only
            message.params = {**(message.params or {}), "_meta": self.headers}

    def answered(self, id: Any, outcome: Any) -> None:
        """Add the result of a tool to the span of its request, which has not ended yet."""
        span = self.calls.pop(str(id), None)
        if span is not None and isinstance(outcome, dict):
            _set_json(RESULT, outcome, span)
            if (text := _error_text(outcome)) is not None:
                span.set_attribute("error.type", "tool_error")
                span.set_status(Status(StatusCode.ERROR, text or None))


def _mcp_client(module: Any) -> None:
    sent: WeakKeyDictionary[Any, _Sent] = WeakKeyDictionary()
    client = module.JSONRPCDispatcher
    MCP.before(client, "_write", lambda self, message, *_, **__: sent.setdefault(self, _Sent()).note(message))
    MCP.before(client, "_resolve_pending", lambda self, *answer: sent.setdefault(self, _Sent()).answered(*answer))


def _mcp_server(module: Any) -> None:
    def wrap_call(call: Any) -> Any:
        async def recorded(self: Any, ctx: Any, call_next: Any) -> Any:
            async def call_recorded(ctx: Any) -> Any:
                if ctx.method == METHOD:
                    _set_json(ARGUMENTS, (ctx.params or {}).get("arguments") or {})
                result = await call_next(ctx)
                if ctx.method == METHOD:
                    _set_json(RESULT, result)
                    with unharmed:
                        if text := _error_text(result):  # the SDK sets the status, without a text
                            get_current_span().set_attribute("error.message", text)
                return result

            return await call(self, ctx, call_recorded)

        return recorded

    MCP.replace(module.OpenTelemetryMiddleware, "__call__", wrap_call)


def _mcp_stdio(module: Any) -> None:
    MCP.replace(module, "get_default_environment", lambda environment: lambda: {**environment(), **_passed_on()})


def _passed_on() -> dict[str, str]:
    """Return the environment variables of `agentspan record` for an MCP server.

    Returns none if the database is a URL, which may contain a password.
    """
    site = os.environ.get(MARK)
    if not site or "://" in os.environ.get(ENVIRONMENT, ""):
        return {}
    ours = {name: os.environ[name] for name in (MARK, NOTES, ENVIRONMENT) if name in os.environ}
    return {**ours, "PYTHONPATH": site}


MCP = Wrapping(
    {"mcp.shared.jsonrpc_dispatcher": _mcp_client, "mcp.server._otel": _mcp_server, "mcp.client.stdio": _mcp_stdio}
)
ADDITIONS = {"claude-agent-sdk": CLAUDE, "dspy": DSPY, "llama-index": LLAMA_INDEX, "mcp": MCP, "smolagents": SMOLAGENTS}
"""The wrappers of each framework, by its name."""
