"""Units that change one span by one statement, which includes guards, idempotency key, violations and returned row.

A single such unit takes one round trip, without BEGIN and COMMIT. Several that do not depend on each other are sent
together. A statement whose guard fails returns no row and changes nothing; then `writes` finds the reason.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from agentspan.model.changes import OPEN, Applied, Key, Move, Outcome, Put, Ref, Unit
from agentspan.model.rows import AgentSpanRow, Value, Violation
from agentspan.storage.postgres import statements
from agentspan.storage.postgres.connection import Statement
from agentspan.storage.postgres.statements import shape_of, span_table

_LOCK_RUNS = "select 1 from agent_instances where id = any(%s) order by id for share"
APPLIED = Applied()


class Single(NamedTuple):
    """A unit that is one statement.

    Attributes:
        before: locks that another statement takes first: a statement does not see rows committed while it waits.
    """

    statement: Statement
    before: tuple[Statement, ...] = ()


def single_of(unit: Unit) -> Single | None:
    """Return a unit as one statement; None if the unit needs several."""
    if len(unit.changes) != 1:
        return None
    change = unit.changes[0]
    if isinstance(change, Move) and change.type == "agent_span" and unit.subject in (None, change.id):
        statement = moving(change, unit.key, wants_row=unit.subject is not None)
        return None if statement is None else Single(statement)
    if isinstance(change, Put) and isinstance(change.row, AgentSpanRow) and unit.subject in (None, change.row.id):
        # An id that a client chose is looked for in all tables, under a lock.
        before = () if change.minted else (Statement(statements.LOCK_ID, (change.row.id,)),)
        return Single(putting(change, change.row, unit.key), before)
    return None


def moving(move: Move, key: Key | None = None, *, wants_row: bool = False) -> Statement | None:
    """Return the statement that moves an open span; None if the span may be finished already."""
    if not move.leaves or not move.leaves <= OPEN:
        return None  # the span may be in either table
    run = () if move.instance_id is None else (move.instance_id,)
    columns = frozenset(move.set)
    is_end = "status" in columns and move.set["status"] not in OPEN
    # The order of the table: `move_span` has the placeholders in that order, for an UPDATE and for an INSERT.
    values = (move.set[field] for field in AgentSpanRow._fields if field in columns)
    known = (value for value in move.unchanged.values() if value is not None)
    guard = (move.id, *run, *known, *(() if key is None else (key.operation, key.key)))
    sql = statements.move_span(
        columns,
        move.leaves,
        shape_of(move.unchanged),
        is_end=is_end,
        has_run=bool(run),
        has_key=key is not None,
        has_violations=bool(move.violations),
        wants_row=wants_row,
    )
    ordered = (*guard, *values) if is_end else (*values, *guard)
    return Statement(sql, (*as_texts(ordered), *_stored_beside(key, move.id, move.violations)))


def putting(put: Put, row: AgentSpanRow, key: Key | None = None) -> Statement:
    """Return the statement that inserts a new span, with its values."""
    sql = statements.put_span(
        span_table(row.status),
        tuple(ref.type for ref in put.refs),
        minted=put.minted,
        has_key=key is not None,
        has_violations=bool(put.violations),
    )
    times = len(statements.types_of_used_ids(minted=put.minted))
    ids = [row.id, row.agent_instance_id] if put.minted else [row.id] * times
    refs = (ref.id for ref in put.refs)
    values = (row.agent_instance_id, *row, *ids, *refs, *(() if key is None else (key.operation, key.key)))
    return Statement(sql, (*as_texts(values), *_stored_beside(key, row.id, put.violations)))


def as_texts(values: Iterable[Value]) -> list[str | None]:
    """Return values as texts; the statement casts each of them.

    psycopg prepares a statement anew for each combination of types: 95 tokens and 40000 tokens have different types.
    """
    return [
        value if value is None or value.__class__ is str else str(value + 0)  # type: ignore[operator]  # True is 1
        for value in values
    ]


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
    *row, reason = rows[0]
    if unit.subject is None:
        # As in each storage: the end of a span reports a termination only if the caller wants the row.
        return Applied(None, reason) if reason is not None and isinstance(unit.changes[0], Put) else APPLIED
    return Applied(AgentSpanRow._make(row), reason)


class Together(NamedTuple):
    """Units whose statements are sent together.

    Attributes:
        locks: the lock statements, executed first, in the order of `writes.lock_runs`: runs, then new ids. The locks on
            runs are shared, so two groups of the same run do not wait for each other.
        places: for each statement, the place of its unit in the call.
        statements: the statements of the units, in the order of run and span id, in which all writers lock spans.
    """

    locks: list[Statement]
    places: list[int]
    statements: list[Statement]


def together(units: Sequence[Unit]) -> Together | None:
    """Return the locks and statements of units that can be sent together.

    Returns:
        None if a unit is not one statement, or depends on another unit: then the units are applied in order.
    """
    found: list[tuple[str, str, int, Single]] = []
    used: set[object] = set()
    referred: set[str] = set()
    for place, unit in enumerate(units):
        single = single_of(unit)
        if single is None:
            return None
        change = unit.changes[0]
        assert isinstance(change, (Put, Move))
        run = change.instance_id if isinstance(change, Move) else _run_of(change)
        id = change.id if isinstance(change, Move) else change.row.id
        names: Mapping[object, None] = dict.fromkeys((id,) if unit.key is None else (id, unit.key[:2]))
        if run is None or not used.isdisjoint(names):
            return None
        used.update(names)
        referred.update(ref.id for ref in _refs_of(change))
        found.append((run, id, place, single))
    if not used.isdisjoint(referred):
        return None
    found.sort(key=lambda one: one[:2])
    singles = [single for *_, single in found]
    locks = [Statement(_LOCK_RUNS, (list(dict.fromkeys(run for run, *_ in found)),))]
    locks += (lock for single in singles for lock in single.before)
    return Together(locks, [place for _, _, place, _ in found], [single.statement for single in singles])


def _run_of(put: Put) -> str:
    assert isinstance(put.row, AgentSpanRow)
    return put.row.agent_instance_id


def _refs_of(change: Put | Move) -> tuple[Ref, ...]:
    return change.refs if isinstance(change, Put) else ()
