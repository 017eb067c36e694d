"""Where recorded units go: `write` returns when a unit is durable, or put aside because the storage could not take it.

What could not be written (locked for long, disk full) waits in memory, bounded, and goes first at the next write.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

from agentspan.errors import InvalidAction, NotFound, StorageError
from agentspan.model.changes import Move, Outcome, Put, Refused, Unit
from agentspan.model.rows import WriterRow
from agentspan.storage.protocol import Storage

WAIT_S = 0.25
"""The longest that a recording call waits for the storage."""

MAX_WAITING = 10_000
MAX_WAITING_CHARACTERS = 64 * 2**20

OnFault = Callable[[Exception], None]


class Sink(Protocol):
    """Takes a recorder's units, in order, from any thread."""

    recorded: int
    failed: int

    def write(self, unit: Unit) -> None:
        """Make a unit durable as far as this sink promises; faults go to its `on_fault`, never to the caller."""
        ...

    def put_aside(self, unit: Unit, error: StorageError) -> None:
        """Keep a unit that the storage could not take, for later."""
        ...

    def flush(self, wait_s: float) -> bool:
        """Write what waits; tell whether nothing waits any more."""
        ...

    @property
    def waiting(self) -> int:
        """How many units are not durable yet."""
        ...


class CommitSink:
    """Commits each unit before `write` returns."""

    def __init__(self, storage: Storage, on_fault: OnFault) -> None:
        self.recorded = 0
        self.failed = 0
        self._storage = storage
        self._on_fault = on_fault
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._backlog: deque[Unit] = deque()
        self._characters = 0

    @property
    def waiting(self) -> int:
        """How many units wait for the storage to take them again."""
        return len(self._backlog)

    def put_aside(self, unit: Unit, error: StorageError) -> None:
        """Keep a unit that the storage could not take, for later."""
        with self._lock:
            self._keep(unit)
        self._on_fault(error)

    def write(self, unit: Unit) -> None:
        """See Sink."""
        if self._backlog:
            with self._lock:
                self._keep(unit)
            self.flush(0.0)  # it did not work a moment ago: try, but do not make this call wait too
            return
        try:
            outcome = self._storage.apply((unit,), wait_s=WAIT_S)[0]
        except StorageError as error:
            self.put_aside(unit, error)
            return
        except Exception as error:  # a bug of ours or of the backend's: the same unit would fail again
            self._failed(error)
            return
        if type(outcome) is Refused:
            self._refused(unit, outcome)
        else:
            self.recorded += 1  # no lock (0.2 µs): CPython switches threads at calls and jumps, and here is neither

    def flush(self, wait_s: float) -> bool:
        """See Sink. One thread at a time; the others go on, and leave it what they have."""
        if not self._flushing.acquire(blocking=False):
            return False
        try:
            while self._backlog:
                with self._lock:
                    units = tuple(self._backlog)
                try:
                    outcomes = self._apply_all(units, wait_s)
                except StorageError:
                    return False
                self._done(units, outcomes)
                if len(outcomes) < len(units):
                    return False
        finally:
            self._flushing.release()
        return True

    def _apply_all(self, units: tuple[Unit, ...], wait_s: float) -> list[Outcome | Exception]:
        """Apply the units together, or one by one where one of them is at fault, so that it costs no other."""
        try:
            return [*self._storage.apply(units, wait_s=wait_s)]
        except StorageError:
            raise
        except Exception:
            outcomes: list[Outcome | Exception] = []
            for unit in units:
                try:
                    outcomes += self._storage.apply((unit,), wait_s=wait_s)
                except StorageError:
                    break
                except Exception as error:
                    outcomes.append(error)
            return outcomes

    def _done(self, units: tuple[Unit, ...], outcomes: list[Outcome | Exception]) -> None:
        pairs = list(zip(units, outcomes, strict=False))  # fewer outcomes where the storage stopped to take any
        with self._lock:
            for unit, outcome in pairs:
                self._backlog.popleft()
                self._characters -= _characters(unit)
                self.recorded += not isinstance(outcome, Refused | Exception) and not _is_writer(unit)
        for unit, outcome in pairs:
            if isinstance(outcome, Refused):
                self._refused(unit, outcome)
            elif isinstance(outcome, Exception):
                self._failed(outcome)

    def _failed(self, error: Exception) -> None:
        with self._lock:
            self.failed += 1
        self._on_fault(error)

    def _keep(self, unit: Unit) -> None:
        size = _characters(unit)
        if len(self._backlog) >= MAX_WAITING or self._characters + size > MAX_WAITING_CHARACTERS:
            self.failed += 1
            return
        self._backlog.append(unit)
        self._characters += size

    def _refused(self, unit: Unit, outcome: Refused) -> None:
        if _is_writer(unit):
            return  # two threads made this process known at the same moment
        self._failed(_refusal(unit, outcome))


def _is_writer(unit: Unit) -> bool:
    change = unit.changes[0]
    return isinstance(change, Put) and isinstance(change.row, WriterRow)


def _characters(unit: Unit) -> int:
    rows = (change.row if isinstance(change, Put) else change.set.values() for change in unit.changes)
    return sum(len(value) for row in rows for value in row if isinstance(value, str))


def _refusal(unit: Unit, refused: Refused) -> Exception:
    change = unit.changes[-1]
    id = change.id if isinstance(change, Move) else change.row.id
    if refused.why == "status":
        status = getattr(refused.stored, "status", "finished")
        return InvalidAction(
            f"{id} was {status} already when this program wanted to change it; somebody else was first"
        )
    return NotFound(f"{id} could not be recorded: the row that it belongs to is not in the file ({refused.why})")
