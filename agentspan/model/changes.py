"""The statuses and which may follow which; guarded changes, which the model passes to a storage; and their outcomes.

    create ─▶ pending ──start──▶ active ──finish──▶ complete | failed
                 └──finish(cancelled)──▶ cancelled        active ──terminate──▶ terminated   (instances only)

Spans that a program left open are closed for it: `terminate` closes the open spans of a run, `doctor` those of a
dead program (active → failed, pending → cancelled, `closed_by` says which). Such a close is a guess. The span's own
first end, whenever it arrives, replaces status, result and times; `closed_by` and `closed_at` stay. A run that was
closed as abandoned follows the same rule. A terminated run stays terminated, but gets result, error and times.
Source: the page "Finish an agent span" of the Prefactor API; `terminated` from its official clients.

An operation becomes one Unit of changes; a storage applies all of them or none. A change carries its guard, so an
optimistic read followed by a guarded write is exact, also between processes. The classes are named tuples, because a
recorder makes three of them for each span. Outcomes are values, which the storage returns. A refused change of a
recorder is kept as a row.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from agentspan import jsontext
from agentspan.errors import InvalidValue, ValidationErrors
from agentspan.model.rows import (
    TYPE_OF,
    AgentInstanceRow,
    AgentSpanRow,
    RefusedChangeRow,
    ResourceType,
    Row,
    Value,
    Violation,
)

SpanStatus = Literal["pending", "active", "complete", "failed", "cancelled"]
InstanceStatus = Literal["pending", "active", "complete", "failed", "cancelled", "terminated"]
FinishStatus = Literal["complete", "failed", "cancelled"]
AgentStatus = Literal["pending", "active", "retired"]
Purpose = Literal["live", "smoke_test", "eval"]

SPAN_STATUSES: tuple[SpanStatus, ...] = ("pending", "active", "complete", "failed", "cancelled")
INSTANCE_STATUSES: tuple[InstanceStatus, ...] = (*SPAN_STATUSES, "terminated")
AGENT_STATUSES: tuple[AgentStatus, ...] = ("pending", "active", "retired")
FINISH_STATUSES: tuple[FinishStatus, ...] = ("complete", "failed", "cancelled")
PURPOSES: tuple[Purpose, ...] = ("live", "smoke_test", "eval")

LEAVES: Mapping[str, frozenset[str]] = {
    "active": frozenset({"pending"}),
    "complete": frozenset({"active"}),
    "failed": frozenset({"active"}),
    "cancelled": frozenset({"pending"}),
    "terminated": frozenset({"active"}),
}
"""The statuses from which a span or an instance may move to the key."""

OPEN: frozenset[str] = frozenset({"pending", "active"})
"""The statuses of a span or run that is not finished."""

CLOSERS: frozenset[str] = frozenset({"terminated", "abandoned"})
"""The values of `closed_by`: the reason why a span or a run was closed for its program."""

REPLACED: Mapping[str, frozenset[str]] = {
    "complete": frozenset({"failed", "cancelled", "terminated"}),
    "failed": frozenset({"failed", "cancelled", "terminated"}),
    "cancelled": frozenset({"cancelled"}),
}
"""The statuses of a close that an own end replaces, by the status of the end.

A span closed as cancelled may have started before the close, unseen, so every end replaces the close. A span closed as
failed was active, so an end as cancelled does not."""


NUL = "\x00"


def storable_text(field: str, value: Any, most: int) -> str | None:
    """Return a text of at most `most` characters if every backend can store it; None stays None.

    Raises:
        InvalidValue: the value is no text, is too long, or holds a lone surrogate or a NUL.
    """
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > most:
        raise InvalidValue(field, f"must be text of at most {most} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidValue(field, "has a lone surrogate; it is no Unicode text") from None
    return check_text(field, value)


def check_text(field: str, text: str) -> str:
    """Return a text if every backend can store it.

    Raises:
        InvalidValue: the text holds a NUL.
    """
    if NUL in text:
        raise InvalidValue(field, "has a NUL character (U+0000), which not every database can store; remove it")
    return text


def without_nul(text: str) -> str:
    """Replace each NUL of a text by U+FFFD. For recording, which refuses no text."""
    return text.replace(NUL, "\ufffd")


class Ref(NamedTuple):
    """A row that must exist for a change to hold.

    Attributes:
        type, id: the type of the row, and its id.
        instance_id: the run of a span, so that a backend that is partitioned by run looks in one partition.
    """

    type: ResourceType
    id: str
    instance_id: str | None = None


class Put(NamedTuple):
    """Insert a row.

    Guards: the id is unused, the UNIQUE columns clash with no other row, and the rows of REFERENCES and `refs` exist.
    If the id and the UNIQUE columns both clash, the refusal names the id.

    Attributes:
        row: the row.
        refs: further rows that must exist.
        violations: the violations of its payloads, if it is a span.
        minted: True if the recording process made the id, from 79 random bits. Such an id is in use only if a record
            is read again. So a storage looks for it among rows of the same type only, and for a span in its run only.
    """

    row: Row
    refs: tuple[Ref, ...] = ()
    violations: tuple[Violation, ...] = ()
    minted: bool = False


class PutSpans(NamedTuple):
    """Insert new spans: all of them or none.

    Guards: the guards of a minted Put, for each row. A refusal has the reason of one guard that failed, but not the
    row in the way, so `parted` retries with fewer spans.

    Attributes:
        rows: the rows.
        violations: the violations of all rows, each with the id of its span.
    """

    rows: Sequence[AgentSpanRow]
    violations: Sequence[tuple[str, Violation]] = ()


class Over(NamedTuple):
    """The values that a Move sets on a row closed for its program: the close was a guess, an own end is a fact.

    Guard: `closed_by` is `terminated` or `abandoned`, no own end has arrived since (`ended_late` is null), and the
    status is one of `leaves`.

    Attributes:
        adds: True to add `set` to the move's own values, False to replace them. Adding saves a dict for each end that
            is not late.
    """

    leaves: frozenset[str]
    set: Mapping[str, Value]
    adds: bool = False


class Move(NamedTuple):
    """Set columns of a row to absolute values.

    Guard: the row exists, its status is one of `leaves` (empty: any status), and the columns in `unchanged` still have
    these values. If the guard fails, the first of `over` whose guard holds is set instead. `violations` are added; if
    `set` has a payload, the payload's violations replace the stored ones. If `set` has the `agent_id` of a run, all
    spans of the run get it, too.

    Attributes:
        type, id: the type of the row, and its id.
        leaves, set, violations, unchanged, over: as above.
        instance_id: the run of a span; None if the caller does not know the run, as over HTTP. It is no guard: a
            backend that is partitioned by run uses it to find the partition, others ignore it. (A Put needs none,
            because its row names the run.)
    """

    type: ResourceType
    id: str
    leaves: frozenset[str]
    set: Mapping[str, Value]
    violations: tuple[Violation, ...] = ()
    unchanged: Mapping[str, Value] = {}
    over: tuple[Over, ...] = ()
    instance_id: str | None = None


def over_of(move: Move, stored: Row) -> Over | None:
    """Return the Over whose guard a stored row meets, with all values that the move then sets; None if none does."""
    if not isinstance(stored, AgentSpanRow | AgentInstanceRow) or TYPE_OF[type(stored)] != move.type:
        return None
    if stored.closed_by not in CLOSERS or stored.ended_late:
        return None
    return next((over for over in overs(move) if stored.status in over.leaves), None)


def overs(move: Move) -> Iterator[Over]:
    """Yield each Over of a move with all values that the move then sets on a closed row."""
    for over in move.over:
        yield Over(over.leaves, {**move.set, **over.set}) if over.adds else over


class Remove(NamedTuple):
    """Delete a row. Guard: the row exists, and no other row refers to it."""

    type: ResourceType
    id: str


Change = Put | PutSpans | Move | Remove


class Key(NamedTuple):
    """An idempotency key, which is unique for its operation. Equal requests have the same `request_hash`."""

    operation: str
    key: str
    request_hash: str
    inserted_at: str


class Unit(NamedTuple):
    """One operation: its changes in order, the id of the row that the caller needs, and its idempotency key."""

    changes: tuple[Change, ...]
    subject: str | None = None
    key: Key | None = None


def unit_of(change: Put | PutSpans | Move) -> Unit:
    """Return the unit of one change, without a subject."""
    # A Remove does not occur: only operations by id delete.
    return tuple.__new__(Unit, ((change,), None, None))  # 0.1 µs; a named tuple's own constructor takes 0.25


class Applied(NamedTuple):
    """The unit is committed. `row` is the row of its subject, if it has one.

    `terminated` is the reason for which a run was terminated: the run of the subject, of a span that was put, or of a
    row whose close was replaced (see Over). It is None if the run was not terminated. If several spans were put, it may
    be the reason of any of their runs.
    """

    row: Row | None = None
    terminated: str | None = None


class Replayed(NamedTuple):
    """The same request was committed before under this key; nothing changed. `row` is the resource as it is now."""

    row: Row
    terminated: str | None = None


class KeyTaken(NamedTuple):
    """Another request was committed under this key; nothing changed."""


class Refused(NamedTuple):
    """A guard did not hold; nothing of the unit is stored.

    `stored` is the row in the way: it has the same id or unique values, its status forbids the change, it was changed
    meanwhile, or other rows refer to it.
    """

    why: Literal["id_used", "not_unique", "missing", "status", "changed", "referenced"]
    stored: Row | None = None


Outcome = Applied | Replayed | KeyTaken | Refused

FEWER = 50
"""The number of spans in each PutSpans with which a larger refused one is retried."""


def parted(
    units: Sequence[Unit], outcomes: Sequence[Outcome | Exception]
) -> tuple[list[Unit], list[tuple[Unit, Outcome | Exception]]]:
    """Divide the units of one `apply` into units to apply again, and units with their final outcome.

    A refused PutSpans is retried with fewer spans, and in the end with single spans. Later units that refer to its
    spans are retried, too. So a faulty span causes the loss of no other span.
    """
    again: list[Unit] = []
    settled: list[tuple[Unit, Outcome | Exception]] = []
    for unit, outcome in zip(units, outcomes, strict=True):
        change = unit.changes[0] if unit.changes else None
        if isinstance(change, PutSpans) and isinstance(outcome, Refused | Exception):
            again += _with_fewer(change)
        elif again and isinstance(outcome, Refused) and outcome.why == "missing":
            again.append(unit)
        else:
            settled.append((unit, outcome))
    return again, settled


def _with_fewer(put: PutSpans) -> Iterator[Unit]:
    violations: dict[str, list[Violation]] = {}
    for id, violation in put.violations:
        violations.setdefault(id, []).append(violation)
    if len(put.rows) <= FEWER:
        for row in put.rows:
            yield unit_of(Put(row, (), tuple(violations.get(row.id, ())), minted=True))
        return
    for start in range(0, len(put.rows), FEWER):
        rows = put.rows[start : start + FEWER]
        found = [(row.id, violation) for row in rows for violation in violations.get(row.id, ())]
        yield unit_of(PutSpans(rows, found))


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
