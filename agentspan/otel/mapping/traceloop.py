"""Maps Traceloop's attributes (OpenLLMetry), which add to the GenAI conventions. Texts may have LangChain's objects."""

import re
from typing import Any

from agentspan.otel.mapping import messages
from agentspan.otel.mapping.draft import Draft, Family, Row, decoded, literal, members, parsed, row, text
from agentspan.otel.mapping.genai import KINDS as OPERATIONS
from agentspan.otel.mapping.genai import OPERATION, returned
from agentspan.otel.span import OtelSpan

KIND = "traceloop.span.kind"
_IN, _OUT = "traceloop.entity.input", "traceloop.entity.output"
_TASK_IN, _TASK_OUT = "gen_ai.task.input", "gen_ai.task.output"
_NAMES = frozenset({_IN, "traceloop.workflow.name", "traceloop.entity.name", "traceloop.entity.path"})
_ASSOCIATED = "traceloop.association.properties."
_SCOPE = "opentelemetry.instrumentation."
_INSTRUMENTORS = (
    *("openai.v1", "openai.v0", "anthropic", "bedrock", "cohere", "crewai", "google_generativeai", "groq"),
    *("haystack", "langchain", "llamaindex", "mcp", "mistralai", "ollama", "openai_agents", "replicate"),
    *("together", "transformers", "vertexai", "watsonx", "agno", "sagemaker"),
)
_LLAMA_INDEX = _SCOPE + "llamaindex"
_NAMED_AGENT = "agent.name"
_TOOL, _RETRIEVER = re.compile(r"\w*Tool\.(task|workflow)$"), re.compile(r"\w*Retriever\.(task|workflow)$")
_QUERY, _INNER_QUERY = "str_or_query_bundle", "query_bundle"
"""The members with the query in the input of LlamaIndex's retriever span, and in that of the span inside it.

The inner span repeats the outer span, so it is no retrieval.
"""
_TEXTS = ("text", "texts", "query", "queries")
"""The members with the texts in the input of LlamaIndex's embeddings."""
_SCOPES = frozenset(_SCOPE + name for name in _INSTRUMENTORS)
_KINDS = {"workflow": "chain", "task": "chain", "agent": "agent", "tool": "tool", "handoff": "handoff"}
_OPERATIONS = {
    "create_agent": "custom",  # an empty span beside the span of the agent
    "execute_task": "chain",
    "vector_db_retrieve": "retrieval",
    "handoff": "handoff",
}
_ROWS: dict[str, tuple[Row, ...]] = {
    "*": (
        row("run.agent", "traceloop.workflow.name", read=text),
        row("run.session", _ASSOCIATED + "session_id", _ASSOCIATED + "thread_id", read=text),
        row("run.user", _ASSOCIATED + "user_id", _ASSOCIATED + "user", read=text),
    ),
    "agent": (row("payload.name", _NAMED_AGENT, "gen_ai.agent.name", "traceloop.entity.name", read=text),),
    "chain": (
        row("payload.name", "gen_ai.task.name", "traceloop.entity.name", "traceloop.workflow.name", read=text),
        row("payload.conversation_id", "gen_ai.conversation.id", read=text),
    ),
    "tool": (row("payload.name", "gen_ai.tool.name", "traceloop.entity.name", "tool.name", read=text),),
    "llm": (row("payload.stream", "gen_ai.is_streaming", read=lambda value: value if type(value) is bool else None),),
}


def _holds(span: OtelSpan) -> bool:
    return KIND in span.attributes or span.scope.name in _SCOPES or not _NAMES.isdisjoint(span.attributes)


def _kind(span: OtelSpan) -> str | None:
    operation, kind = span.attributes.get(OPERATION), span.attributes.get(KIND)
    if span.scope.name == _LLAMA_INDEX and (own_kind := _llama_index_kind(span)) is not None:
        return own_kind
    found = _OPERATIONS.get(operation) if type(operation) is str else None
    if found is None and type(kind) is str:
        found = _KINDS.get(kind)
    return found or (OPERATIONS.get(operation) if type(operation) is str else None)


def _llama_index_kind(span: OtelSpan) -> str | None:
    """Return the type of a LlamaIndex span. Traceloop marks all of them as a task or a workflow."""
    operation, asked = span.attributes.get(OPERATION), _asked(span)
    if type(operation) is str and operation in OPERATIONS:
        return OPERATIONS[operation]
    if _NAMED_AGENT in span.attributes:
        return "agent"
    if _TOOL.match(span.name):
        return "tool"
    if type(asked.get("prompt")) is str:
        return "llm"  # a completion, which gets no operation name
    return "retrieval" if _RETRIEVER.match(span.name) and _INNER_QUERY not in asked else None


def _asked(span: OtelSpan) -> dict[str, Any]:
    return members(span.attributes.get(_IN)) or {}


def _rest(draft: Draft) -> None:
    draft.use(KIND)
    for name, twin in ((_TASK_IN, _IN), (_TASK_OUT, _OUT), ("gen_ai.tool.call.arguments", _IN)):
        if draft.get(name) == draft.get(twin):
            draft.use(name)  # Traceloop writes the same text to two attributes
    if draft.get("gen_ai.tool.call.result") == draft.get(_OUT):
        draft.use("gen_ai.tool.call.result")
    if draft.type == "llm":
        _llm(draft)
    elif draft.type == "tool":
        _tool(draft)
    elif draft.type == "retrieval":
        _retrieval(draft)
    elif draft.type == "embedding":
        _embedding(draft)
    elif draft.type == "handoff":
        to_agent = draft.span.name.rpartition("→")[2].strip().removesuffix(".handoff")
        draft.put("payload.to_agent", to_agent or None)  # traces.with_targets finds the agent of an unknown target
    elif draft.type in ("agent", "chain"):
        _inner(draft, "payload.input", _IN, "inputs")
        _inner(draft, "result.output", _OUT, "outputs")


def _inner(draft: Draft, place: str, name: str, member: str) -> None:
    """Set a field from the member `inputs` or `outputs` of LangChain's callback; other members stay an attribute.

    A value without this member becomes the field as a whole.
    """
    value = decoded(draft.get(name))
    if type(value) is dict and member in value:
        draft.put(place, messages.state(value[member]) or value[member])
        draft.leave(name, {key: item for key, item in value.items() if key != member})
    else:
        draft.put(place, value, name)


def _tool(draft: Draft) -> None:
    asked = members(draft.get(_IN)) or members(draft.get("tool.arguments"))
    if draft.span.scope.name == _LLAMA_INDEX:
        _llama_index_tool(draft, asked or {})
        return
    if asked is not None and "input_str" in asked:
        draft.put("payload.arguments", literal(asked["input_str"]))
        draft.leave(_IN, {key: value for key, value in asked.items() if key != "input_str"})
    elif asked is not None:
        draft.put("payload.arguments", asked, _IN, "tool.arguments")
    result = returned(draft, _OUT)
    wrapped = result.get("output") if type(result) is dict else None
    kwargs = wrapped.get("kwargs") if type(wrapped) is dict else None
    if type(kwargs) is dict:
        draft.put("payload.call_id", text(kwargs.get("tool_call_id")))


def _llama_index_tool(draft: Draft, asked: dict[str, Any]) -> None:
    """Set the fields of a tool call of LlamaIndex. Only the tool's output has the name of the tool."""
    if type(asked.get("kwargs")) is dict:
        draft.put("payload.arguments", asked["kwargs"])
        draft.leave(_IN, {key: value for key, value in asked.items() if key != "kwargs"})
    returned = members(draft.get(_OUT)) or {}
    if (name := text(returned.get("tool_name"))) is not None:
        draft.payload["name"] = name
    draft.put("result.output", returned.get("raw_output"))
    if returned.get("is_error") is True:
        draft.is_failed = True


def _embedding(draft: Draft) -> None:
    asked, made = members(draft.get(_IN)) or {}, parsed(draft.get(_OUT))
    texts = next((asked[name] for name in _TEXTS if name in asked), None)
    if texts is not None:
        draft.put("payload.input", texts)
        draft.put("payload.input_count", len(texts) if type(texts) is list else 1)
        draft.leave(_IN, {key: value for key, value in asked.items() if key not in _TEXTS})
    first = made[0] if type(made) is list and made and type(made[0]) is list else made
    if type(first) is list:
        draft.put("result.dimensions", len(first))


def _retrieval(draft: Draft) -> None:
    asked, answered = members(draft.get(_IN)), parsed(draft.get(_OUT))
    if asked is not None:
        bundle = asked.get(_QUERY)
        query = members(bundle) or {"query_str": bundle}
        draft.put("payload.query", text(asked.get("query")) or text(query.get("query_str")))
        draft.leave(_IN, {key: value for key, value in asked.items() if key not in ("query", _QUERY)})
    if type(answered) is list:  # LlamaIndex writes a list of nodes
        answered = {"documents": [_document(parsed(each)) for each in answered]}
    if type(answered) is dict and type(answered.get("documents")) is list:
        draft.put_documents(answered["documents"])
        draft.leave(_OUT, {key: value for key, value in answered.items() if key not in ("documents", "count")})
    source = text(draft.get("traceloop.entity.name")) or ""
    draft.put("payload.source", source.removesuffix(".task").removesuffix(".workflow") or None, "traceloop.entity.name")


def _document(found: Any) -> Any:
    """Return a document from a node of LlamaIndex; another value unchanged."""
    node = found.get("node") if type(found) is dict else None
    if type(node) is not dict:
        return found
    about = {"id": node.get("id_"), "content": node.get("text"), "metadata": node.get("metadata")}
    return {key: value for key, value in {**about, "score": found.get("score")}.items() if value not in (None, {})}


def _llm(draft: Draft) -> None:
    draft.first_event(*CHUNKS)
    if draft.span.scope.name == _LLAMA_INDEX:
        _llama_index_call(draft)


def _llama_index_call(draft: Draft) -> None:
    """Set the fields of a model call of LlamaIndex that the GenAI attributes lack.

    A completion has them in its input and output only. A chat repeats its messages there.
    """
    asked, answered = _asked(draft.span), members(draft.get(_OUT)) or {}
    if (prompt := text(asked.get("prompt"))) is not None:
        draft.put("payload.messages", [{"role": "user", "content": prompt}])
        draft.leave(_IN, {key: value for key, value in asked.items() if key != "prompt"})
        messages.answer_of(draft, _OUT, members(answered.get("raw")))
        messages.output(draft, text(answered.get("text")))
        messages.usage(draft, members(answered.get("additional_kwargs")) or {})
    elif "messages" in asked:  # the input repeats the messages of the GenAI attributes
        rest = {key: value for key, value in asked.items() if key not in ("messages", "kwargs")}
        draft.leave(_IN, {**rest, **messages.parameters(draft, members(asked.get("kwargs")) or {})})
        mapped = ("message", "raw", "additional_kwargs")
        draft.leave(_OUT, {key: value for key, value in answered.items() if key not in mapped and value is not None})


CHUNKS = frozenset({"gen_ai.content.completion.chunk", "llm.content.completion.chunk"})
"""The events for the parts of a stream. Only the time of the first event is used."""

FAMILY = Family("Traceloop", _holds, _kind, _ROWS, _rest)
