"""Tracks the open traces of this process and the runs that they are recorded in.

A trace that begins inside a run of agentspan belongs to this run. Else a trace whose root is an agent, a workflow, a
call of a framework or a server's request is a run of its own, which ends with its root. All other traces belong to one
run of the process. Spans of agentspan and of OpenTelemetry form one tree: each may be inside the other, in any order.
Calls of a model that several instrumentors recorded are deduplicated when the trace around them ends.
"""

import os
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from opentelemetry import trace

from agentspan import clock, jsontext
from agentspan.arriving.identity import run_id
from agentspan.errors import StorageError
from agentspan.journal.records import End, whole
from agentspan.journal.writers import program_name
from agentspan.model import columns, spans
from agentspan.model.changes import Put, Unit, unit_of
from agentspan.model.rows import OtelTraceRow
from agentspan.otel.identity import MEMBER, Named, caller_id, read_member
from agentspan.otel.mapping.mapped import Mapped, begins_run, map_span, program_of
from agentspan.otel.sdk import AtStart, span_of
from agentspan.otel.span import OtelSpan
from agentspan.otel.trace_context import calling_run
from agentspan.otel.traces import (
    Call,
    RunName,
    as_recorded,
    call_of,
    duplicates,
    end_of_run,
    name_of_process,
    name_of_trace,
    nearest,
    only_repeats,
    run_metadata,
    twins_of,
)
from agentspan.recording.capture.repeats import Repeats
from agentspan.recording.recorder import Recorder
from agentspan.recording.run_state import Known, RunState
from agentspan.recording.span_state import SpanState, going_on, inner_of
from agentspan.schemas.span_types import MAX_NAME, describe, title_of
from agentspan.text import one_line

Key = tuple[int, int]
"""The ids of a trace and a span as numbers, as OpenTelemetry's SDK stores them."""


def link_contexts(recorder: Recorder, active: dict[Key, SpanState]) -> None:
    """Let new spans of a recorder be children of the current OpenTelemetry span, if it is the innermost span.

    Args:
        active: the recorded spans of OpenTelemetry that have not ended.
    """
    current = recorder.current.get

    def innermost() -> Any:
        context = trace.get_current_span().get_span_context()
        other = active.get((context.trace_id, context.span_id)) if context.is_valid else None
        return inner_of(going_on(current()), other)

    recorder.innermost = innermost


def parent_id(run: str, trace_id: str, parent: Any) -> str | None:
    """Return the id in agentspan of a parent that has ended or is in another process; None without a parent.

    Another process may name a span of agentspan in the parent's `tracestate`.

    Args:
        parent: the SDK's context of the parent span.
    """
    if parent is None:
        return None
    named = read_member(parent.trace_state.get(MEMBER)) if parent.is_remote else Named()
    return caller_id(run, named, trace_id, f"{parent.span_id:016x}")


def unlink_contexts(recorder: Recorder) -> None:
    """Undo `link_contexts`."""
    recorder.innermost = recorder.current.get


MOST = 256
"""The most calls of a run that are compared with each other: the latest ones, whose attributes stay in memory."""


@dataclass(slots=True)
class _Seen:
    node: SpanState
    span: Any
    mapped: Mapped | None = None
    call: Call | None = None

    def read(self) -> None:
        """Map the span at the first call only. Most runs have one instrumentor and never need the mapping."""
        if self.mapped is None:
            plain = span_of(self.span)
            mapped = map_span(plain)
            call = call_of(plain, mapped)
            if call is not None:
                self.call = call._replace(id=self.node.id, parent=self.node.parent_span_id)
            self.mapped = mapped  # set last: another thread may settle the same calls, and checks `mapped`


class CallsOfRun:
    """The latest calls of models in one run, which it deduplicates."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._seen: deque[_Seen] = deque(maxlen=MOST)
        self._kept: dict[str, str] = {}
        self._lock = threading.RLock()

    def note(self, node: SpanState, span: Any, *, is_late: bool) -> None:
        """Add a span that has ended and may be a call of a model.

        Args:
            is_late: whether spans with a later end may have been added before. Then the spans are sorted again.
        """
        self._seen.append(_Seen(node, span))
        if is_late:
            self._seen = deque(sorted(self._seen.copy(), key=lambda each: each.span.end_time), MOST)

    def has_call_in(self, span_id: str) -> bool:
        """Return whether one of the latest calls is directly inside of a span."""
        return any(each.node.parent_span_id == span_id for each in reversed(self._seen.copy()))

    def _since(self, since_ns: int) -> list[_Seen]:
        """Return the spans that ended at or after this time, the latest first."""
        return [*takewhile(lambda each: each.span.end_time >= since_ns, reversed(self._seen.copy()))]

    def like(self, call: Call) -> Iterator[tuple[Call, SpanState]]:
        """Yield the calls, with their nodes, that a call of another instrumentor may repeat.

        A call that the other instrumentor has repeated already is left out.
        """
        seen = self._since(call.start_ns)
        for each in seen:
            each.read()
        repeated = {each.call.parent for each in seen if each.call is not None and each.call.scope == call.scope}
        for each in seen:
            if each.call is not None and each.call.id not in repeated:
                yield each.call, each.node

    def settle(self, since_ns: int) -> None:
        """Deduplicate the calls that ended at or after this time: mark the duplicates, and complete the kept calls."""
        with self._lock:  # else an older result of another thread could be written last
            self._settle(since_ns)

    def renew(self) -> None:
        """Make a new lock in a forked child: another thread of the parent may have held the old one."""
        self._lock = threading.RLock()

    def _settle(self, since_ns: int) -> None:
        seen = self._since(since_ns)
        if len(seen) < 2 or not _may_repeat(seen):
            return
        for each in seen:
            each.read()
        by_id = {each.node.id: each for each in seen}
        mapped = {id: each.mapped for id, each in by_id.items() if each.mapped is not None}
        kept_of = duplicates(each.call for each in seen if each.call is not None)
        new = {twin: kept for twin, kept in kept_of.items() if self._kept.get(twin) != kept}
        self._kept = new if len(self._kept) > MOST else self._kept | new
        twins = twins_of(kept_of)
        changed = [id for kept in sorted(set(new.values())) for id in (kept, *twins[kept])]
        for id, record in as_recorded(mapped, kept_of, changed).items():
            self._recorder.out.write(_rewritten(self._recorder, by_id[id], record))


def _may_repeat(seen: list[_Seen]) -> bool:
    scopes = {each.span.instrumentation_scope.name for each in seen if each.span.instrumentation_scope is not None}
    ids = {each.node.id for each in seen}
    return len(scopes) > 1 or any(each.node.parent_span_id in ids for each in seen)


def _rewritten(recorder: Recorder, seen: _Seen, mapped: Mapped) -> Unit:
    node = seen.node
    name, status, payload, result = captured_end(recorder, node.run, mapped)
    span_type = recorder.registry.resolve(name)
    decoded, is_marked = columns.read_payload(payload)
    returned = jsontext.value_of(result)
    elapsed_ms = (seen.span.end_time - node.started_ns) / 1_000_000
    meaning = describe(span_type, name, status, decoded, returned, elapsed_ms)
    at = clock.to_text(max(seen.span.end_time, node.started_ns))
    move = spans.reported_again(node.id, name, title_of(span_type, name), payload, result, meaning, at)._replace(
        instance_id=node.run.id
    )
    return unit_of(spans.with_sensitive(move) if is_marked else move)


def captured_end(recorder: Recorder, run: RunState, mapped: Mapped) -> End:
    """Return the record of the end of a span, redacted and truncated by the capture settings."""
    capture, result = recorder.capture, mapped.result_payload
    payload = whole(capture.object(mapped.payload, run.repeats))
    returned = None if result is None else capture.object(result)
    return End(capture.text(mapped.schema_name), mapped.status, payload, returned)


ENDED = 1000
"""The most ended traces that are kept, because their spans may come late."""


@dataclass(slots=True)
class RunOfTraces:
    """A run that holds traces, with the facts that its spans have provided so far.

    Attributes:
        run: the run in the recorder.
        calls: the calls of models in the run.
        resource: the attributes of the process.
        scopes: the names of the instrumentors, in the order in which their first spans ended.
        scope: the instrumentor of the span that ended last.
        last_ns: the latest end of a span.
    """

    run: RunState
    calls: CallsOfRun
    resource: dict[str, Any] = field(default_factory=dict)
    scopes: dict[str, None] = field(default_factory=dict)
    scope: Any = None
    last_ns: int = 0


@dataclass(slots=True)
class Trace:
    """A trace of which at least one span has started.

    Attributes:
        id: the trace id in hexadecimal digits.
        inside: the run that the trace is recorded in.
        root: the ids of the first span of the trace.
        is_own: whether the run began with the root and ends with the root.
        has_ended: whether the root has ended.
        open: the spans of the trace that have not ended.
        conversation: the first `session` and `user` that spans of the trace name.
    """

    id: str
    inside: RunOfTraces
    root: Key
    start_ns: int
    is_own: bool = False
    has_ended: bool = False
    open: dict[Key, SpanState] = field(default_factory=dict)
    conversation: dict[str, str] = field(default_factory=dict)


def is_repetition(start: AtStart) -> bool:
    """Return whether a span of LiteLLM's callback is a root, and so may repeat a call that has ended."""
    _, parent, _, kind, scope, _ = start
    return parent is None and scope is not None and only_repeats(scope.name, kind)


class Traces:
    """The open traces of one recorder, its latest ended traces, and their runs.

    Attributes:
        going_on: the traces whose root has not ended, by trace id.
        of_process: the runs of the process, which hold all traces that are not runs of their own.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.going_on: dict[int, Trace] = {}
        self._ended: OrderedDict[int, Trace] = OrderedDict()
        self._inside: OrderedDict[str, RunOfTraces] = OrderedDict()
        self.of_process: dict[str, RunOfTraces] = {}
        self._pid = os.getpid()
        self._lock = threading.RLock()

    def renew(self) -> None:
        """Make new locks in a forked child: another thread of the parent may have held the old ones."""
        self._lock = threading.RLock()
        for inside in (*self._inside.values(), *self.of_process.values()):
            inside.calls.renew()

    def get(self, trace_id: int) -> Trace | None:
        """Return an open trace or one of the latest ended traces; None if the trace is unknown."""
        return self.going_on.get(trace_id) or self._ended.get(trace_id)

    def begin(self, span: Any, around: SpanState | RunState | None) -> Trace:
        """Begin a trace with its first span, and return it; if another thread began it, return the known trace.

        Args:
            around: the run or span that the first span is inside of; None without one.
        """
        with self._lock:  # two threads may begin the run of the process
            return self.get(span.context.trace_id) or self._new(span, around)

    def _new(self, span: Any, around: SpanState | RunState | None) -> Trace:
        context = span.context
        key = (context.trace_id, context.span_id)
        id = f"{context.trace_id:032x}"
        is_own = False
        if around is not None:
            inside = self._of(around.run if isinstance(around, SpanState) else around)
        else:
            plain = span_of(span)
            mapped = map_span(plain)
            stored = self._stored(id, span.parent) if span.parent is not None and span.parent.is_remote else None
            if stored is not None:
                inside = self._of(stored)
            elif mapped.run.is_own or begins_run(plain):
                inside, is_own = self._own(id, plain, mapped), True
            else:
                inside = self._process(plain)
        trace = Trace(id, inside, key, span.start_time, is_own and not inside.run.is_taken_over)
        self.going_on[context.trace_id] = trace
        if inside.run.registered_row is not None:  # spans of the trace may also arrive through an exporter
            row = OtelTraceRow(id, inside.run.id, clock.to_text(span.start_time))
            self._recorder.out.write(unit_of(Put(row, minted=True)))
        return trace

    def repeated_call(self, span: Any) -> SpanState | None:
        """Return the node of the call that a span repeats, in any run of this process; None without one."""
        plain = span_of(span)
        call = call_of(plain, map_span(plain))
        if call is None:
            return None
        return nearest(call, (each for inside in [*self._inside.values()] for each in inside.calls.like(call)))

    def end(self, trace: Trace) -> None:
        """Move a trace to the ended traces, where spans that come late still find it."""
        number = trace.root[0]
        self._ended[number] = trace  # added before `pop`: another thread's `get` searches the ended traces last
        self.going_on.pop(number, None)
        trace.has_ended = True
        if trace.is_own:
            most = self._recorder.tuning.repeated_elements_bytes
            trace.inside.run.repeats = Repeats(most)  # the old one takes up to 32 MB
        while len(self._ended) > ENDED:
            self._ended.popitem(last=False)

    def all(self) -> list[Trace]:
        """Return the traces whose root has not ended."""
        return list(self.going_on.values())

    def has_call_in(self, run_id: str, span_id: str) -> bool:
        """Return whether one of the latest calls of a run is directly inside of a span."""
        inside = self._inside.get(run_id)
        return inside is not None and inside.calls.has_call_in(span_id)

    def _of(self, run: RunState) -> RunOfTraces:
        inside = self._inside.get(run.id)
        is_known = inside is not None and inside.run is run
        return inside if inside is not None and is_known else self._keep(RunOfTraces(run, CallsOfRun(self._recorder)))

    def _keep(self, inside: RunOfTraces) -> RunOfTraces:
        self._inside[inside.run.id] = inside
        while len(self._inside) > ENDED:
            self._inside.popitem(last=False)
        return inside

    def _own(self, id: str, root: OtelSpan, mapped: Mapped) -> RunOfTraces:
        return self._begun(name_of_trace(root, mapped.run, is_own=True), root, run_metadata(root.resource, trace_id=id))

    def _process(self, span: OtelSpan) -> RunOfTraces:
        program = program_of(span.resource)
        named = name_of_process(program)
        if os.getpid() != self._pid:  # a forked child, whose resource names its parent
            named = named._replace(key=f"{named.key}/{os.getpid()}")
        found = self.of_process.get(named.key)
        if found is None:
            named = named if program.is_named else named._replace(agent=program_name())
            found = self.of_process[named.key] = self._begun(named, span, run_metadata(span.resource))
        return found

    def _begun(self, named: RunName, first: OtelSpan, metadata: dict[str, Any]) -> RunOfTraces:
        recorder = self._recorder
        run = RunState(recorder, one_line(named.agent, MAX_NAME), version=named.version, metadata=metadata)
        partition = recorder.destination.account.partition if recorder.is_open else 0
        run.begin(Known(run_id(named.key, first.start_ns, partition), named.key, first.start_ns))
        return self._keep(RunOfTraces(run, CallsOfRun(recorder), dict(first.resource), last_ns=first.start_ns))

    def _stored(self, id: str, parent: Any) -> RunState | None:
        """Return the stored run of a trace that another process began; None if the storage has none.

        Args:
            parent: the SDK's context of the parent span in the other process, whose `tracestate` may name its run.
        """
        try:
            return calling_run(self._recorder, read_member(parent.trace_state.get(MEMBER)), id)
        except StorageError:  # the storage may be a server that is down: then the trace becomes another run
            return None


def end_run(trace: Trace, root: OtelSpan, mapped: Mapped) -> None:
    """End the run of a trace with the status, result and error of its root, which also names the agent."""
    inside, facts = trace.inside, mapped.run
    run = inside.run
    named, end = name_of_trace(root, facts, is_own=True), end_of_run(mapped)
    run.rename(one_line(named.agent, MAX_NAME), named.version)
    run.end_as(
        end.status,
        max(root.end_ns or 0, root.start_ns),
        result=end.result,
        error=end.error,
        metadata=run_metadata(inside.resource, inside.scopes, trace.id),
        session=facts.session or trace.conversation.get("session"),
        user=facts.user or trace.conversation.get("user"),
    )


def end_process_run(inside: RunOfTraces) -> None:
    """End the run of a process as complete, also if spans of its traces failed."""
    about = run_metadata(inside.resource, inside.scopes)
    if not inside.run.is_taken_over:
        inside.run.end_as("complete", inside.last_ns or clock.wall_ns(), metadata=about)
