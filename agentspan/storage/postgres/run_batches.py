"""Applies units that follow each other and register runs, or change runs in the same way: all by one statement.

A drain has hundreds of both, and a round trip for each took more time than their spans. What a batch cannot apply is
left to `writes`, which finds the reason.
"""

from collections.abc import Hashable, Sequence
from typing import cast

from agentspan.model.changes import Applied, Move, Outcome, Put, Refused, Unit
from agentspan.model.rows import AgentInstanceRow
from agentspan.storage.postgres import statements
from agentspan.storage.postgres.connection import Connection
from agentspan.storage.postgres.lending import rows_of, storable
from agentspan.storage.postgres.reads import terminated_of
from agentspan.storage.postgres.references import missing
from agentspan.storage.postgres.single_statements import APPLIED, as_texts
from agentspan.storage.rules import references_of, unique_of

_PUT = "put"
_APART = frozenset({"agent_id", "external_identifier"})
"""Columns of a run that other tables have too: such a move is more than one statement."""


def batch_at(units: Sequence[Unit], place: int) -> Sequence[Unit]:
    """Return the units from a place on that are applied by one statement; none where that would be one unit."""
    kind = _kind(units[place])
    if kind is None:
        return ()
    end, ids = place, set[str]()
    while end < len(units) and _kind(units[end]) == kind and (id := _id(units[end])) not in ids:
        ids.add(id)
        end += 1
    return units[place:end] if end - place > 1 else ()


def apply_batch(connection: Connection, units: Sequence[Unit]) -> list[Outcome | None]:
    """Apply units of one batch, within the transaction that is under way.

    Returns:
        the outcome of each; None for a change that its guard stopped, which has changed nothing.
    """
    return _put(connection, units) if isinstance(units[0].changes[0], Put) else _move(connection, units)


def _kind(unit: Unit) -> Hashable:
    """Return what units of one batch have in common; None for a unit that is applied alone."""
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


def _put(connection: Connection, units: Sequence[Unit]) -> list[Outcome | None]:
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


def _move(connection: Connection, units: Sequence[Unit]) -> list[Outcome | None]:
    moves = [cast(Move, unit.changes[0]) for unit in units]
    columns = tuple(moves[0].set)
    sql = statements.update_runs(columns, moves[0].leaves)
    values = zip(*(as_texts((move.id, *move.set.values())) for move in moves), strict=True)
    done = {id for (id,) in rows_of(connection, sql, [*map(list, values)])}
    return [APPLIED if move.id in done else None for move in moves]
