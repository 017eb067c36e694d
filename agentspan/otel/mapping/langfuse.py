"""Langfuse's attributes (`@observe`, `langfuse.openai`)."""

from collections import Counter
from datetime import datetime
from typing import Any

from agentspan.otel.mapping import bodies, messages
from agentspan.otel.mapping.draft import Draft, Family, Row, row
from agentspan.otel.mapping.values import decoded, members, number, parsed, text, whole
from agentspan.otel.span import OtelSpan

_O = "langfuse.observation."
KIND = _O + "type"
_META = _O + "metadata."
_IN, _OUT = _O + "input", _O + "output"
_WRAPPED = {"OpenAI-generation": "openai"}
"""The providers of clients that Langfuse wraps, by the names of their spans."""
_COUNTS = {
    "input": ("input_tokens",),
    "output": ("output_tokens",),
    "input_cached_tokens": ("cache_read_input_tokens",),
    "input_cache_read": ("cache_read_input_tokens", "input_tokens"),
    "input_cache_creation": ("cache_creation_input_tokens", "input_tokens"),
    "input_audio": ("input_tokens",),
    "output_audio": ("output_tokens",),
    "output_reasoning": ("reasoningTokens", "output_tokens"),
}
"""The counts of providers that each of Langfuse's is added to. LangChain's callback leaves parts out of `input`."""
_KINDS = {
    "agent": "agent",
    "chain": "chain",
    "span": "chain",
    "generation": "llm",
    "tool": "tool",
    "retriever": "retrieval",
    "embedding": "embedding",
    "guardrail": "guardrail",
    "evaluator": "evaluation",
    "event": "custom",
}


def _cost(value: Any) -> int | float | None:
    costs = members(value) or {}
    known = [found for key, item in costs.items() if key != "total" and (found := number(item)) is not None]
    return number(costs.get("total")) if "total" in costs else sum(known) if known else None


def _said(value: Any) -> str | None:
    return text(parsed(value))


_MODEL = (
    row("payload.model", _O + "model.name", read=text),
    row("payload.provider", _META + "ls_provider", _META + "provider", read=_said),
    row("result.finish_reason", _META + "finish_reason", _META + "stop_reason", read=_said),
    row("result.cost_usd", _O + "cost_details", read=_cost),
)
_ROWS: dict[str, tuple[Row, ...]] = {
    "*": (
        row("run.agent", "langfuse.trace.name", read=text),
        row("run.version", "langfuse.version", read=text),
        row("run.session", "session.id", "langfuse.session.id", read=text),
        row("run.user", "user.id", "langfuse.user.id", read=text),
    ),
    "llm": _MODEL,
    "embedding": _MODEL,
}


def _kind(span: OtelSpan) -> str | None:
    kind = span.attributes.get(KIND)
    return _KINDS.get(kind.lower()) if type(kind) is str else None


def _rest(draft: Draft) -> None:
    draft.use(KIND)
    if draft.get(_O + "level") == "ERROR":
        draft.is_failed = True
    if draft.type in ("llm", "embedding"):
        asked = members(draft.get(_O + "model.parameters")) or {}
        draft.leave(_O + "model.parameters", bodies.parameters(draft, asked))
        if (used := members(draft.get(_O + "usage_details"))) is not None:
            bodies.usage(draft, {**used, **_renamed(used)})
        began = decoded(decoded(draft.get(_O + "completion_start_time")))
        if type(began) is str:
            draft.put("payload.completion_start_time", began, _O + "completion_start_time")
            draft.put("result.time_to_first_token_ms", _after_ms(began, draft.span.start_ns))
    if draft.type == "llm":
        draft.put("payload.provider", _WRAPPED.get(draft.span.name))
        bodies.request(draft, _IN)
        if "messages" not in draft.payload:
            draft.put("payload.messages", messages.messages(draft.get(_IN)) or None, _IN)
        bodies.answer(draft, _OUT)
    elif draft.type == "tool":
        draft.put("payload.arguments", parsed(draft.get(_IN)), _IN)
        draft.put("result.output", parsed(draft.get(_OUT)), _OUT)
    elif draft.type == "retrieval":
        asked_for = parsed(draft.get(_IN))
        query = asked_for.get("query") if type(asked_for) is dict else asked_for
        draft.put("payload.query", text(query), *([_IN] if query is asked_for else []))
        if type(found := parsed(draft.get(_OUT))) is list:
            draft.put("result.documents", found, _OUT)
            draft.put("result.count", len(found))
    else:
        draft.put("payload.input", parsed(draft.get(_IN)), _IN)
        draft.put("result.output", parsed(draft.get(_OUT)), _OUT)


def _after_ms(time: str, start_ns: int) -> float | None:
    """Return the milliseconds from the start of a span to a time in ISO 8601; None for one before it, or no time."""
    try:
        found = datetime.fromisoformat(time)
        elapsed = found.timestamp() * 1000 - start_ns / 1_000_000
    except (OverflowError, ValueError):
        return None
    return round(elapsed, 3) if found.tzinfo is not None and elapsed >= 0 else None


def _renamed(used: dict[str, Any]) -> dict[str, int]:
    """Return the counts that have names of Langfuse's own by those of the providers."""
    found: Counter[str] = Counter()
    for key in _COUNTS.keys() & used:
        found.update(dict.fromkeys(_COUNTS[key], whole(used[key]) or 0))
    for side in ("input", "output"):
        if side not in used:  # then the providers' name says all of them
            found.pop(f"{side}_tokens", None)
    return found


FAMILY = Family("Langfuse", lambda span: KIND in span.attributes, _kind, _ROWS, _rest)
