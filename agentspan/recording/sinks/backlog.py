"""Units that wait in memory, because the storage could not take them: bounded, in order, written first.

A thread writes them, so that no call that records does. It starts with the first unit, and ends when none waits.
"""

import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from itertools import islice

from agentspan import clock, forks
from agentspan.errors import NOT_NOW
from agentspan.forks import Hold
from agentspan.interrupts import Thread, let_through, start
from agentspan.locks import Bell, Occupied, within
from agentspan.model.changes import Move, Put, Unit
from agentspan.model.rows import WriterRow
from agentspan.recording.sinks.progress import Progress
from agentspan.recovery.committer import Committer, Tally
from agentspan.storage.patience import answers_within, left_s
from agentspan.tuning import STANDARD, Tuning

BATCH = 500
"""Waiting units that are written in one transaction."""
PAUSE_S, MAX_PAUSE_S = 0.05, 1.0
"""Seconds until the thread tries again, at first and at most."""
LOOK_S = 0.001
"""Seconds between two looks whether the thread has written a unit."""
STOP_S = 0.25
"""Seconds that a fork waits for the thread. It may be waiting for a server."""


def _nothing() -> None:
    pass


class Backlog:
    """Units that wait for the storage.

    Args:
        committer: writes them.
        progress: the counts of the sink.
        before_keep: called before a unit is kept.
        has_thread: whether a thread of this backlog writes them; else others call `flush`.
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
        has_thread: bool = False,
        tuning: Tuning = STANDARD,
    ) -> None:
        self.units: deque[Unit] = deque()
        self._has_thread = has_thread
        self._thread: threading.Thread | None = None
        self._bell = Bell()
        self._kept = self._written = 0
        self._is_slow = self._is_unreported = False
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

    def put(self, unit: Unit, wait_s: float) -> None:
        """Keep a unit behind those that wait, and let the thread write it.

        Args:
            wait_s: how long to wait until it is written, unless the storage took nothing at the last attempt.
        """
        self.keep(unit)
        if self._has_thread and not self._is_started():
            if self._progress.may_try():  # no thread can be started now
                self.flush(0.0)
            return
        number, until_ns = self._kept, time.monotonic_ns() + int(min(wait_s, left_s()) * 1e9)
        while self._written < number and not self._is_slow and self._progress.last_error is None and self._thread:
            if time.monotonic_ns() > until_ns:
                self._is_slow = True  # until nothing waits: the next calls do not wait as well
                return
            time.sleep(LOOK_S)

    def put_unreported(self, unit: Unit, wait_s: float) -> None:
        """Do the same with a unit that the storage was not even asked to take: the thread reports the fault."""
        self._is_unreported = True
        self.put(unit, wait_s)

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
            self._kept += 1
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

    def _flush(self, wait_s: float, deadline_ns: int | None) -> bool:
        while self.units:
            if deadline_ns is not None and clock.monotonic_ns() > deadline_ns:
                return False
            with self._progress.lock:
                units = tuple(islice(self.units, BATCH))
            try:
                tally = self._committer.apply(units, wait_s)
            except NOT_NOW as error:
                let_through(error)
                self._progress.try_later()
                self._progress.storage_failed(error)
                if self._is_unreported:
                    self._is_unreported = False
                    self._progress.deferred.fault(error)
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
            self._written += len(units)
            self._characters -= size
            progress.recorded += tally.recorded - writers
            progress.refused += tally.refused
            progress.failed += tally.failed
        if not rest:
            self._is_slow = self._is_unreported = False
        progress.deferred.raise_kept()

    def stop(self, wait_s: float) -> None:
        """End the thread, and wait for that; the next unit that waits starts another one."""
        with self._progress.lock:
            thread, self._thread = self._thread, None
            bell, self._bell = self._bell, Bell()
        bell.is_last = True
        bell.ring()
        if thread is not None and thread is not threading.current_thread():
            thread.join(wait_s)

    def go_on(self) -> None:
        """Start the thread again, if units wait."""
        if self.units and self._has_thread:
            self._is_started()

    def _is_started(self) -> bool:
        """Start the thread, unless it runs; return whether it does."""
        if self._thread is not None and self._thread.is_alive():
            return True
        if sys.is_finalizing():
            return False
        with self._progress.lock:
            if self._thread is not None and self._thread.is_alive():
                return True
            self._bell = bell = Bell()
            self._thread = thread = Thread(target=_run, args=(self, bell), name="agentspan-backlog", daemon=True)
            _running.add(self)
            try:
                start(thread)
            except BaseException as error:  # also from a signal handler, at any point
                bell.is_last = True
                self._thread = None
                if not isinstance(error, RuntimeError):
                    raise
                return False
        return True

    def tick(self, bell: Bell) -> bool:
        """Write what waits, in the thread; return whether it ends."""
        try:
            with within(self._flushing, self._tuning.recording_wait_s), answers_within(self._tuning.server_answer_s):
                self._flush(self._tuning.recording_wait_s, None)
        except Occupied:
            pass
        except Exception as error:  # of a listener that raises faults: the next flush raises it
            self._progress.deferred.raised = error
        with self._progress.lock:
            if self.units and not bell.is_last:
                return False
            if self._bell is bell:
                self._thread = None
            return True


def _run(backlog: Backlog, bell: Bell) -> None:
    """Write what waits until nothing does. Like the thread of a journal, it keeps a tracer alive that was dropped."""
    pause_s = PAUSE_S
    while not bell.is_last and not backlog.tick(bell):
        bell.wait(pause_s)
        pause_s = min(2 * pause_s, MAX_PAUSE_S)


_running: weakref.WeakSet[Backlog] = weakref.WeakSet()


def _stop_all() -> None:
    """End the threads before a fork: Python 3.12 warns of one."""
    for backlog in forks.members(_running):
        backlog.stop(STOP_S)


def _go_on_all() -> None:
    for backlog in forks.members(_running):
        backlog.go_on()


forks.hold(Hold.THREADS, _stop_all, _go_on_all)
forks.forget(_running.clear)


def _is_writer(unit: Unit) -> bool:
    change = unit.changes[0]
    return isinstance(change, Put) and isinstance(change.row, WriterRow)


def _characters(unit: Unit) -> int:
    size = 0
    for change in unit.changes:
        values = change.row if isinstance(change, Put) else change.set.values() if isinstance(change, Move) else ()
        size += sum(len(value) for value in values if isinstance(value, str))
    return size
