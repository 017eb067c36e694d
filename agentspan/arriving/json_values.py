"""Tolerant readers of decoded JSON that others wrote: a value of another type counts as missing. None of them raises.

They serve formats that nobody promises, such as session files and trajectories.
"""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from math import isfinite
from typing import Any

from pydantic_core import from_json

DEEPEST = 500
"""The most objects and lists in each other that are read: the text of much deeper ones cannot be made again."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = datetime.resolution
_END_NS = 253_402_300_800 * 10**9
"""The first nanosecond of the year 10000, which no stored time may reach."""


def json_of(text: bytes | str) -> Any:
    """Decode JSON as `json.loads` does, in half the time. NaN and infinities become texts, so that they can be stored.

    Raises:
        ValueError: it is no JSON, or deeper than DEEPEST.
        RecursionError: it is much deeper.
    """
    try:
        return from_json(text, allow_inf_nan=False, cache_strings="keys")
    except (ValueError, TypeError):  # also for halves of surrogate pairs, NaN, and more than 200 levels
        found = json.loads(text, parse_constant=str, parse_float=_number)
    if _is_deep(found):
        raise ValueError("is nested too deep")
    return found


def _number(text: str) -> float | str:
    number = float(text)
    return number if isfinite(number) else text


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for each in level if isinstance(each, dict | list) for inner in _inner(each)]
        if not level:
            return False
    return True


def _inner(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def parsed(text: bytes | str) -> Any:
    """Return decoded JSON; None for what is no JSON, or is nested so deep that it could not be encoded again."""
    try:
        return json_of(text)
    except (ValueError, RecursionError):
        return None


def decoded(text: Any) -> Any:
    """Return the value of a JSON text; other values, and texts that are no JSON, unchanged."""
    try:
        return json_of(text) if type(text) is str else text
    except (ValueError, RecursionError):
        return text


def object_in(value: Any) -> dict[str, Any]:
    """Return an object; an empty one for other values."""
    return value if type(value) is dict else {}


def list_in(value: Any) -> list[Any]:
    """Return a list; an empty one for other values."""
    return value if type(value) is list else []


def text_in(value: Any) -> str | None:
    """Return a text that is not empty; None for other values."""
    return value if type(value) is str and value else None


def id_in(value: Any) -> str | None:
    """Return a text that is not empty, as `unicode_of` returns it; None for other values."""
    return unicode_of(value) if type(value) is str and value else None


def unicode_of(text: str) -> str:
    """Return a text with `?` for each half of a surrogate pair, which JSON can escape, but no storage can hold."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def count_in(value: Any) -> int | None:
    """Return an integer from 0 to 2^53; None for other values."""
    return value if type(value) is int and 0 <= value < 2**53 else None


def tokens_in(value: Any) -> int:
    """Return a number from 0 to 2^53 as an integer, such as a count of tokens; 0 for other values."""
    if type(value) is int:
        return value if 0 <= value < 2**53 else 0
    return int(value) if type(value) is float and 0 <= value < 2**53 else 0


def number_in(value: Any) -> float | None:
    """Return a finite number; None for other values."""
    return float(value) if type(value) in (int, float) and abs(value) < 1e300 else None


def ns_of(value: Any) -> int | None:
    """Return an ISO 8601 time in nanoseconds since the epoch, cut to microseconds. Without an offset it is UTC.

    Returns:
        None for other values, and for times before 1970.
    """
    if type(value) is not str:
        return None
    try:
        found = datetime.fromisoformat(value)
        at = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
        ns = (at - _EPOCH) // _MICROSECOND * 1000
    except (ValueError, OverflowError):
        return None
    return ns if 0 <= ns < _END_NS else None


def part_of(value: Any) -> str:
    """Return a part of a fingerprint: 12 hexadecimal digits of the SHA-256 of a text, or of a value's JSON."""
    text = value if type(value) is str else json.dumps(value, sort_keys=True, separators=(",", ":"))
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def present(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members that are not None."""
    return {name: value for name, value in values.items() if value is not None}
