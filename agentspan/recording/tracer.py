"""Tracer: records into one storage. It is the public facade of a Recorder.

The functions of the package share one tracer for the whole process, configured by `configure` or at the first span.
"""

import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, ParamSpec, TypeVar, overload

from agentspan import clock, host
from agentspan.errors import StorageError
from agentspan.host import Renewal, guard, page
from agentspan.journal import spool
from agentspan.model.changes import Purpose
from agentspan.model.columns import REDACTED
from agentspan.recording.blocks import DEFAULT_TYPE, RunBlock, SpanBlock, span_block
from agentspan.recording.budgets import Budget
from agentspan.recording.capture.redaction import Rule
from agentspan.recording.capture.values import Limits
from agentspan.recording.recorder import Recorder
from agentspan.recording.settings import Durability, Sensitive, Settings
from agentspan.recording.span_and_run import OnTerminate, Run, Span, active_face, run_face
from agentspan.recording.span_state import Reduce, SpanState, disabled_run, disabled_span
from agentspan.schemas import span_types
from agentspan.schemas.conformance import JSONSchema
from agentspan.storage.location import ENVIRONMENT, Location, memory
from agentspan.storage.protocol import Storage
from agentspan.storage.registry import location_of, set_configured
from agentspan.tuning import STANDARD, Tuning

P = ParamSpec("P")
R = TypeVar("R")


class Health(NamedTuple):
    """The state of recording, counted in transitions since the tracer was made.

    If `spooled_bytes` and `oldest_s` grow, the storage cannot be written.

    Attributes:
        recorded: transitions on disk, in the storage or in the journal in front of it. `flush` returns whether all are
            in the storage.
        failed: transitions that are lost.
        waiting: transitions that could not be written yet. They are retried.
        redacted: texts and values that were kept out of the file.
        refused: transitions that came too late. They are in the table `refused_changes`.
        spooled_bytes: size of the records in the journal that are not in the storage yet.
        oldest_s: seconds that the oldest transition outside the storage has waited, at least.
        last_error: the error of the latest attempt to open the storage, or to write to it; None if that succeeded.
    """

    recorded: int = 0
    failed: int = 0
    waiting: int = 0
    redacted: int = 0
    refused: int = 0
    spooled_bytes: int = 0
    oldest_s: float = 0.0
    last_error: str | None = None


class Tracer:
    """Records into one storage. The functions of the package share one Tracer; make another for a second storage.

    Its methods work like the functions with the same names.

    Args:
        db: a file, `":memory:"` or a Storage; AGENTSPAN_DB, else ./agentspan.db, when left out.
        settings: the settings of `agentspan.configure`, by keyword.

    Attributes:
        enabled: whether the tracer records.
        storage: the storage that it records into; `agentspan.open(tracer.storage)` reads it. Absent if disabled.

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
        sensitive: Sensitive = "redact",
        enabled: bool | None = None,
        sync_every_s: float | None = 1.0,
        budget: Budget | None = None,
        tuning: Tuning = STANDARD,
    ) -> None:
        settings = Settings(
            raise_errors, strict_schemas, redact, limits, durability, sensitive, enabled, sync_every_s, budget, tuning
        )
        self._show(Recorder(db, settings.checked(), run_face))

    def _show(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.enabled = recorder.enabled
        if recorder.is_open:
            self.storage = recorder.destination.storage

    def _resolve(self) -> Recorder:
        return self._recorder

    @overload
    def span(self, fn: Callable[P, R], /) -> Callable[P, R]: ...
    @overload
    def span(
        self,
        schema_name: str = DEFAULT_TYPE,
        payload: Mapping[str, Any] | None = None,
        *,
        reduce: Reduce | None = None,
        **members: Any,
    ) -> SpanBlock: ...
    def span(
        self,
        schema_name: str | Callable[..., Any] = DEFAULT_TYPE,
        payload: Mapping[str, Any] | None = None,
        *,
        reduce: Reduce | None = None,
        **members: Any,
    ) -> Any:
        """Record a step: a with-block, or a decorator (see agentspan.span)."""
        return span_block(self._resolve, schema_name, payload, reduce, members)

    def run(
        self,
        name: str,
        *,
        version: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        purpose: Purpose = "live",
        session: str | None = None,
        user: str | None = None,
        task: str | None = None,
        tags: Collection[str] | None = None,
        on_terminate: OnTerminate | None = None,
        budget: Budget | None = None,
    ) -> RunBlock:
        """Record a run of an agent: a with-block, or a decorator (see agentspan.run)."""
        return RunBlock(
            self._resolve,
            name,
            version=version,
            metadata=metadata,
            purpose=purpose,
            session=session,
            user=user,
            task=task,
            tags=tags,
            on_terminate=on_terminate,
            budget=budget,
        )

    def propagate(self, fn: Callable[P, R]) -> Callable[P, R]:
        """Wrap `fn` so that each call records under the span that is active now (see agentspan.propagate)."""
        return _propagated(fn, self._recorder)

    def current_span(self) -> Span | None:
        """Return the innermost active span of the current thread or task, or None."""
        if not self.enabled:
            return Span(disabled_span(self._recorder, DEFAULT_TYPE))
        node = self._recorder.innermost()
        return active_face(node) if type(node) is SpanState else None

    def current_run(self) -> Run | None:
        """Return the active run of the current thread or task, or None."""
        node = self._recorder.innermost()
        run = node.run if isinstance(node, SpanState) else node
        if run is None:
            return None if self.enabled else Run(disabled_run(self._recorder))
        found: Run = active_face(run)
        return found

    def health(self) -> Health:
        """Return the counts of transitions that were recorded, wait, and are lost."""
        if not page[0]:
            host.renew()
        recorder = self._recorder
        redaction, lost = recorder.capture.redaction, recorder.faults.lost
        redacted = 0 if redaction is None else redaction.count
        if recorder.sink is None:
            why = None if recorder.broken is None else recorder.capture.error(recorder.broken)["message"]
            return Health(0, lost, 0, redacted, last_error=why)
        counts = recorder.sink.counts()
        return Health(
            counts.recorded,
            counts.failed + lost,
            counts.waiting,
            redacted,
            counts.refused,
            counts.spooled_bytes,
            round(counts.oldest_s, 3),
            counts.last_error,
        )

    def flush(self, wait_s: float = 5.0) -> bool:
        """Write waiting records for at most `wait_s` seconds. Return True if everything is in the storage."""
        return self._recorder.flush(wait_s)

    def shutdown(self, wait_s: float = 5.0) -> None:
        """Flush for at most `wait_s` seconds, and close the storage. Later transitions are counted as failed."""
        self._recorder.shutdown(wait_s)


def recorder_of(tracer: Tracer) -> Recorder:
    """Return the Recorder of a tracer, for agentspan's own modules."""
    return tracer._recorder


def tracer_of(recorder: Recorder) -> Tracer:
    """Return a new Tracer for an existing recorder."""
    tracer = Tracer.__new__(Tracer)
    tracer._show(recorder)
    return tracer


RETRY_NS = 1_000_000_000
CONFIGURE_WAIT_S = 10.0
"""Seconds that `configure` may wait for a file that another process has locked. The first span of a program that does
not call `configure` waits only as long as any recording call."""

Database = str | os.PathLike[str] | Location | Storage


class Configuration(NamedTuple):
    """The storage and the settings with which this process records.

    Attributes:
        db: the storage. None if `configure` got none: then the default is looked up each time.
    """

    db: Database | None
    settings: Settings


_lock = threading.RLock()
_tracer: Tracer | None = None
_recorder: Recorder | None = None  # the recorder of _tracer; read by each recorded call
_told: Configuration | None = None  # the arguments of `configure`
_used: Configuration | None = None  # the configuration of _tracer, with defaults filled in
_retry_at_ns = 0
_unreachable: StorageError | None = None
"""The reason why this unconfigured process records nothing: it cannot open the storage of the process it works for."""
_captured: Storage | None = None
"""The storage of a `captured` block, which replaces any other storage; None outside such a block."""


def configure(
    db: Database | None = None,
    *,
    raise_errors: bool = False,
    strict_schemas: bool = False,
    redact: Rule | Literal["credentials"] | None = "credentials",
    limits: Limits | None = None,
    durability: Durability = "journal",
    sensitive: Sensitive = "redact",
    enabled: bool | None = None,
    sync_every_s: float | None = 1.0,
    budget: Budget | None = None,
    tuning: Tuning = STANDARD,
) -> Tracer:
    """Configure the storage and the settings of this process. Optional. A later call with other arguments wins.

    A second call with the same arguments changes nothing. Other arguments flush and close the tracer before.

    Args:
        db: a file, `":memory:"`, `NAME://…` for another backend, or a Storage; AGENTSPAN_DB, else
            ./agentspan.db, when left out. A missing file is created; its folder must exist.
        raise_errors: raise agentspan's own faults instead of counting and logging them; for tests.
        strict_schemas: do not record a payload that does not match its schema, and set a span to failed if its result
            does not match.
        redact: the secrets to keep out of the file. "credentials": passwords, API keys, tokens, private keys, found by
            the name of a member and by their form. A function: "credentials" and a rule of your own. It receives the
            name of a member and its text, number, boolean or None, and returns the value to record. None: no redaction.
        limits: how much of a payload is kept; `Limits()` if None.
        durability: "journal": each transition is on disk before the call returns, in a journal beside the file (of a
            server: in this user's state folder), and in the file a moment later. "commit": each transition is in the
            file before the call returns; used also for a database in memory, or where no journal can be.
        sensitive: whether to "redact" or "keep" values that are marked as `{"$sensitive": …, "value": …}`.
        enabled: False: record nothing, make no file, and cost a decorated call 0.2 µs, until `configure` is called
            again. True: record, even if AGENTSPAN_DISABLED is set. None: record unless AGENTSPAN_DISABLED is set.
        sync_every_s: how often a thread flushes recorded data to the disk, in seconds. A power failure loses at most
            the data of twice this time before it, and soon after a kill that of twice this time before the kill.
            None: the operating system decides when to write, which may take half a minute.
        budget: the budget of each run without a budget of its own, if no run around it has one. None: the one of
            AGENTSPAN_BUDGET, else none.
        tuning: sizes and times, for tests; see agentspan/tuning.py.

    Returns:
        The tracer behind `agentspan.span`, `agentspan.run` and the others.

    Raises:
        DatabaseUnusable: the file cannot be used; the message says what to do.
        DatabaseBusy: the file stays locked for 10 s, and there can be no journal.
        InvalidValue: a setting has a wrong value.
    """
    if isinstance(db, (str, os.PathLike)):
        db = location_of(db).absolute()
    settings = Settings(
        raise_errors, strict_schemas, redact, limits, durability, sensitive, enabled, sync_every_s, budget, tuning
    )
    return _configure(Configuration(db, settings.checked()), CONFIGURE_WAIT_S)


def _configure(wanted: Configuration | None, wait_s: float) -> Tracer:
    """Return a tracer for this configuration, a new one only if the current one differs or is unusable.

    Args:
        wanted: the arguments of `configure`; None if it was not called.
        wait_s: seconds to wait for a file that another process has locked.
    """
    global _tracer, _recorder, _told, _used
    if not page[0]:
        host.renew()
    used = _completed(wanted or Configuration(None, Settings()))
    with _lock:
        if _tracer is not None and recorder_of(_tracer).is_usable and used == _used:
            return _tracer
        recorder = Recorder(used.db, used.settings, run_face, open_wait_s=wait_s)
        if _recorder is not None:
            _recorder.shutdown(5.0)
        _recorder, _tracer, _told, _used = recorder, tracer_of(recorder), wanted, used
        return _tracer


def _completed(wanted: Configuration) -> Configuration:
    """Return the configuration to use, with defaults looked up. In a `captured` block, the captured storage wins."""
    if _captured is not None:
        is_enabled = wanted.settings.enabled is not False  # AGENTSPAN_DISABLED is for programs, not for tests
        return Configuration(_captured, wanted.settings._replace(raise_errors=True, enabled=is_enabled))
    if wanted.db is None and _unreachable is not None and not os.environ.get(ENVIRONMENT):
        raise _unreachable.with_traceback(None)  # else the traceback grows with each attempt
    db = location_of(None).absolute() if wanted.db is None else wanted.db
    return Configuration(db, wanted.settings._replace(enabled=wanted.settings.is_enabled))


def get_tracer() -> Tracer:
    """Return this process's tracer. If it was never configured, or was shut down, configure it now.

    Never raises. If the file cannot be used, the returned tracer counts what it cannot record, and the file is tried
    again every second.
    """
    recorder, tracer = get_recorder(), _tracer
    return tracer if tracer is not None and recorder_of(tracer) is recorder else tracer_of(recorder)


def get_recorder() -> Recorder:
    """Return the recorder of this process's tracer, configured now if needed. Never raises."""
    recorder = _recorder
    if recorder is not None and not recorder.is_closed and (not recorder.broken or clock.monotonic_ns() < _retry_at_ns):
        return recorder
    if not page[0]:
        host.renew()
    with _lock:
        with guard(report=_cannot_configure):
            settings = Settings() if _told is None else _told.settings
            _configure(_told, settings.tuning.recording_wait_s)
        assert _recorder is not None
        return _recorder


def _cannot_configure(error: Exception) -> None:
    """Record nothing for a second, because the storage cannot be opened."""
    global _tracer, _recorder, _retry_at_ns
    _retry_at_ns = clock.monotonic_ns() + RETRY_NS
    if _recorder is None or _recorder.is_closed:
        made = Recorder(None, Settings(), run_face, broken=error)
        _recorder, _tracer = made, tracer_of(made)
        made.faults.add(error)


@contextmanager
def captured(storage: Storage) -> Iterator[None]:
    """Record into `storage` for the length of a with-block, even if `configure` is called in it; faults are raised.

    The earlier configuration is unchanged, and in use again after the block.
    """
    global _tracer, _recorder, _told, _used, _retry_at_ns, _captured
    before = _tracer, _recorder, _told, _used, _retry_at_ns, _captured
    _tracer = _recorder = _told = _used = None
    _retry_at_ns, _captured = 0, storage
    try:
        yield
    finally:
        try:
            shutdown()
        finally:
            _tracer, _recorder, _told, _used, _retry_at_ns, _captured = before


def forget() -> None:
    """Shut the tracer down, and reset the configuration of this process."""
    global _told, _unreachable
    shutdown()
    _told = _unreachable = None


@overload
def span(fn: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def span(
    schema_name: str = DEFAULT_TYPE,
    payload: Mapping[str, Any] | None = None,
    *,
    reduce: Reduce | None = None,
    **members: Any,
) -> SpanBlock: ...
def span(
    schema_name: str | Callable[..., Any] = DEFAULT_TYPE,
    payload: Mapping[str, Any] | None = None,
    *,
    reduce: Reduce | None = None,
    **members: Any,
) -> Any:
    """Record a step of an agent: `with span("llm", {…}) as s:`, `async with`, `@span("tool")`, or a bare `@span`.

    The block gives a `Span`. On return the span completes. On an exception it fails, with `result_payload.error`, and
    the exception is re-raised unchanged. The parent is the active span or run of the thread or task; outside any run,
    the span begins a run.

    A decorator records each call. The payload of a span type with `name` and `arguments` in its schema (a bare `@span`
    is a `tool`) gets the function's name and arguments; the payload of other types is the bound arguments,
    without `self` and `cls`. A returned dict is the result, any other value its `output`. Generators are recorded from
    their first item to their last.

    Args:
        schema_name: the span type: a built-in one, one registered with `span_type`, or any other name. One that is too
            long is cut, and characters that cannot be printed are replaced.
        payload: the input of the step. For a decorator, its members are added to those of the call.
        reduce: for a decorated generator: turns the list of its items into the result, such as `"".join`. Without it
            the items are the `output`, as many as the limits allow. If it raises, the result is the number of `items`.
        members: more members of the payload: `span("llm", model="gpt-4.1")` is `span("llm", {"model": "gpt-4.1"})`.
            A name that differs from another keyword by a letter, such as `paylod`, is an error.

    Examples:
        import agentspan

        @agentspan.span
        def search(query: str) -> list[str]:
            return [f"a page about {query}"]

        with agentspan.run("researcher", version="1.2", task="flights"):
            search("cheap flights")
            with agentspan.span("llm", model="gpt-4.1") as call:
                call.set_result({"text": "In May.", "input_tokens": 12, "output_tokens": 3})

    Raises:
        TypeError: the decorated object cannot be called, `reduce` is set and it is no generator function, or a keyword
            is misspelled.
        AgentTerminated: the run was terminated, and has `on_terminate="raise"`.
    """
    return span_block(get_recorder, schema_name, payload, reduce, members)


def run(
    name: str,
    *,
    version: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    purpose: Purpose = "live",
    session: str | None = None,
    user: str | None = None,
    task: str | None = None,
    tags: Collection[str] | None = None,
    on_terminate: OnTerminate | None = None,
    budget: Budget | None = None,
) -> RunBlock:
    """Record a run of an agent: `with run("researcher") as r:`, `async with`, or `@run("researcher")`.

    The block gives a `Run`. The run completes at the end of the block. On an exception it fails, and keeps the error;
    the exception passes through unchanged. Each entry of the block, and each call of a decorated function, is a run.
    The return value of the function is the run's result: a dict as it is, any other value as `output`.

    Args:
        name: the agent's name, by which `agentspan runs --agent NAME` finds its runs.
        version: the agent's version; the file has `default` when left out.
        metadata: the input of the run or other facts about it, a JSON object.
        purpose: `live`, `smoke_test` or `eval`.
        session: the name of the conversation that the run belongs to. You choose it.
        user: the name of the person that the agent runs for. You choose it.
        task: the name of the task to do. You choose it. Runs with the same task can be compared.
        tags: words by which runs are found, such as `["nightly"]`; at most 100.
        on_terminate: the reaction to a termination from outside, at the next span of the run. "raise": raise
            AgentTerminated at this span and at each later one. A function: call it once, with the run. None: nothing.
            In all cases `run.terminated` is True.
        budget: the most that the run, and the runs inside of it, may use. If it is None, and no run around this one has
            a budget, the one of `configure` counts.

    Raises:
        InvalidValue: `on_terminate` or `budget` is none of these.
        TypeError: the decorated function is a generator function.
    """
    return RunBlock(
        get_recorder,
        name,
        version=version,
        metadata=metadata,
        purpose=purpose,
        session=session,
        user=user,
        task=task,
        tags=tags,
        on_terminate=on_terminate,
        budget=budget,
    )


def span_type(
    name: str,
    *,
    payload: JSONSchema | type | None = None,
    result: JSONSchema | type | None = None,
    title: str | None = None,
    template: str | None = None,
) -> None:
    """Register a span type of your own. A second call with the same name replaces it.

    Spans use the type at once. The schema version of a run has the types that were registered when the run began.

    Args:
        name: the schema_name of the type.
        payload: a JSON Schema (2020-12), or a pydantic model, for the input of a span.
        result: a JSON Schema (2020-12), or a pydantic model, for the output of a span.
        title: a name for people. If None: the title of the payload schema, else `name`.
        template: a Mustache template for summaries, over payload and result_payload, such as
            `Charge {{amount}} → {{receipt}}`.

    Raises:
        SchemaError: a schema is not valid, too large, or refers to something outside of itself.
        TemplateError: the template is not Mustache, too large, or uses a feature that is not allowed.
        InvalidValue: the name or title is not usable.
    """
    span_types.REGISTRY.register(span_types.make(name, payload=payload, result=result, title=title, template=template))
    spool.types_changed()


def propagate(fn: Callable[P, R]) -> Callable[P, R]:
    """Wrap `fn` so that calls in another thread or process record under the run and span that are active now.

        pool.submit(agentspan.propagate(fetch), url)

    Pass the result to ThreadPoolExecutor, threading.Thread or ProcessPoolExecutor. Each call runs in its own copy of
    the context, in any number of threads at once. The result can be pickled if `fn` can; the other process then records
    into the same file, with the same configuration. For a coroutine or generator function it is of the same kind.
    asyncio tasks and `asyncio.to_thread` do not need `propagate`.
    """
    return _propagated(fn, get_recorder())


def _propagated(fn: Callable[P, R], recorder: Recorder) -> Callable[P, R]:
    with host.importing:
        from agentspan.recording.steps import Arrival, Propagated  # with pickle, for few programs
    return Propagated(fn, recorder, Arrival(arrive, arrive_unreachable, arrive_disabled))


def _count_fault(error: Exception) -> None:
    get_recorder().faults.add(error)


@guard(report=_count_fault)
def arrive(location: Location, settings: Settings | None) -> Recorder | None:
    """Return a recorder of this process for a propagated function from another process.

    If this process is not configured, configure it with the location and the settings of the other process. If it is,
    keep its configuration, and return None if it records into another storage.

    Args:
        location: the storage of the other process.
        settings: the settings of the other process; None if they could not be pickled or unpickled.
    """
    if _told is None:
        if settings is None:  # the redaction rule is missing in this process, so all values are redacted
            settings = Settings(redact=_everything)
        if _recorder is None or _recorder.location != location:
            wait_s = settings.tuning.recording_wait_s if location.path is None else CONFIGURE_WAIT_S
            _configure(Configuration(location, settings), wait_s)
    recorder = get_recorder()
    return recorder if recorder.location == location else None


def arrive_unreachable(why: str) -> None:
    """Disable recording in this process, with a fault, for a propagated function whose storage it cannot open.

    Otherwise this process would create a default file, with a part of a run, where nobody looks for it. A process with
    a storage of its own that other processes can open keeps recording.
    """
    global _tracer, _recorder, _told, _unreachable
    with _lock:
        is_own = _told is not None and (_recorder is None or not _recorder.enabled or _recorder.location is not None)
        if is_own or os.environ.get(ENVIRONMENT):
            return
        _unreachable = StorageError(why)
        recorder, _recorder, _tracer, _told = _recorder, None, None, None
        if recorder is not None:
            recorder.shutdown(5.0)
    get_recorder()


def arrive_disabled() -> None:
    """Disable recording in this process, unless it is configured, for a function from a process with it disabled."""
    if _tracer is None and _told is None:
        configure(enabled=False)


def _everything(name: str, value: Any) -> str:
    return REDACTED


def current_span() -> Span | None:
    """Return the innermost active span of the current thread or task, or None.

    If recording is disabled, return a span whose methods do nothing.
    """
    tracer = _tracer
    return None if tracer is None else tracer.current_span()


def current_run() -> Run | None:
    """Return the active run of the current thread or task, or None.

    If recording is disabled, return a run whose methods do nothing.
    """
    tracer = _tracer
    return None if tracer is None else tracer.current_run()


def flush(wait_s: float = 5.0) -> bool:
    """Write waiting records for at most `wait_s` seconds. Return True if everything is in the storage.

    At the exit of the program each tracer is flushed, for at most 2 s.
    """
    tracer = _tracer
    return tracer is None or tracer.flush(wait_s)


def shutdown(wait_s: float = 5.0) -> None:
    """Flush for at most `wait_s` seconds, and close the storage. The next span, or `configure`, opens it again."""
    global _tracer, _recorder
    if not page[0]:
        host.renew()
    with _lock:
        if _recorder is not None:
            _recorder.shutdown(wait_s)
            _tracer = _recorder = None


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()  # another thread of the parent may have held it


host.renewal(Renewal.LOCKS, _renew_lock)


def health() -> Health:
    """Return the counts of transitions that were recorded, failed, and wait to be written."""
    tracer = _tracer
    return Health() if tracer is None else tracer.health()


def _configured() -> Location | Storage | None:
    """Return the storage of this process's configuration, for modules of `storage`; None if none was configured."""
    db = None if _told is None or _captured is not None else _told.db
    if db is None or isinstance(db, (str, os.PathLike)):
        return None if db is None else location_of(db)
    if db == memory():
        return get_recorder().destination.storage
    return db if isinstance(db, Location) else db.capabilities().location or db


set_configured(_configured)
