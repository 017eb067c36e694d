"""LiteLLM's own attributes (`litellm.callbacks = ["otel"]`).

They stand on a span of LiteLLM, or, where there is one, on the span of the program around the call: of its last call
only. Such a span stays what it is, with these as its attributes; the call is its child `raw_gen_ai_request`.
"""

from agentspan.otel.mapping import bodies
from agentspan.otel.mapping.draft import Draft, Family, Row, row
from agentspan.otel.mapping.values import literal, members, number, text
from agentspan.otel.span import OtelSpan

SCOPE = "litellm"
_ID, _RAW = "litellm.call_id", "raw_gen_ai_request"
_ROWS: dict[str, tuple[Row, ...]] = {
    "*": (row("run.session", "metadata.session_id", read=text), row("run.user", "llm.user", "user.id", read=text)),
    "llm": (row("result.cost_usd", "gen_ai.cost.total_cost", read=number),),
}


def _holds(span: OtelSpan) -> bool:
    return span.scope.name == SCOPE or _ID in span.attributes


def is_users(span: OtelSpan) -> bool:
    """Return whether a span is one of the program on which LiteLLM wrote the attributes of a call."""
    return span.scope.name != SCOPE and _ID in span.attributes and span.name not in (_RAW, "litellm_request")


def _kind(span: OtelSpan) -> str | None:
    if is_users(span):
        return "custom"
    return "llm" if span.name in (_RAW, "litellm_request") else None


def _rest(draft: Draft) -> None:
    if draft.type != "llm":
        return
    if draft.span.name == _RAW:
        _raw(draft)
    tools = []
    for number_ in range(128):
        start = f"llm.request.functions.{number_}."
        if (name := text(draft.get(start + "name"))) is None:
            break
        described = {"name": name, "description": draft.get(start + "description")}
        tools.append({**described, "parameters": members(draft.get(start + "parameters"))})
        draft.use_all(start)
    draft.put("payload.tools", tools or None)


def _raw(draft: Draft) -> None:
    """Read a provider's request and answer, each member of which is an attribute in Python's notation."""
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
            bodies.request_of(draft, name, value)
        elif member in ("choices", "content"):
            bodies.answer_of(draft, name, {member: value})
        elif member == "usage" and type(value) is dict:
            bodies.usage(draft, value)
            draft.use(name)
        elif member == "id":
            draft.put("result.response_id", text(value), name)


FAMILY = Family("LiteLLM", _holds, _kind, _ROWS, _rest)
