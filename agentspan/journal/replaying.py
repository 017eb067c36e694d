"""What to make of a refused unit that came out of a journal: it may be there already, from before it was trimmed."""

from agentspan.model.changes import Move, Put, Refused, Unit, unit_of
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow, Row
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


def is_there(unit: Unit, refused: Refused) -> bool:
    """Tell whether what a refused unit wants is in the storage already."""
    change, stored = unit.changes[-1], refused.stored
    if stored is None:
        return False
    if isinstance(change, Put):
        return refused.why == "id_used" and _has(stored, change.row)
    return isinstance(change, Move) and all(getattr(stored, name) == value for name, value in change.set.items())


def _has(stored: Row, wanted: Row) -> bool:
    """Tell whether a row is stored as it is wanted, or went on from there."""
    if type(stored) is not type(wanted) or stored.id != wanted.id:
        return False
    if isinstance(stored, AgentSpanRow) and isinstance(wanted, AgentSpanRow):
        return wanted.status in OPEN or (stored.status, stored.updated_at) == (wanted.status, wanted.updated_at)
    return isinstance(stored, AgentInstanceRow) or stored == wanted


def the_rest(unit: Unit, refused: Refused) -> Unit | None:
    """Return what a unit has on top of what is stored: a finished span whose start is there; else None."""
    change, stored = unit.changes[-1], refused.stored
    if not isinstance(change, Put) or not isinstance(change.row, AgentSpanRow) or not isinstance(stored, AgentSpanRow):
        return None
    row = change.row
    if refused.why != "id_used" or stored.id != row.id or stored.status not in OPEN or row.status in OPEN:
        return None
    values = {name: getattr(row, name) for name in (*_FINISHED, "started_at", "payload", "label")}
    leaves = LEAVES[row.status] | OPEN
    return unit_of(Move("agent_span", row.id, leaves, values, change.violations))
