"""The picture of a run: one line a span, with its mark, summary and duration, and the error of what failed."""

from collections.abc import Collection, Iterator

from agentspan import jsontext
from agentspan.analysis.tree import Node, Sums, build, sums, walk
from agentspan.cli.output import MARKS, columns_of, fit, pad, status_style, style
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.model.status import OPEN
from agentspan.schemas.meaning import duration_text, error_text
from agentspan.schemas.templates import MAX_INLINE, inline

DURATION_COLUMNS = 9


def lines(
    run: AgentInstanceRow, name: str, spans: list[AgentSpanRow], width: int, dead: Collection[str | None] = ()
) -> Iterator[str]:
    """Yield the lines of a run's picture, none wider than `width`.

    Args:
        dead: the writers among the run's whose program has died.
    """
    yield style(fit(f"run {run.id}", width), bold=True)
    yield _facts(run, name, sums(spans), width, is_left=run.status in OPEN and run.writer_id in dead)
    if run.termination_reason is not None:
        yield "    " + status_style(fit(f"terminated: {run.termination_reason}", width - 4), "terminated")
    if run.error is not None:
        text = error_text({"error": jsontext.decode(run.error)})
        yield "    " + status_style(fit(text or "failed", width - 4), "failed")
    for node, lasts in walk(build(spans)):
        yield from _span_lines(node, lasts, width, is_left=node.span.writer_id in dead)


def _facts(run: AgentInstanceRow, name: str, total: Sums, width: int, *, is_left: bool) -> str:
    duration = duration_text(run.duration_ms) if run.duration_ms is not None else ""
    parts = [
        name,
        f"{run.status}, its program died" if is_left else run.status,
        duration,
        f"{total.spans} {'span' if total.spans == 1 else 'spans'}",
        f"{total.failed} failed" if total.failed else "",
        f"{count_text(total.tokens)} tok" if total.tokens is not None else "",
        f"${total.cost_usd:.4f}" if total.cost_usd is not None else "",
    ]
    text = fit(f"{MARKS[run.status]} " + " · ".join(part for part in parts if part), width)
    return status_style(text[0], run.status) + text[1:]


def count_text(number: int) -> str:
    """Write a count as a person says it: 950, 8.1k, 1.2M."""
    for unit, size in (("M", 1_000_000), ("k", 1000)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)


def _span_lines(node: Node, lasts: tuple[bool, ...], width: int, *, is_left: bool) -> Iterator[str]:
    span = node.span
    above = "".join("  " if last else "│ " for last in lasts[:-1])[-width // 2 :]  # deep trees keep their text
    branch = above + ("└─" if lasts[-1] else "├─")
    room = width - columns_of(branch) - 2 - DURATION_COLUMNS - 1
    error = _error(span)
    text = fit(_without_error(title(span), error), room)
    duration = "left open" if is_left and span.status in OPEN else _duration(span)
    yield (
        style(branch, fg="bright_black")
        + status_style(MARKS[span.status], span.status)
        + " "
        + (style(pad(text, room), fg="bright_black") if span.status == "cancelled" else pad(text, room))
        + " "
        + pad(duration, DURATION_COLUMNS, right=True)
    )
    if error is not None and all(_error(child.span) != error for child in node.children):  # shown where it arose
        below = above + ("  " if lasts[-1] else "│ ") + ("│ " if node.children else "  ")
        room = width - columns_of(below) - 1
        yield style(below, fg="bright_black") + " " + status_style(fit(error, room), "failed")


def _without_error(text: str, error: str | None) -> str:
    """Take a built-in type's outcome off its summary: the error gets a line of its own."""
    return text if error is None else text.removesuffix(f" → {inline(error, MAX_INLINE)}")


def title(span: AgentSpanRow) -> str:
    """Return a span's summary; for a type without a template its name, and what went in."""
    if span.summary:
        return span.summary
    payload = inline(jsontext.decode(span.payload), 80)
    return span.schema_title if payload == "{}" else f"{span.schema_title} {payload}"


def _duration(span: AgentSpanRow) -> str:
    if span.status in ("cancelled", "pending"):
        return span.status
    return "running" if span.duration_ms is None else duration_text(span.duration_ms)


def _error(span: AgentSpanRow) -> str | None:
    if span.status != "failed" or span.result_payload is None:
        return None
    text = error_text(jsontext.decode(span.result_payload))
    return fit(text, 1000) if text else None
