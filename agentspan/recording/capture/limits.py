"""Limits of payloads, and the marks that replace what is cut: nothing is cut without a trace."""

import hashlib
import json
from collections.abc import Collection
from typing import Any, NamedTuple

from pydantic_core import to_json

TRUNCATED = "$truncated"
"""The key of the mark that stands for what was too much: `{"$truncated": {"bytes": n, "sha256": …, "start": …}}`."""

START = 200
"""Characters of a cut text that its mark repeats."""

BLOB = 150
"""Characters of a payload's limit that a blob takes."""
_CHUNK = 1024 * 1024
_SMALL = 300  # what takes no more is kept whole or left out: its mark would take nearly as much
_MORE = len('"$truncated":{"items":1000000},')
_CONTAINERS = frozenset({dict, list})


class Limits(NamedTuple):
    """The limits of one payload, or result. A mark says how much there was beyond them.

    Attributes:
        value: characters of one text. Of a longer one: `bytes`, `sha256` and `start`.
        payload: characters of the whole JSON. More: the biggest members become marks, small ones (token counts) stay.
        depth: containers within each other, at most 190. Deeper ones: `{"$truncated": {"depth": n}}`.
        items: members of one list or object. The rest are counted: `{"$truncated": {"items": n}}`.
        blob: bytes of one image, of audio, or of other bytes, also as base64 of 1,024 characters and more. Up to it,
            neither `value` nor `payload` counts them. Beyond it base64 is text; of bytes: `bytes` and `sha256`.
    """

    value: int = 256 * 1024
    payload: int = 1024 * 1024
    depth: int = 100
    items: int = 10_000
    blob: int = 8 * 1024 * 1024


def text_mark(text: str, start: str, *, hashed: bool = True, chunk: int = _CHUNK) -> dict[str, Any]:
    """Return the mark of a text that is too long.

    Args:
        start: what may be shown of it.
        hashed: whether it has the hash of the text.
        chunk: characters that are encoded and hashed at once. All at once would take the memory of the text again.
    """
    if not hashed:
        return {TRUNCATED: {"characters": len(text), "start": start}}
    digest, size = hashlib.sha256(), 0
    for begin in range(0, len(text), chunk):
        data = text[begin : begin + chunk].encode("utf-8", "surrogatepass")
        digest.update(data)
        size += len(data)
    return {TRUNCATED: {"bytes": size, "sha256": digest.hexdigest(), "start": start}}


def bytes_mark(data: bytes | memoryview, *, hashed: bool = True) -> dict[str, Any]:
    """Return the mark of bytes that are too many."""
    size = memoryview(data).nbytes
    return {TRUNCATED: {"bytes": size, "sha256": hashlib.sha256(data).hexdigest()} if hashed else {"bytes": size}}


def encode(plain: Any) -> str:
    """Return plain JSON as text; lone surrogates, which no text of a database may hold, as escapes."""
    try:
        return to_json(plain).decode()
    except ValueError:
        text = json.dumps(plain, ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"))
        return text.encode("utf-8", "backslashreplace").decode()  # as JSON writes them; nothing else is replaced


def shrink(value: Any, room: int, blobs: Collection[int] = ()) -> Any:
    """Return plain JSON that takes at most `room` characters as text, or is one mark of at most 150.

    Args:
        blobs: the ids of texts that stay, and count as `BLOB` characters.

    The smallest members stay as they are and leave the big ones what they do not need; those become marks. Linear but
    for the sorting: each value is measured once. Only payloads over their limit come here.
    """
    return _Shrinking(blobs).to(value, room)


class _Shrinking:
    """One value, which is a tree: measured from below, cut from above."""

    def __init__(self, blobs: Collection[int]) -> None:
        self._blobs = blobs
        self._sizes: dict[int, tuple[Any, int]] = {}  # of dicts and lists, which are kept so that no id comes twice

    def to(self, value: Any, room: int) -> Any:
        if self._size(value) <= room:
            return value
        kind = type(value)
        if kind is dict and room > START:
            return self._object(value, room)
        if kind is list and room > START:
            return self._list(value, room)
        if kind is str:
            mark = text_mark(value, value[:START])
            if len(encode(mark)) > room:
                del mark[TRUNCATED]["start"]
            return mark
        return bytes_mark(encode(value).encode())

    def _object(self, value: dict[str, Any], room: int) -> dict[str, Any]:
        more = _more(value)
        members = {key: item for key, item in value.items() if key != TRUNCATED} if more else value
        labels = {key: len(encode(key)) + 2 for key in members}  # with colon and comma
        kept = self._share(members, labels, room - 2 - _MORE)
        shown = {key: kept[key] for key in members if key in kept}
        more += len(members) - len(shown)
        return {**shown, TRUNCATED: {"items": more}} if more else shown

    def _list(self, value: list[Any], room: int) -> list[Any]:
        more = _more(value[-1])
        members = value[:-1] if more else value
        room -= 2 + _MORE + 2
        count = least = 0
        for item in members:  # as many from the start as can have their marks at least
            # A text of this length takes more than its mark; it is measured once it is known to be among them.
            least += (_SMALL if type(item) is str and len(item) > _SMALL else min(self._size(item), _SMALL)) + 1
            if least > room:
                break
            count += 1
        kept = self._share(dict(enumerate(members[:count])), dict.fromkeys(range(count), 1), room)
        shown = [kept[index] for index in sorted(kept)]
        more += len(members) - len(shown)
        return [*shown, {TRUNCATED: {"items": more}}] if more else shown

    def _share(self, members: dict[Any, Any], labels: dict[Any, int], room: int) -> dict[Any, Any]:
        """Return what is kept of the members, from the smallest on.

        A text is kept whole if the bigger ones can still have their marks. A container, of which a part says something,
        gets an equal share of what is left.
        """
        sizes = {key: self._size(item) for key, item in members.items()}
        order = sorted(sizes, key=sizes.__getitem__)
        marks = sum(min(sizes[key], _SMALL) + labels[key] for key in order)
        kept: dict[Any, Any] = {}
        for left, key in zip(range(len(order), 0, -1), order, strict=True):
            item, label, size = members[key], labels[key], sizes[key]
            marks -= min(size, _SMALL) + label
            share = (room if type(item) is str else room // left) - label
            if size > max(share - (marks if type(item) is str else 0), _SMALL):
                item = self.to(item, max(room // left - label, 1))
                size = self._size(item)
            cost = label + size
            if cost <= room:
                kept[key] = item
                room -= cost
        return kept

    def _size(self, value: Any) -> int:
        """Return how many characters a value takes as JSON."""
        kind = type(value)
        if kind is not dict and kind is not list:
            return BLOB if id(value) in self._blobs else len(encode(value))
        known = self._sizes.get(id(value))
        if known is not None:
            return known[1]
        size = max(len(value), 1) + 1  # brackets and commas
        if not self._blobs and _CONTAINERS.isdisjoint(map(type, value.values() if kind is dict else value)):
            size = len(encode(value))  # one call for all of them
        elif kind is dict:
            size += sum(len(encode(key)) + 1 + self._size(item) for key, item in value.items())
        else:
            size += sum(map(self._size, value))
        self._sizes[id(value)] = (value, size)
        return size


def _more(value: Any) -> int:
    """Return how many members the walk has left out already, as the mark in an object, or one in a list, says."""
    mark = value.get(TRUNCATED) if type(value) is dict else None
    more = mark.get("items") if type(mark) is dict else None
    return more if type(more) is int else 0
