"""Sends rows, and runs with their spans, to the target of a copy: missing rows, and changes of rows that it has.

The target may have the same agent, version or schema version under another id. Then the rows that are sent refer to the
target's id.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from agentspan.errors import NotStorable
from agentspan.model.changes import OPEN, Applied, Move, Outcome, Put, PutSpans, Refused, Unit, parted
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
    Violation,
    instance_of,
)
from agentspan.storage.access import whole_spans_of
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find, SpanMarks, Violations
from agentspan.tuning import STANDARD

_SHARED: tuple[ResourceType, ...] = ("agent", "agent_version", "agent_schema_version")
"""Types that are identified by name, under another id in each storage. In the order of their references."""
_RUN_REFERENCES = tuple(REFERENCES["agent_instance"])
Found = Sequence[Violation]


class Sender:
    """Applies rows of a source to a target.

    Args:
        wait_s: how long a commit may wait for other writers of the target.

    Attributes:
        new: how many rows the target lacked, by type.
        changed: how many rows of the target were changed.
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
        """Return a row of the source with the target's ids in its references."""
        return renamed(row, self._ids)

    def target_id(self, id: str) -> str:
        """Return the id that a row of the source has in the target."""
        return self._ids.get(id, id)

    def send(self, rows: Sequence[Row]) -> None:
        """Send rows of any type but spans: missing rows, and newer values of rows that the target has."""
        units: list[Unit] = []
        stored = self.target.ask(Find(*(row.id for row in rows))).rows
        for row in map(self.renamed, rows):
            there = stored.get(row.id)
            if there is None:
                units.append(Unit((Put(row, minted=True),)))  # `Find` has looked for the id among all types
            elif type(there[1]) is not type(row):
                self.leave_out(row.id, "its id is used by another resource there")
            elif (move := moved_to(there[1], row)) is not None:
                units.append(Unit((move,)))
        self.apply(units)

    def send_shared(self, runs: Iterable[AgentInstanceRow]) -> None:
        """Send the agents, versions and schema versions of runs, unless this sender has sent them before."""
        wanted = {id for run in runs for name in _RUN_REFERENCES if (id := getattr(run, name)) not in self._sent}
        if wanted:
            rows = [row for _, row in self.source.ask(Find(*wanted)).rows.values()]
            for type_ in _SHARED:
                self.send([row for row in rows if TYPE_OF[type(row)] == type_])
            self._sent |= wanted

    def apply(self, units: list[Unit]) -> None:
        """Apply units to the target, and count their outcomes. A faulty row is left out; all other rows are stored."""
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
            assert isinstance(outcome, Applied)  # `parted` retries a refused one
            self.new["agent_span"] += len(change.rows)
            self._stored(*(row.id for row in change.rows))
        elif isinstance(change, Put):
            if isinstance(outcome, Applied):
                self.new[TYPE_OF[type(change.row)]] += 1
                self._stored(change.row.id)
            else:
                self._refused(change.row, outcome)
        elif isinstance(outcome, Applied):
            self.changed += 1
        elif isinstance(outcome, Exception):
            self.leave_out(cast(Move, change).id, str(outcome))
        # Else a Move was refused, because another program has changed the target's row meanwhile: its row is later.

    def _stored(self, *ids: str) -> None:
        for id in ids if self.left_out else ():
            self.left_out.pop(id, None)

    def _refused(self, row: Row, outcome: Outcome | Exception) -> None:
        stored = outcome.stored if isinstance(outcome, Refused) else None
        if isinstance(outcome, Refused) and outcome.why == "not_unique" and stored is not None:
            if isinstance(row, AgentRow | AgentVersionRow | AgentSchemaVersionRow):
                self._ids[row.id] = stored.id
                return
            if not isinstance(row, AgentInstanceRow):  # a tag that the run has already
                return
            self.leave_out(row.id, "another run of its agent has its external_identifier there")
        elif isinstance(outcome, Refused) and outcome.why == "id_used":
            if type(stored) is not type(row) or (stored is not None and instance_of(stored) != instance_of(row)):
                self.leave_out(row.id, "its id is used by another resource there")
        elif isinstance(outcome, Refused):
            self.leave_out(row.id, "what it belongs to is not there")
            if isinstance(row, AgentInstanceRow):  # the target was emptied or replaced: its agents are sent again
                self._sent.clear()
                self._ids.clear()
        else:
            self.leave_out(row.id, str(outcome))


def renamed(row: Row, ids: Mapping[str, str]) -> Row:
    """Return a row whose references are to the ids that `ids` has for them."""
    columns = (*_RUN_REFERENCES, "agent_instance_id")
    changed = {name: ids[getattr(row, name)] for name in columns if getattr(row, name, None) in ids} if ids else {}
    result: Row = cast(Any, row)._replace(**changed) if changed else row
    return result


def moved_to(stored: Row, row: Row, before: Found | None = None, after: Found | None = None) -> Move | None:
    """Return the move that makes a stored row equal to the source's row; None if it is equal already, or later.

    Args:
        before, after: the violations of a span: stored in the target, and in the source.
    """
    is_span = isinstance(row, AgentSpanRow)
    values = {name: value for name, value in row._asdict().items() if value != getattr(stored, name)}
    more = () if before is None or after is None else _beyond(after, before)
    if (not values and not more) or _is_later(stored, row):
        return None
    if is_span and any(violation.side == "payload" for violation in (*more, *_beyond(before or (), after or ()))):
        values["payload"] = cast(AgentSpanRow, row).payload  # a Move with a payload replaces the payload's violations
    if is_span and "payload" in values:
        more = (*(v for v in after or () if v.side == "payload"), *(v for v in more if v.side != "payload"))
    if not values:
        values["updated_at"] = cast(Any, row).updated_at
    status = getattr(stored, "status", None)
    leaves = frozenset() if status is None else frozenset({status})
    unchanged = {"updated_at": cast(Any, stored).updated_at} if hasattr(stored, "updated_at") else {}
    run = row.agent_instance_id if isinstance(row, AgentSpanRow) else None
    return Move(TYPE_OF[type(row)], row.id, leaves, values, more, unchanged, instance_id=run)


def _beyond(some: Found, others: Found) -> tuple[Violation, ...]:
    """Return the violations that one list has more often than another."""
    return tuple((Counter(some) - Counter(others)).elements())


def _is_later(stored: Row, row: Row) -> bool:
    """Return whether a stored row is later than the source's: by status, which only moves forward, then by time."""
    has_ended, has_ended_too = (getattr(each, "status", None) not in OPEN for each in (stored, row))
    if has_ended != has_ended_too:
        return has_ended
    late, late_too = (bool(getattr(each, "ended_late", None)) for each in (stored, row))
    if late != late_too:  # a row's own end has replaced a guess, and keeps its old time
        return late
    return getattr(stored, "updated_at", "") > getattr(row, "updated_at", "")


MOST_BYTES = 2 * 2**20
"""The bytes of payloads from which on a batch of spans is committed."""


class RunSender:
    """Sends runs of a source with their spans, each in its current state.

    Args:
        sender: applies rows to the target.
        most_rows: how many runs and spans are committed together.
    """

    def __init__(self, sender: Sender, most_rows: int = STANDARD.copy_commit_rows) -> None:
        self._sender = sender
        self._batch = _Batch(sender, most_rows)
        self.open: set[str] = set()
        """Runs that were open in the source, or had an open span, when they were last sent."""

    def send(self, runs: Sequence[AgentInstanceRow], *, is_thorough: bool) -> None:
        """Send runs. When this returns, they are committed.

        Args:
            is_thorough: True to compare the spans of open runs, and of runs with open spans, one by one. Payloads of
                open spans may change while the SpanMarks of the run stay equal.
        """
        sender = self._sender
        self._batch.clear()  # a commit that failed has left rows in it
        sender.send_shared(runs)
        ids = [run.id for run in runs]
        # The target is read first: a commit in the source between the two reads is sent again, never missed.
        there = sender.target.ask(Find(*ids)).rows
        known = [id for id in ids if id in there]
        target_marks = sender.target.ask(SpanMarks(known))
        marks = sender.source.ask(SpanMarks(ids))
        for run in runs:
            is_open = run.status in OPEN or any(mark.status in OPEN for mark in marks[run.id])
            (self.open.add if is_open else self.open.discard)(run.id)
            if run.id not in there:
                self._batch.add_run(run)
                for spans in whole_spans_of(sender.source, run.id):
                    self._batch.add_spans(spans)
            elif target_marks[run.id] != marks[run.id] or (is_open and is_thorough):
                self._batch.flush()
                self._send_difference(run.id)
        self._batch.flush()
        # Changes of runs go last: a reader of the target should not find a finished run whose spans are missing.
        if known:
            sender.send([run for run in runs if run.id in there])

    def _send_difference(self, run_id: str) -> None:
        sender = self._sender
        for spans in whole_spans_of(sender.source, run_id):
            stored = _stored(sender.target, spans)
            lacking = [span for span in spans if span.id not in stored]
            self._batch.add_spans(lacking)
            both = [span for span in spans if span.id in stored]
            before = sender.target.ask(Violations([span.id for span in both], instance_id=run_id))
            after = sender.source.ask(Violations([span.id for span in both], instance_id=run_id))
            moves = (moved_to(stored[span.id], sender.renamed(span), before[span.id], after[span.id]) for span in both)
            sender.apply([Unit((move,)) for move in moves if move is not None])
        self._batch.flush()


def _stored(target: Storage, spans: Sequence[AgentSpanRow]) -> dict[str, AgentSpanRow]:
    """Return the target's rows of these spans, which are of one run, by id."""
    found = target.ask(Find(*(span.id for span in spans), instance_id=spans[0].agent_instance_id)).rows
    return {id: row for id, (_, row) in found.items() if isinstance(row, AgentSpanRow)}


class _Batch:
    """Gathers new runs and their spans until they are worth a commit."""

    def __init__(self, sender: Sender, most_rows: int) -> None:
        self._sender = sender
        self._most_rows = most_rows
        self.clear()

    def clear(self) -> None:
        """Drop what was gathered."""
        self._runs: list[AgentInstanceRow] = []
        self._spans: list[AgentSpanRow] = []
        self._violations: list[tuple[str, Violation]] = []
        self._bytes = 0

    def add_run(self, run: AgentInstanceRow) -> None:
        self._runs.append(run)
        self._flush_if_full()

    def add_spans(self, spans: Sequence[AgentSpanRow]) -> None:
        """Add spans of one run, with their violations."""
        if not spans:
            return
        found = self._sender.source.ask(Violations([span.id for span in spans], instance_id=spans[0].agent_instance_id))
        self._violations += [(id, violation) for id, some in found.items() for violation in some]
        self._spans += spans
        self._bytes += sum(len(span.payload) + len(span.result_payload or "") for span in spans)
        self._flush_if_full()

    def _flush_if_full(self) -> None:
        if len(self._spans) + len(self._runs) >= self._most_rows or self._bytes >= MOST_BYTES:
            self.flush()

    def flush(self) -> None:
        """Commit the gathered runs and spans, and empty the batch."""
        units = [Unit((Put(self._sender.renamed(run), minted=True),)) for run in self._runs]
        if self._spans:
            rows = [row for span in self._spans if isinstance(row := self._sender.renamed(span), AgentSpanRow)]
            units.append(Unit((PutSpans(rows, self._violations),)))
        if units:
            self._sender.apply(units)
        self.clear()
