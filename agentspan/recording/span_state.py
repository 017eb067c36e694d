"""The life of a span in the recorded program: created, started, finished, each passed to the recorder's sink."""

from collections.abc import Callable, Mapping
from typing import Any

from agentspan import clock, host, jsontext
from agentspan.errors import AgentTerminated, InvalidAction, ValidationErrors
from agentspan.host import is_interrupt, page
from agentspan.journal.records import Begin, End, Parts, read_end
from agentspan.journal.writers import program_name
from agentspan.model.changes import LEAVES, OPEN, FinishStatus, SpanStatus
from agentspan.model.spans import check_finish
from agentspan.recording.budgets import has_usage
from agentspan.recording.capture.redaction import is_harmless_name
from agentspan.recording.recorder import Recorder
from agentspan.recording.run_state import RunState
from agentspan.recording.sinks.facts import SpanFacts
from agentspan.recording.spending import Spending
from agentspan.schemas.span_types import SpanType

_NOTHING = object()

Reduce = Callable[[list[Any]], Any]
"""Turns the items of a generator into the result of its span."""


class SpanState(SpanFacts):
    """The state of one span, and its transitions. The program holds a `Span`, its face; the context holds the state.

    Attributes:
        outer: the span or run around this span in the context.
        face: the Span that the program holds, until the span is left. Cleared then, so that no reference cycle stays.
        owns_run: whether the run was begun for this span alone, and ends with it.
        result_members, error_members: the members of the result, or of the error, that were set so far.
        began_ns: the monotonic time of the start, in ns.
        raw_begin: the raw begin of an OpenTelemetry span as it was written (used by otel.sdk).
    """

    run: RunState
    outer: Any = None
    face: Any = None
    owns_run = False
    result_members: dict[str, Any] | None = None
    error_members: dict[str, Any] | None = None
    began_ns = 0
    raw_begin: Any = None

    def __init__(self, recorder: Recorder, run: RunState, parent_span_id: str | None, schema_name: str) -> None:
        self.run = run
        self.parent_span_id = parent_span_id
        self.schema_name = schema_name if is_harmless_name(schema_name) else recorder.capture.text(schema_name)
        self.recorder = recorder
        self.writer_id = recorder.writer_id

    @property
    def span_type(self) -> SpanType:
        """The span type that is registered under this schema_name now."""
        return self.recorder.registry.resolve(self.schema_name)

    def goes_on(self) -> bool:
        """Return whether the span is open, so that a new span may begin inside it."""
        return self.status in OPEN

    def create(self, payload: Mapping[str, Any] | None, captured: str | Parts, status: SpanStatus) -> None:
        """Record the new span; called once. A fault is counted, and the span goes on without being recorded.

        Args:
            payload: the payload as the program passed it; None if `captured` has it.
            captured: the payload as JSON text, or in parts (see SpanFacts).

        Raises:
            AgentTerminated: the run is terminated, and has `on_terminate="raise"`.
            BudgetExceeded: the budget of the run is spent. Nothing is recorded then.
        """
        recorder, run = self.recorder, self.run
        spending = run.spending
        if spending is not None and status == "active":
            is_open = spending.is_open and (spending.ends_ns is None or clock.monotonic_ns() < spending.ends_ns)
            left = spending.steps_left  # no call up to the subtraction: threads (see the module spending)
            if is_open and left > 0:  # Spending.admit inlined, for 2 % of a decorated call
                spending.steps_left = left - 1
            else:
                payload, captured = self._admitted(spending, payload, captured)
        self.status = status
        try:
            if payload is not None:
                captured = recorder.capture.object(payload, run.repeats)
            if run.registered_row is None:
                recorder.faults.count_lost()
            else:
                self.payload = captured
                if recorder.is_strict:
                    recorder.check(self, self.payload_text(), None)
                self.started_ns = at_ns = clock.wall_ns()  # the time of creation, until a pending span is started
                self.id = recorder.ids.new(at_ns)
                recorder.out.created(self, at_ns)
                self.began_ns = clock.monotonic_ns()
        except Exception as error:
            recorder.faults.lose(error)
        if run.termination_reason is not None:
            self.stop()

    def _admitted(
        self, spending: Spending, payload: Mapping[str, Any] | None, captured: str | Parts
    ) -> tuple[Mapping[str, Any] | None, str | Parts]:
        """Return the payload of a step after the budget of the run admitted it: captured, if steps are compared."""
        if payload is not None and spending.compares:
            with self.recorder.faults.losing():
                captured = self.recorder.capture.object(payload, self.run.repeats)
            payload = None
        try:
            spending.admit(self.schema_name, captured)
        except BaseException as error:
            if self.owns_run:
                self.run.keep_error(error)
                self.run.store_end("failed", reraise=False)
            raise
        return payload, captured

    def create_as(self, id: str, begin: Begin, at_ns: int) -> None:
        """Record a new active span that has an id and a start time already; called once.

        Args:
            at_ns: the time of the start, in ns since the epoch.
        """
        self.learn(begin)
        self.status = "active"
        if self.run.registered_row is None:
            self.recorder.faults.count_lost()
            return
        self.started_ns, self.id = at_ns, id
        self.recorder.out.created(self, at_ns)

    def create_raw(self, id: str, reader: str, text: str, at_ns: int) -> None:
        """Record a new active span from a raw text, which `reader` parses when the record is drained."""
        self.status = "active"
        if self.run.registered_row is None:
            self.recorder.faults.count_lost()
            return
        self.started_ns, self.id = at_ns, id
        self.recorder.out.created_raw(self, reader, text, at_ns)

    def end_as(self, end: End, at_ns: int) -> None:
        """Record an end that also has the type and the payload.

        Args:
            at_ns: the time of the end, in ns since the epoch.
        """
        self.learn(end)
        if not self.id:
            self.recorder.faults.count_lost()
            return
        at_ns = max(at_ns, self.started_ns)
        self.recorder.out.finished_as(self, end.result, at_ns, at_ns - self.started_ns)
        self._spend(end)

    def end_raw(self, status: FinishStatus, reader: str, text: str, at_ns: int) -> None:
        """Record an end from a raw text, which `reader` parses when the record is drained."""
        self.status = status
        if not self.id:
            self.recorder.faults.count_lost()
            return
        elapsed_ns = at_ns - self.started_ns
        if elapsed_ns < 0:
            at_ns, elapsed_ns = self.started_ns, 0
        self.recorder.out.finished_raw(self, reader, text, at_ns, elapsed_ns)
        spending = self.run.spending
        if spending is not None and spending.counts_usage:
            with self.recorder.faults.adding(reraise=False):
                end = read_end(reader, text)
                self.learn(end)
                self._spend(end)

    def _spend(self, end: End) -> None:
        spending = self.run.spending
        if spending is not None and spending.counts_usage:
            spending.spend(self, end.result)

    def leave(self, exception: BaseException | None, output: Any = _NOTHING) -> None:
        """End the block of the span: finish the span if it is active, and make the outer node the active one."""
        if not page[0]:
            host.renew()
        ended_ns = clock.monotonic_ns()
        recorder, outer = self.recorder, self.outer
        if self.face is not None:
            self.face = None
        if (outer is None or outer.status == "active") and recorder.current.get() is self:  # Recorder.leave inlined
            recorder.current.set(outer)
            self.outer = None
        else:
            recorder.leave(self)
        if self.writer_id != recorder.writer_id:
            return  # a forked child leaves a block of its parent, and the parent's span goes on
        try:
            if exception is not None and self.status in OPEN:
                self.error_members = recorder.capture.error(exception)
            if self.status == "active":
                self.store_end("complete" if self.error_members is None else "failed", ended_ns, output)
        except Exception as error:
            recorder.faults.lose(error, reraise=exception is None)

    def leave_interrupted(self, error: BaseException) -> None:
        """Leave the span again after an exception from a signal handler interrupted `leave`."""
        self.leave(error)

    def merge(self, result: Mapping[str, Any]) -> None:
        """Merge these members into the result."""
        with self.recorder.faults.losing():
            self.result_members = dict(result) if self.result_members is None else {**self.result_members, **result}

    def keep_error(self, exception: BaseException) -> None:
        """Keep an exception; the span will finish as failed with it."""
        with self.recorder.faults.losing():
            self.error_members = self.recorder.capture.error(exception)

    def update_payload(self, payload: Mapping[str, Any]) -> None:
        """Merge these members into the payload of an open span, and record the new payload."""
        if not page[0]:
            host.renew()
        recorder = self.recorder
        with recorder.faults.losing():
            self.need(OPEN, "have its payload updated")
            text = recorder.capture.object({**jsontext.decode(self.payload_text()), **payload})
            recorder.check(self, text, None)
            self.payload = text
            if self.id:
                recorder.out.updated(self, clock.wall_ns())
            else:
                recorder.faults.count_lost()

    def start(self) -> None:
        """Start a pending span.

        Raises:
            AgentTerminated: the run is terminated, and has `on_terminate="raise"`.
            BudgetExceeded: the budget of the run is spent. The span stays pending.
        """
        if not page[0]:
            host.renew()
        recorder = self.recorder
        spending = self.run.spending
        if spending is not None and self.status == "pending":
            spending.admit(self.schema_name, self.payload)
        with recorder.faults.losing():
            self.need(LEAVES["active"], "be started")
            self.status = "active"
            self.started_ns = clock.wall_ns()
            if self.id:
                recorder.out.started(self)
            else:
                recorder.faults.count_lost()
        self.began_ns = clock.monotonic_ns()
        if self.run.termination_reason is not None:
            self.stop()

    def enter(self) -> None:
        """Start the span if it is pending, and make it the active one."""
        if self.status == "pending":
            self.start()
        self.recorder.enter(self)

    def finish(self, status: FinishStatus | None, result: Mapping[str, Any] | None = None) -> None:
        """Finish an open span. If `status` is None: failed if an error was kept, else complete."""
        if not page[0]:
            host.renew()
        ended_ns = clock.monotonic_ns()
        if result is not None:
            self.merge(result)
        with self.recorder.faults.losing():
            wanted = status or ("failed" if self.error_members is not None else "complete")
            check_finish("agent span", self.id or "(not recorded)", self.status, wanted)
            self.store_end(wanted, ended_ns)

    def returned(self, value: Any) -> None:
        """End the span of a decorated call that returned. A dict is the result; any other value is its `output`."""
        if self.result_members is None and self.error_members is None:
            self.leave(None, value)
            return
        if issubclass(type(value), dict):  # `__class__` may be anything
            self.merge(value)
        elif value is not None or self.result_members is None:
            self.merge({"output": value})
        self.leave(None)

    def stop(self) -> None:
        """Apply the `on_terminate` of the terminated run, because a new span of it begins: call it, or raise.

        Raises:
            AgentTerminated: the run has `on_terminate="raise"`.
        """
        try:
            self.run.tell()
            if self.run.on_terminate == "raise":
                raise AgentTerminated(self.run.id, self.run.termination_reason or "")
        except BaseException as error:
            self._end_stopped(error)
            raise

    def _end_stopped(self, error: BaseException) -> None:
        with self.recorder.faults.losing(reraise=False):
            self.error_members = self.recorder.capture.error(error)
            self.store_end("failed" if self.status == "active" else "cancelled", clock.monotonic_ns())

    def store_end(self, status: FinishStatus, ended_ns: int, output: Any = _NOTHING) -> None:
        """Record the end of the span. Of error, `output` and the members that were set, the first that exists wins."""
        recorder = self.recorder
        try:
            if self.id:
                at_ns = clock.wall_ns()
                if at_ns < self.started_ns:
                    at_ns = self.started_ns
                elapsed_ns = 0 if status == "cancelled" else ended_ns - self.began_ns
                result: str | None
                if self.error_members is not None:
                    result = self._failure(self.error_members)
                elif output is not _NOTHING:
                    result = recorder.capture.output(output)
                else:
                    result = None if self.result_members is None else recorder.capture.object(self.result_members)
                if recorder.is_strict and result is not None:
                    status, result = self._checked(status, result)
                self.status = status
                recorder.out.finished(self, result, at_ns, elapsed_ns)
                spending = self.run.spending
                if (
                    spending is not None
                    and spending.counts_usage
                    # Looked for here, a call without usage costs 2 % less.
                    and (self.schema_name not in spending.plain or has_usage(result) or has_usage(self.payload))
                ):
                    spending.spend(self, result)
            else:
                recorder.faults.count_lost()
                self.status = status
        except BaseException as error:
            if self.owns_run and (self.status != "active" or not is_interrupt(error)):
                self.run.store_end_as(self.status, self.error_members)
            raise  # after an interrupt, nothing is recorded yet: the run stays open, and `leave` is called again
        if self.owns_run:
            self.run.store_end_as(self.status, self.error_members)

    def _failure(self, error: dict[str, Any]) -> str:
        capture, result = self.recorder.capture, self.result_members
        return capture.failure(error) if result is None else capture.object({**result, "error": error})

    def _checked(self, status: FinishStatus, result: str) -> tuple[FinishStatus, str]:
        try:
            self.recorder.check(self, None, result)
            return status, result
        except ValidationErrors as refusal:  # the result is refused, but the span must not stay open
            self.recorder.faults.add(refusal, reraise=False)
            self.error_members = self.recorder.capture.error(refusal)
            return "failed", self.recorder.capture.failure(self.error_members)

    def need(self, statuses: frozenset[str], what: str) -> None:
        """Check that the status of the span is one of `statuses`.

        Args:
            what: the action, for the message.

        Raises:
            InvalidAction: the span has another status.
        """
        if self.status not in statuses:
            raise InvalidAction(
                f"agent span {self.id} is {self.status}: only a span that is {' or '.join(sorted(statuses))} can {what}"
            )


class DisabledSpanState(SpanState):
    """The state of a span while recording is disabled: it has a status, records nothing, and is no span's parent.

    Args:
        run: the run that is active when the span begins, or None.
    """

    parent_span_id = None
    result_members = {}  # noqa: RUF012  # never changed: because it is not None, `Span.set_result` calls `merge`

    def __init__(self, recorder: Recorder, run: RunState | None, schema_name: str, status: SpanStatus) -> None:
        self.recorder = recorder
        self.schema_name = schema_name
        self.status = status
        self._run = run

    @property
    def run(self) -> RunState:  # type: ignore[override]  # made at the first access: 2 µs
        """The run that was active when the span began, or a stand-in that is not recorded."""
        if self._run is None:
            self._run = disabled_run(self.recorder)
        return self._run

    def merge(self, result: Mapping[str, Any]) -> None:
        """Do nothing."""

    def update_payload(self, payload: Mapping[str, Any]) -> None:
        """Do nothing."""

    def keep_error(self, exception: BaseException) -> None:
        """Mark the span as failed; the exception is not kept."""
        self.error_members = {}

    def start(self) -> None:
        """Set the status to active."""
        self.status = "active"

    def enter(self) -> None:
        """Set the status of a pending span to active."""
        if self.status == "pending":
            self.status = "active"

    def finish(self, status: FinishStatus | None, result: Mapping[str, Any] | None = None) -> None:
        """Set the status that the span would have if it were recorded."""
        self.status = status or ("complete" if self.error_members is None else "failed")

    def leave(self, exception: BaseException | None, output: Any = None) -> None:
        """Finish the span if it is active."""
        self.face = None
        if self.status == "active":
            self.finish("failed" if exception is not None else None)


def disabled_span(recorder: Recorder, schema_name: str) -> DisabledSpanState:
    """Return the state of an active span while recording is disabled."""
    node = recorder.current.get()  # a disabled run block still enters the context
    return DisabledSpanState(recorder, node if type(node) is RunState else None, schema_name, "active")


def disabled_run(recorder: Recorder) -> RunState:
    """Return a run that is not recorded, while recording is disabled: decorated calls do not enter the context."""
    run = RunState(recorder, program_name())
    run.status = "active"
    return run


def going_on(node: Any) -> Any:
    """Return the innermost node, outward from `node`, that has not ended; None without one.

    Ended nodes are in the context, because a span of OpenTelemetry ends without leaving agentspan's context.
    """
    while node is not None and not node.goes_on():
        node = node.outer
    return node


def inner_of(node: Any, other: Any) -> Any:
    """Return the inner one of two nodes; `other` if neither is inside the other; None if both are None."""
    if node is None or other is None:
        return node if other is None else other
    outer = node
    while outer is not None:
        if outer is other:
            return node
        outer = outer.outer
    return other
