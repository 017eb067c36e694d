"""How much of a payload is kept, and the marks that stand for what is not: nothing is cut without a trace."""

import hashlib
from typing import Any, NamedTuple

from agentspan import jsontext

TRUNCATED = "$truncated"
"""The key of the mark that stands for what was too much: `{"$truncated": {"bytes": n, "sha256": …, "start": …}}`."""

START = 200
"""Characters of a cut text that its mark repeats."""


class Limits(NamedTuple):
    """What one payload, or result, may hold. Beyond that a mark tells how much was there.

    Attributes:
        value: characters of one text (or of bytes as base64). Of a longer one: `bytes`, `sha256` and `start`.
        payload: characters of the whole JSON. More: the biggest members become marks, small ones (token counts) stay.
        depth: containers within each other, at most 190. Deeper ones: `{"$truncated": {"depth": n}}`.
        items: members of one list or object. The rest are counted: `{"$truncated": {"items": n}}`.
    """

    value: int = 256 * 1024
    payload: int = 1024 * 1024
    depth: int = 100
    items: int = 10_000


def text_mark(text: str, start: str) -> dict[str, Any]:
    """Return the mark of a text that is too long; `start` is what may be shown of it."""
    data = text.encode("utf-8", "surrogatepass")
    return {TRUNCATED: {**_measure(data), "start": start}}


def bytes_mark(data: bytes | bytearray | memoryview) -> dict[str, Any]:
    """Return the mark of bytes that are too many."""
    return {TRUNCATED: _measure(data)}


def shrink(value: Any, room: int) -> Any:
    """Return plain JSON that takes about `room` characters: the smallest members stay, the biggest become marks.

    Nothing is encoded more often than it is deep, and only payloads over their limit come here.
    """
    text = jsontext.encode(value)[0]
    if len(text) <= room:
        return value
    if type(value) is dict and room > 2 * START:
        return _shrink_object(value, room)
    if type(value) is list and room > 2 * START:
        return _shrink_list(value, room)
    return {TRUNCATED: _measure(text.encode())}


def _shrink_object(value: dict[str, Any], room: int) -> dict[str, Any]:
    sizes = {key: len(jsontext.encode(item)[0]) for key, item in value.items()}
    kept: dict[str, Any] = {}
    for left, key in zip(range(len(sizes), 0, -1), sorted(sizes, key=sizes.__getitem__), strict=True):
        share = room // left  # what the small ones leave is the big ones'
        kept[key] = value[key] if sizes[key] <= share else shrink(value[key], share)
        room -= len(jsontext.encode(kept[key])[0])
        if room < 0 and len(kept) < len(sizes):
            kept[TRUNCATED] = {"items": len(sizes) - len(kept)}
            break
    return {key: kept[key] for key in (*value, TRUNCATED) if key in kept}


def _shrink_list(value: list[Any], room: int) -> list[Any]:
    kept: list[Any] = []
    for item in value:
        size = len(jsontext.encode(item)[0])
        if size > room:
            if not kept:
                kept.append(shrink(item, room))
            break
        kept.append(item)
        room -= size + 1
    if len(kept) < len(value):
        kept.append({TRUNCATED: {"items": len(value) - len(kept)}})
    return kept


def _measure(data: bytes | bytearray | memoryview) -> dict[str, Any]:
    return {"bytes": memoryview(data).nbytes, "sha256": hashlib.sha256(data).hexdigest()}
