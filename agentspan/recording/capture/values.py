"""Reads the text, class, members and fields of values of any class, without consuming iterators.

Also turns texts, numbers and bytes into JSON: redacted, and replaced by marks if they are longer than the limits.
Nothing is cut without a visible mark.
"""

import base64
import dataclasses
import hashlib
import json
from array import array
from collections import UserList, deque
from collections.abc import Callable, Collection, ItemsView, Iterable, KeysView, Mapping, ValuesView
from contextlib import nullcontext
from enum import Enum
from itertools import islice
from reprlib import repr as short_repr
from typing import Any, NamedTuple

from pydantic_core import to_json

from agentspan.blobs import LEAST, begins_like_blob, is_blob, is_image_or_audio
from agentspan.host import guard, is_interrupt
from agentspan.model.columns import REDACTED
from agentspan.recording.capture.credentials import names_credential
from agentspan.recording.capture.redaction import Redaction
from agentspan.tuning import STANDARD, Tuning

TRUNCATED = "$truncated"
"""The key of the mark in place of a cut value: `{"$truncated": {"bytes": n, "sha256": …, "start": …}}`."""

START = 200
"""The characters of a cut text that its mark has as `start`."""

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


NOT_JSON = "$not_json"
"""The key of the mark in place of a value that could not be written as JSON."""

MAX_NAME = 1000
"""The most characters of the name of a member, in a payload that is not plain JSON or in which something is redacted;
more are cut with `…`."""
MAX_INT_BITS = 14_000  # 4,200 digits: Python refuses to write more than 4,300

SEQUENCES = (list, tuple, set, frozenset, deque, UserList, array, KeysView, ValuesView, ItemsView)
_SCALARS = (str, int, float, bool, type(None))
_AT_ONCE: tuple[type, ...] = (set, frozenset, deque, type({}.keys()), type({}.values()), type({}.items()))
_UNREADABLE, _MISSING = object(), object()


def is_fault(error: BaseException) -> bool:
    """Return whether an error is a fault of a value. Others (Ctrl-C, a signal handler's) must be re-raised."""
    return not is_interrupt(error) or type(error).__name__ == "PanicException"  # what a crash in Rust becomes


unharmed = guard()
"""Lets the capture go on whatever an object of the program raises in a block."""


def exact_text(text: str) -> str:
    """Return a text as an exact `str`, because the methods of a subclass may do anything."""
    return text if type(text) is str else str.__getitem__(text, slice(None))


def class_name(value: Any) -> str:
    """Return the name of an object's class, also if a metaclass overrides it."""
    name = type.__dict__["__qualname__"].__get__(type(value))
    return exact_text(name)[:MAX_NAME] if isinstance(name, str) else "object"


def not_json(value: Any, reason: str | None = None) -> dict[str, Any]:
    """Return the mark of a value that could not be written as JSON."""
    mark = {"type": class_name(value)}
    return {NOT_JSON: mark if reason is None else {**mark, "reason": reason}}


def finite(value: Any) -> Any:
    """Return a number, or a text or mark in its place if JSON cannot represent it."""
    if type(value) is float and value - value != 0:
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if type(value) is int and value.bit_length() > MAX_INT_BITS:
        return not_json(value, "too many digits")
    return value


def joined(text: str) -> str:
    """Join pairs of surrogates to one character each, as a JSON decoder does."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return str(json.loads(json.dumps(text)))  # 20 ns a surrogate; a codec that passes them calls back for each: 200
    return text


def first(values: Iterable[Any], limit: int) -> list[Any]:
    """Return the first `limit` members of a container."""
    if type(values) in _AT_ONCE and len(values) <= limit:  # type: ignore[arg-type]
        return list(values)  # in one step, because another thread may change the container
    return list(islice(values, limit))


def pairs_of(value: Mapping[Any, Any], limit: int) -> tuple[list[tuple[Any, Any]], int | None]:
    """Return the first `limit` pairs of a mapping, and its length; None if it has no length."""
    with unharmed if isinstance(value, dict) else nullcontext():
        items, length = value.items(), length_of(value)
        return [(key, item) for key, item in first(items, limit)], length
    return first(dict.items(value), limit), dict.__len__(value)  # whatever its class does


def key_name(key: Any) -> str:
    """Return the text of a mapping's key for JSON."""
    with unharmed:
        if key is None or key is True or key is False:
            return {None: "null", True: "true", False: "false"}[key]
        key = key.value if isinstance(key, Enum) else key
        if isinstance(key, str):
            return joined(exact_text(key))
        if isinstance(key, bytes):
            return bytes.decode(key, "utf-8", "replace")
        if isinstance(key, tuple | frozenset) and not (len(key) < 100 and all(type(p) in _SCALARS for p in key)):
            return short_repr(key)  # its time does not grow with the nesting
        return joined(exact_text(str(key)))
    return f"(a key of type {class_name(key)})"


def contents_of(value: list[Any] | tuple[Any, ...]) -> list[Any]:
    """Return the members of an object of a subclass of list or tuple, bypassing overridden methods."""
    whole = slice(None)
    return [*(list.__getitem__(value, whole) if isinstance(value, list) else tuple.__getitem__(value, whole))]


def length_of(value: Any) -> int | None:
    """Return the length of an object, or None if it has none."""
    with unharmed:
        return len(value)
    return None


def fields_of(value: Any) -> Mapping[str, Any] | None:
    """Return the fields of a dataclass, a pydantic or attrs object, or a msgspec struct; None for other objects."""
    kind = type(value)
    if hasattr(kind, "__dataclass_fields__"):
        names: Iterable[str] = [field.name for field in dataclasses.fields(kind)]
    elif hasattr(kind, "__attrs_attrs__"):
        names = [attribute.name for attribute in kind.__attrs_attrs__]
    elif hasattr(kind, "__struct_fields__"):
        names = kind.__struct_fields__
    elif hasattr(kind, "__pydantic_fields__"):
        names = [*kind.__pydantic_fields__, *(getattr(value, "__pydantic_extra__", None) or ())]
    else:
        return None
    excluded = {name for name, field in getattr(kind, "__pydantic_fields__", {}).items() if field.exclude}
    fields: dict[str, Any] = {}
    for name in names:
        if name in excluded:
            continue
        field: Any = _UNREADABLE
        with unharmed:
            field = getattr(value, name, _MISSING)
        if field is not _MISSING:
            fields[name] = not_json(value, "a field cannot be read") if field is _UNREADABLE else field
    return fields


def is_small(value: Any, room: list[int], depth: int) -> bool:
    """Return whether a value may be passed to the JSON encoder: small, not deep, and without iterators.

    Args:
        room: a list with the number of values that may still be visited; it is reduced.
    """
    room[0] -= 1
    if room[0] < 0 or depth > 50:
        return False
    if isinstance(value, str | bytes | bytearray):
        room[0] -= len(value) // 100
        return room[0] >= 0
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, SEQUENCES):
        if hasattr(type(value), "__next__"):
            return False
        fields = fields_of(value)
        return True if fields is None else is_small(fields, room, depth + 1)
    return all(is_small(item, room, depth + 1) for item in value)


MAX_BLOBS = 4
"""The bytes of blobs in one payload, as a multiple of the limit of one blob. Further blobs are ordinary texts."""
MAX_COPIED = 4
"""The characters copied for one payload, as a multiple of its limit. Further texts become marks unless short."""
JOINED_AS_BYTES = 4
"""The cost of joining the surrogates of a text, in hashed bytes per character (10 ns); so at most 0.2 s."""


class Leaves:
    """Captures the leaves of one value: texts, numbers and bytes.

    Attributes:
        limits, redaction: those of the capture; redaction is None if nothing is redacted.
        characters: the number of characters that may still be copied.
        blobs: the kept texts of images and other blobs, by id; they have their own limit.
        blob_characters: the number of characters of all kept blobs, counted once for each place.
        cuts: the number of results that depend on the remaining limits, so that they cannot be reused elsewhere.
    """

    def __init__(self, limits: Limits, redaction: Redaction | None, *, tuning: Tuning = STANDARD) -> None:
        self.limits = limits
        self.redaction = redaction
        self.characters = MAX_COPIED * limits.payload
        self.blobs: dict[int, str] = {}
        self.blob_characters = 0
        self.cuts = 0
        self._blob_bytes = MAX_BLOBS * limits.blob
        self._hashable = tuning.hashed_bytes
        self._texts: dict[int, tuple[str, str]] = {}
        self._marks: dict[tuple[int, str], tuple[Any, dict[str, Any]]] = {}

    def text(self, text: str, name: str) -> Any:
        """Return a text redacted, or a mark in its place if it is too long.

        Args:
            name: the name of the member that the text is in.
        """
        length, redaction = len(text), self.redaction
        if length >= LEAST and self._has_room(length * 3 // 4) and begins_like_blob(text):
            if is_blob(text):
                return self._blob(text, name)
            self._blob_bytes -= length * 3 // 4  # bounds the time of these checks
        is_long = length > self.limits.value or (length > self.characters and length > START)
        if not text.isascii():
            text = self._joined(text, is_long=is_long)
        if is_long:
            if redaction is None:
                return self._text_mark(text, text)
            start = redaction.value(name, redaction.start(text, START))
            return self._text_mark(text, start) if type(start) is str and start != REDACTED else start
        self.characters -= length
        if redaction is None:
            return text
        kept = redaction.value(name, text)
        return kept if kept is text else self._kept(kept)

    def _joined(self, text: str, *, is_long: bool) -> str:
        """Join the surrogates of a text, once per text; for a long text only within the limit of hashed bytes."""
        known = self._texts.get(id(text))
        if known is not None:
            return known[1]
        if is_long and len(text) > self._hashable:
            return text  # its mark says its length, and its start
        whole = joined(text)
        if whole is not text:
            self._texts[id(text)] = text, whole  # holds the text, so that its id is not reused
            self._hashable -= min(JOINED_AS_BYTES * len(text), self._hashable) if is_long else 0
        return whole

    def _has_room(self, size: int) -> bool:
        """Return whether `size` bytes are within the limits of blobs."""
        return size <= self.limits.blob and size <= self._blob_bytes

    def _blob(self, text: str, name: str) -> Any:
        kept = text if self.redaction is None else self.redaction.value(name, text, is_blob=True)
        if kept is not text:
            return self._kept(kept)
        self.cuts += 1  # the same blob elsewhere may be beyond the limit
        self.blobs[id(text)] = text  # holds the text, so that its id is not reused
        self.blob_characters += len(text)
        self._blob_bytes -= len(text) * 3 // 4
        return text

    def _text_mark(self, text: str, start: str) -> dict[str, Any]:
        start = start[: min(START, self.limits.value)]
        return self._mark(text, len(text), start, lambda hashed: text_mark(text, start, hashed=hashed))

    def _mark(self, value: Any, size: int, start: str, make: Callable[[bool], dict[str, Any]]) -> dict[str, Any]:
        """Return the mark of a value, made once per value; without a hash if the limit of hashed bytes is used up."""
        self.cuts += 1
        known = self._marks.get((id(value), start))
        if known is not None:
            return known[1]
        hashed = size <= self._hashable
        if hashed:
            self._hashable -= size
        mark = make(hashed)
        self._marks[id(value), start] = (value, mark)  # holds the value, so that its id is not reused
        return mark

    def _kept(self, kept: Any) -> Any:
        """Return a redacted value as valid JSON within the limits, because a user's rule may return anything."""
        if type(kept) is not str:
            return finite(kept)
        kept = joined(kept)
        return kept if len(kept) <= self.limits.value else self._text_mark(kept, kept)

    def hidden(self) -> str:
        """Return the redaction mark for a value that is marked as sensitive (see model.columns), and count it."""
        if self.redaction is not None:
            self.redaction.count += 1
        return REDACTED

    def number(self, value: Any, name: str) -> Any:
        """Return a number, boolean or None, redacted, or a mark if JSON cannot represent it."""
        value = finite(value)
        if self.redaction is None or type(value) is dict:
            return value
        kept = self.redaction.value(name, value)
        return kept if kept is value else self._kept(kept)

    def binary(self, value: bytes | bytearray | memoryview, name: str) -> Any:
        """Return bytes as base64, redacted, or a mark in their place if they are too many."""
        view, redaction = memoryview(value), self.redaction
        if redaction is not None and names_credential(name):
            return redaction.value(name, "bytes")
        is_kept = view.nbytes * 4 >= LEAST * 3 and self._has_room(view.nbytes)
        if not is_kept and view.nbytes * 4 > self.limits.value * 3:  # base64 takes four for three
            data = view if view.c_contiguous else view.tobytes()
            return self._mark(value, view.nbytes, "", lambda hashed: bytes_mark(data, hashed=hashed))
        data = view.tobytes()
        if redaction is not None and not is_image_or_audio(data):
            text = data.decode("latin-1")
            cut = redaction.text(text)  # bytes of a header or a request: in base64 a credential would not be found
            data = data if cut is text else cut.encode("latin-1")
        encoded = base64.b64encode(data).decode()
        return self._blob(encoded, name) if is_kept else self.text(encoded, name)
