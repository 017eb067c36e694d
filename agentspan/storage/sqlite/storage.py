"""The Storage protocol over one SQLite file: guards become WHERE clauses and constraints, units become transactions."""

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from agentspan.errors import DatabaseBusy
from agentspan.model.changes import (
    Applied,
    Key,
    KeyTaken,
    Move,
    Outcome,
    Put,
    Refused,
    Replayed,
    Unit,
    Violation,
)
from agentspan.model.rows import (
    ROWS,
    TYPE_OF,
    UNIQUE,
    AccountRow,
    AgentInstanceRow,
    AgentSpanRow,
    ResourceType,
    Row,
    instance_of,
)
from agentspan.storage.protocol import Found, Query, Rows, SpanCounts, StoredKey, span_counts
from agentspan.storage.sqlite import statements
from agentspan.storage.sqlite.connections import Connections, is_busy, storage_error, waiting

# Where an id is looked for, the likeliest first.
_TYPES: tuple[ResourceType, ...] = (
    "agent_span",
    "agent_instance",
    "agent",
    "agent_schema_version",
    "agent_version",
    "writer",
    "refused_change",
    "account",
)


class SQLiteStorage:
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

    def account(self) -> AccountRow:
        """See Storage."""
        with self._connections.snapshot() as connection:
            return AccountRow(*connection.execute(statements.SELECT["account"]).fetchone())

    def apply(self, units: Sequence[Unit], *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> list[Outcome]:
        """See Storage. A unit of one plain change is one statement without BEGIN and COMMIT, which cost 6 µs."""
        if len(units) == 1:
            changes, subject, key = units[0]
            if subject is None and key is None and len(changes) == 1:
                statement = _alone(changes[0])
                if statement is not None:
                    return [self._apply_alone(changes[0], statement, wait_s)]
        outcomes: list[Outcome] = []
        with self._connections.transaction(wait_s) as connection:
            for unit in units:
                outcome = _apply(connection, unit)
                outcomes.append(outcome)
                if stop_at_refusal and isinstance(outcome, (KeyTaken, Refused)):
                    break
        return outcomes

    def find(self, *ids: str, key: Key | None = None) -> Found:
        """See Storage."""
        with self._connections.snapshot() as connection:
            stored = None
            if key is not None:
                values = connection.execute(statements.KEY, (key.operation, key.key)).fetchone()
                stored = StoredKey(*values) if values is not None else None
            rows: dict[str, tuple[ResourceType, Row]] = {}
            terminated: dict[str, str] = {}
            for id in (*ids, stored.subject) if stored is not None else ids:
                located = _locate(connection, id)
                if located is not None:
                    rows[id] = located
                    reason = _terminated(connection, located[1])
                    if reason is not None:
                        terminated[instance_of(located[1])] = reason
            return Found(rows, stored, terminated)

    def page(self, query: Query) -> Rows:
        """See Storage."""
        select, count, values = statements.page(query)
        self._connections.check_file()
        with self._connections.snapshot() as connection:
            make = ROWS[query.type]._make
            rows = [make(row) for row in connection.execute(select, values)]
            if query.limit is None and not query.offset:
                return Rows(rows, len(rows))
            return Rows(rows, connection.execute(count, values).fetchone()[0])

    def iter_spans(self, instance_id: str) -> Iterator[AgentSpanRow]:
        """See Storage."""
        with self._connections.snapshot() as connection:
            yield from map(AgentSpanRow._make, connection.execute(statements.SPANS, (instance_id,)))

    def counts(self, instance_ids: Sequence[str]) -> Mapping[str, SpanCounts]:
        """See Storage."""
        by_instance: dict[str, dict[str, int]] = {id: {} for id in instance_ids}
        with self._connections.snapshot() as connection:
            for start in range(0, len(instance_ids), 500):
                chunk = instance_ids[start : start + 500]
                for id, status, number in connection.execute(statements.counts(len(chunk)), chunk):
                    by_instance[id][status] = number
        return {id: span_counts(numbers) for id, numbers in by_instance.items()}

    def violations(self, span_id: str) -> list[Violation]:
        """See Storage."""
        with self._connections.snapshot() as connection:
            return [Violation(*row) for row in connection.execute(statements.VIOLATIONS, (span_id,))]

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
        # Without a timeout first: that is all it takes when no other thread writes, and twice as fast.
        if not connections.lock.acquire(False) and not connections.lock.acquire(True, wait_s):
            raise DatabaseBusy(f"another thread kept {self.path} for {wait_s:g} s; try again")
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
                return _APPLIED
            if type(change) is Put:
                waiting(lambda: _insert_late(cursor, change.row), self.path, wait_s)
                return Applied(None, _terminated(connections.writer(), change.row))
            return _refused_move(connections.writer(), cast(Move, change))
        except sqlite3.IntegrityError as error:
            return _refused_put(connections.writer(), cast(Put, change), error)
        except sqlite3.Error as error:
            raise storage_error(error, self.path) from error
        finally:
            connections.lock.release()


_APPLIED = Applied()


def _alone(change: Put | Move) -> tuple[str, Sequence[Any]] | None:
    """Return the statement of a change that takes no other one, or None."""
    if type(change) is Put:
        row, refs, violations, minted = change
        return _insert(row) if minted and not refs and not violations else None
    type_, id, leaves, values, violations = cast(Move, change)
    if violations or "payload" in values:
        return None
    return statements.update(type_, (*values,), leaves), (*values.values(), id)


def _insert(row: Row) -> tuple[str, Sequence[Any]]:
    # sqlite3 binds a plain tuple faster
    sql = statements.INSERT_UNLESS_TERMINATED if type(row) is AgentSpanRow else statements.INSERT[type(row)]
    return sql, tuple(row)


def _insert_late(cursor: sqlite3.Cursor | sqlite3.Connection, row: Row) -> None:
    """Put a span although its instance is terminated: nothing that an agent did is lost."""
    cursor.execute(statements.INSERT[type(row)], tuple(row))


def _apply(connection: sqlite3.Connection, unit: Unit) -> Outcome:
    key = unit.key
    if key is not None:
        stored = connection.execute(statements.KEY, (key.operation, key.key)).fetchone()
        if stored is not None:
            if stored[0] != key.request_hash:
                return KeyTaken()
            located = _locate(connection, stored[1])
            assert located is not None
            return Replayed(located[1], _terminated(connection, located[1]))
    connection.execute("savepoint unit")
    late: list[Row] = []
    for change in unit.changes:
        refused = _put(connection, change, late) if isinstance(change, Put) else _move(connection, change)
        if refused is not None:
            connection.execute("rollback to unit")
            connection.execute("release unit")
            return refused
    if key is not None:
        connection.execute(
            statements.INSERT_KEY, (key.operation, key.key, key.request_hash, unit.subject, key.inserted_at)
        )
    connection.execute("release unit")
    if unit.subject is None:
        return Applied(None, _terminated(connection, late[0])) if late else _APPLIED
    row = _subject(connection, unit)
    return Applied(row, _terminated(connection, row))


def _subject(connection: sqlite3.Connection, unit: Unit) -> Row:
    """Return the subject's row after the changes; the last of them that is about it tells where it lies."""
    for change in reversed(unit.changes):
        if isinstance(change, Put) and change.row.id == unit.subject:
            return change.row
        if isinstance(change, Move) and change.id == unit.subject:
            values = connection.execute(statements.BY_ID[change.type], (change.id,)).fetchone()
            return ROWS[change.type]._make(values)
    located = _locate(connection, cast(str, unit.subject))
    assert located is not None
    return located[1]


def _put(connection: sqlite3.Connection, put: Put, late: list[Row]) -> Refused | None:
    if not put.minted:
        located = _locate(connection, put.row.id)
        if located is not None:
            return Refused("id_used", located[1])
    for type_, id in put.refs:
        if connection.execute(statements.BY_ID[type_], (id,)).fetchone() is None:
            located = _locate(connection, id)
            return Refused("missing", located[1] if located is not None else None)
    try:
        if connection.execute(*_insert(put.row)).rowcount != 1:
            _insert_late(connection, put.row)
            late.append(put.row)
    except sqlite3.IntegrityError as error:
        return _refused_put(connection, put, error)
    _add_violations(connection, put.row.id, put.violations)
    return None


def _move(connection: sqlite3.Connection, move: Move) -> Refused | None:
    sql = statements.update(move.type, tuple(move.set), move.leaves)
    if connection.execute(sql, (*move.set.values(), move.id)).rowcount != 1:
        return _refused_move(connection, move)
    if "payload" in move.set:
        connection.execute(statements.FORGET_VIOLATIONS, (move.id,))
    _add_violations(connection, move.id, move.violations)
    return None


def _add_violations(connection: sqlite3.Connection, id: str, violations: tuple[Violation, ...]) -> None:
    if violations:
        connection.executemany(statements.INSERT_VIOLATION, [(id, *violation) for violation in violations])


def _refused_move(connection: sqlite3.Connection, move: Move) -> Refused:
    values = connection.execute(statements.BY_ID[move.type], (move.id,)).fetchone()
    if values is not None:
        return Refused("status", ROWS[move.type]._make(values))
    located = _locate(connection, move.id)
    return Refused("missing", located[1] if located is not None else None)


def _refused_put(connection: sqlite3.Connection, put: Put, error: sqlite3.IntegrityError) -> Refused:
    row, type_ = put.row, TYPE_OF[type(put.row)]
    if error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
        return Refused("missing")
    if error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
        located = _locate(connection, row.id)
        return Refused("id_used", located[1] if located is not None else None)
    if error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_UNIQUE:
        values = [getattr(row, column) for column in UNIQUE[type_]]
        stored = connection.execute(statements.BY_UNIQUE[type_], values).fetchone()
        return Refused("not_unique", ROWS[type_]._make(stored) if stored is not None else None)
    raise error


def _locate(connection: sqlite3.Connection, id: str) -> tuple[ResourceType, Row] | None:
    for type_ in _TYPES:
        values = connection.execute(statements.BY_ID[type_], (id,)).fetchone()
        if values is not None:
            return type_, ROWS[type_]._make(values)
    return None


def _terminated(connection: sqlite3.Connection, row: Row) -> str | None:
    if isinstance(row, AgentInstanceRow):
        return row.termination_reason or "" if row.status == "terminated" else None
    if not isinstance(row, AgentSpanRow):
        return None
    values = connection.execute(statements.TERMINATED, (row.agent_instance_id,)).fetchone()
    return values[0] or "" if values is not None else None
