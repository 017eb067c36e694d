"""What to make of a refused unit that came out of a journal: it may be there already, from before it was trimmed.

What is read again is what the storage has, and what followed in the journal, never less; so of a span that is still
open, the later state counts.
"""

from agentspan.model.changes import Move, Put, Refused, Unit, unit_of
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow, Row, Value
from agentspan.model.status import LEAVES, OPEN

_FINISHED = (
    "status",
    "result_payload",
    "summary",
    "finished_at",
    "duration_ms",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "updated_at",
)
_UPDATED = ("payload", "summary", "label", "input_tokens", "output_tokens", "cost_usd", "updated_at")


def is_there(unit: Unit, refused: Refused) -> bool:
    """Tell whether what a refused unit wants is in the storage already."""
    change, stored = unit.changes[-1], refused.stored
    if stored is None:
        return False
    if refused.why == "id_used" and len(unit.changes) > 1:  # a unit is whole or not at all
        return any(isinstance(each, Put) and each.row.id == stored.id for each in unit.changes)
    if isinstance(change, Put):
        return refused.why == "id_used" and _has(stored, change.row)
    if not isinstance(change, Move):
        return False
    names = _telling(change) if isinstance(stored, AgentSpanRow) else tuple(change.set)
    return all(getattr(stored, name) == change.set[name] for name in names)


def _telling(move: Move) -> tuple[str, ...]:
    """Return the columns of a span that tell whether it was moved: those that nothing changes afterwards."""
    if move.set.get("status") == "active":
        return ("started_at",)
    return ("status", "finished_at") if "status" in move.set else ("payload",)


def _has(stored: Row, wanted: Row) -> bool:
    """Tell whether a row is stored as it is wanted, or went on from there."""
    if type(stored) is not type(wanted) or stored.id != wanted.id:
        return False
    if not isinstance(stored, AgentSpanRow) or not isinstance(wanted, AgentSpanRow):
        return isinstance(stored, AgentInstanceRow) or stored == wanted
    if stored.status in OPEN:
        return wanted.status in OPEN and not _later(stored, wanted)
    return wanted.status in OPEN or (stored.status, stored.finished_at) == (wanted.status, wanted.finished_at)


def the_rest(unit: Unit, refused: Refused) -> Unit | None:
    """Return what a unit has on top of what is stored: of an open span how it went on; else None."""
    change, stored = unit.changes[-1], refused.stored
    if not isinstance(change, Put) or not isinstance(change.row, AgentSpanRow) or not isinstance(stored, AgentSpanRow):
        return None
    row = change.row
    if refused.why != "id_used" or stored.id != row.id or stored.status not in OPEN:
        return None
    if row.status in OPEN:
        return unit_of(Move("agent_span", row.id, frozenset({stored.status}), _later(stored, row), change.violations))
    values = {name: getattr(row, name) for name in (*_FINISHED, "started_at", "payload", "label")}
    return unit_of(Move("agent_span", row.id, LEAVES[row.status] | OPEN, values, change.violations))


def _later(stored: AgentSpanRow, wanted: AgentSpanRow) -> dict[str, Value]:
    """Return what an open span is to have, but has not yet; empty if that is nothing."""
    if wanted.updated_at < stored.updated_at:
        return {}
    starts = (stored.status, wanted.status) == ("pending", "active")
    if not starts and (stored.payload, stored.updated_at) == (wanted.payload, wanted.updated_at):
        return {}
    values: dict[str, Value] = {name: getattr(wanted, name) for name in _UPDATED}
    return {**values, "status": "active", "started_at": wanted.started_at} if starts else values
