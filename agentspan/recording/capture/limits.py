"""Limits of payloads, and the marks that replace cut values: nothing is cut without a visible mark."""

import hashlib
import json
from collections.abc import Collection
from typing import Any, NamedTuple

from pydantic_core import to_json

TRUNCATED = "$truncated"
"""The key of the mark in place of a cut value: `{"$truncated": {"bytes": n, "sha256": …, "start": …}}`."""

START = 200
"""The number of characters of a cut text that its mark repeats."""

BLOB = 150
"""The number of characters that a blob counts for the limit of a payload."""
_CHUNK = 1024 * 1024
_SMALL = 300  # a value up to this size is kept whole or left out, because its mark would be nearly as large
_MORE = len('"$truncated":{"items":1000000},')
_CONTAINERS = frozenset({dict, list})


class Limits(NamedTuple):
    """The limits of one payload or result. A mark with the original size replaces a value beyond a limit.

    Attributes:
        value: characters of one text. The mark of a longer text has `bytes`, `sha256` and `start`.
        payload: characters of the whole JSON. Beyond it, the largest members become marks; small ones (token counts)
            stay.
        depth: nested containers, at most 190. A deeper one becomes `{"$truncated": {"depth": n}}`.
        items: members of one list or object. The others are counted: `{"$truncated": {"items": n}}`.
        blob: bytes of one image, of audio, or of other bytes, also as base64 of at least 1,024 characters. A blob
            within this limit does not count for `value` and `payload`. A larger base64 text is an ordinary text; larger
            bytes become a mark with `bytes` and `sha256`.
    """

    value: int = 256 * 1024
    payload: int = 1024 * 1024
    depth: int = 100
    items: int = 10_000
    blob: int = 8 * 1024 * 1024


def text_mark(text: str, start: str, *, hashed: bool = True, chunk: int = _CHUNK) -> dict[str, Any]:
    """Return the mark of a text that is too long.

    Args:
        start: the redacted start of the text, for the mark.
        hashed: whether the mark has the hash of the text.
        chunk: characters that are encoded and hashed at once. The whole text at once would need its memory twice.
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
    """Return plain JSON as text. Lone surrogates, which a database cannot store, are escaped."""
    try:
        return to_json(plain).decode()
    except ValueError:
        text = json.dumps(plain, ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"))
        return text.encode("utf-8", "backslashreplace").decode()  # as JSON writes them; nothing else is replaced


def shrink(value: Any, room: int, blobs: Collection[int] = ()) -> Any:
    """Shrink plain JSON to at most `room` characters of text, or to one mark of at most 150 characters.

    The smallest members stay whole, and the largest ones become marks. Linear except for the sorting: each value is
    measured once. Called only for payloads over their limit.

    Args:
        blobs: the ids of texts that stay whole, and count as `BLOB` characters each.
    """
    return _Shrinking(blobs).to(value, room)


class _Shrinking:
    """The shrinking of one value: its containers are measured bottom-up, and cut top-down."""

    def __init__(self, blobs: Collection[int]) -> None:
        self._blobs = blobs
        self._sizes: dict[int, tuple[Any, int]] = {}  # by id; holds the containers, so that no id is reused

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
        for item in members:  # counts the members from the start that have room for at least their marks
            # A longer text has a mark of this size; the text itself is measured only if it is among these members.
            least += (_SMALL if type(item) is str and len(item) > _SMALL else min(self._size(item), _SMALL)) + 1
            if least > room:
                break
            count += 1
        kept = self._share(dict(enumerate(members[:count])), dict.fromkeys(range(count), 1), room)
        shown = [kept[index] for index in sorted(kept)]
        more += len(members) - len(shown)
        return [*shown, {TRUNCATED: {"items": more}}] if more else shown

    def _share(self, members: dict[Any, Any], labels: dict[Any, int], room: int) -> dict[Any, Any]:
        """Return the kept members, shrunk if needed; the smallest get room first.

        A text is kept whole if the larger members then still have room for their marks. A container, of which also a
        part is useful, gets an equal share of the remaining room.
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
        """Return the number of characters of a value as JSON text."""
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
    """Return the number of members left out already, from the mark in an object; 0 if it has no mark."""
    mark = value.get(TRUNCATED) if type(value) is dict else None
    more = mark.get("items") if type(mark) is dict else None
    return more if type(more) is int else 0
