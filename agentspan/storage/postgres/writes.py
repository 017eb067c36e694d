"""Applies units. Each guard is checked under locks that keep it true until the commit.

A unit of one change is compiled to one statement, which includes guards, idempotency key, violations and returned row.
A single such unit of a span takes one round trip, without BEGIN and COMMIT. Several that do not depend on each other
are a batch, whose statements are sent together. A statement whose guard fails returns no row and changes nothing; then
`apply_unit` applies the unit by itself, and finds the reason. Spans of a PutSpans are inserted by COPY: a refusal names
the guard that failed, not the row, and `changes.parted` finds the row.

A conflict that no lock prevents, such as one name for two agents at the same moment, breaks a unique key. The whole
transaction is then retried, and finds the row of the other transaction (see Connections.transact).
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple, cast

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
    with_agents,
)
from agentspan.storage.postgres import statements
from agentspan.storage.postgres.connection import Connection, Statement, rows_of, rows_of_each, storable
from agentspan.storage.postgres.reads import find, locate, terminated_of
from agentspan.storage.postgres.statements import span_table
from agentspan.storage.protocol import moved, references_of, terminated, unique_of

APPLIED = Applied()
_APART = frozenset({"agent_id", "external_identifier"})
"""Columns of a run that other tables have, too, so that changing them takes more than one statement."""


class Compiled(NamedTuple):
    """A change as one statement.

    Attributes:
        before: locks that an earlier statement takes: a statement does not see rows committed while it waits.
        refs: the rows that it refers to. The first one of a span is its run, if it is known.
        is_of_span: whether it changes a span.
        is_unique: whether a row with another id may be in its way.
    """

    statement: Statement
    before: tuple[Statement, ...]
    refs: Sequence[Ref]
    is_of_span: bool
    is_unique: bool = False


class Batch(NamedTuple):
    """Units that are sent together: each is one statement, and none depends on another.

    Attributes:
        places: for each statement, the place of its unit.
        statements: the statements of the units; those of spans in the order of run and span id, in which all writers
            lock spans.
        locks: the statements that are executed before, to lock rows.
        is_of_spans: whether all units change spans.
    """

    units: Sequence[Unit]
    places: list[int]
    statements: list[Statement]
    locks: list[Statement]
    is_of_spans: bool


def batch_at(units: Sequence[Unit], place: int, *, is_single: bool) -> Batch:
    """Return the units from a place on that are sent together; none if the first one needs several statements.

    Args:
        is_single: return one unit at most.
    """
    found: list[tuple[tuple[str, str], int, Compiled]] = []
    ids: set[object] = set()
    refs: set[str] = set()
    for unit in (units[at] for at in range(place, place + 1 if is_single else len(units))):
        compiled = compile_unit(unit)
        if compiled is None:
            break
        id = _id_of(cast("Put | Move", unit.changes[0]))
        own: set[object] = {id} if unit.key is None else {id, unit.key[:2]}
        to = {ref.id for ref in compiled.refs}
        if found and (compiled.is_unique or not ids.isdisjoint(own | to) or not refs.isdisjoint(own)):
            break
        ids |= own
        refs |= to
        order = (compiled.refs[0].id if compiled.refs else "", id) if compiled.is_of_span else ("", "")
        found.append((order, len(found), compiled))
        if compiled.is_unique:
            break
    found.sort(key=lambda one: one[0])  # other rows than spans keep their order
    return Batch(
        units[place : place + len(found)],
        [number for _, number, _ in found],
        [compiled.statement for *_, compiled in found],
        [lock for *_, compiled in found for lock in compiled.before],
        all(compiled.is_of_span for *_, compiled in found),
    )


def with_locks(batch: Batch) -> Batch | None:
    """Return a batch of spans that locks their runs first; None if another statement must find the runs.

    The locks are shared, so that two batches of the same run do not wait for each other.
    """
    runs, unknown = _runs_of(batch.units)
    lock = Statement(statements.SHARE_RUNS, (storable(sorted(runs)),))
    return None if unknown or not batch.is_of_spans else batch._replace(locks=[lock, *batch.locks])


def compile_unit(unit: Unit) -> Compiled | None:
    """Return a unit as one statement; None if it needs several."""
    if len(unit.changes) != 1:
        return None
    change = unit.changes[0]
    if not isinstance(change, (Put, Move)) or unit.subject not in (None, _id_of(change)):
        return None
    return _compiled(change, unit.key, wants_row=unit.subject is not None)


def _compiled(change: Put | Move, key: Key | None = None, *, wants_row: bool = False) -> Compiled | None:
    if isinstance(change, Put):
        return _putting(change, key)
    statement = moving(change, key, wants_row=wants_row)
    run = () if change.instance_id is None else (Ref("agent_instance", change.instance_id),)
    return None if statement is None else Compiled(statement, (), run, change.type == "agent_span")


def moving(move: Move, key: Key | None = None, *, wants_row: bool = False) -> Statement | None:
    """Return the statement that moves a row; None if a span may be finished, or other tables change, too."""
    type_, columns = move.type, frozenset(move.set)
    is_span = type_ == "agent_span"
    if is_span and not (move.leaves and move.leaves <= OPEN):
        return None  # the span may be in either table
    if type_ == "agent_instance" and not _APART.isdisjoint(columns):
        return None
    run = (move.instance_id,) if is_span and move.instance_id is not None else ()
    is_end = is_span and "status" in columns and move.set["status"] not in OPEN
    # The order of the table: the statement has the placeholders in that order, for an UPDATE and for an INSERT.
    values = (move.set[field] for field in ROWS[type_]._fields if field in columns)
    known = (value for value in move.unchanged.values() if value is not None)
    guard = (move.id, *run, *known, *(() if key is None else (key.operation, key.key)))
    sql = statements.move(
        type_,
        columns,
        move.leaves,
        tuple((column, value is None) for column, value in move.unchanged.items()),
        is_end=is_end,
        has_run=bool(run),
        has_key=key is not None,
        has_violations=bool(move.violations),
        wants_row=wants_row,
    )
    ordered = (*guard, *values) if is_end else (*values, *guard)
    return Statement(sql, (*_as_texts(ordered), *_stored_beside(key, move.id, move.violations)))


def _putting(put: Put, key: Key | None) -> Compiled:
    row, type_ = put.row, TYPE_OF[type(put.row)]
    run: tuple[str, ...]
    if isinstance(row, AgentSpanRow):  # another part of the statement finds its run
        table, run, others, unique = span_table(row.status), (row.agent_instance_id,), put.refs, None
    else:
        table, run, others, unique = statements.table_of(type_), (), (*references_of(row), *put.refs), unique_of(row)
    sql = statements.put(
        type_,
        table,
        tuple(ref.type for ref in others),
        minted=put.minted,
        is_unique=unique is not None,
        has_key=key is not None,
        has_violations=bool(put.violations),
    )
    ids = (row.id, *run) if put.minted else (row.id,) * len(ROWS)
    used = () if key is None else (key.operation, key.key)
    values = (*run, *row, *ids, *(unique or ()), *(ref.id for ref in others), *used)
    statement = Statement(sql, (*_as_texts(values), *_stored_beside(key, row.id, put.violations)))
    # An id that a client chose is looked for in all tables, under a lock.
    before = () if put.minted else (Statement(statements.LOCK_ID, (row.id,)),)
    refs = (Ref("agent_instance", run[0]), *others) if run else others
    return Compiled(statement, before, refs, bool(run), unique is not None)


def _as_texts(values: Iterable[Any]) -> list[str | None]:
    """Return values as texts; the statement casts each of them.

    psycopg prepares a statement anew for each combination of types: 95 tokens and 40000 tokens have different types.
    """
    return [
        value if value is None or value.__class__ is str else str(value + 0)  # True is 1
        for value in values
    ]


def _as_array(texts: Iterable[str | None]) -> str:
    """Return texts as an array of PostgreSQL. psycopg takes three times as long for a list."""
    quoted = (
        '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' if text is not None else "NULL" for text in texts
    )
    return "{" + ",".join(quoted) + "}"


def _stored_beside(key: Key | None, subject: str, violations: Sequence[Violation]) -> list[Any]:
    values: list[Any] = []
    if key is not None:
        values += [key.operation, key.key, key.request_hash, subject, key.inserted_at]
    if violations:
        values += map(list, zip(*violations, strict=True))
    return values


def outcome_of(unit: Unit, rows: Sequence[Sequence[Any]]) -> Outcome | None:
    """Return the outcome of a unit whose statement returned these rows; None if it changed nothing."""
    if not rows:
        return None
    *values, reason = rows[0]
    change = unit.changes[0]
    if unit.subject is None:
        # As in each storage: the end of a span reports a termination only if the caller wants the row.
        return APPLIED if reason is None else Applied(None, reason)
    row = change.row if isinstance(change, Put) else ROWS[cast(Move, change).type]._make(values)
    return Applied(row, terminated(row) if isinstance(row, AgentInstanceRow) else reason)


def outcomes_of(connection: Connection, batch: Batch, answers: Sequence[Sequence[Any]]) -> list[Outcome]:
    """Return the outcomes of a batch, whose statements returned these rows. Applies other units by themselves."""
    rows = dict(zip(batch.places, answers, strict=True))
    found = [outcome_of(unit, rows[place]) for place, unit in enumerate(batch.units)]
    return [
        apply_unit(connection, unit) if outcome is None else outcome
        for unit, outcome in zip(batch.units, found, strict=True)
    ]


def apply_all(
    connection: Connection, units: Sequence[Unit], stop_at_refusal: bool, batch: Batch | None = None
) -> list[Outcome]:
    """Apply units in order, within the caller's transaction.

    Args:
        batch: the first ones, if they are compiled already.
    """
    if len(units) > 1:
        runs, unknown = _runs_of(units)
        if unknown:
            runs.update(run for (run,) in rows_of(connection, statements.RUNS_OF_SPANS, (storable(unknown),)))
        if runs:
            rows_of(connection, statements.LOCK_RUNS, (storable(sorted(runs)),))
    outcomes: list[Outcome] = []
    while len(outcomes) < len(units):
        if outcomes or batch is None:
            batch = batch_at(units, len(outcomes), is_single=stop_at_refusal)
        if batch.units:
            outcomes += outcomes_of(connection, batch, _answers(connection, batch))
        else:
            outcomes.append(apply_unit(connection, units[len(outcomes)]))
        if stop_at_refusal and isinstance(outcomes[-1], (KeyTaken, Refused)):
            break
    return outcomes


def _answers(connection: Connection, batch: Batch) -> Sequence[Sequence[Any]]:
    """Execute a batch; return the rows of each statement. A drain has hundreds of the same: they become one."""
    sqls = {sql for sql, _ in batch.statements}
    sql = statements.of_many(*sqls) if len(sqls) == 1 < len(batch.units) and not batch.locks else None
    if sql is None:
        return rows_of_each(connection, (*batch.locks, *batch.statements))[len(batch.locks) :]
    values = zip(*(values for _, values in batch.statements), strict=True)
    changed = {id for (id,) in rows_of(connection, sql, [*map(_as_array, values)])}
    ids = (_id_of(cast("Put | Move", batch.units[place].changes[0])) for place in batch.places)
    return [[(None,)] if id in changed else [] for id in ids]


def _runs_of(units: Iterable[Unit]) -> tuple[set[str], list[str]]:
    """Return the runs that units change, and the spans whose runs are unknown.

    The runs are locked in the order of their ids: in different orders, two writers would deadlock. Spans are locked
    after their run, so writers of different runs never wait for each other's spans.
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
    return runs, spans


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
    row = _subject(connection, unit)
    return Applied(row, terminated_of(connection, row))


def _subject(connection: Connection, unit: Unit) -> Row:
    """Return the row of a unit's subject after the unit's changes. A row that the unit has put is not read again."""
    for change in reversed(unit.changes):
        if isinstance(change, Put) and change.row.id == unit.subject:
            return change.row
        if isinstance(change, Move) and change.id == unit.subject:
            return ROWS[change.type]._make(rows_of(connection, statements.BY_ID[change.type], (change.id,))[0])
    found = locate(connection, cast(str, unit.subject))
    assert found is not None
    return found[1]


def _used_key(connection: Connection, key: Key) -> Outcome | None:
    """Return the outcome of a unit whose idempotency key was used before; None if it is unused."""
    found = find(connection, (), key)
    if found.key is None:
        return None
    if found.key.request_hash != key.request_hash:
        return KeyTaken()
    if found.key.subject not in found.rows:  # what the request made was deleted since
        return Refused("missing")
    row = found.rows[found.key.subject][1]
    return Replayed(row, found.terminated.get(instance_of(row)))


def _apply(connection: Connection, change: Change, late: list[Row]) -> Refused | None:
    if isinstance(change, PutSpans):
        return _put_spans(connection, change, late)
    if isinstance(change, Remove):
        return _remove(connection, change)
    compiled = _compiled(change)
    answers = () if compiled is None else rows_of_each(connection, (*compiled.before, compiled.statement))[-1]
    if not answers:
        return _why(connection, change) if isinstance(change, Put) else _move(connection, change, late)
    if isinstance(change, Put) and answers[0][-1] is not None:
        late.append(change.row)
    return None


def _why(connection: Connection, put: Put) -> Refused:
    """Return the reason for which the statement of a Put has changed nothing."""
    row, type_ = put.row, TYPE_OF[type(put.row)]
    same = locate(connection, row.id)
    if same is not None and (same[0] == type_ or not put.minted):
        return Refused("id_used", same[1])
    unique = unique_of(row)
    clash = () if unique is None else rows_of(connection, statements.BY_UNIQUE[type_], unique)
    if clash:
        return Refused("not_unique", ROWS[type_]._make(clash[0]))
    for ref in (*references_of(row), *put.refs):
        if not rows_of(connection, statements.REFERRED[ref.type], (ref.id,)):
            return _missing(connection, ref.id)
    return Refused("missing")


def _missing(connection: Connection, id: str) -> Refused:
    """Return the refusal for a row that is not there, with the row of another type that has its id."""
    other = locate(connection, id)
    return Refused("missing", other[1] if other is not None else None)


def _move(connection: Connection, move: Move, late: list[Row]) -> Refused | None:
    """Move a row that the statement of the move has not changed: one that is over, for example."""
    before = _locked(connection, move.type, move.id, move.instance_id)
    if before is None:
        return _missing(connection, move.id)
    after = moved(move, before)
    if isinstance(after, Refused):
        return after
    _write(connection, move.type, before, after.row)
    if after.is_over:
        late.append(after.row)
    if move.type == "agent_span":
        if "payload" in move.set:
            connection.execute(statements.FORGET_VIOLATIONS, (move.id,))
        if move.violations:
            rows = [(instance_of(after.row), move.id, *violation) for violation in move.violations]
            _copy(connection, statements.COPY_VIOLATIONS, rows)
    return None


def _locked(connection: Connection, type_: ResourceType, id: str, run: str | None) -> Row | None:
    """Lock a row against other transactions, and return it; None if there is no such row."""
    if type_ != "agent_span":
        found = rows_of(connection, statements.LOCKED[type_], (id,))
        return ROWS[type_]._make(found[0]) if found else None
    if run is None:
        of_span = rows_of(connection, statements.RUN_OF_SPAN, (id,))
        if not of_span:
            return None
        run = of_span[0][0]
    for _ in range(2):  # between both reads, another transaction may move the span to the table that was read first
        for table in reversed(statements.SPAN_TABLES):
            found = rows_of(connection, statements.LOCKED_SPAN[table], (id, run))
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
            _insert(connection, [after])
            return
    else:
        table = statements.table_of(type_)
    if set:
        set_to = ", ".join(f"{statements.quoted(column)} = %s" for column in set)
        connection.execute(f"update {table} set {set_to} where id = %s", (*set.values(), before.id))
    if isinstance(before, AgentInstanceRow) and isinstance(after, AgentInstanceRow):
        _rename(connection, before, after)
        if before.agent_id != after.agent_id:
            for spans in statements.SPAN_TABLES:
                sql = f"update {spans} set agent_id = %s where agent_instance_id = %s"
                connection.execute(sql, (after.agent_id, after.id))


def _remove(connection: Connection, remove: Remove) -> Refused | None:
    row = _locked(connection, remove.type, remove.id, None)
    if row is None:
        return _missing(connection, remove.id)
    for type_, references in REFERENCES.items():
        for column, to in references.items():
            sql = f"select 1 from {statements.table_of(type_)} where {statements.quoted(column)} = %s limit 1"
            if to == remove.type and rows_of(connection, sql, (remove.id,)):
                return Refused("referenced", row)
    if isinstance(row, AgentSpanRow):
        table = span_table(row.status)
        connection.execute(statements.NOTE_REWRITTEN, ([row.agent_instance_id],))
    else:
        table = statements.table_of(remove.type)
    connection.execute(f"delete from {table} where id = %s", (row.id,))
    if isinstance(row, AgentInstanceRow):
        _rename(connection, row, None)
    return None


def _put_spans(connection: Connection, put: PutSpans, late: list[Row]) -> Refused | None:
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
    _insert(connection, with_agents(rows, {id: agent_id for id, *_, agent_id in found}))
    if put.violations:
        run_of = {row.id: row.agent_instance_id for row in rows}
        _copy(connection, statements.COPY_VIOLATIONS, [(run_of[id], id, *each) for id, each in put.violations])
    terminated = {id for id, status, *_ in found if status == "terminated"}
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


def _insert(connection: Connection, rows: Sequence[AgentSpanRow]) -> None:
    """Insert spans into the table of open or of finished spans, by their status. No guard is checked."""
    by_table: dict[str, list[AgentSpanRow]] = {}
    for row in rows:
        by_table.setdefault(span_table(row.status), []).append(row)
    for table, some in by_table.items():
        _copy(connection, statements.copy(table), some)


def _copy(connection: Connection, sql: str, rows: Iterable[Sequence[Any]]) -> None:
    with connection.cursor().copy(sql) as copy:
        for row in rows:
            copy.write_row(row)


def _rename(connection: Connection, before: AgentInstanceRow | None, after: AgentInstanceRow | None) -> None:
    """Update the table `run_names`, which has the unique key of external identifiers, after a run has changed."""
    old, new = (None if row is None else unique_of(row) for row in (before, after))
    if old == new:
        return
    if old is not None:
        connection.execute(statements.FORGET_NAME, old)
    if new is not None and after is not None:
        connection.execute(statements.NAME_RUN, (*new, after.id))


def _id_of(change: Put | Move) -> str:
    return change.row.id if isinstance(change, Put) else change.id
