"""Spans and runs of a program whose recording is disabled: they have a status, and keep nothing."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from agentspan.model.status import FinishStatus, SpanStatus
from agentspan.recording.recorder import Recorder
from agentspan.recording.span_and_run import Run, Span
from agentspan.recovery.writers import program_name
from agentspan.schemas.span_types import usable_name


class DisabledRun(Run):
    """See Run; it keeps nothing, and so do its spans."""

    def score(self, *judgement: Any, **more: Any) -> None:
        """Do nothing."""

    def create_span(
        self,
        schema_name: str,
        payload: Mapping[str, Any] | None = None,
        *,
        status: Literal["pending", "active"] = "pending",
        parent: Span | None = None,
    ) -> Span:
        """Return a span that keeps nothing."""
        return DisabledSpan(self.recorder, self, usable_name(schema_name, "custom"), status)


class DisabledSpan(Span):
    """See Span; it checks nothing, keeps nothing, and is the parent of no span.

    Args:
        run: the run that is active where the span begins; None where there is none.
    """

    parent_span_id = None

    def __init__(self, recorder: Recorder, run: Run | None, schema_name: str, status: SpanStatus) -> None:
        self.recorder = recorder
        self.schema_name = schema_name
        self.status = status
        self._run = run

    @property
    def run(self) -> Run:  # type: ignore[override]  # made when it is asked for: 2 µs
        """The run that is active where the span began, or one that stands for it."""
        if self._run is None:
            self._run = disabled_run(self.recorder)
        return self._run

    def set_result(self, result: Mapping[str, Any]) -> None:
        """Do nothing."""

    def update_payload(self, payload: Mapping[str, Any]) -> None:
        """Do nothing."""

    def record_error(self, exception: BaseException) -> None:
        """Note that the span will finish as failed."""
        self.error_members = {}

    def score(self, *judgement: Any, **more: Any) -> None:
        """Do nothing."""

    def start(self) -> None:
        """Become active."""
        self.status = "active"

    def finish(self, status: FinishStatus | None = None, result_payload: Mapping[str, Any] | None = None) -> None:
        """Take the status that the span would have."""
        self.status = status or ("complete" if self.error_members is None else "failed")

    def __enter__(self) -> Self:
        if self.status == "pending":
            self.start()
        return self

    def leave(self, exception: BaseException | None, output: Any = None) -> None:
        """Finish, if the span is active."""
        if self.status == "active":
            self.finish("failed" if exception is not None else None)


def disabled_span(recorder: Recorder, schema_name: str) -> DisabledSpan:
    """Return what stands for an active span."""
    node = recorder.current.get()  # blocks of runs are entered all the same
    return DisabledSpan(recorder, node if type(node) is DisabledRun else None, schema_name, "active")


def disabled_run(recorder: Recorder) -> DisabledRun:
    """Return a run where none is active: decorated calls leave no trace, not even in the context."""
    run = DisabledRun(recorder, program_name())
    run.status = "active"
    return run
