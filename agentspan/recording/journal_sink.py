"""A sink that appends to a journal: a call costs 2 µs, and what it said outlives the process.

A thread, which comes with the first record and goes when there are none, brings what was appended into the storage
every 20 ms. A burst it lets pass, up to three seconds of it: two threads that compute take turns of 5 ms. Where it
falls behind, the disk grows; from a bound on, those who record do a part of its work. Where no segment can be had,
because the disk is full, this sink does what the one does that it is made of: it commits.
"""

import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from agentspan import clock, forks
from agentspan.errors import StorageError
from agentspan.forks import Hold
from agentspan.interrupts import let_through, start
from agentspan.journal import live
from agentspan.journal.events import encode_unit
from agentspan.journal.log import Log
from agentspan.journal.place import folder_of
from agentspan.journal.spool import SIZE, keep_types
from agentspan.locks import Occupied, is_mine, within
from agentspan.model.changes import Unit
from agentspan.model.rows import AgentInstanceRow
from agentspan.recording.draining import Draining
from agentspan.recording.outcomes import Outcomes
from agentspan.recording.sink import RETRY_NS, WAIT_S
from agentspan.recovery.committer import Committer, Listener
from agentspan.storage.protocol import Storage

if TYPE_CHECKING:
    from agentspan.recording.span import Span
    from agentspan.recovery.adopting import Adoption

PORTION = 64 * 1024
"""Bytes that a call which records commits where the journal has grown too long: 1.5 ms."""
CAP = 256 * 2**20
"""Bytes of full segments from which on those who record work, too."""
LIMIT = 2 * CAP
"""Bytes of full segments from which on none is added: the storage takes nothing. What comes then waits in memory, as
where the disk is full, and beyond what that may take it is lost, and counted."""
TICK_S = 0.02
BURST = 100
"""Records within a tick that make a burst."""
PATIENCE_S = 3.0
"""How long a burst is let pass: 300,000 spans, if there is room for them."""
MAX_CALLS = 2
"""How often in a row a call may come in a tick's place: of large records, each few begin a segment."""
QUIET_TICKS = 50
"""Ticks without a record after which the thread goes."""
LOOK_S = 0.1
"""How often the thread looks whether runs of this process are terminated."""
LOOK_SHARE = 0.01
"""The share of the thread's time that looking may take: with thousands of runs, it looks less often."""
RESTART_S = 0.05
MAX_RESTART_S = 5.0
"""When a thread that could not be started is tried again: later and later."""
FORK_WAIT_S = 5.0
EXIT_S = 1.0
"""How long the end of a program may take over the work of programs that died."""
READ_WAIT_S = 1.0


class Surroundings(NamedTuple):
    """What a journal needs to know of the recorder that writes it.

    Attributes:
        path: the file in front of which it lies.
        writer_id: returns the id of this process.
        committer: makes what commits records.
        adoption: adopts the journals that dead programs have left.
        late_types: returns all span types, as a schema version has them, if some run of this process is registered
            without one of them.
    """

    path: Path
    writer_id: Callable[[], str]
    committer: Callable[[Listener], Committer]
    adoption: "Adoption"
    late_types: Callable[[], str | None]


class JournalSink(Draining):
    """See Sink; what it was told is in a journal when it returns."""

    def __init__(self, storage: Storage, outcomes: Outcomes, surroundings: Surroundings, *, size: int = SIZE) -> None:
        self.folder = folder_of(surroundings.path)
        log = Log(self.folder, surroundings.writer_id, size)
        super().__init__(storage, surroundings.committer, outcomes, log)
        self.path = surroundings.path
        self._around = surroundings
        self._outcomes = outcomes
        self._overflows = False
        self._terminations: dict[str, str] = {}  # of runs that have not been told
        self._next_look_s = 0.0
        self._thread: threading.Thread | None = None
        self._bell = _Bell()
        self._start_s = self._pause_s = 0.0
        self._begun = 0
        self._have_types_changed = False
        self._held: list[threading.RLock] = []
        _sinks.add(self)
        live.register(self)

    def created(self, span: "Span", at_ns: int) -> None:
        """See Said."""
        if self._terminations:
            self._tell()
        instance: AgentInstanceRow = span.run._instance  # type: ignore[assignment]  # the run is recorded
        # Records are written out here (see events), and appended without a method between: 0.3 µs less.
        body = (
            f"C\x1f{span.id}\x1f{instance.id}\x1f{instance.agent_id}\x1f{span.parent_span_id or ''}"
            f"\x1f{span.schema_name}\x1f{span.status}\x1f{at_ns}\x1f{span._payload}"
        ).encode()
        log = self._log
        if log.alert or not log.append(body):
            if not self._append(body):
                super().created(span, at_ns)
        elif log.alert:  # perhaps the thread went, and did not see this one
            self._is_ready()

    def started(self, span: "Span") -> None:
        """See Said."""
        if not self._append(f"S\x1f{span.id}\x1f{span._started_ns}".encode()):
            super().started(span)

    def updated(self, span: "Span", at_ns: int) -> None:
        """See Said."""
        if not self._append(f"U\x1f{span.id}\x1f{at_ns}\x1f{span._payload}".encode()):
            super().updated(span, at_ns)

    def finished(self, span: "Span", result: str | None, at_ns: int, elapsed_ns: int) -> None:
        """See Said."""
        body = f"F\x1f{span.id}\x1f{span.status}\x1f{at_ns}\x1f{elapsed_ns}\x1f{result or ''}".encode()
        log = self._log
        if log.alert or not log.append(body):
            if not self._append(body):
                super().finished(span, result, at_ns, elapsed_ns)
        elif log.alert:
            self._is_ready()

    def write(self, unit: Unit) -> None:
        """See Said."""
        if not self._append(encode_unit(unit).encode()):
            self._commit(unit)

    def put_aside(self, unit: Unit, error: StorageError) -> None:
        """See Sink."""
        if self._append(encode_unit(unit).encode()):
            self._failing(error)
            self._listener.fault(error)
        else:
            super().put_aside(unit, error)

    def flush(self, wait_s: float) -> bool:
        """See Sink."""
        deadline = time.monotonic() + wait_s
        is_drained = self.drain(wait_s)
        while not is_drained and self._hurried and time.monotonic() < deadline:  # it made way for a fork
            is_drained = self.drain(deadline - time.monotonic())
        self._deferred.raise_kept()
        return is_drained and super().flush(wait_s)

    def catch_up(self) -> None:
        """See live.Journal."""
        target, settled = self._log.sequence, -1
        while settled < self._settled < target:  # however much there is, as long as it gets less
            settled = self._settled
            if self.drain(READ_WAIT_S):
                break
        if self._backlog:
            super().flush(READ_WAIT_S)

    def release(self, *, for_good: bool = False) -> None:
        """See Sink. A segment with something in it stays, for good or until more is said."""
        self._stop_thread(WAIT_S)  # it may be making a segment; what is said later brings it back
        with suppress(Occupied), within(self._draining, WAIT_S):
            self._log.release(for_good=for_good)
        # Forked children end without a word; what others left in great numbers is not ours to wait for.
        self._around.adoption.look(at_once=True, most_s=EXIT_S)
        if for_good:
            self._around.adoption.stop()

    def leave(self) -> None:
        """See Sink."""
        _sinks.discard(self)
        live.forget(self)
        self._log.leave()

    def _append(self, body: bytes) -> bool:
        """Append a record; tell whether that was possible, in order."""
        if self._log.alert and not self._is_ready():
            return False
        if self._log.append(body):
            if self._thread is None:  # it went meanwhile, and did not see this one
                self._start_thread()
            return True
        self._overflow(getattr(self._log.error, "strerror", None))
        return False

    def _is_ready(self) -> bool:
        """Do what is to be done before a record is appended; tell whether it may be, in order."""
        self._log.alert = False  # first: what happens meanwhile is seen by the next one
        if self._thread is None:
            self._start_thread()
        else:
            self._bell.ring()  # it may have gone to sleep for longer
        if self._begun != self._log.begun:
            self._begun = self._log.begun
            self._bell.ring()
            self._have_types_changed = True  # nobody needed them before, and may have deleted them
        if self._have_types_changed:
            self._keep_types()
        if self._log.full_bytes >= LIMIT and not self._overflows:
            self._overflow(f"it has {self._log.full_bytes:,} bytes already, which the storage does not take")
        elsewhere = self._overflows or bool(self._backlog)
        if elsewhere or self._log.full_bytes >= CAP:
            self._log.alert = True
            if elsewhere and not self._recovered():
                return False
            self._work()
        return True

    def types_changed(self) -> None:
        """See live.Journal."""
        self._have_types_changed = self._log.alert = True

    def _keep_types(self) -> None:
        self._have_types_changed = False
        types = self._around.late_types()
        if types is not None:
            try:
                keep_types(self.folder, self._around.writer_id(), types)
            except OSError as raised:  # a full disk: what a killed program leaves is read without them
                let_through(raised)

    def _keep(self, unit: Unit) -> None:
        self._log.alert = True
        super()._keep(unit)

    def _overflow(self, why: str | None) -> None:
        self._overflows = self._log.alert = True
        self._retry_ns = clock.monotonic_ns() + RETRY_NS
        self._listener.fault(StorageError(f"there can be no journal for {self.path} now: {why}"))

    def _commit(self, unit: Unit) -> None:
        if not self.journaled:
            super()._commit(unit)
            return
        with self._lock:  # what it follows is in the journal still
            self._keep(unit)

    def _work(self) -> None:
        """Do a part of the thread's work: it does not keep up."""
        if clock.monotonic_ns() >= self._retry_ns:
            self.drain(WAIT_S, most=PORTION)

    def _recovered(self) -> bool:
        """Tell whether there may be room for a journal again: what waits has gone into the storage, in order."""
        if clock.monotonic_ns() < self._retry_ns:
            return False
        if not self.drain(0.0) or not super().flush(0.0):
            self._retry_ns = clock.monotonic_ns() + RETRY_NS
            return False
        self._overflows = False
        return True

    def watch(self) -> None:
        """See Sink: the thread looks, so that no call that records touches the storage."""
        if self._thread is None:
            self._start_thread()

    def terminated(self, instance_id: str, reason: str) -> None:
        """See live.Journal."""
        self._terminations = {**self._terminations, instance_id: reason}

    def _look(self) -> None:
        began = time.monotonic()
        if began < self._next_look_s:
            return
        try:
            found = self._outcomes.terminations()
            if found:
                self._terminations = {**self._terminations, **found}
        except StorageError:  # busy: the next look learns it
            pass
        ended = time.monotonic()
        self._next_look_s = ended + max(LOOK_S, (ended - began) / LOOK_SHARE)

    def _tell(self) -> None:
        """Tell runs that they are terminated, in the thread of a call that records."""
        terminations, self._terminations = self._terminations, {}
        self._outcomes.learn(terminations)

    def _start_thread(self) -> None:
        """Start the thread that drains, unless that failed a moment ago: then the next calls try again."""
        if time.monotonic() < self._start_s:
            self._log.alert = True
            return
        thread: threading.Thread | None = None
        try:
            with self._log.lock:
                # Where the interpreter ends already, who starts a thread waits for ever for it (Python 3.11).
                if self._thread is not None or sys.is_finalizing():
                    return
                self._moved_ns = time.monotonic_ns()
                self._bell = bell = _Bell()  # of its own: two threads never wait for one
                thread = threading.Thread(
                    target=_run, args=(weakref.ref(self), bell), name="agentspan-journal", daemon=True
                )
                self._thread = thread
            start(thread)
            self._pause_s = 0.0
        except BaseException as error:  # also from a signal handler, at any point
            if thread is not None and self._thread is thread:  # it may run, may be starting, or have broken off
                bell.is_last = True
                self._thread = None
                self._log.alert = True
            if not isinstance(error, RuntimeError):
                raise
            self._no_thread(error)

    def _no_thread(self, error: RuntimeError) -> None:
        """Say that no thread can be started now, and when it is tried again."""
        self._pause_s = min(2 * self._pause_s or RESTART_S, MAX_RESTART_S)
        self._start_s = time.monotonic() + self._pause_s
        if "shutdown" in str(error):  # the interpreter ends: who opens the file next reads the journal
            return
        said = f"the thread that drains the journal of {self.path} cannot be started: {error}; it is tried again"
        self.last_error = said
        try:
            self._listener.fault(StorageError(said))
        except StorageError as fault:  # faults are to be raised, but what is being recorded comes first
            self._deferred.raised = fault

    def _stop_thread(self, wait_s: float) -> None:
        """End the thread, which the next record brings back."""
        with self._log.lock:
            thread, self._thread = self._thread, None
            self._log.alert = True
            bell, self._bell = self._bell, _Bell()
        bell.is_last = True
        bell.ring()
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(wait_s)

    def _tick(self, ticks: "_Ticks") -> bool:
        """Do what is due; tell whether the thread may go."""
        new, ticks.seen = self._log.sequence - ticks.seen, self._log.sequence
        if self._overflows or self._backlog:
            self._recovered()
        self._log.prepare()
        if not self.journaled:
            self._moved_ns = time.monotonic_ns()
            ticks.quiet += 1
            ticks.burst = 0
            if ticks.is_quiet:
                self._log.alert = True  # the next record calls the thread
                self._look()
                return not self._outcomes.has_runs()
            return False
        ticks.quiet = 0
        ticks.burst = ticks.burst + 1 if new > BURST else 0
        if ticks.burst and ticks.burst * TICK_S < PATIENCE_S and self._log.full_bytes < CAP // 2:
            return False
        ticks.burst = 0
        self.drain(WAIT_S)
        self._look()
        self._around.adoption.look()
        self._log.look_after_files()
        return False

    def _hold(self) -> None:
        """Before a fork: let no thread be in the middle of anything, and have none: Python 3.12 warns of it."""
        self._hurried = True  # a fork waits for a batch that is under way, not for all that there is
        self._stop_thread(FORK_WAIT_S)
        self.drain(WAIT_S)
        for lock in (self._draining, self._log.lock):
            if not is_mine(lock):  # else a signal handler forks in the middle of what its thread does
                self._held.append(lock)  # first: who is interrupted right after acquiring it lets go all the same
                lock.acquire(timeout=FORK_WAIT_S)

    def _let_go(self) -> None:
        self._hurried = False
        while self._held:
            if is_mine(self._held[-1]):
                self._held[-1].release()
            self._held.pop()
        if self.journaled:  # else the next record starts it: Python 3.12 warns of a fork that leaves threads
            self._start_thread()


class _Ticks:
    """What the thread remembers from one tick to the next."""

    seen = 0
    quiet = 0
    burst = 0

    @property
    def is_quiet(self) -> bool:
        """Whether nothing was recorded for a second."""
        return self.quiet >= QUIET_TICKS


class _Bell:
    """Calls the thread of a sink before its time: a segment was begun, so another one is to be made; or it is to go.

    No Event: one that is rung by a signal handler in the middle of being rung waits for ever.
    """

    def __init__(self) -> None:
        self.is_last = False
        self._silent = threading.Lock()
        self._silent.acquire()

    def ring(self) -> None:
        try:
            self._silent.release()
        except RuntimeError:  # it rings
            pass

    def wait(self, wait_s: float) -> bool:
        """Wait for it; tell whether it rang."""
        return self._silent.acquire(timeout=wait_s)


def _run(reference: "weakref.ref[JournalSink]", bell: _Bell) -> None:
    """Tick while there is something to do; the sink may go at any moment in between."""
    ticks, is_over, kept, calls = _Ticks(), False, reference(), 0
    while not is_over:
        is_called = bell.wait(LOOK_S if ticks.is_quiet else TICK_S) and calls < MAX_CALLS
        calls = calls + 1 if is_called else 0
        if bell.is_last:
            return
        sink = kept or reference()
        if sink is None or sink._bell is not bell:  # another thread was started in this one's place
            return
        try:
            if is_called:
                ticks.quiet = 0
                sink._log.prepare()
            else:
                is_over = sink._tick(ticks)
        except Exception as error:
            sink._deferred.raised = error
        # A tracer that was dropped leaves nothing undone; one with a run that goes on is about to record.
        kept = sink if sink.journaled or sink._outcomes.has_runs() else None
        del sink
    sink = reference()
    if sink is not None and sink._bell is bell:
        sink._thread = None
        sink._log.alert = True
        if sink.journaled:  # somebody saw the thread when it was about to go
            sink._start_thread()


_sinks: weakref.WeakSet[JournalSink] = weakref.WeakSet()
_holding: list[JournalSink] = []


def _hold_all() -> None:
    for interrupted in list(_holding):
        interrupted._hold()
    while fresh := [each for each in list(_sinks) if each not in _holding]:  # some may be made meanwhile
        for sink in fresh:
            _holding.append(sink)
            sink._hold()


def _let_go_of_all() -> None:
    while _holding:
        _holding[-1]._let_go()
        _holding.pop()


forks.hold(Hold.THREADS, _hold_all, _let_go_of_all)
forks.forget(_holding.clear)
