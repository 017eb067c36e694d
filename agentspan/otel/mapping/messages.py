"""Converts messages of OpenTelemetry, OpenInference, LangChain and the providers to one form, that of OpenAI's chat.

A message is `{"role", "content", …}`. `tool_calls` are `[{"id", "name", "arguments"}]` with decoded arguments, and the
message of a tool has the `tool_call_id` that it answers. Content is one text if it has only text; else it is a list of
parts such as `{"type": "text", "text": …}`. A value in an unknown form stays unchanged.

Also reads attributes that contain a whole request or answer of a model provider: OpenAI's, Anthropic's, LangChain's.
Members of the body that become fields are removed from the attribute; its other members stay. So nothing is lost, and
messages are not stored twice.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from agentspan.otel.mapping.draft import Draft, Read, flag, listed, members, number, parsed, text, whole

ROLES = {"human": "user", "ai": "assistant", "model": "assistant", "developer": "system"}
_LC_CLASSES = {
    "HumanMessage": "user",
    "AIMessage": "assistant",
    "AIMessageChunk": "assistant",
    "SystemMessage": "system",
    "ToolMessage": "tool",
}
_DEEPEST = 4
"""The most levels of lists and wrapper objects that are searched for messages."""
_ABOUT = ("name", "tool_call_id", "finish_reason")
"""The members of a message that are kept beside its role and content."""
_PLAIN = frozenset({"role", "content", *_ABOUT})
_PARTS = '[{"type"'
"""The start of a content that is a list of parts as a JSON text."""


class ModelAnswer(NamedTuple):
    """The answer of a model: its messages, the text of all messages, and the tool calls in them."""

    messages: list[Any]
    text: str | None
    tool_calls: list[Any]


def messages(value: Any, role: str = "user") -> list[Any]:
    """Return the messages in a value: a list of messages or of lists, an object with `messages`, or a text.

    Args:
        value: the value, also as a JSON text.
        role: the role of a message that has no role.
    """
    value = parsed(value)
    if type(value) is not list:
        return [message for item in _items(value, 0) for message in _read(item, role)]
    found: list[Any] = []
    for each in value:
        if type(each) is dict and (plain := _plain(each)) is not None:
            found.append(plain)
        else:
            found += [message for item in _items(each, 1) for message in _read(item, role)]
    return found


def _plain(item: dict[str, Any]) -> dict[str, Any] | None:
    """Return a simple message in the common form; None for any other message.

    Most messages are simple: a role, a text and perhaps a name. This fast path takes 1 µs instead of 3.
    """
    speaker, content = item.get("role"), item.get("content")
    if type(speaker) is not str or type(content) is not str or not _PLAIN.issuperset(item):
        return None
    if content.startswith(_PARTS):
        return None
    found = {"role": ROLES.get(speaker, speaker), "content": content}
    if len(item) > 2:
        found.update({name: item[name] for name in _ABOUT if item.get(name) is not None})
    return found


def model_answer(value: Any) -> ModelAnswer:
    """Return the answer of a model from its messages.

    Args:
        value: messages in any form, a JSON text, or a plain text.
    """
    found = messages(value, "assistant")
    texts = [text for message in found if (text := text_of(message))]
    called = [call for message in found if type(message) is dict for call in message.get("tool_calls") or ()]
    return ModelAnswer(found, "\n".join(texts) or None, called)


def split_system(found: list[Any]) -> tuple[Any, list[Any]]:
    """Return the content of a first message that is only system instructions, or None, and the other messages."""
    head = found[0] if found else None
    if type(head) is dict and head.get("role") == "system" and head.keys() <= {"role", "content"}:
        return head.get("content"), found[1:]
    return None, found


def text_of(message: Any) -> str:
    """Return the text of a message, without its reasoning; an empty text if it has none."""
    content = message.get("content") if type(message) is dict else message
    if type(content) is str:
        return content
    parts = content if type(content) is list else ()
    texts = [part.get("text") for part in parts if type(part) is dict and part.get("type") == "text"]
    return "".join(text for text in texts if type(text) is str)


def final_text(found: list[Any]) -> str | None:
    """Return the last text of an assistant in a conversation, or None."""
    spoken = (text_of(each) for each in reversed(found) if type(each) is dict and each.get("role") == "assistant")
    return next((text for text in spoken if text), None)


def state(value: Any) -> dict[str, Any] | None:
    """Return the state of a graph, `{"messages": […], …}`, with converted messages; None if the value is no state."""
    if type(value) is not dict or type(value.get("messages")) is not list:
        return None
    return {**value, "messages": messages(value["messages"])}


def instructions(value: Any) -> Any:
    """Return system instructions as one text, from a text, a list of texts or parts; unchanged without texts."""
    value = parsed(value)
    parts = value if type(value) is list else [value]
    texts = [part if type(part) is str else _part(part).get("text") for part in parts if type(part) in (str, dict)]
    return "\n".join(texts) if texts and all(type(text) is str for text in texts) else value or None


def tool_call(value: Any) -> Any:
    """Return a tool call of any provider as `{"id", "name", "arguments"}`."""
    if type(value) is not dict:
        return value
    function = value.get("function")
    inner = function if type(function) is dict else value
    arguments = next((inner[key] for key in ("arguments", "args", "input") if inner.get(key) is not None), None)
    found = {
        "id": value.get("id") or value.get("call_id") or value.get("tool_call_id") or value.get("toolCallId"),
        "name": inner.get("name") or value.get("toolName"),
        "arguments": parsed(arguments),
    }
    return {key: item for key, item in found.items() if item is not None}


def tools(value: Any) -> list[Any] | None:
    """Return the definitions of tools, with JSON texts parsed; None if there are none."""
    value = parsed(value)
    found = [parsed(item) for item in value] if type(value) is list else []
    return found or None


def _items(value: Any, depth: int) -> Iterator[Any]:
    if type(value) is list and depth < _DEEPEST:
        for item in value:
            yield from _items(item, depth + 1)
    elif type(value) is dict and type(value.get("messages")) is list and "role" not in value and depth < _DEEPEST:
        yield from _items(value["messages"], depth + 1)
    elif value is not None and value != "":
        yield value


def _read(item: Any, role: str) -> Iterator[Any]:
    if type(item) is str:
        yield {"role": role, "content": item}
    elif type(item) is not dict:
        yield item
    elif type(item.get("kwargs")) is dict and item.get("lc"):  # LangChain: {"lc": 1, "type": "constructor", …}
        name = item["id"][-1] if type(item.get("id")) is list and item["id"] else ""
        yield _langchain(item["kwargs"], _LC_CLASSES.get(name, "") if type(name) is str else "")
    elif type(item.get("data")) is dict and type(item.get("type")) is str and "role" not in item:
        yield _langchain(item["data"], item["type"])
    elif "role" not in item and item.get("type") in ("human", "ai", "system", "tool") and "content" in item:
        yield _langchain(item, item["type"])
    elif type(item.get("parts")) is list:
        yield from _parts(item, role)
    elif item.get("type") == "function_call" and "role" not in item:
        yield {"role": "assistant", "content": "", "tool_calls": [tool_call({**item, "id": item.get("call_id")})]}
    elif item.get("type") == "function_call_output" and "role" not in item:
        yield {"role": "tool", "tool_call_id": item.get("call_id"), "content": item.get("output")}
    elif item.get("type") == "reasoning" and "role" not in item:
        yield {"role": "assistant", "content": [{"type": "reasoning", "text": _summary(item)}]}
    else:
        yield from _chat(item, role)


def _summary(item: Mapping[str, Any]) -> str:
    parts = item.get("summary") or item.get("content")
    texts = [part.get("text") for part in parts if type(part) is dict] if type(parts) is list else []
    return "\n".join(text for text in texts if type(text) is str)


def _chat(item: dict[str, Any], role: str) -> Iterator[Any]:
    """Convert a message of OpenAI's or Anthropic's form. Each answer of a tool in it becomes a separate message."""
    content = item.get("content")
    if type(content) is str and content.startswith(_PARTS):
        content = parsed(content)
    if "content" not in item and "tool_calls" not in item:
        yield item
        return
    speaker = item.get("role", role)
    found: dict[str, Any] = {"role": ROLES.get(speaker, speaker) if type(speaker) is str else speaker}
    calls = [tool_call(call) for call in item["tool_calls"]] if type(item.get("tool_calls")) is list else []
    kept: list[Any] = []
    for part in content if type(content) is list else ():
        if type(part) is dict and part.get("type") in ("tool_use", "tool-call"):
            if tool_call(part) not in calls:
                calls.append(tool_call(part))
        elif type(part) is dict and part.get("type") in ("tool_result", "tool-result"):
            yield _answer(part)
        else:
            kept.append(_part(part))
    found["content"] = _content(kept) if type(content) is list else content if content is not None else ""
    if type(content) is list and content and not kept and not calls:
        return  # the message had only answers of tools
    if calls:
        found["tool_calls"] = calls
    for name in _ABOUT:
        if item.get(name) is not None:
            found[name] = item[name]
    if found["role"] == "tool" and "tool_call_id" not in found and type(item.get("id")) is str:
        found["tool_call_id"] = item["id"]
    yield found


def _answer(part: Mapping[str, Any]) -> dict[str, Any]:
    answer = next((part[key] for key in ("content", "output", "result") if part.get(key) is not None), "")
    if type(answer) is list:
        answer = _content([_part(each) for each in answer])
    return {"role": "tool", "tool_call_id": part.get("tool_use_id") or part.get("toolCallId"), "content": answer}


def _langchain(data: Mapping[str, Any], type_: str) -> dict[str, Any]:
    speaker = data.get("type") if type(data.get("type")) is str else type_
    found: dict[str, Any] = {"role": ROLES.get(str(speaker), type_ or speaker)}
    content = data.get("content")
    kept = [part for part in content if not _is_call(part)] if type(content) is list else content
    found["content"] = _content([_part(part) for part in kept]) if type(kept) is list else kept
    calls = data.get("tool_calls")
    if type(calls) is list and calls:
        found["tool_calls"] = [tool_call(call) for call in calls]
    for name in ("name", "tool_call_id"):
        if data.get(name):
            found[name] = data[name]
    return found


def _is_call(part: Any) -> bool:
    return type(part) is dict and part.get("type") in ("tool_use", "function_call")


def _parts(item: Mapping[str, Any], role: str) -> Iterator[Any]:
    """Convert a message of OpenTelemetry's form, with `parts`. Each answer of a tool becomes a separate message."""
    speaker = item.get("role", role)
    found: dict[str, Any] = {"role": ROLES.get(speaker, speaker) if type(speaker) is str else speaker}
    kept, calls, answers = [], [], []
    for part in item["parts"]:
        kind = part.get("type") if type(part) is dict else None
        if kind == "tool_call":
            calls.append(tool_call(part))
        elif kind == "tool_call_response":
            keys = ("response", "result", "content")
            answer = next((part[key] for key in keys if part.get(key) is not None), "")
            answers.append({"role": "tool", "tool_call_id": part.get("id"), "content": answer})
        else:
            kept.append(_part(part))
    if kept or calls or not answers:
        found["content"] = _content(kept)
        if calls:
            found["tool_calls"] = calls
        for name in ("name", "finish_reason"):
            if item.get(name):
                found[name] = item[name]
        yield found
    yield from answers


def _part(part: Any) -> Any:
    """Return a part as `{"type", "text"}` if it is text or reasoning; return another part unchanged."""
    if type(part) is str:
        return {"type": "text", "text": part}
    if type(part) is not dict:
        return part
    kind = part.get("type", "text")
    if kind in ("text", "input_text", "output_text") or (kind == "text" and "text" in part):
        spoken = part.get("text") if type(part.get("text")) is str else part.get("content")
        return {"type": "text", "text": spoken} if type(spoken) is str else part
    if kind in ("reasoning", "thinking"):
        thought = next((part[key] for key in ("text", "content", "thinking") if type(part.get(key)) is str), None)
        return {"type": "reasoning", "text": thought} if thought is not None else part
    return part


def _content(parts: list[Any]) -> Any:
    """Return parts of a content as one text if all are texts; else return the parts."""
    if all(type(part) is dict and part.get("type") == "text" and type(part.get("text")) is str for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


PARAMETERS: tuple[tuple[str, tuple[str, ...], Read], ...] = (
    ("payload.temperature", ("temperature",), number),
    ("payload.max_tokens", ("max_tokens", "max_completion_tokens", "max_output_tokens"), whole),
    ("payload.stream", ("stream",), flag),
    ("payload.seed", ("seed",), whole),
    ("payload.top_p", ("top_p",), number),
    ("payload.top_k", ("top_k",), whole),
    ("payload.stop_sequences", ("stop", "stop_sequences"), listed),
    ("payload.tools", ("tools", "functions"), tools),
)
"""The parameters of a request: the field, the providers' names for it, and the function that reads it."""
_USAGE: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...] = (
    ("input_tokens", (("input_tokens",), ("prompt_tokens",), ("inputTokens",), ("promptTokens",))),
    ("output_tokens", (("output_tokens",), ("completion_tokens",), ("outputTokens",), ("completionTokens",))),
    (
        "cached_tokens",
        (
            ("prompt_tokens_details", "cached_tokens"),
            ("input_tokens_details", "cached_tokens"),
            ("input_token_details", "cache_read"),
            ("cache_read_input_tokens",),
            ("cachedInputTokens",),
        ),
    ),
    (
        "cache_write_tokens",
        (
            ("prompt_tokens_details", "cache_write_tokens"),
            ("input_token_details", "cache_creation"),
            ("cache_creation_input_tokens",),
        ),
    ),
    (
        "reasoning_tokens",
        (
            ("completion_tokens_details", "reasoning_tokens"),
            ("output_tokens_details", "reasoning_tokens"),
            ("output_token_details", "reasoning"),
            ("reasoningTokens",),
        ),
    ),
)


def asked(draft: Draft, value: Any, *names: str) -> None:
    """Set the system instructions and the messages of a request.

    Args:
        draft: the span that is being mapped.
        value: the messages, in any form.
        names: the attributes that the messages were read from.
    """
    system, rest = split_system(messages(value))
    draft.put("payload.system", system)
    draft.put("payload.messages", rest or None, *names)


def request(draft: Draft, name: str) -> None:
    """Set the payload fields of an llm span from an attribute that has a request, or only a request's messages."""
    request_of(draft, name, parsed(draft.get(name)))


def request_of(draft: Draft, name: str, value: Any) -> None:
    """Set the payload fields of an llm span from a decoded request, or a list of messages.

    Args:
        draft: the span that is being mapped.
        name: the attribute that the value came from. It keeps the members that become no field.
        value: the decoded value of the attribute.
    """
    if type(value) is list:
        asked(draft, value, name)
        return
    if type(value) is not dict:
        return
    body, rest = value, dict(value)
    for field in ("messages", "input", "contents"):
        if type(body.get(field)) in (list, str) and body[field]:
            if "messages" not in draft.payload:
                asked(draft, body[field])
            del rest[field]
    for field in ("system", "instructions"):
        if body.get(field):
            draft.put("payload.system", instructions(body[field]))
            del rest[field]
    if (model := text(body.get("model"))) is not None:
        draft.put("payload.model", model)
        if draft.payload["model"] == model:
            del rest["model"]
    draft.leave(name, parameters(draft, rest))


def parameters(draft: Draft, body: Mapping[str, Any]) -> dict[str, Any]:
    """Set the fields of a request's parameters, such as the temperature, and return the other members of the body."""
    rest = {name: value for name, value in body.items() if value is not None}
    if not rest:
        return rest
    for place, names, read in PARAMETERS:
        for name in names:
            if (value := read(body.get(name))) is not None:
                draft.put(place, value)
                rest.pop(name, None)
    return rest


def answer(draft: Draft, name: str) -> None:
    """Set the result fields of an llm span from an attribute that has an answer, or only an answer's messages."""
    answer_of(draft, name, parsed(draft.get(name)))


def answer_of(draft: Draft, name: str, value: Any) -> None:
    """Set the result fields of an llm span from a decoded answer, a list of messages, or a text.

    Args:
        draft: the span that is being mapped.
        name: the attribute that the value came from. It keeps the members that become no field.
        value: the decoded value of the attribute.
    """
    if type(value) is str and "text" not in draft.result:
        output(draft, value)
        draft.leave(name, None)
    if type(value) is not dict and type(value) is not list:
        return
    if type(value) is list and len(value) == 1 and type(value[0]) is dict and "output" in value[0]:
        value = value[0]  # OpenAI's agents SDK writes a list of one response
    body = value if type(value) is dict else {}
    rest = dict(body)
    found: Any = None
    if type(choices := body.get("choices")) is list:
        found = [each.get("message", each) for each in choices if type(each) is dict]
        draft.put("result.finish_reason", _first(choices, "finish_reason"))
        rest.pop("choices")
    elif type(body.get("generations")) is list:
        found = _generations(draft, body)
        rest.pop("generations")
    elif type(body.get("output")) is list:
        found = body["output"]
        rest.pop("output")
    elif type(body.get("content")) is list or "tool_calls" in body or body.get("role") == "assistant":
        found = [{"role": "assistant", **{key: body[key] for key in ("content", "tool_calls") if key in body}}]
        draft.put("result.finish_reason", text(body.get("stop_reason")))
        rest = {key: item for key, item in rest.items() if key not in ("content", "tool_calls", "role")}
    elif _are_messages(body.get("messages")):
        found = rest.pop("messages")
    elif type(value) is list:
        found = value
    if found is None:
        return
    output(draft, found)
    is_item = body.get("type") == "message" and "status" in body  # an item of OpenAI's answer, whose id is the item's
    for place, member in (("result.response_model", "model"), ("result.response_id", "" if is_item else "id")):
        if (item := text(body.get(member))) is not None and not item.startswith("__"):
            draft.put(place, item)
            if draft.result.get(place.partition(".")[2]) == item:
                rest.pop(member)
    if (used := members(body.get("usage"))) is not None:
        usage(draft, used, adds_cached=body.get("type") == "message")
    draft.leave(name, {key: item for key, item in rest.items() if item is not None})


def output(draft: Draft, value: Any, *names: str) -> None:
    """Set the result fields of a model's answer: its messages, text, tool calls and finish reason.

    Args:
        draft: the span that is being mapped.
        value: the messages of the answer, in any form.
        names: the attributes that the messages were read from.
    """
    if "output_messages" in draft.result and not names:
        return
    answer = model_answer(value)
    if not answer.messages:
        return
    draft.put("result.output_messages", answer.messages, *names)
    if draft.result["output_messages"] != answer.messages:
        return
    draft.put("result.text", answer.text)
    draft.put("result.tool_calls", answer.tool_calls or None)
    last = answer.messages[-1]
    draft.put("result.finish_reason", text(last.get("finish_reason")) if type(last) is dict else None)


def usage(draft: Draft, used: Mapping[str, Any], *, adds_cached: bool = False) -> None:
    """Set the counts of tokens from a provider's usage object.

    Args:
        adds_cached: whether the provider's input tokens exclude cached tokens, as Anthropic's do. Then they are added.
    """
    counts = {field: _count(used, paths) for field, paths in _USAGE}
    if adds_cached and counts["input_tokens"] is not None:
        counts["input_tokens"] += (counts["cached_tokens"] or 0) + (counts["cache_write_tokens"] or 0)
    for field, value in counts.items():
        draft.put(f"result.{field}", value)


def _are_messages(value: Any) -> bool:
    return type(value) is list and any(type(each) in (dict, list) for each in value)


def _count(used: Mapping[str, Any], paths: tuple[tuple[str, ...], ...]) -> int | None:
    for path in paths:
        value: Any = used
        for member in path:
            value = value.get(member) if isinstance(value, Mapping) else None
        if (found := whole(value)) is not None:
            return found
    return None


def _first(items: list[Any], member: str) -> str | None:
    return next((found for each in items if type(each) is dict and (found := text(each.get(member)))), None)


def _generations(draft: Draft, body: Mapping[str, Any]) -> list[Any]:
    """Return the messages of LangChain's LLMResult, and set the fields that only the messages have, such as usage."""
    groups = body["generations"]
    inner = [each for group in groups for each in (group if type(group) is list else [group]) if type(each) is dict]
    found = []
    for each in inner:
        message = each.get("message")
        found.append(message if type(message) is dict else {"role": "assistant", "content": each.get("text", "")})
        kwargs = message.get("kwargs", message) if type(message) is dict else {}
        described = kwargs.get("response_metadata") if type(kwargs) is dict else None
        info = each.get("generation_info")
        for about in (info, described):
            if type(about) is dict:
                draft.put("result.finish_reason", text(about.get("finish_reason")) or text(about.get("stop_reason")))
        if type(described) is dict:
            draft.put("result.response_model", text(described.get("model_name")) or text(described.get("model")))
            draft.put("result.response_id", text(described.get("id")))
        if type(kwargs) is dict and type(kwargs.get("usage_metadata")) is dict:
            usage(draft, kwargs["usage_metadata"])
    return found
