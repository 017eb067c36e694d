"""The messages of an Inspect log: texts that stand elsewhere in it, pools of messages, and their content.

Inspect writes a long text once, as an attachment, and `attachment://…` in its places. It writes each message once, into
a pool, and a model call names ranges of the pool. Both are resolved here, but a range is not expanded for each call:
only messages that have not been seen before are returned.
"""

import json
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from agentspan.arriving import decoded, list_in, object_in, present, text_in

_ATTACHED = ("attachment://", "tc://")
"""The beginnings of references to an attachment; the second one is that of early logs."""
_DATA = "data:"
_BASE64 = ";base64,"


class Parts(Sequence[Any]):
    """A long list that lies in several files, of which one at a time is kept in memory.

    Args:
        starts: the index of the first item of each file, ascending.
        load: returns the items of the file with a number.
    """

    def __init__(self, starts: Sequence[int], load: Callable[[int], list[Any]]) -> None:
        self._starts = starts
        self._load = load
        self._number = -1
        self._items: list[Any] = []
        self._length: int | None = None

    def __len__(self) -> int:
        if self._length is None:
            last = len(self._starts) - 1
            self._length = self._starts[last] + len(self._file(last)) if self._starts else 0
        return self._length

    def __getitem__(self, index: Any) -> Any:
        number = bisect_right(self._starts, index) - 1
        if number < 0:
            raise IndexError(index)
        return self._file(number)[index - self._starts[number]]

    def _file(self, number: int) -> list[Any]:
        if number != self._number:
            self._items, self._number = self._load(number), number
        return self._items


class Texts:
    """The attachments of a sample.

    Args:
        found: the texts by their hash, or in a list by their index.
    """

    def __init__(self, found: Mapping[str, Any] | Sequence[Any]) -> None:
        self._found = found

    def whole(self, value: Any) -> Any:
        """Return a JSON value in which each reference to an attachment is replaced by its text."""
        if type(value) is str:
            return self._text(value) if value.startswith(_ATTACHED) else value
        if type(value) is dict:
            return {name: self.whole(member) for name, member in value.items()}
        if type(value) is list:
            return [self.whole(member) for member in value]
        return value

    def _text(self, value: str) -> Any:
        name = value[value.index("://") + 3 :]
        if isinstance(self._found, Mapping):
            return self._found.get(name, value)
        try:
            return self._found[int(name)]
        except (ValueError, IndexError):
            return value


class Seen:
    """The messages of a sample that are steps already. A message is known by its id, else by its role and its content.

    Args:
        texts: the attachments.
        pool: the messages that model calls refer to.
    """

    def __init__(self, texts: Texts, pool: Sequence[Any]) -> None:
        self._texts = texts
        self._pool = pool
        self._keys: set[Any] = set()
        self._calls: set[str] = set()
        self._indices: set[int] = set()
        self._read = 0  # all messages of the pool before this index are seen

    def add(self, message: Mapping[str, Any]) -> bool:
        """Add a message; return whether it is new."""
        key = self._key(message)
        if key in self._keys:
            return False
        self._keys.add(key)
        return True

    def add_call(self, call_id: str) -> None:
        """Add a tool call: the message with its result is no new message."""
        self._calls.add(call_id)

    def new_of(self, event: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the messages that a model call is the first to read."""
        for message in list_in(event.get("input")):
            yield from self._if_new(message)
        for part in list_in(event.get("input_refs")):
            yield from self._of_pool(part)

    def new_in(self, messages: Any) -> Iterator[dict[str, Any]]:
        """Yield the new ones of a list of messages."""
        for message in list_in(messages):
            yield from self._if_new(message)

    def _of_pool(self, part: Any) -> Iterator[dict[str, Any]]:
        if type(part) is int:  # one message
            part = [part, part + 1]
        start, end = part if type(part) is list and len(part) == 2 else (0, 0)
        if type(start) is not int or type(end) is not int:
            return
        end = min(end, len(self._pool))
        goes_on = 0 <= start <= self._read
        for index in range(self._read if goes_on else max(0, start), end):  # a call mostly repeats the one before
            if index not in self._indices:
                self._indices.add(index)
                yield from self._if_new(self._pool[index])
        if goes_on:
            self._read = max(self._read, end)

    def _if_new(self, message: Any) -> Iterator[dict[str, Any]]:
        if type(message) is not dict:
            return
        is_result = message.get("role") == "tool" and message.get("tool_call_id") in self._calls
        if self.add(message) and not is_result:
            yield message

    def _key(self, message: Mapping[str, Any]) -> tuple[str, ...]:
        has_id = text_in(message.get("id")) is not None
        return name_of(message, None if has_id else self._texts.whole(message.get("content")))


def name_of(message: Mapping[str, Any], content: Any) -> tuple[str, ...]:
    """Return the name of a message for the key of its step: its id; without one, its role and content."""
    id = text_in(message.get("id"))
    if id is not None:
        return (id,)
    return str(message.get("role")), content if type(content) is str else json.dumps(content, sort_keys=True)


def content_of(content: Any) -> Any:
    """Return the content of a message: a text, or blocks in which images have the form of Anthropic's API."""
    if type(content) is not list:
        return content
    blocks = [_block(part) for part in content]
    if len(blocks) == 1 and blocks[0].get("type") == "text" and len(blocks[0]) == 2:
        return blocks[0]["text"]
    return blocks


def texts_in(content: Any) -> str:
    """Return the text of a message's content, without other parts."""
    if type(content) is str:
        return content
    texts = (object_in(part).get("text") for part in list_in(content) if object_in(part).get("type") == "text")
    return "\n".join(text for text in texts if type(text) is str)


def thinking_in(content: Any) -> str | None:
    """Return the model's reasoning in a message's content; None without any."""
    found = [object_in(part) for part in list_in(content) if object_in(part).get("type") == "reasoning"]
    texts = [text_in(part.get("summary" if part.get("redacted") else "reasoning")) for part in found]
    return "\n".join(text for text in texts if text) or None


def calls_in(message: Mapping[str, Any], texts: Texts) -> list[dict[str, Any]]:
    """Return the tool calls of an assistant's message."""
    found = (object_in(call) for call in list_in(message.get("tool_calls")))
    return [
        present({"id": call.get("id"), "name": call.get("function"), "arguments": texts.whole(call.get("arguments")),
                 "parse_error": call.get("parse_error")})
        for call in found if call
    ]  # fmt: skip


def server_calls_in(content: Any) -> Iterator[dict[str, Any]]:
    """Yield the calls of tools that ran at the provider: search, code, MCP servers."""
    for part in list_in(content):
        if object_in(part).get("type") == "tool_use" and part.get("result") is not None:
            yield {**part, "arguments": decoded(part.get("arguments"))}


def others_in(content: Any) -> list[dict[str, Any]] | None:
    """Return the parts of a model's answer that are neither text nor reasoning nor calls; None without any."""
    known = ("text", "reasoning", "tool_use")
    found = [_block(part) for part in list_in(content) if object_in(part).get("type") not in known]
    return found or None


def _block(part: Any) -> dict[str, Any]:
    if type(part) is not dict:
        return {"type": "text", "text": part}
    kind = part.get("type")
    if kind == "text":
        return present({name: value for name, value in part.items() if name != "internal"})
    if kind == "image":
        return {"type": "image", "source": _source(part.get("image"))}
    return {name: value for name, value in part.items() if value is not None and name != "internal"}


def _source(url: Any) -> dict[str, Any]:
    if type(url) is str and url.startswith(_DATA):
        head, base64, data = url.partition(_BASE64)
        if base64:
            return {"type": "base64", "media_type": head[len(_DATA) :], "data": data}
    return {"type": "url", "url": url}
