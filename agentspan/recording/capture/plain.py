"""Any value as plain JSON: in bounded time, never raising, using up nothing, and redacted on the way.

Texts, numbers, lists and objects are copied up to the limits. What an object of another kind says of itself is asked
once; its iterators, files and generators are left alone. An interrupt (Ctrl-C, SystemExit) that comes meanwhile is the
program's, and goes through.
"""

import base64
import dataclasses
from array import array
from collections import UserList, deque
from collections.abc import Callable, ItemsView, Iterable, KeysView, Mapping, Sequence, ValuesView
from enum import Enum
from itertools import islice
from reprlib import repr as short_repr
from typing import Any

from pydantic_core import from_json, to_json

from agentspan.interrupts import let_through
from agentspan.recording.capture.credentials import is_harmless_name, is_schema, names_credential
from agentspan.recording.capture.foreign import FOREIGN, Table
from agentspan.recording.capture.limits import MAX_HASHED, START, TRUNCATED, Limits, bytes_mark, text_mark
from agentspan.recording.capture.redaction import REDACTED, Redaction

NOT_JSON = "$not_json"
"""The key of the mark that stands for a value which could not be written as JSON."""

MAX_DEPTH = 190  # the encoder's own limit is 200
MAX_VALUES = 100_000
"""Values looked at in one payload."""
MAX_COPIED = 4
"""How often a payload's limit of characters is copied; texts on top of that become marks, if they are not short."""
MAX_NAME = 1000
MAX_REPR = 1000
MAX_INT_BITS = 14_000  # 4,200 digits: Python refuses to write more than 4,300
_RESERVE = 256  # values that no member may take from those after it: token counts often come last

_SEQUENCES = (list, tuple, set, frozenset, deque, UserList, array, KeysView, ValuesView, ItemsView)
_AT_ONCE: tuple[type, ...] = (set, frozenset, deque, type({}.keys()), type({}.values()), type({}.items()))
_SCALARS = (str, int, float, bool, type(None))
_BASIC_AUTH = frozenset({"auth", "basic_auth", "proxy_auth", "http_auth"})


class Plain:
    """One walk through one value."""

    def __init__(self, limits: Limits, redaction: Redaction | None) -> None:
        self._limits = limits
        self._depth = min(limits.depth, MAX_DEPTH)
        self._redaction = redaction
        self._room = MAX_VALUES
        self._characters = MAX_COPIED * limits.payload
        self._hashable = MAX_HASHED
        self._looks = MAX_VALUES  # how many values may be looked at for whether their own serializer may have them
        self._marks: dict[tuple[int, str], tuple[Any, dict[str, Any]]] = {}
        self._above: list[int] = []
        self._raised: Exception | None = None

    def of(self, value: Any, name: str = "") -> Any:
        """Return a value as plain JSON.

        Args:
            name: the member that it is in: what is in a member called `password` is redacted, whatever it is.
        """
        self._room -= 1
        kind = type(value)
        if kind is str:
            return self._text(value, name)
        if value is None or kind is bool or kind is int or kind is float:
            return self._number(value, name)
        if len(self._above) >= self._depth:
            return {TRUNCATED: {"depth": self._depth}}
        if self._room < 0:
            return {TRUNCATED: {"values": MAX_VALUES}}
        if id(value) in self._above:
            return not_json(value, "contains itself")
        reserve = min(self._room // 4, _RESERVE)
        self._room -= reserve
        self._above.append(id(value))
        try:
            return self._convert(value, name)
        except BaseException as error:
            if not is_fault(error):
                raise
            let_through(error)
            return not_json(value)
        finally:
            self._above.pop()
            self._room += reserve

    def _convert(self, value: Any, name: str) -> Any:
        kind = type(value)
        if kind is dict:
            return self._object(_first(value.items(), self._limits.items), len(value), name)
        if kind is list:
            return self._list(value, name)
        if isinstance(value, Mapping):
            return self._mapping(value, name)
        if isinstance(value, _SEQUENCES):
            if type(value) is tuple and len(value) == 2:
                return self._pair(value, name)
            names = getattr(type(value), "_fields", None) if isinstance(value, tuple) else None
            try:
                return self._list(value, name, names if type(names) is tuple else ())
            except Exception as raised:
                let_through(raised)
                contents = _contents(value)
                if contents is None:
                    raise
                return self._list(contents, name)
        if isinstance(value, bytes | bytearray | memoryview):
            return self._bytes(value, name)
        if isinstance(value, Enum):
            return self.of(value.value, name)
        for base, exact in _ATOMS:
            if isinstance(value, base):
                return self.of(exact(value), name)
        module = type(value).__module__
        foreign = FOREIGN.get(module.partition(".")[0]) if type(module) is str else None
        if foreign is not None:
            converted = foreign(value, self._limits.items)
            if type(converted) is Table:
                return self._table(converted, name)
            if converted is not None:
                return self.of(converted, name)
        fields = _fields_of(value)
        if fields is not None:
            return self._record(value, fields, name)
        return self._leaf(value, name)

    def _text(self, text: str, name: str) -> Any:
        length, redaction = len(text), self._redaction
        if not text.isascii():
            text = _joined(text)
        if length > self._limits.value or (length > self._characters and length > START):
            if redaction is None:
                return self._text_mark(text, text)
            start = redaction.value(name, redaction.start(text, START))
            return self._text_mark(text, start) if type(start) is str and start != REDACTED else start
        self._characters -= length
        if redaction is None:
            return text
        kept = redaction.value(name, text)
        return kept if kept is text else self._kept(kept)

    def _text_mark(self, text: str, start: str) -> dict[str, Any]:
        start = start[: min(START, self._limits.value)]
        return self._mark(text, len(text), start, lambda hashed: text_mark(text, start, hashed=hashed))

    def _mark(self, value: Any, size: int, start: str, make: Callable[[bool], dict[str, Any]]) -> dict[str, Any]:
        """Return the mark of a value, made once for the same one, and without a hash when much was hashed already."""
        known = self._marks.get((id(value), start))
        if known is not None:
            return known[1]
        hashed = size <= self._hashable
        if hashed:
            self._hashable -= size
        mark = make(hashed)
        self._marks[id(value), start] = (value, mark)  # which keeps the value, so that its id is not another's
        return mark

    def _kept(self, kept: Any) -> Any:
        """Return what redaction has put in the place of a value: a rule of one's own may return anything."""
        if type(kept) is not str:
            return _finite(kept)
        kept = _joined(kept)
        return kept if len(kept) <= self._limits.value else self._text_mark(kept, kept)

    def _number(self, value: Any, name: str) -> Any:
        value = _finite(value)
        if self._redaction is None or type(value) is dict:
            return value
        kept = self._redaction.value(name, value)
        return kept if kept is value else self._kept(kept)

    def _bytes(self, value: bytes | bytearray | memoryview, name: str) -> Any:
        view, redaction = memoryview(value), self._redaction
        if redaction is not None and names_credential(name):
            return redaction.value(name, "bytes")
        if view.nbytes * 4 > self._limits.value * 3:  # base64 takes four for three
            data = view if view.c_contiguous else view.tobytes()
            return self._mark(value, view.nbytes, "", lambda hashed: bytes_mark(data, hashed=hashed))
        data = view.tobytes()
        if redaction is not None:
            text = data.decode("latin-1")
            cut = redaction.text(text)  # a header, the body of a request: base64 would hide what is in it
            data = data if cut is text else cut.encode("latin-1")
        return self._text(base64.b64encode(data).decode(), name)

    def _list(self, values: Iterable[Any], name: str, names: tuple[Any, ...] = ()) -> list[Any]:
        kept: list[Any] = []
        pairs = type(values) is list and name[-7:].lower() == "headers"
        secret = names_credential(name)
        for item in _first(values, self._limits.items):
            if self._room <= 0:
                break
            if pairs and type(item) is list and len(item) == 2:
                item = tuple(item)
            member = names[len(kept)] if len(kept) < len(names) and type(names[len(kept)]) is str else name
            kept.append(self.of(item, name if secret else member))
        more = (_length(values) or 0) - len(kept)
        if more > 0:
            kept.append({TRUNCATED: {"items": more}})
        return kept

    def _pair(self, pair: tuple[Any, Any], name: str) -> list[Any]:
        """Take a tuple of two: a header's name and value, or a user's name and password."""
        first, second = pair
        if names_credential(name):
            return [self.of(first, name), self.of(second, name)]
        if name.lower() in _BASIC_AUTH:
            return [self.of(first), self.of(second, "password")]
        if type(first) is bytes and len(first) <= MAX_NAME:
            first_name = first.decode("latin-1")
        else:
            first_name = first if type(first) is str else ""
        return [self.of(first), self.of(second, first_name)]

    def _mapping(self, value: Mapping[Any, Any], name: str) -> dict[str, Any]:
        try:
            items, length = value.items(), _length(value)
            pairs = [(key, item) for key, item in _first(items, self._limits.items)]
        except Exception as raised:
            let_through(raised)
            if not isinstance(value, dict):
                raise
            length = dict.__len__(value)
            pairs = _first(dict.items(value), self._limits.items)  # whatever its class makes of them
        return self._object(pairs, length, name)

    def _object(self, pairs: Sequence[tuple[Any, Any]], length: int | None, name: str) -> dict[str, Any]:
        # Everything in `credentials: {…}` is one; but not what a tool's JSON Schema says of a member `password`.
        secret = bool(name) and names_credential(name) and not is_schema(key for key, _ in pairs)
        described = "" if secret else _described(pairs)
        out: dict[str, Any] = {}
        taken: dict[str, int] = {}
        for key, item in pairs:
            if self._room <= 0:
                break
            if type(key) is str and len(key) <= 64 and is_harmless_name(key):
                own = shown = key
            else:
                own = self._name(key)
                shown = own if self._redaction is None else self._redaction.start(own, MAX_NAME)
                if len(own) > MAX_NAME:
                    shown = shown[:MAX_NAME] + "…"
            if shown in out:  # 1 and "1"
                shown = _another(shown, out, taken)
            self._characters -= len(shown)
            out[shown] = self.of(item, name if secret else described if described and own == "value" else own)
        if length is not None and length > len(out):
            out[TRUNCATED] = {"items": length - len(out)}
        return out

    def _name(self, key: Any) -> str:
        try:
            if key is None or key is True or key is False:
                return {None: "null", True: "true", False: "false"}[key]
            key = key.value if isinstance(key, Enum) else key
            if isinstance(key, str):
                return _joined(exact_text(key))
            if isinstance(key, bytes):
                return bytes.decode(key, "utf-8", "replace")
            if isinstance(key, tuple | frozenset) and not (len(key) < 100 and all(type(p) in _SCALARS for p in key)):
                return short_repr(key)  # whose time does not grow with what is nested in it
            return _joined(exact_text(str(key)))
        except Exception as raised:
            let_through(raised)
            return f"(a key of type {class_name(key)})"

    def _table(self, table: Table, name: str) -> dict[str, Any]:
        """Take a table: each cell is in a member of its column's name."""
        out: dict[str, Any] = {key: self.of(item, name) for key, item in table.about.items()}
        names = [name if names_credential(name) else column for column in table.columns]
        rows: list[Any] = []
        for row in table.rows:
            if self._room <= 0:
                break
            rows.append([self.of(cell, column) for cell, column in zip(row, names, strict=True)])
        out["data"] = [cell for (cell,) in rows] if table.flat else rows
        if table.total > len(rows):
            out[TRUNCATED] = {"items": table.total - len(rows)}
        return out

    def _record(self, value: Any, fields: Mapping[str, Any], name: str) -> Any:
        """Take a dataclass, a pydantic model and the like: by its own serializer, where that is sure to be harmless."""
        if hasattr(type(value), "__pydantic_serializer__") and self._is_small(fields):
            try:
                return self.of(from_json(to_json(value, inf_nan_mode="strings", fallback=self._said)), name)
            except Exception as raised:
                let_through(self._raised or raised)
        return self._object(_first(fields.items(), self._limits.items), len(fields), name)

    def _is_small(self, fields: Mapping[str, Any]) -> bool:
        given = min(self._looks, MAX_VALUES // 10)
        room = [given]
        try:
            return _is_small(fields, room, 0)
        except Exception as raised:
            let_through(raised)
            return False
        finally:
            self._looks -= given - max(room[0], 0)

    def _leaf(self, value: Any, name: str) -> Any:
        """Take dates, paths, ids and the like as the encoder writes them, everything else as its repr."""
        if not hasattr(type(value), "__next__"):
            try:
                return self.of(from_json(to_json(value)), name)
            except Exception as raised:
                let_through(raised)
        return self._text(self._said(value), name)

    def _said(self, value: Any) -> str:
        """Return the start of an object's repr, cut where no half of a credential is left."""
        try:
            text = exact_text(repr(value))
        except Exception as raised:
            self._raised = raised  # the encoder, which calls this, raises another one in its place
            raise
        if len(text) <= MAX_REPR:
            return text
        start = text[: MAX_REPR - 1] if self._redaction is None else self._redaction.start(text, MAX_REPR - 1)
        return start + "…"


def is_fault(error: BaseException) -> bool:
    """Tell what a value raises from what is raised meanwhile to end the program: the latter is not ours to hide."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"  # what a crash in Rust becomes


def exact_text(text: str) -> str:
    """Return a text as an exact `str`: the methods of a subclass may be anything."""
    return text if type(text) is str else str.__getitem__(text, slice(None))


def class_name(value: Any) -> str:
    """Return the name of an object's class, whatever a metaclass makes of it."""
    name = type.__dict__["__qualname__"].__get__(type(value))
    return exact_text(name)[:MAX_NAME] if isinstance(name, str) else "object"


def not_json(value: Any, reason: str | None = None) -> dict[str, Any]:
    """Return the mark of a value that could not be written as JSON."""
    mark = {"type": class_name(value)}
    return {NOT_JSON: mark if reason is None else {**mark, "reason": reason}}


def _finite(value: Any) -> Any:
    """Return a number that JSON can say, or what stands for it."""
    if type(value) is float and value - value != 0:
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if type(value) is int and value.bit_length() > MAX_INT_BITS:
        return not_json(value, "too many digits")
    return value


def _joined(text: str) -> str:
    """Join surrogates that are the halves of one character, as whoever reads the JSON will."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return text


def _another(shown: str, out: dict[str, Any], taken: dict[str, int]) -> str:
    """Return another key for one that is there already."""
    number = taken.get(shown, 1)
    another = shown
    while another in out:
        number += 1
        another = f"{shown}'{number}"
    taken[shown] = number
    return another


def _described(pairs: Sequence[tuple[Any, Any]]) -> str:
    """Return the name of a credential that an object like `{"name": "Authorization", "value": …}` is about, or ""."""
    if 2 <= len(pairs) <= 12:
        for key, item in pairs:
            if type(key) is str and key in ("name", "key") and type(item) is str and names_credential(item):
                return item
    return ""


def _first(values: Iterable[Any], limit: int) -> list[Any]:
    """Return the first members of a container."""
    if type(values) in _AT_ONCE and len(values) <= limit:  # type: ignore[arg-type]
        return list(values)  # in one step: another thread may be changing it
    return list(islice(values, limit))


def _contents(value: Any) -> list[Any] | None:
    """Return what an object of a subclass of list or tuple holds, whatever its class makes of it."""
    for base in (list, tuple):
        if isinstance(value, base) and type(value) is not base:
            return [*base.__getitem__(value, slice(None))]  # type: ignore[index]
    return None


def _length(value: Any) -> int | None:
    try:
        return len(value)
    except Exception as raised:
        let_through(raised)
        return None


# Subclasses of JSON's own types, whose methods may be anything, and what makes them exact.
_ATOMS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, exact_text),
    (int, int.__int__),
    (float, float.__float__),
)


def _fields_of(value: Any) -> Mapping[str, Any] | None:
    """Return the fields of a dataclass, a pydantic or attrs object, or a msgspec struct; None of anything else."""
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


def _is_small(value: Any, room: list[int], depth: int) -> bool:
    """Tell whether the encoder may have a value: not much, not deep, and nothing in it that iterating uses up."""
    room[0] -= 1
    if room[0] < 0 or depth > 50:
        return False
    if isinstance(value, str | bytes | bytearray):
        room[0] -= len(value) // 100
        return room[0] >= 0
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, _SEQUENCES):
        if hasattr(type(value), "__next__"):
            return False
        fields = _fields_of(value)
        return True if fields is None else _is_small(fields, room, depth + 1)
    return all(_is_small(item, room, depth + 1) for item in value)
