"""The attributes with which spans go out: the newest GenAI conventions, and the kind and values of OpenInference."""

from collections.abc import Mapping
from typing import Any

from agentspan import jsontext
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.schemas.span_types import REGISTRY

_KINDS = {
    "agent": "AGENT",
    "chain": "CHAIN",
    "llm": "LLM",
    "tool": "TOOL",
    "mcp": "TOOL",
    "handoff": "TOOL",
    "retrieval": "RETRIEVER",
    "embedding": "EMBEDDING",
    "rerank": "RERANKER",
    "guardrail": "GUARDRAIL",
    "evaluation": "EVALUATOR",
}
_OPERATIONS = {
    "agent": "invoke_agent",
    "chain": "invoke_workflow",
    "llm": "chat",
    "tool": "execute_tool",
    "mcp": "execute_tool",
    "retrieval": "retrieval",
    "embedding": "embeddings",
}
_NAMED_BY = {"llm": "model", "embedding": "model", "rerank": "model"}
_FIELDS: Mapping[str, Mapping[str, str]] = {
    "llm": {
        "provider": "gen_ai.provider.name",
        "model": "gen_ai.request.model",
        "temperature": "gen_ai.request.temperature",
        "max_tokens": "gen_ai.request.max_tokens",
        "stream": "gen_ai.request.stream",
        "seed": "gen_ai.request.seed",
        "top_p": "gen_ai.request.top_p",
        "response_model": "gen_ai.response.model",
        "response_id": "gen_ai.response.id",
        "input_tokens": "gen_ai.usage.input_tokens",
        "output_tokens": "gen_ai.usage.output_tokens",
        "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
        "cache_write_tokens": "gen_ai.usage.cache_write.input_tokens",
        "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
        "cost_usd": "gen_ai.usage.cost",
    },
    "embedding": {"model": "gen_ai.request.model", "input_tokens": "gen_ai.usage.input_tokens"},
    "agent": {
        "name": "gen_ai.agent.name",
        "version": "gen_ai.agent.version",
        "conversation_id": "gen_ai.conversation.id",
    },
    "chain": {"name": "gen_ai.workflow.name"},
    "tool": {"name": "gen_ai.tool.name", "call_id": "gen_ai.tool.call.id"},
    "retrieval": {"query": "gen_ai.retrieval.query.text", "source": "gen_ai.data_source.id"},
}


def name(row: AgentSpanRow, payload: Any) -> str:
    """Return the name of a span: its operation and what it is about, as the GenAI conventions have it."""
    type_ = _type_of(row)
    about = payload.get(_NAMED_BY.get(type_, "name")) if isinstance(payload, dict) else None
    operation = _OPERATIONS.get(type_, row.schema_name)
    return f"{operation} {about}" if type(about) is str and about else operation


def attributes(row: AgentSpanRow, payload: Any, result: Any, run: AgentInstanceRow) -> dict[str, Any]:
    """Return the attributes of a span; those without a value are None."""
    type_ = _type_of(row)
    fields: dict[str, Any] = {}
    for side in (payload, result):
        fields |= side if isinstance(side, dict) else {}
    said: dict[str, Any] = {
        "openinference.span.kind": _KINDS.get(type_, "UNKNOWN" if type_ == "custom" else "CHAIN"),
        "gen_ai.operation.name": _OPERATIONS.get(type_),
        "session.id": run.session,
        "user.id": run.user,
        "input.value": row.payload,
        "input.mime_type": "application/json",
        "output.value": row.result_payload,
        "output.mime_type": None if row.result_payload is None else "application/json",
    }
    for field, attribute in _FIELDS.get(type_, {}).items():
        said[attribute] = _plain(fields.get(field))
    if type_ == "llm":
        said |= _of_llm(fields)
    elif type_ == "tool":
        said["gen_ai.tool.call.arguments"] = _json(fields.get("arguments"))
        said["gen_ai.tool.call.result"] = _json(fields.get("output"))
    error = fields.get("error")
    if row.status == "failed" and isinstance(error, dict):
        said["error.type"] = _plain(error.get("type")) or "_OTHER"
    return said


def run_attributes(row: AgentInstanceRow, agent: str, version: str) -> dict[str, Any]:
    """Return the attributes of the span of a run."""
    return {
        "openinference.span.kind": "AGENT",
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": agent,
        "gen_ai.agent.version": None if version == "default" else version,
        "gen_ai.conversation.id": row.session,
        "session.id": row.session,
        "user.id": row.user,
        "metadata": row.metadata,
        "output.value": row.result,
        "output.mime_type": None if row.result is None else "application/json",
    }


def _of_llm(fields: Mapping[str, Any]) -> dict[str, Any]:
    system, reason = fields.get("system"), fields.get("finish_reason")
    answered = fields.get("output_messages")
    if not answered and type(fields.get("text")) is str:
        answered = [{"role": "assistant", "content": fields["text"]}]
    return {
        "gen_ai.input.messages": _messages(fields.get("messages")),
        "gen_ai.output.messages": _messages(answered),
        "gen_ai.system_instructions": _json([{"type": "text", "content": system}] if type(system) is str else system),
        "gen_ai.tool.definitions": _json(fields.get("tools")),
        "gen_ai.response.finish_reasons": [reason] if type(reason) is str else None,
    }


def _messages(found: Any) -> str | None:
    """Return messages of OpenAI's chat with the parts of the GenAI conventions, as JSON."""
    if type(found) is not list or not found:
        return None
    return _json([_message(each) for each in found if isinstance(each, dict)])


def _message(said: Mapping[str, Any]) -> dict[str, Any]:
    content, parts = said.get("content"), []
    if said.get("role") == "tool":
        parts.append({"type": "tool_call_response", "id": said.get("tool_call_id"), "response": content})
    elif type(content) is str:
        parts += [{"type": "text", "content": content}] if content else []
    elif type(content) is list:
        parts += [each if isinstance(each, dict) else {"type": "text", "content": each} for each in content]
    calls = said.get("tool_calls")
    for call in calls if type(calls) is list else ():
        if isinstance(call, dict):
            inner = call.get("function")
            function = inner if isinstance(inner, dict) else call
            about = {"name": function.get("name"), "arguments": function.get("arguments")}
            parts.append({"type": "tool_call", "id": call.get("id"), **about})
    return {"role": said.get("role", "user"), "parts": parts}


def _type_of(row: AgentSpanRow) -> str:
    found = REGISTRY.resolve(row.schema_name).name
    return (
        found if found in _KINDS or found in _OPERATIONS else row.schema_name if row.schema_name in _KINDS else "custom"
    )


def _plain(value: Any) -> Any:
    return value if type(value) in (str, int, float, bool) else None


def _json(value: Any) -> str | None:
    return None if value is None else value if type(value) is str else jsontext.encode(value)[0]
