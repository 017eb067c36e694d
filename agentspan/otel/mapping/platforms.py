"""Maps the attributes of the platforms MLflow, Langfuse and LangSmith.

Each value of MLflow is JSON, also a text: `"CHAT_MODEL"` with its quotes. Langfuse's come from `@observe` and
`langfuse.openai`. LangSmith's come with `LANGSMITH_OTEL_ENABLED`; its `gen_ai.operation.name` is not that of the span,
so it is ignored.
"""

from collections import Counter
from datetime import datetime
from typing import Any

from agentspan.otel.mapping import messages
from agentspan.otel.mapping.draft import KINDS, Draft, Family, Row, decoded, members, number, parsed, row, text, whole
from agentspan.otel.mapping.genai import unwrap
from agentspan.otel.span import OtelSpan

MLFLOW_KIND = "mlflow.spanType"
_MLFLOW_IN, _MLFLOW_OUT = "mlflow.spanInputs", "mlflow.spanOutputs"


def _mlflow_text(value: object) -> str | None:
    return text(decoded(value))


_MLFLOW_MODEL = row("result.response_model", "mlflow.llm.model", read=_mlflow_text)
_MLFLOW_ROWS: dict[str, tuple[Row, ...]] = {
    "*": (
        row("run.session", "mlflow.trace.session", "session.id", read=_mlflow_text),
        row("run.user", "mlflow.trace.user", "user.id", read=_mlflow_text),
    ),
    "llm": (
        _MLFLOW_MODEL,
        row("payload.provider", "mlflow.llm.provider", "mlflow.message.format", read=_mlflow_text),
        row("payload.tools", "mlflow.chat.tools", read=decoded),
        row("result.cost_usd", "mlflow.llm.cost", read=lambda value: number((members(value) or {}).get("total_cost"))),
    ),
    "tool": (row("payload.name", "mlflow.spanFunctionName", read=_mlflow_text),),
    "embedding": (row("payload.model", "mlflow.llm.model", read=_mlflow_text),),
}


def _mlflow_kind(span: OtelSpan) -> str | None:
    kind = decoded(span.attributes.get(MLFLOW_KIND))
    return {**KINDS, "unknown": "chain"}.get(kind.lower(), "custom") if type(kind) is str else None


def _mlflow_rest(draft: Draft) -> None:
    draft.use(MLFLOW_KIND)
    if draft.type == "llm":
        if (used := members(draft.get("mlflow.chat.tokenUsage"))) is not None:
            messages.usage(draft, used)
            draft.use("mlflow.chat.tokenUsage")
        messages.request(draft, _MLFLOW_IN)
        messages.answer(draft, _MLFLOW_OUT)
        draft.put("payload.model", draft.result.get("response_model"))
    elif draft.type == "retrieval":
        asked, found = members(draft.get(_MLFLOW_IN)) or {}, decoded(draft.get(_MLFLOW_OUT))
        draft.put("payload.query", next((value for value in asked.values() if type(value) is str), None), _MLFLOW_IN)
        if type(found) is list:
            draft.put_documents(found, _MLFLOW_OUT)
    else:
        draft.put_contents(_MLFLOW_IN, _MLFLOW_OUT, decoded)


def is_chunk(event_name: str) -> bool:
    """Return whether an event with this name is MLflow's event for a part of a stream."""
    return event_name.startswith("mlflow.chunk.item.")


MLFLOW = Family("MLflow", lambda span: MLFLOW_KIND in span.attributes, _mlflow_kind, _MLFLOW_ROWS, _mlflow_rest)


_LANGFUSE_O = "langfuse.observation."
LANGFUSE_KIND = _LANGFUSE_O + "type"
_LANGFUSE_META = _LANGFUSE_O + "metadata."
_LANGFUSE_IN, _LANGFUSE_OUT = _LANGFUSE_O + "input", _LANGFUSE_O + "output"
_LANGFUSE_WRAPPED = {"OpenAI-generation": "openai"}
"""The providers of the clients that Langfuse wraps, by the names of the spans."""
_LANGFUSE_COUNTS = {
    "input": ("input_tokens",),
    "output": ("output_tokens",),
    "input_cached_tokens": ("cache_read_input_tokens",),
    "input_cache_read": ("cache_read_input_tokens", "input_tokens"),
    "input_cache_creation": ("cache_creation_input_tokens", "input_tokens"),
    "input_audio": ("input_tokens",),
    "output_audio": ("output_tokens",),
    "output_reasoning": ("reasoningTokens", "output_tokens"),
}
"""The providers' counts to which each count of Langfuse is added.

`input_cache_read` counts as input, too, because LangChain's callback excludes it from `input`.
"""
_LANGFUSE_KINDS = {**KINDS, "span": "chain", "event": "custom"}


def _langfuse_cost(value: Any) -> int | float | None:
    costs = members(value) or {}
    known = [found for key, item in costs.items() if key != "total" and (found := number(item)) is not None]
    return number(costs.get("total")) if "total" in costs else sum(known) if known else None


def _langfuse_text(value: Any) -> str | None:
    return text(parsed(value))


_LANGFUSE_MODEL = (
    row("payload.model", _LANGFUSE_O + "model.name", read=text),
    row("payload.provider", _LANGFUSE_META + "ls_provider", _LANGFUSE_META + "provider", read=_langfuse_text),
    row("result.finish_reason", _LANGFUSE_META + "finish_reason", _LANGFUSE_META + "stop_reason", read=_langfuse_text),
    row("result.cost_usd", _LANGFUSE_O + "cost_details", read=_langfuse_cost),
)
_LANGFUSE_ROWS: dict[str, tuple[Row, ...]] = {
    "*": (
        row("run.agent", "langfuse.trace.name", read=text),
        row("run.version", "langfuse.version", read=text),
        row("run.session", "session.id", "langfuse.session.id", read=text),
        row("run.user", "user.id", "langfuse.user.id", read=text),
    ),
    "llm": _LANGFUSE_MODEL,
    "embedding": _LANGFUSE_MODEL,
}


def _langfuse_kind(span: OtelSpan) -> str | None:
    kind = span.attributes.get(LANGFUSE_KIND)
    return _LANGFUSE_KINDS.get(kind.lower()) if type(kind) is str else None


def _langfuse_rest(draft: Draft) -> None:
    draft.use(LANGFUSE_KIND)
    if draft.get(_LANGFUSE_O + "level") == "ERROR":
        draft.is_failed = True
    if draft.type in ("llm", "embedding"):
        asked = members(draft.get(_LANGFUSE_O + "model.parameters")) or {}
        draft.leave(_LANGFUSE_O + "model.parameters", messages.parameters(draft, asked))
        if (used := members(draft.get(_LANGFUSE_O + "usage_details"))) is not None:
            messages.usage(draft, {**used, **_langfuse_renamed(used)})
        began = decoded(decoded(draft.get(_LANGFUSE_O + "completion_start_time")))
        if type(began) is str:
            draft.put("payload.completion_start_time", began, _LANGFUSE_O + "completion_start_time")
            draft.put("result.time_to_first_token_ms", _langfuse_after_ms(began, draft.span.start_ns))
    if draft.type == "llm":
        draft.put("payload.provider", _LANGFUSE_WRAPPED.get(draft.span.name))
        messages.request(draft, _LANGFUSE_IN)
        if "messages" not in draft.payload:
            draft.put("payload.messages", messages.messages(draft.get(_LANGFUSE_IN)) or None, _LANGFUSE_IN)
        messages.answer(draft, _LANGFUSE_OUT)
    elif draft.type == "retrieval":
        asked_for = parsed(draft.get(_LANGFUSE_IN))
        query = asked_for.get("query") if type(asked_for) is dict else asked_for
        draft.put("payload.query", text(query), *([_LANGFUSE_IN] if query is asked_for else []))
        if type(found := parsed(draft.get(_LANGFUSE_OUT))) is list:
            draft.put_documents(found, _LANGFUSE_OUT)
    else:
        draft.put_contents(_LANGFUSE_IN, _LANGFUSE_OUT, parsed)


def _langfuse_after_ms(time: str, start_ns: int) -> float | None:
    """Return the milliseconds from a span's start to an ISO 8601 time; None if the time is earlier or invalid."""
    try:
        found = datetime.fromisoformat(time)
        elapsed = found.timestamp() * 1000 - start_ns / 1_000_000
    except (OverflowError, ValueError):
        return None
    return round(elapsed, 3) if found.tzinfo is not None and elapsed >= 0 else None


def _langfuse_renamed(used: dict[str, Any]) -> dict[str, int]:
    """Return Langfuse's token counts under the providers' names, added up by `_LANGFUSE_COUNTS`.

    Without Langfuse's count `input` or `output`, that side has no sum: the provider's own count is complete.
    """
    found: Counter[str] = Counter()
    for key in _LANGFUSE_COUNTS.keys() & used:
        found.update(dict.fromkeys(_LANGFUSE_COUNTS[key], whole(used[key]) or 0))
    for side in ("input", "output"):
        if side not in used:  # without Langfuse's name, the provider's own count is in `used` and complete
            found.pop(f"{side}_tokens", None)
    return found


LANGFUSE = Family(
    "Langfuse", lambda span: LANGFUSE_KIND in span.attributes, _langfuse_kind, _LANGFUSE_ROWS, _langfuse_rest
)


LANGSMITH_KIND = "langsmith.span.kind"
_LANGSMITH_IN, _LANGSMITH_OUT = "gen_ai.prompt", "gen_ai.completion"
_LANGSMITH_METADATA = "langsmith.metadata."
_LANGSMITH_AGENT = _LANGSMITH_METADATA + "lc_agent_name"
_LANGSMITH_ROWS: dict[str, tuple[Row, ...]] = {
    "*": (
        row(
            "run.session",
            _LANGSMITH_METADATA + "session_id",
            _LANGSMITH_METADATA + "thread_id",
            _LANGSMITH_METADATA + "conversation_id",
            read=text,
        ),
        row("run.user", _LANGSMITH_METADATA + "user_id", _LANGSMITH_METADATA + "user", read=text),
    ),
    "llm": (
        row("payload.model", "gen_ai.request.model", _LANGSMITH_METADATA + "ls_model_name", read=text),
        row("payload.provider", _LANGSMITH_METADATA + "ls_provider", "gen_ai.system", read=text),
        row("payload.temperature", _LANGSMITH_METADATA + "ls_temperature", "gen_ai.request.temperature", read=number),
        row("payload.max_tokens", _LANGSMITH_METADATA + "ls_max_tokens", "gen_ai.request.max_tokens", read=whole),
        row("payload.tools", "gen_ai.tool.definitions", read=messages.tools),
        row("result.input_tokens", "gen_ai.usage.input_tokens", read=whole),
        row("result.output_tokens", "gen_ai.usage.output_tokens", read=whole),
    ),
    "tool": (
        row("payload.name", "gen_ai.tool.name", "langsmith.trace.name", read=text),
        row("payload.call_id", "gen_ai.tool.call.id", read=text),
    ),
    "agent": (
        row("payload.name", _LANGSMITH_AGENT, read=text),
        row("payload.conversation_id", _LANGSMITH_METADATA + "thread_id", read=text),
    ),
    "chain": (row("payload.name", "langsmith.trace.name", read=text),),
    "retrieval": (row("payload.source", _LANGSMITH_METADATA + "ls_retriever_name", read=text),),
}


def _langsmith_kind(span: OtelSpan) -> str | None:
    kind = span.attributes.get(LANGSMITH_KIND)
    found = KINDS.get(kind) if type(kind) is str else None
    return "agent" if found == "chain" and span.attributes.get(_LANGSMITH_AGENT) == span.name else found


def _langsmith_rest(draft: Draft) -> None:
    draft.use(LANGSMITH_KIND, "gen_ai.operation.name")
    if draft.span.exceptions:
        draft.is_failed = True  # LangSmith gives a failed call of a model the status OK
    if draft.type == "llm":
        used = members(draft.get(_LANGSMITH_METADATA + "usage_metadata"))
        if used is not None:
            messages.usage(draft, used)
        messages.request(draft, _LANGSMITH_IN)
        messages.answer(draft, _LANGSMITH_OUT)
    elif draft.type == "tool":
        draft.put("payload.arguments", decoded(draft.get(_LANGSMITH_IN)), _LANGSMITH_IN)
        result = decoded(draft.get(_LANGSMITH_OUT))
        if result != {}:
            draft.put("result.output", unwrap(result))
        draft.use(*([_LANGSMITH_OUT] if result == {} else []))
    elif draft.type == "retrieval":
        asked, answered = members(draft.get(_LANGSMITH_IN)), members(draft.get(_LANGSMITH_OUT))
        draft.put("payload.query", text((asked or {}).get("query")), _LANGSMITH_IN)
        if answered is not None and type(answered.get("documents")) is list:
            draft.put_documents(answered["documents"], _LANGSMITH_OUT)
    else:
        draft.put("payload.input", _langsmith_state(draft.get(_LANGSMITH_IN), "input"), _LANGSMITH_IN)
        answered = _langsmith_state(draft.get(_LANGSMITH_OUT), "output")
        draft.put("result.output", None if answered == {} else answered)
        draft.use(_LANGSMITH_OUT)


def _langsmith_state(value: Any, member: str) -> Any:
    """Return the input or output of a chain without LangSmith's wrapper, and with converted messages."""
    value = decoded(value)
    if type(value) is dict and value.keys() == {member}:
        value = value[member]
    return messages.state(value) or value


LANGSMITH = Family(
    "LangSmith", lambda span: LANGSMITH_KIND in span.attributes, _langsmith_kind, _LANGSMITH_ROWS, _langsmith_rest
)
