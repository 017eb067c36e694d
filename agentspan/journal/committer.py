"""Commits journal records: all in one commit, else in parts, else one by one, so that a bad record loses only itself.

Used for draining the own journal and for adopting the journal of a dead program. Idempotent: records that are committed
twice are stored once.

A record may be read again after it was committed; the storage then refuses its unit. So a refused unit is compared with
the stored row. Of an open span, the later of the two states counts.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, cast

from agentspan import clock, jsontext
from agentspan.errors import NOT_NOW, DatabaseBusy, NotStorable
from agentspan.host import guard
from agentspan.ids import IdSource
from agentspan.journal.deriving import Batch, BatchInSteps, Resolve, Unreadable, outdated
from agentspan.journal.names import (
    Closer,
    Names,
    StoredSpanTypes,
    instance_in,
    names_rows,
    run_of,
    spans_of,
    with_agents,
    without_name,
)
from agentspan.journal.records import Elements
from agentspan.model import spans
from agentspan.model.changes import (
    LEAVES,
    OPEN,
    REPLACED,
    Applied,
    Move,
    Outcome,
    Over,
    Put,
    PutSpans,
    Refused,
    Unit,
    overs,
    parted,
    refused_change,
    unit_of,
)
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow, OtelTraceRow, RefusedChangeRow, Row, Value
from agentspan.model.spans import is_guess
from agentspan.storage.access import Identities, Identity, identity_of
from agentspan.storage.patience import Patience, sharing, waiting
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find, Query
from agentspan.tuning import STANDARD, Tuning

MAX_RUNS = 1000
"""The number of runs that are remembered. If the file is replaced, an older run is registered again only while the
program still holds it."""


_Runs = dict[str, tuple[Identity | None, list[Unit]]]
"""By the id of a run: the storage that has the run, and the units that register and rename it."""


class OpenRuns:
    """Remembers the units that register and rename runs, for open runs and for runs that ended recently.

    If the file is replaced while a run records, these units register the run again in the new file.
    """

    def __init__(self) -> None:
        self._identities = Identities()
        self._place: Identity | None = None
        self._units: _Runs = {}
        self._ended: _Runs = {}
        self._newest: Sequence[Unit] = ()

    def begin(self, storage: Storage, registrations: Sequence[Unit]) -> None:
        """Note the units that register the new runs of a batch. Such a unit has the id of its run as subject.

        Called before the units are committed: if the file is replaced during the commit, they count as units of the old
        file, and are looked up in the new one.

        Raises:
            StorageError: the storage cannot be read.
        """
        self._newest = registrations
        if self._units or self._ended or registrations:
            place = self._identities.known(storage)
            if place != self._place:
                self._look_for_them(storage, place)
            self._place = place

    def _look_for_them(self, storage: Storage, place: Identity) -> None:
        """Note which of the remembered runs the new file has. Such a run, if missing later, was removed by somebody."""
        ids = {*self._units, *self._ended}
        for id in storage.ask(Find(*ids)).rows if ids else ():
            for runs in (self._units, self._ended):
                if id in runs:
                    runs[id] = place, runs[id][1]

    def end(self, units: Sequence[Unit]) -> None:
        """Note the units of a committed batch that rename and end runs."""
        # Most runs begin and end in one batch. Such a run is never added to `_units`.
        moves: list[tuple[Move, Unit]] = []
        for unit in units:
            change = unit.changes[-1]
            if type(change) is Move and change.type == "agent_instance":
                moves.append((change, unit))
        ended = {move.id for move, _ in moves if move.set.get("status", "active") not in OPEN}
        for unit in self._newest:
            if unit.subject is not None and unit.subject not in ended:
                self.keep([unit])
        self._newest = ()
        for move, unit in moves:
            if move.id in ended:
                kept = self._units.pop(move.id, None)
                if kept is not None:  # the later records of the run may be committed again without its registration
                    _add(self._ended, move.id, kept)
            elif move.id in self._units:
                self._units[move.id][1].append(unit)

    def take(self, storage: Storage, unit: Unit) -> list[Unit] | None:
        """Return and forget the units that register the run of a unit, to apply them to the file that replaced another.

        None if the run is not remembered. An empty list if the current file had the run: somebody removed it.

        Raises:
            StorageError: the storage cannot be read.
        """
        id = run_of(unit) or ""
        kept = self._units.pop(id, None) or self._ended.pop(id, None)
        return kept and ([] if kept[0] == identity_of(storage) else kept[1])

    def keep(self, units: list[Unit]) -> None:
        """Remember the units that register and rename one run. They were committed after the latest `begin`."""
        _add(self._units, units[0].subject or "", (self._place, units))


def _add(runs: _Runs, id: str, kept: tuple[Identity | None, list[Unit]]) -> None:
    if len(runs) >= MAX_RUNS:
        del runs[next(iter(runs))]
    runs[id] = kept


def is_stored(unit: Unit, refused: Refused) -> bool:
    """Return whether the changes of a refused unit are stored already."""
    change, stored = unit.changes[-1], refused.stored
    if stored is None:
        return False
    if refused.why in ("id_used", "not_unique") and len(unit.changes) > 1:  # a unit is stored whole or not at all
        return stored.id == unit.subject  # the run, because another unit may have put the agent
    if isinstance(change, Put):
        return refused.why == "id_used" and _has(stored, change.row)
    if not isinstance(change, Move):
        return False
    # Not `any` with a generator: a generator that is closed early drops an exception raised by a signal handler.
    shown = [_shows(stored, values) for values in (change.set, *[over.set for over in overs(change)])]
    return True in shown


def _shows(stored: Row, values: Mapping[str, Value]) -> bool:
    names = _telling(values) if isinstance(stored, AgentSpanRow) else tuple(values)
    return [getattr(stored, name) for name in names] == [values[name] for name in names]


def _telling(values: Mapping[str, Value]) -> tuple[str, ...]:
    """Return the columns that show whether a span was moved. No later change touches them."""
    if "finished_at" in values:
        return ("status", "finished_at")
    return ("started_at",) if "started_at" in values else ("payload",)


def _has(stored: Row, wanted: Row) -> bool:
    """Return whether a stored row has the wanted values, or a later state of the same span."""
    if type(stored) is not type(wanted) or stored.id != wanted.id:
        return False
    if isinstance(stored, OtelTraceRow):  # the run of a trace never changes once it is stored
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
        started_at = row.started_at  # the start came after the close, so the time of the close cannot be the end
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
    """Return the columns to set so that a stored open span gets the wanted state; {} if it has that, or a later one."""
    if wanted.updated_at < stored.updated_at:
        return {}
    starts = (stored.status, wanted.status) == ("pending", "active")
    if not starts and (stored.payload, stored.updated_at) == (wanted.payload, wanted.updated_at):
        return {}
    values: dict[str, Value] = {name: getattr(wanted, name) for name in spans.UPDATED}
    return {**values, "status": "active", "started_at": wanted.started_at} if starts else values


MAX_KEPT = 10_000
"""The number of refused changes that are remembered. If its record is read again, such a change is not stored twice."""
MAX_AGENTS = 10_000
"""The number of runs whose agent is remembered."""
ATTEMPTS = 20
"""The number of attempts to register a run while other programs register the same agent or version."""
TAKEN = Applied()
"""The outcome of a unit that was applied without a change."""


class Tally(NamedTuple):
    """The outcome of records: `recorded` are in the storage, `refused` in refused_changes, `failed` are lost."""

    recorded: int = 0
    refused: int = 0
    failed: int = 0


class Listener:
    """Receives the outcomes that a recorder needs. This class ignores them.

    Each method that may ask the storage receives it, with the patience of whoever commits.
    """

    def fault(self, error: Exception) -> None:
        """Receive a fault of agentspan or of the storage."""

    def recovered(self) -> None:
        """Called when the storage accepts changes again after a fault (a busy storage is none)."""

    def refused(self, storage: Storage, unit: Unit, refused: Refused) -> None:
        """Receive a change that an earlier change made impossible. It is stored in refused_changes."""

    def missing(self, storage: Storage, unit: Unit) -> Unit | None:
        """Receive a unit that cannot be applied because its run is not stored.

        Return the unit to apply in its place, after registering the run if that is possible; None to give the unit up.
        """
        return None

    def registered(self, storage: Storage, instance: AgentInstanceRow) -> None:
        """Receive a run whose delayed registration is stored now, perhaps with another agent than expected."""

    def terminated(self, storage: Storage, unit: Unit, reason: str) -> None:
        """Receive a unit that was applied in a terminated run, and the reason of the termination."""


class Committer:
    """Commits the records of one writer to the storage.

    Args:
        writer_id: returns the writer's id.
        ids: mints the ids of rows of refused_changes.
        resolve: finds span types.
        stored_span_types: finds the span types of stored runs.
        listener: receives the outcomes.
        wait_s: how many seconds a commit may wait for other writers.
        knows_types: whether `resolve` needs no storage.
        tuning: sizes of batches and caches.

    Attributes:
        newest: a tuple with the id of the span or run that was written last; empty before the first one.
    """

    __slots__ = ("__dict__", "_storage")

    def __init__(
        self,
        storage: Storage,
        writer_id: Callable[[], str],
        ids: IdSource,
        *,
        resolve: Resolve,
        stored_span_types: StoredSpanTypes,
        listener: Listener,
        wait_s: float = 5.0,
        knows_types: bool = False,
        tuning: Tuning = STANDARD,
    ) -> None:
        self._storage = storage
        self._tuning = tuning
        self._writer_id = writer_id
        self._ids = ids
        self._resolve = resolve
        self._stored_span_types = stored_span_types
        self._listener = listener
        self._wait_s = wait_s
        self._knows_types = knows_types
        self._names = Names(ids.new)
        self._open_runs = OpenRuns()
        self._agents: dict[str, str] = {}
        self._moved: set[str] = set()  # runs whose agent changed: spans in journals may still have the old agent
        self._kept: set[tuple[str, str]] | None = None
        self.newest: Sequence[str] = ()

    def waiting(self, patience: Patience) -> "Committer":
        """Return the same committer for a caller with this patience."""
        return sharing(self, _storage=waiting(self._storage, patience))

    def new_elements(self) -> Elements:
        """Return an empty collection for the list elements in the records of one segment, for `begin`."""
        return Elements(in_parts=self._storage.capabilities().keeps_contents)

    def begin(self, bodies: Sequence[bytes], elements: Elements) -> BatchInSteps:
        """Begin a batch of the bodies of records, for `commit`.

        Args:
            elements: the list elements in the earlier records of the same segment.
        """

        def new_batch() -> Batch:
            finding = self._writer_id(), self._resolve, elements
            return Batch(*finding, agents=self._agents, knows_types=self._knows_types, tuning=self._tuning)

        return BatchInSteps(bodies, new_batch, self._tuning.derived_ahead_records)

    def commit(
        self,
        begun: BatchInSteps,
        wait_s: float | None = None,
        *,
        are_repeated: bool = False,
        following: BatchInSteps | None = None,
    ) -> Tally:
        """Commit the bodies of records, in order.

        Args:
            are_repeated: whether some of the records may be committed already.
            following: the next records of the journal. Their batch is derived while the storage commits this one.

        Raises:
            StorageError: the storage cannot commit now. Some records may be stored; commit the same records again.
            MemoryError, OSError: there is no memory or file descriptor now; commit the same records again.
        """
        wait_s = self._wait_s if wait_s is None else wait_s
        count = len(begun.bodies)
        passed_over = outdated(begun.bodies) if are_repeated else ()
        if passed_over:
            begun = begun.without(passed_over)
        refused = failed = 0
        while begun.bodies:
            begun.finish()
            batch, begun = begun.batch, begun.rest()
            # List elements must be noted in the order of records, so `following` waits for the last batch of `begun`.
            ahead = None if following is None or begun.bodies else following.step
            committer = self if ahead is None else self.waiting(Patience(meanwhile=ahead))
            self._open_runs.begin(committer._storage, batch.first)
            first, units = committer.apply(batch.first, wait_s), batch.units(committer._find)
            rest = committer.apply(units, wait_s)
            self._open_runs.end(units)
            for unreadable in batch.unreadable:
                self._unreadable(unreadable)
            refused += first.refused + rest.refused
            failed += first.failed + rest.failed + len(batch.unreadable)
        return Tally(count - refused - failed, refused, failed)

    def apply(self, units: Sequence[Unit], wait_s: float) -> Tally:
        """Apply units in one commit, then settle each unit that was refused or failed. The tally counts units.

        Raises:
            StorageError: the storage cannot commit now. Some units may be stored; apply the same units again.
        """
        if not units:
            return Tally()
        asked, units = units, self._fitted(units)
        named = {id(fitted): unit for fitted, unit in zip(units, asked, strict=True) if names_rows(unit)}
        try:
            outcomes = outcomes_of(self._storage, units, wait_s)
        except NOT_NOW:
            self._names.forget()
            raise
        if len(outcomes) < len(units):
            raise DatabaseBusy("the storage took a part of a batch only; it is tried again")
        self._forget_agents_of_renamed(named.values())
        if outcomes[-1] == TAKEN:
            self.newest = _written(units[-1]) or self.newest
        again, settled = parted(units, outcomes)
        recorded, refused, failed = self.apply(again, wait_s)
        for unit, outcome in settled:
            if outcome == TAKEN:
                recorded += 1
                continue
            one = self.settle(named.get(id(unit), unit), outcome)
            recorded, refused, failed = recorded + one.recorded, refused + one.refused, failed + one.failed
        self._forget_agents_of_renamed(named.values())  # settling may have noted the old agent of a run again
        return Tally(recorded, refused, failed)

    def settle(self, unit: Unit, outcome: Outcome | Exception) -> Tally:
        """Act on the outcome of one unit: retry it in another form, store it in refused_changes, or report its fault.

        Raises:
            StorageError: the storage cannot commit a change for it now; settle the unit again.
        """
        if isinstance(outcome, Exception):
            self._unreadable(Unreadable(_wanted(unit), outcome))
            return Tally(failed=1)
        if isinstance(outcome, Refused):
            # A unit that renames a run counts only if another program has put the agent, not if the run is missing.
            is_named_anew = names_rows(unit) and (instance_in(unit) is not None or outcome.why == "not_unique")
            return (self._settle_registration if is_named_anew else self._settle_refused)(unit, outcome)
        reason = outcome.terminated  # type: ignore[union-attr]  # without a key, it is Applied
        if reason is not None:
            self._close_ended(unit, reason)
            self._listener.terminated(self._storage, unit, reason)
        if isinstance(outcome, Applied) and isinstance(outcome.row, AgentInstanceRow):
            self._registered(outcome.row)
        return Tally(recorded=1)

    def note(self, subject: str, why: str, wanted: Mapping[str, str]) -> None:
        """Store one row of refused_changes for records that could not be read.

        Raises:
            StorageError: the storage cannot commit it now.
        """
        text = jsontext.encode(wanted)[0]
        row = RefusedChangeRow(self._ids.new(), subject, None, why, None, text, self._writer_id(), clock.now())
        self._keep(Put(row, minted=True))

    def _settle_refused(self, unit: Unit, refused: Refused) -> Tally:
        for fit in (remainder, self._missing):
            if is_stored(unit, refused):
                return self._settle_repeated(unit, refused)
            fitting = fit(unit, refused)
            if fitting is not None:
                outcome = self._storage.apply((fitting,), wait_s=self._wait_s)[0]
                if not isinstance(outcome, Refused):
                    return self.settle(fitting, outcome)
                unit, refused = fitting, outcome
        if is_stored(unit, refused):
            return self._settle_repeated(unit, refused)
        return self._refuse(unit, refused)

    def _refuse(self, unit: Unit, refused: Refused) -> Tally:
        self._keep(refused_change(self._ids.new(), unit, refused, self._writer_id(), clock.now()))
        self._listener.refused(self._storage, unit, refused)
        return Tally(refused=1)

    def _settle_repeated(self, unit: Unit, refused: Refused) -> Tally:
        """Count a unit that is stored already as recorded. Repeat its follow-up changes, which may be missing."""
        stored = refused.stored
        if (
            isinstance(stored, AgentInstanceRow)
            and stored.status == "terminated"
            and isinstance(unit.changes[-1], Move)
        ):
            return self.settle(unit, Applied(terminated=stored.termination_reason or ""))
        if isinstance(stored, AgentInstanceRow):
            self._registered(stored)
        return Tally(recorded=1)

    def _settle_registration(self, unit: Unit, refused: Refused) -> Tally:
        """Register or rename a run again: another program put the same agent or version at the same time."""
        for _ in range(ATTEMPTS):
            if is_stored(unit, refused):
                return self._settle_repeated(unit, refused)
            if refused.why == "not_unique" and isinstance(refused.stored, AgentInstanceRow):
                unit = without_name(unit)
            self._names.forget()
            (fitting,) = self._fitted((unit,))
            outcome = self._storage.apply((fitting,), wait_s=self._wait_s)[0]
            if not isinstance(outcome, Refused):
                return self.settle(fitting, outcome)
            refused = outcome
        return self._refuse(unit, refused)

    def _registered(self, instance: AgentInstanceRow) -> None:
        if len(self._agents) >= MAX_AGENTS:
            self._agents.clear()
        self._agents[instance.id] = instance.agent_id
        self._listener.registered(self._storage, instance)

    def _forget_agents_of_renamed(self, units: Iterable[Unit]) -> None:
        """Forget the agents of renamed runs, so that the spans put from now on get the new agent of their run."""
        for unit in units:
            if isinstance(unit.changes[-1], Move):
                if len(self._moved) >= MAX_AGENTS:
                    self._moved.clear()
                self._moved.add(unit.changes[-1].id)
                self._agents.pop(unit.changes[-1].id, None)

    def _fitted(self, units: Sequence[Unit]) -> Sequence[Unit]:
        """Return the units with the ids of stored agents and versions, and with the agent of its run in each span."""
        if True in [len(unit.changes) > 1 for unit in units]:
            units = [self._resolved(unit) if names_rows(unit) else unit for unit in units]
        runs = {row.agent_instance_id for unit in units for row in spans_of(unit) if not row.agent_id}
        if self._moved:
            runs |= self._moved.intersection(row.agent_instance_id for unit in units for row in spans_of(unit))
        if not runs:
            return units
        unknown = runs - self._agents.keys()
        for id, (_, row) in (self._storage.ask(Find(*unknown)).rows if unknown else {}).items():
            if isinstance(row, AgentInstanceRow):
                self._agents[id] = row.agent_id
        return [with_agents(unit, self._agents) for unit in units]

    def _resolved(self, unit: Unit) -> Unit:
        resolved, wanted = self._names.resolved(self._storage, unit), instance_in(unit)
        instance = instance_in(resolved)
        if wanted is not None and instance is not None:
            self._agents[instance.id] = instance.agent_id  # spans of the run may be in the same commit
            if wanted.agent_id not in ("", instance.agent_id):
                self._moved.add(instance.id)
        return resolved

    def _missing(self, unit: Unit, refused: Refused) -> Unit | None:
        if refused.why != "missing":
            return None
        self._names.forget()
        for span in spans_of(unit):
            self._agents.pop(span.agent_instance_id, None)  # the new file may have the agent under another id
        if isinstance(unit.changes[-1], Move):
            self._agents.pop(unit.changes[-1].id, None)
        registrations = self._open_runs.take(self._storage, unit)
        if registrations is None:
            fitting = self._listener.missing(self._storage, unit)
            return None if fitting is None else self._fitted((fitting,))[0]
        if not registrations:  # perhaps the run was registered again for another unit of the same commit
            id = run_of(unit) or ""
            return self._fitted((unit,))[0] if id in self._storage.ask(Find(id, instance_id=id)).rows else None
        try:
            self.apply(registrations, self._wait_s)
        finally:
            self._open_runs.keep(registrations)
        return self._fitted((unit,))[0]

    def _close_ended(self, unit: Unit, reason: str) -> None:
        """Close the open spans of a terminated run that has ended."""
        for change in unit.changes:
            if isinstance(change, Move) and change.type == "agent_instance":
                moves = Closer(self._storage, self._stored_span_types).close_terminated(change.id, reason, clock.now())
                self._storage.apply([unit_of(move) for move in moves], wait_s=self._wait_s)

    def _unreadable(self, unreadable: Unreadable) -> None:
        sentence = f"a record cannot be understood ({type(unreadable.error).__name__})"
        record = unreadable.body.decode(errors="replace")
        self.note(self._writer_id(), "unreadable", {"said": sentence, "record": record})
        self._listener.fault(unreadable.error)

    def _keep(self, put: Put) -> None:
        row = cast(RefusedChangeRow, put.row)
        if self._kept is None or len(self._kept) > MAX_KEPT:
            found = self._storage.ask(Query("refused_change", {"writer_id": self._writer_id()})).rows
            self._kept = {(each.subject, each.wanted) for each in cast(list[RefusedChangeRow], found)[-MAX_KEPT // 2 :]}
        if (row.subject, row.wanted) not in self._kept:
            self._storage.apply((unit_of(put),), wait_s=self._wait_s)
            self._kept.add((row.subject, row.wanted))

    def _find(self, ids: Iterable[str]) -> Mapping[str, AgentSpanRow]:
        rows = self._storage.ask(Find(*ids)).rows
        return {id: row for id, (_, row) in rows.items() if isinstance(row, AgentSpanRow)}


def _written(unit: Unit) -> tuple[str, ...]:
    """Return the id of the span or the run that the last change of a unit writes; empty if it writes another row."""
    change = unit.changes[-1]
    if isinstance(change, PutSpans):
        return (change.rows[-1].id,)
    if isinstance(change, Put):
        return (change.row.id,) if isinstance(change.row, (AgentSpanRow, AgentInstanceRow)) else ()
    return (change.id,) if isinstance(change, Move) and change.type in ("agent_span", "agent_instance") else ()


@guard(otherwise=b"")
def _wanted(unit: Unit) -> bytes:
    """Return the values that a unit would have written, as JSON; empty if they cannot be encoded."""
    row = cast(RefusedChangeRow, refused_change("", unit, Refused("missing"), None, "").row)
    return row.wanted.encode(errors="replace")


def outcomes_of(storage: Storage, units: Sequence[Unit], wait_s: float) -> list[Outcome | Exception]:
    """Apply units in one commit, or one by one if a unit is faulty. Return fewer outcomes if the storage fails."""
    outcomes: list[Outcome | Exception] = []
    with guard(report=outcomes.append):
        return [*storage.apply(units, wait_s=wait_s)]
    (error,) = outcomes
    if isinstance(error, NOT_NOW) and not isinstance(error, NotStorable):
        raise error
    if len(units) == 1:
        return outcomes
    outcomes = []
    with guard(*NOT_NOW):
        for unit in units:
            outcomes += outcomes_of(storage, (unit,), wait_s)
    return outcomes
