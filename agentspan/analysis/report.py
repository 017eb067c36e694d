"""A report of runs in Markdown for reviews in git: the same run gives the same text, whichever file holds it.

Ids become ordinals (`span 3` is the third span of the tree), and times become offsets from the start of the run. Text
from payloads is escaped: it can neither close a code fence nor become markup.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from agentspan import jsontext
from agentspan.analysis.diff_text import fenced
from agentspan.analysis.tree import Node, build, closed_text, every, run_name, span_error, walk
from agentspan.blobs import described
from agentspan.clock import millis_between
from agentspan.model.rows import AgentSpanRow
from agentspan.storage.access import instance
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import SpansOf
from agentspan.storage.row_by_row import summaries_of
from agentspan.storage.sums import RunSummary
from agentspan.text import cost_text, duration_text, one_line, printable

MARKS = {"pending": "◌", "active": "●", "complete": "✓", "failed": "✗", "cancelled": "○", "terminated": "■"}
TITLE = 200
DEEPEST = 20
"""The largest indentation of a step, in levels; deeper steps show a number. Else a chain of 5,000 takes 28 MB."""
_MARKUP = re.compile(r"([\\`*_\[\]<>|~&])")


def markdown(storage: Storage, run_ids: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a report on runs, without line ends."""
    runs = (run for id in run_ids for run in summaries_of(storage, [instance(storage, id)]))
    for number, run in enumerate(runs, start=1):
        if number > 1:
            yield ""
        yield from _Report(storage, run, number).lines()


class _Report:
    def __init__(self, storage: Storage, run: RunSummary, number: int) -> None:
        self._run = run
        self._roots = build(storage.ask(SpansOf(run.run.id)))
        spans = [node.span for node in every(self._roots)]
        self._number = {span.id: place for place, span in enumerate(spans, start=1)}
        self._names = {run.run.id: f"run {number}", **{id: f"span {place}" for id, place in self._number.items()}}
        self._id = re.compile("|".join(map(re.escape, self._names)))
        self._begin = min([run.run.started_at or run.run.inserted_at, *(s.started_at for s in spans if s.started_at)])

    def lines(self) -> Iterator[str]:
        """Yield the lines of the report on one run: facts, tree of steps, then each step with its payloads."""
        run = self._run
        name = run_name(run.agent, run.version)
        yield f"# {_escaped(self._text(name, TITLE))} · {run.run.status}"
        yield ""
        for label, value in self._facts():
            yield f"- {label}: {value}"
        for label, text in (("Given", run.run.metadata), ("Result", run.run.result), ("Error", run.run.error)):
            yield from self._json(label, text)
        yield ""
        yield "## Steps"
        yield ""
        yield from fenced("text", [self._step(node, lasts) for node, lasts in walk(self._roots)])
        for node in every(self._roots):
            yield from self._details(node)

    def _facts(self) -> Iterator[tuple[str, str]]:
        run = self._run
        if run.duration_ms is not None:
            yield "took", duration_text(run.duration_ms)
        yield "spans", f"{run.spans}" + (f", {run.failed} failed" if run.failed else "")
        yield from _usage(run)
        if run.run.termination_reason is not None:
            yield "terminated", _escaped(self._text(run.run.termination_reason, TITLE))

    def _step(self, node: Node, lasts: tuple[bool, ...]) -> str:
        span, depth = node.span, len(lasts) - 1
        above = "".join("  " if last else "│ " for last in lasts[max(0, depth - DEEPEST) : -1])
        above += "└─" if lasts[-1] else "├─"
        if depth > DEEPEST:
            above = f"… {depth} {above}"
        return f"{above}{MARKS[span.status]} {self._number[span.id]} {self._title(span)}{self._when(span)}"

    def _when(self, span: AgentSpanRow) -> str:
        if span.started_at is None or span.status == "cancelled":
            return f"  ({span.status})"
        took = "running" if span.duration_ms is None else duration_text(span.duration_ms)
        return f"  ({self._offset(span)}, {took})"

    def _offset(self, span: AgentSpanRow) -> str:
        return f"+{duration_text(millis_between(self._begin, span.started_at or span.inserted_at))}"

    def _details(self, node: Node) -> Iterator[str]:
        span = node.span
        yield ""
        yield f"### {self._number[span.id]}. {_escaped(self._title(span))}"
        yield ""
        yield f"- type: {_escaped(self._text(span.schema_name, TITLE))}"
        closed = closed_text(span)
        yield f"- status: {span.status}" + (f" (closed by being {closed})" if closed else "")
        if span.parent_span_id in self._number:
            yield f"- in: span {self._number[span.parent_span_id]}"
        if span.started_at is not None:
            yield f"- started: {self._offset(span)}"
        if span.duration_ms is not None:
            yield f"- took: {duration_text(span.duration_ms)}"
        yield from (f"- {name}: {value}" for name, value in _usage(span))
        if error := span_error(span):
            yield f"- error: {_escaped(self._text(error, TITLE))}"
        yield from self._json("Payload", span.payload)
        yield from self._json("Result", span.result_payload)

    def _json(self, label: str, text: str | None) -> Iterator[str]:
        if text is None:
            return
        value = _without_stacktrace(jsontext.decode(described(text)))
        yield ""
        yield f"{label}:"
        yield ""
        shown = json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)
        yield from fenced("json", printable(self._named(shown), keep="\n").split("\n"))

    def _title(self, span: AgentSpanRow) -> str:
        return self._text(span.summary or span.schema_title, TITLE)

    def _text(self, text: str, limit: int) -> str:
        return one_line(self._named(text), limit)

    def _named(self, text: str) -> str:
        return self._id.sub(lambda found: self._names[found[0]], text)


def _usage(row: RunSummary | AgentSpanRow) -> Iterator[tuple[str, str]]:
    if row.input_tokens is not None or row.output_tokens is not None:
        yield "tokens", f"{row.input_tokens or 0} in, {row.output_tokens or 0} out"
    if row.cost_usd is not None:
        yield "cost", _escaped(cost_text(row.cost_usd))


def _without_stacktrace(value: Any) -> Any:
    """Return a decoded payload without stack traces, which change whenever a line is added to the program."""
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("error"), dict):
        return {**value, "error": _without_stacktrace(value["error"])}
    return {key: item for key, item in value.items() if key != "stacktrace"}


def _escaped(text: str) -> str:
    return _MARKUP.sub(r"\\\1", text)
