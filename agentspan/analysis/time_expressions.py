"""Parses times that people type: a duration before now, a day, or a time, in UTC. Returns the stored text."""

import re
from datetime import timedelta

from agentspan import clock
from agentspan.errors import InvalidValue

_AGO = re.compile(r"(\d{1,9}(?:\.\d{1,3})?) ?([smhdw])\Z")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_DAY = re.compile(r"\d{4}-\d\d-\d\d\Z")
_MINUTE = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?\Z")


def parse(text: str, field: str = "since") -> str:
    """Return the stored text of a time.

    Args:
        text: `90s`, `15m`, `2h`, `7d`, `4w` (so long ago); `2026-11-24`, `2026-11-24 03:00` (UTC); or RFC 3339.
        field: its name in the error.

    Raises:
        InvalidValue: the text is none of these.
    """
    ago = _AGO.match(text.strip())
    try:
        if ago is not None:
            span = timedelta(seconds=float(ago[1]) * _UNITS[ago[2]])
            return clock.parse(clock.to_datetime(clock.now()) - span)
        if _DAY.match(text.strip()):
            return clock.parse(f"{text.strip()}T00:00:00Z")
        if _MINUTE.match(text.strip()):
            text = text.strip()
            return clock.parse((text if text.count(":") == 2 else text + ":00") + "Z")
        return clock.parse(text.strip())
    except (OverflowError, ValueError):
        raise InvalidValue(field, "must be such as 90s, 15m, 2h, 7d, 2026-11-24, '2026-11-24 03:00' (UTC)") from None
