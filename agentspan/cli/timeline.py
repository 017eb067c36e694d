"""Bars that show when a span happened, aligned to the time line of its run."""

from collections.abc import Iterable, Sequence

from agentspan import clock
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow

FROM = 70
"""From so many columns on there is room for bars."""
MOST = 40
FULL, THIN, OPEN, MANY = "█", "▏", "░", "▒"


class Timeline:
    """The time from a run's beginning to its end, as columns of a terminal.

    Attributes:
        columns: how many; 0 where there is no room, or no time to show.
    """

    def __init__(self, run: AgentInstanceRow, spans: Iterable[AgentSpanRow], width: int) -> None:
        spans = list(spans)
        begins = [span.started_at for span in spans if span.started_at is not None]
        ends = [span.finished_at or span.updated_at for span in spans]
        self.begin = min([run.started_at or run.inserted_at, *begins])
        end = run.finished_at or clock.now()  # what is open goes on
        self.length = clock.millis_between(self.begin, max([end, *ends]))
        self.columns = min(MOST, (width - 50) // 3) if width >= FROM and self.length > 0 else 0

    def bar(self, span: AgentSpanRow, alike: Sequence[AgentSpanRow] = ()) -> str:
        """Return the bar of a span, or of several, as wide as the time line."""
        if span.started_at is None or span.status == "cancelled":
            return " " * self.columns
        begin, end = self._column(span.started_at), float(self.columns)
        mark = OPEN
        spans = (span, *alike)
        if all(other.duration_ms is not None for other in spans):
            # By its duration, not by finished_at: the recorder's own work is between the two.
            end = max(self._column(other.started_at, other.duration_ms) for other in spans)
            mark = MANY if alike else FULL
        cells = round(end - begin)
        drawn = mark * cells if cells > 0 else THIN
        first = max(0, min(round(begin) if cells > 0 else int(begin), self.columns - len(drawn)))
        return (" " * first + drawn).ljust(self.columns)

    def _column(self, at: str | None, after_ms: float | None = 0.0) -> float:
        """Return the column of a time."""
        offset = clock.millis_between(self.begin, at or self.begin) + (after_ms or 0.0)
        return min(offset / self.length, 1.0) * self.columns
