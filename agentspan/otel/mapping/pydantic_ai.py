"""Attributes of pydantic-ai and Logfire on top of the GenAI conventions, and Logfire's spans of OpenAI's agents SDK."""

from collections.abc import Mapping
from typing import Any

from agentspan.otel.mapping import bodies, messages
from agentspan.otel.mapping.draft import Draft, Family, Row, row
from agentspan.otel.mapping.values import decoded, flag, members, millis, number, parsed, text, whole
from agentspan.otel.span import OtelSpan

_TEMPLATE, _TYPE, _LEVEL = "logfire.msg_template", "logfire.span_type", "logfire.level_num"
_ERROR_LEVEL = 17
_STREAMING = "streaming response from"
_TEMPLATES = (
    ("Function:", "tool"),
    ("Handoff:", "handoff"),
    ("Guardrail", "guardrail"),
    ("Agent run:", "agent"),
    ("OpenAI Agents trace:", "chain"),
    ("Turn", "chain"),
    ("MCP:", "mcp"),
    ("Chat Completion with", "llm"),
    ("Chat completion with", "llm"),
    ("Responses API with", "llm"),
    ("Message with", "llm"),
    ("Embedding Creation with", "embedding"),
)
"""The start of a template, by which Logfire's spans without an operation are told apart."""
_AGGREGATED = "gen_ai.aggregated_usage."
_ROWS: dict[str, tuple[Row, ...]] = {
    "*": (row("run.session", "gen_ai.conversation.id", "group_id", read=text), row("run.user", "user.id", read=text)),
    "agent": (
        row("payload.name", "gen_ai.agent.name", "agent_name", "name", read=text),
        row("payload.model", "model_name", "gen_ai.request.model", read=text),
        row("result.output", "final_result", read=parsed),
        row("result.input_tokens", _AGGREGATED + "input_tokens", read=whole),
        row("result.output_tokens", _AGGREGATED + "output_tokens", read=whole),
        row("result.cached_tokens", _AGGREGATED + "cache_read.input_tokens", read=whole),
        row("result.cache_write_tokens", _AGGREGATED + "cache_creation.input_tokens", read=whole),
        row("result.cost_usd", "operation.cost", read=number),
    ),
    "llm": (
        row("result.cost_usd", "operation.cost", read=number),
        row("result.time_to_first_token_ms", "gen_ai.client.operation.time_to_first_chunk", read=millis),
        row("result.reasoning_tokens", "gen_ai.usage.details.reasoning_tokens", read=whole),
        row("result.cached_tokens", "gen_ai.usage.details.cache_read_tokens", read=whole),
        row("result.cache_write_tokens", "gen_ai.usage.details.cache_write_tokens", read=whole),
    ),
    "tool": (row("payload.name", "gen_ai.tool.name", "name", read=text),),
    "handoff": (row("payload.from_agent", "from_agent", read=text), row("payload.to_agent", "to_agent", read=text)),
    "chain": (row("payload.name", "name", read=text),),
}


def _holds(span: OtelSpan) -> bool:
    scope = span.scope.name
    return scope.startswith("logfire") or scope == "pydantic-ai" or "logfire.msg" in span.attributes


def _kind(span: OtelSpan) -> str | None:
    template = span.attributes.get(_TEMPLATE)
    if type(template) is not str or "gen_ai.operation.name" in span.attributes:
        return None
    if template.startswith(_STREAMING):
        return "custom"  # it repeats the tokens of the span whose stream it is
    return next((kind for start, kind in _TEMPLATES if template.startswith(start)), None)


def is_step(attributes: Mapping[str, Any]) -> bool:
    """Return whether a span is a step: Logfire also sends the begin of a span, and each line of a log, as spans."""
    return attributes.get(_TYPE) not in ("pending_span", "log")


def _rest(draft: Draft) -> None:
    draft.use(_TYPE)
    level = whole(draft.get(_LEVEL))
    if level is not None and level >= _ERROR_LEVEL:
        draft.is_failed = True
    if draft.type == "agent":
        _agent(draft)
    elif draft.type == "tool":
        draft.put("payload.arguments", decoded(draft.get("input")), "input")
        draft.put("result.output", parsed(draft.get("output")), "output")
        retry = {name: draft.get(f"pydantic_ai.tool.retry.{name}") for name in ("attempt", "cause", "max_retries")}
        if any(value is not None for value in retry.values()):
            draft.put("result.retry", retry, *(f"pydantic_ai.tool.retry.{name}" for name in retry))
    elif draft.type == "guardrail":
        draft.put("payload.name", text(draft.get("name")), "name")
        triggered = flag(draft.get("triggered"))
        draft.put("result.passed", None if triggered is None else not triggered, "triggered")
    elif draft.type in ("llm", "embedding"):
        _llm(draft)


def _agent(draft: Draft) -> None:
    draft.use("agent_name" if draft.get("agent_name") == draft.payload.get("name") else "")
    all_messages = messages.messages(draft.get("pydantic_ai.all_messages"))
    asked = next((each for each in all_messages if type(each) is dict and each.get("role") == "user"), None)
    if asked is not None:
        draft.put("payload.input", asked.get("content"))
        draft.put("payload.messages", all_messages, "pydantic_ai.all_messages")


def _llm(draft: Draft) -> None:
    if members(draft.get("request_data")) is not None:
        bodies.request(draft, "request_data")
    response: Any = members(draft.get("response_data"))
    if response is not None:
        message = response.get("message") or response.get("combined_chunk_content")
        if message:
            bodies.output(draft, [message])
        if (used := members(response.get("usage"))) is not None:
            bodies.usage(draft, used)
        draft.leave("response_data", {k: v for k, v in response.items() if k not in ("message", "usage")})
    if type(found := parsed(draft.get("events"))) is list:  # Logfire's spans of OpenAI's responses
        asked = [each for each in found if type(each) is dict and each.get("event.name") != "gen_ai.choice"]
        answered = [each.get("message", each) for each in found if type(each) is dict and each not in asked]
        system, rest = messages.split_system(messages.messages(asked))
        draft.put("payload.system", system)
        draft.put("payload.messages", rest or None, "events")
        bodies.output(draft, answered)
    if (used := members(draft.get("usage"))) is not None:
        bodies.usage(draft, used)


FAMILY = Family("pydantic-ai", _holds, _kind, _ROWS, _rest)
