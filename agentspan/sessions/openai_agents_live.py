"""Records the traces of OpenAI's Agents SDK while they run, as a processor of the SDK's own tracing.

It needs neither OpenTelemetry nor an instrumentor, and it never imports the SDK. Spans are decoded as
`agentspan.sessions.openai_agents` decodes exported ones, with the same ids, so an import of the same items adds none.
It takes more than is exported: the answers of the Responses API. A trace that begins inside a run of agentspan belongs
to that run; any other is a run of its own.

An instrumentor of a model's client may record the same call inside of the SDK's span. Then that span is a `chain`, and
the client's span counts the tokens.
"""

import json
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from agentspan.arriving import STATUS, Session, Step, hashed_id, metadata_of, ns_of, object_in, span_id
from agentspan.ground import (
    MAX_NAME,
    Begin,
    End,
    Known,
    Recorder,
    RunState,
    SpanState,
    Tracer,
    get_recorder,
    going_on,
    host,
    inner_of,
    jsontext,
    recorder_of,
    text,
    whole,
)
from agentspan.sessions.openai_agents import NAME, TraceDecoder, begun, begun_payload, ended, schema_of

_NOT_ENDED = {"type": "Abandoned", "message": "its end was never sent"}
_OTEL = "agentspan.otel.processor"
_COUNTED = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")


@dataclass(slots=True)
class _Trace:
    """A trace that is recorded.

    Attributes:
        session: the Session, as the decoder of files makes it.
        decoder: makes the steps.
        run: the run that has the steps.
        top: the id of the span above the trace; None without one.
        is_own: whether the run is the trace's own.
        nodes: the open spans, by the SDK's ids.
    """

    session: Session
    decoder: TraceDecoder
    run: RunState
    top: str | None
    is_own: bool
    nodes: dict[str, SpanState] = field(default_factory=dict)


class AgentsProcessor:
    """A processor of traces, with the methods that the SDK calls.

    Attributes:
        is_added: whether the SDK calls this processor.
    """

    def __init__(self) -> None:
        self.is_added = False
        self._is_on = False
        self._own: Recorder | None = None
        self._about: dict[str, dict[str, Any]] = {}
        self._traces: dict[str, _Trace] = {}
        self._lock = threading.RLock()
        self._unharmed = host.guard(report=self._lose)

    def turn_on(self, tracer: Tracer | None) -> None:
        """Record traces from now on, with this tracer; with the one of `configure`, if it is None."""
        self._own = None if tracer is None else recorder_of(tracer)
        self._is_on = True

    def turn_off(self) -> None:
        """Record nothing more. The SDK keeps calling the processor, because it cannot remove one."""
        self._is_on = False
        self.shutdown()

    def add_to(self, tracing: ModuleType) -> None:
        """Add this processor to the SDK, beside the program's own processors."""
        with self._unharmed:
            if not self.is_added:
                tracing.add_trace_processor(self)
                self.is_added = True

    def renew(self) -> None:
        """Make a new lock in a forked child: another thread of the parent may have held the old one."""
        self._lock = threading.RLock()

    # What the SDK calls

    def on_trace_start(self, trace: Any) -> None:
        """Note the item of a trace; its run begins with its first span."""
        if self._is_on:
            with self._unharmed, self._lock:
                self._about[trace.trace_id] = trace.export() or {}

    def on_span_start(self, span: Any) -> None:
        """Record that a span has started."""
        if self._is_on:
            with self._unharmed, self._lock:
                self._begin(object_in(span.export()))

    def on_span_end(self, span: Any) -> None:
        """Record the end of a span."""
        if self._is_on:
            with self._unharmed, self._lock:
                self._end(_item_of(span))

    def on_trace_end(self, trace: Any) -> None:
        """Record the end of a trace."""
        with self._unharmed, self._lock:
            self._about.pop(trace.trace_id, None)
            live = self._traces.pop(trace.trace_id, None)
            if live is not None:
                _close(live)

    def shutdown(self) -> None:
        """End the traces that are open."""
        with self._unharmed, self._lock:
            while self._traces:
                _close(self._traces.popitem()[1])

    def force_flush(self) -> None:
        """Wait until all that was recorded is in the storage."""
        self._recorder().flush(5.0)

    def _recorder(self) -> Recorder:
        return get_recorder() if self._own is None else self._own

    def _lose(self, error: Exception) -> None:
        self._recorder().faults.lose(error, reraise=False)

    def _begin(self, item: dict[str, Any]) -> None:
        recorder = self._recorder()
        start = ns_of(item.get("started_at"))
        if not recorder.enabled or start is None:
            return
        around = going_on(recorder.current.get())
        live = self._traces.get(item["trace_id"])
        if live is None:
            about = self._about.get(item["trace_id"], {})
            live = self._traces[item["trace_id"]] = _begun(recorder, item["trace_id"], about, start, around)
        if live.run.spending is not None:
            live.run.spending.admit("custom", "{}")
        data = object_in(item.get("span_data"))
        outer = live.nodes.get(item.get("parent_id") or "")
        node = SpanState(recorder, live.run, _above(live, item, outer, around), schema_of(data))
        node.outer = around
        node.raw_begin = whole(recorder.capture.object(begun_payload(data), live.run.repeats))
        node.create_as(_id_of(live, item["id"]), Begin(node.schema_name, node.raw_begin), start)
        live.nodes[item["id"]] = node
        recorder.current.set(node)
        if live.run.termination_reason is not None:
            live.run.tell()

    def _end(self, item: dict[str, Any]) -> None:
        live = self._traces.get(item["trace_id"])
        node = None if live is None else live.nodes.pop(item["id"], None)
        if live is None or node is None or node.writer_id != node.recorder.writer_id:
            return  # a forked child must not end a span that goes on in its parent
        for record in live.decoder.span(item):
            if type(record) is Step:
                _record(live, node, record, is_whole=record.key == item["id"])
        end = ns_of(item.get("ended_at")) or node.started_ns
        end = max(end, live.session.ended_ns or 0)
        live.session = ended(live.session, live.decoder, end, is_over=item.get("parent_id") is None)
        current = node.recorder.current
        if current.get() is node:
            current.set(node.outer)


def _begun(recorder: Recorder, trace: str, about: dict[str, Any], start: int, around: Any) -> _Trace:
    """Begin to record a trace: inside of the current run or span, else as a run of its own."""
    _link(recorder)
    session = begun(trace, about, start)
    decoder = TraceDecoder(trace)
    if around is not None:
        run, top = (around.run, around.id or around.parent_span_id) if isinstance(around, SpanState) else (around, None)
        return _Trace(session, decoder, run, top, is_own=False)
    run = RunState(
        recorder, text.one_line(session.agent, MAX_NAME), metadata=metadata_of(session),
        session=session.conversation or session.id,
    )  # fmt: skip
    key = f"{NAME}:{trace}"
    partition = recorder.destination.account.partition if recorder.is_open else 0
    run.begin(Known(hashed_id(key, start, partition), key, start))
    return _Trace(session, decoder, run, None, is_own=True)


def _link(recorder: Recorder) -> None:
    """Let no new span begin inside of an ended one: a span may end in another context than it began in."""
    if recorder.innermost == recorder.current.get:
        current = recorder.current.get
        recorder.innermost = lambda: going_on(current())


def _above(live: _Trace, item: dict[str, Any], outer: SpanState | None, around: Any) -> str | None:
    """Return the id of the span above: the SDK's parent, or a span of the program inside of it."""
    inner = inner_of(around, outer)
    if isinstance(inner, SpanState) and inner is not outer and outer is not None and inner_of(inner, outer) is inner:
        above: str | None = inner.id or inner.parent_span_id
        return above
    parent = item.get("parent_id")
    return live.top if parent is None else _id_of(live, parent)


def _id_of(live: _Trace, key: str) -> str:
    return span_id(live.run.id, live.session.id, key)


def _record(live: _Trace, node: SpanState, step: Step, *, is_whole: bool) -> None:
    """Record a step that has ended.

    Args:
        is_whole: True if it is the step of the node; else a message before it.
    """
    recorder = node.recorder
    name, payload, result = step.type, step.payload, step.result
    if not is_whole:
        outer = node.outer
        if live.run.spending is not None:
            live.run.spending.count()
        node = SpanState(recorder, live.run, node.parent_span_id, name)
        node.outer = outer
        begin = Begin(name, whole(recorder.capture.object(payload, live.run.repeats)))
        node.create_as(_id_of(live, step.key), begin, step.start_ns)
    elif name == "llm" and _is_recorded_inside(node):
        name, payload = "chain", {"name": f"model call {payload.get('model')}", **payload}
        result = {key: value for key, value in (result or {}).items() if key not in _COUNTED}
    capture = recorder.capture
    sent = whole(capture.object(payload, live.run.repeats))
    returned = None if result is None else capture.object(result)
    status: Any = step.status if step.status != "active" else "complete"
    node.end_as(End(name, status, sent, returned), step.end_ns or step.start_ns)


def _is_recorded_inside(node: SpanState) -> bool:
    """Return whether an instrumentor of OpenTelemetry recorded the same call inside of a span."""
    module = sys.modules.get(_OTEL)
    return module is not None and bool(module.has_call_in(node))


def _close(live: _Trace) -> None:
    """End a trace: record its open spans as failed, and end its own run."""
    recorder, session = live.run.recorder, live.session
    for node in live.nodes.values():
        if node.writer_id == recorder.writer_id and node.status == "active":
            result = recorder.capture.object({"error": _NOT_ENDED})
            end = End(node.schema_name, "failed", node.raw_begin, result)
            node.end_as(end, session.ended_ns or node.started_ns)
    live.nodes.clear()
    if not live.is_own or live.run.is_taken_over:
        return
    live.run.end_as(
        STATUS[session.outcome],  # type: ignore[arg-type]
        session.ended_ns or session.started_ns,
        result=None if session.output is None else {"output": session.output},
        error=session.error,
        metadata=metadata_of(session),
        session=session.conversation or session.id,
        task=session.task,
    )


def _item_of(span: Any) -> dict[str, Any]:
    """Return the item of a span as plain JSON, with the values that the SDK does not export."""
    item = dict(span.export() or {})
    live = span.span_data
    if getattr(live, "type", None) == "response":
        response = getattr(live, "response", None)
        dump: Callable[..., Any] | None = getattr(response, "model_dump", None)
        found = None if dump is None else dump(mode="json", exclude_none=True, warnings=False)
        item["span_data"] = {**object_in(item.get("span_data")), "input": live.input, "response": found}
    try:
        return object_in(jsontext.encode(item)[1])
    except ValueError:  # an object of the program
        return object_in(json.loads(json.dumps(item, default=repr)))


PROCESSOR = AgentsProcessor()
"""The processor of this process. The SDK cannot remove a processor, so there is one, which is turned on and off."""
host.renewal(host.Renewal.LOCKS, PROCESSOR.renew)
