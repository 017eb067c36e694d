"""The life of a span in the recorded program: created, started, finished, each passed to the recorder's sink."""

from collections.abc import Mapping
from typing import Any

from agentspan import clock, forks, jsontext
from agentspan.errors import AgentTerminated, InvalidAction, ValidationErrors
from agentspan.forks import page
from agentspan.interrupts import is_interrupt
from agentspan.journal.parts import Parts
from agentspan.journal.records import Begin, End
from agentspan.journal.writers import program_name
from agentspan.model.spans import check_finish
from agentspan.model.status import LEAVES, OPEN, FinishStatus, SpanStatus
from agentspan.recording import nodes
from agentspan.recording.capture.redaction import is_harmless_name
from agentspan.recording.recorder import Recorder
from agentspan.recording.run_state import RunState
from agentspan.schemas.span_types import SpanType

_NOTHING = object()


class SpanState:
    """The state of one span, and its transitions. A program holds a face of it, `Span`; the context holds the state.

    Attributes:
        outer: the node around it in the context.
        face: the Span that the program holds, until the span is left: an object that is kept must form no circle.
        owns_run: whether its run was begun for it alone, and ends with it.
        result_members, error_members: what was set or recorded so far, as JSON members.
        began_ns: the monotonic time when it started, in ns.
        told: the begin of a span of OpenTelemetry as it was written (by otel.sdk).
        payload, started_ns, writer_id, decoded: see SpanFacts.
    """

    run: RunState
    status: SpanStatus = "pending"
    id = ""
    # Defaults of the class, because setting all of them for each span costs 0.3 µs.
    outer: Any = None
    face: Any = None
    owns_run = False
    payload: str | Parts = "{}"  # as text: the program may change what it passed
    started_ns = 0
    decoded: tuple[str, Any, int, str] | None = None
    result_members: dict[str, Any] | None = None
    error_members: dict[str, Any] | None = None
    began_ns = 0
    told: Any = None

    def __init__(self, recorder: Recorder, run: RunState, parent_span_id: str | None, schema_name: str) -> None:
        self.run = run
        self.parent_span_id = parent_span_id
        self.schema_name = schema_name if is_harmless_name(schema_name) else recorder.capture.text(schema_name)
        self.recorder = recorder
        self.writer_id = recorder.writer_id

    @property
    def span_type(self) -> SpanType:
        """The span type that the name means now."""
        return self.recorder.registry.resolve(self.schema_name)

    def goes_on(self) -> bool:
        """Return whether what begins now may be inside this span."""
        return self.status in OPEN

    def payload_text(self) -> str:
        """Return the payload as JSON text."""
        if isinstance(self.payload, Parts):
            self.payload = self.payload.text()
        return self.payload

    def create(self, payload: str | Parts, status: SpanStatus) -> None:
        """Store the new span; called once.

        Args:
            payload: see SpanFacts.
        """
        recorder = self.recorder
        self.status = status
        if self.run.registered_row is None:
            recorder.faults.count_lost()
            return
        self.payload = payload
        if recorder.is_strict:
            recorder.check(self, self.payload_text(), None)
        self.started_ns = at_ns = clock.wall_ns()  # of a pending span, until it is started
        self.id = recorder.ids.new(at_ns)
        recorder.out.created(self, at_ns)
        self.began_ns = clock.monotonic_ns()

    def create_as(self, id: str, begin: Begin, at_ns: int) -> None:
        """Store a new active span that has its id and its start already; called once.

        Args:
            at_ns: when it started, in ns since the epoch.
        """
        self.learn(begin)
        self.status = "active"
        if self.run.registered_row is None:
            self.recorder.faults.count_lost()
            return
        self.started_ns, self.id = at_ns, id
        self.recorder.out.created(self, at_ns)

    def create_raw(self, id: str, reader: str, text: str, at_ns: int) -> None:
        """Store the same from a text that is read later (see journal.raw_records)."""
        self.status = "active"
        if self.run.registered_row is None:
            self.recorder.faults.count_lost()
            return
        self.started_ns, self.id = at_ns, id
        self.recorder.out.created_raw(self, reader, text, at_ns)

    def learn(self, told: Begin | End) -> None:
        """Take the type, the payload and, at the end, the status that a foreign instrumentor told."""
        self.schema_name, self.payload = told.schema_name, told.payload
        if isinstance(told, End):
            self.status = told.status

    def end_as(self, end: End, at_ns: int) -> None:
        """Store an end that also tells the type and the payload.

        Args:
            at_ns: when it ended, in ns since the epoch.
        """
        self.learn(end)
        if not self.id:
            self.recorder.faults.count_lost()
            return
        at_ns = max(at_ns, self.started_ns)
        self.recorder.out.finished_as(self, end.result, at_ns, at_ns - self.started_ns)

    def end_raw(self, status: FinishStatus, reader: str, text: str, at_ns: int) -> None:
        """Store an end as a text tells it, which is read later"""
        self.status = status
        if not self.id:
            self.recorder.faults.count_lost()
            return
        elapsed_ns = at_ns - self.started_ns
        if elapsed_ns < 0:
            at_ns, elapsed_ns = self.started_ns, 0
        self.recorder.out.finished_raw(self, reader, text, at_ns, elapsed_ns)

    def not_created(self, status: SpanStatus, error: Exception) -> None:
        """Go on without a record: a fault kept the span from being created."""
        self.status = status
        self.recorder.faults.lose(error)

    def leave(self, exception: BaseException | None, output: Any = _NOTHING) -> None:
        """End the block: finish what is still active, and give the context back."""
        if not page[0]:
            forks.renew()
        ended_ns = clock.monotonic_ns()
        recorder, outer = self.recorder, self.outer
        if self.face is not None:
            self.face = None
        if (outer is None or outer.status == "active") and recorder.current.get() is self:  # as nodes.leave does it
            recorder.current.set(outer)
            self.outer = None
        else:
            nodes.leave(recorder.current, self)
        if self.writer_id != recorder.writer_id:
            return  # a forked child leaves a block of its parent's, which goes on
        try:
            if exception is not None and self.status in OPEN:
                self.error_members = recorder.capture.error(exception)
            if self.status == "active":
                self.store_end("complete" if self.error_members is None else "failed", ended_ns, output)
        except Exception as error:
            recorder.faults.lose(error, reraise=exception is None)

    def leave_interrupted(self, error: BaseException) -> None:
        """Do what a signal handler's exception kept `leave` from doing."""
        self.leave(error)

    def merge(self, result: Mapping[str, Any]) -> None:
        """Merge into the result."""
        with self.recorder.faults.losing():
            self.result_members = dict(result) if self.result_members is None else {**self.result_members, **result}

    def keep_error(self, exception: BaseException) -> None:
        """Store the exception that the span will fail with."""
        with self.recorder.faults.losing():
            self.error_members = self.recorder.capture.error(exception)

    def update_payload(self, payload: Mapping[str, Any]) -> None:
        """Merge into the payload of an open span, and store it."""
        if not page[0]:
            forks.renew()
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
        """Start a pending span."""
        if not page[0]:
            forks.renew()
        recorder = self.recorder
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
        nodes.enter(self.recorder.current, self)

    def finish(self, status: FinishStatus | None, result: Mapping[str, Any] | None = None) -> None:
        """Finish an open span: complete when `status` is None, failed when an error was kept."""
        if not page[0]:
            forks.renew()
        ended_ns = clock.monotonic_ns()
        if result is not None:
            self.merge(result)
        with self.recorder.faults.losing():
            wanted = status or ("failed" if self.error_members is not None else "complete")
            check_finish("agent span", self.id or "(not recorded)", self.status, wanted)
            self.store_end(wanted, ended_ns)

    def returned(self, value: Any) -> None:
        """End a decorated call that returned: a dict is the result, anything else its `output`."""
        if self.result_members is None and self.error_members is None:
            self.leave(None, value)
            return
        if issubclass(type(value), dict):  # `__class__` may be anything
            self.merge(value)
        elif value is not None or self.result_members is None:
            self.merge({"output": value})
        self.leave(None)

    def stop(self) -> None:
        """Do what a terminated run asked for when another of its spans begins: call the program, or raise.

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
        """Store how the span ended; its result is what was set, or what a function returned, its `output`."""
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
            else:
                recorder.faults.count_lost()
                self.status = status
        except BaseException as error:
            if self.owns_run and (self.status != "active" or not is_interrupt(error)):
                self.run.store_end_as(self.status, self.error_members)
            raise  # else a signal handler came first: nothing is stored yet, and `leave` is called again
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
        """Refuse what this status does not allow.

        Raises:
            InvalidAction: the status is none of these.
        """
        if self.status not in statuses:
            raise InvalidAction(
                f"agent span {self.id} is {self.status}: only a span that is {' or '.join(sorted(statuses))} can {what}"
            )


class DisabledSpanState(SpanState):
    """The state of a span that checks nothing, keeps nothing, and is the parent of no span.

    Args:
        run: the run that is active where the span begins; None where there is none.
    """

    parent_span_id = None
    result_members = {}  # noqa: RUF012  # nothing is added to it: `Span.set_result` calls `merge` then

    def __init__(self, recorder: Recorder, run: RunState | None, schema_name: str, status: SpanStatus) -> None:
        self.recorder = recorder
        self.schema_name = schema_name
        self.status = status
        self._run = run

    @property
    def run(self) -> RunState:  # type: ignore[override]  # made when it is asked for: 2 µs
        """The run that is active where the span began, or one that stands for it."""
        if self._run is None:
            self._run = disabled_run(self.recorder)
        return self._run

    def merge(self, result: Mapping[str, Any]) -> None:
        """Do nothing."""

    def update_payload(self, payload: Mapping[str, Any]) -> None:
        """Do nothing."""

    def keep_error(self, exception: BaseException) -> None:
        """Note that the span will finish as failed."""
        self.error_members = {}

    def start(self) -> None:
        """Become active."""
        self.status = "active"

    def enter(self) -> None:
        """Become active, if the span is pending."""
        if self.status == "pending":
            self.status = "active"

    def finish(self, status: FinishStatus | None, result: Mapping[str, Any] | None = None) -> None:
        """Take the status that the span would have."""
        self.status = status or ("complete" if self.error_members is None else "failed")

    def leave(self, exception: BaseException | None, output: Any = None) -> None:
        """Finish, if the span is active."""
        self.face = None
        if self.status == "active":
            self.finish("failed" if exception is not None else None)


def disabled_span(recorder: Recorder, schema_name: str) -> DisabledSpanState:
    """Return the state that stands for an active span where nothing is recorded."""
    node = recorder.current.get()  # blocks of runs are entered all the same
    return DisabledSpanState(recorder, node if type(node) is RunState else None, schema_name, "active")


def disabled_run(recorder: Recorder) -> RunState:
    """Return a run where none is active: decorated calls leave no trace, not even in the context."""
    run = RunState(recorder, program_name())
    run.status = "active"
    return run
