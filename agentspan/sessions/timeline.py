"""Times of sources that count milliseconds: as nanoseconds, and apart for steps that share a millisecond."""

from typing import Any

MS = 1_000_000
"""Nanoseconds of a millisecond."""
_END_MS = 253_402_300_800_000
"""The first millisecond of the year 10000, which no stored time may reach."""
_REMEMBERED = 4096


def ms_ns(value: Any) -> int | None:
    """Return the nanoseconds of milliseconds since the epoch; None if the value is no such number."""
    if type(value) is int:
        return value * MS if 0 < value < _END_MS else None
    if type(value) is float and 0 < value < _END_MS:
        return int(value) * MS
    return None


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
