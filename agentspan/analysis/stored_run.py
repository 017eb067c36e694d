"""One recorded run as a value for programs and notebooks: its facts, its steps, its tree as text, why it failed."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from agentspan.analysis.causes import verdicts_on
from agentspan.analysis.outcomes import rule_of
from agentspan.analysis.report import DEEPEST
from agentspan.analysis.tree import (
    MARKS,
    Node,
    build,
    fold,
    node_error,
    run_error,
    run_name,
    session_title,
    span_error,
    sums,
    title_of,
    walk,
    with_calls,
)
from agentspan.analysis.why import RunWhy, why_run
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.schemas.templates import MAX_INLINE, inline
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Outlines
from agentspan.storage.row_by_row import has_failed, labels_of, names_of
from agentspan.text import amounts, dotted, duration_text, noun, one_line

TITLE = 200
"""The largest number of characters of the title of a step."""
WIDTH = 100
MAX_FACT = 300
"""The largest number of characters of an error or a task in the first lines about a run."""


@dataclass(frozen=True, slots=True)
class RunStep:
    """One step of a run, without its payloads.

    Attributes:
        number: the place of the step in the tree, from 1 on, parents first.
        depth: the number of steps around the step.
        span_id, parent_span_id: the ids of the span and of its parent.
        schema_name, label, status: the type, the label (model, tool …) and the status of the span.
        title: its summary; without one, its type, its label and the beginning of its payload.
        started_at: when it started, as stored text; None if it did not.
        duration_ms, input_tokens, output_tokens, cost_usd: None if unknown.
        error: the error of a failed step as text; None without one.
    """

    number: int
    depth: int
    span_id: str
    parent_span_id: str | None
    schema_name: str
    label: str | None
    status: str
    title: str
    started_at: str | None
    duration_ms: float | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    error: str | None


class StoredRun:
    """A recorded run, as it was when it was read. For later changes, read it again.

    Attributes:
        id, agent, version, status: `version` is `default` for a run without one.
        title: the title of a coding agent's session; None for other runs.
        task, session, user, tags: what the run was labelled with.
        started_at, finished_at: as stored text; None if it did not start, or has not ended.
        duration_ms, tokens, cost_usd: None if unknown. Tokens and cost are sums over the steps.
        spans, failed: the number of steps, and of failed steps.
        error: the run's own error as text; None without one.
        termination_reason: why it was terminated; None if it was not.
        scores: the valid scores of the run, as rows.
        verdict: whether it passed, by its status and by a rule over a score that it missed.
        storage, row: where the run is stored, and its row.
    """

    def __init__(self, storage: Storage, row: AgentInstanceRow) -> None:
        self.storage, self.row = storage, row
        self._spans = with_calls(row, storage.ask(Outlines(row.id)))
        self.id = row.id
        self.agent, self.version = names_of(storage, [row])[row.id]
        self.status = row.status
        self.title = session_title(row)
        self.task, self.session, self.user = row.task, row.session, row.user
        labels = labels_of(storage, [row.id])[row.id]
        self.tags, self.scores = labels.tags, labels.scores
        self.started_at, self.finished_at, self.duration_ms = row.started_at, row.finished_at, row.duration_ms
        self.spans, self.failed, self.tokens, self.cost_usd = sums(self._spans)
        self.error, self.termination_reason = run_error(row), row.termination_reason
        self.verdict = verdicts_on(storage, [row])[row.id]

    @property
    def head(self) -> str:
        """Name, status, duration and sums in one line, without the id."""
        return dotted(
            f"{self.verdict.mark} {one_line(run_name(self.agent, self.version), TITLE)}",
            self.verdict.text,
            *amounts(None, None, self.duration_ms),
            noun(self.spans, "step"),
            noun(self.failed, "failed step") if self.failed else "",
            *amounts(self.tokens, self.cost_usd),
        )

    @property
    def facts(self) -> list[str]:
        """Title or task, the reason of a termination and the error of the run, as far as known, a line each."""
        about = self.title or (f"task {self.task}" if self.task else "")
        end = f"terminated: {self.termination_reason}" if self.termination_reason else ""
        return [one_line(text, MAX_FACT) for text in (about, end, self.error) if text]

    @cached_property
    def steps(self) -> list[RunStep]:
        """All steps of the run, parents first, siblings in the order in which they started."""
        nodes = enumerate(walk(build(self._spans)), start=1)
        return [_step(number, node.span, len(lasts) - 1) for number, (node, lasts) in nodes]

    def tree(self, *, full: bool = False, width: int = WIDTH) -> str:
        """Return the run as text: a line for each step, indented below the step around it, and errors.

        Args:
            full: show each of several equal steps that follow each other; else they are one line.
            width: the largest number of characters of a line.
        """
        roots = build(self._spans)
        lines = [
            f"run {self.id}",
            one_line(self.head, width),
            *(f"    {one_line(text, width - 4)}" for text in self.facts),
        ]
        for node, lasts in walk(roots if full else fold(roots)):
            lines += _lines(node, lasts, width)
        return "\n".join(lines)

    def why(self, *, outcome: str | None = None) -> RunWhy:
        """Return why the run failed.

        Args:
            outcome: the rule that decides whether a run passed, such as `reward>=1`, or `status`; when left out, a
                rule over a score that this run missed, else its status.

        Raises:
            InvalidValue: `outcome` is not a rule.
        """
        return why_run(self.storage, self.row, rule_of(outcome))

    def __repr__(self) -> str:
        return "\n".join([f"run {self.id}", self.head, *(f"    {text}" for text in self.facts)])


def _step(number: int, span: AgentSpanRow, depth: int) -> RunStep:
    return RunStep(
        number, depth, span.id, span.parent_span_id, span.schema_name, span.label, span.status, title_of(span, TITLE),
        span.started_at, span.duration_ms, span.input_tokens, span.output_tokens, span.cost_usd, span_error(span),
    )  # fmt: skip


def _lines(node: Node, lasts: tuple[bool, ...], width: int) -> Iterator[str]:
    """Yield the line of a step, and one with its error, unless a step inside it has the same."""
    span, depth = node.span, len(lasts) - 1
    above = "".join("  " if last else "│ " for last in lasts[max(0, depth - DEEPEST) : -1])
    title, error = title_of(span, TITLE), node_error(node)
    if error is not None:
        title = title.removesuffix(f" → {inline(error, MAX_INLINE)}")  # a summary repeats it
    if node.alike:
        ended = " failed" if has_failed(span) else ""
        title = " ".join(filter(None, (span.schema_title, span.label, f"× {len(node.alike) + 1:,}{ended}")))
    took = "" if span.duration_ms is None or node.alike else f"  {duration_text(span.duration_ms)}"
    took = took if span.status in ("complete", "failed") else f"  {span.status}"
    room = max(20, width - len(above) - 4 - len(took))
    yield f"{above}{'└─' if lasts[-1] else '├─'}{MARKS[span.status]} {one_line(title, room)}{took}"
    if error is not None and error not in (span_error(child.span) for child in node.children):
        below = above + ("  " if lasts[-1] else "│ ") + ("│ " if node.children else "  ")
        yield f"{below} {one_line(error, max(20, width - len(below) - 1))}"
