"""The functions of the package: one tracer for the whole process, configured once, or by itself at the first span."""

import os
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple, ParamSpec, TypeVar, Unpack, cast, overload

from agentspan import clock, forks
from agentspan.errors import StorageError
from agentspan.forks import Renewal, page
from agentspan.interrupts import let_through
from agentspan.journal import spool
from agentspan.model.sensitive import REDACTED
from agentspan.model.status import Purpose
from agentspan.recording import propagation
from agentspan.recording.beginning import DEFAULT_TYPE
from agentspan.recording.blocks import RunBlock, SpanBlock, span_block
from agentspan.recording.generators import Reduce
from agentspan.recording.recorder import Recorder
from agentspan.recording.settings import Settings, SettingsArguments, settings_from, with_settings
from agentspan.recording.span_and_run import OnTerminate, Run, Span
from agentspan.recording.tracer import Health, Tracer, new_recorder, recorder_of, tracer_of
from agentspan.schemas import span_types
from agentspan.schemas.conformance import JSONSchema
from agentspan.storage.location import ENVIRONMENT, Location, memory
from agentspan.storage.protocol import Storage
from agentspan.storage.registry import location_of, set_configured

P = ParamSpec("P")
R = TypeVar("R")

RETRY_NS = 1_000_000_000
CONFIGURE_WAIT_S = 10.0
"""How long `configure` may wait for a file that others hold; the first span of a program that did not configure waits
as long as any other."""

Database = str | os.PathLike[str] | Location | Storage


class Configuration(NamedTuple):
    """The storage and the settings with which this process records.

    Attributes:
        db: None where nothing was said: then it is looked up each time.
    """

    db: Database | None
    settings: Settings


_lock = threading.RLock()
_tracer: Tracer | None = None
_recorder: Recorder | None = None  # the tracer's; read by each recorded call
_told: Configuration | None = None  # what `configure` was called with
_used: Configuration | None = None  # what the tracer was made with
_retry_at_ns = 0
_unreachable: StorageError | None = None
"""Why this process, which was not configured, records nothing: it works for one whose storage it cannot open."""
_captured: Storage | None = None
"""The storage that is recorded into instead of any other; see `captured`."""


@with_settings
def configure(db: Database | None = None, **settings: Unpack[SettingsArguments]) -> Tracer:
    """Say where this process records. Optional; the same call again changes nothing, another one switches over.

    Args:
        db: a file, `":memory:"`, `NAME://…` for another backend, or a Storage; AGENTSPAN_DB, else
            ./agentspan.db, when left out.
        settings: see Settings.

    Returns:
        The tracer behind `agentspan.span`, `agentspan.run` and the others.

    Raises:
        DatabaseUnusable: the file cannot be used; the message says what to do.
    """
    if isinstance(db, (str, os.PathLike)):
        db = location_of(db).absolute()
    return _configure(Configuration(db, settings_from("configure", settings)), CONFIGURE_WAIT_S)


def _configure(told: Configuration | None, wait_s: float) -> Tracer:
    """Make the tracer anew, if that changes anything; None: `configure` was not called."""
    global _tracer, _recorder, _told, _used
    if not page[0]:
        forks.renew()
    used = _completed(told or Configuration(None, Settings()))
    with _lock:
        if _tracer is not None and recorder_of(_tracer).is_usable and used == _used:
            return _tracer
        recorder = new_recorder(used.db, used.settings, open_wait_s=wait_s)
        if _recorder is not None:
            _recorder.shutdown(5.0)
        _recorder, _tracer, _told, _used = recorder, tracer_of(recorder), told, used
        return _tracer


def _completed(told: Configuration) -> Configuration:
    """Return what to use: defaults are looked up, and a capture overrules."""
    if _captured is not None:
        is_enabled = told.settings.enabled is not False  # AGENTSPAN_DISABLED is for programs, not for tests
        return Configuration(_captured, replace(told.settings, raise_errors=True, enabled=is_enabled))
    if told.db is None and _unreachable is not None and not os.environ.get(ENVIRONMENT):
        raise _unreachable.with_traceback(None)  # else it grows with each attempt
    db = location_of(None).absolute() if told.db is None else told.db
    return Configuration(db, replace(told.settings, enabled=told.settings.is_enabled))


def get_tracer() -> Tracer:
    """Return this process's tracer; one that was never configured, or was shut down, is configured now.

    Never raises: where the file cannot be used, the tracer that is returned counts what it cannot record, and the
    file is tried again every second.
    """
    recorder, tracer = get_recorder(), _tracer
    return tracer if tracer is not None and recorder_of(tracer) is recorder else tracer_of(recorder)


def get_recorder() -> Recorder:
    """Return the recorder of `get_tracer`."""
    global _tracer, _recorder, _retry_at_ns
    recorder = _recorder
    if recorder is not None and not recorder.is_closed and (not recorder.broken or clock.monotonic_ns() < _retry_at_ns):
        return recorder
    if not page[0]:
        forks.renew()
    with _lock:
        try:
            settings = Settings() if _told is None else _told.settings
            return recorder_of(_configure(_told, settings.tuning.recording_wait_s))
        except Exception as error:
            let_through(error)
            _retry_at_ns = clock.monotonic_ns() + RETRY_NS
            if _recorder is None or _recorder.is_closed:
                made = new_recorder(None, Settings(), broken=error)
                _recorder, _tracer = made, tracer_of(made)
                made.faults.add(error)
            return _recorder


@contextmanager
def captured(storage: Storage) -> Iterator[None]:
    """Record into this storage for the length of a block, whatever `configure` is called with; faults are raised.

    What was configured before is untouched, and in use again afterwards.
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
    """Shut down, and forget what `configure` was called with."""
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
def span(schema_name: Any = DEFAULT_TYPE, payload: Any = None, *, reduce: Any = None, **members: Any) -> Any:
    """Record a step of an agent: `with span("llm", {…}) as s:`, `async with`, `@span("tool")`, or a bare `@span`.

    On return the span completes; on an exception it fails, with `result_payload.error`, and the exception goes on
    unchanged. Its parent is the span, or the run, that is active here; outside any run it opens one of its own.

    A decorator records each call: a type with `name` and `arguments` in its schema (a bare `@span` is a `tool`) gets
    those, others get the bound arguments as the payload. A dict that is returned is the result, anything else its
    `output`. Generators are recorded from their first item to their last.

    Args:
        schema_name: the span type: a built-in one, one of `span_type`, or any other name.
        payload: what goes in, for a decorator added to what the call says.
        reduce: for a decorated generator: turns the list of its items into the result, such as `"".join`. Without it
            the items are the `output`, as many as the limits allow.
        members: more members of the payload: `span("llm", model="gpt-4.1")` is `span("llm", {"model": "gpt-4.1"})`.

    Raises:
        TypeError: what is decorated cannot be called, or has `reduce` and is no generator function.
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
) -> RunBlock:
    """Record a run of an agent: `with run("researcher") as r:`, `async with`, or `@run("researcher")`.

    It completes at the end of the block, and fails, keeping the error, on an exception.

    Args:
        name: the agent's name; its runs are found under it.
        version: the agent's version.
        metadata: what the run is given, a JSON object.
        purpose: `live`, `smoke_test` or `eval`.
        session: the conversation that the run belongs to: a name of one's own.
        user: the person that it runs for: a name of one's own.
        task: what it has to do: a name of one's own. Runs with the same task can be compared.
        tags: words by which runs are found, such as `["nightly"]`.
        on_terminate: what happens when somebody terminates the run, which it learns at its next span: "raise" raises
            AgentTerminated there and at every later one; a function is called once, with the run. Either way
            `run.terminated` tells.
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
    )


def span_type(
    name: str,
    *,
    payload: JSONSchema | type | None = None,
    result: JSONSchema | type | None = None,
    title: str | None = None,
    template: str | None = None,
) -> None:
    """Register a span type of one's own; the same name again replaces it.

    Spans use it at once. The schema version that a run is stored with has the types that were there when it began.

    Args:
        name: its schema_name.
        payload: a JSON Schema (2020-12), or a pydantic model, for what goes in.
        result: the same for what comes out.
        title: for people; the payload schema's title, else the name, when left out.
        template: Mustache for its summaries, over payload and result_payload: `Charge {{amount}} → {{receipt}}`.

    Raises:
        SchemaError: a schema is not valid, too large, or points outside itself.
        TemplateError: the template is not Mustache, too large, or asks for what templates may not do.
        InvalidValue: the name or title is not usable.
    """
    span_types.REGISTRY.register(span_types.make(name, payload=payload, result=result, title=title, template=template))
    spool.types_changed()


def propagate(fn: Callable[P, R]) -> Callable[P, R]:
    """Carry the run and span that are active here to where `fn` will be called: another thread, or process.

        pool.submit(agentspan.propagate(fetch), url)

    Give the result to ThreadPoolExecutor, threading.Thread, ProcessPoolExecutor: each call nests in what was active
    when `propagate` was called, in a copy of the context of its own. It can be pickled as far as `fn` can; the other
    process then records into the same file. asyncio tasks and `asyncio.to_thread` need none of this.
    """
    return propagation.Propagated(fn, get_recorder())


def arrive(location: Location, settings: Settings | None) -> Recorder | None:
    """Return this process's recorder, to record as the process does that a callable comes from.

    A process that was configured stays as it is: None if it records elsewhere. One that was not is configured now.

    Args:
        settings: None where they did not arrive.
    """
    try:
        if _told is None:
            if settings is None:  # a rule for redaction that cannot be imported here: what it would hide is not kept
                settings = Settings(redact=_everything)
            if _recorder is None or _recorder.location != location:
                wait_s = settings.tuning.recording_wait_s if location.path is None else CONFIGURE_WAIT_S
                _configure(Configuration(location, settings), wait_s)
        recorder = get_recorder()
        return recorder if recorder.location == location else None
    except Exception as error:
        let_through(error)
        get_recorder().faults.add(error)
        return None


def arrive_unreachable(why: str) -> None:
    """Record nothing in this process, and count and log that, unless it has a storage that others can open, too.

    A callable comes from a process whose storage no other process can open. A file that is made here instead, because
    none was named, would hold half of a run where nobody looks for it.
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
    """Record nothing in this process, unless it was configured: the process that a callable comes from does not."""
    if _tracer is None and _told is None:
        configure(enabled=False)


def _everything(name: str, value: Any) -> str:
    return REDACTED


def current_span() -> Span | None:
    """Return the innermost span that is active here, in this thread or task, or None."""
    tracer = _tracer
    return None if tracer is None else tracer.current_span()


def current_run() -> Run | None:
    """Return the run that is active here, in this thread or task, or None."""
    tracer = _tracer
    return None if tracer is None else tracer.current_run()


def flush(wait_s: float = 5.0) -> bool:
    """Write what could not be written yet, for at most `wait_s` seconds; tell whether everything is in the file."""
    tracer = _tracer
    return tracer is None or tracer.flush(wait_s)


def shutdown(wait_s: float = 5.0) -> None:
    """Flush and close the file. Recording again, or `configure`, opens it again."""
    global _tracer, _recorder
    if not page[0]:
        forks.renew()
    with _lock:
        if _recorder is not None:
            _recorder.shutdown(wait_s)
            _tracer = _recorder = None


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()  # another thread of the parent may have held it


forks.renewal(Renewal.LOCKS, _renew_lock)


def health() -> Health:
    """Count the transitions that were recorded, that failed, and that wait to be written."""
    tracer = _tracer
    return Health() if tracer is None else tracer.health()


def _configured() -> Location | Storage | None:
    """See storage.configured."""
    db = None if _told is None or _captured is not None else _told.db
    if db is None or isinstance(db, (str, os.PathLike)):
        return None if db is None else location_of(db)
    if db == memory():
        return get_recorder().destination.storage
    return db if isinstance(db, Location) else db.capabilities().location or db


set_configured(_configured)
propagation.set_arrivals(cast(propagation.Arrivals, sys.modules[__name__]))
