"""Makes the attributes of exported spans: the newest GenAI conventions, and the kind and values of OpenInference.

A field is exported as the attribute that it is read from, by the tables of `genai` and `sdks` in reverse. Recorded
attributes of OpenTelemetry that became no field are exported unchanged.

Messages are exported in the form of the GenAI conventions, as lists of parts. Images, audio and files of any provider
become parts of type `blob`, `uri` or `file`. A part of an unknown type is exported unchanged, because the conventions
allow any type.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from agentspan import jsontext
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.otel.mapping import genai, messages, sdks
from agentspan.otel.mapping.draft import Row, begin_span, first, listed, millis, number
from agentspan.otel.mapping.messages import instructions, tools
from agentspan.schemas.span_types import REGISTRY

_KINDS = {
    **{type_: type_.upper() for type_ in ("agent", "chain", "llm", "tool", "embedding", "guardrail")},
    **dict.fromkeys(("mcp", "handoff"), "TOOL"),
    **{"retrieval": "RETRIEVER", "rerank": "RERANKER", "evaluation": "EVALUATOR"},
}
_CLIENTS = frozenset({"llm", "embedding", "retrieval", "memory", "mcp"})
_NAMED_BY = {"llm": "model", "embedding": "model", "rerank": "model", "retrieval": "source", "memory": ""}
_ASKED_BY = {"retrieval": "query", "rerank": "query", "tool": "arguments", "mcp": "arguments"}
_CONVERSING = frozenset({"agent", "chain", "llm"})
_RENAMED = genai.OPERATIONS.keys() - {"chain"}
_MEMORY = {ours: theirs for theirs, ours in genai.MEMORY.items()}
_TARGETS = {"tools/call": "gen_ai.tool.name", "prompts/get": "gen_ai.prompt.name"}
"""The attribute with the target of a method of MCP. The target of any other method is the URI of a resource."""
_CALL, _WORKFLOW = "tools/call", genai.OPERATIONS["chain"]
_ARGUMENTS, _RESULT = "gen_ai.tool.call.arguments", "gen_ai.tool.call.result"
Write = Callable[[Any], Any]


class Out(NamedTuple):
    """The attribute that a field is exported as, and the function that converts the field's value."""

    attribute: str
    write: Write


def _plain(value: Any) -> Any:
    return value if type(value) in (str, int, float, bool) else None


def _json(value: Any) -> str | None:
    return None if value is None else value if type(value) is str else jsontext.encode(value)[0]


def _list(value: Any) -> Any:
    is_flat = type(value) is list and all(type(each) is str for each in value)
    return value if is_flat else _json(value)


def _double(value: Any) -> float | None:
    found = number(value)
    return None if found is None else float(found)


def _seconds(value: Any) -> float | None:
    found = number(value)
    return None if found is None else found / 1000


def _instructions(value: Any) -> str | None:
    """Return system instructions as parts of the GenAI conventions."""
    return _json([_part(each) for each in (value if type(value) is list else [value])]) if value else None


def _tools(value: Any) -> str | None:
    """Return definitions of tools, each with its name and type in one object, without OpenAI's member `function`."""
    return _json([_tool(each) for each in value] if type(value) is list else value)


_WRITERS: Mapping[Callable[[Any], Any], Write] = {
    first: lambda value: [value] if type(value) is str else None,
    listed: _list,
    millis: _seconds,
    number: _double,
    instructions: _instructions,
    tools: _tools,
}
"""The functions that convert fields to attributes, by the functions that read them. `_plain` is the default."""


_CONTENTS = {
    "llm": {"cost_usd": Out("gen_ai.usage.cost", _plain)},
    "tool": {"arguments": Out(_ARGUMENTS, _json), "output": Out(_RESULT, _json)},
    "mcp": {"arguments": Out(_ARGUMENTS, _json), "result": Out(_RESULT, _json)},
}
"""The fields that are in no table, because their readers need code; and the cost, which has no standard attribute."""


def _table(rows: tuple[Row, ...]) -> dict[str, Out]:
    """Return the attribute of each field of a mapping table: the first name in the first row of the field."""
    found: dict[str, Out] = {}
    for place, names, read in rows:
        side, _, field = place.partition(".")
        if side != "run":
            found.setdefault(field, Out(names[0], _WRITERS.get(read, _plain)))
    return found


_FIELDS = {
    type_: _table(rows) | _CONTENTS.get(type_, {})
    for type_, rows in {**genai.NEWEST, "mcp": sdks.ROWS["mcp"]}.items()
    if type_ != "*"
}


def name(row: AgentSpanRow, payload: Any) -> str:
    """Return the name of an exported span: operation and subject, as in the conventions.

    A recorded name is kept if it begins with an operation, and for types without an operation of the conventions.
    """
    fields, type_ = payload if isinstance(payload, dict) else {}, _type_of(row)
    recorded = _members(fields, "otel").get("name")
    if type(recorded) is str and recorded:
        word, _, subject = recorded.partition(" ")
        if type_ not in _RENAMED or (subject and word in genai.KINDS):
            return recorded
    if type_ == "mcp" and type(fields.get("method")) is str:
        head, about = fields["method"], fields.get("target") if fields["method"] in _TARGETS else None
    else:
        operation = _members(fields, "attributes").get(genai.OPERATION) or _operation(row, type_, fields)
        head = operation if type(operation) is str else row.schema_name
        about = fields.get(_NAMED_BY.get(type_, "name"))
    return f"{head} {about}" if type(about) is str and about else head


def kind(row: AgentSpanRow) -> str:
    """Return the kind of a span that has none: CLIENT for a request to another process."""
    return "CLIENT" if _type_of(row) in _CLIENTS else "INTERNAL"


def attributes(row: AgentSpanRow, payload: Any, result: Any, run: AgentInstanceRow) -> dict[str, Any]:
    """Return the attributes of an exported span. Attributes without a value are None.

    Args:
        row: the span.
        payload, result: the decoded payload and result of the span.
        run: the run of the span.
    """
    begin_span()
    type_ = _type_of(row)
    fields: dict[str, Any] = {}
    for side in (payload, result):
        fields |= side if isinstance(side, dict) else {}
    ours = {
        "openinference.span.kind": _KINDS.get(type_, "UNKNOWN" if type_ == "custom" else "CHAIN"),
        "input.value": row.payload,
        "input.mime_type": "application/json",
        "output.value": row.result_payload,
        "output.mime_type": None if row.result_payload is None else "application/json",
    }
    written = {"session.id": run.session, "user.id": run.user, **_of_fields(row, type_, fields, run)}
    if row.finish_reason is not None and genai.REASONS in written:  # the result may have the reason by another name
        written[genai.REASONS] = written[genai.REASONS] or [row.finish_reason]
    error = fields.get("error")
    if row.status == "failed" and isinstance(error, dict):
        written["error.type"] = _plain(error.get("type")) or "_OTHER"
    # `ours` comes first, because a receiver with a limit keeps the first attributes, and last, so that its values win.
    return ours | written | _recorded(fields) | ours


def asked(row: AgentSpanRow, payload: Any) -> Any:
    """Return the input of a step that may be that of its run, such as a user's last message; None without one."""
    fields, type_ = payload if isinstance(payload, dict) else {}, _type_of(row)
    said = fields.get("messages") if type_ == "llm" else None
    of_user = (each for each in said if type(each) is dict and each.get("role") == "user") if type(said) is list else ()
    if (last := next(reversed([*of_user]), None)) is not None:
        return last.get("content")
    if row.schema_name == "message":
        return fields.get("content") if fields.get("role") == "user" else None
    return fields.get(_ASKED_BY.get(type_, "input"))


def answered(row: AgentSpanRow, result: Any) -> Any:
    """Return the output of a step that may be that of its run, such as the text of a model; None without one."""
    fields = result if isinstance(result, dict) and row.status == "complete" else {}
    return fields.get("text" if _type_of(row) == "llm" else "output")


def run_attributes(row: AgentInstanceRow, agent: str, version: str, asked: Any, answer: Any) -> dict[str, Any]:
    """Return the attributes of the root span that a run is exported as.

    Args:
        asked, answer: the input and the output of the run; None for each that is unknown.
    """
    return {
        **_value("input", asked),
        "openinference.span.kind": "AGENT",
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": agent,
        "gen_ai.agent.version": None if version == "default" else version,
        "gen_ai.conversation.id": row.session,
        "session.id": row.session,
        "user.id": row.user,
        "metadata": row.metadata,
        **_value("output", answer),
    }


def _value(side: str, value: Any) -> dict[str, Any]:
    kind = None if value is None else "text/plain" if type(value) is str else "application/json"
    return {f"{side}.value": _json(value), f"{side}.mime_type": kind}


def _of_fields(row: AgentSpanRow, type_: str, fields: Mapping[str, Any], run: AgentInstanceRow) -> dict[str, Any]:
    written = {out.attribute: out.write(fields.get(field)) for field, out in _FIELDS.get(type_, {}).items()}
    written[genai.OPERATION] = _operation(row, type_, fields)
    if row.is_aggregate:  # the calls inside have these tokens; MLflow would count only what no span around has
        written = {name: value for name, value in written.items() if not name.startswith("gen_ai.usage.")}
    if type_ in _CONVERSING:
        written["gen_ai.conversation.id"] = written.get("gen_ai.conversation.id") or run.session
        written |= _messages(fields) if type_ == "llm" else _input_and_output(fields)
    return written | (_of_mcp(fields) if type_ == "mcp" else {})


def _operation(row: AgentSpanRow, type_: str, fields: Mapping[str, Any]) -> str | None:
    if type_ == "chain" and row.parent_span_id is not None:  # a step of a workflow
        recorded = _members(fields, "otel").get("name")
        return _WORKFLOW if type(recorded) is str and recorded.startswith(_WORKFLOW) else None
    if type_ == "memory":
        return _MEMORY.get(str(fields.get("operation")))
    if type_ == "mcp":
        return "execute_tool" if fields.get("method") == _CALL else None
    return genai.OPERATIONS.get(type_)


def _messages(fields: Mapping[str, Any]) -> dict[str, Any]:
    asked, answered = fields.get("messages"), fields.get("output_messages")
    if not answered and (fields.get("text") or fields.get("tool_calls")):
        text, calls = fields.get("text"), fields.get("tool_calls")
        answered = [{"role": "assistant", "content": text or "", "tool_calls": calls if type(calls) is list else []}]
    written: dict[str, Any] = {}
    if _members(fields, "otel").get("system") == "message":
        asked = [{"role": "system", "content": fields.get("system")}, *(asked if type(asked) is list else [])]
        written[genai.INSTRUCTIONS] = None
    return written | {
        genai.INPUT: _json(_sent_messages(asked)),
        genai.OUTPUT: _json(_sent_messages(answered, "assistant")),
    }


def _input_and_output(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the input and output of an agent or workflow as messages, if they are a text or messages."""
    sides = ((genai.INPUT, "input", "user"), (genai.OUTPUT, "output", "assistant"))
    return {name: _json(_sent_messages(_spoken(fields.get(field)), role)) for name, field, role in sides}


def _spoken(value: Any) -> Any:
    are_messages = type(value) is list and all(type(each) is dict and "role" in each for each in value)
    return value if are_messages or type(value) is str else None


def _of_mcp(fields: Mapping[str, Any]) -> dict[str, Any]:
    method, arguments = fields.get("method"), fields.get("arguments")
    written = {"gen_ai.tool.name": None, _TARGETS.get(str(method), "mcp.resource.uri"): _plain(fields.get("target"))}
    if method == "prompts/get" and type(arguments) is dict:
        written |= {_ARGUMENTS: None} | {f"{sdks.VARIABLE}{name}": _json(value) for name, value in arguments.items()}
    return written | (_failure_of_mcp(fields.get("error_code")) if fields.get("is_error") is True else {})


def _failure_of_mcp(code: Any) -> dict[str, Any]:
    is_number = type(code) is int or (type(code) is str and code.lstrip("-").isdigit())
    return {"rpc.response.status_code": str(code)} if is_number else {"error.type": _plain(code) or "tool_error"}


def _recorded(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recorded attributes of an OpenTelemetry span that became no field, and its instrumentor.

    Attributes `agentspan.…` are left out: another agentspan would read them as columns.
    """
    otel = _members(fields, "otel")
    about = {
        f"otel.scope.{name}": otel[key] for name, key in (("name", "scope"), ("version", "version")) if key in otel
    }
    left = _members(fields, "attributes")
    return about | {name: value for name, value in left.items() if not name.startswith("agentspan.")}


def _members(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = fields.get(name)
    return found if isinstance(found, dict) else {}


def _type_of(row: AgentSpanRow) -> str:
    found = REGISTRY.resolve(row.schema_name).name
    if found in _KINDS or found in _CLIENTS:
        return found
    return row.schema_name if row.schema_name in _KINDS else "custom"


_MODALITIES = {
    **dict.fromkeys(("image_url", "input_image", "image", "inline_data"), "image"),
    **dict.fromkeys(("input_audio", "audio"), "audio"),
    **dict.fromkeys(("video_url", "video"), "video"),
    **dict.fromkeys(("file", "input_file", "document", "file_data"), "document"),
}
"""The default modality of a part without a media type, by the provider's type of the part."""
_HOLDERS = ("image_url", "video_url", "input_audio", "source", "file", "inline_data", "file_data")
"""The members of a part that may be an object with its address, data and media type."""
_ADDRESSES = ("url", "image_url", "video_url", "file_url", "file_uri")
_MEDIA_DATA = ("data", "file_data")
_MEDIA_TYPES = ("media_type", "mime_type")
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w.=+-]*)*;base64,")
_FORMATS = {"mp3": "audio/mpeg"}


def _sent_messages(value: Any, role: str = "user") -> list[dict[str, Any]] | None:
    """Return messages in any known form, or a text, as messages of the GenAI conventions; None if there are none."""
    if type(value) is str and value:
        return [_message({"role": role, "content": value})]
    found = messages.messages(value, role) if type(value) is list else []
    return [_message(message) for message in found if type(message) is dict] or None


def _part(part: Any) -> dict[str, Any]:
    """Return a part of a message in the form of the GenAI conventions."""
    if type(part) is not dict:
        return {"type": "text", "content": part}
    kind = part.get("type")
    if kind in ("text", "reasoning") and type(part.get("text")) is str:
        return {"type": kind, "content": part["text"]}
    if type(kind) is not str:
        kind = next((name for name in _HOLDERS if name in part), "text")
    if kind in _MODALITIES and "modality" not in part and (found := _media(part, _MODALITIES[kind])) is not None:
        return found
    return {**part, "type": kind}


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    about = {name: message[name] for name in ("name", "finish_reason") if name in message}
    if "content" not in message and "tool_calls" not in message:  # an item between messages, such as a reasoning item
        return {"role": message.get("role", "assistant"), "parts": [_part(message)]}
    return {"role": message.get("role", "user"), "parts": [*_parts(message)], **about}


def _parts(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    content, calls = message.get("content"), message.get("tool_calls")
    if message.get("role") == "tool":
        yield {"type": "tool_call_response", "id": message.get("tool_call_id"), "response": content}
    elif content:
        yield from map(_part, content if type(content) is list else [content])
    for call in calls if type(calls) is list else ():
        if type(call) is dict:
            yield {"type": "tool_call", **messages.tool_call(call)}


def _media(part: Mapping[str, Any], modality: str) -> dict[str, Any] | None:
    """Return a part of type `blob`, `uri` or `file`; None if the part has no bytes, address or file id."""
    inner = {**part, **next((part[name] for name in _HOLDERS if type(part.get(name)) is dict), {})}
    media_type = _first(inner, _MEDIA_TYPES)
    if media_type is None and type(inner.get("format")) is str:
        media_type = _FORMATS.get(inner["format"], f"{modality}/{inner['format']}")
    found, address = _first(inner, _MEDIA_DATA), _first(inner, _ADDRESSES)
    if (match := _DATA_URL.match(found or address or "")) is not None:
        media_type, found = match[1], (found or address or "")[match.end() :]
    about = {"modality": _modality(media_type) or modality} | ({"mime_type": media_type} if media_type else {})
    if found is not None:
        return {"type": "blob", **about, "content": found}
    if address is not None:
        return {"type": "uri", **about, "uri": address}
    id = inner.get("file_id")
    return {"type": "file", **about, "file_id": id} if type(id) is str else None


def _modality(media_type: str | None) -> str | None:
    main = (media_type or "").partition("/")[0]
    return main if main in ("image", "audio", "video") else "document" if media_type else None


def _first(members: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((members[name] for name in names if type(members.get(name)) is str), None)


def _tool(tool: Any) -> Any:
    """Return a tool's definition with its members in one object, from OpenAI's `function` or Anthropic's form."""
    if type(tool) is not dict:
        return tool
    inner = tool["function"] if type(tool.get("function")) is dict else tool
    found = {"type": tool.get("type") or "function", **inner}
    if "parameters" not in found and "input_schema" in found:
        found["parameters"] = found.pop("input_schema")
    return found
