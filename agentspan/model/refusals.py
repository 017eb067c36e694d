"""Refusals: the row that keeps a refused change of a recorder, and the error for violations of a schema."""

from collections.abc import Sequence

from agentspan import jsontext
from agentspan.errors import ValidationErrors
from agentspan.model.changes import Move, Put, PutSpans, Refused, Remove, Unit
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow, RefusedChangeRow, Row, Violation


def refused_change(id: str, unit: Unit, refused: Refused, writer_id: str | None, now: str) -> Put:
    """Return the Put of a row in the table refused_changes, which keeps the change of a refused unit."""
    change = unit.changes[-1]
    assert not isinstance(change, PutSpans)  # its spans were retried one by one
    if isinstance(change, Put):
        wanted = {name: value for name, value in change.row._asdict().items() if value is not None}
        subject = change.row.id
    else:
        subject, wanted = change.id, dict(change.set) if isinstance(change, Move) else {}
    row = RefusedChangeRow(
        id=id,
        subject=subject,
        agent_instance_id=_run_of(change, refused.stored),
        why=refused.why,
        stored_status=getattr(refused.stored, "status", None),
        wanted=jsontext.encode(wanted)[0],
        writer_id=writer_id,
        inserted_at=now,
    )
    return Put(row, minted=True)


def _run_of(change: Put | Move | Remove, stored: Row | None) -> str | None:
    """Return the id of the run of a change: from the change if it names the run, else from the stored row."""
    if isinstance(change, Move) and change.type == "agent_instance":
        return change.id
    if isinstance(change, Move) and change.instance_id is not None:
        return change.instance_id
    row = change.row if isinstance(change, Put) else stored
    return row.id if isinstance(row, AgentInstanceRow) else getattr(row, "agent_instance_id", None)


def refuse_violations(violations: Sequence[Violation], schema_name: str) -> None:
    """Raise an error for payloads that do not match their schema. Called with `strict_schemas=True` only.

    Raises:
        ValidationErrors: there are violations.
    """
    if violations:
        problems = [f"{violation.path}: {violation.message}" for violation in violations]
        listed = "; ".join(problems)[:500]
        fields = [violation.side + violation.path.removeprefix("$") for violation in violations]
        message = f"{violations[0].side} does not match the schema of {schema_name!r}: {listed}"
        raise ValidationErrors(message, problems, fields)


def termination_behind(refused: Refused) -> str | None:
    """Return the id of the instance whose termination caused a refusal; None if the refusal has another cause."""
    stored = refused.stored
    if isinstance(stored, AgentSpanRow) and stored.closed_by == "terminated":
        return stored.agent_instance_id
    if isinstance(stored, AgentInstanceRow) and stored.status == "terminated":
        return stored.id
    return None
