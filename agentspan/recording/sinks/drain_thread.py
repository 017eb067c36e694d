"""The thread that drains a journal every 20 ms. It starts with the first record, and ends when there are none."""

import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Protocol

from agentspan.errors import StorageError
from agentspan.interrupts import Thread, start
from agentspan.journal.log import Log
from agentspan.locks import Bell
from agentspan.recording.sinks.progress import Progress
from agentspan.tuning import STANDARD, Tuning

QUIET_TICK_S = 0.1
"""The time from one tick to the next while nothing is recorded."""
MAX_CALLS = 2
"""How often in a row a call may replace a tick: of large records, each few begin a segment."""
RESTART_S = 0.05
MAX_RESTART_S = 5.0
"""When a thread that could not be started is tried again: later and later."""


class Ticks:
    """The state that the thread keeps from one tick to the next.

    Args:
        most_quiet: ticks without a record after which it is quiet.

    Attributes:
        seen: the number of the last record that a tick has seen.
        quiet: ticks without a record, in a row.
        burst: ticks with many records, in a row.
    """

    def __init__(self, most_quiet: int) -> None:
        self.seen = self.quiet = self.burst = 0
        self._most_quiet = most_quiet

    @property
    def is_quiet(self) -> bool:
        """True if nothing was recorded for a second."""
        return self.quiet >= self._most_quiet


class Work(Protocol):
    """The work of the thread: a sink with a journal."""

    @property
    def thread(self) -> "DrainThread":
        """The thread of this sink."""
        ...

    def tick(self, ticks: Ticks) -> bool:
        """Do what is due; return whether the thread may end."""
        ...

    def prepare(self) -> None:
        """Make the next segment: one was begun."""
        ...

    def has_records(self) -> bool:
        """Return whether records are in the journal that are not in the storage."""
        ...

    def is_needed(self) -> bool:
        """Return whether there are such records, or runs that will add some."""
        ...


class DrainThread:
    """Starts, wakes and ends the thread of one sink.

    Args:
        work: the sink. The thread keeps it alive while records wait, and else not.
        log: the sink's log. Its `alert` makes the next record call the sink, which starts the thread again.
        progress: the counts of the sink.
        name: of the journal, for messages.
        before_start: called before a thread is started: what is in the log has waited for no thread until now.
        tuning: times.

    Attributes:
        running: the thread, or None.
        bell: wakes it. Each thread has a bell of its own: two threads never wait for one.
    """

    def __init__(
        self,
        work: Work,
        log: Log,
        progress: Progress,
        name: str,
        before_start: Callable[[], None],
        *,
        tuning: Tuning = STANDARD,
    ) -> None:
        self.running: threading.Thread | None = None
        self.bell = Bell()
        self._work = weakref.ref(work)
        self._log = log
        self._progress = progress
        self._name = name
        self._before_start = before_start
        self._tuning = tuning
        self._start_s = self._pause_s = 0.0

    def wake(self) -> None:
        """Wake the thread before its next tick."""
        self.bell.ring()

    def start(self) -> None:
        """Start the thread, unless that failed a moment ago: then the next calls try again."""
        if time.monotonic() < self._start_s:
            self._log.alert = True
            return
        thread: threading.Thread | None = None
        try:
            with self._log.lock:
                # A thread that is started while the interpreter ends blocks its starter for ever (Python 3.11).
                if self.running is not None or sys.is_finalizing():
                    return
                self._before_start()
                self.bell = bell = Bell()
                given = self._work, bell, self._tuning
                thread = Thread(target=_run, args=given, name="agentspan-journal", daemon=True)
                self.running = thread
            start(thread)
            self._pause_s = 0.0
        except BaseException as error:  # also from a signal handler, at any point
            if thread is not None and self.running is thread:  # it may run, may be starting, or have broken off
                bell.is_last = True
                self.running = None
                self._log.alert = True
            if not isinstance(error, RuntimeError):
                raise
            self._cannot_start(error)

    def _cannot_start(self, error: RuntimeError) -> None:
        self._pause_s = min(2 * self._pause_s or RESTART_S, MAX_RESTART_S)
        self._start_s = time.monotonic() + self._pause_s
        if "shutdown" in str(error):  # the interpreter ends: the next program that opens the file reads the journal
            return
        message = f"the thread that drains the journal of {self._name} cannot be started: {error}; it is tried again"
        self._progress.last_error = message
        try:
            self._progress.listener.fault(StorageError(message))
        except StorageError as fault:  # faults are to be raised, but what is being recorded comes first
            self._progress.deferred.raised = fault

    def stop(self, wait_s: float) -> None:
        """End the thread, and wait for that; the next record starts it again."""
        with self._log.lock:
            thread, self.running = self.running, None
            self._log.alert = True
            bell, self.bell = self.bell, Bell()
        bell.is_last = True
        bell.ring()
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(wait_s)

    def ended(self, bell: Bell) -> None:
        """Note that the thread with this bell has ended; start another one if a record came meanwhile."""
        work = self._work()
        if work is not None and self.bell is bell:
            self.running = None
            self._log.alert = True
            if work.has_records():  # the call that appended them saw the thread while it was about to end
                self.start()

    def raised(self, error: Exception) -> None:
        """Keep an exception of the thread; the next flush raises it."""
        self._progress.deferred.raised = error


def _run(reference: "weakref.ref[Work]", bell: Bell, tuning: Tuning) -> None:
    """Tick while there is something to do; the sink may be dropped at any moment in between."""
    ticks, is_over, kept, calls = Ticks(tuning.drain_quiet_ticks), False, reference(), 0
    tick_s = tuning.drain_tick_s
    while not is_over:
        is_called = bell.wait(QUIET_TICK_S if ticks.is_quiet else tick_s) and calls < MAX_CALLS
        calls = calls + 1 if is_called else 0
        if bell.is_last:
            return
        work = kept or reference()
        if work is None or work.thread.bell is not bell:  # another thread was started in this one's place
            return
        kept = work
        try:
            if is_called:
                ticks.quiet = 0
                work.prepare()
            else:
                is_over = work.tick(ticks)
            # A tracer that was dropped leaves nothing undone; one with a run that goes on is about to record.
            kept = work if work.is_needed() else None
        except Exception as error:
            work.thread.raised(error)
        del work
    work = reference()
    if work is not None:
        work.thread.ended(bell)
