"""What stands in a sink's place: before the first word of a process, and where there is nothing to record into."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from agentspan.model.changes import Unit

if TYPE_CHECKING:
    from agentspan.recording.sink import Said
    from agentspan.recording.span import Span


class First:
    """Hands on to a sink that is made ready for it only then.

    Args:
        sink: makes known who writes, and returns the sink that everything later goes to directly.
    """

    def __init__(self, sink: "Callable[[], Said]") -> None:
        self._sink = sink

    def created(self, span: "Span", at_ns: int) -> None:
        """See Said."""
        self._sink().created(span, at_ns)

    def started(self, span: "Span") -> None:
        """See Said."""
        self._sink().started(span)

    def updated(self, span: "Span", at_ns: int) -> None:
        """See Said."""
        self._sink().updated(span, at_ns)

    def finished(self, span: "Span", result: str | None, at_ns: int, elapsed_ns: int) -> None:
        """See Said."""
        self._sink().finished(span, result, at_ns, elapsed_ns)

    def write(self, unit: Unit) -> None:
        """See Said."""
        self._sink().write(unit)


class Nowhere:
    """Counts what comes after shutdown, or without a file.

    Args:
        count: is called for each.
    """

    def __init__(self, count: Callable[[], None]) -> None:
        self._count = count

    def created(self, span: "Span", at_ns: int) -> None:
        """See Said."""
        self._count()

    def started(self, span: "Span") -> None:
        """See Said."""
        self._count()

    def updated(self, span: "Span", at_ns: int) -> None:
        """See Said."""
        self._count()

    def finished(self, span: "Span", result: str | None, at_ns: int, elapsed_ns: int) -> None:
        """See Said."""
        self._count()

    def write(self, unit: Unit) -> None:
        """See Said."""
        self._count()
