"""The clocks: wall clock, monotonic clock, and the text form in which times are stored.

No other module reads the time of a record; `disk` has the clock of waits. Times are ISO-8601 UTC text with six digits
and `Z` (`2026-11-24T15:20:11.123456Z`), which sorts as text. freezegun can replace all of them: `now` looks `time` up
at each call, and freezegun recognises the functions behind the other names. time_machine replaces the wall clock only,
as it does for every program.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

_STORED = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z\Z")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)\Z")

# The last whole second and its text: formatting a second costs 0.5 µs, and a burst of spans shares it.
_second: tuple[int, str] = (0, "1970-01-01T00:00:00.")
_minutes: dict[int, str] = {}
"""The texts of minutes since the epoch. One of an unknown minute takes 1.4 µs; an import has many in turn."""
_MOST_MINUTES = 1000
_TWO_DIGITS = tuple(f"{number:02d}" for number in range(60))
_written: tuple[str, str] = ("0", "1970-01-01T00:00:00.")
"""The last second that `text_of` formatted: the digits of the nanoseconds without the last nine, and the text."""


def now() -> str:
    """Return the wall clock's time as text (0.4 µs)."""
    micros = time.time_ns() // 1000
    seconds, text = _second
    micros -= seconds * 1_000_000
    return f"{text}{micros:06d}Z" if 0 <= micros < 1_000_000 else to_text(time.time_ns())


wall_ns = time.time_ns
"""Return nanoseconds since the Unix epoch. `to_text` formats them as `now` does."""

monotonic_ns = time.perf_counter_ns
"""Return nanoseconds of a clock that never goes backwards; only differences mean anything."""


def to_text(epoch_ns: int) -> str:
    """Format nanoseconds since the Unix epoch, cut to microseconds (0.3 µs)."""
    global _second
    cached, text = _second
    micros = epoch_ns // 1000 - cached * 1_000_000
    if 0 <= micros < 1_000_000:
        return f"{text}{micros:06d}Z"
    seconds, micros = divmod(epoch_ns // 1000, 1_000_000)
    minute, second = divmod(seconds, 60)
    text = f"{_minutes.get(minute) or _minute(minute)}{_TWO_DIGITS[second]}."
    _second = (seconds, text)
    return f"{text}{micros:06d}Z"


def _minute(number: int) -> str:
    """Format a minute since the epoch, and keep its text."""
    if len(_minutes) >= _MOST_MINUTES:
        _minutes.clear()
    text = _minutes[number] = datetime.fromtimestamp(60 * number, UTC).isoformat()[:17]
    return text


def text_of(digits: str) -> str:
    """Format decimal digits of nanoseconds since the Unix epoch, as `to_text` does (0.1 µs)."""
    global _written
    second, text = _written
    if digits[:-9] == second:
        return f"{text}{digits[-9:-3]}Z"
    formatted = to_text(int(digits))
    if digits.isdecimal() and len(digits) > 9:
        _written = (digits[:-9], formatted[:20])
    return formatted


def parse(value: object) -> str:
    """Convert an aware `datetime`, or RFC 3339 text with an offset, to the text form in which times are stored.

    Raises:
        ValueError: the value is no time, or it has no offset, and so would mean another moment on another machine.
    """
    if isinstance(value, str):
        if _STORED.match(value) and value[17:19] != "60":  # most times are stored ones: a third of the price
            _moment(value)
            return value
        if not _RFC3339.match(value):
            raise ValueError("not an RFC 3339 time with an offset, such as 2026-11-24T15:20:11Z")
        value = _moment(value.replace(" ", "T").upper())
    if not isinstance(value, datetime):
        raise ValueError("neither a datetime nor RFC 3339 text")
    if value.utcoffset() is None:
        raise ValueError("a time without an offset; use datetime.now(timezone.utc) or end the text in Z")
    try:
        return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    except OverflowError:
        raise ValueError("outside the years 1 to 9999") from None


def _moment(text: str) -> datetime:
    """Parse RFC 3339 text. A leap second, 23:59:60 UTC, becomes the first second of the next day."""
    is_leap = text[17:19] == "60"
    try:
        moment = datetime.fromisoformat(f"{text[:17]}59{text[19:]}" if is_leap else text)
    except ValueError:
        raise ValueError("no such date or time of day") from None
    if not is_leap:
        return moment
    try:
        utc = moment.astimezone(UTC)
        if (utc.hour, utc.minute) != (23, 59):
            raise ValueError("no such date or time of day")
        return utc + timedelta(seconds=1)
    except OverflowError:
        raise ValueError("outside the years 1 to 9999") from None


def to_datetime(text: str) -> datetime:
    """Return a stored time as an aware `datetime` in UTC."""
    return datetime.fromisoformat(text)


def millis_between(earlier: str, later: str) -> float:
    """Return the milliseconds from one stored time to another; negative when `later` is before `earlier`."""
    return (to_datetime(later) - to_datetime(earlier)).total_seconds() * 1000


@contextmanager
def replaced(read_wall_ns: Callable[[], int], read_monotonic_ns: Callable[[], int]) -> Iterator[None]:
    """Replace the wall clock and the monotonic clock within a with-block, in all threads. For tests."""
    global now, wall_ns, monotonic_ns
    before = now, wall_ns, monotonic_ns
    now, wall_ns, monotonic_ns = lambda: to_text(read_wall_ns()), read_wall_ns, read_monotonic_ns
    try:
        yield
    finally:
        now, wall_ns, monotonic_ns = before
