"""Maps OpenTelemetry's GenAI conventions in three versions: 2024 (messages are events), 2025 and 2026.

The schema URL of a span's scope decides the version; without one, the names of its attributes do. The 2026 version is
from the conventions' own repository. It has `cache_write` instead of `cache_creation`, and `agent.name` for workflows.
"""

import re
from typing import Any

from agentspan.otel.mapping import messages
from agentspan.otel.mapping.draft import (
    Draft,
    Family,
    Row,
    first,
    flag,
    listed,
    literal,
    members,
    millis,
    number,
    parsed,
    row,
    text,
    whole,
)
from agentspan.otel.span import OtelSpan

OPERATION, PROVIDER, SYSTEM = "gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.system"
_TOTAL = "gen_ai.usage.total_tokens"
REASONS = "gen_ai.response.finish_reasons"
INPUT, OUTPUT, INSTRUCTIONS = "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions"
MEMORY = {
    "search_memory": "search",
    "create_memory": "create",
    "update_memory": "update",
    "upsert_memory": "upsert",
    "delete_memory": "delete",
    "create_memory_store": "create_store",
    "delete_memory_store": "delete_store",
}
"""The operation of a span of type `memory`, by the operation name of the conventions."""
KINDS = {
    **dict.fromkeys(("chat", "text_completion", "generate_content", "completion", "acompletion", "responses"), "llm"),
    **dict.fromkeys(("embeddings", "embedding"), "embedding"),
    **dict.fromkeys(("invoke_agent", "create_agent"), "agent"),
    **dict.fromkeys(("invoke_workflow", "agent_step", "plan"), "chain"),
    **{"execute_tool": "tool", "evaluate": "evaluation"},
    **{each: each for each in ("retrieval", "rerank", "handoff")},
    **dict.fromkeys(MEMORY, "memory"),
}
OPERATIONS = {
    "llm": "chat",
    "embedding": "embeddings",
    "tool": "execute_tool",
    "agent": "invoke_agent",
    "chain": "invoke_workflow",
    "retrieval": "retrieval",
}
"""The default operation of each span type. Another operation stays among the attributes of the span."""
_SCHEMA = re.compile(r"https?://[^/]*opentelemetry\.io/schemas/(?:(gen-?ai)(?:-dev)?/)?(?:\d+\.)?(\d+)")

_TOKENS = (
    row("result.input_tokens", "gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", read=whole),
    row("result.output_tokens", "gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", read=whole),
    row(
        "result.cached_tokens",
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",
        read=whole,
    ),
    row("result.reasoning_tokens", "gen_ai.usage.reasoning.output_tokens", "gen_ai.usage.reasoning_tokens", read=whole),
    *(
        row(f"result.{side}_{modality}_tokens", f"gen_ai.usage.{modality}.{name}_tokens", read=whole)
        for modality in ("text", "image", "audio")
        for side, name in (("input", "input"), ("output", "output"), ("cached", "cache_read.input"))
    ),
)
_MODEL = (row("payload.model", "gen_ai.request.model", read=text), row("payload.provider", PROVIDER, SYSTEM, read=text))
_REQUEST = (
    row("payload.temperature", "gen_ai.request.temperature", read=number),
    row("payload.max_tokens", "gen_ai.request.max_tokens", read=whole),
    row("payload.stream", "gen_ai.request.stream", read=flag),
    row("payload.seed", "gen_ai.request.seed", "gen_ai.openai.request.seed", read=whole),
    row("payload.top_p", "gen_ai.request.top_p", read=number),
    row("payload.top_k", "gen_ai.request.top_k", read=whole),
    row("payload.stop_sequences", "gen_ai.request.stop_sequences", read=listed),
    row("payload.output_type", "gen_ai.output.type", read=text),
    row("payload.system", INSTRUCTIONS, read=messages.instructions),
    row("payload.tools", "gen_ai.tool.definitions", read=messages.tools),
)
_ANSWER = (
    row("result.response_model", "gen_ai.response.model", read=text),
    row("result.response_id", "gen_ai.response.id", read=text),
    row("result.finish_reason", REASONS, read=first),
    row("result.time_to_first_token_ms", "gen_ai.response.time_to_first_chunk", read=millis),
    row("result.time_to_first_token_ms", "gen_ai.client.operation.time_to_first_chunk", read=millis),
)
_AGENT = (
    row("payload.name", "gen_ai.agent.name", "gen_ai.workflow.name", read=text),
    row("payload.version", "gen_ai.agent.version", read=text),
    row("payload.description", "gen_ai.agent.description", read=text),
    row("payload.agent_id", "gen_ai.agent.id", read=text),
    row("payload.conversation_id", "gen_ai.conversation.id", read=text),
)
_RUN = (
    row("run.agent", "gen_ai.agent.name", "gen_ai.workflow.name", read=text),
    row("run.version", "gen_ai.agent.version", read=text),
    row("run.session", "gen_ai.conversation.id", "session.id", read=text),
    row("run.user", "user.id", "enduser.id", "gen_ai.user", read=text),
)
_OF_2025: dict[str, tuple[Row, ...]] = {
    "*": _RUN,
    "llm": (
        *_MODEL,
        *_REQUEST,
        *_ANSWER,
        *_TOKENS,
        row("result.cache_write_tokens", "gen_ai.usage.cache_creation.input_tokens", read=whole),
        row("result.cache_write_tokens", "gen_ai.usage.cache_write.input_tokens", read=whole),
    ),
    "agent": (*_AGENT, *_MODEL, *_REQUEST, *_TOKENS, row("result.stop_reason", REASONS, read=first)),
    "chain": (
        row("payload.name", "gen_ai.workflow.name", "gen_ai.agent.name", "gen_ai.task.name", read=text),
        row("payload.conversation_id", "gen_ai.conversation.id", read=text),
    ),
    "tool": (
        row("payload.name", "gen_ai.tool.name", read=text),
        row("payload.call_id", "gen_ai.tool.call.id", read=text),
        row("payload.description", "gen_ai.tool.description", read=text),
        row("payload.skill", "gen_ai.skill.name", read=text),
        row("payload.skill_resource", "gen_ai.skill.resource.name", read=text),
        row("payload.skill_source", "gen_ai.skill.source.uri", read=text),
        row("payload.skill_description", "gen_ai.skill.description", read=text),
    ),
    "embedding": (
        *_MODEL,
        *_TOKENS,
        row("result.dimensions", "gen_ai.embeddings.dimension.count", read=whole),
        row("result.response_model", "gen_ai.response.model", read=text),
    ),
    "retrieval": (
        row("payload.query", "gen_ai.retrieval.query.text", read=text),
        row("payload.source", "gen_ai.data_source.id", read=text),
        row("payload.top_k", "gen_ai.retrieval.top_k", "gen_ai.request.top_k", read=whole),
        row("result.documents", "gen_ai.retrieval.documents", read=listed),
    ),
    "rerank": (row("payload.model", "gen_ai.request.model", read=text),),
    "evaluation": (
        row("payload.name", "gen_ai.evaluation.name", read=text),
        row("result.score", "gen_ai.evaluation.score.value", read=number),
        row("result.label", "gen_ai.evaluation.score.label", read=text),
        row("result.explanation", "gen_ai.evaluation.explanation", read=text),
    ),
    "handoff": (
        row("payload.from_agent", "gen_ai.handoff.from_agent", "gen_ai.agent.name", read=text),
        row("payload.to_agent", "gen_ai.handoff.to_agent", read=text),
    ),
    "memory": (
        row("payload.operation", OPERATION, read=MEMORY.get),
        row("payload.store", "gen_ai.memory.store.id", "gen_ai.data_source.id", read=text),
        row("payload.query", "gen_ai.memory.query.text", read=text),
        row("payload.key", "gen_ai.memory.record.id", read=text),
        row("payload.provider", PROVIDER, read=text),
        row("result.count", "gen_ai.memory.record.count", read=whole),
        row("result.items", "gen_ai.memory.records", read=listed),
    ),
}
_OF_2026: dict[str, tuple[Row, ...]] = {
    **_OF_2025,
    "llm": (row("result.cache_write_tokens", "gen_ai.usage.cache_write.input_tokens", read=whole), *_OF_2025["llm"]),
    "chain": (
        row("payload.name", "gen_ai.agent.name", "gen_ai.workflow.name", "gen_ai.task.name", read=text),
        row("payload.conversation_id", "gen_ai.conversation.id", read=text),
    ),
}
NEWEST = _OF_2026
"""The mapping table with the newest names, with which spans are exported."""
_OF_2024: dict[str, tuple[Row, ...]] = {
    **_OF_2025,
    "llm": (
        row("payload.provider", SYSTEM, PROVIDER, read=text),
        row("payload.model", "gen_ai.request.model", read=text),
        *_REQUEST,
        *_ANSWER,
        row("result.finish_reason", "llm.response.finish_reason", read=text),
        row("result.input_tokens", "gen_ai.usage.prompt_tokens", read=whole),
        row("result.output_tokens", "gen_ai.usage.completion_tokens", read=whole),
        *_TOKENS,
    ),
}


def version_of(span: OtelSpan) -> Family | None:
    """Return the version of the GenAI conventions that a span follows; None if it follows no version."""
    attributes = span.attributes
    if OPERATION not in attributes and PROVIDER not in attributes and SYSTEM not in attributes:
        return None
    match = _SCHEMA.match(span.scope.schema_url) if span.scope.schema_url else None
    if match is not None:
        return _GENAI_2026 if match[1] else _GENAI_2025 if int(match[2]) >= 37 else _GENAI_2024
    if "gen_ai.usage.cache_write.input_tokens" in attributes:
        return _GENAI_2026
    return _GENAI_2024 if SYSTEM in attributes and PROVIDER not in attributes else _GENAI_2025


def _kind(span: OtelSpan) -> str | None:
    operation = span.attributes.get(OPERATION)
    found = KINDS.get(operation) if type(operation) is str else None
    if found is None and "gen_ai.request.model" in span.attributes and span.kind == "CLIENT":
        return "llm"
    return found


def _rest(draft: Draft) -> None:
    if draft.get(OPERATION) == OPERATIONS.get(draft.type):
        draft.use(OPERATION)
    reader = _READERS.get(draft.type)
    if reader is not None:
        reader(draft)


def _llm(draft: Draft) -> None:
    if INPUT in draft.left and (found := messages.messages(draft.get(INPUT))):
        system, rest = messages.split_system(found)
        draft.put("payload.system", system)
        draft.put("payload.messages", rest or found, INPUT)
    if OUTPUT in draft.left:
        messages.output(draft, draft.get(OUTPUT), OUTPUT)
    draft.use_total(_TOTAL)
    if draft.span.events:
        _events(draft)


def _agent(draft: Draft) -> None:
    found = messages.messages(draft.get(INPUT))
    if found:
        only = _only(found, "user")
        draft.put("payload.input", found if only is None else only["content"], INPUT)
    answer = messages.model_answer(draft.get(OUTPUT))
    if answer.messages:
        last = messages.final_text(answer.messages)
        draft.put("result.output", last or answer.messages)
        only = _only(answer.messages, "assistant")
        if only is not None and only["content"] == last:
            draft.put("result.stop_reason", only.get("finish_reason"))
            draft.use(OUTPUT)


def _only(found: list[Any], role: str) -> dict[str, Any] | None:
    """Return the message of a list with one message, if it is a text of this role without other parts; else None."""
    only = found[0] if len(found) == 1 and type(found[0]) is dict else {}
    is_text = only.get("role") == role and type(only.get("content")) is str and only["content"]
    return only if is_text and only.keys() <= {"role", "content", "finish_reason"} else None


def _chain(draft: Draft) -> None:
    if draft.get(OPERATION) == "plan" and (agent := draft.get("gen_ai.agent.name")) is not None:
        draft.payload["name"] = draft.span.name  # the agent's name does not show that the step is a plan
        draft.left["gen_ai.agent.name"] = agent


def _tool(draft: Draft) -> None:
    arguments = parsed(draft.get("gen_ai.tool.call.arguments"))
    used = ["gen_ai.tool.call.arguments"]
    if type(arguments) is dict and "input_str" in arguments and arguments.keys() & {"metadata", "tags", "inputs"}:
        arguments, used = literal(arguments["input_str"]), []  # Traceloop's form of LangChain's callback
    draft.put("payload.arguments", arguments, *used)
    returned(draft, "gen_ai.tool.call.result")


def returned(draft: Draft, name: str) -> Any:
    """Set the output of a tool from an attribute, without a message around it. Return the attribute's parsed value."""
    result = parsed(draft.get(name))
    unwrapped = unwrap(result)
    draft.put("result.output", unwrapped, *([name] if unwrapped is result else []))
    return result


def unwrap(value: Any) -> Any:
    """Return the result of a tool without the message that LangChain and LlamaIndex put around it."""
    if type(value) is not dict:
        return value
    if value.keys() <= {"output", "kwargs", "tags"} and "output" in value:
        value = parsed(value["output"])
    if (type(value) is dict and value.get("type") in ("tool", "constructor")) or (
        type(value) is dict and value.get("tool_call_id")
    ):
        inner = next((value[key] for key in ("kwargs", "data") if type(value.get(key)) is dict), value)
        return parsed(inner["content"]) if "content" in inner else value
    if type(value) is dict and "raw_output" in value and "tool_name" in value:
        return value["raw_output"]
    return value


def _embedding(draft: Draft) -> None:
    found = parsed(draft.get(INPUT))
    if type(found) is list:
        draft.put("payload.input_count", len(found))
    draft.use_total(_TOTAL)


def _retrieval(draft: Draft) -> None:
    documents = draft.result.get("documents")
    if type(documents) is list:
        draft.put("result.count", len(documents))


_READERS = {
    "llm": _llm,
    "agent": _agent,
    "chain": _chain,
    "tool": _tool,
    "embedding": _embedding,
    "retrieval": _retrieval,
}

EVENT_ROLES = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}
"""The roles of messages, by the names of the events or log records of the 2024 conventions: one for each message."""
_DETAILS = "gen_ai.client.inference.operation.details"


def _events(draft: Draft) -> None:
    """Set fields from the messages in the events of a span, which include its log records."""
    asked: list[Any] = []
    answered: list[Any] = []
    for event in draft.span.events:
        body = event.body if type(event.body) is dict else dict(event.attributes)
        if event.name in EVENT_ROLES:
            asked.append({"role": EVENT_ROLES[event.name], "content": body.get("content", ""), **body})
        elif event.name == "gen_ai.choice":
            message = body.get("message", body.get("content"))
            answered.append({"role": "assistant", "content": "", **(members(message) or {"content": message})})
            draft.put("result.finish_reason", text(body.get("finish_reason")))
        elif event.name == _DETAILS:
            _details(draft, {**event.attributes, **(event.body if type(event.body) is dict else {})})
        elif event.name == "gen_ai.content.prompt":
            asked += messages.messages(event.attributes.get("gen_ai.prompt"))
        elif event.name == "gen_ai.content.completion":
            answered += messages.messages(event.attributes.get("gen_ai.completion"), "assistant")
    if asked:
        messages.asked(draft, asked)
    if answered:
        messages.output(draft, answered)


def _details(draft: Draft, attributes: dict[str, Any]) -> None:
    if found := messages.messages(attributes.get(INPUT)):
        system, rest = messages.split_system(found)
        draft.put("payload.system", messages.instructions(attributes.get(INSTRUCTIONS)) or system)
        draft.put("payload.messages", rest or found)
    messages.output(draft, attributes.get(OUTPUT))
    draft.put("payload.tools", messages.tools(attributes.get("gen_ai.tool.definitions")))


READ_EVENTS = frozenset({*EVENT_ROLES, "gen_ai.choice", _DETAILS, "gen_ai.content.prompt", "gen_ai.content.completion"})
"""The names of events whose content becomes fields of a call of a model."""
EMPTY_EVENTS = frozenset({"gen_ai.content.completion.chunk"})
"""The names of events without content, for the parts of a stream. The first one has the time of the first token."""


def _holds(span: OtelSpan) -> bool:
    return version_of(span) is not None


_GENAI_2026 = Family("GenAI 2026", _holds, _kind, _OF_2026, _rest)
_GENAI_2025 = Family("GenAI 2025", _holds, _kind, _OF_2025, _rest)
_GENAI_2024 = Family("GenAI 2024", _holds, _kind, _OF_2024, _rest)
VERSIONS = (_GENAI_2026, _GENAI_2025, _GENAI_2024)
"""The versions of the conventions, the newest first."""
