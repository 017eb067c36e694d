"""Maps OpenInference's attributes: flat names, `llm.input_messages.0.message.role`, and whole inputs and outputs."""

import re
from typing import Any

from agentspan.otel.mapping import messages
from agentspan.otel.mapping.draft import KINDS, Draft, Family, Row, members, number, parsed, row, text, whole
from agentspan.otel.mapping.genai import returned
from agentspan.otel.span import OtelSpan
from agentspan.schemas.builtin import OWN_TOKENS

KIND = "openinference.span.kind"
IN, OUT = "input.value", "output.value"
_IN_MESSAGES, _OUT_MESSAGES = "llm.input_messages.", "llm.output_messages."
_FIRST_TOKEN = "First Token Stream Event"
_HANDOFF = "handoff to "
_LLAMA_INDEX = "openinference.instrumentation.llama_index"
_PREPARES = "._prepare_chat_with_tools"
"""The end of the name of a LlamaIndex span that is marked as a model call, but only prepares a call's arguments."""
_HALF = re.compile(r"\._a?(get_|retrieve)")
"""Part of the name of a LlamaIndex span of a private method, in which the span of the public one is a second time."""
_WITHOUT_CALLS = frozenset({"openinference.instrumentation.claude_agent_sdk"})
"""The instrumentors of agents whose model calls run in another program: only the spans of agents have the tokens."""
_HIDES_FAILURES = "openinference.instrumentation.smolagents"
"""The instrumentor that sets the status OK on an agent's span although a streamed run failed."""
_CALLED_WITH = frozenset({"kwargs", "args", "sanitize_inputs_outputs"})
"""The members of a tool's input if the input describes the call of the tool's function."""


def _in_metadata(value: Any, *names: str) -> str | None:
    metadata = members(value) or {}
    return next((found for name in names if (found := text(metadata.get(name))) is not None), None)


_TOKENS = (
    row("result.input_tokens", "llm.token_count.prompt", read=whole),
    row("result.output_tokens", "llm.token_count.completion", read=whole),
    row("result.cached_tokens", "llm.token_count.prompt_details.cache_read", read=whole),
    row("result.cache_write_tokens", "llm.token_count.prompt_details.cache_write", read=whole),
    row("result.reasoning_tokens", "llm.token_count.completion_details.reasoning", read=whole),
    row("result.input_audio_tokens", "llm.token_count.prompt_details.audio", read=whole),
    row("result.output_audio_tokens", "llm.token_count.completion_details.audio", read=whole),
    row("result.cost_usd", "llm.cost.total", read=number),
)
_ROWS: dict[str, tuple[Row, ...]] = {
    "*": (
        row("run.agent", "agent.name", read=text),
        row("run.session", "session.id", read=text),
        row("run.user", "user.id", read=text),
        row("run.session", "metadata", read=lambda value: _in_metadata(value, "session_id", "thread_id")),
        row("run.user", "metadata", read=lambda value: _in_metadata(value, "user_id", "user")),
    ),
    "llm": (
        row("payload.provider", "llm.provider", "llm.system", read=text),
        row("payload.model", "llm.request.model_name", read=text),
        row("result.response_model", "llm.response.model_name", "llm.model_name", read=text),
        row("result.finish_reason", "llm.finish_reason", read=text),
        *_TOKENS,
    ),
    "agent": (
        row("payload.name", "agent.name", read=text),
        row("payload.conversation_id", "session.id", read=text),
        *_TOKENS,
    ),
    "tool": (
        row("payload.name", "tool.name", read=text),
        row("payload.call_id", "tool.id", "tool_call.id", read=text),
        row("payload.description", "tool.description", read=text),
    ),
    "embedding": (row("payload.model", "embedding.model_name", "llm.model_name", read=text), *_TOKENS),
    "rerank": (
        row("payload.query", "reranker.query", read=text),
        row("payload.model", "reranker.model_name", read=text),
        row("payload.top_k", "reranker.top_k", read=whole),
    ),
    "handoff": (row("payload.from_agent", IN, read=text), row("payload.to_agent", OUT, read=text)),
    "evaluation": (
        row("result.score", "eval.score", read=number),
        row("result.label", "eval.label", read=text),
        row("result.explanation", "eval.explanation", read=text),
    ),
}


def _kind(span: OtelSpan) -> str | None:
    kind = span.attributes.get(KIND)
    found = KINDS.get(kind.lower()) if type(kind) is str else None
    if found == "llm" and span.name.endswith(_PREPARES):
        return "chain"
    if found in ("embedding", "retrieval") and span.scope.name == _LLAMA_INDEX and _HALF.search(span.name):
        return "chain"
    if found == "chain" and "agent.name" in span.attributes and span.scope.name == _LLAMA_INDEX:
        return "agent"
    return "handoff" if found == "tool" and span.name.startswith(_HANDOFF) else found


def _rest(draft: Draft) -> None:
    draft.use(KIND, "input.mime_type", "output.mime_type")  # the value itself shows whether it is JSON
    if not draft.left and not draft.span.events:
        return  # the span has just started
    reader = _READERS.get(draft.type, _any)
    reader(draft)
    draft.use_total("llm.token_count.total")


def _llm(draft: Draft) -> None:
    asked = members(draft.get("llm.invocation_parameters")) or {}
    if (model := text(asked.get("model")) or text(asked.get("model_name"))) is not None:
        draft.put("payload.model", model)
    draft.put("payload.model", draft.result.get("response_model"), "llm.model_name")
    known = messages.parameters(draft, asked)
    for name in ("model", "model_name"):
        if name in known and known[name] == draft.payload.get("model"):
            del known[name]
    draft.put("payload.parameters", known or None)
    draft.use("llm.invocation_parameters")
    _tools(draft)
    messages.asked(draft, [_message(each) for each in draft.spelt(_IN_MESSAGES)])
    answered = [_message(each) for each in draft.spelt(_OUT_MESSAGES)]
    if answered:
        messages.output(draft, answered)
    messages.request(draft, IN)
    messages.answer(draft, OUT)
    if "response_model" in draft.result and draft.payload.get("model") is None:
        draft.put("payload.model", draft.result["response_model"])
    draft.first_event(_FIRST_TOKEN)
    if draft.left.get(OUT) is not None and draft.get(OUT) == f"assistant: {draft.result.get('text')}":
        draft.use(OUT)


def _message(item: Any) -> Any:
    """Return a message that flat attributes spell, in the form of OpenAI's chat."""
    flat = item.get("message", item) if type(item) is dict else item
    if type(flat) is not dict:
        return flat
    if "contents" not in flat and "tool_calls" not in flat:  # the fast path for most messages
        return {**flat, "content": flat.get("content", ""), "role": flat.get("role", "user")}
    found = {key: value for key, value in flat.items() if key not in ("contents", "tool_calls")}
    calls = [call.get("tool_call", call) for call in _list(flat.get("tool_calls")) if type(call) is dict]
    parts = []
    for each in _list(flat.get("contents")):
        part = each.get("message_content", {}) if type(each) is dict else each
        if type(part) is dict and part.get("type") == "tool_use":
            call = each.get("tool_call") if type(each) is dict else None
            if call is not None and call not in calls:  # Anthropic's calls are also in `tool_calls`
                calls.append(call)
        elif part:
            parts.append(part)
    if parts:
        found["content"] = parts
    found.setdefault("content", "")
    found.setdefault("role", "user")
    if calls:
        found["tool_calls"] = calls
    return found


def _list(value: Any) -> list[Any]:
    return value if type(value) is list else []


def _tools(draft: Draft) -> None:
    tools = [each.get("tool") for each in draft.spelt("llm.tools.") if type(each) is dict]
    defined = [parsed(tool.get("json_schema")) for tool in tools if type(tool) is dict]
    draft.put("payload.tools", [each for each in defined if each is not None] or None)


def _agent(draft: Draft) -> None:
    if draft.span.scope.name == _HIDES_FAILURES and draft.span.exceptions:
        draft.is_failed = True
    if draft.span.scope.name in _WITHOUT_CALLS:
        draft.payload[OWN_TOKENS] = True
        draft.put("payload.model", text(draft.get("llm.model_name")), "llm.model_name")
        draft.put("payload.provider", text(draft.get("llm.provider")), "llm.provider")
        draft.put("result.stop_reason", text(draft.get("llm.finish_reason")), "llm.finish_reason")
        if draft.get("llm.system") == draft.payload.get("provider"):
            draft.use("llm.system")
    draft.put("payload.name", text(draft.get("graph.node.id")), "graph.node.id")
    _spoken(draft)


def _spoken(draft: Draft) -> None:
    """Set the input and output of a span; without these, the flat messages of an agent."""
    for place, name, prefix in (("payload.input", IN, _IN_MESSAGES), ("result.output", OUT, _OUT_MESSAGES)):
        value = parsed(draft.get(name))
        if value is not None:
            draft.put(place, value, name)
        if value is not None or draft.type == "chain":
            continue
        flat = messages.messages([_message(each) for each in draft.spelt(prefix)])
        draft.put(place, flat or None)


def _tool(draft: Draft) -> None:
    value = parsed(draft.get(IN))
    arguments = value
    if type(value) is dict and type(value.get("kwargs")) is dict and value.keys() <= _CALLED_WITH:
        arguments = _called_with(_list(value.get("args")), value["kwargs"])
    called_with = members(draft.get("tool.parameters"))
    if arguments is None and called_with is not None and "properties" not in called_with:
        draft.put("payload.arguments", called_with, "tool.parameters")  # other instrumentors write the JSON Schema
    draft.put("payload.arguments", arguments, *([IN] if arguments is not None else []))
    result = returned(draft, OUT)
    if type(result) is dict and type(result.get("data")) is dict:
        draft.put("payload.call_id", text(result["data"].get("tool_call_id")))


def _called_with(args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Return the arguments of a call: the keyword arguments, a single argument, or all if both kinds are there."""
    if not args:
        return kwargs
    if kwargs:
        return {"args": args, "kwargs": kwargs}
    return args[0] if len(args) == 1 else args


def _retrieval(draft: Draft) -> None:
    value = parsed(draft.get(IN))
    query = value
    if type(value) is dict:
        bundle = value.get("query_bundle")
        query = (
            value.get("query")
            or value.get("query_str")
            or (bundle.get("query_str") if type(bundle) is dict else bundle)
        )
    draft.put("payload.query", text(query), *([IN] if query is value else []))
    documents = [each.get("document", each) for each in draft.spelt("retrieval.documents.") if type(each) is dict]
    for document in documents:
        if type(document) is dict and "metadata" in document:
            document["metadata"] = parsed(document["metadata"])
    if not documents and type(found := parsed(draft.get(OUT))) in (dict, list):
        documents = _list(found.get("documents")) if type(found) is dict else found
        draft.use(*([OUT] if type(found) is list else []))
    if documents:
        draft.put_documents(documents)


def _embedding(draft: Draft) -> None:
    entries = [each.get("embedding", {}) for each in draft.spelt("embedding.embeddings.") if type(each) is dict]
    texts = [each["text"] for each in entries if type(each) is dict and type(each.get("text")) is str]
    vectors = [each["vector"] for each in entries if type(each) is dict and type(each.get("vector")) is list]
    if texts:
        draft.put("payload.input", texts)
    if entries:
        draft.put("payload.input_count", len(entries))
    if vectors:
        draft.put("result.dimensions", len(vectors[0]))
    body = members(draft.get(OUT))
    if vectors and body is not None and type(body.get("data")) is list:
        draft.leave(OUT, {key: value for key, value in body.items() if key != "data"})  # `data` repeats the vectors


def _rerank(draft: Draft) -> None:
    asked = draft.spelt("reranker.input_documents.")
    found = draft.spelt("reranker.output_documents.")
    answered = [each.get("document", each) for each in found if type(each) is dict]
    if asked:
        draft.put("payload.input_count", len(asked))
        draft.put("payload.documents", [each.get("document", each) if type(each) is dict else each for each in asked])
    if answered:
        draft.put_documents(answered)


def _handoff(draft: Draft) -> None:
    draft.put("payload.to_agent", draft.span.name.removeprefix(_HANDOFF))


def _any(draft: Draft) -> None:
    draft.put_contents(IN, OUT, parsed)


_READERS = {
    "llm": _llm,
    "agent": _agent,
    "chain": _spoken,
    "tool": _tool,
    "retrieval": _retrieval,
    "embedding": _embedding,
    "rerank": _rerank,
    "handoff": _handoff,
}
READ_EVENTS = frozenset({_FIRST_TOKEN})
"""The names of events whose content becomes a field of a call of a model."""

FAMILY = Family("OpenInference", lambda span: KIND in span.attributes, _kind, _ROWS, _rest)
