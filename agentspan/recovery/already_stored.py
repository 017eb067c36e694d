"""Compares a refused unit with the stored row: a record may be read again after it was committed.

The stored row is never older than a record that is read again, so of an open span the later state counts.
"""

from collections.abc import Mapping

from agentspan.model import spans
from agentspan.model.changes import Move, Over, Put, Refused, Unit, overs, unit_of
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow, OtelTraceRow, Row, Value
from agentspan.model.spans import is_guess
from agentspan.model.status import LEAVES, OPEN, REPLACED


def is_stored(unit: Unit, refused: Refused) -> bool:
    """Return whether the changes of a refused unit are stored already."""
    change, stored = unit.changes[-1], refused.stored
    if stored is None:
        return False
    if refused.why in ("id_used", "not_unique") and len(unit.changes) > 1:  # a unit is whole or not at all
        return stored.id == unit.subject  # not its agent, which another unit may have put
    if isinstance(change, Put):
        return refused.why == "id_used" and _has(stored, change.row)
    if not isinstance(change, Move):
        return False
    # No `any` of a generator: one that is left before its end drops the exception of a signal handler.
    shown = [_shows(stored, values) for values in (change.set, *[over.set for over in overs(change)])]
    return True in shown


def _shows(stored: Row, values: Mapping[str, Value]) -> bool:
    names = _telling(values) if isinstance(stored, AgentSpanRow) else tuple(values)
    return [getattr(stored, name) for name in names] == [values[name] for name in names]


def _telling(values: Mapping[str, Value]) -> tuple[str, ...]:
    """Return the columns that show whether a span was moved: those that nothing changes afterwards."""
    if "finished_at" in values:
        return ("status", "finished_at")
    return ("started_at",) if "started_at" in values else ("payload",)


def _has(stored: Row, wanted: Row) -> bool:
    """Return whether a row has the wanted values, or a later state."""
    if type(stored) is not type(wanted) or stored.id != wanted.id:
        return False
    if isinstance(stored, OtelTraceRow):  # the run of a trace is decided once
        return True
    if not isinstance(stored, AgentSpanRow) or not isinstance(wanted, AgentSpanRow):
        return isinstance(stored, AgentInstanceRow) or stored == wanted
    if stored.status in OPEN:
        return wanted.status in OPEN and not _later(stored, wanted)
    if wanted.status in OPEN:
        return not (wanted.status == "active" and stored.status == "cancelled" and is_guess(stored))
    return (stored.status, stored.finished_at) == (wanted.status, wanted.finished_at)


def remainder(unit: Unit, refused: Refused) -> Unit | None:
    """Return the unit that takes the stored span to the later state of a refused Put; None if there is none."""
    change, stored = unit.changes[-1], refused.stored
    if not isinstance(change, Put) or not isinstance(change.row, AgentSpanRow) or not isinstance(stored, AgentSpanRow):
        return None
    row, run_id = change.row, change.row.agent_instance_id
    if refused.why != "id_used" or stored.id != row.id or not (stored.status in OPEN or is_guess(stored)):
        return None
    if row.status in OPEN and stored.status in OPEN:
        leaves, later = frozenset({stored.status}), _later(stored, row)
        return unit_of(Move("agent_span", row.id, leaves, later, change.violations, instance_id=run_id))
    if row.status in OPEN:
        started_at = row.started_at  # after the close, so that is no end that it can have had
        values: dict[str, Value] = {"status": "failed", "started_at": started_at, "finished_at": started_at}
        values["updated_at"] = row.updated_at
        over = Over(frozenset({"cancelled"}), values)
        active: dict[str, Value] = {"status": "active"}
        return unit_of(Move("agent_span", row.id, LEAVES["active"], active, over=(over,), instance_id=run_id))
    values = {name: getattr(row, name) for name in (*spans.FINISHED_AS, "started_at")}
    over = Over(REPLACED[row.status], {**values, "ended_late": 1})
    leaves = LEAVES[row.status] | OPEN
    return unit_of(Move("agent_span", row.id, leaves, values, change.violations, over=(over,), instance_id=run_id))


def _later(stored: AgentSpanRow, wanted: AgentSpanRow) -> dict[str, Value]:
    """Return the values that an open span does not have yet; empty if it has all."""
    if wanted.updated_at < stored.updated_at:
        return {}
    starts = (stored.status, wanted.status) == ("pending", "active")
    if not starts and (stored.payload, stored.updated_at) == (wanted.payload, wanted.updated_at):
        return {}
    values: dict[str, Value] = {name: getattr(wanted, name) for name in spans.UPDATED}
    return {**values, "status": "active", "started_at": wanted.started_at} if starts else values
