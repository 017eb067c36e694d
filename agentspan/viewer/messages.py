"""Chat messages in the forms that model clients use, as one form: OpenAI's (chat, responses), Anthropic's, Google's.

What is in no known form is shown as JSON text, never dropped.
"""

from collections.abc import Iterator
from typing import Any, TypedDict

from agentspan import jsontext

ROLES = {"model": "assistant", "ai": "assistant", "human": "user", "developer": "system", "function": "tool"}
_TEXT_PARTS = frozenset({"text", "input_text", "output_text", "thinking", "reasoning", "refusal"})


class Call(TypedDict):
    """A tool that a model wants called; arguments as JSON text."""

    id: str | None
    name: str
    arguments: str


class Message(TypedDict):
    """One message.

    `call_id` is what a tool's message answers; `others` names the parts that are no text, such as `image_url`.
    """

    role: str
    text: str
    calls: list[Call]
    call_id: str | None
    others: list[str]


def read(value: Any, role: str = "user") -> list[Message]:
    """Return the messages that a value holds: a list of them, one of them, or a text of `role`."""
    if value is None or value == "" or value == []:
        return []
    items = value if isinstance(value, list) else [value]
    return [message for item in items for message in _messages(item, role)]


def calls(value: Any) -> list[Call]:
    """Return the tool calls in a list of them."""
    return [_call(item) for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def text_of(value: Any) -> str:
    """Return any value as text: a text as it is, the text of chat parts, anything else as JSON."""
    if isinstance(value, str):
        return value
    parts = value if isinstance(value, list) else [value]
    if parts and all(isinstance(part, dict) and isinstance(_part_text(part), str) and "type" in part for part in parts):
        return _content(value)[0]
    return jsontext.encode(value)[0]


def _messages(item: Any, role: str) -> Iterator[Message]:
    if not isinstance(item, dict):
        yield _message(role, item if isinstance(item, str) else jsontext.encode(item)[0])
        return
    kind = _text(item.get("type"))
    if kind == "function_call":  # OpenAI's responses have calls and answers beside the messages
        yield {**_message("assistant", ""), "calls": [_call(item)]}
    elif kind == "function_call_output":
        yield {**_message("tool", text_of(item.get("output"))), "call_id": _text(item.get("call_id"))}
    elif kind in _TEXT_PARTS and "role" not in item:
        yield _message(role, *_content([item]))
    elif not item.keys() & {"role", "content", "parts", "tool_calls"}:
        yield _message(role, jsontext.encode(item)[0])
    else:
        yield from _chat(item, role)


def _chat(item: dict[str, Any], role: str) -> Iterator[Message]:
    said = item.get("role") if isinstance(item.get("role"), str) else role
    said = ROLES.get(said or "", said or "")
    content = item.get("content", item.get("parts"))
    parts = content if isinstance(content, list) else []
    for part in parts:  # Anthropic's answers of tools are parts of a user's message
        if isinstance(part, dict) and part.get("type") == "tool_result":
            answer = _message("tool", text_of(part.get("content")))
            yield {**answer, "call_id": _text(part.get("tool_use_id"))}
    rest = [part for part in parts if not _is_type(part, "tool_result", "tool_use")] if parts else content
    text, others = _content(rest)
    made = calls(item.get("tool_calls")) + [_call(part) for part in parts if _is_type(part, "tool_use")]
    if isinstance(item.get("function_call"), dict):
        made.append(_call(item["function_call"]))
    if text or others or made or not parts:
        message = _message(said, text, others)
        yield {**message, "calls": made, "call_id": _text(item.get("tool_call_id"))}


def _message(role: str, text: str, others: list[str] | None = None) -> Message:
    return {"role": role, "text": text, "calls": [], "call_id": None, "others": others or []}


def _content(value: Any) -> tuple[str, list[str]]:
    """Return the text of a message's content, and the names of its parts that are no text."""
    if value is None:
        return "", []
    if isinstance(value, str):
        return value, []
    if not isinstance(value, list):
        value = [value]
    texts: list[str] = []
    others: list[str] = []
    for part in value:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and isinstance(text := _part_text(part), str):
            texts.append(text)
        elif isinstance(part, dict) and isinstance(part.get("type"), str):
            others.append(part["type"])
        else:
            texts.append(jsontext.encode(part)[0])
    return "\n".join(texts), others


def _part_text(part: dict[str, Any]) -> Any:
    if _text(part.get("type", "text")) not in _TEXT_PARTS:
        return None
    return next((part[name] for name in ("text", "thinking", "refusal") if name in part), None)


def _call(item: dict[str, Any]) -> Call:
    function = item["function"] if isinstance(item.get("function"), dict) else item
    arguments: Any = next((function[name] for name in ("arguments", "input", "args") if name in function), {})
    return {
        "id": _text(item.get("id")) if item.get("call_id") is None else _text(item["call_id"]),
        "name": _text(function.get("name")) or "?",
        "arguments": arguments if isinstance(arguments, str) else jsontext.encode(arguments)[0],
    }


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _is_type(part: Any, *types: str) -> bool:
    return isinstance(part, dict) and part.get("type") in types
