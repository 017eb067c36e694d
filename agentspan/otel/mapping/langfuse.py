"""Langfuse's attributes (`@observe`, `langfuse.openai`)."""

from datetime import datetime
from typing import Any

from agentspan.otel.mapping import bodies, messages
from agentspan.otel.mapping.draft import Draft, Family, Row, row
from agentspan.otel.mapping.values import decoded, members, number, parsed, text
from agentspan.otel.span import OtelSpan

_O = "langfuse.observation."
KIND = _O + "type"
_IN, _OUT = _O + "input", _O + "output"
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


_MODEL = (
    row("payload.model", _O + "model.name", read=text),
    row("result.cost_usd", _O + "cost_details", read=_cost),
)
_ROWS: dict[str, tuple[Row, ...]] = {
    "*": (
        row("run.agent", "langfuse.trace.name", read=text),
        row("run.version", "langfuse.version", read=text),
        row("run.session", "session.id", "langfuse.session.id", read=text),
        row("run.user", "user.id", "langfuse.user.id", read=text),
    ),
    "llm": (
        row("payload.model", _O + "model.name", read=text),
        row("result.cost_usd", _O + "cost_details", read=_cost),
    ),
    "embedding": (
        row("payload.model", _O + "model.name", read=text),
        row("result.cost_usd", _O + "cost_details", read=_cost),
    ),
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


def _renamed(used: dict[str, Any]) -> dict[str, Any]:
    """Return the counts that Langfuse calls `input` and `output` by the names of the providers."""
    names = {"input": "input_tokens", "output": "output_tokens", "input_cached_tokens": "cache_read_input_tokens"}
    return {names[key]: value for key, value in used.items() if key in names}


FAMILY = Family("Langfuse", lambda span: KIND in span.attributes, _kind, _ROWS, _rest)
