"""Bars that show when a span happened, aligned to the time line of its run."""

from collections.abc import Iterable

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

    def bar(self, span: AgentSpanRow, alike: Iterable[AgentSpanRow] = ()) -> str:
        """Return the bar of a span, or of several, as wide as the time line."""
        if span.started_at is None:
            return " " * self.columns
        last = max((span, *alike), key=lambda span: span.finished_at or "~")
        begin = clock.millis_between(self.begin, span.started_at) / self.length * self.columns
        end = float(self.columns)
        mark = OPEN
        if last.finished_at is not None:
            end = clock.millis_between(self.begin, last.finished_at) / self.length * self.columns
            mark = FULL if last is span else MANY
        first = min(int(begin), self.columns - 1)
        cells = max(0, min(self.columns, round(end)) - round(begin))
        drawn = mark * cells if cells else THIN
        first = min(round(begin) if cells else first, self.columns - len(drawn))
        return (" " * first + drawn).ljust(self.columns)
