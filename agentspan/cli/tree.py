"""Draws a run as a tree in the terminal: one line per span with mark, summary, duration and bar, and errors below.

A bar shows the time of a span, aligned to the time line of the run.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from agentspan import clock, jsontext
from agentspan.analysis.runs import late_text
from agentspan.analysis.tree import Node, Sums, error_of, error_of_all, sums, title_of
from agentspan.analysis.wording import score_text
from agentspan.blobs import described
from agentspan.cli.output import (
    COLORS,
    MARKS,
    columns_of,
    fit,
    fit_end,
    noun,
    pad,
    safe,
    status_style,
    style,
    wrap,
)
from agentspan.model.changes import OPEN
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.schemas.span_types import error_text, returned_error
from agentspan.schemas.templates import MAX_INLINE, inline
from agentspan.storage.row_by_row import Labels
from agentspan.text import cost_text, count_text, cut, duration_text, one_line

FROM = 70
"""The least width of a terminal, in columns, for bars."""
MOST = 40
FULL, THIN, STILL_OPEN, MANY = "█", "▏", "░", "▒"


class Timeline:
    """The time from the start to the end of a run, mapped to columns of a terminal.

    Attributes:
        begin: the start of the run or of its first span, as stored text.
        length: the duration in ms.
        columns: the number of columns for bars; 0 if the terminal is too narrow, or the run has no duration.
    """

    def __init__(self, run: AgentInstanceRow, spans: Iterable[AgentSpanRow], width: int) -> None:
        spans = list(spans)
        begins = [span.started_at for span in spans if span.started_at is not None]
        ends = [span.finished_at or span.updated_at for span in spans]
        self.begin = min([run.started_at or run.inserted_at, *begins])
        end = run.finished_at or clock.now()  # an open run lasts until now
        self.length = clock.millis_between(self.begin, max([end, *ends]))
        self.columns = min(MOST, (width - 50) // 3) if width >= FROM and self.length > 0 else 0

    def bar(self, span: AgentSpanRow, alike: Sequence[AgentSpanRow] = ()) -> str:
        """Return the bar of a span, or of a folded group of spans, padded to the width of the time line."""
        if span.started_at is None or span.status == "cancelled":
            return " " * self.columns
        begin, end = self._column(span.started_at), float(self.columns)
        mark = STILL_OPEN
        spans = (span, *alike)
        if all(other.duration_ms is not None for other in spans):
            # The end is start plus duration: finished_at includes the recorder's own work.
            end = max(self._column(other.started_at, other.duration_ms) for other in spans)
            mark = MANY if alike else FULL
        cells = round(end - begin)
        drawn = mark * cells if cells > 0 else THIN
        first = max(0, min(round(begin) if cells > 0 else int(begin), self.columns - len(drawn)))
        return (" " * first + drawn).ljust(self.columns)

    def _column(self, at: str | None, after_ms: float | None = 0.0) -> float:
        """Return the column, as a fraction, of a time on the time line, or of `after_ms` milliseconds after it."""
        offset = clock.millis_between(self.begin, at or self.begin) + (after_ms or 0.0)
        return min(offset / self.length, 1.0) * self.columns


DURATION_COLUMNS = 9
TITLE = 80
"""The largest number of characters of a payload in the title of a span without a summary."""
ERROR_LINES = 4
"""The largest number of lines of an error in a picture."""
TOLD_LINES = 3
"""The largest number of lines for commit, task, session, user and tags of a run."""
SCORE_LINES = 2
"""The largest number of lines of a score in a picture."""
PAYLOAD_LINES = 12
"""The largest number of lines of a payload in a picture."""
SHORT_COMMIT = 10
"""The number of characters of a commit in a picture: enough to be unique in a large git repository."""


class Picture:
    """Draws a run as lines that are at most `width` columns wide.

    Args:
        dead: the ids of the run's writers whose program has died.
        payloads: draw the payload and result of each span, too.
        with_ids: the ids of the spans whose id is drawn, too.
        selected: the id of the span that is drawn bold, with its id and payloads.
        numbers: the number of each span by its id; drawn at errors, because `agentspan why` names steps by number.
    """

    def __init__(
        self,
        width: int,
        timeline: Timeline,
        *,
        dead: Collection[str | None] = (),
        payloads: bool = False,
        with_ids: Collection[str] = (),
        selected: str | None = None,
        numbers: Mapping[str, int] | None = None,
    ) -> None:
        self.width = width
        self.timeline = timeline
        self.dead = dead
        self.payloads = payloads
        self.with_ids = with_ids
        self.selected = selected
        self.numbers = numbers or {}

    def head(self, run: AgentInstanceRow, name: str, spans: list[AgentSpanRow], labels: Labels) -> Iterator[str]:
        """Yield the lines above the tree: id, commit, task, tags, sums and the like of the run."""
        width = self.width
        facts = [*_told(run, labels.tags)]
        line = " · ".join((f"run {run.id}", *facts))
        if columns_of(safe(line)) <= width:
            yield style(fit(line, width), bold=True)
        else:
            yield style(fit(f"run {run.id}", width), bold=True)
            yield from (style(f"    {part}", bold=True) for part in wrap(" · ".join(facts), width - 4, TOLD_LINES))
        yield _facts(run, name, sums(spans), width, is_left=run.status in OPEN and run.writer_id in self.dead)
        if run.termination_reason is not None:
            yield "    " + status_style(fit(f"terminated: {run.termination_reason}", width - 4), "terminated")
        late = late_text(run)
        if late is not None:
            yield "    " + style(fit(late, width - 4), fg="bright_black")
        if run.error is not None:
            text = error_text({"error": jsontext.decode(run.error)})
            for line in wrap(text or "failed", width - 4, ERROR_LINES):
                yield "    " + status_style(line, "failed")
        for score in labels.scores:
            for line in wrap(score_text(score), width - 4, SCORE_LINES):
                yield f"    {line}"
        if self.payloads:
            for key in ("metadata", "result"):
                yield from self._payload("    ", key, getattr(run, key), "")

    def span(self, node: Node, lasts: tuple[bool, ...]) -> Iterator[str]:
        """Yield the lines of a span, or of a group of similar spans."""
        span = node.span
        is_selected = span.id == self.selected
        is_left = span.writer_id in self.dead and span.status in OPEN
        bar_columns = self.timeline.columns + 3 if self.timeline.columns else 0
        deepest = max(8, self.width - bar_columns - 45)  # limit the indentation, so that deep trees keep room for text
        above = "".join("  " if last else "│ " for last in lasts[:-1])[-deepest:]
        branch = above + ("└─" if lasts[-1] else "├─")
        room = self.width - columns_of(branch) - 2 - DURATION_COLUMNS - 1 - bar_columns
        error = _one_line(error_of_all(node))
        text = _title(node, room) if node.alike else fit(_without_error(title(span), error), room)
        duration = "left open" if is_left else _duration(node)
        bar = self.timeline.bar(span, [other.span for other in node.alike]) if bar_columns else ""
        yield (
            style(branch, fg="bright_black")
            + status_style(MARKS[span.status], span.status)
            + " "
            + style(pad(text, room), fg=COLORS["cancelled"] if span.status == "cancelled" else None, bold=is_selected)
            + " "
            + pad(duration, DURATION_COLUMNS, right=True)
            + (f" ▕{style(bar, fg=COLORS.get(span.status))}▏" if bar_columns else "")
        )
        below = above + ("  " if lasts[-1] else "│ ") + ("│ " if node.children else "  ")
        if error is not None and all(
            _one_line(error_of(child.span)) != error for child in node.children
        ):  # the error is drawn at the innermost span only
            room = self.width - columns_of(below) - 1
            for line in self._numbered(node, wrap(error, room, ERROR_LINES), room):
                yield style(below, fg="bright_black") + " " + status_style(line, "failed")
        late = late_text(span)
        if late is not None:
            yield style(fit_end(f"{below} {late}", self.width), fg="bright_black")
        if is_selected or span.id in self.with_ids:
            yield style(fit_end(f"{below}   {span.id}", self.width), fg="bright_black")
        if is_selected or (self.payloads and not node.alike):
            yield from self._payload(below, "payload", span.payload, span.id)
            yield from self._payload(below, "result", span.result_payload, span.id)

    def _numbered(self, node: Node, lines: list[str], room: int) -> list[str]:
        number = self.numbers.get(node.span.id)
        if number is None or node.alike:
            return lines
        text = f" · step {number:,}"
        return [*lines[:-1], fit(lines[-1], room - columns_of(text)) + text]

    def _payload(self, below: str, name: str, text: str | None, id: str) -> Iterator[str]:
        if text is None:
            return
        value = jsontext.decode(described(text))
        if isinstance(value, dict) and isinstance(value.get("error"), dict):
            value = {**value, "error": {key: item for key, item in value["error"].items() if key != "stacktrace"}}
        room = self.width - columns_of(below) - 3
        lines = [
            f"{name} {line}" if n == 0 else line for n, line in enumerate(_json_lines(value, room - len(name) - 1))
        ]
        if len(lines) > PAYLOAD_LINES:
            where = f"; agentspan show {id}" if id else ""
            lines[PAYLOAD_LINES - 1 :] = [f"… {len(lines) - PAYLOAD_LINES + 1} more lines{where}"]
        for number, line in enumerate(lines):
            yield style(f"{below} {'' if number == 0 else '  '}", fg="bright_black") + fit_end(line, room + 2)


def _json_lines(value: object, columns: int) -> list[str]:
    """Return a value as indented JSON, in lines of at most `columns` columns; longer lines are wrapped."""
    shown: list[str] = []
    for line in safe(json.dumps(value, indent=2, ensure_ascii=False)).split("\n"):
        indent = min(len(line) - len(line.lstrip(" ")), columns // 2)
        text, room = cut(line.lstrip(" "), PAYLOAD_LINES * columns), max(8, columns - indent)
        while columns_of(text) > room:
            head = fit_end(text, room + 1)[:-1]
            shown.append(" " * indent + head)
            text = text[len(head) :]
        shown.append(" " * indent + text)
    return shown


def _told(run: AgentInstanceRow, tags: Sequence[str]) -> Iterator[str]:
    """Yield commit, task, session, user and tags of a run, as far as recorded."""
    if run.git_commit:
        yield f"commit {run.git_commit[:SHORT_COMMIT]}{' with changes' if run.git_dirty else ''}"
    for name, text in (("task", run.task), ("session", run.session), ("user", run.user)):
        if text:
            yield f"{name} {text}"
    if tags:
        yield f"{'tag' if len(tags) == 1 else 'tags'} {', '.join(tags)}"


def _facts(run: AgentInstanceRow, name: str, total: Sums, width: int, *, is_left: bool) -> str:
    duration = duration_text(run.duration_ms) if run.duration_ms is not None else ""
    parts = [
        name,
        f"{run.status}, its program died" if is_left else run.status,
        duration,
        noun(total.spans, "span"),
        f"{total.failed:,} failed" if total.failed else "",
        f"{count_text(total.tokens)} tok" if total.tokens is not None else "",
        cost_text(total.cost_usd) if total.cost_usd is not None else "",
    ]
    text = fit(f"{MARKS[run.status]} " + " · ".join(part for part in parts if part), width)
    return status_style(text[0], run.status) + text[1:]


def _title(node: Node, columns: int) -> str:
    """Return the title of a folded group of spans; if it is too long, the name is cut, not the number of spans."""
    span, number = node.span, len(node.alike) + 1
    below = _below(node)
    each = f" · {noun(below, 'span')} in each" if below else ""
    name = f"{span.schema_title}{f' {span.label}' if span.label else ''}"
    ended = " failed" if span.status == "failed" else " returned an error" if returned_error(span) else ""
    count = f" × {number:,}{ended}{each}"
    return fit(fit(name, max(8, columns - columns_of(count))) + count, columns)


def _below(node: Node) -> int:
    """Return the number of descendants of one span of a folded group; all spans of a group have the same number."""
    total, stack = 0, [(child, 1) for child in node.children]
    while stack:
        child, times = stack.pop()
        times_here = times * (len(child.alike) + 1)
        total += times_here
        stack += [(grandchild, times_here) for grandchild in child.children]
    return total


def _without_error(text: str, error: str | None) -> str:
    """Remove the error from a summary, because the error has its own line."""
    return text if error is None else text.removesuffix(f" → {inline(error, MAX_INLINE)}")


def title(span: AgentSpanRow) -> str:
    """Return the title of a span: its summary, else its type, label and the beginning of its payload."""
    return title_of(span, TITLE)


def _duration(node: Node) -> str:
    span = node.span
    if span.status in ("cancelled", "pending"):
        return span.status
    if span.duration_ms is None:
        return "running"
    return duration_text(span.duration_ms + sum(other.span.duration_ms or 0 for other in node.alike))


def _one_line(text: str | None) -> str | None:
    return one_line(text, 1000) if text else None
