"""A recorder: one storage, the context in which its spans nest, and the guard that keeps faults away from the host."""

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple, ParamSpec, TypeVar, overload

from agentspan import forks, ids, jsontext
from agentspan.errors import AgentTerminated, DatabaseUnusable, InvalidValue, StorageError
from agentspan.forks import Renewal, page
from agentspan.interrupts import let_through
from agentspan.journal import place
from agentspan.model.changes import Put, Unit, unit_of
from agentspan.model.refusals import refuse_violations
from agentspan.model.schema_versions import SchemaFields, fields_of
from agentspan.model.status import Purpose, SpanStatus
from agentspan.recording import disabled
from agentspan.recording import run as runs
from agentspan.recording.block import DEFAULT_TYPE, SpanBlock, block
from agentspan.recording.capture.arguments import Arguments
from agentspan.recording.capture.capture import Capture
from agentspan.recording.capture.limits import Limits
from agentspan.recording.capture.redaction import Redaction, Rule
from agentspan.recording.generators import Reduce
from agentspan.recording.outcomes import Outcomes
from agentspan.recording.propagation import Propagated
from agentspan.recording.run import OnTerminate, Run
from agentspan.recording.sink import WAIT_S, CommitSink, Said, Sink
from agentspan.recording.span import Span
from agentspan.recording.stand_ins import First, Nowhere
from agentspan.recovery.committer import Committer, Listener
from agentspan.recovery.opening import open_storage
from agentspan.recovery.registries import Registries
from agentspan.recovery.writers import program_name, this_process
from agentspan.schemas import span_types
from agentspan.schemas.meaning import describe
from agentspan.schemas.span_types import SpanType
from agentspan.storage.location import Location
from agentspan.storage.protocol import Storage

if place.is_possible():  # early: what is imported late is taken apart first when the interpreter ends
    from agentspan.recording.journal_sink import JournalSink, Surroundings

P = ParamSpec("P")
R = TypeVar("R")

Durability = Literal["journal", "commit"]

log = logging.getLogger("agentspan")

QUIET_NS = 60_000_000_000
"""How long a storage that fails and recovers again and again is not logged anew."""


class Health(NamedTuple):
    """How recording goes, counted in transitions since the tracer was made.

    `recorded` are on disk, in the storage or in the journal before it (`flush` tells whether all are in the storage);
    `waiting` could not be written yet and are tried again; `failed` are lost.
    `redacted` counts the texts and values that were kept out of the file, `refused` the transitions that came too late:
    they are in the table `refused_changes`.
    `journaled_bytes` of records are in the journal and not in the storage yet. `oldest_s` is for how many seconds, at
    least, the oldest of what is not in the storage has waited. `last_error` says why the storage took nothing when it
    was tried last; it is None where the storage took something.
    """

    recorded: int = 0
    failed: int = 0
    waiting: int = 0
    redacted: int = 0
    refused: int = 0
    journaled_bytes: int = 0
    oldest_s: float = 0.0
    last_error: str | None = None


class Tracer:
    """Records into one storage. The functions of the package use one; make more for those who want two.

    Args:
        db: a file, `":memory:"` or a Storage; AGENTSPAN_DB, else ./agentspan.db, when left out.
        raise_errors: raise agentspan's own faults instead of counting and logging them; for tests.
        strict_schemas: do not record a payload that does not match its schema; a result that does not makes its
            span fail.
        redact: what is kept out of the file. "credentials": passwords, API keys, tokens, private keys, by the name of
            a member and by their look. A function adds a rule of one's own: it takes the name of a member and its
            text, number, boolean or None, and returns what to record instead, or the same. None: nothing.
        limits: how much of a payload is kept.
        durability: "journal": every transition is on disk before the call returns, in a journal beside the file, and in
            the file a moment later; "commit": it is in the file itself. A database that is no file, or lies where no
            journal can be, has the latter.
        enabled: False: record nothing, make no file, and cost a decorated call 0.2 µs; True: record, whatever the
            environment says; None: record, but where AGENTSPAN_DISABLED is set.

    Attributes:
        enabled: whether it records.
        storage: where it records; `agentspan.open(tracer.storage)` reads it back. A disabled one has none.

    Raises:
        DatabaseUnusable: the file cannot be used; the message says what to do.
    """

    enabled: bool
    storage: Storage

    def __init__(
        self,
        db: str | os.PathLike[str] | Location | Storage | None = None,
        *,
        raise_errors: bool = False,
        strict_schemas: bool = False,
        redact: Rule | Literal["credentials"] | None = "credentials",
        limits: Limits | None = None,
        durability: Durability = "journal",
        enabled: bool | None = None,
        _broken: Exception | None = None,
        _open_wait_s: float = 10.0,
    ) -> None:
        if not page[0]:
            forks.renew()
        if durability not in ("journal", "commit"):
            raise InvalidValue("durability", 'must be "journal" or "commit"')
        if redact is not None and redact != "credentials" and not callable(redact):
            raise InvalidValue("redact", 'must be "credentials", a function of a name and a value, or None')
        redaction = None if redact is None else Redaction(redact if callable(redact) else None)
        self._capture = Capture(limits or Limits(), redaction)
        self._settings: dict[str, Any] = {
            "raise_errors": raise_errors,
            "strict_schemas": strict_schemas,
            "redact": redact,
            "limits": limits,
            "durability": durability,
            "enabled": enabled,
        }
        self.enabled = enabled if enabled is not None else not disabled.by_environment()
        self._raise_errors = raise_errors
        self._registry = span_types.REGISTRY
        self._current: ContextVar[Span | Run | None] = ContextVar("agentspan_current", default=None)
        self._logged: set[str] = set()
        self._quiet_until_ns = 0
        self._lock = threading.Lock()
        self._lost_count = 0
        self._broken = _broken
        self._closed = self._is_released = False
        self._content: tuple[int, SchemaFields | None] = (0, None)
        self._first_version: int | None = None  # of the span types that a run was registered with
        self._runs = runs.Runs()
        self._sink: Sink | None = None
        self._ids = ids.IdSource(0)
        self._unknown_writer: Put | None = None
        self._registrations: dict[str, Unit] = {}  # of runs, as far as they may not be stored yet
        self._inherited: list[Unit] = []  # the same of the parent, whose journal may be read after this one's
        self._strict = strict_schemas
        self._out: Said = Nowhere(self._count_unrecorded)
        if _broken is None and self.enabled:
            opened = open_storage(db, wait_s=_open_wait_s)
            self.storage, self._store, self._file = opened
            waiting = self._store.capabilities().waiting
            if waiting is not None:
                waiting.wait_at_most(WAIT_S)
            self._journals = durability == "journal" and self._may_journal()
            self._account = self._store.account()
            self._ids = ids.IdSource(self._account.partition)
            self._registries = Registries()
            self._sink = self._new_sink()
        self._new_writer()
        _tracers.add(self)

    @overload
    def span(self, fn: Callable[P, R], /) -> Callable[P, R]: ...
    @overload
    def span(
        self,
        schema_name: str = DEFAULT_TYPE,
        payload: Mapping[str, Any] | None = None,
        *,
        reduce: Reduce | None = None,
    ) -> SpanBlock: ...
    def span(self, schema_name: Any = DEFAULT_TYPE, payload: Any = None, *, reduce: Any = None) -> Any:
        """Record a step: a with-block, or a decorator (see agentspan.span)."""
        return block(lambda: self, schema_name, payload, reduce)

    def run(
        self,
        name: str,
        *,
        version: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        purpose: Purpose = "live",
        on_terminate: OnTerminate | None = None,
    ) -> Run:
        """Record a run of an agent: a with-block, or a decorator (see agentspan.run)."""
        return Run(lambda: self, name, version=version, metadata=metadata, purpose=purpose, on_terminate=on_terminate)

    def propagate(self, fn: Callable[P, R]) -> Callable[P, R]:
        """Carry what is active here to where `fn` will be called (see agentspan.propagate)."""
        return Propagated(fn, self)

    def current_span(self) -> Span | None:
        """Return the innermost span that is active here, in this thread or task."""
        node = self._current.get()
        return node if type(node) is Span else None if self.enabled else self._unrecorded(DEFAULT_TYPE)

    def current_run(self) -> Run | None:
        """Return the run that is active here, in this thread or task."""
        node = self._current.get()
        run = node.run if type(node) is Span else node if type(node) is Run else None
        return disabled.run_of(self) if run is None and not self.enabled else run

    def health(self) -> Health:
        """Count what was recorded, what waits, and what is lost."""
        if not page[0]:
            forks.renew()
        redaction, sink = self._capture.redaction, self._sink
        redacted = 0 if redaction is None else redaction.count
        if sink is None:
            return Health(0, self._lost_count, 0, redacted)
        return Health(
            sink.recorded + sink.journaled,
            sink.failed + self._lost_count,
            sink.waiting,
            redacted,
            sink.refused,
            sink.journaled_bytes,
            round(sink.oldest_s, 3),
            sink.last_error,
        )

    def flush(self, wait_s: float = 5.0) -> bool:
        """Write what waits, for at most `wait_s` seconds; tell whether everything is in the storage."""
        if not page[0]:
            forks.renew()
        try:
            return self._sink is None or self._is_released or self._sink.flush(wait_s)
        except Exception as error:
            self._fault(error)
            return False

    def shutdown(self, wait_s: float = 5.0) -> None:
        """Flush and close the storage; what is recorded afterwards is counted as failed. Twice is fine."""
        if self._is_released:
            return
        self.flush(wait_s)
        self._closed = True
        self._out = Nowhere(self._count_unrecorded)
        if self._sink is not None:
            self._sink.release(for_good=True)
            self.storage.close()
        self._is_released = True  # last: who was interrupted in the middle of this may ask for it again

    def _is_usable(self) -> bool:
        return self._broken is None and not self._closed

    def _begin(self, schema_name: str, payload: Mapping[str, Any] | None, text: str = "{}") -> Span:
        """Create an active span under what is active here, and make it the active one.

        Args:
            payload: what goes in; None where `text` says it.
            text: the payload as JSON.
        """
        if not page[0]:
            forks.renew()
        node = self._current.get()
        kind = type(node)
        if kind is Span:
            span = Span(self, node.run, node.id or node.parent_span_id, schema_name)  # type: ignore[union-attr]
        elif kind is Run:
            span = Span(self, node, None, schema_name)  # type: ignore[arg-type]
        else:
            span = Span(self, runs.implicit(self, program_name()), None, schema_name)
            span._owns_run = True
        try:
            span._create(text if payload is None else self._capture.object(payload), "active")
        except Exception as error:
            self._lost(span, "active", error)
        if span.run.termination_reason is not None:
            self._stop(span)
        span._outer = node
        try:
            self._current.set(span)
        except BaseException as error:  # from a signal handler, after the call: no block will end it
            span._leave(error)
            raise
        return span

    def _begin_call(
        self,
        schema_name: str,
        arguments: Arguments,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        payload: Mapping[str, Any] | None,
    ) -> Span:
        """Create the span of a decorated call; its payload is what its type wants to know of the call."""
        fields = self._registry.resolve(schema_name).fields
        try:
            bound = arguments.bind(args, kwargs)
            if payload is None and "arguments" in fields and "name" in fields:
                text = self._capture.call(arguments.name, arguments.head, bound)
            else:
                if "arguments" in fields or ("name" in fields and "name" in bound):
                    bound = {"name": arguments.name, "arguments": bound} if "name" in fields else {"arguments": bound}
                elif "name" in fields:
                    bound = {"name": arguments.name, **bound}
                text = self._capture.object(bound if payload is None else {**bound, **payload})
        except Exception as error:
            text = "{}"
            self._fault(error)
        return self._begin(schema_name, None, text)

    def _unrecorded(self, schema_name: str, run: Run | None = None, status: SpanStatus = "active") -> Span:
        """Return what stands for a span while recording is disabled."""
        node = run or self._current.get()  # blocks of runs are entered all the same
        return disabled.DisabledSpan(self, node if type(node) is Run else None, schema_name, status)

    def _create(self, span: Span, payload: Mapping[str, Any], status: SpanStatus) -> None:
        """Store a new span that does not become the active one."""
        try:
            span._create(self._capture.object(payload), status)
        except Exception as error:
            self._lost(span, status, error)
        if span.run.termination_reason is not None:
            self._stop(span)

    def _stop(self, span: Span) -> None:
        """Do what a run that is terminated asked for, before another of its spans begins: tell it, or raise."""
        try:
            span.run._tell()
            if span.run._on_terminate == "raise":
                raise AgentTerminated(span.run.id, span.run.termination_reason or "")
        except BaseException as error:
            span._stopped(error)
            raise

    def _lost(self, span: Span, status: SpanStatus, error: Exception) -> None:
        span.status = status
        self._lose(error)

    def _enter(self, node: Span | Run) -> Span | Run | None:
        node._outer = outer = self._current.get()
        try:
            self._current.set(node)
        except BaseException:  # from a signal handler, after the call
            self._exit(node)
            raise
        return outer

    def _exit(self, node: Span | Run) -> None:
        """Give the context back to what is active around `node`: blocks may end in another order than they began.

        Not by ContextVar.reset: it raises where a block straddles a `yield` and ends in another context.
        """
        if self._current.get() is node:
            outer = node._outer
            while outer is not None and not outer._goes_on():
                outer = outer._outer
            self._current.set(outer)
            node._outer = None  # a span that is kept must not keep those around it

    def _new_sink(self) -> Sink:
        outcomes = Outcomes(self)
        if not self._journals:
            return CommitSink(self._store, self._new_committer, outcomes)
        with forks.importing:
            from agentspan.recovery.adopting import Adoption

        path = self._file
        assert path is not None  # else there is no journal
        adoption = Adoption(lambda: nullcontext(self._store), path)
        around = Surroundings(path, lambda: self._writer_id, self._new_committer, adoption, self._late_types)
        return JournalSink(self._store, outcomes, around)

    def _new_committer(self, listener: Listener) -> Committer:
        return Committer(
            self._store,
            lambda: self._writer_id,
            self._ids,
            resolve=self._resolve,
            registries=self._registries,
            listener=listener,
            wait_s=WAIT_S,
        )

    def _may_journal(self) -> bool:
        if self._file is None:
            return False
        why_not = place.why_not(self._file)
        if why_not is not None and why_not not in _said:
            _said.add(why_not)
            log.log(logging.WARNING if place.is_possible() else logging.INFO, "recording by commits: %s", why_not)
        return why_not is None

    def _resolve(self, instance_id: str, schema_name: str) -> SpanType:
        return self._registry.resolve(schema_name)

    def _put_aside(self, unit: Unit, error: StorageError) -> None:
        if unit.subject is not None:
            self._registrations[unit.subject] = unit
        self._sink_of_all().put_aside(unit, error)

    def _may_be_unstored(self, instance_id: str) -> bool:
        """Tell whether the registration of a run may be on its way to the storage, in this process or its parent."""
        return instance_id in self._registrations

    def _sink_of_all(self) -> Sink:
        assert self._sink is not None
        return self._sink

    def _open_storage(self) -> Storage:
        if self._broken is not None:
            raise self._broken
        return self._store

    def _new_writer(self) -> None:
        self._writer_id = self._ids.new()
        self._unknown_writer = Put(this_process(self._writer_id), minted=True)
        if self._sink is not None and not self._closed:
            self._out = First(self._first)

    def _first(self) -> Sink:
        self._make_writer_known()
        return self._sink_of_all()

    def _check(self, span: Span, payload: str | None, result: str | None) -> None:
        """Refuse a payload, or a result, that does not match its schema, if that was asked for.

        Raises:
            ValidationErrors: it does not.
        """
        if self._strict:
            given = {} if payload is None else jsontext.decode(payload)
            returned = None if result is None else jsontext.decode(result)
            checked = (payload is not None, result is not None)
            meaning = describe(span._type, span.schema_name, span.status, given, returned, None, checked)
            refuse_violations(meaning.violations, span.schema_name)

    def _make_writer_known(self) -> None:
        """Store the row of this process, once; of two threads that come here at once, one is refused, which is fine."""
        writer = self._unknown_writer  # another thread may come by and take it
        if writer is not None:
            unit = unit_of(writer)
            try:
                self._store.apply((unit,), wait_s=WAIT_S)
            except StorageError as error:
                if not self._journals:  # it would wait in memory, and its runs could be stored before it
                    return
                self._put_aside(unit, error)
            while self._inherited:  # each until it is written: a signal handler may raise in between
                self._sink_of_all().write(self._inherited[0])
                del self._inherited[0]
            self._unknown_writer = None
            if not self._closed:
                self._out = self._sink_of_all()  # the common case, without a look at any of the others

    def _schema_content(self) -> SchemaFields:
        """Return the span types that runs are registered with (kept until another one is registered: 0.3 ms)."""
        version, content = self._content
        if self._first_version is None:
            self._first_version = self._registry.version
        if content is None or version != self._registry.version:
            version = self._registry.version
            content = fields_of(self._registry.items())
            self._content = (version, content)
        return content

    def _late_types(self) -> str | None:
        """Return the span types if some run was registered before one of them was."""
        is_late = self._first_version not in (None, self._registry.version)
        return self._schema_content().span_type_schemas if is_late else None

    def _count_recorded(self) -> None:
        self._sink_of_all().recorded += 1

    def _count_unrecorded(self) -> None:
        with self._lock:
            self._lost_count += self.enabled

    def _lose(self, error: Exception, *, reraise: bool = True) -> None:
        """Deal with a fault, or a misuse, that kept something from being recorded."""
        let_through(error)
        self._count_unrecorded()
        self._fault(error, reraise=reraise)

    def _fault(self, error: Exception, *, reraise: bool = True) -> None:
        """Deal with a fault of ours: never the host's, so it is logged once per kind, and raised only for tests."""
        let_through(error)
        if not self.enabled:
            return
        if self._raise_errors and reraise:
            raise error
        kind = type(error).__name__
        if kind not in self._logged:
            self._logged.add(kind)
            said = self._capture.error(error)["message"]  # it may be somebody else's: with secrets, or unreadable
            log.warning("recording: %s: %s (more of this kind are only counted, see agentspan.health())", kind, said)

    def _recovered(self) -> None:
        """Say that the storage takes records again, and have its next fault be logged: once a minute."""
        if self._logged & _STORAGE_FAULTS and time.monotonic_ns() >= self._quiet_until_ns:
            self._quiet_until_ns = time.monotonic_ns() + QUIET_NS
            self._logged -= _STORAGE_FAULTS
            log.warning("recording: the storage takes records again (see agentspan.health())")

    def _renew(self) -> None:
        """Go on in a child as a writer of its own."""
        self._lock = threading.Lock()
        if self._sink is not None:
            self._inherited = list(self._registrations.values())
            self._sink.leave()
            if forks.is_cut_off and self._file is not None:  # others bring in what is in the journal
                with forks.importing:
                    from agentspan.recording.cut_off import CutOff
                self._store = CutOff()
                self._journals = self._may_journal()
            self._sink = self._new_sink()  # what waited is the parent's to write
        self._new_writer()


_STORAGE_FAULTS = {StorageError.__name__, DatabaseUnusable.__name__}
_tracers: weakref.WeakSet[Tracer] = weakref.WeakSet()
_said: set[str] = set()


def _flush_all() -> None:
    if not page[0]:
        return  # a child that has recorded nothing
    for tracer in list(_tracers):
        try:
            tracer.flush(2.0)
            if tracer._sink is not None:
                tracer._sink.release()
        except Exception as error:  # raise_errors: the others are due all the same
            let_through(error)
            log.warning("recording: what waited at the end could not be written: %s", error)


def _renew_all() -> None:
    for tracer in list(_tracers):
        tracer._renew()


atexit.register(_flush_all)
forks.renewal(Renewal.TRACERS, _renew_all)
