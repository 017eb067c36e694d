"""The Storage protocol over one schema of PostgreSQL: connections from one module, reads and writes from others."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, TypeVar

import psycopg

from agentspan.errors import DatabaseUnusable, InDoubt, NotStorable, StorageError
from agentspan.model.changes import Applied, Move, Outcome, Unit
from agentspan.model.rows import AgentSpanRow
from agentspan.model.status import OPEN
from agentspan.storage.location import Location
from agentspan.storage.postgres import migrating, tables
from agentspan.storage.postgres.analytics import PostgresAnalytics
from agentspan.storage.postgres.changes import PostgresChanges
from agentspan.storage.postgres.checking import problems
from agentspan.storage.postgres.connection import Connection
from agentspan.storage.postgres.connections import MOST, Connections
from agentspan.storage.postgres.doubt import applied_before, in_doubt
from agentspan.storage.postgres.driver_errors import DRIVER_ERRORS, has_no_tables, translated
from agentspan.storage.postgres.notes import PostgresNotes
from agentspan.storage.postgres.partitions import PostgresPartitions
from agentspan.storage.postgres.reads import Reads
from agentspan.storage.postgres.removal import PostgresRemoval
from agentspan.storage.postgres.sql_shell import ask
from agentspan.storage.postgres.transfer import PostgresTransfer
from agentspan.storage.postgres.writes import APPLIED, apply_all, finishing
from agentspan.storage.protocol import Answer, Capabilities, Storage

T = TypeVar("T")

BACKEND = "postgresql"


class PostgresStorage(Reads):
    """One schema of a database (see Storage for the contract).

    Args:
        location: the URL; its parameter `schema` names the schema, which is made when it does not exist.
        read_only: never write, not even tables; writes raise NotPermitted.
        wait_s: how long connecting, and waiting for a connection, may take.

    Raises:
        DatabaseUnusable: the server cannot be reached, the user lacks a privilege, or the tables are too new.
    """

    def __init__(self, location: Location, *, read_only: bool = False, wait_s: float = 10.0) -> None:
        self._connections = connections = Connections(location, read_only=read_only, wait_s=wait_s)
        super().__init__(connections.reading, connections.snapshot)
        self._analytics = PostgresAnalytics(connections)
        self._removal = PostgresRemoval(connections)
        self._transfer = PostgresTransfer(connections)
        self._notes = PostgresNotes(connections)
        self._changes = PostgresChanges(connections)
        self._partitions = PostgresPartitions(connections)
        try:
            self._prepare(wait_s)
        except BaseException:
            connections.close()
            raise

    def _prepare(self, wait_s: float) -> None:
        """Make sure that the tables are those that this code needs."""
        connections = self._connections
        try:
            with connections.lent(wait_s) as connection:
                found = connection.execute(tables.VERSION).fetchone()
                version = 0 if found is None else found[0]
        except psycopg.Error as error:
            if not has_no_tables(error):
                raise translated(error, connections.location) from error
            version = 0
        if version > migrating.CURRENT:
            raise migrating.newer(version)
        if version == migrating.CURRENT:
            return
        if connections.read_only:
            raise DatabaseUnusable(
                f"{connections.location} has no tables of this version; open it once with a program that may write"
            )
        migrating.migrate(connections, max(wait_s, 10.0))

    def capabilities(self) -> Capabilities:
        """See Storage."""
        return Capabilities(
            backend=BACKEND,
            location=self._connections.location,
            groups=self,
            removal=self._removal,
            outlines=self,
            analytics=self._analytics,
            check=self,
            waiting=self,
            sql=self,
            sums=self,
            scores=self,
            transfer=self._transfer,
            notes=self._notes,
            changes=self._changes,
            partitions=self._partitions,
            concurrency=MOST - 4,  # of the connections, some are for reads
        )

    def apply(self, units: Sequence[Unit], *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> list[Outcome]:
        """See Storage. A unit that finishes one span is one statement, without BEGIN and COMMIT."""
        was_sent = False
        if len(units) == 1 and not self._connections.read_only:
            try:
                outcome = self._finished_alone(units[0], wait_s)
            except psycopg.OperationalError:
                was_sent = True
            else:
                if outcome is not None:
                    return [outcome]
        try:
            done = self._connections.transact(lambda connection: apply_all(connection, units, stop_at_refusal), wait_s)
        except StorageError as error:
            if was_sent and not isinstance(error, (InDoubt, NotStorable)):
                raise in_doubt(self._connections.location) from error
            raise
        return [self._with_reason(applied_before(units[0], done[0]))] if was_sent else done

    def _with_reason(self, outcome: Outcome) -> Outcome:
        """Add to an outcome why the run was terminated, as the statement would have returned it."""
        if not isinstance(outcome, Applied) or not isinstance(outcome.row, AgentSpanRow):
            return outcome
        run = outcome.row.agent_instance_id
        return outcome._replace(terminated=self.find(outcome.row.id).terminated.get(run))

    def _finished_alone(self, unit: Unit, wait_s: float) -> Outcome | None:
        """Apply a unit by its statement; None where there is none, or where that moved nothing."""
        if len(unit.changes) != 1:
            return None
        move = unit.changes[0]
        if not isinstance(move, Move) or move.type != "agent_span" or move.violations or "payload" in move.set:
            return None
        if not move.leaves or not move.leaves <= OPEN or move.set.get("status", "active") in OPEN:
            return None
        if unit.subject not in (None, move.id):
            return None
        key = unit.key
        used = () if key is None else (key.operation, key.key, key.request_hash, unit.subject, key.inserted_at)
        wants_row = unit.subject is not None
        found = self._connections.alone(*finishing(move, used, wants_row=wants_row), wait_s)
        if not found:
            return None
        if not wants_row:
            return APPLIED
        *row, reason = found[0]
        return Applied(AgentSpanRow._make(row), reason)

    def group(self, work: Callable[[Storage], T], wait_s: float) -> T:
        """See Groups."""

        def grouped(connection: Connection) -> T:
            group = _Group(connection, self._connections.location)
            done = work(group)
            if group.broken is not None:  # the one that caught it cannot know what of its unit is there
                raise group.broken
            return done

        return self._connections.transact(grouped, wait_s, once=True)

    def wait_at_most(self, wait_s: float) -> None:
        """See Waiting. Reads wait for no lock; this is how long they wait for a connection."""
        self._connections.check_open()
        self._connections.wait_s = wait_s

    def check(self) -> list[str]:
        """See Check."""
        with self.snapshot() as connection:
            return problems(connection)

    def select(self, query: str, values: Sequence[Any] = ()) -> Answer:
        """See Sql."""
        self._connections.check_open()
        return ask(self._connections, query, values)

    def close(self) -> None:
        """See Storage."""
        self._connections.close()


class _Group(Reads):
    """The storage within one transaction: sees what it has written, and commits nothing by itself."""

    def __init__(self, connection: Connection, location: Location) -> None:
        lend: Callable[[], AbstractContextManager[Connection]] = partial(_lent, connection, location)
        super().__init__(lend, lend)
        self._connection = connection
        self._location = location
        self.broken: Exception | None = None

    def capabilities(self) -> Capabilities:
        """See Storage."""
        return Capabilities(backend=BACKEND, outlines=self, sums=self, scores=self)

    def apply(self, units: Sequence[Unit], *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> list[Outcome]:
        """See Storage; durable when the group is committed, which it is not after an error in here."""
        try:
            return apply_all(self._connection, units, stop_at_refusal)
        except DRIVER_ERRORS as error:
            self.broken = translated(error, self._location)
            raise self.broken from error
        except Exception as error:
            self.broken = error
            raise

    def close(self) -> None:
        """Do nothing: the owner closes the storage."""


@contextmanager
def _lent(connection: Connection, location: Location) -> Iterator[Connection]:
    try:
        yield connection
    except DRIVER_ERRORS as error:
        raise translated(error, location) from error
