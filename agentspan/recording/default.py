"""The functions of the package: one tracer for the whole process, configured once, or by itself at the first span."""

import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, Literal, ParamSpec, TypeVar, overload

from agentspan import clock, forks
from agentspan.errors import StorageError
from agentspan.forks import Renewal, page
from agentspan.interrupts import let_through
from agentspan.journal import live
from agentspan.model.status import Purpose
from agentspan.recording import disabled
from agentspan.recording.block import DEFAULT_TYPE, SpanBlock, block
from agentspan.recording.capture.limits import Limits
from agentspan.recording.capture.redaction import REDACTED, Rule
from agentspan.recording.generators import Reduce
from agentspan.recording.run import OnTerminate, Run
from agentspan.recording.sink import WAIT_S
from agentspan.recording.span import Span
from agentspan.recording.tracer import Durability, Health, Tracer
from agentspan.schemas import span_types
from agentspan.schemas.conformance import JSONSchema
from agentspan.storage.location import ENVIRONMENT, Location
from agentspan.storage.protocol import Storage
from agentspan.storage.registry import location_of

P = ParamSpec("P")
R = TypeVar("R")

RETRY_NS = 1_000_000_000
CONFIGURE_WAIT_S = 10.0
"""How long `configure` may wait for a file that others hold; the first span of a program that did not configure waits
as long as any other."""

_lock = threading.RLock()
_tracer: Tracer | None = None
_given: dict[str, Any] = {}  # what `configure` was told: a file that it was not told is looked up each time
_settings: dict[str, Any] = {}
_retry_at_ns = 0
_unreachable: StorageError | None = None
"""Why this process, which nobody configured, records nothing: it works for one whose storage it cannot open."""


def configure(
    db: str | os.PathLike[str] | Location | Storage | None = None,
    *,
    raise_errors: bool = False,
    strict_schemas: bool = False,
    redact: Rule | Literal["credentials"] | None = "credentials",
    limits: Limits | None = None,
    durability: Durability = "journal",
    enabled: bool | None = None,
) -> Tracer:
    """Say where this process records. Optional; the same call again changes nothing, another one switches over.

    Args:
        db: a file, `":memory:"`, `NAME://…` for another backend, or a Storage; AGENTSPAN_DB, else
            ./agentspan.db, when left out.
        raise_errors: raise agentspan's own faults instead of counting and logging them; for tests.
        strict_schemas: do not record payloads that do not match their schema.
        redact: what is kept out of the file: "credentials" (by name and by look), a function that adds a rule to that,
            or None for nothing; see Tracer.
        limits: how much of a payload is kept; `Limits()` when left out.
        durability: "journal": every transition is on disk before the call returns, and in the file a moment later;
            "commit": in the file itself; see Tracer.
        enabled: False: record nothing, until it is called again; functions that were decorated before follow. True:
            record, whatever AGENTSPAN_DISABLED says; when left out, that decides.

    Returns:
        The tracer behind `agentspan.span`, `agentspan.run` and the others.

    Raises:
        DatabaseUnusable: the file cannot be used; the message says what to do.
    """
    given: dict[str, Any] = {
        "raise_errors": raise_errors,
        "strict_schemas": strict_schemas,
        "redact": redact,
        "limits": limits,
        "durability": durability,
        "enabled": enabled,
    }
    if db is not None:
        given["db"] = location_of(db).absolute() if isinstance(db, (str, os.PathLike)) else db
    return _configure(given, CONFIGURE_WAIT_S)


def _configure(given: dict[str, Any], wait_s: float) -> Tracer:
    global _tracer, _given, _settings
    if not page[0]:
        forks.renew()
    if "db" not in given and _unreachable is not None and not os.environ.get(ENVIRONMENT):
        raise _unreachable
    settings = given if "db" in given else {"db": location_of(None).absolute(), **given}
    if settings.get("enabled") is None:
        settings = {**settings, "enabled": not disabled.by_environment()}
    with _lock:
        if _tracer is not None and _tracer._is_usable() and settings == _settings:
            return _tracer
        tracer = Tracer(**settings, _open_wait_s=wait_s)
        if _tracer is not None:
            _tracer.shutdown()
        _tracer, _given, _settings = tracer, given, settings
        return tracer


def get_tracer() -> Tracer:
    """Return this process's tracer; one that was never configured, or was shut down, is configured now.

    Never raises: where the file cannot be used, the tracer that is returned counts what it cannot record, and the
    file is tried again every second.
    """
    global _tracer, _retry_at_ns
    tracer = _tracer
    if tracer is not None and not tracer._closed and (not tracer._broken or clock.monotonic_ns() < _retry_at_ns):
        return tracer
    if not page[0]:
        forks.renew()
    with _lock:
        try:
            return _configure(_given, WAIT_S)
        except Exception as error:
            let_through(error)
            _retry_at_ns = clock.monotonic_ns() + RETRY_NS
            if _tracer is None or _tracer._closed:
                _tracer = Tracer(_broken=error)
                _tracer._fault(error)
            return _tracer


@overload
def span(fn: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def span(
    schema_name: str = DEFAULT_TYPE, payload: Mapping[str, Any] | None = None, *, reduce: Reduce | None = None
) -> SpanBlock: ...
def span(schema_name: Any = DEFAULT_TYPE, payload: Any = None, *, reduce: Any = None) -> Any:
    """Record a step of an agent: `with span("llm", {...}) as s:`, `async with`, `@span("tool")`, or a bare `@span`.

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

    Raises:
        TypeError: what is decorated cannot be called, or has `reduce` and is no generator function.
    """
    return block(get_tracer, schema_name, payload, reduce)


def run(
    name: str,
    *,
    version: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    purpose: Purpose = "live",
    on_terminate: OnTerminate | None = None,
) -> Run:
    """Record a run of an agent: `with run("researcher") as r:`, `async with`, or `@run("researcher")`.

    It completes at the end of the block, and fails, keeping the error, on an exception.

    Args:
        name: the agent's name; its runs are found under it.
        version: the agent's version.
        metadata: what the run is given, a JSON object.
        purpose: `live`, `smoke_test` or `eval`.
        on_terminate: what happens when somebody terminates the run, which it learns at its next span: "raise" raises
            AgentTerminated there and at every later one; a function is called once, with the run. Either way
            `run.terminated` tells.
    """
    return Run(get_tracer, name, version=version, metadata=metadata, purpose=purpose, on_terminate=on_terminate)


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
    live.types_changed()


def propagate(fn: Callable[P, R]) -> Callable[P, R]:
    """Carry the run and span that are active here to where `fn` will be called: another thread, or process.

        pool.submit(agentspan.propagate(fetch), url)

    Give the result to ThreadPoolExecutor, threading.Thread, ProcessPoolExecutor: each call nests in what was active
    when `propagate` was called, in a copy of the context of its own. It can be pickled as far as `fn` can; the other
    process then records into the same file. asyncio tasks and `asyncio.to_thread` need none of this.
    """
    return get_tracer().propagate(fn)


def arrive(location: Location, settings: dict[str, Any] | None) -> Tracer | None:
    """Return this process's tracer, to record there as the process does that something comes from.

    One that was configured stays as it is: None if it has another storage. One that was not is configured now, if
    `settings` has all that it takes.
    """
    try:
        if not _given:
            if settings is None:  # a rule for redaction that cannot be had here: what it would hide must not be seen
                settings = {"redact": _everything}
            if _tracer is None or location_in(_tracer) != location:
                configure(location, **settings)
        tracer = get_tracer()
        return tracer if location_in(tracer) == location else None
    except Exception as error:
        let_through(error)
        get_tracer()._fault(error)
        return None


def arrive_unreachable(said: str) -> None:
    """Record nothing in this process, and count and log that, unless it has a storage that others can open, too.

    Something comes here from a process whose storage cannot be opened in any other. A file that is made here instead,
    because nobody has named one, would hold half of a run where nobody looks for it.
    """
    global _tracer, _given, _unreachable
    with _lock:
        is_own = _given and (_tracer is None or not _tracer.enabled or location_in(_tracer) is not None)
        if is_own or os.environ.get(ENVIRONMENT):
            return
        _unreachable = StorageError(said)
        tracer, _tracer, _given = _tracer, None, {}
        if tracer is not None:
            tracer.shutdown()
    get_tracer()


def arrive_disabled() -> None:
    """Record nothing in this process, if it was not told otherwise: the one that something comes from does not."""
    if _tracer is None and not _given:
        configure(enabled=False)


def _everything(name: str, value: Any) -> str:
    return REDACTED


def location_in(tracer: Tracer) -> Location | None:
    """Return by what another process can open the storage of a tracer; None where nothing does."""
    storage: Storage | None = getattr(tracer, "storage", None)
    return None if storage is None else storage.capabilities().location


def current_span() -> Span | None:
    """Return the innermost span that is active here, in this thread or task, or None."""
    return None if _tracer is None else _tracer.current_span()


def current_run() -> Run | None:
    """Return the run that is active here, in this thread or task, or None."""
    return None if _tracer is None else _tracer.current_run()


def flush(wait_s: float = 5.0) -> bool:
    """Write what could not be written yet, for at most `wait_s` seconds; tell whether everything is in the file."""
    return _tracer is None or _tracer.flush(wait_s)


def shutdown(wait_s: float = 5.0) -> None:
    """Flush and close the file. Recording again, or `configure`, opens it again."""
    global _tracer
    if not page[0]:
        forks.renew()
    with _lock:
        if _tracer is not None:
            _tracer.shutdown(wait_s)
            _tracer = None


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()  # another thread of the parent may have held it


forks.renewal(Renewal.LOCKS, _renew_lock)


def health() -> Health:
    """Count the transitions that were recorded, that failed, and that wait to be written."""
    return Health() if _tracer is None else _tracer.health()
