"""MLflow's attributes. Each value is JSON, texts too: `"CHAT_MODEL"` with its quotes."""

from agentspan.otel.mapping import bodies
from agentspan.otel.mapping.draft import Draft, Family, Row, row
from agentspan.otel.mapping.values import decoded, members, number, text
from agentspan.otel.span import OtelSpan

KIND = "mlflow.spanType"
_IN, _OUT = "mlflow.spanInputs", "mlflow.spanOutputs"
_KINDS = {
    "AGENT": "agent",
    "CHAIN": "chain",
    "PARSER": "chain",
    "WORKFLOW": "chain",
    "UNKNOWN": "chain",
    "CHAT_MODEL": "llm",
    "LLM": "llm",
    "TOOL": "tool",
    "RETRIEVER": "retrieval",
    "EMBEDDING": "embedding",
    "RERANKER": "rerank",
    "EVALUATOR": "evaluation",
    "GUARDRAIL": "guardrail",
    "MEMORY": "custom",
}


def _text(value: object) -> str | None:
    return text(decoded(value))


_MODEL = row("result.response_model", "mlflow.llm.model", read=_text)
_ROWS: dict[str, tuple[Row, ...]] = {
    "*": (
        row("run.session", "mlflow.trace.session", "session.id", read=_text),
        row("run.user", "mlflow.trace.user", "user.id", read=_text),
    ),
    "llm": (
        _MODEL,
        row("payload.provider", "mlflow.llm.provider", "mlflow.message.format", read=_text),
        row("payload.tools", "mlflow.chat.tools", read=decoded),
        row("result.cost_usd", "mlflow.llm.cost", read=lambda value: number((members(value) or {}).get("total_cost"))),
    ),
    "tool": (row("payload.name", "mlflow.spanFunctionName", read=_text),),
    "embedding": (row("payload.model", "mlflow.llm.model", read=_text),),
}


def _kind(span: OtelSpan) -> str | None:
    kind = decoded(span.attributes.get(KIND))
    return _KINDS.get(kind.upper(), "custom") if type(kind) is str else None


def _rest(draft: Draft) -> None:
    draft.use(KIND)
    if draft.type == "llm":
        if (used := members(draft.get("mlflow.chat.tokenUsage"))) is not None:
            bodies.usage(draft, used)
            draft.use("mlflow.chat.tokenUsage")
        bodies.request(draft, _IN)
        bodies.answer(draft, _OUT)
        draft.put("payload.model", draft.result.get("response_model"))
    elif draft.type == "tool":
        draft.put("payload.arguments", decoded(draft.get(_IN)), _IN)
        draft.put("result.output", decoded(draft.get(_OUT)), _OUT)
    elif draft.type == "retrieval":
        asked, found = members(draft.get(_IN)) or {}, decoded(draft.get(_OUT))
        draft.put("payload.query", next((value for value in asked.values() if type(value) is str), None), _IN)
        if type(found) is list:
            draft.put("result.documents", found, _OUT)
            draft.put("result.count", len(found))
    else:
        draft.put("payload.input", decoded(draft.get(_IN)), _IN)
        draft.put("result.output", decoded(draft.get(_OUT)), _OUT)


def is_chunk(event_name: str) -> bool:
    """Return whether an event is a part of a stream."""
    return event_name.startswith("mlflow.chunk.item.")


FAMILY = Family("MLflow", lambda span: KIND in span.attributes, _kind, _ROWS, _rest)
