"""Where recorded units go: `write` returns when a unit is durable, or put aside because the storage could not take it.

What could not be written (locked for long, disk full) waits in memory, bounded, and goes first at the next write.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from agentspan import clock, jsontext
from agentspan.errors import InvalidAction, NotFound, StorageError
from agentspan.model import spans
from agentspan.model.changes import Applied, Move, Outcome, Put, PutSpans, Refused, Unit, unit_of
from agentspan.model.refusals import termination_behind
from agentspan.model.rows import AgentInstanceRow, RefusedChangeRow, WriterRow
from agentspan.model.spans import Times
from agentspan.model.status import FinishStatus
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


class Listener(NamedTuple):
    """Who hears what became of the units.

    Attributes:
        fault: something of ours, or of the storage, went wrong.
        refused: the storage refused a unit; returns what to write instead, so that nothing is lost.
        terminated: the run of a span that was put is terminated, and why.
    """

    fault: Callable[[Exception], None]
    refused: Callable[[Unit, Refused], Unit | None]
    terminated: Callable[[Unit, str], None]


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

    def put_aside(self, unit: Unit, error: StorageError) -> None:
        """Keep a unit that the storage could not take, for later."""
        ...

    def rewrite(self, change: Callable[[Unit], Unit]) -> None:
        """Change what waits."""
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


class CommitSink:
    """Commits each unit before `write` returns."""

    def __init__(self, storage: Storage, listener: Listener) -> None:
        self.recorded = 0
        self.refused = 0
        self.failed = 0
        self._storage = storage
        self._listener = listener
        self._lock = threading.RLock()  # a signal handler, or a collected generator, may record in between
        self._flushing = threading.Lock()
        self._flusher = 0
        self._backlog: deque[Unit] = deque()
        self._characters = 0
        self._retry_ns = 0

    @property
    def journaled(self) -> int:
        """See Sink."""
        return 0

    @property
    def waiting(self) -> int:
        """How many units wait for the storage to take them again."""
        return len(self._backlog)

    def created(self, span: "Span", at_ns: int) -> None:
        """See Sink."""
        span_type, now, payload = span._type, clock.to_text(at_ns), jsontext.decode(span._payload)
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
        self._commit(unit_of(spans.started(span.id, started_at=now, meaning=meaning, now=now)))

    def updated(self, span: "Span", at_ns: int) -> None:
        """See Sink."""
        payload = jsontext.decode(span._payload)
        meaning = describe(span._type, span.schema_name, span.status, payload, None, None, (True, False))
        self._commit(unit_of(spans.updated(span.id, payload=span._payload, meaning=meaning, now=clock.to_text(at_ns))))

    def finished(self, span: "Span", result: str | None, at_ns: int, elapsed_ns: int) -> None:
        """See Sink."""
        now, status, elapsed_ms = clock.to_text(at_ns), cast(FinishStatus, span.status), elapsed_ns / 1_000_000
        payload = jsontext.decode(span._payload)
        returned = None if result is None else jsontext.decode(result)
        started_at = now if status == "cancelled" else clock.to_text(span._started_ns)
        meaning = describe(span._type, span.schema_name, status, payload, returned, elapsed_ms, (False, True))
        times = _new(Times, (started_at, now, elapsed_ms))
        self._commit(unit_of(spans.finished(span.id, status, result, times, meaning, now)))

    def release(self, *, for_good: bool = False) -> None:
        """See Sink."""

    def leave(self) -> None:
        """See Sink."""

    def rewrite(self, change: Callable[[Unit], Unit]) -> None:
        """See Sink."""
        with self._lock:
            for _ in range(len(self._backlog)):
                self._backlog.append(change(self._backlog.popleft()))

    def put_aside(self, unit: Unit, error: StorageError) -> None:
        """Keep a unit that the storage could not take, for later."""
        with self._lock:
            self._keep(unit)
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
        except StorageError as error:
            self.put_aside(unit, error)
            return
        except Exception as error:  # a bug of ours or of the backend's: the same unit would fail again
            self._failed(error)
            return
        if type(outcome) is Refused:
            self._refused(unit, outcome)
            return
        self.recorded += 1  # no lock (0.2 µs): CPython switches threads at calls and jumps, and here is neither
        terminated = outcome.terminated  # type: ignore[union-attr]  # without a key, it is Applied
        if terminated is not None:
            self._listener.terminated(unit, terminated)

    def flush(self, wait_s: float) -> bool:
        """See Sink."""
        return self._flush(wait_s, clock.monotonic_ns() + int(max(wait_s, WAIT_S) * 1e9))

    def _flush(self, wait_s: float, deadline_ns: int) -> bool:
        """Write what waits, until a moment; one thread at a time, the others wait for it."""
        if self._flusher == threading.get_ident():  # a signal handler, or a finalizer, in the middle of it
            return False
        if not self._flushing.acquire(timeout=max(0.0, (deadline_ns - clock.monotonic_ns()) / 1e9)):
            return False
        self._flusher = threading.get_ident()
        try:
            while self._backlog:
                if clock.monotonic_ns() > deadline_ns:
                    return False
                with self._lock:
                    units = tuple(islice(self._backlog, BATCH))
                try:
                    outcomes = self._apply_all(units, wait_s)
                except StorageError:
                    self._retry_ns = clock.monotonic_ns() + RETRY_NS
                    return False
                self._done(units, outcomes)
                if len(outcomes) < len(units):
                    return False
        finally:
            self._flusher = 0
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
        done = len(outcomes)  # fewer than units where the storage stopped to take any
        with self._lock:
            for unit, outcome in zip(units[:done], outcomes, strict=True):
                self._backlog.popleft()
                self._characters -= _characters(unit)
                self.recorded += not isinstance(outcome, Refused | Exception) and not _is_writer(unit)
        self._settle(units[:done], outcomes)

    def _settle(self, units: Sequence[Unit], outcomes: Sequence[Outcome | Exception]) -> None:
        """Deal with what became of units, but for counting those that are in the storage."""
        for unit, outcome in zip(units, outcomes, strict=True):
            if isinstance(outcome, Refused):
                self._refused(unit, outcome)
            elif isinstance(outcome, Exception):
                self._failed(outcome)
            elif isinstance(outcome, Applied) and outcome.terminated is not None:
                self._listener.terminated(unit, outcome.terminated)

    def _failed(self, error: Exception) -> None:
        with self._lock:
            self.failed += 1
        self._listener.fault(error)

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
        instead = self._listener.refused(unit, outcome)
        kept = instead is not None and self._write_instead(instead)
        with self._lock:
            if not kept:
                self.failed += 1
            elif _is_refusal(instead):
                self.refused += 1
            else:
                self.recorded += 1
                return
        if termination_behind(outcome) is None:  # else it was to be expected
            self._listener.fault(_refusal(unit, outcome))

    def _write_instead(self, unit: Unit) -> bool:
        try:
            return type(self._storage.apply((unit,), wait_s=WAIT_S)[0]) is Applied
        except Exception as error:
            self._listener.fault(error)
            return False


def _is_writer(unit: Unit) -> bool:
    change = unit.changes[0]
    return isinstance(change, Put) and isinstance(change.row, WriterRow)


def _is_refusal(unit: Unit | None) -> bool:
    change = None if unit is None else unit.changes[0]
    return isinstance(change, Put) and isinstance(change.row, RefusedChangeRow)


def _characters(unit: Unit) -> int:
    size = 0
    for change in unit.changes:
        values = change.row if isinstance(change, Put) else change.set.values() if isinstance(change, Move) else ()
        size += sum(len(value) for value in values if isinstance(value, str))
    return size


def _refusal(unit: Unit, refused: Refused) -> Exception:
    change = unit.changes[-1]
    assert not isinstance(change, PutSpans)  # nothing is refused before it stands alone
    id = change.row.id if isinstance(change, Put) else change.id
    if refused.why == "status":
        status = getattr(refused.stored, "status", "finished")
        return InvalidAction(
            f"{id} was {status} already when this program wanted to change it; somebody else was first"
        )
    return NotFound(f"{id} could not be recorded: the row that it belongs to is not in the file ({refused.why})")
