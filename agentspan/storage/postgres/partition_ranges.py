"""Ranges of ids: from a time to the first id that carries it, and back. Pure: nothing here asks a server."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from agentspan import ids
from agentspan.storage.answers import Width

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DEFAULT_WIDTH: Width = "week"
"""Narrow enough that 30 days are dropped in five parts; wide enough that a year is 52 tables."""
_DIGITS = 10
"""Characters of an id that carry its time; an id of that time is greater than these alone."""
_REST = "0" * 22


class Range(NamedTuple):
    """The ids from `start` on, before `end`: texts that compare by code points; None where there is no bound."""

    start: str | None
    end: str | None


def bound_at(at: datetime) -> str:
    """Return the text that is not greater than any id of a time, and greater than all ids of earlier times."""
    millis = max(0, (at - EPOCH) // timedelta(milliseconds=1))
    return ids.encode(millis, 0, 0)[:_DIGITS]


def time_of(id: str) -> datetime | None:
    """Return the time that an id, or a bound, carries; None where it is no PFID, or of a year after 9999."""
    padded = id if len(id) > _DIGITS else id[:_DIGITS] + _REST
    if not ids.is_pfid(padded):
        return None
    try:
        return EPOCH + timedelta(milliseconds=ids.decode(padded)[0])
    except OverflowError:
        return None


def floor(at: datetime, width: Width) -> datetime:
    """Return the beginning of the day, the week (its Monday) or the month of a time, in UTC."""
    day = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if width == "month":
        return day.replace(day=1)
    return day - timedelta(days=day.weekday()) if width == "week" else day


def following(at: datetime, width: Width) -> datetime:
    """Return the beginning of the next day, week or month."""
    days = {"day": 1, "week": 7, "month": 31}[width]
    return floor(floor(at, width) + timedelta(days=days), width)


def width_of(ranges: Sequence[Range]) -> Width:
    """Return the width of the latest range that has both bounds; else the default."""
    for start, end in reversed(ranges):
        begins, ends = (None if bound is None else time_of(bound) for bound in (start, end))
        if begins is not None and ends is not None:
            days = (ends - begins).days
            return "day" if days <= 1 else "week" if days <= 7 else "month"
    return DEFAULT_WIDTH


def missing(ranges: Sequence[Range], width: Width, *, since: datetime, now: datetime, ahead: int) -> Iterator[Range]:
    """Yield the ranges that no other covers: from the one of `since` to that number of them that begin after `now`.

    Args:
        ranges: those that there are, in order.
        since: not after `now`.
    """
    at = floor(since, width)
    later = 0
    while at <= now or later < ahead:
        bound = bound_at(at)
        covering = next((each for each in ranges if _is_in(bound, each)), None)
        if covering is not None:
            if covering.end is None:
                return
            until = time_of(covering.end)
            assert until is not None
        else:
            end = bound_at(following(at, width))
            # One of another width may begin in the middle.
            end = min([end, *(each.start for each in ranges if each.start is not None and bound < each.start)])
            yield Range(bound, end)
            until = time_of(end)
            assert until is not None
        later += at > now
        at = until


def _is_in(id: str, range: Range) -> bool:
    return (range.start is None or range.start <= id) and (range.end is None or id < range.end)


def name_of(table: str, range: Range) -> str:
    """Return the name of a partition: `finished_spans_20261123_20261130`, by the days in which its range begins, ends.

    A range that begins or ends within a day, after a change of the width, has the time, too.
    """
    return "_".join([table, *(_named(bound) for bound in range)])


def _named(bound: str | None) -> str:
    at = None if bound is None else time_of(bound)
    if at is None:
        return "before"
    return f"{at:%Y%m%d}" if at == floor(at, "day") else f"{at:%Y%m%dt%H%M%S%f}"
