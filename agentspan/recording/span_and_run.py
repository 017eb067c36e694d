"""Span and Run, the objects that a recorded program holds. Each is the face of a SpanState or RunState.

In one module, because Span and Run refer to each other. Their methods never raise, and never wait longer than the sink.
An active state has one face; all faces of one state are equal.
"""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, overload

from agentspan import clock, host
from agentspan.errors import InvalidValue
from agentspan.host import page
from agentspan.model.changes import OPEN, FinishStatus, InstanceStatus, Put, SpanStatus, unit_of
from agentspan.model.rows import ResourceType
from agentspan.model.scores import MAX_EXPLANATION, MAX_NAME, Source, judgement, score_row
from agentspan.recording.recorder import Recorder
from agentspan.recording.run_state import RunState
from agentspan.recording.span_state import DisabledSpanState, SpanState
from agentspan.recording.spending import Paused
from agentspan.schemas.span_types import usable_name
from agentspan.text import cut, one_line


class Target(NamedTuple):
    """The target of a score: a run, or a span of a run. The ids are "" if it was not recorded."""

    run_id: str
    type: ResourceType
    id: str


class Scored:
    """The base class of Span and Run, which can be scored."""

    _state: Any

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._state is self._state

    def __hash__(self) -> int:
        return hash(self._state)

    def score(
        self,
        name: str,
        value: float | None = None,
        *,
        label: str | None = None,
        explanation: str | None = None,
        by: Source = "code",
        identifier: str | None = None,
        withdraw: bool = False,
    ) -> None:
        """Record a score of this run or span, also after its end. A score is as durable as a span.

        The newest score of a name counts; older scores are kept. Texts are redacted, and cut if they are too long.
        Never raises, and does not read the storage.

        Args:
            name: the name of the judged quality, such as `reward`.
            value: a number, or True or False.
            label: a word, such as `good`.
            explanation: the reason for the score.
            by: the kind of judge: "code", "human" or "model".
            identifier: the name of the judge, if several judges score the same name. The newest score of each counts.
            withdraw: withdraw the scores of this name and identifier. Pass no value, label and explanation with it.
        """
        if not page[0]:
            host.renew()
        recorder: Recorder = self._state.recorder
        if not recorder.enabled:
            return
        run_id, type_, id = self._target()
        with recorder.faults.losing():
            if not run_id or not id:
                recorder.faults.count_lost()
                return
            judged = judgement(
                _short(recorder, name),
                value,
                label=_short(recorder, label),
                explanation=None if explanation is None else cut(_text(recorder, explanation), MAX_EXPLANATION),
                source=by,
                identifier=_short(recorder, identifier),
                withdraw=withdraw,
            )
            row = score_row(recorder.ids.new(), run_id, type_, id, judged, clock.now())
            recorder.out.write(unit_of(Put(row, minted=True)))

    def _target(self) -> Target:
        raise NotImplementedError


_new = object.__new__


def face_of_span(state: SpanState) -> "Span":
    """Return a new face of a span that becomes active; without a call of `__init__`, which takes 0.1 µs."""
    state.face = face = _new(Span)
    face._state = state
    return face


def active_face(state: SpanState | RunState) -> Any:
    """Return the face of an active span or run: the same object as long as the state is active."""
    if state.face is None:
        state.face = Span(state) if isinstance(state, SpanState) else Run(state)
    return state.face


def run_face(run: RunState) -> "Run":
    """Return the face of a run, which need not be active."""
    return run.face or Run(run)


@overload
def state_of(face: "Span") -> SpanState: ...
@overload
def state_of(face: "Run") -> RunState: ...
def state_of(face: "Span | Run") -> SpanState | RunState:
    """Return the state behind a Span or Run, for agentspan's own modules."""
    return face._state


def _text(recorder: Recorder, value: Any) -> str:
    return recorder.capture.text(str(value))


def _short(recorder: Recorder, value: Any) -> str | None:
    return None if value is None else one_line(_text(recorder, value), MAX_NAME)


OnTerminate = Literal["raise"] | Callable[["Run"], object]


class Span(Scored):
    """One step of a run, from `agentspan.span` or `Run.create_span`. Spans begun in its with-block are children.

    As a with-block it starts the span if it is pending, and finishes it at the end.
    """

    _state: SpanState

    def __init__(self, state: SpanState) -> None:
        self._state = state

    def __repr__(self) -> str:
        return f"<Span {self.schema_name} {self.id or '(not recorded)'} {self.status}>"

    @property
    def id(self) -> str:
        """The span's PFID; "" if the span could not be recorded."""
        return self._state.id

    @property
    def run(self) -> "Run":
        """The run that the span belongs to."""
        return run_face(self._state.run)

    @property
    def parent_span_id(self) -> str | None:
        """The id of the parent span, or None."""
        return self._state.parent_span_id

    @property
    def schema_name(self) -> str:
        """The span type's name."""
        return self._state.schema_name

    @property
    def status(self) -> SpanStatus:
        """The status: pending, active, complete, failed or cancelled."""
        return self._state.status

    def _target(self) -> Target:
        return Target(self._state.run.id, "agent_span", self._state.id)

    def set_result(self, result: Mapping[str, Any]) -> None:
        """Merge the members of `result` into the span's result_payload, which is stored when the span finishes."""
        state = self._state
        try:
            if state.result_members is None:
                state.result_members = dict(result)
            else:
                state.merge(result)
        except Exception as error:
            state.recorder.faults.lose(error)

    def update_payload(self, payload: Mapping[str, Any]) -> None:
        """Merge these members into the payload of an open span. The new payload is stored at once."""
        self._state.update_payload(payload)

    def record_error(self, exception: BaseException) -> None:
        """Note an exception that was caught: the span will finish as failed, with this error."""
        self._state.keep_error(exception)

    def start(self) -> None:
        """Start a pending span."""
        self._state.start()

    def finish(self, status: FinishStatus | None = None, result_payload: Mapping[str, Any] | None = None) -> None:
        """Finish the span, and merge members into its `result_payload`.

        If `status` is None: failed if an error was recorded, else complete.
        """
        self._state.finish(status, result_payload)

    def cancel(self) -> None:
        """Cancel a pending span: it never started."""
        self._state.finish("cancelled")

    def __enter__(self) -> Self:
        self._state.enter()
        self._state.face = self
        return self

    def __exit__(
        self, type_: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        self._state.leave(exception)
        return False

    async def __aenter__(self) -> Self:
        while True:
            try:
                return self.__enter__()
            except Paused as paused:
                await paused.wait()

    async def __aexit__(
        self, type_: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        self._state.leave(exception)
        return False


class Run(Scored):
    """One run of an agent, from `agentspan.run`.

    The run completes at the end of its block. On an exception it fails, and keeps the error.
    """

    _state: RunState

    def __init__(self, state: RunState) -> None:
        self._state = state

    def __repr__(self) -> str:
        return f"<Run {self.name} {self.id or '(not recorded)'} {self.status}>"

    @property
    def id(self) -> str:
        """The agent instance's PFID; "" if the run could not be recorded."""
        return self._state.id

    @property
    def name(self) -> str:
        """The agent's name."""
        return self._state.name

    @property
    def status(self) -> InstanceStatus:
        """The status: active, complete, failed, cancelled or terminated."""
        return self._state.status

    @property
    def terminated(self) -> bool:
        """True if a user terminated the run. The process finds that out when a span begins, or ends too late."""
        return self._state.termination_reason is not None

    @property
    def termination_reason(self) -> str | None:
        """The reason of the termination; None if the process has not found a termination."""
        return self._state.termination_reason

    def _target(self) -> Target:
        return Target(self._state.id, "agent_instance", self._state.id)

    def set_result(self, result: Mapping[str, Any]) -> None:
        """Merge the members of `result` into the result of the run, which is stored when the run finishes."""
        self._state.merge(result)

    def record_error(self, exception: BaseException) -> None:
        """Note an exception that was caught: the run will finish as failed, with this error."""
        self._state.keep_error(exception)

    def create_span(
        self,
        schema_name: str,
        payload: Mapping[str, Any] | None = None,
        *,
        status: Literal["pending", "active"] = "pending",
        parent: Span | None = None,
    ) -> Span:
        """Create a span that does not become the active one. Finish it by its methods, or use it as a with-block.

        Args:
            schema_name: the span type.
            payload: the input of the step.
            status: `pending`, or `active` for a span that starts now.
            parent: the parent; the active span of this run when left out.
        """
        if not page[0]:
            host.renew()
        run, name = self._state, usable_name(schema_name, "custom")
        recorder = run.recorder
        if not recorder.enabled:
            return Span(DisabledSpanState(recorder, run, name, status))
        above = parent._state if issubclass(type(parent), Span) else None  # type: ignore[union-attr]
        if parent is None:
            current = recorder.innermost()
            above = current if type(current) is SpanState and current.run is run else None
        span = SpanState(recorder, run, (above and above.id) or None, name)
        if type(status) is not str or status not in OPEN:
            recorder.faults.lose(
                InvalidValue("status", "a span is created pending or active, and finished by its methods")
            )
            status = "pending"
        span.create({} if payload is None else payload, "{}", status)
        return Span(span)

    def finish(self, status: FinishStatus | None = None, result: Mapping[str, Any] | None = None) -> None:
        """Finish the run before its block ends, and merge members into its `result`.

        If `status` is None: failed if an error was recorded, else complete.
        """
        self._state.finish(status, result)
