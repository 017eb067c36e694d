"""Applies changes over a connection. Guards become WHERE clauses and constraints; refusals are returned as values."""

import sqlite3
from collections.abc import Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, cast

from agentspan.model.changes import (
    OPEN,
    Applied,
    Change,
    Key,
    KeyTaken,
    Move,
    Outcome,
    Put,
    PutSpans,
    Refused,
    Remove,
    Replayed,
    Unit,
    over_of,
)
from agentspan.model.rows import AT_END, ROWS, TYPE_OF, UNIQUE, AgentSpanRow, Row, Value, Violation, with_agents
from agentspan.storage.sqlite import statements
from agentspan.storage.sqlite.contents import LEAST, Numbering, are_large, recent_of, remove_contents, stored_row
from agentspan.storage.sqlite.joining import BIT
from agentspan.storage.sqlite.reads import locate, rows_of_each, terminated_in

APPLIED = Applied()
_UNUSED = (None,) * len(AgentSpanRow._fields[statements.UNUSED :])


def alone(change: Change) -> tuple[str, Sequence[Any]] | None:
    """Return the statement and parameters of a change that a single statement applies; None for other changes."""
    if type(change) is Put:
        row, refs, violations, minted = change
        if not minted or refs or violations or (type(row) is AgentSpanRow and are_large(row)):
            return None
        return _insert(row)
    if type(change) is not Move:
        return None
    type_, id, leaves, values, violations, unchanged, _, _ = change
    if violations or unchanged or "payload" in values or "status" not in values:  # these need several statements
        return None
    if len(cast(str, values.get("result_payload") or "")) >= LEAST:
        return None
    return statements.update(type_, (*values,), leaves), (*values.values(), id)


def _insert(row: Row) -> tuple[str, Sequence[Any]]:
    # sqlite3 binds a plain tuple faster
    if type(row) is not AgentSpanRow:
        return statements.INSERT[type(row)], tuple(row)
    if row[statements.UNUSED :] == _UNUSED:
        return statements.INSERT_UNUSED_UNLESS_TERMINATED, row[: statements.UNUSED]
    return statements.INSERT_UNLESS_TERMINATED, tuple(row)


def insert_late(cursor: sqlite3.Cursor | sqlite3.Connection, row: Row) -> None:
    """Insert a span although its run is terminated, so that no recorded step is lost."""
    cursor.execute(statements.INSERT[type(row)], tuple(row))


def apply_all(connection: sqlite3.Connection, units: Sequence[Unit], stop_at_refusal: bool) -> list[Outcome]:
    """Apply units in order, within the open transaction, and return one outcome per unit (see Storage.apply)."""
    outcomes: list[Outcome] = []
    for unit in units:
        outcome = apply_unit(connection, unit)
        outcomes.append(outcome)
        if stop_at_refusal and isinstance(outcome, (KeyTaken, Refused)):
            break
    return outcomes


def apply_unit(connection: sqlite3.Connection, unit: Unit) -> Outcome:
    """Apply a unit, whole or not at all, within the open transaction."""
    key = unit.key
    if key is not None:
        values = (key.operation, key.key, key.request_hash, unit.subject, key.inserted_at)
        if connection.execute(statements.INSERT_KEY, values).rowcount != 1:
            return _outcome_before(connection, key)
    # A single change is atomic without a savepoint, which would take a tenth of the time.
    several = len(unit.changes) != 1 or isinstance(unit.changes[0], PutSpans)
    if several:
        connection.execute("savepoint unit")
    late: list[Row] = []
    for change in unit.changes:
        if isinstance(change, Put):
            refused = _put(connection, change, late)
        elif isinstance(change, PutSpans):
            refused = _put_spans(connection, change, late)
        else:
            refused = _move(connection, change, late) if isinstance(change, Move) else _remove(connection, change)
        if refused is not None:
            if several:
                connection.execute("rollback to unit")
                recent_of(connection).clear()
                connection.execute("release unit")
            if key is not None:
                connection.execute(statements.FORGET_KEY, (key.operation, key.key))
            return refused
    if several:
        connection.execute("release unit")
    if unit.subject is None:
        return Applied(None, _first_reason(connection, late)) if late else APPLIED
    row = _subject(connection, unit)
    if not late and not several and isinstance(unit.changes[0], Put) and isinstance(row, AgentSpanRow):
        return Applied(row)  # the INSERT has checked that the run is not terminated
    return Applied(row, terminated_in(connection, row))


def _outcome_before(connection: sqlite3.Connection, key: Key) -> Outcome:
    """Return the outcome of a unit whose idempotency key is stored already."""
    request_hash, subject = connection.execute(statements.KEY, (key.operation, key.key)).fetchone()
    if request_hash != key.request_hash:
        return KeyTaken()
    row = locate(connection, subject)
    if row is None:  # the row of the first request has been deleted
        return Refused("missing")
    return Replayed(row, terminated_in(connection, row))


def _first_reason(connection: sqlite3.Connection, late: Sequence[Row]) -> str | None:
    """Return the reason of the first terminated run of these rows.

    This is a loop, because an unfinished generator swallows exceptions of signal handlers when it is freed.
    """
    for row in late:
        reason = terminated_in(connection, row)
        if reason is not None:
            return reason
    return None


def _subject(connection: sqlite3.Connection, unit: Unit) -> Row:
    """Return the row of a unit's subject after the unit's changes."""
    for change in reversed(unit.changes):
        if isinstance(change, Put) and change.row.id == unit.subject:
            return change.row
        if isinstance(change, Move) and change.id == unit.subject:
            values = connection.execute(statements.BY_ID[change.type], (change.id,)).fetchone()
            return ROWS[change.type]._make(values)
    return cast(Row, locate(connection, cast(str, unit.subject)))


def _put(connection: sqlite3.Connection, put: Put, late: list[Row]) -> Refused | None:
    if not put.minted:
        stored = locate(connection, put.row.id)
        if stored is not None:
            return Refused("id_used", stored)
    for ref in put.refs:
        if connection.execute(statements.EXISTS[ref.type], (ref.id,)).fetchone() is None:
            return Refused("missing", locate(connection, ref.id))
    try:
        if type(put.row) is AgentSpanRow and are_large(put.row):
            inserted = _insert_large(connection, put.row)
        else:
            inserted = connection.execute(*_insert(put.row)).rowcount == 1
            if not inserted:
                insert_late(connection, put.row)
    except sqlite3.IntegrityError as error:
        return refused_put(connection, put, error)
    if not inserted:
        late.append(put.row)
    _add_violations(connection, put.row.id, put.violations)
    return None


def _insert_large(connection: sqlite3.Connection, row: AgentSpanRow) -> bool:
    """Insert a span and the new parts of its payloads; return False if its run is terminated."""
    numbering = Numbering(connection, row.agent_instance_id)
    try:
        values = stored_row(numbering, row)
        in_time = connection.execute(statements.INSERT_SPAN_UNLESS_TERMINATED, values).rowcount == 1
        if not in_time:
            connection.execute(statements.INSERT_SPAN, values)
    except sqlite3.IntegrityError:
        numbering.drop()
        raise
    numbering.write()
    return in_time


TOGETHER = (500, 50, 5, 1)
"""The numbers of spans in one INSERT; the largest that fits is used first. SQLite allows 32,766 parameters."""
_id, _instance_id = (itemgetter(AgentSpanRow._fields.index(name)) for name in ("id", "agent_instance_id"))
_RARE = ("writer_id", "closed_by", "closed_at", "ended_late", *(name for name in AT_END if name != "summary"))
"""Columns that are null in most spans. Python 3.11 takes 0.2 µs to bind a None, ten times as long as a number."""
_of_rare = [(name, itemgetter(AgentSpanRow._fields.index(name))) for name in _RARE]


def _put_spans(connection: sqlite3.Connection, put: PutSpans, late: list[Row]) -> Refused | None:
    """Insert spans with as few statements as possible.

    The driver releases the GIL at each statement, and waits 5 ms to get it back if another thread computes. Beside such
    a thread, a row takes 1,700 µs in a statement of its own, and 34 µs in a statement of a hundred rows.
    """
    rows, start = put.rows, 0
    instances = set(map(_instance_id, rows))
    agents: dict[str, str] = {}
    terminated = set()
    for id, agent_id, is_terminated in rows_of_each(connection, statements.RUNS_OF_SPANS, tuple(instances)):
        agents[id] = agent_id
        if is_terminated:
            terminated.add(id)
    rows = with_agents(rows, agents)
    try:
        large = _stored(connection, rows)
        columns = _with_values(rows)
        places = [*map(AgentSpanRow._fields.index, columns)]
        values_of, values_of_stored = itemgetter(*places), itemgetter(*places, len(AgentSpanRow._fields))
        for number in TOGETHER:
            while len(rows) - start >= number:
                some = rows[start : start + number]
                if not large.keys().isdisjoint(map(_id, some)):
                    sql = statements.insert_spans(number, (*columns, "contents"))
                    stored = (large.get(row.id) or (*row, 0) for row in some)
                    values = chain.from_iterable(map(values_of_stored, stored))
                else:
                    sql, values = statements.insert_spans(number, columns), chain.from_iterable(map(values_of, some))
                connection.execute(sql, list(values))
                start += number
    except sqlite3.IntegrityError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
            return Refused("missing")
        if error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
            return Refused("id_used")
        raise
    if put.violations:
        connection.executemany(statements.INSERT_VIOLATION, [(id, *violation) for id, violation in put.violations])
    if terminated:
        late.append(next(row for row in rows if _instance_id(row) in terminated))
    return None


def _with_values(rows: Sequence[AgentSpanRow]) -> tuple[str, ...]:
    """Return the columns of spans, without columns that are null in all of these rows (0.3 µs a span)."""
    # No generator: an unfinished one swallows exceptions of signal handlers when it is freed.
    rare = [(name, value_of) for name, value_of in _of_rare if value_of(rows[0]) is None] if rows else []
    empty = {name for name, value_of in rare if set(map(value_of, rows)) == {None}}
    return tuple([name for name in AgentSpanRow._fields if name not in empty])


def _stored(connection: sqlite3.Connection, rows: Sequence[AgentSpanRow]) -> dict[str, tuple[Value, ...]]:
    """Store the new parts of large payloads. Return id → values to store, for the rows with large payloads only."""
    numberings: dict[str, Numbering] = {}
    stored: dict[str, tuple[Value, ...]] = {}
    for row in filter(are_large, rows):
        run = row.agent_instance_id
        numbering = numberings.get(run)
        if numbering is None:
            numbering = numberings[run] = Numbering(connection, run)
        stored[row.id] = stored_row(numbering, row)
    for numbering in numberings.values():
        numbering.write()
    return stored


def _updated(connection: sqlite3.Connection, move: Move, set: Mapping[str, Value], leaves: frozenset[str]) -> bool:
    """Update columns of a row, and store the new parts of its payloads. Return False if a guard does not hold."""
    large = {column: text for column in BIT if type(text := set.get(column)) is str and len(text) >= LEAST}
    stored, numbering = None, None
    if large and move.type == "agent_span":
        run = move.instance_id or connection.execute(statements.RUN_OF_SPAN, (move.id,)).fetchone()
        if run is not None:
            numbering = Numbering(connection, run if isinstance(run, str) else run[0])
            # An open span's payload may be updated often: each update would leave its old long text in `contents`.
            stays_open = "payload" in large and "finished_at" not in set and leaves <= OPEN
            try:
                stored = numbering.stored(large, with_texts=not stays_open)
            except sqlite3.IntegrityError:  # there is no such run, so there is no such span
                numbering.drop()
                return False
    unchanged = tuple(move.unchanged)
    sql = statements.update(move.type, tuple(set), leaves, unchanged, has_contents=stored is not None)
    values = [*set.values(), move.id, *move.unchanged.values()]
    if numbering is None or stored is None:
        return connection.execute(sql, values).rowcount == 1
    values[: len(set)] = (stored.contents, *{**set, **stored.texts}.values())
    if connection.execute(sql, values).rowcount != 1:
        numbering.drop()
        return False
    numbering.write()
    return True


def _move(connection: sqlite3.Connection, move: Move, late: list[Row]) -> Refused | None:
    if not _updated(connection, move, move.set, move.leaves):
        refused = _refused_move(connection, move)
        moved = None if refused.stored is None else _moved_over(connection, move, refused.stored)
        if moved is None:
            return refused
        late.append(moved)
    if "payload" in move.set:
        connection.execute(statements.FORGET_VIOLATIONS, (move.id,))
    if move.type == "agent_span" and not (move.leaves and move.leaves <= OPEN):
        rewritten(connection, move.id)
    if move.type == "agent_instance" and "agent_id" in move.set:
        connection.execute(statements.SET_AGENT_OF_SPANS, (move.set["agent_id"], move.id))
        removed(connection, (move.id,))  # the caches by agent must drop the run
    _add_violations(connection, move.id, move.violations)
    return None


def _moved_over(connection: sqlite3.Connection, move: Move, stored: Row) -> Row | None:
    """Set a move's values for a row that was closed on its behalf (see Over). Return the new row, or None."""
    over = over_of(move, stored)
    if over is None:
        return None
    _updated(connection, move._replace(unchanged={}), over.set, over.leaves)
    if move.type == "agent_span":
        rewritten(connection, move.id)
    return cast(Row, cast(Any, stored)._replace(**over.set))


def _remove(connection: sqlite3.Connection, remove: Remove) -> Refused | None:
    try:
        if (
            remove.type == "agent_instance"
            and connection.execute(statements.HAS_SPANS, (remove.id,)).fetchone() is None
        ):
            remove_contents(connection, remove.id)
        if connection.execute(statements.DELETE[remove.type], (remove.id,)).rowcount == 1:
            return None
    except sqlite3.IntegrityError:
        return Refused("referenced", locate(connection, remove.id))
    return Refused("missing")


def _add_violations(connection: sqlite3.Connection, id: str, violations: tuple[Violation, ...]) -> None:
    if violations:
        connection.executemany(statements.INSERT_VIOLATION, [(id, *violation) for violation in violations])


def _refused_move(connection: sqlite3.Connection, move: Move) -> Refused:
    """Return the refusal of a move whose UPDATE changed no row, with the guard that does not hold."""
    values = connection.execute(statements.BY_ID[move.type], (move.id,)).fetchone()
    if values is not None:
        row = ROWS[move.type]._make(values)
        left = not move.leaves or getattr(row, "status", None) in move.leaves
        return Refused("changed" if left else "status", row)
    return Refused("missing", locate(connection, move.id))


def refused_put(connection: sqlite3.Connection, put: Put, error: sqlite3.IntegrityError) -> Refused:
    """Return the refusal of an INSERT, from the constraint that it violated. Other errors are raised again."""
    row, type_ = put.row, TYPE_OF[type(put.row)]
    same = connection.execute(statements.BY_ID[type_], (row.id,)).fetchone()
    if same is not None:  # wins over any constraint that SQLite reports
        return Refused("id_used", ROWS[type_]._make(same))
    if error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
        return Refused("missing")
    if error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_UNIQUE:
        values = [getattr(row, column) for column in UNIQUE[type_]]
        stored = connection.execute(statements.BY_UNIQUE[type_], values).fetchone()
        return Refused("not_unique", ROWS[type_]._make(stored) if stored is not None else None)
    raise error


_CREATE_NOTES = (
    "create table if not exists rewritten_runs "
    "(id integer primary key autoincrement, agent_instance_id text not null, last_row integer) strict",
    "create index if not exists idx_rewritten_runs on rewritten_runs (agent_instance_id)",
)
"""The table of changed and removed finished spans, by which the index beside the file is updated. It is created at its
first use, and is in the recorded file, so that a note is committed with its change. Recording adds a note only if a
span's own end replaces an end that was set on its behalf. Other notes are from the commands `rederive`, which changes
finished spans, and `prune`, which removes them."""


def rewritten(connection: sqlite3.Connection, span_id: str) -> None:
    """Log, in the open transaction, the change of a span that may be finished."""
    (run,) = connection.execute("select agent_instance_id from agent_spans where id = ?", (span_id,)).fetchone()
    for statement in _CREATE_NOTES:
        connection.execute(statement)
    connection.execute("delete from rewritten_runs where agent_instance_id = ? and last_row is null", (run,))
    connection.execute("insert into rewritten_runs (agent_instance_id) values (?)", (run,))


def removed(connection: sqlite3.Connection, runs: Sequence[str]) -> None:
    """Log, in the transaction that removed them, that runs were removed."""
    for statement in _CREATE_NOTES:
        connection.execute(statement)
    (last_row,) = connection.execute("select ifnull(max(rowid), 0) from agent_spans").fetchone()
    connection.executemany(
        "insert into rewritten_runs (agent_instance_id, last_row) values (?, ?)", [(run, last_row) for run in runs]
    )
