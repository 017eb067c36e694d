"""What the model asks of a storage, and what the storage answers: guarded changes, and outcomes as values.

An operation becomes one Unit of changes, all of it or none of it. A change carries its guard, so an optimistic
read followed by a guarded write is exact, also between processes. Named tuples: a recorder makes three a span.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from agentspan.model.rows import AgentSpanRow, ResourceType, Row, Value

Side = Literal["payload", "result_payload"]


class Violation(NamedTuple):
    """One place where a payload does not match its schema; never a value of it."""

    side: Side
    path: str
    keyword: str
    message: str


class Ref(NamedTuple):
    """A row that must exist for a change to hold."""

    type: ResourceType
    id: str


class Put(NamedTuple):
    """Insert a row.

    Guards: the id is unused by any type of row (not looked up when `minted`: the id was made here, from 79 random
    bits), its UNIQUE columns clash with no other row, its REFERENCES exist, and so do `refs`.
    """

    row: Row
    refs: tuple[Ref, ...] = ()
    violations: tuple[Violation, ...] = ()
    minted: bool = False


class PutSpans(NamedTuple):
    """Insert new spans, all of them or none.

    Guards: those of a minted Put, for each. A refusal does not say for which one it did not hold: see `one_by_one`.

    Attributes:
        violations: each with the id of the span that it is of.
    """

    rows: Sequence[AgentSpanRow]
    violations: Sequence[tuple[str, Violation]] = ()


class Move(NamedTuple):
    """Set columns of a row to absolute values.

    Guard: the row exists, its status is one of `leaves` (empty for rows that have none), and the columns in `unchanged`
    still have these values.
    `violations` are added; those of the payload replace the older ones when `set` has a payload.
    """

    type: ResourceType
    id: str
    leaves: frozenset[str]
    set: Mapping[str, Value]
    violations: tuple[Violation, ...] = ()
    unchanged: Mapping[str, Value] = {}


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
    """One operation: its changes in order, and the id whose row the caller wants back (None: it holds it already)."""

    changes: tuple[Change, ...]
    subject: str | None = None
    key: Key | None = None


def unit_of(change: Put | PutSpans | Move) -> Unit:
    """Return the unit of one change whose row nobody wants back."""
    # No Remove: only operations by id delete.
    return tuple.__new__(Unit, ((change,), None, None))  # see model.spans


def one_by_one(units: Iterable[Unit]) -> list[Unit]:
    """Return units that do the same, but put each span by itself."""
    return [each for unit in units for each in _one_by_one(unit)]


def _one_by_one(unit: Unit) -> Iterable[Unit]:
    change = unit.changes[0] if unit.changes else None
    if not isinstance(change, PutSpans):
        return (unit,)
    violations: dict[str, list[Violation]] = {}
    for id, violation in change.violations:
        violations.setdefault(id, []).append(violation)
    return [unit_of(Put(row, (), tuple(violations.get(row.id, ())), minted=True)) for row in change.rows]


class Applied(NamedTuple):
    """The unit is committed. With a subject: its row.

    `terminated` is why the instance of a span that was put, or of the subject, was terminated; None where it was not.
    Where several spans were put, it may be that of any of them.
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
