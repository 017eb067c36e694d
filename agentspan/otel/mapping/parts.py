"""Messages as they go out: those of OpenAI's chat as messages of the GenAI conventions, which are lists of parts.

Images, audio and files are parts of type `blob`, `uri` or `file` there, whatever a provider calls them. A part that
the conventions do not know goes out as it is: they allow any type.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from agentspan.otel.mapping import messages

_MODALITIES = {
    "image_url": "image",
    "input_image": "image",
    "image": "image",
    "input_audio": "audio",
    "audio": "audio",
    "video_url": "video",
    "video": "video",
    "file": "document",
    "input_file": "document",
    "document": "document",
    "inline_data": "image",
    "file_data": "document",
}
"""The types of parts of providers, and what they hold where no media type says it."""
_HOLDERS = ("image_url", "video_url", "input_audio", "source", "file", "inline_data", "file_data")
"""Members that hold the members below, in an object of their own."""
_ADDRESSES = ("url", "image_url", "video_url", "file_url", "file_uri")
_CONTENTS = ("data", "file_data")
_MEDIA_TYPES = ("media_type", "mime_type")
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w.=+-]*)*;base64,")
_FORMATS = {"mp3": "audio/mpeg"}


def messages_of(value: Any, role: str = "user") -> list[dict[str, Any]] | None:
    """Return messages in any known form, or a text, as messages of the conventions; None if there are none."""
    if type(value) is str and value:
        return [_message({"role": role, "content": value})]
    found = messages.messages(value, role) if type(value) is list else []
    return [_message(said) for said in found if type(said) is dict] or None


def instructions(value: Any) -> list[dict[str, Any]]:
    """Return system instructions as parts."""
    return [part(each) for each in (value if type(value) is list else [value])]


def tools(value: Any) -> Any:
    """Return definitions of tools, each with its name beside its type and not in a member `function`."""
    return [_tool(each) for each in value] if type(value) is list else value


def part(said: Any) -> dict[str, Any]:
    """Return a part of a message as the conventions have it."""
    if type(said) is not dict:
        return {"type": "text", "content": said}
    kind = said.get("type")
    if kind in ("text", "reasoning") and type(said.get("text")) is str:
        return {"type": kind, "content": said["text"]}
    if type(kind) is not str:
        kind = next((name for name in _HOLDERS if name in said), "text")
    if kind in _MODALITIES and "modality" not in said and (found := _media(said, _MODALITIES[kind])) is not None:
        return found
    return {**said, "type": kind}


def _message(said: Mapping[str, Any]) -> dict[str, Any]:
    about = {name: said[name] for name in ("name", "finish_reason") if name in said}
    if "content" not in said and "tool_calls" not in said:  # no message, but an item between messages
        return {"role": said.get("role", "assistant"), "parts": [part(said)]}
    return {"role": said.get("role", "user"), "parts": [*_parts(said)], **about}


def _parts(said: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    content, calls = said.get("content"), said.get("tool_calls")
    if said.get("role") == "tool":
        yield {"type": "tool_call_response", "id": said.get("tool_call_id"), "response": content}
    elif content:
        yield from map(part, content if type(content) is list else [content])
    for call in calls if type(calls) is list else ():
        if type(call) is dict:
            yield {"type": "tool_call", **messages.tool_call(call)}


def _media(said: Mapping[str, Any], modality: str) -> dict[str, Any] | None:
    """Return a part with bytes, an address or the id of a file; None of one that has none of them."""
    inner = {**said, **next((said[name] for name in _HOLDERS if type(said.get(name)) is dict), {})}
    media_type = _first(inner, _MEDIA_TYPES)
    if media_type is None and type(inner.get("format")) is str:
        media_type = _FORMATS.get(inner["format"], f"{modality}/{inner['format']}")
    found, address = _first(inner, _CONTENTS), _first(inner, _ADDRESSES)
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


def _first(said: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((said[name] for name in names if type(said.get(name)) is str), None)


def _tool(said: Any) -> Any:
    """Return OpenAI's `{"type": "function", "function": {…}}`, or Anthropic's form, with the members side by side."""
    if type(said) is not dict:
        return said
    inner = said["function"] if type(said.get("function")) is dict else said
    found = {"type": said.get("type") or "function", **inner}
    if "parameters" not in found and "input_schema" in found:
        found["parameters"] = found.pop("input_schema")
    return found
