"""Applies changes within a transaction. Each guard is checked under locks that keep it true until the commit.

A conflict that no lock prevents, such as one name for two agents at the same moment, breaks a unique key. The whole
transaction is then retried, and finds the row of the other transaction (see Connections.transact).

Spans are inserted by COPY, many at once. A refusal of such a batch names the guard that failed, not the row:
`changes.parted` finds the row. Consecutive units that register runs, or change runs in the same way, are one statement,
too: a drain has hundreds of both, and a round trip for each took more time than their spans. A unit that its batch
cannot apply is applied alone, which finds the reason.
"""

from collections.abc import Collection, Hashable, Iterable, Sequence
from typing import Any, cast

from agentspan.model.changes import (
    Applied,
    Change,
    Key,
    KeyTaken,
    Move,
    Outcome,
    Put,
    PutSpans,
    Ref,
    Refused,
    Remove,
    Replayed,
    Unit,
)
from agentspan.model.rows import (
    REFERENCES,
    ROWS,
    TYPE_OF,
    AgentInstanceRow,
    AgentSpanRow,
    ResourceType,
    Row,
    Violation,
    instance_of,
)
from agentspan.storage.postgres import statements
from agentspan.storage.postgres.connection import Connection, rows_of, rows_of_each, storable
from agentspan.storage.postgres.reads import key_of, locate, terminated_of
from agentspan.storage.postgres.single_statements import (
    APPLIED,
    Single,
    as_texts,
    moving,
    outcome_of,
    putting,
    single_of,
)
from agentspan.storage.postgres.statements import shape_of, span_table
from agentspan.storage.protocol import moved, references_of, unique_of

_VIOLATIONS = "copy schema_violations (agent_instance_id, agent_span_id, side, path, keyword, message) from stdin"


def put_spans(connection: Connection, put: PutSpans, late: list[Row]) -> Refused | None:
    """Insert new spans, all of them or none, within the caller's transaction.

    The rows of their runs are locked first, in the order of ids, so that two batches of the same run wait for each
    other. Else one span could be stored as open and as finished at the same moment: no unique key spans both tables.
    """
    rows = put.rows
    runs = {row.agent_instance_id for row in rows}
    ids = [row.id for row in rows]
    found = rows_of(connection, statements.LOCK_RUNS, (storable(sorted(runs)),))
    if len(found) < len(runs):
        return Refused("missing")
    if len(set(ids)) < len(ids) or _are_used(connection, rows, runs):
        return Refused("id_used")
    insert(connection, rows)
    if put.violations:
        run_of = {row.id: row.agent_instance_id for row in rows}
        with connection.cursor().copy(_VIOLATIONS) as copy:
            for id, violation in put.violations:
                copy.write_row((run_of[id], id, *violation))
    terminated = {id for id, status, _ in found if status == "terminated"}
    if terminated:
        late.append(next(row for row in rows if row.agent_instance_id in terminated))
    return None


def _are_used(connection: Connection, rows: Sequence[AgentSpanRow], runs: Collection[str]) -> bool:
    if not rows:
        return False
    ids = [row.id for row in rows]
    values = {"runs": list(runs), "first": min(ids), "last": max(ids)}
    if not rows_of(connection, statements.SPANS_BETWEEN, values):
        return False
    if connection.is_distributed:
        return any(rows_of(connection, sql, (list(runs), ids)) for sql in statements.SPAN_IDS_USED_APART)
    asked = (statements.SEPARATOR.join(texts) for texts in ((row.agent_instance_id for row in rows), ids))
    return bool(rows_of(connection, statements.SPAN_IDS_USED, tuple(asked)))


def insert(connection: Connection, rows: Sequence[AgentSpanRow]) -> None:
    """Insert spans into the table of open or of finished spans, by their status. No guard is checked."""
    by_table: dict[str, list[AgentSpanRow]] = {}
    for row in rows:
        by_table.setdefault(span_table(row.status), []).append(row)
    for table, some in by_table.items():
        with connection.cursor().copy(statements.copy(table)) as copy:
            for row in some:
                copy.write_row(row)


def missing(connection: Connection, refs: Iterable[Ref]) -> Refused | None:
    """Lock the rows that a row refers to, so that nothing removes them; return a refusal if one is missing."""
    for ref in refs:
        if ref in connection.kept:  # locked before: a drain registers many runs of one agent
            continue
        if not rows_of(connection, statements.REFERRED[ref.type], (ref.id,)):
            found = locate(connection, ref.id)
            return Refused("missing", found[1] if found is not None else None)
        connection.kept |= {ref}
    return None


def apply_all(connection: Connection, units: Sequence[Unit], stop_at_refusal: bool) -> list[Outcome]:
    """Apply units in order, within the caller's transaction."""
    if len(units) > 1:
        lock_runs(connection, units)
    outcomes: list[Outcome] = []
    while len(outcomes) < len(units):
        batch = () if stop_at_refusal else batch_at(units, len(outcomes))
        if batch:
            done = apply_batch(connection, batch)
            pairs = zip(batch, done, strict=True)
            outcomes += [apply_unit(connection, unit) if one is None else one for unit, one in pairs]
            continue
        unit = units[len(outcomes)]
        single = single_of(unit)
        applied = None if single is None else outcome_of(unit, _rows_of_single(connection, single))
        outcome = apply_unit(connection, unit) if applied is None else applied
        outcomes.append(outcome)
        if stop_at_refusal and isinstance(outcome, (KeyTaken, Refused)):
            break
    return outcomes


def _rows_of_single(connection: Connection, single: Single) -> list[Any]:
    if not single.before:
        return rows_of(connection, *single.statement)
    return rows_of_each(connection, (*single.before, single.statement))[-1]


def lock_runs(connection: Connection, units: Iterable[Unit]) -> None:
    """Lock the runs that units change, in the order of their ids: in different orders, two writers would deadlock.

    Spans are locked after their run, so writers of different runs never wait for each other's spans.
    """
    runs: set[str] = set()
    spans: list[str] = []
    for change in (change for unit in units for change in unit.changes):
        if isinstance(change, PutSpans):
            runs.update(row.agent_instance_id for row in change.rows)
        elif isinstance(change, Put):
            if isinstance(change.row, AgentSpanRow):
                runs.add(change.row.agent_instance_id)
        elif change.type == "agent_instance":
            runs.add(change.id)
        elif isinstance(change, Move) and change.type == "agent_span":
            if change.instance_id is None:
                spans.append(change.id)
            else:
                runs.add(change.instance_id)
    if spans:
        runs.update(run for (run,) in rows_of(connection, statements.RUNS_OF_SPANS, (storable(spans),)))
    if runs:
        rows_of(connection, statements.LOCK_RUNS, (storable(sorted(runs)),))


def apply_unit(connection: Connection, unit: Unit) -> Outcome:
    """Apply a unit, whole or not at all, within the caller's transaction."""
    key = unit.key
    if key is not None:
        used = _used_key(connection, key)
        if used is not None:
            return used
    several = len(unit.changes) > 1  # one change is refused before it writes anything
    if several:
        connection.execute("savepoint unit")
    late: list[Row] = []
    for change in unit.changes:
        refused = _apply(connection, change, late)
        if refused is not None:
            if several:
                connection.kept = frozenset()  # the rollback releases the unit's locks
                connection.execute("rollback to unit")
                connection.execute("release unit")
            # A transaction for which a lock waited may have used the key after the check above.
            used = None if key is None else _used_key(connection, key)
            return refused if used is None else used
    if several:
        connection.execute("release unit")
    if key is not None:
        values = (key.operation, key.key, key.request_hash, unit.subject, key.inserted_at)
        connection.execute(statements.INSERT_KEY, values)
    if unit.subject is None:
        reasons = (terminated_of(connection, row) for row in late)
        reason = next((reason for reason in reasons if reason is not None), None)
        return APPLIED if reason is None else Applied(None, reason)
    row = _row_of(connection, unit)
    return Applied(row, terminated_of(connection, row))


def _row_of(connection: Connection, unit: Unit) -> Row:
    """Return the row that an applied unit is about. A run that the unit has just put is not read again."""
    id, last = cast(str, unit.subject), unit.changes[-1] if unit.changes else None
    if isinstance(last, Put) and isinstance(last.row, AgentInstanceRow) and last.row.id == id:
        return last.row
    if isinstance(last, Move) and last.id == id and last.type != "agent_span":
        return ROWS[last.type]._make(rows_of(connection, statements.BY_ID[last.type], (id,))[0])
    found = locate(connection, id)
    assert found is not None
    return found[1]


def _used_key(connection: Connection, key: Key) -> Outcome | None:
    """Return the outcome of a unit whose idempotency key was used before; None if it is unused."""
    stored = key_of(connection, key)
    if stored is None:
        return None
    if stored.request_hash != key.request_hash:
        return KeyTaken()
    found = locate(connection, stored.subject)
    if found is None:  # what the request made was deleted since
        return Refused("missing")
    return Replayed(found[1], terminated_of(connection, found[1]))


def _apply(connection: Connection, change: Change, late: list[Row]) -> Refused | None:
    if isinstance(change, PutSpans):
        return put_spans(connection, change, late)
    if isinstance(change, Move):
        return _move(connection, change, late)
    if isinstance(change, Remove):
        return _remove(connection, change)
    return _put_span(connection, change, late) if isinstance(change.row, AgentSpanRow) else _put(connection, change)


def _put_span(connection: Connection, put: Put, late: list[Row]) -> Refused | None:
    row = cast(AgentSpanRow, put.row)
    if not put.minted:
        rows_of(connection, statements.LOCK_ID, (row.id,))
    found = rows_of(connection, *putting(put, row))
    if not found:
        refused = _used(connection, put) or missing(connection, (*put.refs, *references_of(row)))
        return refused or Refused("missing")
    if found[0][-1] is not None:
        late.append(row)
    return None


def _put(connection: Connection, put: Put) -> Refused | None:
    row, type_ = put.row, TYPE_OF[type(put.row)]
    if not put.minted:
        rows_of(connection, statements.LOCK_ID, (row.id,))
    refused = _used(connection, put)
    if refused is not None:
        return refused
    unique = unique_of(row)
    if unique is not None:
        clash = rows_of(connection, statements.BY_UNIQUE[type_], unique)
        if clash:
            return Refused("not_unique", ROWS[type_]._make(clash[0]))
    refused = missing(connection, (*references_of(row), *put.refs))
    if refused is not None:
        return refused
    connection.execute(statements.INSERT[type(row)], tuple(row))
    if isinstance(row, AgentInstanceRow):
        _rename(connection, None, row)
    return None


def _used(connection: Connection, put: Put) -> Refused | None:
    """Return a refusal if an id is used. A minted id is looked for among rows of the same type only."""
    row, type_ = put.row, TYPE_OF[type(put.row)]
    if put.minted:
        same = rows_of(connection, statements.BY_ID[type_], (row.id,))
        return Refused("id_used", ROWS[type_]._make(same[0])) if same else None
    used = rows_of(connection, statements.TYPES_OF_ID, {"id": row.id})
    if not used:
        return None
    (values,) = rows_of(connection, statements.BY_ID[used[0][0]], (row.id,))
    return Refused("id_used", ROWS[cast(ResourceType, used[0][0])]._make(values))


def _rename(connection: Connection, before: AgentInstanceRow | None, after: AgentInstanceRow | None) -> None:
    """Update the table `run_names`, which has the unique key of external identifiers, after a run has changed."""
    old, new = (None if row is None else unique_of(row) for row in (before, after))
    if old == new:
        return
    if old is not None:
        connection.execute(statements.FORGET_NAME, old)
    if new is not None and after is not None:
        connection.execute(statements.NAME_RUN, (*new, after.id))


def _move(connection: Connection, move: Move, late: list[Row]) -> Refused | None:
    if _is_moved_by_statement(connection, move):
        return None
    before = _locked(connection, move)
    after = moved(move, before)
    if isinstance(after, Refused):
        if after.stored is not None or before is not None:
            return after
        found = locate(connection, move.id)  # a row of another type
        return Refused(after.why, found[1] if found is not None else None)
    assert before is not None
    _write(connection, move.type, before, after.row)
    if after.is_over:
        late.append(after.row)
    if move.type == "agent_span":
        if "payload" in move.set:
            connection.execute(statements.FORGET_VIOLATIONS, (move.id,))
        if move.violations:
            _insert_violations(connection, instance_of(after.row), ((move.id, each) for each in move.violations))
    return None


def _is_moved_by_statement(connection: Connection, move: Move) -> bool:
    """Move an open span, or a row of another type, by one statement; return whether that moved it."""
    if move.type == "agent_span":
        statement = moving(move)
        return statement is not None and bool(rows_of(connection, *statement))
    if move.type == "agent_instance" and not {"agent_id", "external_identifier"}.isdisjoint(move.set):
        return False  # its spans and its name change too
    values = (value for value in move.unchanged.values() if value is not None)
    shape = shape_of(move.unchanged)
    sql = statements.update(statements.table_of(move.type), move.type, tuple(move.set), move.leaves, shape)
    return bool(connection.execute(sql, (*move.set.values(), move.id, *values)).fetchall())


def _locked(connection: Connection, move: Move) -> Row | None:
    """Lock the row of a move against other transactions, and return it; None if there is no such row."""
    if move.type != "agent_span":
        found = rows_of(connection, statements.LOCKED[move.type], (move.id,))
        return ROWS[move.type]._make(found[0]) if found else None
    run = move.instance_id
    if run is None:
        of_span = rows_of(connection, statements.RUN_OF_SPAN, (move.id,))
        if not of_span:
            return None
        run = of_span[0][0]
    for _ in range(2):  # between both reads, another transaction may move the span to the table that was read first
        for table in reversed(statements.SPAN_TABLES):
            found = rows_of(connection, statements.LOCKED_SPAN[table], (move.id, run))
            if found:
                return AgentSpanRow._make(found[0])
    return None


def _write(connection: Connection, type_: ResourceType, before: Row, after: Row) -> None:
    """Store the changed columns of a row after a move. A span whose status opens or ends it changes its table."""
    set = {name: value for name, value in zip(after._fields, after, strict=True) if value != getattr(before, name)}
    if isinstance(before, AgentSpanRow) and isinstance(after, AgentSpanRow):
        table = span_table(before.status)
        if table == statements.FINISHED:
            connection.execute(statements.NOTE_REWRITTEN, ([before.agent_instance_id],))
        if table != span_table(after.status):
            connection.execute(f"delete from {table} where id = %s", (before.id,))
            insert(connection, [after])
            return
    else:
        table = statements.table_of(type_)
    if set:
        connection.execute(statements.update(table, type_, tuple(set), frozenset()), (*set.values(), before.id))
    if isinstance(before, AgentInstanceRow) and isinstance(after, AgentInstanceRow):
        _rename(connection, before, after)
        if before.agent_id != after.agent_id:
            for spans in statements.SPAN_TABLES:
                sql = f"update {spans} set agent_id = %s where agent_instance_id = %s"
                connection.execute(sql, (after.agent_id, after.id))


def _remove(connection: Connection, remove: Remove) -> Refused | None:
    connection.kept = frozenset()  # the transaction's own locks do not prevent its removals
    if remove.type == "agent_span":
        row = _locked(connection, Move("agent_span", remove.id, frozenset(), {}))
    else:
        found = rows_of(connection, statements.LOCKED[remove.type], (remove.id,))
        row = ROWS[remove.type]._make(found[0]) if found else None
    if row is None:
        other = locate(connection, remove.id)
        return Refused("missing", other[1] if other is not None else None)
    for type_, references in REFERENCES.items():
        for column, to in references.items():
            sql = f"select 1 from {statements.table_of(type_)} where {statements.quoted(column)} = %s limit 1"
            if to == remove.type and rows_of(connection, sql, (remove.id,)):
                return Refused("referenced", row)
    if isinstance(row, AgentSpanRow):
        connection.execute(f"delete from {span_table(row.status)} where id = %s", (row.id,))
        connection.execute(statements.NOTE_REWRITTEN, ([row.agent_instance_id],))
        return None
    connection.execute(statements.DELETE[remove.type], (remove.id,))
    if isinstance(row, AgentInstanceRow):
        _rename(connection, row, None)
    return None


def _insert_violations(connection: Connection, run: str, found: Iterable[tuple[str, Violation]]) -> None:
    values = [(run, id, *violation) for id, violation in found]
    connection.cursor().executemany(statements.INSERT_VIOLATION, values)


_PUT = "put"
_APART = frozenset({"agent_id", "external_identifier"})
"""Columns of a run that other tables have, too, so that changing them takes more than one statement."""


def batch_at(units: Sequence[Unit], place: int) -> Sequence[Unit]:
    """Return the units from a place on that one statement can apply; empty if that is a single unit."""
    kind = _kind(units[place])
    if kind is None:
        return ()
    end, ids = place, set[str]()
    while end < len(units) and _kind(units[end]) == kind and (id := _id(units[end])) not in ids:
        ids.add(id)
        end += 1
    return units[place:end] if end - place > 1 else ()


def apply_batch(connection: Connection, units: Sequence[Unit]) -> list[Outcome | None]:
    """Apply units of one batch, within the caller's transaction.

    Returns:
        The outcome of each unit; None for a unit whose guard failed, which has changed nothing.
    """
    return _put_run(connection, units) if isinstance(units[0].changes[0], Put) else _move_run(connection, units)


def _kind(unit: Unit) -> Hashable:
    """Return a value that is equal for all units of one batch; None for a unit that is applied alone."""
    if len(unit.changes) != 1 or unit.key is not None:
        return None
    change = unit.changes[0]
    if isinstance(change, Put):
        row = change.row
        is_plain = isinstance(row, AgentInstanceRow) and change.minted and not change.refs and unique_of(row) is None
        return _PUT if is_plain and unit.subject in (None, row.id) else None
    if not isinstance(change, Move) or change.type != "agent_instance" or unit.subject is not None:
        return None
    if change.unchanged or change.violations or not _APART.isdisjoint(change.set):
        return None
    return (*change.set, change.leaves)


def _id(unit: Unit) -> str:
    change = unit.changes[0]
    return change.row.id if isinstance(change, Put) else cast(Move, change).id


def _put_run(connection: Connection, units: Sequence[Unit]) -> list[Outcome | None]:
    rows = [cast(AgentInstanceRow, cast(Put, unit.changes[0]).row) for unit in units]
    found = rows_of(connection, statements.BY_IDS["agent_instance"], (storable([row.id for row in rows]),))
    used = {stored.id: stored for stored in map(AgentInstanceRow._make, found)}
    outcomes: list[Outcome | None] = []
    new: list[AgentInstanceRow] = []
    for unit, row in zip(units, rows, strict=True):
        refused = Refused("id_used", used[row.id]) if row.id in used else missing(connection, references_of(row))
        if refused is None:
            new.append(row)
        outcomes.append(refused or (APPLIED if unit.subject is None else Applied(row, terminated_of(connection, row))))
    if new:
        with connection.cursor().copy(statements.COPY_RUNS) as copy:
            for row in new:
                copy.write_row(row)
    return outcomes


def _move_run(connection: Connection, units: Sequence[Unit]) -> list[Outcome | None]:
    moves = [cast(Move, unit.changes[0]) for unit in units]
    columns = tuple(moves[0].set)
    sql = statements.update_runs(columns, moves[0].leaves)
    values = zip(*(as_texts((move.id, *move.set.values())) for move in moves), strict=True)
    done = {id for (id,) in rows_of(connection, sql, [*map(list, values)])}
    return [APPLIED if move.id in done else None for move in moves]
