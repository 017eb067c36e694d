"""Reads values whose classes may be anything: their text, class, members and fields, without using anything up."""

import dataclasses
import json
from array import array
from collections import UserList, deque
from collections.abc import ItemsView, Iterable, KeysView, Mapping, ValuesView
from enum import Enum
from itertools import islice
from reprlib import repr as short_repr
from typing import Any

from agentspan.interrupts import let_through

NOT_JSON = "$not_json"
"""The key of the mark that stands for a value which could not be written as JSON."""

MAX_NAME = 1000
MAX_INT_BITS = 14_000  # 4,200 digits: Python refuses to write more than 4,300

SEQUENCES = (list, tuple, set, frozenset, deque, UserList, array, KeysView, ValuesView, ItemsView)
_SCALARS = (str, int, float, bool, type(None))
_AT_ONCE: tuple[type, ...] = (set, frozenset, deque, type({}.keys()), type({}.values()), type({}.items()))


def is_fault(error: BaseException) -> bool:
    """Return whether a value raised this error. Else it was raised to end the program, and must go through."""
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


def finite(value: Any) -> Any:
    """Return a number that JSON can say, or what stands for it."""
    if type(value) is float and value - value != 0:
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if type(value) is int and value.bit_length() > MAX_INT_BITS:
        return not_json(value, "too many digits")
    return value


def joined(text: str) -> str:
    """Join surrogates that are the halves of one character, as whoever reads the JSON will."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return str(json.loads(json.dumps(text)))  # 20 ns a surrogate; a codec that passes them calls back for each: 200
    return text


def first(values: Iterable[Any], limit: int) -> list[Any]:
    """Return the first members of a container."""
    if type(values) in _AT_ONCE and len(values) <= limit:  # type: ignore[arg-type]
        return list(values)  # in one step: another thread may be changing it
    return list(islice(values, limit))


def pairs_of(value: Mapping[Any, Any], limit: int) -> tuple[list[tuple[Any, Any]], int | None]:
    """Return the first members of a mapping, and its length, or None if it has none."""
    try:
        items, length = value.items(), length_of(value)
        return [(key, item) for key, item in first(items, limit)], length
    except Exception as raised:
        let_through(raised)
        if not isinstance(value, dict):
            raise
        return first(dict.items(value), limit), dict.__len__(value)  # whatever its class makes of them


def key_name(key: Any) -> str:
    """Return the text that stands for a key in JSON."""
    try:
        if key is None or key is True or key is False:
            return {None: "null", True: "true", False: "false"}[key]
        key = key.value if isinstance(key, Enum) else key
        if isinstance(key, str):
            return joined(exact_text(key))
        if isinstance(key, bytes):
            return bytes.decode(key, "utf-8", "replace")
        if isinstance(key, tuple | frozenset) and not (len(key) < 100 and all(type(p) in _SCALARS for p in key)):
            return short_repr(key)  # whose time does not grow with what is nested in it
        return joined(exact_text(str(key)))
    except Exception as raised:
        let_through(raised)
        return f"(a key of type {class_name(key)})"


def contents_of(value: Any) -> list[Any] | None:
    """Return what an object of a subclass of list or tuple holds, whatever its class makes of it."""
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


def is_small(value: Any, room: list[int], depth: int) -> bool:
    """Return whether the encoder may have a value: not much, not deep, and nothing in it that iterating uses up."""
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
