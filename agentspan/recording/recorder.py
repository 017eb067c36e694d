"""Recorder: the storage, capture, sink and context that spans and runs use. It imports neither Span nor Run.

It counts and logs faults, which never reach the recorded program, has weak references to the runs that the program
still holds, and passes the outcomes of changes (terminations, refusals) on to them.
"""

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any

from agentspan import host, ids
from agentspan.errors import DatabaseBusy, DatabaseUnusable, InvalidAction, NotFound, StorageError
from agentspan.host import Renewal, guard, let_through, log, page
from agentspan.journal.names import run_of, with_agents
from agentspan.journal.writers import this_process
from agentspan.model import columns
from agentspan.model.changes import (
    Move,
    Put,
    PutSpans,
    Refused,
    Unit,
    refuse_violations,
    termination_behind,
    unit_of,
)
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.recording.capture.capture import Capture
from agentspan.recording.destination import Destination, RunTypes, Sink, Unread
from agentspan.recording.settings import Settings
from agentspan.recording.sinks.facts import First, NoStorage, RunFacts, RunListener, SpanFacts
from agentspan.schemas.span_types import describe
from agentspan.storage.access import Identity
from agentspan.storage.location import Location
from agentspan.storage.patience import Patience, of_a_call, waiting
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find


class LiveRuns:
    """Weak references to the runs of this process, by id.

    No WeakValueDictionary: it calls a Python function whenever a run is freed, and the interpreter drops an exception
    that a signal handler raises in such a call.

    Attributes:
        unconfirmed: the units that register runs which may not be stored yet, by the id of the run.
    """

    def __init__(self) -> None:
        self.unconfirmed: dict[str, Unit] = {}
        self._runs: dict[str, weakref.ref[RunFacts]] = {}
        self._most = 100

    def add(self, run: RunFacts) -> None:
        """Add a run."""
        self._runs[run.id] = weakref.ref(run)
        if len(self._runs) > self._most:
            for gone in [id for id, each in list(self._runs.items()) if each() is None]:
                self._runs.pop(gone, None)
                self.unconfirmed.pop(gone, None)  # else the dict would grow while the storage is offline
            self._most = 2 * len(self._runs) + 100

    def get(self, id: str) -> RunFacts | None:
        """Return the run with this id; None if the program has dropped it, or it is a run of another process."""
        found = self._runs.get(id)
        return None if found is None else found()

    def inherited(self) -> list[Unit]:
        """In a forked child: return the units that register the parent's runs which the program still holds."""
        self.unconfirmed = {id: unit for id, unit in self.unconfirmed.items() if self.get(id) is not None}
        return [*self.unconfirmed.values()]

    def active(self) -> list[RunFacts]:
        """Return the runs that are active."""
        return [run for each in list(self._runs.values()) if (run := each()) is not None and run.status == "active"]


QUIET_NS = 60_000_000_000
"""The shortest time between two logged recoveries of the storage, in ns, if it fails again and again."""
_STORAGE_FAULTS = {StorageError.__name__, DatabaseUnusable.__name__}


class Faults:
    """Counts and logs the faults of one recorder. Each kind of fault is logged once.

    Args:
        capture: makes the text of an exception, without secrets.
        are_raised: raise faults instead; for tests.
        are_counted: False where recording is disabled: faults are ignored.

    Attributes:
        lost: transitions that could not be recorded.
    """

    def __init__(self, capture: Capture, *, are_raised: bool, are_counted: bool) -> None:
        self.lost = 0
        self._capture = capture
        self._are_raised = are_raised
        self._are_counted = are_counted
        self._logged: set[str] = set()
        self._quiet_until_ns = 0
        self._lock = threading.Lock()

    def count_lost(self) -> None:
        """Count a transition that is not recorded."""
        with self._lock:
            self.lost += self._are_counted

    def lose(self, error: Exception, *, reraise: bool = True) -> None:
        """Count a transition that was not recorded because of a fault or a misuse, and log the error."""
        self.add(error, reraise=reraise, is_loss=True)

    def add(self, error: Exception, *, reraise: bool = True, is_loss: bool = False) -> None:
        """Log a fault once per kind; raise it only for tests.

        Args:
            reraise: whether the fault may be raised; False if an exception would harm the caller.
            is_loss: whether the fault kept a transition from being recorded.
        """
        let_through(error)
        if is_loss:
            self.count_lost()
        if not self._are_counted:
            return
        if self._are_raised and reraise:
            raise error
        kind = type(error).__name__
        if kind not in self._logged:
            self._logged.add(kind)
            message = self._capture.error(error)["message"]  # redacted: a foreign exception may hold secrets
            log.warning("recording: %s: %s (more of this kind are only counted, see agentspan.health())", kind, message)

    def losing(self, *, reraise: bool = True) -> "guard[None]":
        """Return a with-block that hides its fault, which keeps a transition from being recorded (see `lose`)."""
        return guard(report=partial(self.lose, reraise=reraise))

    def adding(self, *, reraise: bool = True) -> "guard[None]":
        """Return a with-block that hides its fault, and logs it (see `add`)."""
        return guard(report=partial(self.add, reraise=reraise))

    def storage_recovered(self) -> None:
        """Log that the storage accepts records again, at most once a minute, and enable the log of its next fault."""
        if self._logged & _STORAGE_FAULTS and time.monotonic_ns() >= self._quiet_until_ns:
            self._quiet_until_ns = time.monotonic_ns() + QUIET_NS
            self._logged -= _STORAGE_FAULTS
            log.warning("recording: the storage takes records again (see agentspan.health())")

    def renew(self) -> None:
        """In a forked child: make a new lock, because a thread of the parent may have held the old one."""
        self._lock = threading.Lock()


PATIENCE_S = 5.0
"""The age of waiting records, in seconds, above which the server counts as offline. In a burst they wait for 3 s."""


class Recorder:
    """Records into one storage.

    Args:
        db: the storage to record into, as in Tracer.
        run_face: makes the Run that a function of the program is called with, from the state of the run.
        broken: the reason why nothing can be recorded. If it is set, no storage is opened.
        open_wait_s: seconds to wait for a file that another process has locked.

    Attributes:
        settings, run_face: as passed.
        tuning: sizes and times.
        enabled: whether the recorder records.
        current: the innermost span or run that a block of agentspan made active, in each thread and task.
        innermost: returns the node under which a new span begins: the current one, or one that is active in the
            context of another tracing library (see otel.processor_traces).
        capture: turns payloads into JSON text.
        types: the span types that runs are registered with.
        registry: finds a span type by its name.
        ids: mints ids.
        writer_id: the id of this process.
        writer: the unit that stores the writer row of this process.
        out: the sink that spans and runs call: at first one that stores the writer row, then `sink`.
        sink: the sink of the storage; None if there is no storage.
        runs: the runs that the program holds.
        unread: makes the units that register and rename runs, without reading the storage.
        faults: counts and logs faults.
        is_strict: whether payloads must match their schemas.
        is_closed: whether the recorder was shut down.

    Raises:
        DatabaseUnusable: the file cannot be used; the message says what to do.
    """

    def __init__(
        self,
        db: str | os.PathLike[str] | Location | Storage | None,
        settings: Settings,
        run_face: Callable[[Any], Any],
        *,
        broken: Exception | None = None,
        open_wait_s: float = 10.0,
    ) -> None:
        if not page[0]:
            host.renew()
        self.settings, self.run_face = settings, run_face
        self.tuning = settings.tuning
        self.enabled = settings.is_enabled
        self.capture = settings.new_capture()
        self.faults = Faults(self.capture, are_raised=settings.raise_errors, are_counted=self.enabled)
        self.is_strict = settings.strict_schemas
        self.types = RunTypes(None if self.capture.redaction is None else self.capture.text)
        self.registry = self.types.registry
        self.current: ContextVar[Any] = ContextVar("agentspan_current", default=None)
        self.innermost: Callable[[], Any] = self.current.get
        self.runs = LiveRuns()
        self.broken = broken
        self.is_closed = self._is_released = False
        self.unread = Unread()
        self._inherited: list[Unit] = []  # registrations by the parent, whose journal may be read after this one's
        self._unknown_writer: Unit | None = None
        self._outcomes = Outcomes(self)
        self.ids = ids.IdSource(0)
        self.sink: Sink | None = None
        self.out: Sink | First | NoStorage = NoStorage(self.faults.count_lost)
        self._destination: Destination | None = None
        if broken is None and self.enabled:
            self._destination = destination = Destination(
                db,
                wants_journal=settings.durability == "journal",
                open_wait_s=open_wait_s,
                tuning=self.tuning,
            )
            self.ids = destination.ids
            self.sink = destination.new_sink(self._outcomes, self._writer_id, self.types)
        self._new_writer()
        _recorders.add(self)

    @property
    def destination(self) -> Destination:
        """The opened storage.

        Raises:
            Exception: no storage is open; the exception is the reason.
        """
        if self._destination is None:
            raise self._why_closed()
        return self._destination

    @property
    def store(self) -> Storage:
        """The plain storage, for recording."""
        return self.destination.store

    @property
    def answering(self) -> Storage:
        """The plain storage, for a read in a thread of the program, which waits as long as one recording call.

        Raises:
            StorageError: the storage is a server that does not answer at present, so the read would wait too long.
        """
        if self.destination.is_server and self.sink is not None:
            counts = self.sink.counts()
            if counts.last_error is not None or counts.oldest_s > PATIENCE_S:
                raise StorageError(f"{self.location} does not answer at present, so nothing was looked up there")
            if not self.destination.is_journaled:
                self.make_writer_known()  # if nothing was recorded yet, this has the backlog's thread connect
                return waiting(self.store, Patience(answer_s=self.tuning.recording_wait_s))
        return self.store

    @property
    def location(self) -> Location | None:
        """The location with which another process can open the storage; None if no other process can."""
        return None if self._destination is None else self._destination.location

    @property
    def is_open(self) -> bool:
        """True if a storage was opened."""
        return self._destination is not None

    @property
    def is_usable(self) -> bool:
        """True unless a fault or a shutdown prevents recording."""
        return self.broken is None and not self.is_closed

    @property
    def is_waiting(self) -> bool:
        """True while units wait in memory for a storage without a journal."""
        return self.sink is not None and not self.destination.is_journaled and self.sink.counts().waiting > 0

    def in_time(self) -> Storage:
        """Return the plain storage for one recording call, whose total wait for a server has a limit from now on."""
        waits = self.destination.is_remote and not self.destination.is_journaled
        return waiting(self.store, of_a_call(self.tuning.recording_wait_s)) if waits else self.store

    def check(self, span: SpanFacts, payload: str | None, result: str | None) -> None:
        """With `strict_schemas`, refuse a payload or a result that does not match its schema.

        Raises:
            ValidationErrors: the payload or the result does not match its schema.
        """
        if self.is_strict:
            decoded = {} if payload is None else columns.read_payload(payload)[0]
            returned = None if result is None else columns.read_payload(result)[0]
            checked = (payload is not None, result is not None)
            meaning = describe(span.span_type, span.schema_name, span.status, decoded, returned, None, checked)
            refuse_violations(meaning.violations, span.schema_name)

    def enter(self, node: Any, entered: list[Any] | None = None) -> None:
        """Make a span or run the active one, inside the one that was active before.

        Args:
            entered: a list of nodes to which the node is added.
        """
        node.outer = self.innermost()
        try:
            self.current.set(node)
            if entered is not None:
                entered.append(node)
        except BaseException:  # from a signal handler, after the call: no block will end it
            if entered and node in entered:
                entered.remove(node)
            self.leave(node)
            raise

    def leave(self, node: Any) -> None:
        """Make the nearest outer node that is still open the active one: blocks may end in any order.

        Not by ContextVar.reset, which raises if a block contains a `yield` and ends in another context.
        """
        if self.current.get() is node:
            outer = node.outer
            while outer is not None and not outer.goes_on():
                outer = outer.outer
            self.current.set(outer)
            node.outer = None  # a span that the program keeps must not keep its outer nodes alive

    def flush(self, wait_s: float) -> bool:
        """Write waiting records for at most `wait_s` seconds. Return True if everything is in the storage."""
        if not page[0]:
            host.renew()
        with self.faults.adding():
            return self.sink is None or self._is_released or self.sink.flush(wait_s)
        return False

    def shutdown(self, wait_s: float) -> None:
        """Flush, and close the storage. A second call does nothing."""
        if self._is_released:
            return
        self.flush(wait_s)
        self.is_closed = True
        self.out = NoStorage(self.faults.count_lost)
        if self.sink is not None:
            self.sink.release(for_good=True)
            self.destination.storage.close()
        self._is_released = True  # last, so that a call interrupted by a signal handler can be repeated

    def release(self) -> None:
        """At the end of the program: flush, and close the files until the next transition."""
        if self.sink is None:
            return
        if not self._is_released:
            with self.faults.adding():
                self.sink.flush_at_end(2.0)
        self.sink.release()

    def renew(self) -> None:
        """In a forked child: record as a new writer, with a new sink."""
        self.faults.renew()
        if self.sink is not None:
            last_id = self.ids.new()
            for spending in self.spendings():
                spending.forked(self.writer_id, last_id)
            runs = self.runs.inherited()
            # The parent may be killed before its writer row is stored; without the row, its runs could never be closed.
            # A journal begins with the row. `_inherited` may hold units of an earlier parent that are not recorded yet.
            is_known = self._unknown_writer is None and self.destination.is_journaled
            self._inherited += runs if is_known or not runs else [self.writer, *runs]
            self.sink.leave()
            self.destination.renew()
            self.sink = self.destination.new_sink(self._outcomes, self._writer_id, self.types)
        self._new_writer()

    def spendings(self) -> list[Any]:
        """Return the sums of the active runs that have a budget."""
        return [run.spending for run in self.runs.active() if run.spending is not None]

    def _writer_id(self) -> str:
        return self.writer_id

    def put_aside(self, unit: Unit, error: StorageError) -> None:
        """Keep the unit of a run's registration that the storage failed to apply, and write it later."""
        assert self.sink is not None
        if unit.subject is not None:
            self.runs.unconfirmed[unit.subject] = unit
        self.sink.put_aside(unit, error)

    def restate(self, registration: Unit) -> None:
        """Register a run that another process began, because the journal of that process may be drained later."""
        self.make_writer_known()
        if self.sink is not None and registration.subject is not None:
            self.runs.unconfirmed[registration.subject] = registration  # for this process's forked children
            self.sink.restate(registration)

    def make_stored(self, run_id: str) -> None:
        """Drain the registration of a run before another process gets its id, if that takes only a moment."""
        if run_id in self.runs.unconfirmed and self.sink is not None:
            self.sink.hurry()

    def _new_writer(self) -> None:
        self.writer_id = self.ids.new()
        self.writer = self._unknown_writer = unit_of(Put(this_process(self.writer_id), minted=True))
        self._file_of_writer: Identity | None = None
        if self.sink is not None and not self.is_closed:
            self.out = First(self._first)

    def _first(self) -> Sink:
        self.make_writer_known()
        assert self.sink is not None
        return self.sink

    def make_writer_known(self) -> None:
        """Store the writer row of this process before its first transition. Two threads may do it; it is stored once.

        If the storage fails now, the row waits in memory, and all later transitions wait behind it. A run without the
        row of its process could never be closed, because nobody could find out whether the process has ended.

        Raises:
            Exception: the recorder has no storage, or was shut down.
        """
        if self.is_closed:
            raise StorageError("this tracer was shut down; it records nothing any more")
        writer = self._unknown_writer  # read once: another thread may set it to None
        if writer is not None:
            if self.sink is None:
                raise self._why_closed()
            for unit in (writer, *self._inherited):  # written twice by two threads or after a signal, stored once
                self.sink.restate(unit)
            self._inherited = []
            self._unknown_writer = None
            if not self.is_closed:
                self.out = self.sink  # later transitions skip these checks

    def follow_file(self) -> None:
        """Store the writer row of this process again if the file was replaced by a new one."""
        if not self.destination.is_file or self.sink is None:
            return
        try:
            file = self.destination.identity()
            if file != self._file_of_writer:
                self.store.apply((self.writer,), wait_s=self.tuning.recording_wait_s)
                self._file_of_writer = file
        except StorageError as error:
            self.sink.put_aside(self.writer, error)

    def _why_closed(self) -> Exception:
        reason = self.broken or StorageError("recording is disabled: there is no storage")
        return reason.with_traceback(None)  # else the traceback grows with each lost run


class Outcomes(RunListener):
    """Receives the outcomes of one recorder's changes, and passes terminations on to its runs."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def fault(self, error: Exception) -> None:
        """Count and log a fault."""
        self._recorder.faults.add(error)

    def recovered(self) -> None:
        """Note that the storage accepts changes again."""
        self._recorder.faults.storage_recovered()

    def terminated(self, storage: Storage, unit: Unit, reason: str) -> None:
        """Notify the terminated run of a unit. Of a unit with spans of several runs, look up which are terminated."""
        change = unit.changes[0]
        try:
            if isinstance(change, PutSpans):
                ids = {row.agent_instance_id for row in change.rows}
                self.learn(storage.ask(Find(*ids)).terminated)
            elif isinstance(change, Put) and isinstance(change.row, AgentSpanRow):
                self.learn({change.row.agent_instance_id: reason})
            elif isinstance(change, Move) and change.type == "agent_span":
                self._tell(storage.ask(Find(change.id, instance_id=change.instance_id)).terminated)
            elif isinstance(change, Move):
                self._tell({change.id: reason})
        except StorageError:  # it is learned at the next look
            pass

    def terminations(self) -> dict[str, str]:
        """Return the reason for each active run that is terminated. Look at what other processes use of its budget."""
        runs = self._recorder.runs.active()
        for spending in self._recorder.spendings():
            spending.look()
        return dict(self._recorder.store.ask(Find(*[run.id for run in runs])).terminated) if runs else {}

    def has_runs(self) -> bool:
        """Return whether a run of this process is active."""
        return bool(self._recorder.runs.active())

    def learn(self, terminations: Mapping[str, str]) -> None:
        """Notify runs of this process that they were terminated. Their `on_terminate` is called at their next span."""
        for id, reason in terminations.items():
            run = self._recorder.runs.get(id)
            if run is not None:
                run.learn(reason)

    def _tell(self, terminations: Mapping[str, str]) -> None:
        """Notify terminated runs, and call their `on_terminate` at once: a run may have no further span to do it."""
        self.learn(terminations)
        for id in terminations:
            run = self._recorder.runs.get(id)
            if run is not None:
                run.tell()

    def refused(self, storage: Storage, unit: Unit, refused: Refused) -> None:
        """Log a refused change; if it was refused because its run is terminated, notify the run instead."""
        terminated_id = termination_behind(refused)
        if terminated_id is None:  # a refusal by a termination is no fault
            self._recorder.faults.add(_refusal(unit, refused))
        elif self._recorder.runs.get(terminated_id) is not None:
            found = storage.ask(Find(terminated_id, instance_id=terminated_id))
            reason = found.terminated.get(terminated_id, "")
            self._tell({terminated_id: reason})

    def missing(self, storage: Storage, unit: Unit) -> Unit | None:
        """Return a unit that can be applied now in place of one whose run was not stored; None if there is none.

        If the file was deleted or replaced, the run is registered again in the new file. A unit may also have been
        refused only because the registration of its run was refused in the same commit.
        """
        with guard(report=self._not_fitting):
            return self._fitting(storage, unit)
        return None

    def _not_fitting(self, error: Exception) -> None:
        if isinstance(error, StorageError):
            raise error
        self._recorder.faults.add(error, reraise=False)

    def _fitting(self, storage: Storage, unit: Unit) -> Unit | None:
        change, recorder, instance_id = unit.changes[-1], self._recorder, run_of(unit)
        if isinstance(change, Move) and instance_id is None:
            found = storage.ask(Find(change.id, instance_id=change.instance_id))
            return unit if change.id in found.rows else None
        if instance_id is None:
            return None
        run = recorder.runs.get(instance_id)
        is_stored = instance_id not in recorder.runs.unconfirmed
        if run is not None and is_stored and run.stored_in == recorder.destination.identity_now(storage):
            run = None  # the run was removed from the storage
        if run is not None:
            storage.apply((recorder.writer,), wait_s=recorder.tuning.recording_wait_s)
            run.register_again(storage)
        waits = run is not None and instance_id in recorder.runs.unconfirmed  # before another thread stores the run
        located = storage.ask(Find(instance_id, instance_id=instance_id)).rows.get(instance_id)
        if not located or not isinstance(located[1], AgentInstanceRow):
            if waits:  # its changes must wait for the run
                raise DatabaseBusy(f"the run {instance_id} is not stored yet; it is tried again")
            return None
        return with_agents(unit, {instance_id: located[1].agent_id})

    def registered(self, storage: Storage, instance: AgentInstanceRow) -> None:
        """Set the stored row of a run, with the agent that the run was registered with."""
        self._recorder.destination.learn(storage)
        self._recorder.follow_file()
        self._recorder.runs.unconfirmed.pop(instance.id, None)
        run = self._recorder.runs.get(instance.id)
        if run is not None:
            run.confirm(instance)


def _refusal(unit: Unit, refused: Refused) -> Exception:
    change = unit.changes[-1]
    assert not isinstance(change, PutSpans)  # a refused unit of several spans is parted into units of one span
    id = change.row.id if isinstance(change, Put) else change.id
    if refused.why == "status":
        status = getattr(refused.stored, "status", "finished")
        return InvalidAction(
            f"{id} was {status} already when this program wanted to change it; somebody else was first"
        )
    return NotFound(f"{id} could not be recorded: the row that it belongs to is not in the file ({refused.why})")


_recorders: weakref.WeakSet[Recorder] = weakref.WeakSet()


def _release_all() -> None:
    if not page[0]:
        return  # a forked child that has recorded nothing
    for recorder in host.members(_recorders):
        with guard(report=_warn_of_the_end):  # raise_errors: the others are due all the same
            recorder.release()


def _warn_of_the_end(error: Exception) -> None:
    log.warning("recording: what waited at the end could not be written: %s", error)


def _share_all() -> None:
    for recorder in host.members(_recorders):
        with guard():  # without memory, each process counts by the file
            for spending in recorder.spendings():
                spending.share()


atexit.register(_release_all)
host.hold(host.Hold.IMPORTS, _share_all, lambda: None)
host.renewal(Renewal.RECORDERS, host.for_each(_recorders, Recorder.renew))
