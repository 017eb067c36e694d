"""One connection to a PostgreSQL server: its session settings, a time limit for each answer, pipelines, and its values.

A pipeline sends several statements at once, so that they share one round trip. Times are text in agentspan, and
`timestamptz` in the database.
"""

import re
import select
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from math import inf
from struct import Struct
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg.adapt import AdaptersMap, Buffer, Dumper, Loader
from psycopg.pq import Format
from psycopg.waiting import Ready, Wait

from agentspan import clock
from agentspan.storage.patience import ENDLESS, Patience
from agentspan.tuning import STANDARD

RV = TypeVar("RV")

LOOK_S = 0.1
"""Seconds without an answer after which the clock is read: psycopg's own interval for noticing Ctrl-C."""


class Backend(NamedTuple):
    """The process of the server that works for a connection.

    Attributes:
        pid: its id; a later process may have the same.
        began: when it began, in seconds since the epoch, as text.
    """

    pid: int
    began: str


class Connection(psycopg.Connection[Any]):
    """A connection that limits how long it waits for an answer, and remembers the settings of its session.

    Attributes:
        lock_ms: the session's lock_timeout; 0 before it is set.
        process: the id of the process that opened the connection. A forked child must not use it.
        answer_s: the most seconds that each answer may take.
        patience: the limits of the caller that uses the connection, and its work.
        is_distributed: whether the finished spans are on several servers (see partitions).
        backend: the server process that works for the connection.
        life: when the server started, and when it last recovered from a crash of one of its processes.
        raised: the exception that a signal handler, or the caller's work, raised during `wait`, and its traceback.
    """

    lock_ms = 0
    process = 0
    is_distributed = False
    answer_s: float = STANDARD.postgres_statement_s + STANDARD.postgres_answer_s
    patience: Patience = ENDLESS
    backend = Backend(0, "")
    life = ""
    raised: tuple[Exception, TracebackType | None] | None = None

    def wait(self, gen: Generator[Any, Any, RV], *args: Any, **how: Any) -> RV:
        """Wait for an answer, but not for ever as psycopg does. Meanwhile, do the caller's work.

        Raises:
            OperationalError: no answer came within `answer_s`, or within the caller's patience. The connection cannot
                be used any more.
        """
        patience = self.patience
        look_s, within_s = LOOK_S, min(self.answer_s, patience.most_s())
        if patience.until != inf:  # a recording call waits only briefly, so it reads the clock more often
            look_s = max(min(LOOK_S, within_s / 10), 0.001)
            args, how = (look_s,), {}
        try:
            limited = _limited(gen, self.pgconn.socket, within_s, look_s, patience.meanwhile)
            return super().wait(limited, *args, **how)
        except psycopg.Error:
            raise
        except Exception as error:
            self.raised = error, error.__traceback__
            raise

    def __del__(self, *_: object) -> None:
        """Do nothing, where psycopg warns: libpq closes the connection itself, only in the process that opened it."""


def _limited(
    gen: Generator[Any, Any, RV], socket: int, within_s: float, look_s: float, work: Callable[[], bool] | None
) -> Generator[Any, Any, RV]:
    """Yield the waits of a psycopg generator; raise OperationalError after `within_s` seconds without an answer.

    Before each wait, call `work` as long as it has more to do and no answer is there.

    The caller must resume this generator after each `look_s` seconds without an answer.
    """
    deadline = 0.0
    try:
        wanted = next(gen)
        while True:
            while work is not None and not _is_ready(socket, wanted):
                work = work if work() else None
            ready = yield wanted
            if ready == Ready.NONE:  # reading the clock at each answer would cost time
                now = time.monotonic()
                deadline = deadline or now + within_s - look_s
                if now >= deadline:
                    raise psycopg.OperationalError(f"no answer within {within_s:g} s")
            wanted = gen.send(ready)
    except StopIteration as done:
        result: RV = done.value
        return result


def _is_ready(socket: int, wanted: int) -> bool:
    if not hasattr(select, "poll"):  # on Windows
        return any(select.select([socket] * bool(wanted & Wait.R), [socket] * bool(wanted & Wait.W), [], 0))
    poll = select.poll()
    poll.register(socket, (select.POLLIN if wanted & Wait.R else 0) | (select.POLLOUT if wanted & Wait.W else 0))
    return bool(poll.poll(0))


Lend = Callable[[], AbstractContextManager[Connection]]
"""A function that lends a connection for a read."""


def rows_of(connection: Connection, sql: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[Any]:
    """Execute a statement that returns rows."""
    return connection.execute(sql, values, binary=True).fetchall()


def read(lend: Lend, sql: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[Any]:
    """Execute a statement that returns rows, on a lent connection."""
    with lend() as connection:
        return rows_of(connection, sql, values)


def storable(ids: Sequence[str]) -> list[str]:
    """Return the ids that PostgreSQL can store as text; no row can have another id."""
    return [id for id in ids if is_storable(id)]


Values = Sequence[Any] | Mapping[str, Any]


class Statement(NamedTuple):
    """A statement and its values."""

    sql: str
    values: Values = ()


class Ahead:
    """Statements that are sent together with the BEGIN of a transaction, and the rows that each returned.

    Attributes:
        rows: the rows that each statement returned in the current attempt at the transaction.
    """

    def __init__(self, statements: Sequence[Statement]) -> None:
        self.statements = statements
        self.rows: list[list[Any]] = []


def rows_of_each(connection: Connection, statements: Sequence[Statement]) -> list[list[Any]]:
    """Execute statements in their order, in one round trip; return the rows of each.

    A statement without a result has no rows. Within a pipeline that the caller has opened, each statement must return
    rows. If a statement fails, its error is raised, and the statements after it are not executed.
    """
    if len(statements) == 1:
        return [rows_of(connection, *statements[0])]
    if connection.info.pipeline_status:  # a nested pipeline would wait for the answers to earlier statements
        sent = [connection.execute(sql, values, binary=True) for sql, values in statements]
        return [cursor.fetchall() for cursor in sent]
    with pipelined(connection):
        cursors = [connection.execute(sql, values, binary=True) for sql, values in statements]
    return [[] if cursor.description is None else cursor.fetchall() for cursor in cursors]


@contextmanager
def pipelined(connection: Connection) -> Iterator[None]:
    """Send the statements of a with-block without waiting for the answers to earlier statements."""
    broken: psycopg.Error | None = None
    connection.raised = None
    try:
        with connection.pipeline():
            try:
                yield
            except psycopg.Error as error:  # kept from the end of the pipeline, which would log a failure of its own
                broken = error
    except Exception:
        raised, connection.raised = connection.raised, None
        if raised is None:
            raise
        # The end of a pipeline replaces the exception by an error of its own, or drops its traceback. The traceback
        # tells an exception of the program's signal handler from a fault.
        raise raised[0].with_traceback(raised[1]) from None
    if broken is not None:
        raise broken


_EPOCH_NS = 946_684_800 * 1_000_000_000
"""The start of the year 2000, in nanoseconds of Unix time. PostgreSQL counts microseconds from it."""
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z\Z", re.ASCII)
_unpack = Struct("!q").unpack


class _BinaryTime(Loader):
    """Loads binary times."""

    format = Format.BINARY

    def load(self, data: Buffer) -> str:
        return _text_of(bytes(data))


@lru_cache(maxsize=512)
def _text_of(raw: bytes) -> str:
    """Return the text of a time. Most rows have a time twice, such as in started_at and inserted_at."""
    day, rest = divmod(_unpack(raw)[0], 86_400_000_000)
    minutes, rest = divmod(rest, 60_000_000)
    hours, minutes = divmod(minutes, 60)
    seconds, rest = divmod(rest, 1_000_000)
    return f"{_date_of(day)}{hours:02d}:{minutes:02d}:{seconds:02d}.{rest:06d}Z"


@lru_cache(maxsize=512)  # the cache of clock.to_text has one second, too little here
def _date_of(day: int) -> str:
    return clock.to_text(day * 86_400_000_000_000 + _EPOCH_NS)[:11]


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


_HALF = re.compile("[\ud800-\udfff]")


def is_storable(text: str) -> bool:
    """Return whether PostgreSQL can store a text. It cannot if there is a NUL or half of a surrogate pair in it."""
    return "\0" not in text and (text.isascii() or _HALF.search(text) is None)
