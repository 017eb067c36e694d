"""The connections of one process to one schema: lent to one thread at a time, and left behind in a forked child.

No psycopg_pool: it has threads of its own, which a fork would leave behind in the middle of their work, and which a
recording program would see. What is needed here is a list of idle connections and a limit.
"""

import os
import re
import select
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar, cast

import psycopg
from psycopg import conninfo
from psycopg.pq import TransactionStatus

from agentspan import forks
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
from agentspan.forks import Renewal, page
from agentspan.storage import patience
from agentspan.storage.location import Location
from agentspan.storage.postgres import values
from agentspan.storage.postgres.connection import (
    Ahead,
    Backend,
    Connection,
    Statement,
    pipelined,
    rows_of,
    rows_of_each,
)
from agentspan.storage.postgres.unanswered import PAUSE_S, Unanswered, is_committed, is_lost
from agentspan.tuning import STANDARD, Tuning

DRIVER_ERRORS = (psycopg.Error, UnicodeEncodeError, OverflowError)
"""The errors that psycopg raises. The last two: text that is no Unicode, and numbers that no column holds."""

_AGAIN = frozenset({"40001", "40P01", "23505", "23514"})
"""Worth doing again at once: serialization failure, deadlock, a key that another transaction stored first, and a
partition that another one made for a row which was on its way to the default partition."""
_BUSY = frozenset({"55P03", "57014", "53300", "57P03", "57P01", "57P02", "23514"})
"""Lock and statement timeouts, too many connections, a server that starts or stops, a migration to partitions."""
_NO_TABLES = frozenset({"42P01", "3F000"})


def is_worth_repeating(error: BaseException) -> bool:
    """Return whether the same transaction may succeed at once, now that another one is done."""
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
"""Connections of one storage at most; further threads wait for one."""
ATTEMPTS = 20
"""Attempts at a transaction that others get in the way of."""
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


class Connections:
    """See the module.

    Args:
        location: the URL; its parameter `schema` names the schema.
        read_only: whether the server should refuse to write.
        wait_s: seconds that connecting may take, and waiting for a connection that others use.

    Attributes:
        is_distributed: whether the finished spans are on several servers (see citus).

    Raises:
        InvalidValue: the URL is none that libpq understands.
    """

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
        _all.add(self)

    def check_open(self) -> None:
        """Raise StorageError where the storage is closed; in a forked child, make new locks first."""
        if not page[0]:
            forks.renew()
        if self._closed:
            raise StorageError("the storage is closed; open it again")

    def transact(
        self, work: Callable[[Connection], T], wait_s: float, *, once: bool = False, ahead: Ahead | None = None
    ) -> T:
        """Return what `work` returns from within a transaction; it is committed then.

        The transaction is done again where another one got in its way (deadlock, same key at the same moment), and
        where the connection broke before it was committed. If it broke while it was, the server is asked (see doubt).

        Args:
            once: `work` must not be called twice.
            ahead: has the rows of its statements when `work` is called.

        Raises:
            DatabaseBusy: others held a lock for `wait_s` seconds, or kept getting in the way; nothing is stored.
            Unanswered: the connection broke during the commit, and the server cannot be asked.
        """
        if self.read_only:
            self.check_open()
            raise NotPermitted(f"{self.location} was opened to be read only")

        def attempt() -> T:
            with self.lent(wait_s) as connection:
                # First: it may have been lost while it was idle.
                connection.answer_s = wait_s + self.tuning.postgres_write_s
                xid = _begin(connection, wait_s, ahead)
                done = work(connection)
                try:
                    connection.execute("commit")
                except psycopg.OperationalError as error:
                    if not is_lost(error):
                        raise
                    lost = error
                else:
                    return done
            try:
                if is_committed(lambda: self.connected(wait_s), self.location, xid, connection.life, wait_s):
                    return done
            except InDoubt as error:
                raise Unanswered(self.location, connection.backend) from error
            raise lost

        return self._tried(attempt, 1 if once else ATTEMPTS)

    def alone(self, statements: Sequence[Statement], wait_s: float) -> list[Any] | None:
        """Execute statements that are a transaction by themselves; return the rows of the last one.

        Returns:
            None where it broke a unique key: nothing of it is stored.

        Raises:
            Unanswered: the connection broke. It is stored, or not, or will be.
        """
        backend = None
        try:
            with self.lent(wait_s) as connection:
                backend = connection.backend
                # First: it may have been lost while it was idle.
                connection.answer_s = wait_s + self.tuning.postgres_write_s
                if len(statements) == 1 and connection.lock_ms == _in_ms(wait_s):
                    return rows_of(connection, *statements[0])
                return _rows_of_each(connection, wait_s, statements)[-1]
        except psycopg.Error as error:
            if is_worth_repeating(error):
                return None
            if is_lost(error) and backend is not None:
                raise Unanswered(self.location, backend) from error
            raise translated(error, self.location) from error
        except DRIVER_ERRORS as error:
            raise translated(error, self.location) from error

    def end(self, backend: Backend, wait_s: float) -> None:
        """End a process of the server whose answer is not awaited any more. What it did is final then.

        Raises:
            StorageError: the server does not answer, or the process is there still.
        """
        until = time.monotonic() + min(wait_s, patience.left_s())
        with self.reading() as connection:
            while rows_of(connection, _END, backend):
                if time.monotonic() >= until:
                    raise DatabaseBusy(f"{self.location} is still at work on what was sent before; try again")
                time.sleep(PAUSE_S)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Lend a connection for statements that each see their own state."""
        try:
            with self.lent(self.wait_s) as connection:
                yield connection
        except DRIVER_ERRORS as error:
            raise translated(error, self.location) from error

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Lend a connection whose statements all see the same state."""
        with self.reading() as connection:
            connection.execute(_BEGIN_SNAPSHOT)
            yield connection
            connection.execute("commit")

    @contextmanager
    def glance(self) -> Iterator[Connection]:
        """Lend a snapshot in pipeline mode: its BEGIN is sent with the first statement. For no COPY, no cursor."""
        with self.reading() as connection, pipelined(connection):
            connection.execute(_BEGIN_SNAPSHOT)
            yield connection
            connection.execute("commit")

    @contextmanager
    def lent(self, wait_s: float) -> Iterator[Connection]:
        """Lend a connection. One that is not idle afterwards, after an error or an interrupt, is closed."""
        self.check_open()
        turns = self._turns
        if not turns.acquire(timeout=min(wait_s, patience.left_s())):
            raise DatabaseBusy(f"{MOST} threads use {self.location} at the same time, and none is done; try again")
        connection = None
        try:
            connection = self._idle_one() or self.connected(wait_s)
            connection.answer_s = self.tuning.postgres_statement_s + self.tuning.postgres_answer_s
            connection.is_distributed = self.is_distributed
            yield connection
        finally:
            if connection is not None:
                self._take_back(connection)
            turns.release()

    def connected(self, wait_s: float) -> Connection:
        """Return a new connection, which the caller closes.

        Raises:
            DatabaseUnusable: the server cannot be reached, or refuses the user.
            Unconnected: this thread may not wait for that.
        """
        if not patience.may_connect():
            raise patience.Unconnected(f"there is no connection to {self.location} yet")
        parameters = {**self._parameters, "connect_timeout": max(2, round(wait_s))}
        try:
            opened = Connection.connect(**parameters, autocommit=True)
        except psycopg.Error as error:
            problem = self.location.hidden_in(" ".join(str(error).split())[:300])
            raise DatabaseUnusable(f"{self.location} cannot be reached: {problem}") from None
        opened.process = os.getpid()
        values.register(opened.adapters)
        opened.answer_s = wait_s + self.tuning.postgres_write_s
        limit, lock_limit = f"{self.tuning.postgres_statement_s:g}s", f"{self.tuning.postgres_lock_s:g}s"
        read_only = "on" if self.read_only else "off"
        set_up = opened.execute(_SET_UP, (f'"{self.schema}"', limit, limit, lock_limit, read_only)).fetchall()
        opened.life, *backend = set_up[0][-3:]
        opened.backend = Backend(*backend)
        return opened

    def close(self) -> None:
        """Close all connections; those that are in use when they are given back."""
        self._closed = True
        while self._idle:
            with suppress(IndexError):
                _close(self._idle.pop())

    def leave_behind(self) -> None:
        """In a forked child: keep the parent's connections, without closing them."""
        _inherited.extend(self._idle)
        self._idle = []

    def renew(self) -> None:
        """In a forked child: let all threads have a turn again."""
        self._turns = threading.BoundedSemaphore(MOST)

    def _tried(self, attempt: Callable[[], T], attempts: int) -> T:
        lost: Exception | None = None
        for number in range(attempts):
            try:
                return attempt()
            except patience.Unconnected:  # that says that nothing was sent
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
                # A server that was restarted has said goodbye, or the socket would not be readable.
                poll = select.poll()  # select takes no descriptor above 1,023
                poll.register(connection.fileno(), select.POLLIN)
                if not poll.poll(0):
                    return connection
                _close(connection)
        return None

    def _take_back(self, connection: Connection) -> None:
        if connection.process != os.getpid():  # this child was forked while its parent had it
            _inherited.append(connection)
        elif self._closed or not _is_idle(connection):
            _close(connection)
        else:
            self._idle.append(connection)


def _begin(connection: Connection, wait_s: float, ahead: Ahead | None) -> str:
    """Begin a transaction, and return its number, in one round trip."""
    connection.kept = frozenset()
    if ahead is not None:
        first = (*_BEGIN, *ahead.statements)
        (_, ((xid,),), *ahead.rows) = _rows_of_each(connection, wait_s, first)
        return cast(str, xid)
    wait_at_most(connection, wait_s)
    cursor = connection.execute("begin; select pg_current_xact_id()::text", prepare=False)
    cursor.nextset()
    return cast(str, cursor.fetchall()[0][0])


def _rows_of_each(connection: Connection, wait_s: float, statements: Sequence[Statement]) -> list[list[Any]]:
    """Execute statements in one round trip, which wait for locks of others for at most so many seconds."""
    wait_ms = _in_ms(wait_s)
    if connection.lock_ms == wait_ms:
        return rows_of_each(connection, statements)
    _, *rows = rows_of_each(connection, (Statement(_WAIT_AT_MOST, (str(wait_ms),)), *statements))
    connection.lock_ms = wait_ms  # not before: with the statements that failed, it was taken back
    return rows


def wait_at_most(connection: Connection, wait_s: float) -> None:
    """Let the statements of a connection wait for locks of others for at most so many seconds."""
    wait_ms = _in_ms(wait_s)
    if connection.lock_ms != wait_ms:
        connection.execute(f"set lock_timeout = {wait_ms}", prepare=False)
        connection.lock_ms = wait_ms


def _in_ms(wait_s: float) -> int:
    return max(1, round(wait_s * 1000))  # 0 would mean for ever


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
    # A black hole ends a connection after 20 s, also where a URL has no timeouts.
    defaults = {"client_encoding": "UTF8", "application_name": "agentspan", "tcp_user_timeout": "20000"}
    defaults |= {"keepalives_idle": "10", "keepalives_interval": "5", "keepalives_count": "3"}
    try:
        given = conninfo.conninfo_to_dict(_SCHEMA_IN_URL.sub("", location.text).rstrip("?&"))
    except psycopg.Error as error:
        raise InvalidValue("db", f"{location} is no URL of PostgreSQL: {location.hidden_in(str(error))}") from None
    return schema, {**defaults, **given, "client_encoding": "UTF8"}


_all: weakref.WeakSet[Connections] = weakref.WeakSet()
_inherited: list[Connection] = []
"""Connections of the parent, kept so that nothing closes them."""


def _leave_all_behind() -> None:
    for connections in forks.members(_all):
        connections.leave_behind()


def _renew_all() -> None:
    for connections in forks.members(_all):
        connections.renew()


forks.forget(_leave_all_behind)
forks.renewal(Renewal.LOCKS, _renew_all)
