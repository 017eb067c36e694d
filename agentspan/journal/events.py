"""The body of a record: one transition of a span, as the recorder received it, or a unit about something else.

A body is a letter and fields, separated by a character that neither JSON nor a printable name may hold. Nothing in it
is derived: summaries, labels and violations are worked out when it is drained.
"""

from typing import Any

from agentspan import jsontext
from agentspan.model.changes import Change, Move, Over, Put, Unit, overs
from agentspan.model.rows import ROWS, TYPE_OF, AgentSchemaVersionRow, AgentSpanRow, Violation
from agentspan.schemas.aggregates import stored_aggregate

SEPARATOR = "\x1f"
CREATED, HISTORY, STARTED, UPDATED, FINISHED, UNIT = "C", "H", "S", "U", "F", "X"
"""C id instance_id agent_id parent_span_id schema_name status at_ns payload; H the same with a payload in parts (see
parts); S id at_ns; U id at_ns payload; F id status at_ns elapsed_ns result_payload; X and a unit as JSON."""
FINISHED_AS, RAW_BEGIN, RAW_END = "T", "N", "W"
"""T id status at_ns elapsed_ns result_payload schema_name payload: an end that tells the type and the payload, too.
N id instance_id agent_id parent_span_id at_ns reader text, and W id at_ns elapsed_ns reader text: a begin and an end
that are read when they are drained (see raw_records). `agent_id` is empty where the storage has not said yet which
agent the run has."""
REGISTRATION = "R"
"""R and a unit as JSON, which registers or renames a run. It puts the agent, the version and the schema version that it
names, which may be stored already, under other ids. The content of the schema version is empty if an earlier record of
the segment has it."""


def encode_unit(unit: Unit) -> str:
    """Encode a unit as the body of a record. Recorders make units without a key.

    Raises:
        ValueError: a change is neither a Put nor a Move without `unchanged`.
    """
    return UNIT + SEPARATOR + _encoded(unit)


def encode_registration(unit: Unit, *, with_content: bool) -> str:
    """Encode a unit that registers or renames a run.

    Args:
        with_content: write the content of the schema version (8 kB, of which most is the built-in types).
    """
    if not with_content:
        changes = [
            change._replace(row=change.row._replace(span_type_schemas="", quality_schemas=None))
            if isinstance(change, Put) and isinstance(change.row, AgentSchemaVersionRow)
            else change
            for change in unit.changes
        ]
        unit = unit._replace(changes=tuple(changes))
    return REGISTRATION + SEPARATOR + _encoded(unit)


def _encoded(unit: Unit) -> str:
    changes: list[Any] = []
    for change in unit.changes:
        if isinstance(change, Put):
            changes.append(["put", TYPE_OF[type(change.row)], change.row, change.violations, change.minted])
        elif isinstance(change, Move) and not change.unchanged:
            over = [[sorted(each.leaves), dict(each.set)] for each in overs(change)]
            changes.append(["move", change.type, change.id, sorted(change.leaves), dict(change.set), over])
        else:
            raise ValueError("only rows to put and to move go through a journal")
    return jsontext.encode([unit.subject, changes])[0]


def decode_unit(text: str) -> Unit:
    """Decode a unit."""
    subject, changes = jsontext.decode(text)
    return Unit(tuple(_change(*change) for change in changes), subject)


def _change(kind: str, type_: Any, *fields: Any) -> Change:
    if kind == "put":
        values, violations, minted = fields
        # Not _make: an older version's row ends before the columns that were added since, which have defaults.
        row = ROWS[type_](*values)
        if isinstance(row, AgentSpanRow):
            row = row._replace(is_aggregate=stored_aggregate(row.schema_name, row.payload))
        return Put(row, (), tuple(Violation(*each) for each in violations), minted)
    id, leaves, values, over = fields
    return Move(type_, id, frozenset(leaves), values, over=tuple(Over(frozenset(of), to) for of, to in over))
