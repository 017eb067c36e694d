"""Recorder: the storage, capture, sink and context that spans and runs use. It imports neither Span nor Run.

It counts and logs faults, which never reach the recorded program, and has weak references to the runs that the program
still holds.
"""

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple, Protocol

from agentspan import clock, host, ids
from agentspan.errors import DatabaseBusy, DatabaseUnusable, StorageError
from agentspan.host import Renewal, guard, let_through, page
from agentspan.journal.writers import this_process
from agentspan.model import registration, sensitive
from agentspan.model.changes import Applied, Put, Unit, unit_of
from agentspan.model.refusals import refuse_violations
from agentspan.model.registration import References, Referred, Registration
from agentspan.model.rows import AgentInstanceRow, AgentRow, AgentSchemaVersionRow, AgentVersionRow
from agentspan.model.status import InstanceStatus
from agentspan.recording.capture.capture import Capture
from agentspan.recording.destination import Destination, RunTypes
from agentspan.recording.settings import Settings
from agentspan.recording.sinks.protocol import First, NoStorage, RunListener, Sink, SpanFacts, SpanSink
from agentspan.schemas.meaning import describe
from agentspan.storage.access import Identity, check_unused, expect, references, unique
from agentspan.storage.location import Location
from agentspan.storage.patience import in_a_call
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find

ATTEMPTS = 20


MAX_KEPT = 1000
"""The number of rows of versions and schema versions that a process keeps in memory."""


class Unread:
    """Makes the units that register and rename runs, without reading the storage.

    The first unit of an agent mints an id for the agent, which later units repeat. If the agent is stored under another
    id, `journal.names` replaces the minted id.
    """

    def __init__(self) -> None:
        self._agents: dict[str, AgentRow] = {}
        self._versions: dict[tuple[str, str], AgentVersionRow] = {}
        self._schemas: dict[tuple[str, str], AgentSchemaVersionRow] = {}

    def registration(self, wanted: Registration, new_id: Callable[[], str]) -> tuple[Unit, AgentInstanceRow]:
        """Return the unit that registers a run, and the row of the run, which has no agent_id yet."""
        now = clock.now()
        unit = Unit(registration.registration(wanted, self._referred(wanted, new_id, now), new_id, now), wanted.id)
        return unit, _instance(unit)

    def renaming(self, wanted: Registration, new_id: Callable[[], str]) -> Unit:
        """Return the unit that changes the agent and the version of a registered run to those of `wanted`."""
        return Unit(registration.renaming(wanted.id, self._referred(wanted, new_id, clock.now())))

    def _referred(self, wanted: Registration, new_id: Callable[[], str], now: str) -> Referred:
        version, schema = wanted.version.external_identifier, wanted.schema.content_hash
        agent, of_version, of_schema = wanted.agent, (wanted.agent, version), (wanted.agent, schema)
        known = _of_one_agent(self._agents.get(agent), self._versions.get(of_version), self._schemas.get(of_schema))
        _, referred = registration.references(wanted, known, new_id, now)
        if len(self._versions) + len(self._schemas) > MAX_KEPT:
            self._agents, self._versions, self._schemas = {}, {}, {}
        self._agents[agent], self._versions[of_version], self._schemas[of_schema] = referred
        return referred


def _of_one_agent(
    agent: AgentRow | None, version: AgentVersionRow | None, schema: AgentSchemaVersionRow | None
) -> References:
    """Return the known rows of one agent only: another thread may have minted a second id between two look-ups."""
    id = None if agent is None else agent.id
    own_version = version if version is not None and version.agent_id == id else None
    return References(agent, own_version, schema if schema is not None and schema.agent_id == id else None)


class Registered(NamedTuple):
    """The row of a registered run, and whether it is stored. If not, its unit is kept and written later."""

    instance: AgentInstanceRow
    is_stored: bool


def register(
    storage: Storage,
    wanted: Registration,
    new_id: Callable[[], str],
    put_aside: Callable[[Unit, StorageError], None],
    *,
    wait_s: float,
) -> Registered:
    """Register a run, with its agent, version and schema version if they are new.

    Args:
        new_id: mints the PFID of each new row besides the instance.
        put_aside: receives the unit if the storage fails to apply it, to write it later.
        wait_s: seconds to wait for other writers.

    Raises:
        InvalidValue: another row has the id of the instance already.
        NotFound, UnexpectedRefType: the agent's name is a PFID, and no agent has this PFID.
        StorageError: the storage cannot be read.
    """
    for _ in range(ATTEMPTS):
        named = [wanted.agent] if ids.is_pfid(wanted.agent) else []
        found = storage.ask(Find(*([] if wanted.minted else [wanted.id]), *named))
        check_unused(found, None if wanted.minted else wanted.id)
        if named:
            agent: AgentRow | None = expect(found, AgentRow, wanted.agent)
        else:
            agent = unique(storage, AgentRow, external_identifier=wanted.agent)
        stored = references(storage, agent, wanted.version.external_identifier, wanted.schema.content_hash)
        unit = Unit(registration.register(wanted, stored, new_id, clock.now()), wanted.id)
        try:
            outcome = storage.apply([unit], wait_s=wait_s)[0]
        except StorageError as error:
            put_aside(unit, error)
            return Registered(_instance(unit), is_stored=False)
        if isinstance(outcome, Applied):
            return Registered(_instance(unit), is_stored=True)
    raise DatabaseBusy(f"other writers changed the same rows {ATTEMPTS} times in between; try again")


def stored_run(storage: Storage, agent: str, id: str, key: str) -> AgentInstanceRow | None:
    """Return the stored run with this id, else the agent's run with `key` as external_identifier, else None."""
    stored = unique(storage, AgentInstanceRow, id=id)
    if stored is not None:
        return stored
    named = unique(storage, AgentRow, external_identifier=agent)
    return named and unique(storage, AgentInstanceRow, agent_id=named.id, external_identifier=key)


def refer(storage: Storage, wanted: Registration, new_id: Callable[[], str], *, wait_s: float) -> Referred:
    """Store the agent, the version and the schema version of a run if they are new; return them.

    Raises:
        StorageError: the storage fails.
    """
    for _ in range(ATTEMPTS):
        agent = unique(storage, AgentRow, external_identifier=wanted.agent)
        stored = references(storage, agent, wanted.version.external_identifier, wanted.schema.content_hash)
        changes, referred = registration.references(wanted, stored, new_id, clock.now())
        if not changes or isinstance(storage.apply([Unit(tuple(changes))], wait_s=wait_s)[0], Applied):
            return referred
    raise DatabaseBusy(f"other writers changed the same rows {ATTEMPTS} times in between; try again")


def _instance(unit: Unit) -> AgentInstanceRow:
    (row,) = (change.row for change in unit.changes if isinstance(change, Put) and change.row.id == unit.subject)
    assert isinstance(row, AgentInstanceRow)
    return row


class LiveRun(Protocol):
    """A run that may be terminated from outside, or registered again."""

    @property
    def id(self) -> str:
        """The agent instance's PFID."""
        ...

    @property
    def status(self) -> InstanceStatus:
        """The status, as far as this process knows."""
        ...

    registered_row: AgentInstanceRow | None
    stored_in: Identity | None

    def learn(self, reason: str) -> None:
        """Set the run to terminated, with the reason of the first termination."""

    def tell(self) -> None:
        """Call the program's `on_terminate` function, once in a run."""

    def confirm(self, stored: AgentInstanceRow) -> None:
        """Take the row with which it is stored."""
        ...

    def register_again(self) -> None:
        """Register in a file that replaced the one that knew this run, unless the run is known there."""
        ...


class LiveRuns:
    """Weak references to the runs of this process, by id.

    No WeakValueDictionary: it calls a Python function whenever a run is freed, and the interpreter drops an exception
    that a signal handler raises in such a call.

    Attributes:
        unconfirmed: the units that register runs which may not be stored yet, by the id of the run.
    """

    def __init__(self) -> None:
        self.unconfirmed: dict[str, Unit] = {}
        self._runs: dict[str, weakref.ref[LiveRun]] = {}
        self._most = 100

    def add(self, run: LiveRun) -> None:
        """Add a run."""
        self._runs[run.id] = weakref.ref(run)
        if len(self._runs) > self._most:
            for gone in [id for id, each in list(self._runs.items()) if each() is None]:
                self._runs.pop(gone, None)
                self.unconfirmed.pop(gone, None)  # else the dict would grow while the storage is offline
            self._most = 2 * len(self._runs) + 100

    def get(self, id: str) -> LiveRun | None:
        """Return the run with this id; None if the program has dropped it, or it is a run of another process."""
        found = self._runs.get(id)
        return None if found is None else found()

    def inherited(self) -> list[Unit]:
        """In a forked child: return the units that register the parent's runs which the program still holds."""
        self.unconfirmed = {id: unit for id, unit in self.unconfirmed.items() if self.get(id) is not None}
        return [*self.unconfirmed.values()]

    def active(self) -> list[LiveRun]:
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
        let_through(error)
        self.count_lost()
        self.add(error, reraise=reraise)

    def add(self, error: Exception, *, reraise: bool = True) -> None:
        """Log a fault once per kind; raise it only for tests.

        Args:
            reraise: whether the fault may be raised; False if an exception would harm the caller.
        """
        let_through(error)
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


log = logging.getLogger("agentspan")

PATIENCE_S = 5.0
"""The age of waiting records, in seconds, above which the server counts as offline. In a burst they wait for 3 s."""


class Recorder:
    """Records into one storage.

    Args:
        db: the storage to record into, as in Tracer.
        outcomes: makes the receiver of outcomes.
        broken: the reason why nothing can be recorded. If it is set, no storage is opened.
        open_wait_s: seconds to wait for a file that another process has locked.

    Attributes:
        settings: the settings that were passed.
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
        outcomes: "Callable[[Recorder], RunListener]",
        *,
        broken: Exception | None = None,
        open_wait_s: float = 10.0,
    ) -> None:
        if not page[0]:
            host.renew()
        self.settings = settings
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
        self._outcomes = outcomes(self)
        self.ids = ids.IdSource(0)
        self.sink: Sink | None = None
        self.out: SpanSink = NoStorage(self.faults.count_lost)
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
        """The plain storage, for a read in a thread of the program.

        Raises:
            StorageError: the storage is a server that does not answer at present, so the read would wait too long.
        """
        if self.destination.is_server and self.sink is not None:
            counts = self.sink.counts()
            if counts.last_error is not None or counts.oldest_s > PATIENCE_S:
                raise StorageError(f"{self.location} does not answer at present, so nothing was looked up there")
            if not self.destination.is_journaled:
                self.make_writer_known()  # if nothing was recorded yet, this has the backlog's thread connect
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

    def in_time(self) -> AbstractContextManager[None]:
        """Return a with-block that limits this thread's total wait for a server to the limit of one recording call."""
        waits = self.destination.is_remote and not self.destination.is_journaled
        return in_a_call(self.tuning.recording_wait_s) if waits else nullcontext()

    def check(self, span: SpanFacts, payload: str | None, result: str | None) -> None:
        """With `strict_schemas`, refuse a payload or a result that does not match its schema.

        Raises:
            ValidationErrors: the payload or the result does not match its schema.
        """
        if self.is_strict:
            decoded = {} if payload is None else sensitive.read(payload)[0]
            returned = None if result is None else sensitive.read(result)[0]
            checked = (payload is not None, result is not None)
            meaning = describe(span.span_type, span.schema_name, span.status, decoded, returned, None, checked)
            refuse_violations(meaning.violations, span.schema_name)

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
            runs = self.runs.inherited()
            # The parent may be killed before its writer row is stored; without the row, its runs could never be closed.
            # A journal begins with the row. `_inherited` may hold units of an earlier parent that are not recorded yet.
            is_known = self._unknown_writer is None and self.destination.is_journaled
            self._inherited += runs if is_known or not runs else [self.writer, *runs]
            self.sink.leave()
            self.destination.renew()
            self.sink = self.destination.new_sink(self._outcomes, self._writer_id, self.types)
        self._new_writer()

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


_recorders: weakref.WeakSet[Recorder] = weakref.WeakSet()


def _release_all() -> None:
    if not page[0]:
        return  # a forked child that has recorded nothing
    for recorder in host.members(_recorders):
        with guard(report=_warn_of_the_end):  # raise_errors: the others are due all the same
            recorder.release()


def _warn_of_the_end(error: Exception) -> None:
    log.warning("recording: what waited at the end could not be written: %s", error)


def _renew_all() -> None:
    for recorder in host.members(_recorders):
        recorder.renew()


atexit.register(_release_all)
host.renewal(Renewal.RECORDERS, _renew_all)
