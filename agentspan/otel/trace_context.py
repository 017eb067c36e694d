"""`inject` and `extract`: continue a run in another service, by the headers of W3C's Trace Context.

`traceparent` names the caller for all tools: the current span of OpenTelemetry, else ids derived from the ids of the
run and the span, which `agentspan copy` uses, too. agentspan's member of `tracestate` names the run and the span
themselves. If a service in between puts its own span into `traceparent` and passes `tracestate` on, the caller is the
span in `traceparent`. OpenTelemetry need not be installed.
"""

import sys
import weakref
from collections.abc import Iterable, MutableMapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, overload

from agentspan import clock
from agentspan.arriving.identity import span_id
from agentspan.host import guard
from agentspan.model.changes import Put, unit_of
from agentspan.model.rows import AgentRow, OtelTraceRow
from agentspan.otel import identity
from agentspan.otel.identity import Named, State, TraceParent, caller_id, run_of_caller, span_id_of, trace_id_of
from agentspan.recording.recorder import Recorder
from agentspan.recording.run_state import RunState, origin
from agentspan.recording.span_and_run import state_of
from agentspan.recording.span_state import SpanState
from agentspan.recording.tracer import Tracer, current_run, current_span, get_recorder, recorder_of
from agentspan.storage.access import unique

H = TypeVar("H", bound=MutableMapping[str, str])
Pair = tuple[str, str] | tuple[bytes, bytes]


class Items(Protocol):
    """The headers of a request: any mapping of a framework, also a mapping that has a name more than once."""

    def items(self) -> Iterable[Pair]:
        """Return the headers as pairs of name and value."""
        ...


Headers = Items | Iterable[Pair]


class Incoming(NamedTuple):
    """The parsed trace headers of a request.

    Attributes:
        parent: the parsed `traceparent`.
        state: the parsed `tracestate`.
        named: the run and the span of agentspan that the `tracestate` names, if it names any.
    """

    parent: TraceParent
    state: State
    named: Named


_incoming: ContextVar[Incoming | None] = ContextVar("agentspan_incoming", default=None)
_known: "weakref.WeakSet[RunState]" = weakref.WeakSet()
"""The runs whose trace id this process has stored in the table `otel_trace`."""


@overload
def inject(headers: dict[str, str], *, tracer: Tracer | None = None) -> dict[str, str]: ...
@overload
def inject(headers: H, *, tracer: Tracer | None = None) -> H: ...
def inject(headers: Any, *, tracer: Tracer | None = None) -> Any:
    """Add the active run and span to the headers of a request, so that another service can continue the run.

        requests.get(url, headers=agentspan.otel.inject({}))

    Adds `traceparent` and `tracestate`, and returns the same headers. If no run or span is active, they stay unchanged.
    Never raises; needs no OpenTelemetry. The other service looks for the run as soon as the request arrives, so the
    first call in a run waits until the run is stored: for at most 250 ms, with PostgreSQL usually some milliseconds.

    Args:
        headers: a dict, or another mapping of texts.
        tracer: the tracer whose run is continued; the one of `agentspan.configure`, when left out.
    """
    run = current_run() if tracer is None else tracer.current_run()
    span = current_span() if tracer is None else tracer.current_span()
    with guard() if run is None else state_of(run).recorder.faults.adding():
        parent, state = _outgoing(None if run is None else state_of(run), None if span is None else state_of(span))
        if parent is not None:
            headers["traceparent"] = identity.write_parent(parent)
            if state:
                headers["tracestate"] = identity.write_state(state)
    return headers


def extract(headers: Headers, *, tracer: Tracer | None = None) -> "Extracted":
    """Return a context manager in which spans belong to the run that a request came from.

        with agentspan.otel.extract(request.headers), agentspan.span("tool", name="look up"):
            ...

    Both services must record into one database. If this database does not have the run, spans get a run of their own.
    Every run that begins in the block has the calling run and span as `origin` in its metadata. Without trace headers
    the block does nothing. It never raises. Pass only headers of services that you trust.

    Args:
        headers: a mapping, or pairs, of texts or bytes. The case of header names does not matter.
        tracer: the tracer to record into; the one of `agentspan.configure`, when left out.
    """
    return Extracted(headers, tracer)


class Extracted:
    """The context manager that `extract` returns, for `with` and `async with`. Enter it once only."""

    def __init__(self, headers: Headers, tracer: Tracer | None) -> None:
        self._headers = headers
        self._own = None if tracer is None else recorder_of(tracer)
        self._before: tuple[Any, Any] | None = None
        self._node: SpanState | None = None

    def __enter__(self) -> None:
        recorder = get_recorder() if self._own is None else self._own
        with recorder.faults.adding():
            self._enter(recorder)

    def __exit__(
        self, type_: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        node, self._node = self._node, None
        if node is not None:
            node.recorder.leave(node)
            node.status = "complete"  # so a thread that keeps this context begins a run of its own
        if self._before is not None:
            _incoming.set(self._before[0])
            origin.set(self._before[1])
        return False

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self, type_: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        return self.__exit__(type_, exception, traceback)

    def _enter(self, recorder: Recorder) -> None:
        incoming = _read(self._headers)
        if incoming is None:
            return
        self._before = _incoming.get(), origin.get()
        _incoming.set(incoming)
        origin.set(_origin_of(incoming))
        trace_id, parent, _ = incoming.parent
        run = calling_run(recorder, incoming.named, trace_id) if recorder.enabled else None
        here = recorder.innermost()
        if run is None or (here is not None and _run_id(here) == run.id):
            return  # a span of OpenTelemetry has already continued this run
        node = SpanState(recorder, run, None, "custom")
        node.id, node.status = caller_id(run.id, incoming.named, trace_id, parent) or "", "active"
        recorder.enter(node)
        self._node = node


def _outgoing(run: RunState | None, span: SpanState | None) -> tuple[TraceParent | None, State]:
    """Return the `traceparent` and `tracestate` for an outgoing request; the first is None if no trace is active."""
    incoming = _incoming.get()
    current = _current_of_otel()
    node: Any = span
    while isinstance(node, SpanState) and not node.id:  # a span without an id could not be recorded
        node = node.outer
    id = node.id if isinstance(node, SpanState) else None
    if run is None or not run.id:
        if current is not None:
            return current
        return (None, ()) if incoming is None else (incoming.parent, incoming.state)
    state = current[1] if current is not None else () if incoming is None else incoming.state
    member = run.id if id is None else f"{run.id}:{id}"
    run.recorder.make_stored(run.id)
    if current is not None:
        parent = current[0]
        if id != span_id(run.id, parent.trace_id, parent.span_id):
            member = f"{run.id}:{id or ''}:{parent.span_id}"
    elif incoming is not None:
        parent = incoming.parent._replace(span_id=span_id_of(id or run.id))
    else:
        parent = TraceParent(trace_id_of(run.id), span_id_of(id or run.id))
        _make_known(run, parent.trace_id)
    return parent, identity.changed(state, member)


def _current_of_otel() -> tuple[TraceParent, State] | None:
    """Return the current span of OpenTelemetry; None without one, or if the program has not imported OpenTelemetry."""
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return None
    context = api.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    parent = TraceParent(f"{context.trace_id:032x}", f"{context.span_id:016x}", f"{int(context.trace_flags):02x}")
    return parent, tuple(context.trace_state.items())


def _make_known(run: RunState, trace_id: str) -> None:
    """Store the trace id of a run once, so that spans that other services export find the run."""
    if run not in _known and run.registered_row is not None:
        _known.add(run)
        row = OtelTraceRow(trace_id, run.id, run.registered_row.started_at or clock.now())
        run.recorder.out.write(unit_of(Put(row, minted=True)))


def _read(headers: Any) -> Incoming | None:
    pairs = headers.items() if hasattr(headers, "items") else headers
    found: dict[str, list[str]] = {"traceparent": [], "tracestate": []}
    for name, value in pairs:
        values = found.get(_text(name).lower())
        if values is not None:
            values.append(_text(value))
    parent = identity.read_parent(found["traceparent"][0]) if len(found["traceparent"]) == 1 else None
    if parent is None:
        return None
    state = identity.read_state(",".join(found["tracestate"]))
    return Incoming(parent, state, identity.read_member(dict(state).get(identity.MEMBER)))


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _origin_of(incoming: Incoming) -> dict[str, str]:
    run, span, _ = incoming.named
    about = {"run": run, "span": span, "trace_id": incoming.parent.trace_id, "span_id": incoming.parent.span_id}
    return {name: value for name, value in about.items() if value is not None}


def _run_id(node: Any) -> str:
    return str(node.run.id if isinstance(node, SpanState) else node.id)


def calling_run(recorder: Recorder, named: Named, trace_id: str) -> RunState | None:
    """Return the run that a request came from, so that its spans can go on here; None if the run is not stored.

    Raises:
        StorageError: the storage does not answer in time.
    """
    storage = recorder.answering
    row = run_of_caller(storage, named, trace_id)
    if row is None:
        return None
    known = recorder.runs.get(row.id)
    if isinstance(known, RunState):
        return known
    agent = unique(storage, AgentRow, id=row.agent_id)
    run = RunState(recorder, "" if agent is None else agent.name)
    run.take_over(row)
    run.is_taken_over = True
    return run
