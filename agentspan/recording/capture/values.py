"""Reads the text, class, members and fields of values of any class, without consuming iterators.

Also turns texts, numbers and bytes into JSON: redacted, and replaced by marks if they are longer than the limits.
"""

import base64
import dataclasses
import json
from array import array
from collections import UserList, deque
from collections.abc import Callable, ItemsView, Iterable, KeysView, Mapping, ValuesView
from enum import Enum
from itertools import islice
from reprlib import repr as short_repr
from typing import Any

from agentspan.blobs import LEAST, begins_like_blob, is_blob, is_image_or_audio
from agentspan.host import guard, let_through
from agentspan.model.columns import REDACTED
from agentspan.recording.capture.credentials import names_credential
from agentspan.recording.capture.limits import START, Limits, bytes_mark, text_mark
from agentspan.recording.capture.redaction import Redaction
from agentspan.tuning import STANDARD, Tuning

NOT_JSON = "$not_json"
"""The key of the mark in place of a value that could not be written as JSON."""

MAX_NAME = 1000
MAX_INT_BITS = 14_000  # 4,200 digits: Python refuses to write more than 4,300

SEQUENCES = (list, tuple, set, frozenset, deque, UserList, array, KeysView, ValuesView, ItemsView)
_SCALARS = (str, int, float, bool, type(None))
_AT_ONCE: tuple[type, ...] = (set, frozenset, deque, type({}.keys()), type({}.values()), type({}.items()))


def is_fault(error: BaseException) -> bool:
    """Return whether an error is a fault of a value. Others (Ctrl-C, SystemExit) end the program: re-raise them."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"  # what a crash in Rust becomes


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
    try:
        items, length = value.items(), length_of(value)
        return [(key, item) for key, item in first(items, limit)], length
    except Exception as raised:
        let_through(raised)
        if not isinstance(value, dict):
            raise
        return first(dict.items(value), limit), dict.__len__(value)  # whatever its class makes of them


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


def contents_of(value: Any) -> list[Any] | None:
    """Return the members of an object of a subclass of list or tuple, bypassing overridden methods; else None."""
    for base in (list, tuple):
        if isinstance(value, base) and type(value) is not base:
            return [*base.__getitem__(value, slice(None))]  # type: ignore[index]
    return None


def length_of(value: Any) -> int | None:
    """Return the length of an object, or None if it has none."""
    try:
        return len(value)
    except Exception as raised:
        let_through(raised)
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
        try:
            fields[name] = getattr(value, name)
        except AttributeError:
            pass
        except Exception as raised:
            let_through(raised)
            fields[name] = not_json(value, "a field cannot be read")
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
