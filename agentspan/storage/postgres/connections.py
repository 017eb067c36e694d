"""The connections of one process to one schema. Each is lent to one thread at a time; a forked child opens its own.

psycopg_pool is not used: it has threads of its own, which a fork would stop in the middle of their work, and which
would be visible in the recording program. A list of idle connections and a limit are enough.

If a connection breaks before the answer to a COMMIT, a new connection asks for the outcome (see is_committed).
"""

import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg
from psycopg import conninfo
from psycopg.pq import TransactionStatus

from agentspan import host
from agentspan.errors import (
    AgentspanError,
    DatabaseBusy,
    DatabaseUnusable,
    InDoubt,
    InvalidValue,
    NotPermitted,
    NotStorable,
    StorageError,
)
from agentspan.host import Renewal, page
from agentspan.storage.location import Location
from agentspan.storage.patience import ENDLESS, Patience, Unconnected, sharing
from agentspan.storage.postgres import connection
from agentspan.storage.postgres.connection import (
    Ahead,
    Backend,
    Connection,
    Statement,
    pipelined,
    rows_of,
    rows_of_each,
)
from agentspan.tuning import STANDARD, Tuning

DRIVER_ERRORS = (psycopg.Error, UnicodeEncodeError, OverflowError)
"""The errors that psycopg raises. The last two: text that is no Unicode, and numbers that no column holds."""

_AGAIN = frozenset({"40001", "40P01", "23505", "23514"})
"""SQLSTATEs after which a transaction is retried at once: serialization failure, deadlock, a key that another
transaction stored first, and a partition that another transaction made for a row on its way to the default one."""
_BUSY = frozenset({"55P03", "57014", "53300", "57P03", "57P01", "57P02", "23514"})
"""SQLSTATEs of a busy server: timeouts, too many connections, a start or stop, a migration to partitions."""
_NO_TABLES = frozenset({"42P01", "3F000"})
PAUSE_S = 0.05
"""Seconds between two attempts to get the state of a transaction or process from the server."""
_STATUS = "select pg_xact_status(%s::xid8)"
# The old server process may not have noticed that the connection broke: it holds locks and waits for a lost COMMIT.
_END_OF_TRANSACTION = "select pg_terminate_backend(pid) from pg_stat_activity where backend_xid = %s::xid8::xid"


def is_worth_repeating(error: BaseException) -> bool:
    """Return whether a transaction that failed with this error may succeed if it is retried at once."""
    return isinstance(error, psycopg.Error) and error.sqlstate in _AGAIN


def has_no_tables(error: psycopg.Error) -> bool:
    """Return whether a statement failed because its table or schema does not exist."""
    return error.sqlstate in _NO_TABLES


def translated(error: BaseException, location: Location) -> AgentspanError:
    """Return the error of agentspan for an error of the driver."""
    state = getattr(error, "sqlstate", None)
    if state is None:
        if isinstance(error, (UnicodeEncodeError, OverflowError, psycopg.DataError)):
            return NotStorable(f"PostgreSQL cannot store a value: {type(error).__name__}")
        if isinstance(error, psycopg.OperationalError):
            return StorageError(f"{location}: {location.hidden_in(_one_line(error))}")
        return StorageError(f"{location}: {type(error).__name__}")
    named = f"{type(error).__name__}, SQLSTATE {state}"
    if state in _BUSY or state[:2] == "53":
        return DatabaseBusy(f"{location} did not answer in time or has no room ({named}); try again")
    if state in ("40001", "40P01"):
        return DatabaseBusy(f"other writers kept getting in the way in {location} ({named}); try again")
    if state == "25006":
        return NotPermitted(f"{location} was opened to be read only")
    if state[:2] in ("22", "54") or state in ("23502", "42804"):
        return NotStorable(f"PostgreSQL cannot store a value ({named})")
    if state == "42501":
        return DatabaseUnusable(
            f"the user of {location} lacks a privilege ({named}); see 'Roles' in docs/postgresql.md"
        )
    if state in _NO_TABLES or state == "42703":
        return DatabaseUnusable(f"{location} lacks a table or column of agentspan ({named})")
    return StorageError(f"{location}: PostgreSQL refused a statement ({named})")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


T = TypeVar("T")

MOST = 16
"""The most connections of one storage. Further threads wait until one is free."""
ATTEMPTS = 20
"""The most attempts at a transaction that conflicts with other transactions."""
SCHEMA = "agentspan"

_BEGIN = (Statement("begin"), Statement("select pg_current_xact_id()::text"))
_BEGIN_SNAPSHOT = "begin isolation level repeatable read read only"
_WAIT_AT_MOST = "select set_config('lock_timeout', %s, false)"
_END = (
    "select pg_terminate_backend(pid) from pg_stat_activity where pid = %s and extract(epoch from backend_start) = %s"
)
_SCHEMA_IN_URL = re.compile(r"(?<=[?&])schema=([^&#]*)&?")
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}\Z")
_SET_UP = """
select set_config('search_path', %s, false), set_config('timezone', 'UTC', false),
       set_config('statement_timeout', %s, false), set_config('idle_in_transaction_session_timeout', %s, false),
       set_config('lock_timeout', %s, false), set_config('default_transaction_read_only', %s, false),
       set_config('work_mem', '64MB', false), set_config('jit', 'off', false),
       concat_ws(' ', pg_postmaster_start_time(), (select stats_reset from pg_stat_wal)), pg_backend_pid(),
       (select extract(epoch from backend_start)::text from pg_stat_activity where pid = pg_backend_pid())
"""  # work_mem: statistics sort all durations. jit: compiling takes longer than nearly all of these statements


class Unanswered(InDoubt):
    """A statement was sent and not answered: it may still be applied, until its process at the server has ended.

    Attributes:
        backend: the server process that got the statement.
    """

    def __init__(self, location: Location, backend: Backend) -> None:
        super().__init__(in_doubt(location))
        self.backend = backend


class Connections:
    """The connections of one process to one schema; each is lent to one thread at a time.

    Args:
        location: the URL; its parameter `schema` names the schema.
        read_only: whether the server should refuse to write.
        wait_s: the most seconds to connect, and to wait for a connection that other threads use.

    Attributes:
        is_distributed: whether the finished spans are on several servers (see partitions).
        patience: how long the caller waits for answers.

    Raises:
        InvalidValue: libpq does not understand the URL, or its schema is no usable name.
    """

    __slots__ = ("__dict__", "__weakref__", "_kept", "patience")

    def __init__(self, location: Location, *, read_only: bool, wait_s: float, tuning: Tuning = STANDARD) -> None:
        self.location = location
        self.read_only = read_only
        self.wait_s = wait_s
        self.tuning = tuning
        self.is_distributed = False
        self.schema, self._parameters = _parsed(location)
        self._idle: list[Connection] = []
        self._turns = threading.BoundedSemaphore(MOST)
        self._closed = False
        self.patience = ENDLESS
        _all.add(self)

    def waiting(self, patience: Patience) -> "Connections":
        """Return the same connections for a caller with this patience."""
        return sharing(self, patience=patience.within(self.patience), _kept=self)  # a fork knows only the kept one

    def check_open(self) -> None:
        """Raise StorageError if the storage is closed. In a forked child, replace the inherited locks first."""
        if not page[0]:
            host.renew()
        if self._closed:
            raise StorageError("the storage is closed; open it again")

    def transact(
        self, work: Callable[[Connection], T], wait_s: float, *, once: bool = False, ahead: Ahead | None = None
    ) -> T:
        """Call `work` in a transaction, commit the transaction, and return the result of `work`.

        The transaction is retried after a conflict with another one (deadlock, same key at the same moment), and if the
        connection broke before the commit. If it breaks during the commit, a new connection asks the server whether the
        transaction was committed (see is_committed).

        Args:
            once: whether `work` must not be called twice; then nothing is retried.
            ahead: statements that are sent with the BEGIN. It has their rows when `work` is called.

        Raises:
            DatabaseBusy: other transactions held a lock for `wait_s` seconds, or conflicted each time. Nothing is
                stored.
            NotPermitted: the storage was opened to be read only.
            Unanswered: the connection broke during the commit, and the server does not tell the outcome.
        """
        self._check_writable()

        def attempt() -> T:
            with self.lent(wait_s) as connection:
                # Set before the first statement: the connection may have broken while it was idle.
                connection.answer_s = wait_s + self.tuning.postgres_write_s
                first = (*_BEGIN, *(() if ahead is None else ahead.statements))
                _, ((xid,),), *rows = _rows_of_each(connection, wait_s, first)
                if ahead is not None:
                    ahead.rows = rows
                done = work(connection)
                try:
                    connection.execute("commit")
                    return done
                except psycopg.OperationalError as error:
                    if not is_lost(error):
                        raise
                    lost = error
            try:
                within_s = min(wait_s, self.patience.left_s())
                if is_committed(lambda: self.connected(wait_s), self.location, xid, connection.life, within_s):
                    return done
            except InDoubt as error:
                raise Unanswered(self.location, connection.backend) from error
            raise lost

        return self._tried(attempt, 1 if once else ATTEMPTS)

    def alone(self, statements: Sequence[Statement], wait_s: float) -> list[Any] | None:
        """Execute statements as one transaction without BEGIN and COMMIT; return the rows of the last one.

        Returns:
            None after a conflict with another transaction, such as for a unique key. Nothing is stored then.

        Raises:
            Unanswered: the connection broke. The change is stored, or not, or may still be stored later.
        """
        self._check_writable()
        backend = None
        try:
            with self.lent(wait_s) as connection:
                backend = connection.backend
                # Set before the first statement: the connection may have broken while it was idle.
                connection.answer_s = wait_s + self.tuning.postgres_write_s
                return _rows_of_each(connection, wait_s, statements)[-1]
        except DRIVER_ERRORS as error:
            if is_worth_repeating(error):
                return None
            if is_lost(error) and backend is not None:
                raise Unanswered(self.location, backend) from error
            raise translated(error, self.location) from error

    def end(self, backend: Backend, wait_s: float) -> None:
        """Terminate a server process that never answered. Afterwards its work is committed or rolled back for good.

        Raises:
            StorageError: the server does not answer, or the process still runs after `wait_s` seconds.
        """
        until = time.monotonic() + min(wait_s, self.patience.left_s())
        with self.reading() as connection:
            while rows_of(connection, _END, backend):
                if time.monotonic() >= until:
                    raise DatabaseBusy(f"{self.location} is still at work on what was sent before; try again")
                time.sleep(PAUSE_S)

    @contextmanager
    def reading(self, wait_s: float | None = None) -> Iterator[Connection]:
        """Lend a connection without a transaction: each statement sees all rows that are committed when it starts.

        Errors of the driver become errors of agentspan.
        """
        try:
            with self.lent(self.wait_s if wait_s is None else wait_s) as connection:
                yield connection
        except DRIVER_ERRORS as error:
            raise translated(error, self.location) from error

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Lend a connection in a read-only transaction: all its statements see the same snapshot."""
        with self.reading() as connection:
            connection.execute(_BEGIN_SNAPSHOT)
            yield connection
            connection.execute("commit")

    @contextmanager
    def glance(self) -> Iterator[Connection]:
        """Lend a snapshot in pipeline mode, whose BEGIN is sent with the first statement. Not for COPY or cursors."""
        with self.reading() as connection, pipelined(connection):
            connection.execute(_BEGIN_SNAPSHOT)
            yield connection
            connection.execute("commit")

    @contextmanager
    def lent(self, wait_s: float) -> Iterator[Connection]:
        """Lend a connection. If it is not idle afterwards, as after an error or an interrupt, it is closed."""
        self.check_open()
        turns = self._turns
        if not turns.acquire(timeout=min(wait_s, self.patience.left_s())):
            raise DatabaseBusy(f"{MOST} threads use {self.location} at the same time, and none is done; try again")
        connection = None
        try:
            connection = self._idle_one() or self.connected(wait_s)
            connection.answer_s = self.tuning.postgres_statement_s + self.tuning.postgres_answer_s
            connection.is_distributed = self.is_distributed
            connection.patience = self.patience
            yield connection
        finally:
            if connection is not None:
                self._take_back(connection)
            turns.release()

    def connected(self, wait_s: float) -> Connection:
        """Return a new connection, which the caller closes.

        Raises:
            DatabaseUnusable: the server cannot be reached, or refuses the user.
            Unconnected: the caller may not wait for a new connection (see storage.patience).
        """
        if not self.patience.may_connect:
            raise Unconnected(f"there is no connection to {self.location} yet")
        parameters = {**self._parameters, "connect_timeout": max(2, round(wait_s))}
        try:
            opened = Connection.connect(**parameters, autocommit=True)
        except psycopg.Error as error:
            problem = self.location.hidden_in(_one_line(error))
            raise DatabaseUnusable(f"{self.location} cannot be reached: {problem}") from None
        opened.process = os.getpid()
        connection.register(opened.adapters)
        opened.answer_s = wait_s + self.tuning.postgres_write_s
        opened.patience = self.patience
        limit, lock_limit = f"{self.tuning.postgres_statement_s:g}s", f"{self.tuning.postgres_lock_s:g}s"
        read_only = "on" if self.read_only else "off"
        set_up = opened.execute(_SET_UP, (f'"{self.schema}"', limit, limit, lock_limit, read_only)).fetchall()
        opened.life, *backend = set_up[0][-3:]
        opened.backend = Backend(*backend)
        return opened

    def close(self) -> None:
        """Close all idle connections. A connection in use is closed when its thread returns it."""
        self._closed = True
        while self._idle:
            with suppress(IndexError):
                _close(self._idle.pop())

    def _check_writable(self) -> None:
        if self.read_only:
            self.check_open()
            raise NotPermitted(f"{self.location} was opened to be read only")

    def _tried(self, attempt: Callable[[], T], attempts: int) -> T:
        lost: Exception | None = None
        for number in range(attempts):
            try:
                return attempt()
            except Unconnected:  # nothing was sent in this attempt
                if lost is None:
                    raise
                raise translated(lost, self.location) from lost
            except DRIVER_ERRORS as error:
                is_last = number == attempts - 1 or (lost is not None and is_lost(error))
                if is_last or not (is_lost(error) or is_worth_repeating(error)):
                    raise translated(error, self.location) from error
                lost = error if is_lost(error) else lost
        raise AssertionError("no attempts")

    def _idle_one(self) -> Connection | None:
        while self._idle:
            with suppress(IndexError):
                connection = self._idle.pop()
                # An idle socket is readable only if the server has closed the connection, as in a restart.
                if not host.is_readable(connection):
                    return connection
                _close(connection)
        return None

    def _take_back(self, connection: Connection) -> None:
        if connection.process != os.getpid():  # the parent was using it when this child was forked
            _inherited.append(connection)
        elif self._closed or not _is_idle(connection):
            _close(connection)
        else:
            self._idle.append(connection)


def is_lost(error: BaseException) -> bool:
    """Return whether an error may come from a broken connection, so that the server's answer is unknown."""
    state = getattr(error, "sqlstate", None)
    return isinstance(error, psycopg.OperationalError) and (state is None or state.startswith(("08", "57P")))


def is_committed(connect: Callable[[], Connection], location: Location, xid: str, life: str, within_s: float) -> bool:
    """Return whether a transaction was committed; False means that it never will be.

    After a crash, a server may give the number of a transaction that left no trace in its log to another transaction.
    So after a restart, the answer "committed" may be about the other one, and is not trusted.

    Args:
        connect: opens a new connection.
        xid: the number of the transaction.
        life: the `Connection.life` of the connection on which the transaction began.
        within_s: seconds after which no further attempt is made.

    Raises:
        InDoubt: the server cannot be reached, was restarted, or does not know the transaction any more.
    """
    deadline = time.monotonic() + within_s
    while True:
        with suppress(psycopg.Error, StorageError):
            connection = connect()
            try:
                found = connection.execute(_STATUS, (xid,)).fetchone()
                status = None if found is None else found[0]
                was_restarted = connection.life != life
                if status is None or (was_restarted and status == "committed"):
                    break
                if was_restarted or status in ("committed", "aborted"):
                    return bool(status == "committed")
                connection.execute(_END_OF_TRANSACTION, (xid,))
            finally:
                connection.close()
        if time.monotonic() >= deadline:
            break
        time.sleep(PAUSE_S)
    raise InDoubt(in_doubt(location))


def in_doubt(location: Location) -> str:
    """Return the message of an InDoubt."""
    return (
        f"the connection to {location} broke while changes were committed: they are stored, or not. Look, or try "
        "again with the same idempotency key"
    )


def _rows_of_each(connection: Connection, wait_s: float, statements: Sequence[Statement]) -> list[list[Any]]:
    """Execute statements in one round trip. Each waits at most `wait_s` seconds for a lock."""
    wait_ms = _in_ms(wait_s)
    if connection.lock_ms == wait_ms:
        return rows_of_each(connection, statements)
    _, *rows = rows_of_each(connection, (Statement(_WAIT_AT_MOST, (str(wait_ms),)), *statements))
    connection.lock_ms = wait_ms  # only after success: a failure rolls the setting back, too
    return rows


def wait_at_most(connection: Connection, wait_s: float) -> None:
    """Let each statement of a connection wait at most `wait_s` seconds for a lock."""
    wait_ms = _in_ms(wait_s)
    if connection.lock_ms != wait_ms:
        connection.execute(f"set lock_timeout = {wait_ms}", prepare=False)
        connection.lock_ms = wait_ms


def _in_ms(wait_s: float) -> int:
    return max(1, round(wait_s * 1000))  # PostgreSQL takes 0 for no limit


def _is_idle(connection: Connection) -> bool:
    info = connection.info
    return not connection.closed and info.transaction_status == TransactionStatus.IDLE and not info.pipeline_status


def _close(connection: Connection) -> None:
    with suppress(psycopg.Error, OSError):
        connection.close()


def _parsed(location: Location) -> tuple[str, dict[str, Any]]:
    """Return the schema that a URL names, and libpq's parameters."""
    found = _SCHEMA_IN_URL.search(location.text)
    schema = SCHEMA if found is None else found[1]
    if not _NAME.match(schema):
        raise InvalidValue("db", "the schema in a URL of PostgreSQL is a name of small letters, digits and underscores")
    # A host that stops answering is noticed after 20 s, even if the URL has no timeouts.
    defaults = {"client_encoding": "UTF8", "application_name": "agentspan", "tcp_user_timeout": "20000"}
    defaults |= {"keepalives_idle": "10", "keepalives_interval": "5", "keepalives_count": "3"}
    try:
        parts = conninfo.conninfo_to_dict(_SCHEMA_IN_URL.sub("", location.text).rstrip("?&"))
    except psycopg.Error as error:
        raise InvalidValue("db", f"{location} is no URL of PostgreSQL: {location.hidden_in(str(error))}") from None
    return schema, {**defaults, **parts, "client_encoding": "UTF8"}


_all: weakref.WeakSet[Connections] = weakref.WeakSet()
_inherited: list[Connection] = []
"""Connections of the parent, kept so that nothing closes them."""


def _leave_behind() -> None:
    """In a forked child: stop using the parent's connections. They stay referenced, so that nothing closes them."""
    for connections in host.members(_all):
        _inherited.extend(connections._idle)
        connections._idle = []


def _renew() -> None:
    """In a forked child: replace the semaphores, which threads of the parent may have held."""
    for connections in host.members(_all):
        connections._turns = threading.BoundedSemaphore(MOST)


host.forget(_leave_behind)
host.renewal(Renewal.LOCKS, _renew)
