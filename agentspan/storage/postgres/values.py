"""Converts values between Python and PostgreSQL: times are text in agentspan, and `timestamptz` in the database."""

import re
from datetime import datetime
from decimal import Decimal
from struct import Struct
from typing import Any

from psycopg.adapt import AdaptersMap, Buffer, Dumper, Loader
from psycopg.pq import Format

from agentspan import clock

_EPOCH_NS = 946_684_800 * 1_000_000_000
"""The start of the year 2000, in nanoseconds of Unix time. PostgreSQL counts microseconds from it."""
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z\Z", re.ASCII)
_unpack = Struct("!q").unpack


class _BinaryTime(Loader):
    """Loads binary times, with a cache: most rows have a time twice, such as in started_at and inserted_at."""

    format = Format.BINARY

    def load(self, data: Buffer) -> str:
        raw = bytes(data)
        text = _texts.get(raw)
        if text is None:
            if len(_texts) >= _MOST_TEXTS:
                _texts.clear()
            text = _texts[raw] = _text_of(_unpack(raw)[0])
        return text


_texts: dict[bytes, str] = {}
_MOST_TEXTS = 512
_days: dict[int, str] = {}


def _text_of(micros: int) -> str:
    """Return the text of a time. Caches the dates; the cache of clock.to_text has one second, too little here."""
    day, rest = divmod(micros, 86_400_000_000)
    date = _days.get(day)
    if date is None:
        if len(_days) >= _MOST_TEXTS:
            _days.clear()
        date = _days[day] = clock.to_text(day * 86_400_000_000_000 + _EPOCH_NS)[:11]
    minutes, rest = divmod(rest, 60_000_000)
    hours, minutes = divmod(minutes, 60)
    seconds, rest = divmod(rest, 1_000_000)
    return f"{date}{hours:02d}:{minutes:02d}:{seconds:02d}.{rest:06d}Z"


class _TextTime(Loader):
    """Loads text times of a person's own SELECT, such as `2026-01-01 00:00:00.5+00`. Each session is in UTC."""

    def load(self, data: Buffer) -> str:
        text = bytes(data).decode()
        if not text.endswith("+00") or text[4] != "-":  # infinity, and years before 1 or after 9999
            return text
        seconds, _, fraction = text[:-3].partition(".")
        return f"{seconds.replace(' ', 'T')}.{fraction:0<6}Z"


class _TextNumber(Loader):
    """Loads `numeric`, the type of `sum(bigint)`, as an int if the number is whole, else as a float."""

    def load(self, data: Buffer) -> int | float:
        number = Decimal(bytes(data).decode())
        return int(number) if number.is_finite() and number == number.to_integral_value() else float(number)


class _PlainText(Loader):
    def load(self, data: Buffer) -> str:
        return bytes(data).decode()


class _Flag(Dumper):
    """Dumps a bool as 1 or 0, because the columns of flags are integers."""

    def dump(self, obj: Any) -> bytes:
        return b"1" if obj else b"0"


def register(adapters: AdaptersMap) -> None:
    """Register the loaders and the dumper of this module with a connection."""
    adapters.register_loader("timestamptz", _BinaryTime)
    adapters.register_loader("timestamptz", _TextTime)
    adapters.register_loader("numeric", _TextNumber)
    adapters.register_dumper(bool, _Flag)


def register_plain(adapters: AdaptersMap) -> None:
    """Register loaders that return other types (dates, json, uuid …) as text, for a person's own SELECT."""
    for name in ("date", "time", "timetz", "timestamp", "interval", "json", "jsonb", "uuid", "inet", "cidr"):
        adapters.register_loader(name, _PlainText)


def is_time(text: str) -> bool:
    """Return whether a text is a time in the form that agentspan stores, in which times sort as their texts do."""
    try:
        return _TIME.match(text) is not None and datetime.fromisoformat(text).year > 0
    except ValueError:
        return False


def is_storable(text: str) -> bool:
    """Return whether PostgreSQL can store a text. It cannot if there is a NUL or half of a surrogate pair in it."""
    if text.isascii():
        return "\0" not in text
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
