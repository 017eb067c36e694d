"""Maps the attributes of SDKs that trace themselves: Vercel AI SDK, LiteLLM, Anthropic, MCP, pydantic-ai and Logfire.

- Vercel AI SDK: up to version 6, and its `LegacyOpenTelemetry` since. Later versions use the GenAI conventions.
- LiteLLM (`litellm.callbacks = ["otel"]`): the attributes are on a span of LiteLLM. If the program has a span around
  the call, they are on the program's span, and only those of its last call. Then the program's span stays `custom` and
  keeps them as attributes; the call is its child span `raw_gen_ai_request`.
- Anthropic, pydantic-ai and Logfire: the attributes add to the GenAI conventions. Logfire also makes spans of OpenAI's
  agents SDK.
"""

from collections.abc import Mapping
from typing import Any

from agentspan.otel.mapping import messages
from agentspan.otel.mapping.draft import (
    Draft,
    Family,
    Row,
    decoded,
    flag,
    listed,
    literal,
    members,
    millis,
    number,
    parsed,
    row,
    text,
    whole,
)
from agentspan.otel.span import OtelSpan

_VERCEL_OPERATION = "ai.operationId"
_VERCEL_USAGE = (
    row(
        "result.input_tokens", "ai.usage.inputTokens", "ai.usage.promptTokens", "gen_ai.usage.input_tokens", read=whole
    ),
    row(
        "result.output_tokens",
        "ai.usage.outputTokens",
        "ai.usage.completionTokens",
        "gen_ai.usage.output_tokens",
        read=whole,
    ),
    row("result.cached_tokens", "ai.usage.cachedInputTokens", read=whole),
    row("result.reasoning_tokens", "ai.usage.reasoningTokens", read=whole),
)


def _vercel_provider(value: object) -> str | None:
    return text(value.partition(".")[0]) if type(value) is str else None


_VERCEL_MODEL = (
    row("payload.model", "gen_ai.request.model", "ai.model.id", read=text),
    row("payload.provider", "ai.model.provider", "gen_ai.system", read=_vercel_provider),
)
_VERCEL_ROWS: dict[str, tuple[Row, ...]] = {
    "*": (
        row("run.agent", "ai.telemetry.functionId", read=text),
        row("run.session", "ai.telemetry.metadata.sessionId", "session.id", read=text),
        row("run.user", "ai.telemetry.metadata.userId", "user.id", read=text),
    ),
    "llm": (
        *_VERCEL_MODEL,
        *_VERCEL_USAGE,
        row("payload.tools", "ai.prompt.tools", read=listed),
        row("payload.temperature", "ai.settings.temperature", "gen_ai.request.temperature", read=number),
        row("payload.max_tokens", "ai.settings.maxOutputTokens", "gen_ai.request.max_tokens", read=whole),
        row("result.response_model", "ai.response.model", "gen_ai.response.model", read=text),
        row("result.response_id", "gen_ai.response.id", "ai.response.id", read=text),
        row("result.finish_reason", "ai.response.finishReason", read=text),
        row("result.time_to_first_token_ms", "ai.response.msToFirstChunk", read=number),
        row("result.text", "ai.response.text", read=text),
    ),
    "agent": (*_VERCEL_MODEL, *_VERCEL_USAGE, row("payload.name", "ai.telemetry.functionId", read=text)),
    "tool": (
        row("payload.name", "ai.toolCall.name", read=text),
        row("payload.call_id", "ai.toolCall.id", read=text),
        row("payload.arguments", "ai.toolCall.args", read=parsed),
        row("result.output", "ai.toolCall.result", read=parsed),
    ),
    "embedding": (*_VERCEL_MODEL, row("result.input_tokens", "ai.usage.tokens", read=whole)),
}


def _vercel_kind(span: OtelSpan) -> str | None:
    operation = span.attributes.get(_VERCEL_OPERATION)
    if type(operation) is not str:
        return None
    if operation == "ai.toolCall":
        return "tool"
    if operation.startswith("ai.embed"):
        return "embedding" if "." in operation.removeprefix("ai.") else "chain"  # the outer span repeats the tokens
    return "llm" if operation.endswith((".doGenerate", ".doStream")) else "agent"


def _vercel_rest(draft: Draft) -> None:
    if draft.type == "llm":
        messages.asked(draft, draft.get("ai.prompt.messages"), "ai.prompt.messages")
        calls = [messages.tool_call(each) for each in listed(draft.get("ai.response.toolCalls")) or ()]
        answer = {
            "role": "assistant",
            "content": draft.get("ai.response.text") or draft.get("ai.response.object") or "",
        }
        if answer["content"] or calls:
            messages.output(draft, [{**answer, **({"tool_calls": calls} if calls else {})}])
            draft.use("ai.response.toolCalls", "ai.response.object")
    elif draft.type == "agent":
        draft.put("payload.input", decoded(draft.get("ai.prompt")), "ai.prompt")
        draft.put("result.output", text(draft.get("ai.response.text")), "ai.response.text")
        draft.put("result.output", decoded(draft.get("ai.response.object")), "ai.response.object")
        draft.put("result.stop_reason", text(draft.get("ai.response.finishReason")), "ai.response.finishReason")
    elif draft.type == "embedding":
        values = listed(draft.get("ai.values"))
        draft.put("payload.input_count", len(values) if values is not None else 1)
        vectors = listed(draft.get("ai.embeddings")) or ([parsed(draft.get("ai.embedding"))])
        if vectors and type(vectors[0]) is list:
            draft.put("result.dimensions", len(vectors[0]), "ai.embeddings", "ai.embedding")


VERCEL = Family(
    "Vercel AI SDK", lambda span: _VERCEL_OPERATION in span.attributes, _vercel_kind, _VERCEL_ROWS, _vercel_rest
)


LITELLM_SCOPE = "litellm"
_LITELLM_ID, _LITELLM_RAW = "litellm.call_id", "raw_gen_ai_request"
_LITELLM_ROWS: dict[str, tuple[Row, ...]] = {
    "*": (row("run.session", "metadata.session_id", read=text), row("run.user", "llm.user", "user.id", read=text)),
    "llm": (row("result.cost_usd", "gen_ai.cost.total_cost", read=number),),
}


def _litellm_holds(span: OtelSpan) -> bool:
    return span.scope.name == LITELLM_SCOPE or _LITELLM_ID in span.attributes


def _litellm_kind(span: OtelSpan) -> str | None:
    if span.name in (_LITELLM_RAW, "litellm_request"):
        return "llm"
    return "custom" if span.scope.name != LITELLM_SCOPE else None  # the program's own, to which LiteLLM added a call


def _litellm_rest(draft: Draft) -> None:
    if draft.type != "llm":
        return
    if draft.span.name == _LITELLM_RAW:
        _litellm_raw(draft)
    tools = []
    for number_ in range(128):
        start = f"llm.request.functions.{number_}."
        if (name := text(draft.get(start + "name"))) is None:
            break
        described = {"name": name, "description": draft.get(start + "description")}
        tools.append({**described, "parameters": members(draft.get(start + "parameters"))})
        draft.use_all(start)
    draft.put("payload.tools", tools or None)


def _litellm_raw(draft: Draft) -> None:
    """Set fields from a provider's request and answer. Each member of them is an attribute, as a Python literal."""
    for name in list(draft.left):
        parts = name.split(".", 2)
        if len(parts) != 3 or parts[0] != "llm":
            continue
        provider, member = parts[1], parts[2]
        if provider not in ("None", "request", "usage"):
            draft.put("payload.provider", provider)
        value = literal(draft.left[name])
        if member == "model":
            draft.put("payload.model", text(value), name)
        elif member == "messages":
            draft.left[name] = value
            messages.request_of(draft, name, parsed(value))
        elif member in ("choices", "content"):
            messages.answer_of(draft, name, {member: value})
        elif member == "usage" and type(value) is dict:
            messages.usage(draft, value)
            draft.use(name)
        elif member == "id":
            draft.put("result.response_id", text(value), name)


LITELLM = Family("LiteLLM", _litellm_holds, _litellm_kind, _LITELLM_ROWS, _litellm_rest)


_SDK_METHOD = "mcp.method.name"
_SDK_ARGUMENTS, _SDK_RESULT = "gen_ai.tool.call.arguments", "gen_ai.tool.call.result"
VARIABLE = "gen_ai.prompt.variable."
_SDK_ANTHROPIC, _SDK_MCP = "com.anthropic.sdk.", "mcp-python-sdk"
ROWS: dict[str, tuple[Row, ...]] = {
    "llm": (
        row("result.finish_reason", "anthropic.message.stop_reason", read=text),
        row("payload.thinking_tokens", "anthropic.thinking.budget_tokens", read=whole),
    ),
    "mcp": (
        row("payload.method", _SDK_METHOD, read=text),
        row("payload.target", "gen_ai.tool.name", "gen_ai.prompt.name", "mcp.resource.uri", read=text),
        row("payload.server", "mcp.server.name", read=text),
        row("payload.request_id", "jsonrpc.request.id", "mcp.request.id", read=text),
        row("payload.session_id", "mcp.session.id", read=text),
        row("payload.protocol_version", "mcp.protocol.version", read=text),
    ),
}


def _sdk_holds(span: OtelSpan) -> bool:
    return span.scope.name.startswith(_SDK_ANTHROPIC) or span.scope.name == _SDK_MCP or _SDK_METHOD in span.attributes


def _sdk_rest(draft: Draft) -> None:
    if draft.type != "mcp":
        return
    method = draft.payload.get("method", "")
    named = draft.span.name.removeprefix("MCP send ").removeprefix(method).strip()
    draft.put("payload.target", named or None)
    if method == "tools/call":
        draft.use("gen_ai.operation.name")
    draft.put("payload.arguments", parsed(draft.get(_SDK_ARGUMENTS)), _SDK_ARGUMENTS)
    variables = [name for name in draft.left if name.startswith(VARIABLE)]
    draft.put(
        "payload.arguments", {name.removeprefix(VARIABLE): draft.left[name] for name in variables} or None, *variables
    )
    draft.put("result.result", parsed(draft.get(_SDK_RESULT)), _SDK_RESULT)
    code = draft.get("rpc.response.status_code") or draft.get("error.type")
    if code is not None or draft.span.status == "ERROR":
        draft.put("result.is_error", True)
        draft.put("result.error_code", code, "rpc.response.status_code")


SDK = Family("SDK", _sdk_holds, lambda span: "mcp" if _SDK_METHOD in span.attributes else None, ROWS, _sdk_rest)


_LOGFIRE_TEMPLATE, _LOGFIRE_TYPE, _LOGFIRE_LEVEL = "logfire.msg_template", "logfire.span_type", "logfire.level_num"
_LOGFIRE_ERROR_LEVEL = 17
_LOGFIRE_STREAMING = "streaming response from"
_LOGFIRE_TEMPLATES = (
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
"""The span types of Logfire's spans without an operation name, by the start of their message template."""
_LOGFIRE_AGGREGATED = "gen_ai.aggregated_usage."
_LOGFIRE_ROWS: dict[str, tuple[Row, ...]] = {
    "*": (row("run.session", "gen_ai.conversation.id", "group_id", read=text), row("run.user", "user.id", read=text)),
    "agent": (
        row("payload.name", "gen_ai.agent.name", "agent_name", "name", read=text),
        row("payload.model", "model_name", "gen_ai.request.model", read=text),
        row("result.output", "final_result", read=parsed),
        row("result.input_tokens", _LOGFIRE_AGGREGATED + "input_tokens", read=whole),
        row("result.output_tokens", _LOGFIRE_AGGREGATED + "output_tokens", read=whole),
        row("result.cached_tokens", _LOGFIRE_AGGREGATED + "cache_read.input_tokens", read=whole),
        row("result.cache_write_tokens", _LOGFIRE_AGGREGATED + "cache_creation.input_tokens", read=whole),
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


def _logfire_holds(span: OtelSpan) -> bool:
    scope = span.scope.name
    return scope.startswith("logfire") or scope == "pydantic-ai" or "logfire.msg" in span.attributes


def _logfire_kind(span: OtelSpan) -> str | None:
    template = span.attributes.get(_LOGFIRE_TEMPLATE)
    if type(template) is not str or "gen_ai.operation.name" in span.attributes:
        return None
    if template.startswith(_LOGFIRE_STREAMING):
        return "custom"  # the span of a stream repeats the tokens of its call
    return next((kind for start, kind in _LOGFIRE_TEMPLATES if template.startswith(start)), None)


def is_step(attributes: Mapping[str, Any]) -> bool:
    """Return whether a span is a step. Logfire also sends the begin of a span, and each log line, as a span."""
    return attributes.get(_LOGFIRE_TYPE) not in ("pending_span", "log")


def _logfire_rest(draft: Draft) -> None:
    draft.use(_LOGFIRE_TYPE)
    level = whole(draft.get(_LOGFIRE_LEVEL))
    if level is not None and level >= _LOGFIRE_ERROR_LEVEL:
        draft.is_failed = True
    if draft.type == "agent":
        _logfire_agent(draft)
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
        _logfire_llm(draft)


def _logfire_agent(draft: Draft) -> None:
    draft.use("agent_name" if draft.get("agent_name") == draft.payload.get("name") else "")
    all_messages = messages.messages(draft.get("pydantic_ai.all_messages"))
    asked = next((each for each in all_messages if type(each) is dict and each.get("role") == "user"), None)
    if asked is not None:
        draft.put("payload.input", asked.get("content"))
        draft.put("payload.messages", all_messages, "pydantic_ai.all_messages")


def _logfire_llm(draft: Draft) -> None:
    if members(draft.get("request_data")) is not None:
        messages.request(draft, "request_data")
    response: Any = members(draft.get("response_data"))
    if response is not None:
        message = response.get("message") or response.get("combined_chunk_content")
        if message:
            messages.output(draft, [message])
        if (used := members(response.get("usage"))) is not None:
            messages.usage(draft, used)
        draft.leave("response_data", {k: v for k, v in response.items() if k not in ("message", "usage")})
    if type(found := parsed(draft.get("events"))) is list:  # Logfire's spans of OpenAI's responses
        asked = [each for each in found if type(each) is dict and each.get("event.name") != "gen_ai.choice"]
        answered = [each.get("message", each) for each in found if type(each) is dict and each not in asked]
        system, rest = messages.split_system(messages.messages(asked))
        draft.put("payload.system", system)
        draft.put("payload.messages", rest or None, "events")
        messages.output(draft, answered)
    if (used := members(draft.get("usage"))) is not None:
        messages.usage(draft, used)


LOGFIRE = Family("pydantic-ai", _logfire_holds, _logfire_kind, _LOGFIRE_ROWS, _logfire_rest)
