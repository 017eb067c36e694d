"""Units that wait in memory, because the storage could not take them: bounded, in order, written first."""

import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import islice

from agentspan import clock
from agentspan.errors import NOT_NOW
from agentspan.interrupts import let_through
from agentspan.locks import Occupied, within
from agentspan.model.changes import Move, Put, Unit
from agentspan.model.rows import WriterRow
from agentspan.recording.sinks.progress import Progress
from agentspan.recovery.committer import Committer, Tally
from agentspan.tuning import STANDARD, Tuning

BATCH = 500
"""Waiting units that are written in one transaction. It bounds what an attempt costs the call that makes it."""


def _nothing() -> None:
    pass


class Backlog:
    """Units that wait for the storage.

    Args:
        committer: writes them.
        progress: the counts of the sink.
        before_keep: called before a unit is kept.
        tuning: sizes and times.

    Attributes:
        units: what waits, oldest first. Empty nearly always.
    """

    def __init__(
        self,
        committer: Committer,
        progress: Progress,
        before_keep: Callable[[], None] = _nothing,
        *,
        tuning: Tuning = STANDARD,
    ) -> None:
        self.units: deque[Unit] = deque()
        self._committer = committer
        self._progress = progress
        self._before_keep = before_keep
        self._tuning = tuning
        self._flushing = threading.RLock()  # held by `within`, which does not nest
        self._characters = 0
        self._waits_since_ns = 0

    @property
    def oldest_s(self) -> float:
        """Seconds since the backlog was empty; 0.0 where it is."""
        return (time.monotonic_ns() - self._waits_since_ns) / 1e9 if self.units else 0.0

    def keep(self, unit: Unit) -> None:
        """Keep a unit. One that there is no room for is counted as failed."""
        with self._progress.lock:
            self._before_keep()
            size = _characters(unit)
            tuning = self._tuning
            if len(self.units) >= tuning.backlog_units or self._characters + size > tuning.backlog_characters:
                self._progress.failed += 1
                return
            if not self.units:
                self._waits_since_ns = time.monotonic_ns()  # not by `clock`, whose readings a test may count
            self._characters += size
            self.units.append(unit)

    def flush(self, wait_s: float, within_s: float | None = None) -> bool:
        """Write what waits; return whether nothing waits any more. One thread at a time; others wait for it.

        Args:
            wait_s: how long an attempt may wait for the storage.
            within_s: seconds after which no further attempt is made, and another thread is not waited for; as long as
                a recording call may wait, when left out.
        """
        within_s = self._tuning.recording_wait_s if within_s is None else within_s
        deadline_ns = clock.monotonic_ns() + int(within_s * 1e9)
        try:
            with within(self._flushing, (deadline_ns - clock.monotonic_ns()) / 1e9):
                return self._flush(wait_s, deadline_ns)
        except Occupied:  # by another thread; or a signal handler, or a finalizer, comes in the middle of it
            return False

    def _flush(self, wait_s: float, deadline_ns: int) -> bool:
        while self.units:
            if clock.monotonic_ns() > deadline_ns:
                return False
            with self._progress.lock:
                units = tuple(islice(self.units, BATCH))
            try:
                tally = self._committer.apply(units, wait_s)
            except NOT_NOW as error:
                let_through(error)
                self._progress.try_later()
                self._progress.storage_failed(error)
                return False
            self._progress.storage_took()
            self._remove(units, tally)
        return True

    def _remove(self, units: tuple[Unit, ...], tally: Tally) -> None:
        """Remove units that were written, and count them.

        Where the exception of a signal handler comes before, they stay: they are applied again, and recognised as
        stored.
        """
        writers = sum(map(_is_writer, units))  # they are not counted as transitions
        size = sum(map(_characters, units))
        progress = self._progress
        with progress.lock:
            rest = deque(islice(self.units, len(units), None))
            self.units = rest  # from here no call: an exception comes before all of it, or after
            self._characters -= size
            progress.recorded += tally.recorded - writers
            progress.refused += tally.refused
            progress.failed += tally.failed
        progress.deferred.raise_kept()


def _is_writer(unit: Unit) -> bool:
    change = unit.changes[0]
    return isinstance(change, Put) and isinstance(change.row, WriterRow)


def _characters(unit: Unit) -> int:
    size = 0
    for change in unit.changes:
        values = change.row if isinstance(change, Put) else change.set.values() if isinstance(change, Move) else ()
        size += sum(len(value) for value in values if isinstance(value, str))
    return size
