"""One connection to a server: what its session is set to, how long it waits for an answer, and what is sent over it.

Several statements may be sent at once, as a pipeline: they share one round trip.
"""

import select
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg.waiting import Ready, Wait

from agentspan.model.changes import Ref
from agentspan.storage import patience
from agentspan.storage.postgres.values import is_storable
from agentspan.tuning import STANDARD

RV = TypeVar("RV")

LOOK_S = 0.1
"""Seconds without an answer after which the clock is read: psycopg's own interval, in which it sees Ctrl-C."""


class Backend(NamedTuple):
    """The process of the server that works for a connection.

    Attributes:
        pid: its id; a later process may have the same.
        began: when it began, in seconds since the epoch, as text.
    """

    pid: int
    began: str


class Connection(psycopg.Connection[Any]):
    """A connection, with what its session is set to.

    Attributes:
        lock_ms: its lock_timeout; 0 before it is set.
        process: the process that opened it. Another one must not touch it.
        answer_s: how long each answer may take.
        kept: rows that the transaction under way has locked against removal.
        is_distributed: whether the finished spans are on several servers (see citus).
        backend: its process at the server.
        life: when the server started, and when it last recovered from a crash of a process of its own.
        raised: what a signal handler, or a step of this thread's work, raised in a wait, and its traceback.
    """

    lock_ms = 0
    process = 0
    is_distributed = False
    answer_s: float = STANDARD.postgres_statement_s + STANDARD.postgres_answer_s
    kept: frozenset[Ref] = frozenset()
    backend = Backend(0, "")
    life = ""
    raised: tuple[Exception, TracebackType | None] | None = None

    def wait(self, gen: Generator[Any, Any, RV], *args: Any, **how: Any) -> RV:
        """Wait for an answer, as psycopg does, but not for ever. Work of this thread is done meanwhile.

        Raises:
            OperationalError: none came in `answer_s`, or as soon as this thread needs it (see storage.patience). The
                connection is of no use then.
        """
        look_s, within_s = LOOK_S, min(self.answer_s, patience.most_s())
        if not patience.may_connect():  # a recording call looks at the clock more often: it waits little longer
            look_s = max(min(LOOK_S, within_s / 10), 0.001)
            args, how = (look_s,), {}
        try:
            return super().wait(_limited(gen, self.pgconn.socket, within_s, look_s), *args, **how)
        except psycopg.Error:
            raise
        except Exception as error:
            self.raised = error, error.__traceback__
            raise

    def __del__(self, *_: object) -> None:
        """Do nothing, where psycopg warns: libpq's part closes itself, and only in the process that opened it."""


def _limited(gen: Generator[Any, Any, RV], socket: int, within_s: float, look_s: float) -> Generator[Any, Any, RV]:
    """Pass on what a generator of psycopg waits for, until a time. It is resumed after `look_s` without an answer."""
    deadline = 0.0
    try:
        wanted = next(gen)
        while True:
            while patience.has_work() and not _is_ready(socket, wanted):
                patience.step()
            ready = yield wanted
            if ready == Ready.NONE:  # the clock is read only then
                now = time.monotonic()
                deadline = deadline or now + within_s - look_s
                if now >= deadline:
                    raise psycopg.OperationalError(f"no answer within {within_s:g} s")
            wanted = gen.send(ready)
    except StopIteration as done:
        result: RV = done.value
        return result


def _is_ready(socket: int, wanted: int) -> bool:
    poll = select.poll()
    poll.register(socket, (select.POLLIN if wanted & Wait.R else 0) | (select.POLLOUT if wanted & Wait.W else 0))
    return bool(poll.poll(0))


Lend = Callable[[], AbstractContextManager[Connection]]
"""Lends a connection for a read."""


def rows_of(connection: Connection, sql: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[Any]:
    """Execute a statement that returns rows."""
    return connection.execute(sql, values, binary=True).fetchall()


def storable(ids: Sequence[str]) -> list[str]:
    """Return those ids that a row can have."""
    return [id for id in ids if is_storable(id)]


Values = Sequence[Any] | Mapping[str, Any]


class Statement(NamedTuple):
    """A statement and its values."""

    sql: str
    values: Values = ()


class Ahead:
    """Statements that are sent together with the BEGIN of a transaction, and the rows that each returned.

    Attributes:
        rows: for each statement, in the attempt that is under way.
    """

    def __init__(self, statements: Sequence[Statement]) -> None:
        self.statements = statements
        self.rows: list[list[Any]] = []


def rows_of_each(connection: Connection, statements: Sequence[Statement]) -> list[list[Any]]:
    """Execute statements in their order, in one round trip; return the rows of each, none where it has no result.

    In a pipeline that is under way, each returns rows. After the first that fails, no other is executed; its error is
    raised.
    """
    if connection.info.pipeline_status:  # to enter it again would wait for what was sent before
        sent = [connection.execute(sql, values, binary=True) for sql, values in statements]
        return [cursor.fetchall() for cursor in sent]
    with pipelined(connection):
        cursors = [connection.execute(sql, values, binary=True) for sql, values in statements]
    return [[] if cursor.description is None else cursor.fetchall() for cursor in cursors]


@contextmanager
def pipelined(connection: Connection) -> Iterator[None]:
    """Let statements be sent without waiting for the answers to those before."""
    broken: psycopg.Error | None = None
    connection.raised = None
    try:
        with connection.pipeline():
            try:
                yield
            except psycopg.Error as error:  # not to the end of the pipeline, which would log that it fails as well
                broken = error
    except Exception:
        raised, connection.raised = connection.raised, None
        if raised is None:
            raise
        # The end of a pipeline raises an error of its own instead, or takes the traceback away, by which an exception
        # of the program's signal handler is told from a fault.
        raise raised[0].with_traceback(raised[1]) from None
    if broken is not None:
        raise broken
