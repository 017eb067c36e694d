"""What a program is given whose recording is disabled: spans and runs that have a status, and keep nothing."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from agentspan.model.status import FinishStatus, SpanStatus
from agentspan.recording.run import Run
from agentspan.recording.span import Span
from agentspan.recovery.writers import program_name

if TYPE_CHECKING:
    from agentspan.recording.tracer import Tracer

_NO = frozenset({"", "0", "false", "no", "off"})


def by_environment() -> bool:
    """Tell whether AGENTSPAN_DISABLED says that nothing is to be recorded."""
    return os.environ.get("AGENTSPAN_DISABLED", "").strip().lower() not in _NO


def run_of(tracer: "Tracer") -> Run:
    """Return a run for those who ask for one where none is active: decorated calls leave no trace, not even there."""
    run = Run(lambda: tracer, program_name())
    run._bound, run.status = tracer, "active"
    return run


class DisabledSpan(Span):
    """See Span; nothing is checked, nothing is kept, and it is nobody's parent."""

    parent_span_id = None

    def __init__(self, tracer: "Tracer", run: Run | None, schema_name: str, status: SpanStatus) -> None:
        self._run = run
        self._tracer = tracer
        self.schema_name = schema_name
        self.status = status

    @property
    def run(self) -> Run:  # type: ignore[override]  # made when it is asked for: 2 µs
        """The run that is active where the span began, or one that stands for it."""
        if self._run is None:
            self._run = run_of(self._tracer)
        return self._run

    def set_result(self, result: Mapping[str, Any]) -> None:
        """Do nothing."""

    def update_payload(self, payload: Mapping[str, Any]) -> None:
        """Do nothing."""

    def record_error(self, exception: BaseException) -> None:
        """Note that the span will finish as failed."""
        self._error = {}

    def start(self) -> None:
        """Be active."""
        self.status = "active"

    def finish(self, status: FinishStatus | None = None, result_payload: Mapping[str, Any] | None = None) -> None:
        """Have the status that the span would have."""
        self.status = status or ("complete" if self._error is None else "failed")

    def __enter__(self) -> Self:
        if self.status == "pending":
            self.start()
        return self

    def _leave(self, exception: BaseException | None, output: Any = None) -> None:
        if self.status == "active":
            self.finish("failed" if exception is not None else None)
