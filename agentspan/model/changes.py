"""Guarded changes, which the model gives to a storage, and outcomes, which the storage returns as values.

An operation becomes one Unit of changes, all of it or none of it. A change carries its guard, so an optimistic
read followed by a guarded write is exact, also between processes. Named tuples: a recorder makes three a span.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from agentspan.model.rows import TYPE_OF, AgentInstanceRow, AgentSpanRow, ResourceType, Row, Value, Violation
from agentspan.model.status import CLOSERS


class Ref(NamedTuple):
    """A row that must exist for a change to hold.

    Attributes:
        instance_id: of a span, the run that it belongs to (see Move).
    """

    type: ResourceType
    id: str
    instance_id: str | None = None


class Put(NamedTuple):
    """Insert a row.

    Guards: the id is unused, the UNIQUE columns clash with no other row, the REFERENCES exist, and so do `refs`.
    If the id and UNIQUE columns both clash, the refusal names the id.

    Attributes:
        minted: whether the recording process made the id, from 79 random bits. It is then refused as used only where a
            row of the same type has it, as when a record is read again; a storage need not look at other types, and
            for a span not at other runs.
    """

    row: Row
    refs: tuple[Ref, ...] = ()
    violations: tuple[Violation, ...] = ()
    minted: bool = False


class PutSpans(NamedTuple):
    """Insert new spans: all of them or none.

    Guards: those of a minted Put, for each row. A refusal has the reason of one guard that failed, not its row (see
    `parted`).

    Attributes:
        violations: of these rows, each with its id.
    """

    rows: Sequence[AgentSpanRow]
    violations: Sequence[tuple[str, Violation]] = ()


class Over(NamedTuple):
    """The values that a Move sets on a row that was closed: the span's own end is a fact, the close was a guess.

    Guard: `closed_by` is `terminated` or `abandoned`, the row's own end has not come since (`ended_late` is null), and
    its status is one of `leaves`.

    Attributes:
        adds: whether `set` comes on top of the move's own values (a dict less for each end that is no late one), or
            takes their place.
    """

    leaves: frozenset[str]
    set: Mapping[str, Value]
    adds: bool = False


class Move(NamedTuple):
    """Set columns of a row to absolute values.

    Guard: the row exists, its status is one of `leaves` (empty for rows that have none), and the columns in `unchanged`
    still have these values. Where that does not hold, the first of `over` whose guard holds is set instead.
    `violations` are added; those of the payload replace the older ones when `set` has a payload. A run whose `agent_id`
    is set takes its spans with it: it is set in all of them.

    Attributes:
        instance_id: of a span, the run that it belongs to; None where the caller does not know it, as over HTTP. It is
            no guard: a backend that is partitioned by run goes to one partition with it, others ignore it. (A row to
            put names its run itself, and the id of a run is its own.)
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
    """Return all values that a move sets on a stored row that was closed; None if no guard holds."""
    if not isinstance(stored, AgentSpanRow | AgentInstanceRow) or TYPE_OF[type(stored)] != move.type:
        return None
    if stored.closed_by not in CLOSERS or stored.ended_late:
        return None
    return next((over for over in overs(move) if stored.status in over.leaves), None)


def overs(move: Move) -> Iterator[Over]:
    """Yield all values that a move sets on closed rows, one mapping for each of `over`."""
    for over in move.over:
        yield Over(over.leaves, {**move.set, **over.set}) if over.adds else over


class Remove(NamedTuple):
    """Delete a row. Guard: it exists, and no other row refers to it."""

    type: ResourceType
    id: str


Change = Put | PutSpans | Move | Remove


class Key(NamedTuple):
    """An idempotency key: its scope is (operation, key), `request_hash` tells whether the request is the same."""

    operation: str
    key: str
    request_hash: str
    inserted_at: str


class Unit(NamedTuple):
    """One operation: its changes in order, and its subject: the id whose row the caller needs, or None."""

    changes: tuple[Change, ...]
    subject: str | None = None
    key: Key | None = None


def unit_of(change: Put | PutSpans | Move) -> Unit:
    """Return the unit of one change, without a subject."""
    # No Remove: only operations by id delete.
    return tuple.__new__(Unit, ((change,), None, None))  # see model.spans


class Applied(NamedTuple):
    """The unit is committed. With a subject: its row.

    `terminated` is why the instance of the subject, of a span that was put, or of a row whose close was replaced (see
    Over) was terminated; None where it was not. Where several spans were put, it may be that of any of them.
    """

    row: Row | None = None
    terminated: str | None = None


class Replayed(NamedTuple):
    """The same request was committed before under this key; nothing changed. The resource as it is now."""

    row: Row
    terminated: str | None = None


class KeyTaken(NamedTuple):
    """Another request was committed under this key; nothing changed."""


class Refused(NamedTuple):
    """A guard did not hold; nothing of the unit is stored.

    `stored` is the row in the way: the one with that id or those unique values, the one whose status forbids, that was
    changed meanwhile, or that others refer to.
    """

    why: Literal["id_used", "not_unique", "missing", "status", "changed", "referenced"]
    stored: Row | None = None


Outcome = Applied | Replayed | KeyTaken | Refused

FEWER = 50
"""The number of spans in one PutSpans after a larger one was refused."""


def parted(
    units: Sequence[Unit], outcomes: Sequence[Outcome | Exception]
) -> tuple[list[Unit], list[tuple[Unit, Outcome | Exception]]]:
    """Divide units that were applied in one call into those to apply again and those that have their outcome.

    A refused PutSpans is tried again with fewer spans, at last with one each. Units after it that refer to its spans
    are applied again too. So a faulty span causes the loss of no other.
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
