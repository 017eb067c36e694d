"""Sinks that write nothing themselves: before the first transition of a process, and where there is no storage."""

from collections.abc import Callable

from agentspan.model.changes import Unit
from agentspan.recording.sinks.protocol import SpanFacts, SpanSink


class First:
    """Prepares the real sink at the first transition, and passes that on.

    Args:
        sink: stores the row of this process, and returns the sink that all later transitions go to directly.
    """

    def __init__(self, sink: Callable[[], SpanSink]) -> None:
        self._sink = sink

    def created(self, span: SpanFacts, at_ns: int) -> None:
        """See SpanSink."""
        self._sink().created(span, at_ns)

    def created_raw(self, span: SpanFacts, reader: str, text: str, at_ns: int) -> None:
        """See SpanSink."""
        self._sink().created_raw(span, reader, text, at_ns)

    def started(self, span: SpanFacts) -> None:
        """See SpanSink."""
        self._sink().started(span)

    def updated(self, span: SpanFacts, at_ns: int) -> None:
        """See SpanSink."""
        self._sink().updated(span, at_ns)

    def finished(self, span: SpanFacts, result: str | None, at_ns: int, elapsed_ns: int) -> None:
        """See SpanSink."""
        self._sink().finished(span, result, at_ns, elapsed_ns)

    def finished_as(self, span: SpanFacts, result: str | None, at_ns: int, elapsed_ns: int) -> None:
        """See SpanSink."""
        self._sink().finished_as(span, result, at_ns, elapsed_ns)

    def finished_raw(self, span: SpanFacts, reader: str, text: str, at_ns: int, elapsed_ns: int) -> None:
        """See SpanSink."""
        self._sink().finished_raw(span, reader, text, at_ns, elapsed_ns)

    def register(self, unit: Unit) -> None:
        """See SpanSink."""
        self._sink().register(unit)

    def write(self, unit: Unit) -> None:
        """See SpanSink."""
        self._sink().write(unit)


class NoStorage:
    """Counts transitions after shutdown, or where no storage could be opened. It writes none.

    Args:
        count: called for each.
    """

    def __init__(self, count: Callable[[], None]) -> None:
        self._count = count

    def created(self, span: SpanFacts, at_ns: int) -> None:
        """See SpanSink."""
        self._count()

    def created_raw(self, span: SpanFacts, reader: str, text: str, at_ns: int) -> None:
        """See SpanSink."""
        self._count()

    def started(self, span: SpanFacts) -> None:
        """See SpanSink."""
        self._count()

    def updated(self, span: SpanFacts, at_ns: int) -> None:
        """See SpanSink."""
        self._count()

    def finished(self, span: SpanFacts, result: str | None, at_ns: int, elapsed_ns: int) -> None:
        """See SpanSink."""
        self._count()

    def finished_as(self, span: SpanFacts, result: str | None, at_ns: int, elapsed_ns: int) -> None:
        """See SpanSink."""
        self._count()

    def finished_raw(self, span: SpanFacts, reader: str, text: str, at_ns: int, elapsed_ns: int) -> None:
        """See SpanSink."""
        self._count()

    def register(self, unit: Unit) -> None:
        """See SpanSink."""
        self._count()

    def write(self, unit: Unit) -> None:
        """See SpanSink."""
        self._count()
