"""The Storage protocol over one SQLite file: connections from one module, reads and writes from two others."""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

from agentspan.model.changes import Applied, KeyTaken, Move, Outcome, Put, Refused, Unit
from agentspan.storage.protocol import Query, Rows, Storage
from agentspan.storage.sqlite.answers import Answers
from agentspan.storage.sqlite.connections import Connections, is_busy, storage_error, waiting
from agentspan.storage.sqlite.reads import Reads, terminated_in
from agentspan.storage.sqlite.upkeep import Upkeep
from agentspan.storage.sqlite.writes import APPLIED, alone, apply_unit, insert_late, refused_move, refused_put


class SQLiteStorage(Reads, Answers, Upkeep):
    """One SQLite file (see Storage for the contract).

    Args:
        path: the file; made, with its tables, when it does not exist. Its folder must.
        read_only: never write, not even tables; writes raise NotPermitted.
        wait_s: how long opening the file, and reading, may wait for other processes.

    Raises:
        DatabaseUnusable: no database, another program's, a newer version's, no such folder, SQLite too old.
    """

    def __init__(self, path: str | os.PathLike[str], *, read_only: bool = False, wait_s: float = 10.0) -> None:
        self.path = Path(path).absolute()  # the same file after a change of folder
        self._connections = Connections(self.path, read_only=read_only, wait_s=wait_s)
        self._connections.open_now()

    def apply(self, units: Sequence[Unit], *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> list[Outcome]:
        """See Storage. A unit of one plain change is one statement without BEGIN and COMMIT, which cost 6 µs."""
        if len(units) == 1:
            changes, subject, key = units[0]
            if subject is None and key is None and len(changes) == 1:
                statement = alone(changes[0])
                if statement is not None:
                    return [self._apply_alone(cast(Put | Move, changes[0]), statement, wait_s)]
        with self._connections.transaction(wait_s) as connection:
            return _apply_all(connection, units, stop_at_refusal)

    @contextmanager
    def group(self, wait_s: float) -> Iterator[Storage]:
        """See HasGroups."""
        with self._connections.transaction(wait_s) as connection:
            group = _Group(connection)
            yield group
            if group.broken is not None:  # whoever caught it cannot know what of its unit is there
                raise group.broken

    def page(self, query: Query) -> Rows:
        """See Storage."""
        self._connections.check_file()
        return super().page(query)

    def check(self) -> list[str]:
        """See HasCheck: SQLite's own check of all pages and indexes, and of rows that refer to nothing."""
        with self._connections.snapshot() as connection:
            said = [row[0] for row in connection.execute("pragma integrity_check(20)")]
            problems = [] if said == ["ok"] else said
            for table, _, parent, _ in connection.execute("pragma foreign_key_check").fetchmany(20):
                problems.append(f"a row of {table} refers to a row of {parent} that is not there")
            return problems

    def close(self) -> None:
        """See Storage."""
        self._connections.close()

    def wait_at_most(self, wait_s: float) -> None:
        """Change how long reading, and opening the file again, may wait: a recorder has less time than its set-up."""
        self._connections.wait_s = wait_s

    def _apply_alone(self, change: Put | Move, statement: tuple[str, Sequence[Any]], wait_s: float) -> Outcome:
        connections = self._connections
        connections.hold(wait_s)
        try:
            connections.check_now_and_then()
            cursor = connections.cursor or connections.writer().cursor()
            try:
                cursor.execute(*statement)
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
                waiting(lambda: cursor.execute(*statement), self.path, wait_s)
            if cursor.rowcount == 1:
                connections.committed()
                return APPLIED
            if type(change) is Put:
                waiting(lambda: insert_late(cursor, change.row), self.path, wait_s)
                return Applied(None, terminated_in(connections.writer(), change.row))
            return refused_move(connections.writer(), cast(Move, change))
        except sqlite3.IntegrityError as error:
            return refused_put(connections.writer(), cast(Put, change), error)
        except sqlite3.Error as error:
            raise storage_error(error, self.path) from error
        finally:
            connections.let_go()

    def _reading(self) -> AbstractContextManager[sqlite3.Connection]:
        return self._connections.snapshot()

    def _no_fork(self) -> AbstractContextManager[object]:
        return self._connections.no_fork()


class _Group(Reads):
    """The storage within one transaction: sees what it has written, and commits nothing by itself."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.broken: Exception | None = None

    def apply(self, units: Sequence[Unit], *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> list[Outcome]:
        """See Storage; durable when the group is committed, which it is not after an error in here."""
        try:
            return _apply_all(self._connection, units, stop_at_refusal)
        except Exception as error:
            self.broken = error
            raise

    def close(self) -> None:
        """Do nothing: the storage is not this one's to close."""

    def _reading(self) -> AbstractContextManager[sqlite3.Connection]:
        return nullcontext(self._connection)


def _apply_all(connection: sqlite3.Connection, units: Sequence[Unit], stop_at_refusal: bool) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for unit in units:
        outcome = apply_unit(connection, unit)
        outcomes.append(outcome)
        if stop_at_refusal and isinstance(outcome, (KeyTaken, Refused)):
            break
    return outcomes
