"""Span and Run: what a recorded program holds. In one module, because each of them names the other.

Their methods never raise, and never wait longer than the sink.

A score that the program gives a run or a span is a record in the journal.
"""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from agentspan import clock, forks, jsontext
from agentspan.errors import InvalidValue
from agentspan.forks import page
from agentspan.model.changes import Put, unit_of
from agentspan.model.rows import ResourceType
from agentspan.model.scores import MAX_EXPLANATION, MAX_NAME, Source, judgement, score_row
from agentspan.model.spans import check_finish
from agentspan.model.status import LEAVES, OPEN, FinishStatus
from agentspan.recording import nodes
from agentspan.recording.recorder import Recorder
from agentspan.recording.run_state import RunState
from agentspan.recording.span_state import SpanState
from agentspan.schemas.span_types import usable_name
from agentspan.text import cut, one_line


class Target(NamedTuple):
    """The target of a score: a run, or a span of a run; ids are "" where it was not recorded."""

    run_id: str
    type: ResourceType
    id: str


class Scored:
    """A run or a span that can be judged."""

    recorder: Recorder

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
        """Judge it, at any time, also after its end; as durable as its spans.

        The newest score of a name counts; those before it are kept. Texts are redacted, and cut where they are too
        long. Never raises, and reads nothing.

        Args:
            name: what is judged, such as `reward`.
            value: a number, or True or False.
            label: a word, such as `good`.
            explanation: why.
            by: who judged: "code", "human" or "model".
            identifier: the judge, where several judge the same: of each the newest score counts.
            withdraw: take back the scores of this name and identifier; without value, label and explanation.
        """
        if not page[0]:
            forks.renew()
        recorder, (run_id, type_, id) = self.recorder, self._target()
        try:
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
        except Exception as error:
            recorder.faults.lose(error)

    def _target(self) -> Target:
        raise NotImplementedError


def _text(recorder: Recorder, value: Any) -> str:
    return recorder.capture.text(str(value))


def _short(recorder: Recorder, value: Any) -> str | None:
    return None if value is None else one_line(_text(recorder, value), MAX_NAME)


OnTerminate = Literal["raise"] | Callable[["Run"], object]


class Span(SpanState, Scored):
    """One step of a run, from `agentspan.span` or `Run.create_span`; entered as a with-block, it is the parent inside.

    Attributes:
        id: its PFID; "" when it could not be recorded.
        run: the run that it belongs to.
        parent_span_id: the span in which it happens, or None.
        schema_name: the span type's name.
        status: pending, active, complete, failed or cancelled.
    """

    run: "Run"

    def __repr__(self) -> str:
        return f"<Span {self.schema_name} {self.id or '(not recorded)'} {self.status}>"

    def _target(self) -> Target:
        return Target(self.run.id, "agent_span", self.id)

    def set_result(self, result: Mapping[str, Any]) -> None:
        """Merge into the result_payload, which is stored when the span finishes."""
        try:
            self.result_members = dict(result) if self.result_members is None else {**self.result_members, **result}
        except Exception as error:
            self.recorder.faults.lose(error)

    def update_payload(self, payload: Mapping[str, Any]) -> None:
        """Merge into the payload of an open span; stored at once."""
        if not page[0]:
            forks.renew()
        recorder = self.recorder
        try:
            self.need(OPEN, "have its payload updated")
            text = recorder.capture.object({**jsontext.decode(self.payload_text()), **payload})
            recorder.check(self, text, None)
            self.payload = text
            if self.id:
                recorder.out.updated(self, clock.wall_ns())
            else:
                recorder.faults.count_lost()
        except Exception as error:
            recorder.faults.lose(error)

    def record_error(self, exception: BaseException) -> None:
        """Note an exception that was caught: the span will finish as failed, with this error."""
        try:
            self.error_members = self.recorder.capture.error(exception)
        except Exception as error:
            self.recorder.faults.lose(error)

    def start(self) -> None:
        """Start a pending span."""
        if not page[0]:
            forks.renew()
        recorder = self.recorder
        try:
            self.need(LEAVES["active"], "be started")
            self.status = "active"
            self.started_ns = clock.wall_ns()
            if self.id:
                recorder.out.started(self)
            else:
                recorder.faults.count_lost()
        except Exception as error:
            recorder.faults.lose(error)
        self.began_ns = clock.monotonic_ns()
        if self.run.termination_reason is not None:
            self.stop()

    def finish(self, status: FinishStatus | None = None, result_payload: Mapping[str, Any] | None = None) -> None:
        """Finish the span: complete when `status` is left out, failed when an error was recorded."""
        if not page[0]:
            forks.renew()
        ended_ns = clock.monotonic_ns()
        if result_payload is not None:
            self.set_result(result_payload)
        try:
            wanted = status or ("failed" if self.error_members is not None else "complete")
            check_finish("agent span", self.id or "(not recorded)", self.status, wanted)
            self.store_end(wanted, ended_ns)
        except Exception as error:
            self.recorder.faults.lose(error)

    def cancel(self) -> None:
        """Cancel a pending span: it never started."""
        self.finish("cancelled")

    def __enter__(self) -> Self:
        if self.status == "pending":
            self.start()
        nodes.enter(self.recorder.current, self)
        return self

    def __exit__(
        self, type_: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        self.leave(exception)
        return False

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, type_: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        self.leave(exception)
        return False


class Run(RunState, Scored):
    """One run of an agent, from `agentspan.run`.

    It completes at the end of the block, and fails, keeping the error, on an exception.

    Attributes:
        id: the agent instance's PFID; "" when it could not be recorded.
        name: the agent's name.
        status: active, complete, failed, cancelled or terminated.
        termination_reason: why somebody terminated it, as far as it has learned; None if nobody has.
    """

    def __repr__(self) -> str:
        return f"<Run {self.name} {self.id or '(not recorded)'} {self.status}>"

    def _target(self) -> Target:
        return Target(self.id, "agent_instance", self.id)

    @property
    def terminated(self) -> bool:
        """True if somebody terminated the run. It learns that when a span of it begins, or ends too late."""
        return self.termination_reason is not None

    def set_result(self, result: Mapping[str, Any]) -> None:
        """Merge into what the run returned, which is stored when it finishes."""
        self.merge(result)

    def record_error(self, exception: BaseException) -> None:
        """Note an exception that was caught: the run will finish as failed, with this error."""
        self.keep_error(exception)

    def create_span(
        self,
        schema_name: str,
        payload: Mapping[str, Any] | None = None,
        *,
        status: Literal["pending", "active"] = "pending",
        parent: Span | None = None,
    ) -> Span:
        """Create a span that its methods finish; its parent is `parent`, else this run's span that is active here."""
        if not page[0]:
            forks.renew()
        recorder = self.recorder
        if parent is None:
            current = recorder.innermost()
            parent = current if type(current) is Span and current.run is self else None
        parent_id = parent.id if issubclass(type(parent), Span) else None  # type: ignore[union-attr]
        span = Span(recorder, self, parent_id or None, usable_name(schema_name, "custom"))
        if type(status) is not str or status not in OPEN:
            recorder.faults.lose(
                InvalidValue("status", "a span is created pending or active, and finished by its methods")
            )
            status = "pending"
        try:
            span.create(recorder.capture.object({} if payload is None else payload, self.repeats), status)
        except Exception as error:
            span.not_created(status, error)
        if self.termination_reason is not None:
            span.stop()
        return span

    def finish(self, status: FinishStatus | None = None, result: Mapping[str, Any] | None = None) -> None:
        """Finish the run before its block ends."""
        if not page[0]:
            forks.renew()
        if result is not None:
            self.set_result(result)
        wanted: FinishStatus = "failed" if self.error_members is not None else "complete"
        try:
            wanted = status or wanted
            if not self.terminated:
                check_finish("agent instance", self.id or "(not recorded)", self.status, wanted)
        except Exception as error:
            self.recorder.faults.lose(error)
        else:
            self.store_end(wanted)
