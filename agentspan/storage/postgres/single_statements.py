"""Changes of spans that are one statement each: with its guards, its key, its violations and the row that it returns.

Alone, such a unit is one round trip, without BEGIN and COMMIT. Several that do not depend on each other are sent
together. A statement whose guard does not hold returns nothing and has changed nothing: `writes` finds the reason.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from agentspan.model.changes import Applied, Key, Move, Outcome, Put, Ref, Unit
from agentspan.model.rows import AgentSpanRow, Value, Violation
from agentspan.model.status import OPEN
from agentspan.storage.postgres import statements
from agentspan.storage.postgres.connection import Statement
from agentspan.storage.postgres.statements import shape_of, span_table

_LOCK_RUNS = "select 1 from agent_instances where id = any(%s) order by id for share"
APPLIED = Applied()


class Single(NamedTuple):
    """A unit that is one statement.

    Attributes:
        before: a lock that another statement takes first: a statement does not see what is committed while it waits.
    """

    statement: Statement
    before: tuple[Statement, ...] = ()


def single_of(unit: Unit) -> Single | None:
    """Return a unit as one statement; None where it is not one."""
    if len(unit.changes) != 1:
        return None
    change = unit.changes[0]
    if isinstance(change, Move) and change.type == "agent_span" and unit.subject in (None, change.id):
        statement = moving(change, unit.key, wants_row=unit.subject is not None)
        return None if statement is None else Single(statement)
    if isinstance(change, Put) and isinstance(change.row, AgentSpanRow) and unit.subject in (None, change.row.id):
        # An id that no program made is looked for in all tables.
        before = () if change.minted else (Statement(statements.LOCK_ID, (change.row.id,)),)
        return Single(putting(change, change.row, unit.key), before)
    return None


def moving(move: Move, key: Key | None = None, *, wants_row: bool = False) -> Statement | None:
    """Return the statement of a move of an open span, None where it is not one; see statements.move_span."""
    if not move.leaves or not move.leaves <= OPEN:
        return None  # it may be in either table
    run = () if move.instance_id is None else (move.instance_id,)
    columns = frozenset(move.set)
    is_end = "status" in columns and move.set["status"] not in OPEN
    # An UPDATE sets the columns that are given, a row that moves to the other table has all.
    values = (move.set[field] for field in AgentSpanRow._fields if field in columns)
    given = (value for value in move.unchanged.values() if value is not None)
    guard = (move.id, *run, *given, *(() if key is None else (key.operation, key.key)))
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
    """Return the statement that puts a span; see statements.put_span."""
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
    """Return values as texts, each of which has a cast in the statement.

    psycopg prepares a statement for each combination of the types of its values: for 95 and 40000 tokens two.
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
    """Return the outcome of a unit whose statement returned these rows; None where it changed nothing."""
    if not rows:
        return None
    *row, reason = rows[0]
    if unit.subject is None:
        # As from any storage: the end of a span tells of a termination only where its row is wanted.
        return Applied(None, reason) if reason is not None and isinstance(unit.changes[0], Put) else APPLIED
    return Applied(AgentSpanRow._make(row), reason)


class Together(NamedTuple):
    """Units whose statements are sent together.

    Attributes:
        locks: are executed first, in the order in which `writes.lock_runs` has them: the runs, then new ids. The locks
            on runs are shared: two groups of the same run do not wait for each other.
        places: of the units that the statements are of.
        statements: in the order in which they lock spans.
    """

    locks: list[Statement]
    places: list[int]
    statements: list[Statement]


def together(units: Sequence[Unit]) -> Together | None:
    """Return units as they are sent together.

    Returns:
        None where a unit is not one statement, or where one depends on another: then they are applied in their order.
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
