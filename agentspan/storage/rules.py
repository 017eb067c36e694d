"""The rules of the storage contract as pure functions over rows, for backends that decide in Python, not in queries."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

from agentspan.model.changes import Move, Put, PutSpans, Ref, Refused, over_of
from agentspan.model.rows import REFERENCES, TYPE_OF, UNIQUE, AgentInstanceRow, AgentSpanRow, Row, Violation
from agentspan.storage.answers import Rows
from agentspan.storage.questions import Query


def puts_of(change: PutSpans) -> list[Put]:
    """Return one Put for each span of a PutSpans, with the span's violations."""
    violations: dict[str, list[Violation]] = {}
    for id, violation in change.violations:
        violations.setdefault(id, []).append(violation)
    return [Put(row, (), tuple(violations.get(row.id, ())), minted=True) for row in change.rows]


def references_of(row: Row) -> list[Ref]:
    """Return references to the rows that must exist before this row may be stored."""
    return [Ref(to, getattr(row, column)) for column, to in REFERENCES.get(TYPE_OF[type(row)], {}).items()]


def unique_of(row: Row) -> tuple[object, ...] | None:
    """Return the values of a row's unique columns; None if its type has no unique columns, or one of them is None."""
    columns = UNIQUE.get(TYPE_OF[type(row)])
    values = tuple(getattr(row, column) for column in columns or ())
    return None if columns is None or None in values else values


class Moved(NamedTuple):
    """The row after a Move. `is_over`: the span's own end replaced an end that was set on its behalf (see Over)."""

    row: Row
    is_over: bool


def moved(move: Move, stored: Row | None) -> Moved | Refused:
    """Return the row after a move, or the refusal if the move's guards do not hold.

    Args:
        stored: the stored row with the move's id; None if no row has the id.
    """
    if stored is None or TYPE_OF[type(stored)] != move.type:
        return Refused("missing", stored)
    refused: Refused | None = None
    if move.leaves and getattr(stored, "status", None) not in move.leaves:
        refused = Refused("status", stored)
    elif any(getattr(stored, column) != value for column, value in move.unchanged.items()):
        refused = Refused("changed", stored)
    over = None if refused is None else over_of(move, stored)
    if refused is not None and over is None:
        return refused
    values: Mapping[str, Any] = move.set if over is None else over.set
    return Moved(cast(Any, stored)._replace(**values), over is not None)


def violations_after(move: Move, before: Iterable[Violation]) -> tuple[Violation, ...]:
    """Return the violations of a span after a move. A new payload drops the violations of the old payload."""
    kept = (violation for violation in before if "payload" not in move.set or violation.side != "payload")
    return (*kept, *move.violations)


def terminated(run: Row | None) -> str | None:
    """Return the reason of an instance's termination; None if it was not terminated, or the row is no instance."""
    is_terminated = isinstance(run, AgentInstanceRow) and run.status == "terminated"
    return cast(AgentInstanceRow, run).termination_reason or "" if is_terminated else None


def page_of(rows: Iterable[Row], query: Query) -> Rows:
    """Select and sort the rows of a query, and return its page. The rows may have any types and any order."""
    found = [row for row in rows if TYPE_OF[type(row)] == query.type and _matches(row, query)]

    def position(row: Row) -> tuple[bool, Any, str]:
        value = getattr(row, query.order)
        return value is not None, value, row.id  # None comes first, as in SQLite

    found.sort(key=position, reverse=query.descending)
    total = len(found) if query.with_total else None
    if query.after:
        found = [row for row in found if (row.id < query.after if query.descending else row.id > query.after)]
    end = None if query.limit is None else query.offset + query.limit
    return Rows(found[query.offset : end], total)


def _matches(row: Row, query: Query) -> bool:
    if not row.id.startswith(query.prefix):
        return False
    if any(getattr(row, column) != value for column, value in query.where.items()):
        return False
    if isinstance(row, AgentSpanRow):
        at = row.started_at or row.inserted_at
        return (query.start_time is None or at >= query.start_time) and (query.end_time is None or at < query.end_time)
    return True
