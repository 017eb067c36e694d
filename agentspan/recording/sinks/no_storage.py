"""Sinks that write nothing themselves: before the first transition of a process, and where there is no storage."""

from collections.abc import Callable
from typing import Any

from agentspan.recording.sinks.protocol import SpanSink


class First:
    """Prepares the real sink at the first transition, and passes that on.

    It has each method of a SpanSink.

    Args:
        sink: stores the row of this process, and returns the sink that all later transitions go to directly.
    """

    def __init__(self, sink: Callable[[], SpanSink]) -> None:
        self._sink = sink

    def __getattr__(self, transition: str) -> Any:
        """Return the method of the real sink."""
        return getattr(self._sink(), transition)


class NoStorage:
    """Counts transitions after shutdown, or where no storage could be opened. It writes none.

    It has each method of a SpanSink.

    Args:
        count: called for each.
    """

    def __init__(self, count: Callable[[], None]) -> None:
        self._count = count

    def __getattr__(self, transition: str) -> Any:
        """Return what takes a transition of any kind."""
        return lambda *_: self._count()
