"""Parses times that people type: a duration before now, a day, a time of day, or a date. Returns the stored text."""

import re
from datetime import UTC, datetime, time, timedelta, tzinfo

from agentspan import clock
from agentspan.errors import InvalidValue

_AGO = re.compile(r"(\d{1,9}(?:\.\d{1,3})?) ?([smhdw])\Z")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_DAYS = {"today": 0, "yesterday": 1}
_DATE = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?))?\Z")
_TIME_OF_DAY = re.compile(r"(?:(today|yesterday) )?(\d\d:\d\d(?::\d\d)?)\Z")
FORMS = "must be such as 90s, 15m, 2h, 7d, 02:00, today, yesterday, 2026-11-24, '2026-11-24 03:00'"


def parse(text: str, field: str = "since", *, zone: tzinfo | None = UTC) -> str:
    """Return the stored text of a time.

    Args:
        text: `90s`, `15m`, `2h`, `7d`, `4w` (so long ago); `today`, `yesterday` (the beginning of the day);
            `02:00` (the last time it was that late), `yesterday 02:00`; `2026-11-24`, `2026-11-24 03:00`; or RFC 3339.
        field: its name in the error.
        zone: of times without an offset; None for the machine's own.

    Raises:
        InvalidValue: the text is none of these.
    """
    text = text.strip()
    try:
        found = _moment(text, clock.to_datetime(clock.now()), zone)
        return clock.parse(text if found is None else found)
    except (OverflowError, ValueError):
        raise InvalidValue(field, FORMS) from None


def stored(value: object, field: str, *, zone: tzinfo | None = UTC) -> str:
    """Return the stored text of an aware datetime, or of a text (see parse).

    Raises:
        InvalidValue: it is neither; or a datetime without an offset.
    """
    if isinstance(value, str):
        return parse(value, field, zone=zone)
    try:
        return clock.parse(value)
    except ValueError as error:
        raise InvalidValue(field, str(error)) from None


def _moment(text: str, now: datetime, zone: tzinfo | None) -> datetime | None:
    """Return the moment of a text that is not RFC 3339."""
    if ago := _AGO.match(text):
        return now - timedelta(seconds=float(ago[1]) * _UNITS[ago[2]])
    today = now.astimezone(zone).date()
    if text in _DAYS:
        return _in(zone, datetime.combine(today - timedelta(days=_DAYS[text]), time()))
    if date := _DATE.match(text):
        return _in(zone, datetime.fromisoformat(f"{date[1]}T{date[2] or '00:00'}"))
    if of_day := _TIME_OF_DAY.match(text):
        at = time.fromisoformat(of_day[2])
        moment = _in(zone, datetime.combine(today - timedelta(days=_DAYS.get(of_day[1] or "", 0)), at))
        is_to_come = not of_day[1] and moment > now
        return _in(zone, datetime.combine(today - timedelta(days=1), at)) if is_to_come else moment
    return None


def _in(zone: tzinfo | None, moment: datetime) -> datetime:
    """Return a date and time of a zone as an aware one."""
    return moment.astimezone() if zone is None else moment.replace(tzinfo=zone)
