"""Reads values of attributes: texts, counts, JSON in a text, Python's notation in a text. None of them raises.

Each function returns None for a value that it cannot use, so that the next source of the same field is tried.
"""

import ast
import json
import math
import re
import threading
from typing import Any

from agentspan import jsontext

MAX_LITERAL = 20_000
"""Characters of a text that is read as Python's notation, at most: Python's own parser takes 100 bytes for each."""
MAX_NESTED = 100
"""Brackets in brackets of a text that is read, at most: a deeper value stays a text, in JSON, too."""
MAX_VALUES = 100_000
"""Values of a JSON text that is read, at most: one with more stays a text. A message of it takes 330 bytes in memory,
and may have taken five; and the parser is one call, in which no other thread runs."""
BYTES_OF_VALUE = 330
MAX_OF_SPAN = 3 * MAX_VALUES
"""Values of all JSON texts of a span, at most. A text that several families read counts as often."""
SHORT = 1000
"""Characters of a text whose values are not counted: each takes two of them at least."""
JSON_STARTS = frozenset('{["( \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f')
"""The first characters of ASCII that a text may have that is read."""
_BRACKETS = re.compile(r"[\[{(\])}]")


def as_is(value: Any) -> Any:
    """Return a value unchanged."""
    return value


def text(value: Any) -> str | None:
    """Return a text that is not empty."""
    return value if type(value) is str and value else None


def whole(value: Any) -> int | None:
    """Return a whole number that is not negative; also of a float or a text that is one."""
    found = number(value)
    return int(found) if found is not None and found >= 0 and found == int(found) else None


def number(value: Any) -> int | float | None:
    """Return a finite number, also of a text that is one."""
    if type(value) is str and 0 < len(value) <= 40:
        try:
            value = float(value) if not value.isascii() or not value.isdigit() else int(value)
        except ValueError:
            return None
    if type(value) is int and -(2**63) <= value < 2**63:
        return value
    return value if type(value) is float and math.isfinite(value) else None


def flag(value: Any) -> bool | None:
    """Return a boolean, also of the texts `true` and `false`."""
    if type(value) is str:
        return {"true": True, "false": False}.get(value.lower())
    return value if type(value) is bool else None


def millis(value: Any) -> float | None:
    """Return seconds as milliseconds."""
    seconds = number(value)
    return None if seconds is None else round(seconds * 1000, 6)


def first(value: Any) -> str | None:
    """Return the first text of a list, of JSON of one, or the text itself: `["stop"]`, `'["stop"]'`, `"stop"`."""
    value = parsed(value)
    return text(next(iter(value), None) if type(value) is list else value)


def parsed(value: Any) -> Any:
    """Return the value of a JSON text of an object, a list or a text; any other value as it is, None of an empty one.

    A number stays a text: a tool that returned the text `305` did not return a number.
    """
    if type(value) is not str:
        return value
    start = value.lstrip()[:1]
    if start not in ("{", "[", '"'):
        return value or None
    return decoded(value)


def decoded(value: Any) -> Any:
    """Return the value of any JSON text; any other value as it is."""
    if type(value) is not str:
        return value
    if _is_deep(value) or not _takes(value):
        return value
    try:
        if "NaN" in value or "Infinity" in value:  # no JSON, but Python's writers make it
            return json.loads(value, parse_constant=str)
        return jsontext.decode(value)
    except (RecursionError, ValueError):
        return value


def listed(value: Any) -> list[Any] | None:
    """Return a list that is not empty, also of a JSON text, and with each JSON text in it read."""
    value = parsed(value)
    return [parsed(item) for item in value] if type(value) is list and value else None


def members(value: Any) -> dict[str, Any] | None:
    """Return an object, also of a JSON text."""
    value = parsed(value)
    return value if type(value) is dict else None


def literal(value: Any) -> Any:
    """Return the value of a text in Python's notation, such as `{'city': 'Seattle'}`; any other value as it is."""
    if type(value) is not str or value[:1] not in ("{", "[", "(") or len(value) > MAX_LITERAL or _is_deep(value):
        return value
    try:
        return _plain(ast.literal_eval(value))
    except (MemoryError, RecursionError, SyntaxError, TypeError, ValueError):
        return value


def begin_span() -> None:
    """Begin to count the values that are read of a span: those of the one before do not count any more."""
    _room.values = MAX_OF_SPAN


class _Room(threading.local):
    """The number of values that may still be read, of the span that a thread maps."""

    values = MAX_OF_SPAN


_room = _Room()


def _takes(value: str) -> bool:
    """Return whether a JSON text may be read, and count its values."""
    count = len(value) // 2 if len(value) <= SHORT else values_in(value)
    if count > MAX_VALUES:  # perhaps by what is within its texts
        count = 0
        for _, outside in jsontext.structure(value):
            count += values_in(outside)
            if count > MAX_VALUES:
                return False
    if count > _room.values:
        return False
    _room.values -= count
    return True


def values_in(text: str) -> int:
    """Return how many values a JSON text has, at most."""
    return sum(map(text.count, ",[{"))


def memory_of(value: Any) -> int:
    """Return how many bytes a text, or plain JSON, may take in memory, about, once it is read as JSON and mapped."""
    if type(value) is str:
        return 2 * len(value) + BYTES_OF_VALUE * min(values_in(value), MAX_OF_SPAN)
    if type(value) is dict:
        value = [*value.values()]
    return BYTES_OF_VALUE * len(value) + sum(map(memory_of, value)) if type(value) is list else 0


def _is_deep(value: str) -> bool:
    if len(value) <= MAX_NESTED or sum(map(value.count, "[{(")) <= MAX_NESTED:  # nearly every text
        return False
    depth = 0
    for bracket in _BRACKETS.findall(value):
        depth += 1 if bracket in "[{(" else -1
        if depth > MAX_NESTED:
            return True
    return False


def _plain(value: Any) -> Any:
    """Return a Python literal as plain JSON."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)
