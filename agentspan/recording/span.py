"""A span as the recorded program holds it. Its methods never raise and never wait longer than the sink."""

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from agentspan import clock, forks, jsontext
from agentspan.errors import InvalidAction, ValidationErrors
from agentspan.forks import page
from agentspan.interrupts import is_interrupt
from agentspan.model.spans import check_finish
from agentspan.model.status import LEAVES, OPEN, FinishStatus, SpanStatus
from agentspan.schemas.span_types import SpanType

if TYPE_CHECKING:
    from agentspan.recording.run import Run
    from agentspan.recording.tracer import Tracer


N = TypeVar("N", "Span", "Run")
_NOTHING = object()


def last_entered(entered: list[N]) -> N:
    """Take out what to leave: of several that tasks or threads entered with one block, the one that is active here."""
    if len(entered) > 1:
        node: Any = entered[-1]._tracer._current.get()
        while node is not None:
            if node in entered:
                entered.remove(node)
                return node  # type: ignore[no-any-return]
            node = node._outer
    return entered.pop()


class Span:
    """One step of a run, from `agentspan.span` or `Run.create_span`; entered as a with-block, it is the parent inside.

    Attributes:
        id: its PFID; "" when it could not be recorded.
        run: the run that it belongs to.
        parent_span_id: the span in which it happens, or None.
        schema_name: the span type's name.
        status: pending, active, complete, failed or cancelled.
    """

    status: SpanStatus = "pending"
    id = ""
    # Defaults of the class, because setting all of them for each span costs 0.3 µs.
    _owns_run = False
    _result: dict[str, Any] | None = None
    _error: dict[str, Any] | None = None
    _outer: Any = None
    _started_ns = 0
    _began_ns = 0
    _payload = "{}"  # as JSON text: what the caller gave may be changed by the caller
    _decoded: tuple[str, Any, int, str] | None = None  # a payload's text, what it says; when that was, as text

    def __init__(self, tracer: "Tracer", run: "Run", parent_span_id: str | None, schema_name: str) -> None:
        self.run = run
        self.parent_span_id = parent_span_id
        self.schema_name = schema_name
        self._tracer = tracer
        self._writer_id = tracer._writer_id

    def __repr__(self) -> str:
        return f"<Span {self.schema_name} {self.id or '(not recorded)'} {self.status}>"

    def set_result(self, result: Mapping[str, Any]) -> None:
        """Merge into the result_payload, which is stored when the span finishes."""
        try:
            self._result = dict(result) if self._result is None else {**self._result, **result}
        except Exception as error:
            self._tracer._lose(error)

    def update_payload(self, payload: Mapping[str, Any]) -> None:
        """Merge into the payload of an open span; stored at once."""
        if not page[0]:
            forks.renew()
        try:
            self._need(OPEN, "have its payload updated")
            text = self._tracer._capture.object({**jsontext.decode(self._payload), **payload})
            self._tracer._check(self, text, None)
            self._payload = text
            if self.id:
                self._tracer._out.updated(self, clock.wall_ns())
            else:
                self._tracer._count_unrecorded()
        except Exception as error:
            self._tracer._lose(error)

    def record_error(self, exception: BaseException) -> None:
        """Note an exception that was caught: the span will finish as failed, with this error."""
        try:
            self._error = self._tracer._capture.error(exception)
        except Exception as error:
            self._tracer._lose(error)

    def start(self) -> None:
        """Start a pending span."""
        if not page[0]:
            forks.renew()
        try:
            self._need(LEAVES["active"], "be started")
            self.status = "active"
            self._started_ns = clock.wall_ns()
            if self.id:
                self._tracer._out.started(self)
            else:
                self._tracer._count_unrecorded()
        except Exception as error:
            self._tracer._lose(error)
        self._began_ns = clock.monotonic_ns()
        if self.run.termination_reason is not None:
            self._tracer._stop(self)

    def finish(self, status: FinishStatus | None = None, result_payload: Mapping[str, Any] | None = None) -> None:
        """Finish the span: complete when `status` is left out, failed when an error was recorded."""
        if not page[0]:
            forks.renew()
        ended_ns = clock.monotonic_ns()
        if result_payload is not None:
            self.set_result(result_payload)
        try:
            wanted = status or ("failed" if self._error is not None else "complete")
            check_finish("agent span", self.id or "(not recorded)", self.status, wanted)
            self._finish(wanted, ended_ns)
        except Exception as error:
            self._tracer._lose(error)

    def cancel(self) -> None:
        """Cancel a pending span: it never started."""
        self.finish("cancelled")

    def __enter__(self) -> Self:
        if self.status == "pending":
            self.start()
        self._outer = self._tracer._enter(self)
        return self

    def __exit__(
        self, type_: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        self._leave(exception)
        return False

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, type_: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        self._leave(exception)
        return False

    def _goes_on(self) -> bool:
        """Tell whether what begins now may be inside this span."""
        return self.status in OPEN

    @property
    def _type(self) -> SpanType:
        return self._tracer._registry.resolve(self.schema_name)

    def _leave(self, exception: BaseException | None, output: Any = _NOTHING) -> None:
        """End the block: finish what is still active, and give the context back."""
        if not page[0]:
            forks.renew()
        ended_ns = clock.monotonic_ns()
        tracer, outer = self._tracer, self._outer
        if (outer is None or outer.status == "active") and tracer._current.get() is self:  # the common case of _exit
            tracer._current.set(outer)
            self._outer = None
        else:
            tracer._exit(self)
        if self._writer_id != tracer._writer_id:
            return  # a forked child leaves a block of its parent's, which goes on
        try:
            if exception is not None and self.status in OPEN:
                self._error = tracer._capture.error(exception)
            if self.status == "active":
                self._finish("complete" if self._error is None else "failed", ended_ns, output)
        except Exception as error:
            tracer._lose(error, reraise=exception is None)

    def _stopped(self, error: BaseException) -> None:
        """End the span that `error` keeps from beginning: the run is terminated."""
        try:
            self._error = self._tracer._capture.error(error)
            self._finish("failed" if self.status == "active" else "cancelled", clock.monotonic_ns())
        except Exception as fault:
            self._tracer._lose(fault, reraise=False)

    def _returned(self, value: Any) -> None:
        """End a decorated call that returned: a dict is the result, anything else its `output`."""
        if self._result is None and self._error is None:
            self._leave(None, value)
            return
        if issubclass(type(value), dict):  # `__class__` may be anything
            self.set_result(value)
        elif value is not None or self._result is None:
            self.set_result({"output": value})
        self._leave(None)

    def _finish(self, status: FinishStatus, ended_ns: int, output: Any = _NOTHING) -> None:
        """Store how the span ended; its result is what was set, or what a function returned, its `output`."""
        try:
            if self.id:
                at_ns = clock.wall_ns()
                if at_ns < self._started_ns:
                    at_ns = self._started_ns
                elapsed_ns = 0 if status == "cancelled" else ended_ns - self._began_ns
                result: str | None
                if self._error is not None:
                    result = self._failure(self._error)
                elif output is not _NOTHING:
                    result = self._tracer._capture.output(output)
                else:
                    result = None if self._result is None else self._tracer._capture.object(self._result)
                if self._tracer._strict and result is not None:
                    status, result = self._checked(status, result)
                self.status = status
                self._tracer._out.finished(self, result, at_ns, elapsed_ns)
            else:
                self._tracer._count_unrecorded()
                self.status = status
        except BaseException as error:
            if self._owns_run and (self.status != "active" or not is_interrupt(error)):
                self.run._finish("failed" if self.status == "failed" else "complete", self._error)
            raise  # else a signal handler came first: nothing is stored yet, and _leave is called again
        if self._owns_run:
            self.run._finish("failed" if self.status == "failed" else "complete", self._error)

    def _failure(self, error: dict[str, Any]) -> str:
        capture, result = self._tracer._capture, self._result
        return capture.failure(error) if result is None else capture.object({**result, "error": error})

    def _checked(self, status: FinishStatus, result: str) -> tuple[FinishStatus, str]:
        try:
            self._tracer._check(self, None, result)
            return status, result
        except ValidationErrors as refusal:  # the result is refused, but the span must not stay open
            self._tracer._fault(refusal, reraise=False)
            self._error = self._tracer._capture.error(refusal)
            return "failed", self._tracer._capture.failure(self._error)

    def _create(self, payload: str, status: SpanStatus) -> None:
        """Store the new span; called once, by the tracer."""
        tracer = self._tracer
        self.status = status
        if self.run._instance is None:
            tracer._count_unrecorded()
            return
        self._payload = payload
        if tracer._strict:
            tracer._check(self, payload, None)
        self._started_ns = at_ns = clock.wall_ns()  # of a pending span, until it is started
        self.id = tracer._ids.new(at_ns)
        tracer._out.created(self, at_ns)
        self._began_ns = clock.monotonic_ns()

    def _need(self, statuses: frozenset[str], what: str) -> None:
        if self.status not in statuses:
            raise InvalidAction(
                f"agent span {self.id} is {self.status}: only a span that is {' or '.join(sorted(statuses))} can {what}"
            )
