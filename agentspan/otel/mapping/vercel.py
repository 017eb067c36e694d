"""The attributes of the Vercel AI SDK up to version 6, and of `LegacyOpenTelemetry` since. Later ones are GenAI's."""

from agentspan.otel.mapping import bodies, messages
from agentspan.otel.mapping.draft import Draft, Family, Row, row
from agentspan.otel.mapping.values import decoded, listed, number, parsed, text, whole
from agentspan.otel.span import OtelSpan

_OPERATION = "ai.operationId"
_USAGE = (
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


def _provider(value: object) -> str | None:
    return text(value.partition(".")[0]) if type(value) is str else None


_MODEL = (
    row("payload.model", "gen_ai.request.model", "ai.model.id", read=text),
    row("payload.provider", "ai.model.provider", "gen_ai.system", read=_provider),
)
_ROWS: dict[str, tuple[Row, ...]] = {
    "*": (
        row("run.agent", "ai.telemetry.functionId", read=text),
        row("run.session", "ai.telemetry.metadata.sessionId", "session.id", read=text),
        row("run.user", "ai.telemetry.metadata.userId", "user.id", read=text),
    ),
    "llm": (
        *_MODEL,
        *_USAGE,
        row("payload.tools", "ai.prompt.tools", read=listed),
        row("payload.temperature", "ai.settings.temperature", "gen_ai.request.temperature", read=number),
        row("payload.max_tokens", "ai.settings.maxOutputTokens", "gen_ai.request.max_tokens", read=whole),
        row("result.response_model", "ai.response.model", "gen_ai.response.model", read=text),
        row("result.response_id", "gen_ai.response.id", "ai.response.id", read=text),
        row("result.finish_reason", "ai.response.finishReason", read=text),
        row("result.time_to_first_token_ms", "ai.response.msToFirstChunk", read=number),
        row("result.text", "ai.response.text", read=text),
    ),
    "agent": (*_MODEL, *_USAGE, row("payload.name", "ai.telemetry.functionId", read=text)),
    "tool": (
        row("payload.name", "ai.toolCall.name", read=text),
        row("payload.call_id", "ai.toolCall.id", read=text),
        row("payload.arguments", "ai.toolCall.args", read=parsed),
        row("result.output", "ai.toolCall.result", read=parsed),
    ),
    "embedding": (*_MODEL, row("result.input_tokens", "ai.usage.tokens", read=whole)),
}


def _kind(span: OtelSpan) -> str | None:
    operation = span.attributes.get(_OPERATION)
    if type(operation) is not str:
        return None
    if operation == "ai.toolCall":
        return "tool"
    if operation.startswith("ai.embed"):
        return "embedding" if "." in operation.removeprefix("ai.") else "chain"  # the outer one repeats its tokens
    return "llm" if operation.endswith((".doGenerate", ".doStream")) else "agent"


def _rest(draft: Draft) -> None:
    if draft.type == "llm":
        system, rest = messages.split_system(messages.messages(draft.get("ai.prompt.messages")))
        draft.put("payload.system", system)
        draft.put("payload.messages", rest or None, "ai.prompt.messages")
        calls = [messages.tool_call(each) for each in listed(draft.get("ai.response.toolCalls")) or ()]
        answer = {
            "role": "assistant",
            "content": draft.get("ai.response.text") or draft.get("ai.response.object") or "",
        }
        if answer["content"] or calls:
            bodies.output(draft, [{**answer, **({"tool_calls": calls} if calls else {})}])
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


FAMILY = Family("Vercel AI SDK", lambda span: _OPERATION in span.attributes, _kind, _ROWS, _rest)
