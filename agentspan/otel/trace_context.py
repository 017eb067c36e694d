"""inject and extract: a run goes on in another service, by the headers of W3C's Trace Context.

`traceparent` names the place in the trace for everyone: the span of OpenTelemetry that is current, else ids that follow
from those of the run and the span, the same with which `agentspan copy` sends them. agentspan's member of
`tracestate` names the run and the span themselves; a service between that puts its own span into `traceparent` only is
the caller. OpenTelemetry need not be installed.
"""

import sys
import weakref
from collections.abc import Iterable, MutableMapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, overload

from agentspan import clock
from agentspan.interrupts import guard
from agentspan.model.changes import Put, unit_of
from agentspan.model.rows import AgentInstanceRow, AgentRow, OtelTraceRow
from agentspan.otel import identity
from agentspan.otel.identity import Named, State, TraceParent, caller_id, span_id, span_id_of, trace_id_of
from agentspan.recording import default, nodes
from agentspan.recording.recorder import Recorder
from agentspan.recording.run_state import RunState, origin
from agentspan.recording.span_and_run import state_of
from agentspan.recording.span_state import SpanState
from agentspan.recording.tracer import Tracer, recorder_of
from agentspan.storage.protocol import Storage
from agentspan.storage.row_by_row import unique

H = TypeVar("H", bound=MutableMapping[str, str])
Pair = tuple[str, str] | tuple[bytes, bytes]


class Items(Protocol):
    """The headers of a request as frameworks have them: a mapping, also one that has a name more than once."""

    def items(self) -> Iterable[Pair]:
        """Return names with values."""
        ...


Headers = Items | Iterable[Pair]


class Incoming(NamedTuple):
    """The headers of a request, read.

    Attributes:
        named: the run and the span of agentspan, where the tracestate has them.
    """

    parent: TraceParent
    state: State
    named: Named


_incoming: ContextVar[Incoming | None] = ContextVar("agentspan_incoming", default=None)
_known: "weakref.WeakSet[RunState]" = weakref.WeakSet()
"""The runs whose trace is in the table of traces."""


@overload
def inject(headers: dict[str, str], *, tracer: Tracer | None = None) -> dict[str, str]: ...
@overload
def inject(headers: H, *, tracer: Tracer | None = None) -> H: ...
def inject(headers: Any, *, tracer: Tracer | None = None) -> Any:
    """Add the active run and span to the headers of a request, and return them: another service can go on from there.

        requests.get(url, headers=agentspan.otel.inject({}))

    Where nothing is active, they stay as they are. Never raises.

    Args:
        headers: a dict, or another mapping of texts.
        tracer: whose run; that of the functions of the package, when left out.
    """
    run = default.current_run() if tracer is None else tracer.current_run()
    span = default.current_span() if tracer is None else tracer.current_span()
    with guard(None if run is None else state_of(run).recorder.faults.add):
        parent, state = _outgoing(None if run is None else state_of(run), None if span is None else state_of(span))
        if parent is not None:
            headers["traceparent"] = identity.write_parent(parent)
            if state:
                headers["tracestate"] = identity.write_state(state)
    return headers


def extract(headers: Headers, *, tracer: Tracer | None = None) -> "Extracted":
    """Return a with-block in which spans belong to the run that a request came from.

        with agentspan.otel.extract(request.headers), agentspan.span("tool", name="look up"):
            ...

    So it is where both services record into one database. Where the run is not in this one, spans are in a run of their
    own, which has the run and the span that they came from as `origin` in its metadata; so does every run that begins
    in the block. Without such headers the block does nothing. It never raises. Give it the headers of services that you
    trust.

    Args:
        headers: a mapping, or pairs, of texts or bytes; their names in any case.
        tracer: where to record; where `agentspan.configure` says, when left out.
    """
    return Extracted(headers, tracer)


class Extracted:
    """The with-block that `extract` returns, also `async with`. Each is entered once."""

    def __init__(self, headers: Headers, tracer: Tracer | None) -> None:
        self._headers = headers
        self._own = None if tracer is None else recorder_of(tracer)
        self._before: tuple[Any, Any] | None = None
        self._node: SpanState | None = None

    def __enter__(self) -> None:
        recorder = default.get_recorder() if self._own is None else self._own
        with guard(recorder.faults.add):
            self._enter(recorder)

    def __exit__(
        self, type_: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        node, self._node = self._node, None
        if node is not None:
            nodes.leave(node.recorder.current, node)
            node.status = "complete"  # a thread that goes on with this context begins a run of its own
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
        said = _read(self._headers)
        if said is None:
            return
        self._before = _incoming.get(), origin.get()
        _incoming.set(said)
        origin.set(_origin_of(said))
        found = _looked_up(recorder, said) if recorder.enabled else None
        here = recorder.innermost()
        if found is None or (here is not None and _run_id(here) == found[0].id):
            return  # in the same run already: a span of OpenTelemetry took it over
        node = SpanState(recorder, _run_of(recorder, found[0]), None, "custom")
        node.id, node.status = found[1] or "", "active"
        nodes.enter(recorder.current, node)
        self._node = node


def _outgoing(run: RunState | None, span: SpanState | None) -> tuple[TraceParent | None, State]:
    """Return the headers of a request that is sent from here, decoded; None if nothing is active."""
    incoming = _incoming.get()
    current = _current_of_otel()
    node: Any = span
    while isinstance(node, SpanState) and not node.id:  # one that could not be recorded
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
    """Return the span of OpenTelemetry that is current; a program that does not import it has none."""
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return None
    context = api.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    parent = TraceParent(f"{context.trace_id:032x}", f"{context.span_id:016x}", f"{int(context.trace_flags):02x}")
    return parent, tuple(context.trace_state.items())


def _make_known(run: RunState, trace_id: str) -> None:
    """Store the trace of a run, for the spans of it that other services export."""
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


def _origin_of(said: Incoming) -> dict[str, str]:
    run, span, _ = said.named
    about = {"run": run, "span": span, "trace_id": said.parent.trace_id, "span_id": said.parent.span_id}
    return {name: value for name, value in about.items() if value is not None}


def _looked_up(recorder: Recorder, said: Incoming) -> tuple[AgentInstanceRow, str | None] | None:
    with recorder.in_time():
        return _place_of(recorder.answering, said)


def _place_of(storage: Storage, said: Incoming) -> tuple[AgentInstanceRow, str | None] | None:
    """Return the run that a request came from, and the id of the span in it; None if it is not in this storage."""
    trace_id, parent, _ = said.parent
    row = None if said.named.run is None else unique(storage, AgentInstanceRow, id=said.named.run)
    if row is None:
        trace = unique(storage, OtelTraceRow, id=trace_id)
        row = None if trace is None else unique(storage, AgentInstanceRow, id=trace.agent_instance_id)
    return None if row is None else (row, caller_id(row.id, said.named, trace_id, parent))


def _run_id(node: Any) -> str:
    return str(node.run.id if isinstance(node, SpanState) else node.id)


def _run_of(recorder: Recorder, row: AgentInstanceRow) -> RunState:
    run = recorder.runs.get(row.id)
    if isinstance(run, RunState):
        return run
    agent = unique(recorder.store, AgentRow, id=row.agent_id)
    run = RunState(recorder, "" if agent is None else agent.name)
    run.take_over(row)
    run.is_taken_over = True
    return run
