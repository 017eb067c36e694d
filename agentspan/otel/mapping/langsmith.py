"""LangSmith's attributes (`LANGSMITH_OTEL_ENABLED`). Its `gen_ai.operation.name` is not the span's: it is not read."""

from typing import Any

from agentspan.otel.mapping import bodies, messages
from agentspan.otel.mapping.draft import Draft, Family, Row, row
from agentspan.otel.mapping.genai import unwrap
from agentspan.otel.mapping.values import decoded, members, number, text, whole
from agentspan.otel.span import OtelSpan

KIND = "langsmith.span.kind"
_IN, _OUT = "gen_ai.prompt", "gen_ai.completion"
_METADATA = "langsmith.metadata."
_AGENT = _METADATA + "lc_agent_name"
_KINDS = {
    "llm": "llm",
    "tool": "tool",
    "chain": "chain",
    "prompt": "chain",
    "parser": "chain",
    "retriever": "retrieval",
    "embedding": "embedding",
}
_ROWS: dict[str, tuple[Row, ...]] = {
    "*": (
        row("run.session", _METADATA + "session_id", _METADATA + "thread_id", _METADATA + "conversation_id", read=text),
        row("run.user", _METADATA + "user_id", _METADATA + "user", read=text),
    ),
    "llm": (
        row("payload.model", "gen_ai.request.model", _METADATA + "ls_model_name", read=text),
        row("payload.provider", _METADATA + "ls_provider", "gen_ai.system", read=text),
        row("payload.temperature", _METADATA + "ls_temperature", "gen_ai.request.temperature", read=number),
        row("payload.max_tokens", _METADATA + "ls_max_tokens", "gen_ai.request.max_tokens", read=whole),
        row("payload.tools", "gen_ai.tool.definitions", read=messages.tools),
        row("result.input_tokens", "gen_ai.usage.input_tokens", read=whole),
        row("result.output_tokens", "gen_ai.usage.output_tokens", read=whole),
    ),
    "tool": (
        row("payload.name", "gen_ai.tool.name", "langsmith.trace.name", read=text),
        row("payload.call_id", "gen_ai.tool.call.id", read=text),
    ),
    "agent": (
        row("payload.name", _AGENT, read=text),
        row("payload.conversation_id", _METADATA + "thread_id", read=text),
    ),
    "chain": (row("payload.name", "langsmith.trace.name", read=text),),
    "retrieval": (row("payload.source", _METADATA + "ls_retriever_name", read=text),),
}


def _kind(span: OtelSpan) -> str | None:
    kind = span.attributes.get(KIND)
    found = _KINDS.get(kind) if type(kind) is str else None
    return "agent" if found == "chain" and span.attributes.get(_AGENT) == span.name else found


def _rest(draft: Draft) -> None:
    draft.use(KIND, "gen_ai.operation.name")
    if any(event.name == "exception" for event in draft.span.events):
        draft.is_failed = True  # the failure of a model has the status OK
    if draft.type == "llm":
        used = members(draft.get(_METADATA + "usage_metadata"))
        if used is not None:
            bodies.usage(draft, used)
        bodies.request(draft, _IN)
        bodies.answer(draft, _OUT)
    elif draft.type == "tool":
        draft.put("payload.arguments", decoded(draft.get(_IN)), _IN)
        result = decoded(draft.get(_OUT))
        if result != {}:
            draft.put("result.output", unwrap(result))
        draft.use(*([_OUT] if result == {} else []))
    elif draft.type == "retrieval":
        asked, answered = members(draft.get(_IN)), members(draft.get(_OUT))
        draft.put("payload.query", text((asked or {}).get("query")), _IN)
        if answered is not None and type(answered.get("documents")) is list:
            draft.put("result.documents", answered["documents"], _OUT)
            draft.put("result.count", len(answered["documents"]))
    else:
        draft.put("payload.input", _state(draft.get(_IN), "input"), _IN)
        answered = _state(draft.get(_OUT), "output")
        draft.put("result.output", None if answered == {} else answered)
        draft.use(_OUT)


def _state(value: Any, member: str) -> Any:
    """Return what went into or came out of a chain, with messages in one form."""
    value = decoded(value)
    if type(value) is dict and value.keys() == {member}:
        value = value[member]
    return messages.state(value) or value


FAMILY = Family("LangSmith", lambda span: KIND in span.attributes, _kind, _ROWS, _rest)
