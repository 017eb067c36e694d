"""A run as a notebook shows it: the exported viewer in a frame, with the run's facts and its steps as text beside it.

The frame is sandboxed, in an origin of its own, and can load and send nothing. A notebook keeps the frame in its file,
so a large run is shown in part.
"""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import NamedTuple, TypeVar, cast

from agentspan.analysis.stored_run import RunStep, StoredRun
from agentspan.analysis.tree import title_of
from agentspan.analysis.why import RunWhy
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.storage import row_by_row
from agentspan.storage.access import Wrapper
from agentspan.storage.protocol import Capabilities, Storage, page_of
from agentspan.storage.questions import ChangedSpans, Find, Outlines, Query, Question, SpansOf, SpanSums
from agentspan.storage.row_by_row import has_failed
from agentspan.text import dotted, noun, size_text, visible
from agentspan.viewer import export
from agentspan.viewer.blocks import MAX_CELL, html
from agentspan.viewer.notebook import ShownSteps, shown

T = TypeVar("T")

MOST_STEPS = 500
"""The largest number of steps of a run in a frame: a notebook keeps all of them in its file."""
MOST_FAILED = 100
"""The number of failed steps, the last ones, that are in the frame of a larger run in any case."""
MOST_BYTES = 500_000
"""The bytes of payloads in a frame, beside the viewer's own 220 kB."""
MAX_PAYLOAD = 50_000
"""The bytes of a single payload in a frame."""
FRAME_PX = 420
TREE_LINES = 60
"""The number of lines of a run's tree that stand below its frame, for readers that drop frames."""


class ShownRun(StoredRun):
    """A recorded run that shows itself: the viewer in a frame."""

    @property
    def steps(self) -> list[RunStep]:
        """All steps of the run, parents first, siblings in the order in which they started."""
        return ShownSteps(super().steps)

    def why(self, *, outcome: str | None = None) -> RunWhy:
        """Return why the run failed (see StoredRun)."""
        return shown(super().why(outcome=outcome))

    def _repr_html_(self) -> str:
        excerpt = Excerpt(self.storage, self.row, self._spans)
        lines = self.tree().split("\n")
        left = len(lines) - TREE_LINES
        tree = "\n".join(lines[:TREE_LINES] + ([f"… and {left:,} more lines: .tree()"] if left > 0 else []))
        return html(
            [dotted(self.head, f"run {self.id}"), *self.facts, *self._left_out(excerpt)],
            frame(export.html(excerpt, [self.id]), f"run {self.id}"),
            f"<details><summary>The steps as text</summary><pre>{escape(visible(tree))}</pre></details>",
        )

    def _left_out(self, excerpt: "Excerpt") -> Iterator[str]:
        parts = []
        if excerpt.steps < self.spans:
            parts.append(
                f"the frame has {excerpt.steps:,} of {self.spans:,} steps: the first, and the last that failed"
            )
        if excerpt.cut:
            parts.append(f"the payloads of {noun(excerpt.cut, 'step')} are left out, because of their size")
        if parts:
            location = self.storage.capabilities().location
            # Only the name of the file: a notebook that is handed on need not say in which folder it is.
            name = None if location is None or location.path is None else location.path.name
            db = "" if name is None else f"--db {shlex.quote(name)} "
            yield f"{'; '.join(parts)}. All: agentspan export {self.id} {db}--format html -o run.html"


def frame(document: str, title: str) -> str:
    """Return an HTML document in a frame that loads nothing, and whose scripts cannot reach the page around it."""
    # Quoted with apostrophes: JSON and the viewer's scripts have few of them, and many quotes.
    source = document.replace("&", "&amp;").replace("'", "&#39;")
    return (
        f'<iframe sandbox="allow-scripts" title="{escape(title)}" width="100%" height="{FRAME_PX}" '
        f"srcdoc='{source}'></iframe>"
    )


class _Chosen(NamedTuple):
    spans: list[AgentSpanRow]
    cut: int


class Excerpt(Wrapper[Storage]):
    """A storage in which one run has only some of its spans, and only small payloads.

    The first MOST_STEPS spans; in their place up to MOST_FAILED failed ones, the last, with the spans around them.
    Payloads above MAX_PAYLOAD, and the largest ones beyond MOST_BYTES in all, are replaced by a text with their size;
    those of failed spans stay longest. Counts are those of the whole run.

    Attributes:
        steps: the number of spans of the run that this storage has.
        cut: the number of these spans whose payloads were replaced.
    """

    def __init__(self, direct: Storage, run: AgentInstanceRow, outlines: Sequence[AgentSpanRow]) -> None:
        super().__init__(direct)
        self._run_id = run.id
        self._spans, self.cut = _chosen(direct, run.id, outlines)
        self.steps = len(self._spans)

    def capabilities(self) -> Capabilities:
        """Return the capabilities of the storage, without the questions about the spans of one run."""
        can = self.direct.capabilities()
        return can._replace(answers=can.answers - {Outlines, ChangedSpans, SpanSums})

    def ask(self, question: Question[T]) -> T:
        """Answer questions about the spans of the run; pass all others on."""
        if isinstance(question, SpansOf) and question.instance_id == self._run_id:
            return cast(T, iter(self._spans))
        if isinstance(question, Outlines) and question.instance_id == self._run_id:
            return cast(T, row_by_row.answer(self, question))
        if isinstance(question, Query) and question.type == "agent_span" and self._is_of_run(question):
            return cast(T, page_of(self._spans, question))
        return self.direct.ask(question)

    def _is_of_run(self, query: Query) -> bool:
        return query.where.get("agent_instance_id") == self._run_id


def _chosen(storage: Storage, run_id: str, outlines: Sequence[AgentSpanRow]) -> _Chosen:
    ordered = sorted(outlines, key=lambda span: span.id)
    by_id = {span.id: span for span in ordered}
    failed = [span.id for span in ordered if has_failed(span)][-MOST_FAILED:]
    wanted: dict[str, None] = {}
    if len(ordered) > MOST_STEPS:
        for id in failed:
            while id in by_id and id not in wanted:
                wanted[id] = None
                id = by_id[id].parent_span_id or ""
    else:
        wanted.update(dict.fromkeys(failed))
    for span in ordered:
        if len(wanted) < MOST_STEPS:
            wanted[span.id] = None
    left, cut, spans = MOST_BYTES, 0, []
    for size, row in sorted(_sized(storage, run_id, wanted), key=lambda each: (not has_failed(each[1]), each[0])):
        if size <= min(left, MAX_PAYLOAD):
            left -= size
        else:
            row, cut = _without_payload(row, size), cut + 1
        spans.append(row)
    return _Chosen(sorted(spans, key=lambda span: span.id), cut)


def _sized(storage: Storage, run_id: str, ids: Iterable[str]) -> Iterator[tuple[int, AgentSpanRow]]:
    """Yield spans with the sizes of their payloads. Large payloads are dropped at once: a span may have 10 MB."""
    for id in ids:
        row = storage.ask(Find(id, instance_id=run_id)).rows[id][1]
        if isinstance(row, AgentSpanRow):
            size = len(row.payload) + len(row.result_payload or "")
            yield size, row if size <= MAX_PAYLOAD else _without_payload(row, size)


def _without_payload(span: AgentSpanRow, size: int) -> AgentSpanRow:
    note = f'{{"left_out":"{size_text(size)}: agentspan show {span.id}"}}'
    result = span.result_payload if has_failed(span) and len(span.result_payload or "") < MAX_CELL else None
    return span._replace(summary=title_of(span, MAX_CELL), payload=note, result_payload=result)
