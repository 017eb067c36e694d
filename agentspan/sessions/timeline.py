"""Values of session files, read tolerantly: times, numbers, texts; and steps of one millisecond, kept in order."""

import math
from datetime import UTC, datetime
from typing import Any

MS = 1_000_000
"""Nanoseconds of a millisecond."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END_MS = 253_402_300_800_000
"""The first millisecond of the year 10000, which no stored time may reach."""
_REMEMBERED = 4096


def iso_ns(value: Any) -> int | None:
    """Return the nanoseconds since the epoch of an ISO 8601 text; None if it is none. Without an offset it is UTC."""
    if type(value) is not str or not 10 <= len(value) <= 64:
        return None
    try:
        moment = datetime.fromisoformat(value)
        since = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)) - _EPOCH
    except (ValueError, OverflowError):
        return None
    ns = ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000
    return ns if 0 < ns < _END_MS * MS else None


def ms_ns(value: Any) -> int | None:
    """Return the nanoseconds of milliseconds since the epoch; None if the value is no such number."""
    if type(value) is int:
        return value * MS if 0 < value < _END_MS else None
    if type(value) is float and 0 < value < _END_MS:
        return int(value) * MS
    return None


def object_in(value: Any) -> dict[str, Any]:
    """Return the value if it is an object, else an empty one."""
    return value if type(value) is dict else {}


def list_in(value: Any) -> list[Any]:
    """Return the value if it is a list, else an empty one."""
    return value if type(value) is list else []


def text_in(value: Any) -> str | None:
    """Return the value if it is a text that is not empty, else None."""
    return value if type(value) is str and value else None


def id_in(value: Any) -> str | None:
    """Return the value if it is a text that is not empty, as Unicode that can be stored; else None."""
    if type(value) is not str or not value:
        return None
    return value if value.isascii() else value.encode(errors="replace").decode()


def count_in(value: Any) -> int:
    """Return the value as a number of tokens: 0 for anything but a number above 0."""
    if type(value) is int:
        return value if 0 < value < 2**53 else 0
    if type(value) is float and math.isfinite(value) and 0 < value < 2**53:
        return int(value)
    return 0


class Timeline:
    """Gives each step of a session a start of its own: a source counts milliseconds, and several steps share one.

    The first step of a millisecond starts at it, the second one a microsecond later, and so on. Steps that are read in
    the same order get the same starts, so a session that grows and a whole one have equal times.
    """

    __slots__ = ("_taken",)

    def __init__(self) -> None:
        self._taken: dict[int, int] = {}

    def at(self, ns: int) -> int:
        """Return the start of the next step of a time in nanoseconds."""
        taken = self._taken
        number = taken.get(ns, 0)
        taken[ns] = number + 1
        if len(taken) > _REMEMBERED:
            del taken[next(iter(taken))]
        return ns + min(number, 999) * 1_000
