"""SpanProcessor: records the spans of a TracerProvider of OpenTelemetry's SDK. Never raises, never blocks for long.

Each span is on disk when it starts, and completed when it ends.
"""

import atexit
import sys
import threading
import time
import weakref
from collections import deque
from math import inf
from typing import Any

from opentelemetry.sdk.trace import SpanProcessor as _SpanProcessor

from agentspan import clock, host
from agentspan.arriving.identity import span_id_of_number
from agentspan.host import Renewal, page
from agentspan.journal.records import Begin, whole
from agentspan.model import spans
from agentspan.model.changes import Put, unit_of
from agentspan.otel.mapping.judgements import RESULT, scores_in
from agentspan.otel.mapping.mapped import (
    NO_HINTS,
    Mapped,
    begun_type,
    conversation_of,
    hints_of,
    is_of_framework,
    map_span,
)
from agentspan.otel.mapping.sdks import is_step
from agentspan.otel.processor_traces import (
    Key,
    RunOfTraces,
    Trace,
    Traces,
    captured_end,
    end_process_run,
    end_run,
    is_repetition,
    link_contexts,
    parent_id,
    unlink_contexts,
)
from agentspan.otel.sdk import READER, AtEnd, AtStart, Writer, at_end, at_start, attributes_of, span_of
from agentspan.otel.span import OtelSpan
from agentspan.otel.stored_rows import score_rows
from agentspan.otel.traces import ABANDONED
from agentspan.recording.recorder import Recorder
from agentspan.recording.run_state import RunState
from agentspan.recording.span_state import SpanState, going_on, inner_of
from agentspan.recording.tracer import Tracer, get_recorder, recorder_of

_OF_LOOP = 0


def _thread() -> int:
    """Return the id of this thread; _OF_LOOP for each thread of the pool of asyncio's loops."""
    thread = threading.current_thread()
    return _OF_LOOP if thread.name.startswith("asyncio_") else thread.ident or _OF_LOOP


class LiveRecording:
    """Records OpenTelemetry spans into one recorder.

    Several providers share one LiveRecording, because a span of one provider can be inside a span of another.

    Attributes:
        recorder: the recorder that writes the spans.
        users: the number of processors that use this object.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.users = 0
        self._grace_s = recorder.tuning.otel_grace_s
        self._active: dict[Key, SpanState] = {}
        self._calls: dict[Key, tuple[SpanState, int]] = {}  # open calls that frameworks record, with their threads
        self._traces = Traces(recorder)
        self._waiting: deque[tuple[float, Trace]] = deque()
        self._writer = Writer(recorder.capture)
        self._keeps_raw = recorder.is_open and recorder.destination.is_journaled
        link_contexts(recorder, self._active)

    def renew(self) -> None:
        """Make new locks in a forked child: another thread of the parent may have held the old ones."""
        self._traces.renew()

    def start(self, span: Any) -> None:
        """Record that a span has started. A span that may repeat a call is recorded when it ends."""
        attributes, start = attributes_of(span), at_start(span)
        if (not attributes or is_step(attributes)) and not is_repetition(start):
            self._begin(span, attributes, start, looks=True)
        if self._waiting:
            self._close_late()

    def end(self, span: Any) -> None:
        """Record that a span has ended."""
        attributes, end = attributes_of(span), at_end(span)
        context, parent, _, scope, end_ns, _, _, _ = end
        key = context[:2]
        node, around = self._active.pop(key, None), None
        if self._calls:
            self._calls.pop(key, None)
        if node is None:
            if not is_step(attributes):
                return
            start = at_start(span)
            around = self._traces.repeated_call(span) if is_repetition(start) else None
            node = self._begin(span, attributes, start, around)  # also for a span that started before this processor
            self._active.pop(key, None)
        if node.writer_id != self.recorder.writer_id:
            return  # a forked child must not end a span that goes on in its parent
        trace = self._traces.going_on.get(key[0]) or self._traces.get(key[0])
        if trace is None:  # the trace was evicted meanwhile
            trace = self._traces.begin(span, node.run)
        trace.open.pop(key, None)
        inside = trace.inside
        if end_ns > inside.last_ns:
            inside.last_ns = end_ns
        if scope is not inside.scope:  # the scope is mostly that of the previous span
            inside.scope = scope
            if scope is not None and scope.name:
                inside.scopes[scope.name] = None
        is_call, may_be_judged, names_conversation = hints_of(attributes) if attributes else NO_HINTS
        if names_conversation:
            for name, value in conversation_of(attributes).items():
                trace.conversation.setdefault(name, value)
        if is_call:
            inside.calls.note(node, span, is_late=around is not None)
        is_root = key == trace.root
        if is_root and trace.is_own:
            self._end_root(trace, node, span)
        else:
            self._end(node, span, end, attributes, may_be_judged=may_be_judged)
        if is_root:
            self._end_trace(trace, span.start_time)
        elif parent is None:
            inside.calls.settle(span.start_time)
        elif is_call and trace.has_ended:  # the call ended after the root of its trace
            inside.calls.settle(trace.start_ns)
        if self._waiting:
            self._close_late()

    def _end_trace(self, trace: Trace, since_ns: int) -> None:
        trace.has_ended = True  # before settling: a call that another thread notes later is then settled again
        trace.inside.calls.settle(since_ns)
        self._traces.end(trace)
        if trace.open:
            self._waiting.append((time.monotonic() + self._grace_s, trace))

    def has_call_in(self, node: SpanState) -> bool:
        """Return whether a call of a model that an instrumentor recorded is directly inside of a span of agentspan."""
        return self._traces.has_call_in(node.run.id, node.id)

    def close(self) -> None:
        """Close the open spans as abandoned, and end the open runs of traces and of the process."""
        while (late := self._next_waiting()) is not None:
            self._close_open(late)
        for trace in self._traces.all():
            self._close_open(trace)
            trace.inside.calls.settle(trace.start_ns)
            if trace.is_own:
                trace.inside.run.end_as("failed", trace.inside.last_ns, error=ABANDONED)
            self._traces.end(trace)
        for key, node in list(self._active.items()):  # spans that started after the root of their trace had ended
            trace_of = self._traces.get(key[0])
            if trace_of is not None:
                self._abandon(node, trace_of.inside)
        self._active.clear()
        for inside in [*self._traces.of_process.values()]:
            inside.calls.settle(0)
            end_process_run(inside)
        unlink_contexts(self.recorder)

    def _begin(
        self,
        span: Any,
        attributes: dict[str, Any],
        start: AtStart,
        around: SpanState | RunState | None = None,
        *,
        looks: bool = False,
    ) -> SpanState:
        """Begin to record a span, and return its node.

        Args:
            around: the run or span of agentspan to put the span into; the current one, when left out.
            looks: whether the step may be stopped, because it begins now.

        Raises:
            BudgetExceeded: the budget of the run is spent. The SDK catches nothing there, so the program gets it.
        """
        recorder = self.recorder
        context, parent, name, _, scope, started_ns = start
        key, scope_name = context[:2], "" if scope is None else scope.name or ""
        outer = None if parent is None else self._active.get((key[0], parent[1]))
        if around is None:
            current = recorder.current.get()
            around = outer if current is None else inner_of(going_on(current), outer)
            if around is None and parent is None and self._calls:
                around = self._call_around(begun_type(scope_name, name), scope_name)
        trace = self._traces.going_on.get(key[0]) or self._traces.get(key[0])
        if trace is None:
            trace = self._traces.begin(span, around)
        run: RunState = trace.inside.run
        if around is not None and (outer is not None or parent is None or parent.is_remote or key == trace.root):
            if isinstance(around, SpanState):
                run, above = around.run, around.id or around.parent_span_id
            else:
                run, above = around, None
        else:
            above = parent_id(run.id, trace.id, parent)
        if run.spending is not None:
            run.spending.admit(name, "{}") if looks else run.spending.count()
        node = SpanState(recorder, run, above, begun_type(scope_name, name))
        node.outer = around
        if node.schema_name == "llm" and is_of_framework(scope_name):
            self._calls[key] = node, _thread()
        id = span_id_of_number(run.id, trace.id, key[1])
        written = self._writer.begin(start, attributes) if self._keeps_raw else None
        if written is not None:
            text, node.raw_begin = written
            node.create_raw(id, READER, text, started_ns)
        else:
            node.create_as(id, self._begun(map_span(span_of(span)), run), started_ns)
        self._active[key] = trace.open[key] = node
        if run.termination_reason is not None:
            run.tell()
        return node

    def _call_around(self, type_: str, scope: str) -> SpanState | None:
        """Return the open call of a framework that a client's call without a parent is inside of; None without one.

        LangChain's instrumentor does not make its spans current, so the client's instrumentor begins a trace. A
        framework calls its client in the thread of its span. In a loop of asyncio, LangChain makes the span in a thread
        of the loop's pool. Of several calls there, the first that has no client yet is returned.
        """
        if type_ != "llm" or is_of_framework(scope):
            return None
        loops, here = sys.modules.get("asyncio"), {_thread()}
        if loops is not None and loops._get_running_loop() is not None:
            here.add(_OF_LOOP)
        key = next((key for key, (_, thread) in [*self._calls.items()] if thread in here), None)
        return None if key is None else self._calls.pop(key, (None, 0))[0]

    def _end(self, node: SpanState, span: Any, end: AtEnd, attributes: dict[str, Any], *, may_be_judged: bool) -> None:
        end_ns, status = end[4], end[5]
        start_ns = node.started_ns or span.start_time or 0
        written = self._writer.end(span, end, attributes, node.raw_begin, start_ns) if self._keeps_raw else None
        if written is None:
            plain = span_of(span)
            node.end_as(captured_end(self.recorder, node.run, map_span(plain)), end_ns)
            self._judge(node, plain)
            return
        text, has_more = written
        is_failed = has_more and status is not None and not status.is_ok
        node.end_raw("failed" if is_failed else "complete", READER, text, end_ns)
        if may_be_judged or (has_more and RESULT in text):
            self._judge(node, span_of(span))

    def _end_root(self, trace: Trace, node: SpanState, span: Any) -> None:
        """End the root span of a run, and end the run with it.

        The root is mapped in the caller, because the run needs its name, result and error now.
        """
        plain = span_of(span)
        mapped = map_span(plain)
        node.end_as(captured_end(self.recorder, node.run, mapped), span.end_time)
        self._judge(node, plain)
        end_run(trace, plain, mapped)

    def _judge(self, node: SpanState, plain: OtelSpan) -> None:
        """Record the scores in the attributes and events of a span, about the span or its run."""
        recorder = self.recorder
        if node.id and node.run.id and (scores := scores_in(plain)):
            partition, admit = recorder.destination.account.partition, recorder.capture.text
            for row in score_rows(scores, node.run.id, node.id, partition, admit):
                recorder.out.write(unit_of(Put(row, minted=True)))

    def _begun(self, mapped: Mapped, run: RunState) -> Begin:
        capture = self.recorder.capture
        return Begin(capture.text(mapped.schema_name), whole(capture.object(mapped.payload, run.repeats)))

    def _close_late(self) -> None:
        now = time.monotonic()
        while (late := self._next_waiting(now)) is not None:
            self._close_open(late)

    def _next_waiting(self, before_s: float = inf) -> Trace | None:
        """Remove and return the next waiting trace whose grace period is over, or None."""
        try:
            if self._waiting[0][0] >= before_s:
                return None
            late = self._waiting.popleft()
        except IndexError:  # none waits
            return None
        if late[0] < before_s:
            return late[1]
        self._waiting.appendleft(late)  # another thread has removed the one before it
        return None

    def _close_open(self, trace: Trace) -> None:
        for key, node in list(trace.open.items()):
            self._active.pop(key, None)
            self._abandon(node, trace.inside)
        trace.open.clear()

    def _abandon(self, node: SpanState, inside: RunOfTraces) -> None:
        if node.writer_id != self.recorder.writer_id or node.status != "active" or not node.id:
            return
        node.status = "failed"
        result = self.recorder.capture.failure(ABANDONED)
        started_at, at = clock.to_text(node.started_ns), clock.to_text(max(inside.last_ns, node.started_ns))
        move = spans.abandoned(node.id, result, started_at, at, clock.now(), node.run.id)
        self.recorder.out.write(unit_of(move))


class SpanProcessor(_SpanProcessor):
    """Records the spans of a TracerProvider. Each span is in the file when it starts.

        provider.add_span_processor(agentspan.otel.SpanProcessor())

    Args:
        tracer: the tracer to record into; the one of `agentspan.configure`, when left out.
    """

    def __init__(self, tracer: Tracer | None = None) -> None:
        self._own = None if tracer is None else recorder_of(tracer)
        self._live: LiveRecording | None = None
        _processors.add(self)

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        """Record a span that has started."""
        try:
            live = self._live if page[0] else None
            if live is None or live.recorder is not (get_recorder() if self._own is None else self._own):
                live = self._usable()
            if live is not None:
                live.start(span)
        except Exception as error:
            self._lose(error)

    def on_end(self, span: Any) -> None:
        """Record the end of a span."""
        try:
            live = self._live if page[0] else None
            if live is None or live.recorder is not (get_recorder() if self._own is None else self._own):
                live = self._usable()
            if live is not None:
                live.end(span)
        except Exception as error:
            self._lose(error)

    def shutdown(self) -> None:
        """Close the open spans and end the run of the process. Spans that start later begin a new run.

        If other processors record into the same tracer, only the shutdown of the last processor does so.
        """
        with _lock:
            live, self._live = self._live, None
            if live is not None:
                _give_back(live)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Drain the journal; return whether all records reached the storage in time."""
        return self._recorder().flush(timeout_millis / 1000)

    def _lose(self, error: Exception) -> None:
        self._recorder().faults.lose(error, reraise=False)

    def _recorder(self) -> Recorder:
        if not page[0]:
            host.renew()
        return get_recorder() if self._own is None else self._own

    def _usable(self) -> LiveRecording | None:
        """Return the LiveRecording of the current recorder; None if the recorder is disabled."""
        recorder, live = self._recorder(), self._live
        if live is None or live.recorder is not recorder:
            return self._recording(recorder) if recorder.enabled else None
        return live

    def _recording(self, recorder: Recorder) -> LiveRecording:
        with _lock:
            if self._live is not None:  # `configure` made another recorder
                _give_back(self._live)
            live = _recordings.get(id(recorder))
            if live is None:
                live = _recordings[id(recorder)] = LiveRecording(recorder)
            live.users += 1
            self._live = live
            return live


_lock = threading.RLock()
_recordings: dict[int, LiveRecording] = {}
"""The recordings by `id` of their recorder. A recording references its recorder, so the id stays unique."""


def has_call_in(node: SpanState) -> bool:
    """Return whether an instrumentor recorded a call of a model directly inside of a span of agentspan."""
    live = _recordings.get(id(node.recorder))
    return live is not None and live.has_call_in(node)


def _give_back(live: LiveRecording) -> None:
    live.users -= 1
    if live.users:
        return
    _recordings.pop(id(live.recorder), None)
    if live.recorder.is_usable:
        with live.recorder.faults.losing(reraise=False):
            live.close()
            live.recorder.flush(2.0)


_processors: "weakref.WeakSet[SpanProcessor]" = weakref.WeakSet()


def _shut_down_all() -> None:
    for processor in host.members(_processors):
        processor.shutdown()


def _renew_all() -> None:
    global _lock
    _lock = threading.RLock()  # another thread of the parent may have held the old lock
    for live in _recordings.values():
        live.renew()


# This runs before the exit function of the recorder, which was registered earlier. A provider may have none of its own.
atexit.register(_shut_down_all)
host.renewal(Renewal.LOCKS, _renew_all)
