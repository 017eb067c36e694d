"""The other end of a journal: what was appended is derived and committed, batch by batch, oldest first.

One after the other: to derive one batch in a thread while another is committed took longer, because each statement
waits 5 ms for a thread that computes.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping

from agentspan import clock
from agentspan.errors import DatabaseBusy, StorageError
from agentspan.journal import replaying
from agentspan.journal.deriving import Batch, Resolve
from agentspan.journal.log import Log
from agentspan.journal.records import bodies
from agentspan.model.changes import Applied, Outcome, Refused, Unit, parted
from agentspan.model.rows import AgentSpanRow
from agentspan.recording.sink import RETRY_NS, WAIT_S, CommitSink, Listener
from agentspan.storage.protocol import Storage

CHUNK = 640 * 1024
"""Bytes of a journal that are committed at once."""
_TAKEN = Applied()


class Draining(CommitSink):
    """A sink with a journal in front of it, but for what goes into that.

    Args:
        log: what is to be drained.
        resolve: finds span types.
        writer_id: who wrote it.
    """

    def __init__(
        self, storage: Storage, listener: Listener, log: Log, resolve: Resolve, writer_id: Callable[[], str]
    ) -> None:
        super().__init__(storage, listener)
        self._log = log
        self._resolve = resolve
        self._by = writer_id
        self._draining = threading.Lock()
        self._drainer = 0
        self._hurried = False
        self._settled = 0
        self._raised: Exception | None = None
        self._rewrites: list[Callable[[Unit], Unit]] = []

    @property
    def journaled(self) -> int:
        """See Sink."""
        return self._log.sequence - self._settled

    def rewrite(self, change: Callable[[Unit], Unit]) -> None:
        """See Sink."""
        self._rewrites.append(change)
        super().rewrite(change)

    def drain(self, wait_s: float, *, most: int | None = None) -> bool:
        """Bring what was appended into the storage; tell whether that was all.

        Args:
            wait_s: for how long at most to wait for another thread that is about it, and for the storage.
            most: bytes after which to stop.
        """
        if self._drainer == threading.get_ident():  # a signal handler, or a read, in the middle of it
            return False
        if not self._draining.acquire(timeout=max(0.0, wait_s)):
            return False
        try:
            self._drainer = threading.get_ident()
            return self._drain(wait_s, most, time.monotonic() + max(wait_s, WAIT_S))
        except StorageError as error:
            self._retry_ns = clock.monotonic_ns() + RETRY_NS
            if not isinstance(error, DatabaseBusy):
                self._listener.fault(error)
            return False
        finally:
            self._drainer = 0
            self._draining.release()

    def _drain(self, wait_s: float, most: int | None, deadline: float) -> bool:
        while True:
            portion = self._log.take(CHUNK if most is None else most)
            if portion is None:
                return True
            read = bodies(portion.data)
            self._bring(read.bodies, wait_s)
            self._settled += len(read.bodies)
            self._log.trim(portion.segment, portion.start + read.end, read.last)
            if most is not None or self._hurried or time.monotonic() > deadline:
                return False

    def _bring(self, records: list[bytes], wait_s: float) -> None:
        batch = Batch(self._by(), self._resolve, self._find)
        batch.add(records)
        if batch.first:
            self._apply(tuple(batch.first), wait_s)
        units = batch.units()
        for change in self._rewrites:
            units = [change(unit) for unit in units]
        refused = self._apply(tuple(units), wait_s)
        self.recorded += len(records) - refused - len(batch.unreadable)
        self.failed += len(batch.unreadable)
        for unreadable in batch.unreadable:
            self._raised = unreadable.error

    def _apply(self, units: tuple[Unit, ...], wait_s: float) -> int:
        """Commit units, deal with what became of them, and return how many were not taken as they are.

        Raises:
            StorageError: the storage stopped to take any.
        """
        outcomes = self._apply_all(units, wait_s)
        if len(outcomes) < len(units):
            raise DatabaseBusy("the storage took a part of a batch only; it is tried again")
        again, settled = parted(units, outcomes)
        refused = self._apply(tuple(again), wait_s) if again else 0
        for unit, outcome in settled:
            if outcome != _TAKEN:
                try:
                    refused += self._settle_one(unit, outcome)
                except StorageError:
                    raise
                except Exception as error:  # faults are to be raised, but this must come to its end
                    self._raised = error
                    refused += 1
        return refused

    def _settle_one(self, unit: Unit, outcome: Outcome | Exception) -> bool:
        if isinstance(outcome, Refused):
            if replaying.is_there(unit, outcome):
                return False
            rest = replaying.the_rest(unit, outcome)
            if rest is not None:
                unit, outcome = rest, self._storage.apply((rest,), wait_s=WAIT_S)[0]
        self._settle((unit,), (outcome,))
        return isinstance(outcome, Refused | Exception)

    def _find(self, ids: Iterable[str]) -> Mapping[str, AgentSpanRow]:
        rows = self._storage.find(*ids).rows
        return {id: row for id, (_, row) in rows.items() if isinstance(row, AgentSpanRow)}
