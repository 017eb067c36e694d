"""Where recorded units go: `write` returns when a unit is durable, or put aside because the storage could not take it.

What could not be written (locked for long, disk full) waits in memory, bounded, and goes first at the next write.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, cast

from agentspan import clock, jsontext
from agentspan.errors import DatabaseBusy, NotStorable, StorageError
from agentspan.interrupts import let_through
from agentspan.locks import Occupied, within
from agentspan.model import spans
from agentspan.model.changes import Move, Put, Refused, Unit, unit_of
from agentspan.model.rows import AgentInstanceRow, WriterRow
from agentspan.model.spans import Times
from agentspan.model.status import FinishStatus
from agentspan.recovery.committer import TAKEN, Committer, Listener, Tally
from agentspan.schemas.meaning import describe
from agentspan.schemas.span_types import title_of
from agentspan.storage.protocol import Storage

if TYPE_CHECKING:
    from agentspan.recording.span import Span

_new = tuple.__new__  # see model.spans

WAIT_S = 0.25
"""The longest that a recording call waits for the storage."""

MAX_WAITING = 10_000
MAX_WAITING_CHARACTERS = 64 * 2**20
BATCH = 500
"""Waiting units that are written in one transaction: what a try costs the call that makes it, at most."""
RETRY_NS = 50_000_000


class Deferred(Listener):
    """Hands outcomes on, and keeps what is raised on the way until all that belongs together is counted."""

    def __init__(self, listener: Listener) -> None:
        self.raised: Exception | None = None
        self._listener = listener
        self.missing = listener.missing  # type: ignore[method-assign]
        self.registered = listener.registered  # type: ignore[method-assign]
        self.terminated = listener.terminated  # type: ignore[method-assign]

    def fault(self, error: Exception) -> None:
        """See Listener."""
        self._keeping(self._listener.fault, error)

    def refused(self, unit: Unit, refused: Refused) -> None:
        """See Listener."""
        self._keeping(self._listener.refused, unit, refused)

    def _keeping(self, call: Callable[..., None], *args: Any) -> None:
        try:
            call(*args)
        except Exception as raised:
            let_through(raised)
            self.raised = self.raised or raised

    def raise_kept(self) -> None:
        """Raise what was kept, once."""
        raised, self.raised = self.raised, None
        if raised is not None:
            raise raised


class Said(Protocol):
    """Takes what a recorder has to say, in order, from any thread.

    That is what the caller knows of a span: times, and payloads as JSON text. Faults never reach the caller.
    """

    def created(self, span: "Span", at_ns: int) -> None:
        """Take a new span, pending or active."""
        ...

    def started(self, span: "Span") -> None:
        """Take note that a pending span is active."""
        ...

    def updated(self, span: "Span", at_ns: int) -> None:
        """Take the changed payload of an open span."""
        ...

    def finished(self, span: "Span", result: str | None, at_ns: int, elapsed_ns: int) -> None:
        """Take note that a span has its last status."""
        ...

    def write(self, unit: Unit) -> None:
        """Take a unit that is about something else than spans."""
        ...


class Sink(Said, Protocol):
    """Makes what it is told durable, as far as it promises; tells its listener of faults."""

    recorded: int
    refused: int
    failed: int
    last_error: str | None

    def put_aside(self, unit: Unit, error: StorageError) -> None:
        """Keep a unit that the storage could not take, for later."""
        ...

    def watch(self) -> None:
        """Learn from now on whether a run of this process, which has begun, is terminated."""
        ...

    def flush(self, wait_s: float) -> bool:
        """Write what waits; tell whether nothing waits any more."""
        ...

    def release(self, *, for_good: bool = False) -> None:
        """Let go of files, after a flush; what is said later takes them again, if that is not for good."""
        ...

    def leave(self) -> None:
        """Let go, in a forked child, of what is its parent's."""
        ...

    @property
    def waiting(self) -> int:
        """How many units are not durable yet."""
        ...

    @property
    def journaled(self) -> int:
        """How many transitions are durable, but not in the storage yet, and not counted as recorded."""
        ...

    @property
    def journaled_bytes(self) -> int:
        """How many bytes they take in the journal."""
        ...

    @property
    def oldest_s(self) -> float:
        """For how long at least the oldest of what is not in the storage has waited; 0.0 where nothing waits."""
        ...


class CommitSink:
    """Commits each unit before `write` returns."""

    def __init__(self, storage: Storage, committer: Callable[[Listener], Committer], listener: Listener) -> None:
        self.recorded = 0
        self.refused = 0
        self.failed = 0
        self.last_error: str | None = None
        self._is_failing = False
        self._waits_since_ns = 0
        self._storage = storage
        self._listener = listener
        self._deferred = Deferred(listener)
        self._committer = committer(self._deferred)
        self._lock = threading.RLock()  # a signal handler, or a collected generator, may record in between
        self._flushing = threading.RLock()  # held by `within`, which does not nest
        self._backlog: deque[Unit] = deque()
        self._characters = 0
        self._retry_ns = 0

    @property
    def journaled(self) -> int:
        """See Sink."""
        return 0

    @property
    def journaled_bytes(self) -> int:
        """See Sink."""
        return 0

    @property
    def oldest_s(self) -> float:
        """See Sink."""
        return (time.monotonic_ns() - self._waits_since_ns) / 1e9 if self._backlog else 0.0

    @property
    def waiting(self) -> int:
        """How many units wait for the storage to take them again."""
        return len(self._backlog)

    def created(self, span: "Span", at_ns: int) -> None:
        """See Sink."""
        span_type, now, text = span._type, clock.to_text(at_ns), span._payload
        payload = jsontext.decode(text)
        span._decoded = (text, payload, at_ns, now)  # its end needs them, too: 1.3 µs
        meaning = describe(span_type, span.schema_name, span.status, payload, None, None, (True, False))
        instance: AgentInstanceRow = span.run._instance  # type: ignore[assignment]  # the run is recorded
        put = spans.created(
            span.id,
            instance.agent_id,
            instance.id,
            span.parent_span_id,
            span.schema_name,
            title_of(span_type, span.schema_name),
            span.status,
            span._payload,
            None,
            _new(Times, (now if span.status == "active" else None, None, None)),
            meaning,
            now,
            writer_id=span._writer_id,
            minted=True,
        )
        self._commit(unit_of(put))

    def started(self, span: "Span") -> None:
        """See Sink."""
        now, payload = clock.to_text(span._started_ns), jsontext.decode(span._payload)
        meaning = describe(span._type, span.schema_name, "active", payload, None, None, (False, False))
        run_id = span.run.id
        move = spans.started(span.id, started_at=now, meaning=meaning, now=now, also_closed=True, instance_id=run_id)
        self._commit(unit_of(move))

    def updated(self, span: "Span", at_ns: int) -> None:
        """See Sink."""
        payload = jsontext.decode(span._payload)
        meaning = describe(span._type, span.schema_name, span.status, payload, None, None, (True, False))
        now, run_id = clock.to_text(at_ns), span.run.id
        self._commit(
            unit_of(spans.updated(span.id, payload=span._payload, meaning=meaning, now=now, instance_id=run_id))
        )

    def finished(self, span: "Span", result: str | None, at_ns: int, elapsed_ns: int) -> None:
        """See Sink."""
        now, status, elapsed_ms = clock.to_text(at_ns), cast(FinishStatus, span.status), elapsed_ns / 1_000_000
        decoded, span._decoded = span._decoded, None
        text, payload, started_ns, started_at = decoded or ("", {}, 0, "")
        if text is not span._payload:
            payload = jsontext.decode(span._payload)
        returned = None if result is None else jsontext.decode(result)
        if status == "cancelled":
            started_at = now
        elif started_ns != span._started_ns:
            started_at = clock.to_text(span._started_ns)
        meaning = describe(span._type, span.schema_name, status, payload, returned, elapsed_ms, (False, True))
        times = _new(Times, (started_at, now, elapsed_ms))
        self._commit(unit_of(spans.finished(span.id, status, result, times, meaning, now, span.run.id)))

    def release(self, *, for_good: bool = False) -> None:
        """See Sink."""

    def leave(self) -> None:
        """See Sink."""

    def watch(self) -> None:
        """See Sink: each commit tells."""

    def put_aside(self, unit: Unit, error: StorageError) -> None:
        """Keep a unit that the storage could not take, for later."""
        with self._lock:
            self._keep(unit)
        self._failing(error)
        self._listener.fault(error)

    def write(self, unit: Unit) -> None:
        """See Sink."""
        self._commit(unit)

    def _commit(self, unit: Unit) -> None:
        if self._backlog:
            with self._lock:
                self._keep(unit)
            if clock.monotonic_ns() >= self._retry_ns:
                # It did not work a moment ago: try, but do not wait for the storage. For other threads that try it does
                # wait: else they fill the memory faster than one of them can empty it.
                self._flush(0.0, clock.monotonic_ns() + int(WAIT_S * 1e9))
            return
        try:
            outcome = self._storage.apply((unit,), wait_s=WAIT_S)[0]
        except Exception as error:
            if isinstance(error, StorageError) and not isinstance(error, NotStorable):
                self.put_aside(unit, error)
                return
            let_through(error)  # what is left is a bug of ours or of the backend's: the same unit would fail again
            self.failed += 1
            self._listener.fault(error)
            return
        if outcome == TAKEN:
            self.recorded += 1  # no lock (0.2 µs): CPython switches threads at calls and jumps, and here is neither
            return
        try:
            tally = self._committer.settle(unit, outcome)
        except StorageError as error:
            self.put_aside(unit, error)
            return
        self._count(tally)
        self._deferred.raise_kept()

    def _count(self, tally: Tally) -> None:
        with self._lock:
            self.recorded += tally.recorded
            self.refused += tally.refused
            self.failed += tally.failed

    def flush(self, wait_s: float) -> bool:
        """See Sink."""
        return self._flush(wait_s, clock.monotonic_ns() + int(max(wait_s, WAIT_S) * 1e9))

    def _flush(self, wait_s: float, deadline_ns: int) -> bool:
        """Write what waits, until a moment; one thread at a time, the others wait for it."""
        try:
            with within(self._flushing, (deadline_ns - clock.monotonic_ns()) / 1e9):
                return self._flush_now(wait_s, deadline_ns)
        except Occupied:  # by another thread; or a signal handler, or a finalizer, comes in the middle of it
            return False

    def _flush_now(self, wait_s: float, deadline_ns: int) -> bool:
        while self._backlog:
            if clock.monotonic_ns() > deadline_ns:
                return False
            with self._lock:
                units = tuple(islice(self._backlog, BATCH))
            try:
                tally = self._committer.apply(units, wait_s)
            except StorageError as error:
                self._retry_ns = clock.monotonic_ns() + RETRY_NS
                self._failing(error)
                return False
            self._taking()
            self._done(units, tally)
        return True

    def _done(self, units: tuple[Unit, ...], tally: Tally) -> None:
        """Take units out of the backlog, and count them.

        Who is interrupted before by a signal handler's exception finds them there still: they are applied again, and
        recognised as stored.
        """
        writers = sum(map(_is_writer, units))  # nobody counts them as transitions
        size = sum(map(_characters, units))
        with self._lock:
            rest = deque(islice(self._backlog, len(units), None))
            self._backlog = rest  # from here no call: an exception comes before all of it, or after
            self._characters -= size
            self.recorded += tally.recorded - writers
            self.refused += tally.refused
            self.failed += tally.failed
        self._deferred.raise_kept()

    def _failing(self, error: Exception) -> None:
        """Note that the storage took nothing; that it was busy is no news."""
        self.last_error = str(error)
        self._is_failing = self._is_failing or not isinstance(error, DatabaseBusy)

    def _taking(self) -> None:
        """Note that the storage took something."""
        self.last_error = None
        if self._is_failing:
            self._is_failing = False
            self._listener.recovered()

    def _keep(self, unit: Unit) -> None:
        size = _characters(unit)
        if len(self._backlog) >= MAX_WAITING or self._characters + size > MAX_WAITING_CHARACTERS:
            self.failed += 1
            return
        if not self._backlog:
            self._waits_since_ns = time.monotonic_ns()  # not by the clock, which a test may count
        self._characters += size
        self._backlog.append(unit)


def _is_writer(unit: Unit) -> bool:
    change = unit.changes[0]
    return isinstance(change, Put) and isinstance(change.row, WriterRow)


def _characters(unit: Unit) -> int:
    size = 0
    for change in unit.changes:
        values = change.row if isinstance(change, Put) else change.set.values() if isinstance(change, Move) else ()
        size += sum(len(value) for value in values if isinstance(value, str))
    return size
