"""Sends rows to the target of a copy: those that it lacks, and what differs in those that it has.

The target may have made the same agent, version or schema version under another id. Then rows that are sent refer to
that one.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, cast

from agentspan.errors import NotStorable
from agentspan.model.changes import Applied, Move, Outcome, Put, PutSpans, Refused, Unit, Violation, parted
from agentspan.model.rows import (
    REFERENCES,
    TYPE_OF,
    AgentInstanceRow,
    AgentRow,
    AgentSchemaVersionRow,
    AgentSpanRow,
    AgentVersionRow,
    ResourceType,
    Row,
    instance_of,
)
from agentspan.model.status import OPEN
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find

_SHARED: tuple[ResourceType, ...] = ("agent", "agent_version", "agent_schema_version")
"""Types that storages make by name, each under an id of its own, in the order in which they refer to each other."""
_RUN_REFERENCES = tuple(REFERENCES["agent_instance"])
Violations = Sequence[Violation]


class Sender:
    """Applies rows of a source to a target.

    Args:
        wait_s: how long a commit may wait for other writers of the target.

    Attributes:
        new: how many rows the target lacked, by type.
        changed: how many rows were different there.
        left_out: the ids of rows that could not be copied, and the reasons.
    """

    def __init__(self, source: Storage, target: Storage, wait_s: float) -> None:
        self.source, self.target = source, target
        self.new: Counter[ResourceType] = Counter()
        self.changed = 0
        self.left_out: dict[str, str] = {}
        self._wait_s = wait_s
        self._ids: dict[str, str] = {}
        self._sent: set[str] = set()

    def renamed(self, row: Row) -> Row:
        """Return a row whose references are those of the target."""
        if not self._ids:
            return row
        columns = (*_RUN_REFERENCES, "agent_instance_id")
        changed = {name: self._ids[getattr(row, name)] for name in columns if getattr(row, name, None) in self._ids}
        renamed: Row = cast(Any, row)._replace(**changed) if changed else row
        return renamed

    def target_id(self, id: str) -> str:
        """Return the id that a row of the source has in the target."""
        return self._ids.get(id, id)

    def send(self, rows: Sequence[Row]) -> None:
        """Send rows of any type but spans: those that the target lacks, and what is newer in those that it has."""
        units: list[Unit] = []
        stored = self.target.ask(Find(*(row.id for row in rows))).rows
        for row in map(self.renamed, rows):
            there = stored.get(row.id)
            if there is None:
                units.append(_put(row))
            elif type(there[1]) is not type(row):
                self.leave_out(row.id, "its id is used by another resource there")
            elif (move := moved_to(there[1], row)) is not None:
                units.append(Unit((move,)))
        self.apply(units)

    def send_shared(self, runs: Iterable[AgentInstanceRow]) -> None:
        """Send the agents, versions and schema versions of runs that were not sent before."""
        wanted = {id for run in runs for name in _RUN_REFERENCES if (id := getattr(run, name)) not in self._sent}
        if wanted:
            rows = [row for _, row in self.source.ask(Find(*wanted)).rows.values()]
            for type_ in _SHARED:
                self.send([row for row in rows if TYPE_OF[type(row)] == type_])
            self._sent |= wanted

    def apply(self, units: list[Unit]) -> None:
        """Apply units, and count what became of them. A faulty row is the only one that is left out."""
        while units:
            try:
                outcomes: Sequence[Outcome | Exception] = self.target.apply(units, wait_s=self._wait_s)
            except NotStorable as error:
                if len(units) > 1:
                    for half in (units[: len(units) // 2], units[len(units) // 2 :]):
                        self.apply(half)
                    return
                outcomes = [error]
            units, settled = parted(units, outcomes)
            for unit, outcome in settled:
                self._count(unit, outcome)

    def leave_out(self, id: str, why: str) -> None:
        """Note a row that cannot be copied."""
        self.left_out[id] = why

    def _count(self, unit: Unit, outcome: Outcome | Exception) -> None:
        change = unit.changes[0]
        if isinstance(change, PutSpans):
            assert isinstance(outcome, Applied)  # else it is parted
            self.new["agent_span"] += len(change.rows)
        elif isinstance(change, Put):
            if isinstance(outcome, Applied):
                self.new[TYPE_OF[type(change.row)]] += 1
            else:
                self._refused(change.row, outcome)
        elif isinstance(outcome, Applied):
            self.changed += 1
        elif isinstance(outcome, Exception):
            self.leave_out(cast(Move, change).id, str(outcome))
        # Else the target's row has changed meanwhile: another program writes there, and its row is the later one.

    def _refused(self, row: Row, outcome: Outcome | Exception) -> None:
        stored = outcome.stored if isinstance(outcome, Refused) else None
        if isinstance(outcome, Refused) and outcome.why == "not_unique" and stored is not None:
            if isinstance(row, AgentRow | AgentVersionRow | AgentSchemaVersionRow):
                self._ids[row.id] = stored.id
                return
            if not isinstance(row, AgentInstanceRow):  # the tag, which the run has already
                return
            self.leave_out(row.id, "another run of its agent has its external_identifier there")
        elif isinstance(outcome, Refused) and outcome.why == "id_used":
            if type(stored) is not type(row) or (stored is not None and instance_of(stored) != instance_of(row)):
                self.leave_out(row.id, "its id is used by another resource there")
        elif isinstance(outcome, Refused):
            self.leave_out(row.id, "what it belongs to is not there")
        else:
            self.leave_out(row.id, str(outcome))


def _put(row: Row) -> Unit:
    # Minted: `send` has looked for its id among all types.
    return Unit((Put(row, minted=True),))


def moved_to(stored: Row, row: Row, before: Violations | None = None, after: Violations | None = None) -> Move | None:
    """Return the move that makes a stored row as a row of the source; None if it is, or is the later one of the two.

    Args:
        before, after: the violations of a span, stored and in the source.
    """
    is_span = isinstance(row, AgentSpanRow)
    values = {name: value for name, value in row._asdict().items() if value != getattr(stored, name)}
    more = () if before is None or after is None else _beyond(after, before)
    if (not values and not more) or _is_later(stored, row):
        return None
    if is_span and any(violation.side == "payload" for violation in (*more, *_beyond(before or (), after or ()))):
        values["payload"] = cast(AgentSpanRow, row).payload  # replaces the violations of the payload
    if is_span and "payload" in values:
        more = (*(v for v in after or () if v.side == "payload"), *(v for v in more if v.side != "payload"))
    if not values:
        values["updated_at"] = cast(Any, row).updated_at
    status = getattr(stored, "status", None)
    leaves = frozenset() if status is None else frozenset({status})
    unchanged = {"updated_at": cast(Any, stored).updated_at} if hasattr(stored, "updated_at") else {}
    run = row.agent_instance_id if isinstance(row, AgentSpanRow) else None
    return Move(TYPE_OF[type(row)], row.id, leaves, values, more, unchanged, instance_id=run)


def _beyond(some: Violations, others: Violations) -> tuple[Violation, ...]:
    """Return what is in one list of violations more often than in another."""
    return tuple((Counter(some) - Counter(others)).elements())


def _is_later(stored: Row, row: Row) -> bool:
    """Return whether a stored row is later than a row of the source: a status only moves forward, then times count."""
    has_ended, has_ended_too = (getattr(each, "status", None) not in OPEN for each in (stored, row))
    if has_ended != has_ended_too:
        return has_ended
    late, late_too = (bool(getattr(each, "ended_late", None)) for each in (stored, row))
    if late != late_too:  # a row's own end has replaced a guess, and keeps its old time
        return late
    return getattr(stored, "updated_at", "") > getattr(row, "updated_at", "")
