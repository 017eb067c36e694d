"""Converts values of attributes: texts, counts, JSON texts and Python literals as texts. No function raises.

Most functions return None for an unusable value, so that the caller tries the next attribute for the field.
"""

import ast
import json
import math
import re
import threading
from typing import Any

from agentspan import jsontext

MAX_LITERAL = 20_000
"""The most characters of a text that is parsed as a Python literal: Python's parser takes 100 bytes for each."""
MAX_NESTED = 100
"""The most levels of brackets in a text that is parsed as JSON or a Python literal; a deeper value stays a text."""
MAX_VALUES = 100_000
"""The most values of a JSON text that is parsed; a text with more stays a text.

A message of five characters takes 330 bytes in memory. And no other thread runs while the parser runs.
"""
BYTES_OF_VALUE = 330
MAX_OF_SPAN = 3 * MAX_VALUES
"""The most values of all parsed JSON texts of a span. A text that several families parse counts each time."""
SHORT = 1000
"""The most characters of a text whose values are estimated and not counted: a value takes two characters or more."""
JSON_STARTS = frozenset('{["(' + "".join(filter(str.isspace, map(chr, range(0x3001)))))
"""The characters that a parsed text can start with: brackets, a quote, or white space."""
_NO_BOUNDS = bytes(each for each in range(256) if each not in b",[{")
_BRACKETS = re.compile(r"[\[{(\])}]")


def as_is(value: Any) -> Any:
    """Return a value unchanged."""
    return value


def text(value: Any) -> str | None:
    """Return a text; None if the value is empty or no text."""
    return value if type(value) is str and value else None


def whole(value: Any) -> int | None:
    """Return a whole number of 0 or more, also from a float such as `3.0` or a text such as `"3"`; else None."""
    found = number(value)
    return int(found) if found is not None and found >= 0 and found == int(found) else None


def number(value: Any) -> int | float | None:
    """Return a finite number, also from a text such as `"0.5"`; else None."""
    if type(value) is str and 0 < len(value) <= 40:
        try:
            value = float(value) if not value.isascii() or not value.isdigit() else int(value)
        except ValueError:
            return None
    if type(value) is int and -(2**63) <= value < 2**63:
        return value
    return value if type(value) is float and math.isfinite(value) else None


def flag(value: Any) -> bool | None:
    """Return a boolean, also from the texts `true` and `false`; else None."""
    if type(value) is str:
        return {"true": True, "false": False}.get(value.lower())
    return value if type(value) is bool else None


def millis(value: Any) -> float | None:
    """Return a number of seconds as milliseconds; None if the value is no number."""
    seconds = number(value)
    return None if seconds is None else round(seconds * 1000, 6)


def first(value: Any) -> str | None:
    """Return the text `stop` from a list `["stop"]`, a JSON list `'["stop"]'` or a text `"stop"`; else None."""
    value = parsed(value)
    return text(next(iter(value), None) if type(value) is list else value)


def parsed(value: Any) -> Any:
    """Parse a JSON object, list or string in a text. Another value is returned unchanged, an empty text as None.

    A number stays a text: a tool that returned the text `305` did not return a number.
    """
    if type(value) is not str:
        return value
    start = value.lstrip()[:1]
    if start not in ("{", "[", '"'):
        return value or None
    return decoded(value)


def decoded(value: Any) -> Any:
    """Parse a JSON text of any kind, also a number. A value that is no JSON text is returned unchanged."""
    if type(value) is not str:
        return value
    if _is_deep(value) or not _takes(value):
        return value
    try:
        if "NaN" in value or "Infinity" in value:  # JSON has neither, but Python's `json` writes both
            return json.loads(value, parse_constant=str)
        return jsontext.decode(value)
    except (RecursionError, ValueError):
        return value


def listed(value: Any) -> list[Any] | None:
    """Return a non-empty list, also from a JSON text, with each JSON text in it parsed; else None."""
    value = parsed(value)
    return [parsed(item) for item in value] if type(value) is list and value else None


def members(value: Any) -> dict[str, Any] | None:
    """Return an object as a dict, also from a JSON text; else None."""
    value = parsed(value)
    return value if type(value) is dict else None


def literal(value: Any) -> Any:
    """Parse a Python literal in a text, such as `{'city': 'Seattle'}`. Another value is returned unchanged."""
    if type(value) is not str or value[:1] not in ("{", "[", "(") or len(value) > MAX_LITERAL or _is_deep(value):
        return value
    try:
        return _plain(ast.literal_eval(value))
    except (MemoryError, RecursionError, SyntaxError, TypeError, ValueError):
        return value


def begin_span() -> None:
    """Reset this thread's count of parsed values for a new span. MAX_OF_SPAN limits the count."""
    _room.values = MAX_OF_SPAN


class _Room(threading.local):
    """The number of values that a thread may still parse for its current span."""

    values = MAX_OF_SPAN


_room = _Room()


def _takes(value: str) -> bool:
    """Return whether a JSON text is within the limits of the current span, and count its values."""
    count = len(value) // 2 if len(value) <= SHORT else values_in(value)
    if count > MAX_VALUES:  # characters within strings may have been counted, too
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
    """Return an upper limit for the number of values in a JSON text, from its commas and opening brackets."""
    return len(text.encode("utf-8", "surrogatepass").translate(None, _NO_BOUNDS))  # half the time of three counts


def memory_of(value: Any) -> int:
    """Return the estimated bytes in memory of a text or plain JSON after it is parsed and mapped."""
    if type(value) is str:
        return 2 * len(value) + BYTES_OF_VALUE * min(values_in(value), MAX_OF_SPAN)
    if type(value) is dict:
        value = [*value.values()]
    return BYTES_OF_VALUE * len(value) + sum(map(memory_of, value)) if type(value) is list else 0


def _is_deep(value: str) -> bool:
    if len(value) <= MAX_NESTED or sum(map(value.count, "[{(")) <= MAX_NESTED:  # the case of most texts
        return False
    depth = 0
    for bracket in _BRACKETS.findall(value):
        depth += 1 if bracket in "[{(" else -1
        if depth > MAX_NESTED:
            return True
    return False


def _plain(value: Any) -> Any:
    """Convert the value of a Python literal to plain JSON."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)
