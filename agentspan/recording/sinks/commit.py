"""A sink that commits each unit to the storage before it returns.

A call waits at most `recording_wait_s`. A unit that the storage has not committed by then waits in memory, and a thread
commits it.
"""

import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from typing import cast

from agentspan import clock, disk, host
from agentspan.errors import NOT_NOW, NotStorable
from agentspan.host import Bell, Hold, Occupied, Thread, guard, let_through, within
from agentspan.journal import records
from agentspan.journal.committer import TAKEN, Committer, Listener, Tally
from agentspan.journal.deriving import end, start, update
from agentspan.model import columns, spans
from agentspan.model.changes import FinishStatus, Move, Put, Unit, unit_of
from agentspan.model.rows import AgentInstanceRow, WriterRow
from agentspan.model.spans import Times
from agentspan.recording.sinks.facts import Counts, Progress, SpanFacts, until_trusted
from agentspan.schemas.span_types import describe, title_of
from agentspan.storage.patience import ENDLESS, Patience, Unconnected, of_a_call, waiting
from agentspan.storage.protocol import BesideJournals, Storage
from agentspan.tuning import STANDARD, Tuning

_new = tuple.__new__  # see model.spans


def created(span: SpanFacts, at_ns: int) -> Unit:
    """Return the unit that puts a new span."""
    span_type, now, text = span.span_type, clock.to_text(at_ns), span.payload_text()
    payload, is_marked = columns.read_payload(text)
    span.decoded = (text, payload, at_ns, now)  # kept for the end of the span, which saves 1.3 µs
    meaning = describe(span_type, span.schema_name, span.status, payload, None, None, (True, False))
    instance: AgentInstanceRow = span.run.registered_row  # type: ignore[assignment]  # the run is recorded
    put = spans.created(
        span.id,
        instance.agent_id,
        instance.id,
        span.parent_span_id,
        span.schema_name,
        title_of(span_type, span.schema_name),
        span.status,
        text,
        None,
        _new(Times, (now if span.status == "active" else None, None, None)),
        meaning,
        now,
        writer_id=span.writer_id,
        minted=True,
        sensitive_encoding=is_marked,
    )
    return unit_of(put)


def created_raw(span: SpanFacts, reader: str, text: str, at_ns: int) -> Unit:
    """Return the unit that puts a new active span, parsed from a raw text by `reader`."""
    span.learn(records.read_begin(reader, text))
    return created(span, at_ns)


def started(span: SpanFacts) -> Unit:
    """Return the unit that makes a pending span active."""
    payload = columns.read_payload(span.payload_text())[0]
    at = clock.to_text(span.started_ns)
    return unit_of(start(span.id, span.run.id, span.span_type, span.schema_name, payload, at))


def updated(span: SpanFacts, at_ns: int) -> Unit:
    """Return the unit that sets the changed payload of an open span."""
    text, at = span.payload_text(), clock.to_text(at_ns)
    return unit_of(update(span.id, span.run.id, span.span_type, span.schema_name, span.status, text, at))


def finished(span: SpanFacts, result: str | None, at_ns: int, elapsed_ns: int) -> Unit:
    """Return the unit that ends a span."""
    now, status = clock.to_text(at_ns), cast(FinishStatus, span.status)
    decoded, span.decoded = span.decoded, None
    text, payload, started_ns, started_at = decoded or ("", {}, 0, "")
    if text is not span.payload_text():
        payload = columns.read_payload(span.payload_text())[0]
    if status == "cancelled":
        started_at = now
    elif started_ns != span.started_ns:
        started_at = clock.to_text(span.started_ns)
    times = _new(Times, (started_at, now, elapsed_ns / 1_000_000))
    return unit_of(end(span.id, span.run.id, span.span_type, span.schema_name, status, payload, result, times))


def finished_as(span: SpanFacts, result: str | None, at_ns: int, elapsed_ns: int) -> Unit:
    """Return the unit that ends a span, and sets its type and its payload, which became known at the end."""
    now, status, text = clock.to_text(at_ns), cast(FinishStatus, span.status), span.payload_text()
    span.decoded = None
    started_at = now if status == "cancelled" else clock.to_text(span.started_ns)
    times = Times(started_at, now, elapsed_ns / 1_000_000)
    return unit_of(end(span.id, span.run.id, span.span_type, span.schema_name, status, None, result, times, text))


def finished_raw(span: SpanFacts, reader: str, text: str, at_ns: int, elapsed_ns: int) -> Unit:
    """Return the unit that ends a span, parsed from a raw text by `reader`."""
    end = records.read_end(reader, text)
    span.learn(end)
    return finished_as(span, end.result, at_ns, elapsed_ns)


BATCH = 500
"""Transitions that waited in memory and are written in one transaction. A thread tries it, at first every 50 ms, later
every second."""
PAUSE_S, MAX_PAUSE_S = 0.05, 1.0
"""The pause before the thread tries the storage again, in seconds, at first and at most."""
LOOK_S = 0.001
"""The time between two checks whether the thread has written a unit, in seconds."""
STOP_S = 0.25
"""Seconds that a fork waits for the end of the thread, which may be waiting for a server."""


def _nothing() -> None:
    pass


class Backlog:
    """Units that wait in memory for the storage.

    Args:
        committer: commits the units.
        progress: the counts of the sink.
        before_keep: called before a unit is kept.
        has_thread: whether the backlog has a thread that commits the units. If not, the owner calls `flush`.
        tuning: sizes and times.

    Attributes:
        units: the waiting units, oldest first. Nearly always empty.
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
        """Seconds since the backlog was last empty; 0.0 if it is empty now."""
        return (disk.monotonic_ns() - self._waits_since_ns) / 1e9 if self.units else 0.0

    def put(self, unit: Unit, wait_s: float) -> None:
        """Keep a unit behind the waiting units, for the thread to commit.

        Args:
            wait_s: seconds to wait until the unit is committed; no wait if the latest attempt failed.
        """
        self.keep(unit)
        if self._has_thread and not self._is_started():
            if self._progress.may_try():  # no thread can be started now
                self.flush(0.0)
            return
        number, until_ns = self._kept, disk.monotonic_ns() + int(wait_s * 1e9)
        while self._written < number and not self._is_slow and self._progress.last_error is None and self._thread:
            if disk.monotonic_ns() > until_ns:
                self._is_slow = True  # until the backlog is empty, so that the next calls do not wait
                return
            disk.sleep(LOOK_S)

    def put_unreported(self, unit: Unit, wait_s: float) -> None:
        """Keep a unit that was not sent to the storage yet, as `put` does. The thread reports the fault, if any."""
        self._is_unreported = True
        self.put(unit, wait_s)

    def keep(self, unit: Unit) -> None:
        """Append a unit to the backlog. If the backlog is full, drop the unit and count it as failed."""
        with self._progress.lock:
            self._before_keep()
            size = _characters(unit)
            tuning = self._tuning
            if len(self.units) >= tuning.backlog_units or self._characters + size > tuning.backlog_characters:
                self._progress.failed += 1
                return
            if not self.units:
                self._waits_since_ns = disk.monotonic_ns()  # not by `clock`, because a test may count its readings
            self._characters += size
            self._kept += 1
            self.units.append(unit)

    def flush(self, wait_s: float, within_s: float | None = None, patience: Patience = ENDLESS) -> bool:
        """Commit the waiting units. Return True if nothing waits any more. Only one thread at a time commits.

        Args:
            wait_s: seconds that one attempt may wait for the storage.
            within_s: seconds after which to stop, both waiting for another thread and further attempts. If None, as
                long as a recording call may wait.
            patience: how long to wait for the answers of a server.
        """
        within_s = self._tuning.recording_wait_s if within_s is None else within_s
        deadline_ns = clock.monotonic_ns() + int(within_s * 1e9)
        try:
            with within(self._flushing, (deadline_ns - clock.monotonic_ns()) / 1e9):
                return self._flush(self._committer.waiting(patience), wait_s, deadline_ns)
        except Occupied:  # another thread flushes, or this call interrupted a flush of this thread
            return False

    def _flush(self, committer: Committer, wait_s: float, deadline_ns: int | None) -> bool:
        while self.units:
            if deadline_ns is not None and clock.monotonic_ns() > deadline_ns:
                return False
            with self._progress.lock:
                units = tuple(islice(self.units, BATCH))
            try:
                tally = committer.apply(units, wait_s)
            except NOT_NOW as error:
                self._progress.storage_failed(error)
                self._progress.try_later()
                if self._is_unreported:
                    self._is_unreported = False
                    self._progress.deferred.fault(error)
                return False
            self._progress.storage_took()
            self._remove(units, tally)
        return True

    def _remove(self, units: tuple[Unit, ...], tally: Tally) -> None:
        """Remove committed units, and count their outcomes.

        If an exception from a signal handler comes before the removal, the units stay. They are applied again later,
        and recognised as stored.
        """
        writers = sum(map(_is_writer, units))  # rows of writers do not count as transitions
        size = sum(map(_characters, units))
        progress = self._progress
        with progress.lock:
            rest = deque(islice(self.units, len(units), None))
            self.units = rest  # no call from here on: an exception comes before all of these lines, or after
            self._written += len(units)
            self._characters -= size
            progress.recorded += tally.recorded - writers
            progress.refused += tally.refused
            progress.failed += tally.failed
        if not rest:
            self._is_slow = self._is_unreported = False
        progress.deferred.raise_kept()

    def stop(self, wait_s: float) -> None:
        """End the thread, and wait for its end up to `wait_s`. The next waiting unit starts a new thread."""
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
        """Start the thread unless it runs. Return False if it cannot be started."""
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
                host.start(thread)
            except BaseException as error:  # also from a signal handler, at any point
                bell.is_last = True
                self._thread = None
                if not isinstance(error, RuntimeError):
                    raise
                return False
        return True

    def tick(self, bell: Bell) -> bool:
        """Commit the waiting units; called in the thread. Return True if the thread may end."""
        wait_s = self._tuning.recording_wait_s
        kept = guard(report=self._progress.deferred.keep)  # of a listener that raises faults: the next flush raises it
        with kept, suppress(Occupied), within(self._flushing, wait_s):
            self._flush(self._committer, wait_s, None)
        with self._progress.lock:
            if self.units and not bell.is_last:
                return False
            if self._bell is bell:
                self._thread = None
            return True


def _run(backlog: Backlog, bell: Bell) -> None:
    """Commit until the backlog is empty. While the thread runs, it keeps a tracer alive that the program dropped."""
    pause_s = PAUSE_S
    while not bell.is_last and not backlog.tick(bell):
        bell.wait(pause_s)
        pause_s = min(2 * pause_s, MAX_PAUSE_S)


_running: weakref.WeakSet[Backlog] = weakref.WeakSet()
# Python 3.12 warns if a process with threads forks.
host.hold(
    Hold.THREADS,
    host.for_each(_running, lambda backlog: backlog.stop(STOP_S)),
    host.for_each(_running, Backlog.go_on),
)
host.forget(_running.clear)


def _is_writer(unit: Unit) -> bool:
    change = unit.changes[0]
    return isinstance(change, Put) and isinstance(change.row, WriterRow)


def _characters(unit: Unit) -> int:
    size = 0
    for change in unit.changes:
        values = change.row if isinstance(change, Put) else change.set.values() if isinstance(change, Move) else ()
        size += sum(len(value) for value in values if isinstance(value, str))
    return size


class CommitSink:
    """Commits each unit. If the storage fails (locked, disk full, offline), units wait in order in a backlog.

    Args:
        storage: the storage that the units are committed to.
        committer: makes a Committer, which settles refused units, from a listener for its outcomes.
        listener: receives faults and outcomes.
        before_keep: called before a unit is kept in the backlog.
        put_aside: keeps a unit that the storage failed to apply; if None, the backlog keeps it.
        journals: the file that receives the units; None if a flush has no file to check.
        is_server: whether the storage is used over a connection. Then a recording call waits for all answers together
            at most `recording_wait_s`, and a thread makes the connection.
        has_thread: whether the backlog has its own thread.
        tuning: sizes and times.
    """

    def __init__(
        self,
        storage: Storage,
        committer: Callable[[Listener], Committer],
        listener: Listener,
        *,
        before_keep: Callable[[], None] | None = None,
        put_aside: Callable[[Unit, Exception], None] | None = None,
        journals: BesideJournals | None = None,
        is_server: bool = False,
        has_thread: bool = False,
        tuning: Tuning = STANDARD,
    ) -> None:
        self.progress = Progress(listener)
        self.committer = committer(self.progress.deferred)
        keeping = [] if before_keep is None else [before_keep]
        self.backlog = Backlog(self.committer, self.progress, *keeping, has_thread=has_thread, tuning=tuning)
        self._call_s = tuning.recording_wait_s
        # For a server, both limits are below `recording_wait_s`: after the wait for a lock (0.7 of it), the server
        # still has to answer; after the wait for all answers (0.9 of it), the disconnect takes time.
        self._wait_s, self._answers_s = self._call_s, self._call_s * 0.9
        if is_server:
            self._wait_s *= 0.7
        self._is_server = is_server
        self._storage = storage
        self._journals = journals
        self._listener = listener
        self._put_aside = put_aside or self.put_aside

    def counts(self) -> Counts:
        """Return the state of this sink."""
        progress, backlog = self.progress, self.backlog
        return Counts(
            progress.recorded,
            len(backlog.units),
            progress.refused,
            progress.failed,
            0,
            0,
            backlog.oldest_s,
            progress.last_error,
        )

    def count_recorded(self) -> None:
        """Count a transition that the caller has committed to the storage itself."""
        self.progress.recorded += 1

    def created(self, span: SpanFacts, at_ns: int) -> None:
        """Commit a new span."""
        self.write(created(span, at_ns))

    def created_raw(self, span: SpanFacts, reader: str, text: str, at_ns: int) -> None:
        """Commit a new span, parsed from a raw text by `reader`."""
        self.write(created_raw(span, reader, text, at_ns))

    def started(self, span: SpanFacts) -> None:
        """Commit that a pending span became active."""
        self.write(started(span))

    def updated(self, span: SpanFacts, at_ns: int) -> None:
        """Commit the changed payload of an open span."""
        self.write(updated(span, at_ns))

    def finished(self, span: SpanFacts, result: str | None, at_ns: int, elapsed_ns: int) -> None:
        """Commit the end of a span."""
        self.write(finished(span, result, at_ns, elapsed_ns))

    def finished_as(self, span: SpanFacts, result: str | None, at_ns: int, elapsed_ns: int) -> None:
        """Commit the end of a span whose type and payload became known at its end."""
        self.write(finished_as(span, result, at_ns, elapsed_ns))

    def finished_raw(self, span: SpanFacts, reader: str, text: str, at_ns: int, elapsed_ns: int) -> None:
        """Commit the end of a span, parsed from a raw text by `reader`."""
        self.write(finished_raw(span, reader, text, at_ns, elapsed_ns))

    def register(self, unit: Unit) -> None:
        """Commit a unit that registers or renames a run."""
        self._apply(unit, is_counted=True)

    def restate(self, unit: Unit) -> None:
        """Commit a unit that is no transition of this process, without counting it."""
        self._apply(unit, is_counted=False)

    def _apply(self, unit: Unit, *, is_counted: bool) -> None:
        """Commit a unit after its agent and version are resolved; behind the backlog if units wait."""
        if self.backlog.units:
            self.backlog.put(unit, self._call_s)
            return
        try:
            tally = self.committer.waiting(self._patience()).apply((unit,), self._wait_s)
        except NOT_NOW as error:
            self._failed(unit, error)
            return
        if is_counted:
            self.progress.count(tally)
        self.progress.deferred.raise_kept()

    def write(self, unit: Unit) -> None:
        """Commit a unit whose ids need no resolving; behind the backlog if units wait."""
        progress, backlog = self.progress, self.backlog
        if backlog.units:
            backlog.put(unit, self._call_s)
            return
        try:
            storage = waiting(self._storage, of_a_call(self._answers_s)) if self._is_server else self._storage
            outcome = storage.apply((unit,), wait_s=self._wait_s)[0]
        except Exception as error:
            self._failed(unit, error, is_final=not isinstance(error, NOT_NOW) or isinstance(error, NotStorable))
            return
        if outcome == TAKEN:
            progress.recorded += 1  # without the lock (0.2 µs): CPython switches threads only at calls and jumps
            return
        try:
            tally = self.committer.waiting(self._patience()).settle(unit, outcome)
        except NOT_NOW as error:
            self._failed(unit, error)
            return
        progress.count(tally)
        progress.deferred.raise_kept()

    def _failed(self, unit: Unit, error: Exception, *, is_final: bool = False) -> None:
        """Keep a unit that the storage failed to apply; count it as lost if it would fail again (`is_final`)."""
        let_through(error)
        if is_final:
            self.progress.failed += 1  # by a bug of ours or of the backend's
            self._listener.fault(error)
        else:
            self._put_aside(unit, error)

    def put_aside(self, unit: Unit, error: Exception) -> None:
        """Keep a unit that the storage failed to apply, and commit it later."""
        if isinstance(error, Unconnected):
            self.backlog.put_unreported(unit, self._call_s)
            return
        self.progress.storage_failed(error)
        self.backlog.put(unit, 0.0)
        self._listener.fault(error)

    def _patience(self) -> Patience:
        return of_a_call(self._answers_s) if self._is_server else ENDLESS

    def flush(self, wait_s: float, patience: Patience | None = None) -> bool:
        """Commit all waiting units. Return True if nothing waits any more.

        Also return False if the file was changed from outside in a way that may have lost committed units.

        Args:
            patience: how long to wait for the answers of a server; for each as long as for the flush if None.
        """
        self.progress.deferred.raise_kept()
        patience = patience or Patience(answer_s=max(wait_s, self._call_s))
        return self.backlog.flush(wait_s, max(wait_s, self._wait_s), patience) and self._is_sound(wait_s)

    def _is_sound(self, wait_s: float) -> bool:
        journals = self._journals
        try:
            return journals is None or until_trusted(lambda: journals.has(()), wait_s)
        except NOT_NOW as error:
            self.progress.storage_failed(error)
            self._listener.fault(error)
            return False

    def flush_at_end(self, wait_s: float) -> None:
        """Commit all waiting units at the end of the program."""
        self.flush(wait_s)

    def hurry(self) -> None:
        """Do nothing: there is no journal."""

    def watch(self) -> None:
        """Do nothing: the outcome of each commit has the termination of its run."""

    def release(self, *, for_good: bool = False) -> None:
        """End the thread of the backlog. The owner closes the storage."""
        self.backlog.stop(self._call_s)

    def leave(self) -> None:
        """Do nothing: there are no files and no threads to drop."""
