"""A sink that appends to a journal: a call costs 2 µs, and what it said outlives the process.

A thread, which comes with the first record and goes when there are none, brings what was appended into the storage
every 20 ms. A burst it lets pass, up to a second of it: two threads that compute take turns of 5 ms. Where it falls
behind, the disk grows; from a bound on, those who record do a part of its work. Where no segment can be had, because
the disk is full, this sink does what the one does that it is made of: it commits.
"""

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from zlib import crc32

from agentspan import clock
from agentspan.errors import DatabaseBusy, StorageError
from agentspan.journal import live, replaying
from agentspan.journal.deriving import Batch, Resolve
from agentspan.journal.events import CREATED, FINISHED, SEPARATOR, STARTED, UPDATED, encode_unit
from agentspan.journal.place import folder_of
from agentspan.journal.records import END, HEADER, MAGIC, bodies, length_of, pack
from agentspan.journal.segments import START, Segment, room_for
from agentspan.journal.spool import SIZE, create, place, tidy
from agentspan.model.changes import Applied, Outcome, Refused, Unit
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.recording.sink import RETRY_NS, WAIT_S, CommitSink, Listener
from agentspan.storage.protocol import Storage

if TYPE_CHECKING:
    from agentspan.operations.adopting import Adoption
    from agentspan.recording.span import Span

CHUNK = 256 * 1024
"""Bytes of a journal that are committed at once."""
PORTION = 64 * 1024
"""Bytes that a call which records commits where the journal has grown too long: 1.5 ms."""
CAP = 256 * 2**20
"""Bytes of full segments from which on those who record work, too."""
TICK_S = 0.02
BURST = 100
"""Records within a tick that make a burst."""
PATIENCE_S = 1.0
"""How long a burst is let pass."""
QUIET_TICKS = 50
"""Ticks without a record after which the thread goes."""
LOOK_NS = 100_000_000
"""How old the latest look at whether a run is terminated may be when a span of it begins."""
FORK_WAIT_S = 5.0
READ_WAIT_S = 1.0
_OVERHEAD = HEADER + len(END)
_join = SEPARATOR.join
_TAKEN = Applied()


class Surroundings(NamedTuple):
    """What a journal needs to know of the recorder that writes it.

    Attributes:
        path: the file in front of which it lies.
        writer_id: who this process is.
        resolve: finds span types.
        adoption: brings in what dead processes have left.
        look: learns whether runs of this process are terminated.
    """

    path: Path
    writer_id: Callable[[], str]
    resolve: Resolve
    adoption: "Adoption"
    look: Callable[[], None]


class JournalSink(CommitSink):
    """See Sink; what it was told is in a journal when it returns."""

    def __init__(self, storage: Storage, listener: Listener, surroundings: Surroundings, *, size: int = SIZE) -> None:
        super().__init__(storage, listener)
        self.path = surroundings.path
        self._around = surroundings
        self._folder = folder_of(surroundings.path)
        self._size = size
        self._segment: Segment | None = None
        self._full: deque[Segment] = deque()
        self._spare: Segment | None = None
        self._appending = threading.RLock()  # a signal handler may record while its thread is in here
        self._draining = threading.Lock()
        self._drainer = 0
        self._made = 0
        self._sequence = 0
        self._settled = 0
        self._behind = False
        self._overflows = False
        self._looked_ns = 0
        self._thread: threading.Thread | None = None
        self._held = False
        self._raised: Exception | None = None
        self._over = threading.Event()
        self._rewrites: list[Callable[[Unit], Unit]] = []
        _register_hooks()
        _sinks.add(self)
        live.register(self)

    @property
    def journaled(self) -> int:
        """See Sink."""
        return self._sequence - self._settled

    def created(self, span: "Span", payload: dict[str, Any], at_ns: int) -> None:
        """See Said."""
        instance = cast(AgentInstanceRow, span.run._instance)
        if at_ns - self._looked_ns > LOOK_NS:
            self._looked_ns = at_ns
            self._around.look()
        said = (
            CREATED,
            span.id,
            instance.id,
            instance.agent_id,
            span.parent_span_id or "",
            span.schema_name,
            span.status,
            str(at_ns),
            span._payload,
        )
        if not self._append(_join(said).encode()):
            super().created(span, payload, at_ns)

    def started(self, span: "Span") -> None:
        """See Said."""
        if not self._append(_join((STARTED, span.id, str(span._started_ns))).encode()):
            super().started(span)

    def updated(self, span: "Span", payload: dict[str, Any], at_ns: int) -> None:
        """See Said."""
        if not self._append(_join((UPDATED, span.id, str(at_ns), span._payload)).encode()):
            super().updated(span, payload, at_ns)

    def finished(
        self, span: "Span", result_text: str | None, result: dict[str, Any] | None, at_ns: int, elapsed_ns: int
    ) -> None:
        """See Said."""
        said = (FINISHED, span.id, span.status, str(at_ns), str(elapsed_ns), result_text or "")
        if not self._append(_join(said).encode()):
            super().finished(span, result_text, result, at_ns, elapsed_ns)

    def write(self, unit: Unit) -> None:
        """See Said."""
        if not self._append(encode_unit(unit).encode()):
            self._commit(unit)

    def put_aside(self, unit: Unit, error: StorageError) -> None:
        """See Sink."""
        if self._append(encode_unit(unit).encode()):
            self._listener.fault(error)
        else:
            super().put_aside(unit, error)

    def rewrite(self, change: Callable[[Unit], Unit]) -> None:
        """See Sink."""
        self._rewrites.append(change)
        super().rewrite(change)

    def flush(self, wait_s: float) -> bool:
        """See Sink."""
        is_drained = self.drain(wait_s)
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised
        return is_drained and super().flush(wait_s)

    def catch_up(self) -> None:
        """See live.Journal."""
        self._looked_ns = 0  # who reads here may be about to terminate a run
        if self.journaled or self._backlog:
            self.flush(READ_WAIT_S)

    def release(self, *, for_good: bool = False) -> None:
        """See Sink. A segment with something in it stays, for good or until more is said."""
        if for_good:
            self._stop_thread(WAIT_S)
        if not self._draining.acquire(timeout=WAIT_S):
            return
        try:
            with self._appending:
                for segment in (*self._full, self._segment):
                    if segment is not None and segment.drained == segment.end:
                        segment.remove()
                    elif segment is not None and for_good:
                        segment.leave()
                self._full = deque(segment for segment in self._full if segment.is_mine)
                if self._segment is not None and not self._segment.is_mine:
                    self._segment = None
                spare, self._spare = self._spare, None
                if spare is not None:
                    spare.remove()
        finally:
            self._draining.release()
        self._around.adoption.look(at_once=True)  # forked children end without a word
        tidy(self._folder)

    def leave(self) -> None:
        """See Sink."""
        _sinks.discard(self)
        for segment in (*self._full, self._segment, self._spare):
            if segment is not None:
                segment.leave()

    def _append(self, body: bytes) -> bool:
        """Append a record; tell whether that was possible (1.3 µs; 0.2 more as calls of Segment.append and header)."""
        if self._behind or self._overflows or self._backlog:
            if (self._overflows or self._backlog) and not self._recovered():
                return False
            self._work()
        length = len(body)
        checksum = crc32(body)
        with self._appending:
            while True:
                sequence = self._sequence + 1
                head = pack(MAGIC, length, sequence, checksum)
                head += crc32(head).to_bytes(4, "little")
                segment = self._segment
                if segment is None or segment.end + length + _OVERHEAD > segment.size:
                    if self._next_segment(length) is None:
                        return False
                elif self._sequence + 1 == sequence:
                    # No call from here to the end: signal handlers, which may append as well, and Ctrl-C come at calls.
                    start = segment.end
                    end = start + HEADER + length
                    segment.map[start + HEADER : end + 4] = body + END
                    # The header comes last: a process that is killed in the middle leaves the end where it was.
                    segment.map[start : start + HEADER] = head
                    segment.end = end
                    self._sequence = sequence
                    break
        if self._thread is None:
            self._start_thread()
        return True

    def _commit(self, unit: Unit) -> None:
        if not self.journaled:
            super()._commit(unit)
            return
        with self._lock:  # what it follows is in the journal still
            self._keep(unit)

    def _next_segment(self, length: int) -> Segment | None:
        full, self._segment = self._segment, None
        if full is not None:
            self._full.append(full)
            full.unmap()
            self._behind = len(self._full) * self._size >= CAP
        self._made += 1
        try:
            made = self._begun_spare(length) or create(
                self._folder, self._around.writer_id(), self._made, self._sequence + 1, length, self._size
            )
        except OSError as error:
            self._overflows = True
            self._retry_ns = clock.monotonic_ns() + RETRY_NS
            self._listener.fault(StorageError(f"no room for a journal in {self._folder}: {error.strerror}"))
            return None
        if self._segment is None:
            self._segment = made
        else:  # a signal handler came in between, and has made one
            made.remove()
        return self._segment

    def _begun_spare(self, length: int) -> Segment | None:
        """Return a segment that was made before it is needed: that can take 30 ms while others use the disk."""
        spare, self._spare = self._spare, None
        if spare is not None and spare.size >= room_for(length):
            try:
                spare.begin(place(self._folder, self._around.writer_id(), self._made), self._sequence + 1)
                return spare
            except OSError:  # somebody has deleted it
                pass
        if spare is not None:
            spare.remove()
        return None

    def _make_spare(self) -> None:
        segment = self._segment
        if self._spare is None and segment is not None and segment.end > self._size // 4:
            try:
                self._spare = Segment(place(self._folder, self._around.writer_id(), 0), self._size)
            except OSError:  # who needs it will see
                pass

    def _work(self) -> None:
        """Do a part of the thread's work: it does not keep up."""
        if clock.monotonic_ns() >= self._retry_ns:
            self.drain(WAIT_S, most=PORTION)
        self._behind = len(self._full) * self._size >= CAP

    def _recovered(self) -> bool:
        """Tell whether there may be room for a journal again: what waits has gone into the storage, in order."""
        if clock.monotonic_ns() < self._retry_ns:
            return False
        if not self.drain(0.0) or not super().flush(0.0):
            self._retry_ns = clock.monotonic_ns() + RETRY_NS
            return False
        self._overflows = False
        return True

    def drain(self, wait_s: float, *, most: int | None = None) -> bool:
        """Bring what was appended into the storage, oldest first; tell whether that was all.

        Args:
            wait_s: for how long at most to wait for another thread that is about it, and for the storage.
            most: bytes after which to stop.
        """
        if self._drainer == threading.get_ident():  # a signal handler, or a read, in the middle of it
            return False
        if not self._draining.acquire(timeout=max(0.0, wait_s)):
            return False
        self._drainer = threading.get_ident()
        deadline = time.monotonic() + max(wait_s, WAIT_S)
        try:
            while True:
                segment, data = self._oldest(CHUNK if most is None else PORTION)
                if segment is None:
                    return True
                read = bodies(data)
                self._bring(read.bodies, wait_s)
                self._settled += len(read.bodies)
                if read.bodies:
                    segment.trim(segment.drained + read.end, read.last + 1)
                else:  # nothing but a hole at its end
                    segment.drained += read.end
                if most is not None or time.monotonic() > deadline:
                    return False
        except StorageError as error:
            self._retry_ns = clock.monotonic_ns() + RETRY_NS
            if not isinstance(error, DatabaseBusy):
                self._listener.fault(error)
            return False
        finally:
            self._drainer = 0
            self._draining.release()

    def _oldest(self, size: int) -> tuple[Segment | None, bytes]:
        """Return the segment that is next, and what of it is; segments that have nothing left are done with."""
        while True:
            with self._appending:
                segment = self._full[0] if self._full else self._segment
                if segment is None:
                    return None, b""
                if segment.drained < segment.end:
                    start = segment.drained
                    size = max(size, length_of(segment.read(start, HEADER)))
                    return segment, segment.read(start, min(segment.end - start, size))
                if segment is self._segment:
                    following = self._sequence + 1
                    if segment.end > START:
                        segment.reset(following)
                    return None, b""
                self._full.popleft()
            self._done_with(segment)

    def _done_with(self, segment: Segment) -> None:
        if self._spare is None and segment.size == self._size:
            try:
                segment.recycle()
                self._spare = segment
                return
            except OSError:
                pass
        segment.remove()

    def _bring(self, bodies: Sequence[bytes], wait_s: float) -> None:
        batch = Batch(self._around.writer_id(), self._around.resolve, self._find)
        for body in bodies:
            batch.add(body)
        if batch.first:
            self._apply(batch.first, wait_s)
        units = batch.units()
        for change in self._rewrites:
            units = [change(unit) for unit in units]
        refused = self._apply(units, wait_s)
        self.recorded += len(bodies) - refused - len(batch.unreadable)
        self.failed += len(batch.unreadable)
        for unreadable in batch.unreadable:
            self._raised = unreadable.error

    def _apply(self, units: list[Unit], wait_s: float) -> int:
        """Commit units, deal with what became of them, and return how many were not taken as they are."""
        outcomes = self._apply_all(tuple(units), wait_s)
        if len(outcomes) < len(units):
            raise DatabaseBusy(f"{self.path} was busy; try again")
        odd = [(unit, outcome) for unit, outcome in zip(units, outcomes, strict=True) if outcome != _TAKEN]
        refused = 0
        for unit, outcome in odd:
            try:
                refused += self._settle_odd(unit, outcome)
            except StorageError:
                raise
            except Exception as error:  # faults are to be raised, but this must come to its end
                self._raised = error
                refused += 1
        return refused

    def _settle_odd(self, unit: Unit, outcome: Outcome | Exception) -> bool:
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

    def _start_thread(self) -> None:
        with self._appending:
            if self._thread is not None:
                return
            args = (weakref.ref(self), self._over)
            thread = threading.Thread(target=_run, args=args, name="agentspan-journal", daemon=True)
            self._thread = thread
        try:
            thread.start()
        except RuntimeError:  # the interpreter ends: what is in the journal is read when the file is opened next
            pass

    def _stop_thread(self, wait_s: float) -> None:
        """End the thread, which the next record brings back."""
        with self._appending:
            thread, self._thread = self._thread, None
            over, self._over = self._over, threading.Event()
        over.set()
        if thread is not None and thread.ident is not None and thread is not threading.current_thread():
            thread.join(wait_s)

    def _tick(self, ticks: "_Ticks") -> bool:
        """Do what is due; tell whether the thread may go."""
        new, ticks.seen = self._sequence - ticks.seen, self._sequence
        if self._overflows:
            self._recovered()
        self._make_spare()
        if not self.journaled:
            ticks.quiet += 1
            ticks.burst = 0
            return ticks.quiet >= QUIET_TICKS
        ticks.quiet = 0
        ticks.burst = ticks.burst + 1 if new > BURST else 0
        if ticks.burst and ticks.burst * TICK_S < PATIENCE_S and not self._behind:
            return False
        ticks.burst = 0
        self.drain(WAIT_S)
        self._looked_ns = time.time_ns()  # not by the clock, which a test may count
        self._around.look()
        self._around.adoption.look()
        self._check_segment()
        return False

    def _check_segment(self) -> None:
        """Go on in a new segment if somebody has deleted this one; what is in it is still to be had."""
        with self._appending:
            if self._segment is not None and not self._segment.is_there():
                gone, self._segment = self._segment, None
                self._full.append(gone)
                gone.unmap()

    def _hold(self) -> None:
        """Before a fork: let no thread be in the middle of anything, and have none: Python 3.12 warns of it."""
        self._stop_thread(FORK_WAIT_S)
        self.drain(WAIT_S)
        self._held = self._draining.acquire(timeout=FORK_WAIT_S)
        self._appending.acquire()

    def _let_go(self) -> None:
        self._appending.release()
        if self._held:
            self._draining.release()
        if self.journaled:
            self._start_thread()


class _Ticks:
    """What the thread remembers from one tick to the next."""

    seen = 0
    quiet = 0
    burst = 0


def _run(reference: "weakref.ref[JournalSink]", over: threading.Event) -> None:
    """Tick while there is something to do; the sink may go at any moment in between."""
    ticks, is_over = _Ticks(), False
    while not is_over:
        if over.wait(TICK_S):
            return
        sink = reference()
        if sink is None:
            return
        try:
            is_over = sink._tick(ticks)
        except Exception as error:  # it has been told of
            sink._raised = error
        del sink
    sink = reference()
    if sink is not None and sink._over is over:
        sink._thread = None
        if sink.journaled:  # somebody saw the thread when it was about to go
            sink._start_thread()


_sinks: weakref.WeakSet[JournalSink] = weakref.WeakSet()
_holding: list[JournalSink] = []


def _before_fork() -> None:
    for sink in list(_sinks):
        sink._hold()
        _holding.append(sink)


def _after_fork_in_parent() -> None:
    while _holding:
        _holding.pop()._let_go()


def _after_fork_in_child() -> None:
    _holding.clear()


@cache
def _register_hooks() -> None:
    """Have forks wait; once a storage is open: its hooks must come later, and are called in the reverse order."""
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
