"""The storage in one schema of PostgreSQL. Also runs the queries of `agentspan sql`."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TypeVar

import psycopg

from agentspan.errors import DatabaseUnusable, InDoubt, InvalidValue, StorageError
from agentspan.host import undoing
from agentspan.model.changes import Applied, Move, Outcome, Put, PutSpans, Unit
from agentspan.model.rows import AgentSpanRow, Row
from agentspan.storage.location import Location
from agentspan.storage.patience import Patience, sharing
from agentspan.storage.postgres import analytics, partitions, statements, upkeep
from agentspan.storage.postgres.connection import Ahead, Backend, Connection, register_plain
from agentspan.storage.postgres.connections import (
    DRIVER_ERRORS,
    MOST,
    Connections,
    Unanswered,
    has_no_tables,
    in_doubt,
    translated,
)
from agentspan.storage.postgres.migrations import MIGRATIONS, Migration, check_version, migrate, newest
from agentspan.storage.postgres.partitions import is_distributed
from agentspan.storage.postgres.reads import ANSWERS, Answers, Lends, Reads, changed_spans
from agentspan.storage.postgres.search import search
from agentspan.storage.postgres.writes import apply_all, batch_at, compile_unit, outcome_of, outcomes_of, with_locks
from agentspan.storage.protocol import Capabilities, Storage
from agentspan.storage.questions import (
    ChangedSpans,
    Damage,
    DropPartitions,
    Find,
    ForgetNotes,
    MakePartitions,
    Mend,
    MissingPartitions,
    Notes,
    NotesCount,
    Partitions,
    PutKeys,
    PutNote,
    RemoveKeys,
    RemoveRuns,
    Search,
    Select,
    TablesState,
    WaitAtMost,
)
from agentspan.storage.sums import Answer
from agentspan.tuning import STANDARD, Tuning

T = TypeVar("T")

BACKEND = "postgresql"


class PostgresStorage(Reads):
    """The storage in one schema of a PostgreSQL database (see Storage for the contract).

    Args:
        location: the URL; its parameter `schema` names the schema, which is made when it does not exist.
        read_only: never write, not even tables; writes raise NotPermitted.
        wait_s: how long connecting, and waiting for a connection, may take.
        tuning: sizes and times, for tests; see agentspan/tuning.py.
        migrations: those that make the tables; others are for tests.

    Raises:
        DatabaseUnusable: the server cannot be reached, the user lacks a privilege, or the tables are too new.
    """

    __slots__ = ("_connections", "_lends")

    def __init__(
        self,
        location: Location,
        *,
        read_only: bool = False,
        wait_s: float = 10.0,
        tuning: Tuning = STANDARD,
        migrations: Sequence[Migration] = MIGRATIONS,
    ) -> None:
        connections = Connections(location, read_only=read_only, wait_s=wait_s, tuning=tuning)
        self._connections = connections
        super().__init__(connections, _ANSWERS)
        # Units that were sent and not answered, by the ids of the rows that they change; empty nearly always.
        self._doubts: dict[str, tuple[Unit, Backend]] = {}
        with undoing(connections.close):
            self._prepare(wait_s, migrations)

    def waiting(self, patience: Patience) -> "PostgresStorage":
        """Return the same storage for a caller with this patience."""
        connections = self._connections.waiting(patience)
        return sharing(self, _connections=connections, _lends=connections)

    def _prepare(self, wait_s: float, migrations: Sequence[Migration]) -> None:
        """Create or migrate the tables, unless they have the version of this code."""
        connections = self._connections
        try:
            with connections.lent(wait_s) as connection:
                found = connection.execute(statements.VERSION).fetchone()
                version = 0 if found is None else found[0]
        except psycopg.Error as error:
            if not has_no_tables(error):
                raise translated(error, connections.location) from error
            version = 0
        check_version(connections, version, migrations)
        if version != newest(migrations):
            if connections.read_only:
                raise DatabaseUnusable(
                    f"{connections.location} has no tables of this version; open it once with a program that may write"
                )
            migrate(connections, max(wait_s, connections.tuning.postgres_migration_wait_s), migrations)
        connections.is_distributed = is_distributed(connections)

    def capabilities(self) -> Capabilities:
        """Return the capabilities.

        If the spans are on several servers (see partitions), ChangedSpans is not among the answers: its cursor is a
        transaction number, and the servers do not share these numbers.
        """
        connections = self._connections
        return Capabilities(
            backend=BACKEND,
            answers=frozenset({*_ANSWERS} - ({ChangedSpans} if connections.is_distributed else set())),
            location=connections.location,
            concurrency=MOST - 4,  # four connections are left for reads
            page_rows=connections.tuning.page_rows,
        )

    def apply(self, units: Sequence[Unit], *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> list[Outcome]:
        """Apply units; try once more if the connection broke before the server answered.

        A single unit of one statement takes one round trip, without BEGIN and COMMIT. Several such units take two:
        BEGIN with all statements, then COMMIT.
        """
        try:
            return self._apply(units, stop_at_refusal, wait_s)
        except Unanswered:
            return self._apply(units, stop_at_refusal, wait_s)

    def _apply(self, units: Sequence[Unit], stop_at_refusal: bool, wait_s: float) -> list[Outcome]:
        """Apply units, except those that an earlier attempt, which got no answer, has stored already."""
        known = self._looked_up(units, wait_s) if self._doubts else {}
        if stop_at_refusal and len(units) > 1:
            known = {}
        rest = [unit for place, unit in enumerate(units) if place not in known] if known else units
        try:
            applied = self._sent(rest, stop_at_refusal, wait_s) if rest or not known else []
        except Unanswered as error:
            self._doubts |= {id: (unit, error.backend) for unit in rest for id in _subjects_of(unit)}
            raise
        if not known:
            return applied
        others = iter(applied)
        return [known[place] if place in known else next(others) for place in range(len(units))]

    def _looked_up(self, units: Sequence[Unit], wait_s: float) -> dict[int, Outcome]:
        """Return the outcomes, by place, of units that an earlier attempt, which got no answer, has stored already.

        The earlier statement may still run at the server, and would then be stored after the new one. So its server
        process is terminated first.

        Raises:
            InDoubt: the server does not answer.
        """
        doubts = {id: self._doubts[id] for unit in units for id in _subjects_of(unit) if id in self._doubts}
        if not doubts:
            return {}
        try:
            for backend in {backend for _, backend in doubts.values()}:
                self._connections.end(backend, wait_s)
            found = self.ask(Find(*doubts))
        except StorageError as error:
            raise InDoubt(in_doubt(self._connections.location)) from error
        known: dict[int, Outcome] = {}
        for place, unit in enumerate(units):
            id = next(_subjects_of(unit), "")
            if id in doubts and doubts[id][0] == unit:
                outcome = _applied_before(unit, found.rows[id][1] if id in found.rows else None, found.terminated)
                if outcome is not None:
                    known[place] = outcome
        for id in doubts:
            self._doubts.pop(id, None)
        return known

    def _sent(self, units: Sequence[Unit], stop_at_refusal: bool, wait_s: float) -> list[Outcome]:
        connections = self._connections
        compiled = compile_unit(units[0]) if len(units) == 1 else None
        if compiled is not None and compiled.is_of_span:
            found = connections.alone((*compiled.before, compiled.statement), wait_s)
            outcome = None if found is None else outcome_of(units[0], found)
            if outcome is not None:
                return [outcome]
        batch = batch_at(units, 0, is_single=stop_at_refusal)
        locked = with_locks(batch) if len(batch.units) == len(units) else None
        if locked is None:
            return connections.transact(lambda connection: apply_all(connection, units, stop_at_refusal, batch), wait_s)
        ahead = Ahead([*locked.locks, *locked.statements])
        return connections.transact(
            lambda connection: outcomes_of(connection, batch, ahead.rows[len(locked.locks) :]), wait_s, ahead=ahead
        )

    def group(self, work: Callable[[Storage], T], wait_s: float) -> T:
        """Call `work` in one transaction. If applying a unit raises in it, all of the transaction is rolled back."""

        def grouped(connection: Connection) -> T:
            group = _Group(connection, self._connections.location)
            done = work(group)
            if group.broken is not None:  # `work` caught it, but the unit may be half applied
                raise group.broken
            return done

        return self._connections.transact(grouped, wait_s, once=True)

    def close(self) -> None:
        """Close all connections. Later calls raise StorageError."""
        self._connections.close()


def wait_at_most(connections: Connections, asked: WaitAtMost) -> None:
    """Change how long reads wait for a connection; they wait for no lock."""
    connections.check_open()
    connections.wait_s = asked.wait_s


_READS = frozenset({"select", "with", "values", "table", "show", "explain"})
_FIRST = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*([A-Za-z]+)", re.DOTALL)
_MARKS = re.compile(r"""'(?:[^']|'')*'|"[^"]*"|\?|%""")
_OF_THE_SERVER = frozenset({"08", "57", "53", "58", "XX"})
"""Classes of SQLSTATE that are no fault of the query."""


def select(connections: Connections, asked: Select) -> Answer:
    """Run one statement that only reads, and return its columns and rows.

    Raises:
        InvalidValue: the query is no SQL, does more than read, or takes too long.
        DatabaseUnusable: the server cannot be reached.
    """
    connections.check_open()
    query, parameters = asked.query, asked.values
    first = _FIRST.match(query)
    if first is None or first[1].lower() not in _READS:
        raise InvalidValue("query", f"must be one statement that reads, which begins with {', '.join(sorted(_READS))}")
    connection = connections.connected(connections.wait_s)
    try:
        register_plain(connection.adapters)
        connection.execute("set default_transaction_read_only = on")
        if asked.limit_s is not None:
            limit = f"{max(1, round(1000 * asked.limit_s))}ms"
            connection.execute("select set_config('statement_timeout', %s, false)", (limit,))
        connection.execute("begin read only")
        # Prepared: the server then refuses a second statement after the first, such as a COMMIT.
        cursor = connection.execute(
            _with_marks(query) if parameters else query, tuple(parameters) or None, prepare=True
        )
        rows = cursor.fetchall() if asked.most_rows is None else cursor.fetchmany(asked.most_rows)
        return Answer([column[0] for column in cursor.description or ()], rows)
    except UnicodeEncodeError:
        raise InvalidValue("query", "is no Unicode text") from None
    except psycopg.Error as error:
        state = error.sqlstate
        if state is not None and (state[:2] not in _OF_THE_SERVER or state == "57014"):
            sentence = error.diag.message_primary or type(error).__name__
            if state == "57014" and asked.limit_s is not None:
                raise InvalidValue("query", f"took longer than {asked.limit_s:g} s") from None
            raise InvalidValue("query", f"PostgreSQL says: {sentence}") from None
        if state is None and not isinstance(error, psycopg.OperationalError):
            raise InvalidValue("query", f"psycopg says: {error}") from None
        raise translated(error, connections.location) from error
    finally:
        connection.close()


def _with_marks(query: str) -> str:
    """Return a query with psycopg's `%s` for each `?`, except in quotes, and each `%` doubled."""
    return _MARKS.sub(lambda m: "%s" if m[0] == "?" else m[0].replace("%", "%%"), query)


_AS_PUT = ("id", "agent_instance_id", "parent_span_id", "inserted_at")
"""Columns of a span that no later change sets, so they show whether a put was applied."""


def _subjects_of(unit: Unit) -> Iterator[str]:
    """Yield the ids of the rows that a unit changes."""
    for change in unit.changes:
        if isinstance(change, PutSpans):
            yield from (row.id for row in change.rows)
        else:
            yield change.row.id if isinstance(change, Put) else change.id


def _applied_before(unit: Unit, stored: Row | None, terminated: Mapping[str, str]) -> Outcome | None:
    """Return the outcome of an unanswered unit, if the stored row of its span shows that it was applied; else None.

    If the span has all values that the unit sets, the unit was applied: no other program makes the same id, or
    finishes a span in the same microsecond with the same result.

    Args:
        terminated: the termination reasons, by run id.
    """
    change = unit.changes[0]
    if not isinstance(stored, AgentSpanRow) or len(unit.changes) > 1:
        return None
    if isinstance(change, Move):
        values = change.set
    elif isinstance(change, Put) and isinstance(change.row, AgentSpanRow):
        values = {column: getattr(change.row, column) for column in _AS_PUT}
    else:
        return None
    if any(getattr(stored, column) != value for column, value in values.items()):
        return None
    reason = terminated.get(stored.agent_instance_id)
    if unit.subject is not None:
        return Applied(stored, reason)
    return Applied(None, reason if isinstance(change, Put) else None)  # as in each storage (see outcome_of)


class _Group(Reads):
    """The storage within one transaction: its reads see its writes, and the owner of the transaction commits."""

    def __init__(self, connection: Connection, location: Location) -> None:
        lend: Callable[[], AbstractContextManager[Connection]] = partial(_lent, connection, location)
        super().__init__(Lends(lend, lend, lend), ANSWERS)
        self._connection = connection
        self._location = location
        self.broken: Exception | None = None

    def capabilities(self) -> Capabilities:
        """Return the questions that can be answered within a transaction."""
        return Capabilities(backend=BACKEND, answers=frozenset(ANSWERS))

    def apply(self, units: Sequence[Unit], *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> list[Outcome]:
        """Apply units within the transaction. After an error here, the transaction is never committed."""
        try:
            with _lent(self._connection, self._location) as connection:
                return apply_all(connection, units, stop_at_refusal)
        except Exception as error:
            self.broken = error
            raise

    def group(self, work: Callable[[Storage], T], wait_s: float) -> T:
        """Call `work` within the transaction of this group."""
        return work(self)

    def close(self) -> None:
        """Do nothing: the owner closes the storage."""


@contextmanager
def _lent(connection: Connection, location: Location) -> Iterator[Connection]:
    try:
        yield connection
    except DRIVER_ERRORS as error:
        raise translated(error, location) from error


_ANSWERS: Answers = {
    **ANSWERS,
    **analytics.ANSWERS,
    Search: search,
    Select: select,
    WaitAtMost: wait_at_most,
    ChangedSpans: changed_spans,
    Damage: upkeep.damage,
    Mend: upkeep.mend,
    RemoveRuns: upkeep.remove_runs,
    RemoveKeys: upkeep.remove_keys,
    PutKeys: upkeep.put_keys,
    Notes: upkeep.notes,
    NotesCount: upkeep.notes_count,
    PutNote: upkeep.put_note,
    ForgetNotes: upkeep.forget_notes,
    Partitions: partitions.partitions,
    TablesState: partitions.tables_state,
    MissingPartitions: partitions.missing_partitions,
    MakePartitions: partitions.make_partitions,
    DropPartitions: partitions.drop_partitions,
}
"""The function for each type of question."""
