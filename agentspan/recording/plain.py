"""Any value as plain JSON: in bounded time, never raising, using up nothing, and redacted on the way.

Texts, numbers, lists and objects are copied up to the limits. What an object of another kind says of itself is asked
once; its iterators, files and generators are left alone.
"""

import base64
import dataclasses
from collections import deque
from collections.abc import Callable, ItemsView, Iterable, KeysView, Mapping, Sequence, ValuesView
from enum import Enum
from itertools import islice
from typing import Any

from pydantic_core import from_json, to_json

from agentspan.recording.limits import START, TRUNCATED, Limits, bytes_mark, text_mark
from agentspan.recording.redaction import REDACTED, Redaction, names_credential

NOT_JSON = "$not_json"
"""The key of the mark that stands for a value which could not be written as JSON."""

MAX_VALUES = 100_000
"""Values looked at in one payload."""
MAX_NAME = 1000
MAX_REPR = 1000
MAX_INT_BITS = 14_000  # 4,200 digits: Python refuses to write more than 4,300
_MARGIN = 400  # what is looked at after the start of a cut text, so that no half of a credential is shown

_SEQUENCES = (list, tuple, set, frozenset, deque, KeysView, ValuesView, ItemsView)
_SCHEMA_WORDS = frozenset({"type", "$ref", "anyOf", "oneOf", "allOf", "enum", "properties", "const"})


class Plain:
    """One walk through one value."""

    def __init__(self, limits: Limits, redaction: Redaction | None) -> None:
        self._limits = limits
        self._depth = min(limits.depth, 190)  # the encoder's own limit is 200
        self._redaction = redaction
        self._room = MAX_VALUES
        self._above: list[int] = []

    def of(self, value: Any, name: str = "") -> Any:
        """Return a value as plain JSON.

        Args:
            name: the member that it is in: what is in a member called `password` is redacted, whatever it is.
        """
        kind = type(value)
        if kind is str:
            return self._text(value, name)
        if value is None or kind is bool or kind is int or kind is float:
            return self._number(value, name)
        self._room -= 1
        if len(self._above) >= self._depth:
            return {TRUNCATED: {"depth": self._depth}}
        if self._room < 0:
            return {TRUNCATED: {"values": MAX_VALUES}}
        if id(value) in self._above:
            return _not_json(value, "contains itself")
        self._above.append(id(value))
        try:
            return self._convert(value, name)
        except Exception:
            return _not_json(value)
        finally:
            self._above.pop()

    def _convert(self, value: Any, name: str) -> Any:
        if isinstance(value, Mapping):
            return self._object(value.items(), _length(value), name)
        if isinstance(value, _SEQUENCES):
            return self._pair(value) if type(value) is tuple and len(value) == 2 else self._list(value, name)
        if isinstance(value, bytes | bytearray | memoryview):
            return self._bytes(value, name)
        if isinstance(value, Enum):
            return self.of(value.value, name)
        for base, exact in _ATOMS:
            if isinstance(value, base):
                return self.of(exact(value), name)
        foreign = _FOREIGN.get(type(value).__module__.partition(".")[0])
        if foreign is not None:
            converted = foreign(value, self._limits.items)
            if converted is not None:
                return self.of(converted, name)
        fields = _fields_of(value)
        if fields is not None:
            return self._record(value, fields, name)
        return self._leaf(value, name)

    def _text(self, text: str, name: str) -> Any:
        if len(text) > self._limits.value:
            if self._redaction is None:
                return text_mark(text, text[:START])
            start = self._redaction.value(name, text[: START + _MARGIN])
            return text_mark(text, start[:START]) if type(start) is str and start != REDACTED else start
        return text if self._redaction is None else self._redaction.value(name, text)

    def _number(self, value: Any, name: str) -> Any:
        if type(value) is int and value.bit_length() > MAX_INT_BITS:
            return _not_json(value, "too many digits")
        if type(value) is float and value - value != 0:
            value = "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
        return value if self._redaction is None else self._redaction.value(name, value)

    def _bytes(self, value: bytes | bytearray | memoryview, name: str) -> Any:
        if memoryview(value).nbytes * 4 > self._limits.value * 3:  # base64 takes four for three
            return bytes_mark(bytes(value))
        return self._text(base64.b64encode(bytes(value)).decode(), name)

    def _list(self, values: Iterable[Any], name: str) -> list[Any]:
        kept = [self.of(item, name) for item in islice(values, self._limits.items)]
        more = (_length(values) or 0) - len(kept)
        if more > 0:
            kept.append({TRUNCATED: {"items": more}})
        return kept

    def _pair(self, pair: tuple[Any, Any]) -> list[Any]:
        """Take a tuple of two: a header's name and value."""
        name, value = pair
        return [self.of(name), self.of(value, name if type(name) is str else "")]

    def _object(self, items: Iterable[tuple[Any, Any]], length: int | None, name: str) -> dict[str, Any]:
        pairs = list(islice(items, self._limits.items))
        # Everything in `credentials: {…}` is one; but not what a tool's JSON Schema says of a member `password`.
        secret = bool(name) and names_credential(name) and not any(key in _SCHEMA_WORDS for key, _ in pairs)
        out: dict[str, Any] = {}
        for key, item in pairs:
            own = key if type(key) is str and len(key) <= MAX_NAME else self._name(key)
            shown = own if self._redaction is None or len(own) < 8 else self._redaction.text(own)
            while shown in out:  # 1 and "1"
                shown += "'"
            out[shown] = self.of(item, name if secret else own)
        if length is not None and length > len(pairs):
            out[TRUNCATED] = {"items": length - len(pairs)}
        return out

    def _name(self, key: Any) -> str:
        try:
            if key is None or key is True or key is False:
                return {None: "null", True: "true", False: "false"}[key]
            key = key.value if isinstance(key, Enum) else key
            return str.__str__(str(key))[:MAX_NAME]
        except Exception:
            return f"(a key of type {type(key).__qualname__})"

    def _record(self, value: Any, fields: Mapping[str, Any], name: str) -> Any:
        """Take a dataclass, a pydantic model and the like: by its own serializer, where that is sure to be harmless."""
        if hasattr(type(value), "__pydantic_serializer__") and _is_small(fields, [MAX_VALUES // 10], 0):
            try:
                return self.of(from_json(to_json(value, inf_nan_mode="strings", fallback=_repr)), name)
            except Exception:
                pass
        return self._object(fields.items(), len(fields), name)

    def _leaf(self, value: Any, name: str) -> Any:
        """Take dates, paths, ids and the like as the encoder writes them, everything else as its repr."""
        if not hasattr(type(value), "__next__"):
            try:
                return self.of(from_json(to_json(value)), name)
            except Exception:
                pass
        return self._text(_repr(value), name)


def _repr(value: Any) -> str:
    return str.__getitem__(repr(value), slice(MAX_REPR))


def _not_json(value: Any, reason: str | None = None) -> dict[str, Any]:
    mark = {"type": type(value).__qualname__}
    return {NOT_JSON: mark if reason is None else {**mark, "reason": reason}}


def _length(value: Any) -> int | None:
    try:
        return len(value)
    except Exception:
        return None


# Subclasses of JSON's own types, whose methods may be anything, and what makes them exact.
_ATOMS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, lambda value: str.__getitem__(value, slice(None))),
    (int, lambda value: int.__add__(value, 0)),
    (float, lambda value: float.__add__(value, 0.0)),
)


def _fields_of(value: Any) -> Mapping[str, Any] | None:
    """Return the fields of a dataclass, a pydantic or attrs object, or a msgspec struct; None of anything else."""
    kind = type(value)
    if hasattr(kind, "__dataclass_fields__"):
        names: Sequence[str] = [field.name for field in dataclasses.fields(value)]
    elif hasattr(kind, "__attrs_attrs__"):
        names = [attribute.name for attribute in kind.__attrs_attrs__]
    elif hasattr(kind, "__struct_fields__"):
        names = kind.__struct_fields__
    elif hasattr(kind, "__pydantic_serializer__"):
        excluded = {name for name, field in kind.model_fields.items() if field.exclude}
        return {name: item for name, item in vars(value).items() if name not in excluded}
    else:
        return None
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _is_small(value: Any, room: list[int], depth: int) -> bool:
    """Tell whether the encoder may have a value: not much, not deep, and nothing in it that iterating uses up."""
    room[0] -= 1
    if room[0] < 0 or depth > 50:
        return False
    if isinstance(value, str | bytes | bytearray):
        room[0] -= len(value) // 100
        return True
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, _SEQUENCES):
        if hasattr(type(value), "__next__"):
            return False
        fields = _fields_of(value)
        return True if fields is None else _is_small(fields, room, depth + 1)
    return all(_is_small(item, room, depth + 1) for item in value)


def _numpy(value: Any, limit: int) -> Any:
    if getattr(value, "ndim", None) == 0:
        return value.item()
    if hasattr(value, "tolist") and hasattr(value, "nbytes"):
        if value.size <= limit:
            return value.tolist()
        about = {"shape": list(value.shape), "dtype": str(value.dtype), "bytes": int(value.nbytes)}
        return {TRUNCATED: about}
    return None


def _pandas(value: Any, limit: int) -> Any:
    if hasattr(value, "to_dict") and hasattr(value, "iloc"):
        rows = max(1, limit // max(1, value.size // max(1, len(value))))
        head = value.iloc[:rows]
        out = {
            **(
                {"columns": [str(column) for column in value.columns]} if value.ndim == 2 else {"name": str(value.name)}
            ),
            "index": head.index.tolist(),
            "data": head.to_numpy().tolist(),
        }
        return out if rows >= len(value) else {**out, TRUNCATED: {"items": len(value) - rows}}
    return value.isoformat() if hasattr(value, "isoformat") else None


_FOREIGN: Mapping[str, Callable[[Any, int], Any]] = {"numpy": _numpy, "pandas": _pandas}
"""By package, so that none of them is imported: an object as simpler values, or None."""
