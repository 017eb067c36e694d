"""`agentspan show`: draws a run as a tree, whole or in part, with bars of times; or prints one span in full."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import click

from agentspan import clock, jsontext
from agentspan.analysis import by_name, tree
from agentspan.analysis.budgets import budget_of, without_events
from agentspan.analysis.by_name import STEP
from agentspan.analysis.cases import CaseOfTrial, CaseRun, case_of
from agentspan.analysis.causes import Verdict, verdicts_on
from agentspan.analysis.outcomes import Judge
from agentspan.analysis.tree import (
    Node,
    Slow,
    build,
    closed_text,
    every,
    late_text,
    node_error,
    numbers,
    run_error,
    run_name,
    score_text,
    session_title,
    span_error,
    sums,
    title_of,
    took_and_active,
    walk,
)
from agentspan.blobs import described
from agentspan.cli.app import command, reads
from agentspan.cli.completion import RUN
from agentspan.cli.context import show_context
from agentspan.cli.filter_options import outcome_rule
from agentspan.cli.output import (
    COLORS,
    MARKS,
    columns_of,
    document,
    echo,
    echo_lines,
    fit,
    fit_end,
    hint,
    is_collected,
    local,
    pad,
    page,
    plain_rows,
    pushed,
    safe,
    status_style,
    style,
    to_copy,
    utc_option,
    verdict_style,
    width,
    wrap,
)
from agentspan.database import Database
from agentspan.journal.writers import Lives
from agentspan.model.changes import OPEN
from agentspan.model.columns import other_facts
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.recording.budgets import NAME as BUDGET
from agentspan.schemas.builtin import built_in_part
from agentspan.schemas.span_types import error_in
from agentspan.schemas.templates import MAX_INLINE, inline
from agentspan.sessions.continuing import command_of
from agentspan.storage.access import instance
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Account, NewestScores, Outlines, SpansOf, Violations
from agentspan.storage.row_by_row import has_failed, labels_of, names_of
from agentspan.text import amounts, cost_text, cut, dotted, duration_text, noun, one_line

FROM = 70
"""The least width of a terminal, in columns, for bars."""
FROM_OF_SESSION = 100
"""The same for the session of a coding agent: its summaries are long, and most of its time it waits for a person."""
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
        least = FROM if session_title(run) is None else FROM_OF_SESSION
        has_bars = width >= least and self.length > 0 and not is_collected()
        self.columns = min(MOST, (width - 50) // 3) if has_bars else 0

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
FACT_LINES = 3
"""The largest number of lines for commit, task, session, user and tags of a run."""
SCORE_LINES = 2
"""The largest number of lines of a score in a picture."""
BUDGET_LINES = 3
"""The largest number of lines for a budget and who allowed more."""
MOST_TRIALS = 10
"""The largest number of trials of a case, and of runs of its base, that are listed."""
CASE_LINES = 3
"""The largest number of lines for each of them."""
PAYLOAD_LINES = 12
"""The most lines that `agentspan show --payloads` prints of a payload, and of a result; the rest is counted."""
SHORT_COMMIT = 10
"""The number of characters of a commit in a picture: enough to be unique in a large git repository."""


@dataclass
class Picture:
    """Draws a run as lines that are at most `width` columns wide.

    Attributes:
        run, spans: the run, and its spans.
        width: the columns of the terminal.
        dead: the ids of the run's writers whose program has died.
        payloads: draw the payload and result of each span, too.
        selected: the id of the span that is drawn bold, with its id and payloads.
        numbers: the number of each span in its run by its id, drawn before the span; without it, none is drawn.
        judge: decides whether the run passed (see causes.verdicts_on).
    """

    run: AgentInstanceRow
    spans: Sequence[AgentSpanRow]
    width: int
    dead: Collection[str | None] = ()
    payloads: bool = False
    selected: str | None = None
    numbers: Mapping[str, int] = field(default_factory=dict)
    judge: Judge = None

    def __post_init__(self) -> None:
        self._number_columns = len(f"{STEP}{max(self.numbers.values())} ") if self.numbers else 0
        self.timeline = Timeline(self.run, self.spans, self.width)

    def lines(self, storage: Storage, roots: list[Node]) -> Iterator[str]:
        """Yield the lines of a run with a tree of its spans, which may be folded."""
        yield from self.head(storage)
        for node, lasts in walk(roots):
            yield from self.span(node, lasts)

    def head(self, storage: Storage) -> Iterator[str]:
        """Yield the lines above the tree: id, commit, task, tags, sums and the like of the run."""
        run, width = self.run, self.width
        tags, scores = labels_of(storage, [run.id])[run.id]
        facts = [*_facts(run, tags)]
        line = " · ".join((f"run {run.id}", *facts))
        if columns_of(safe(line)) <= width:
            yield style(fit(line, width), bold=True)
        else:
            yield style(fit(f"run {run.id}", width), bold=True)
            yield from (style(f"    {part}", bold=True) for part in wrap(" · ".join(facts), width - 4, FACT_LINES))
        name = run_name(*names_of(storage, [run])[run.id])
        yield from self._sums(name, verdicts_on(storage, [run], self.judge)[run.id])
        if (about := session_title(run)) is not None:
            yield "    " + fit(about, width - 4)
        if (case := case_of(storage, run)) is not None:
            yield from (f"    {line}" for line in _case_lines(storage, case, run.id, width - 4))
        if run.termination_reason is not None:
            yield "    " + status_style(fit(f"terminated: {run.termination_reason}", width - 4), "terminated")
        late = late_text(run)
        if late is not None:
            yield "    " + style(fit(late, width - 4), fg="bright_black")
        if run.error is not None:
            for line in wrap(run_error(run) or "failed", width - 4, ERROR_LINES):
                yield "    " + status_style(line, "failed")
        if f'"{BUDGET}"' in (run.metadata or ""):
            if (budget := budget_of(storage, run)) is not None:
                yield from (f"    {line}" for line in wrap(budget.text(), width - 4, BUDGET_LINES))
            scores = without_events(run, scores)
        for score in scores:
            yield from (f"    {line}" for line in wrap(score_text(score), width - 4, SCORE_LINES))
        if tree.is_session(run) and (command := command_of(run)) is not None:
            yield from (f"    {line}" for line in hint("continue it", safe(command), width - 4))
        if self.payloads:
            for key in ("metadata", "result"):
                yield from self._payload("    ", key, getattr(run, key), "")

    def _sums(self, name: str, verdict: Verdict) -> Iterator[str]:
        """Yield the line with name, status, duration and the sums over the spans of the run."""
        run, total = self.run, sums(self.spans)
        is_left = run.status in OPEN and run.writer_id in self.dead
        text = dotted(
            name,
            f"{verdict.text}, its program died" if is_left else verdict.text,
            "" if run.duration_ms is None else took_and_active(run.duration_ms, self.spans),
            noun(total.spans, "span"),
            noun(total.failed, "failed step") if total.failed else "",
            *amounts(total.tokens, total.cost_usd),
        )
        first, *rest = wrap(f"{verdict.mark} {text}", self.width, 2)
        yield verdict_style(first[0], verdict, run.status) + first[1:]
        yield from (f"    {fit(line, self.width - 4)}" for line in rest)

    def slow(self, found: Iterable[Slow]) -> Iterator[str]:
        """Yield the lines of spans outside of their tree, each with its own time and the spans around it."""
        for each in found:
            span, around = each.span, " › ".join(f"{STEP}{self.numbers[one.id]} {_name(one)}" for one in each.within)
            yield from self.span(Node(span), (), own_ms=each.own_ms)
            whole = (
                "" if span.duration_ms in (None, each.own_ms) else f"{_duration(Node(span))} with the steps inside it"
            )
            if facts := dotted(f"in {around}" if around else "", whole):
                indent = " " * (self._number_columns + 2)
                yield indent + style(fit(facts, self.width - len(indent)), fg="bright_black")

    def span(self, node: Node, lasts: tuple[bool, ...], own_ms: float | None = None) -> Iterator[str]:
        """Yield the lines of a span, or of a group of similar spans.

        Args:
            lasts: the flags that tree.walk yields with the span; if empty, no branch is drawn.
            own_ms: the duration to show, if not that of the spans.
        """
        span = node.span
        is_selected = span.id == self.selected
        is_bold = is_selected or (span.schema_name == "message" and title(span).startswith("user: "))
        is_left = span.writer_id in self.dead and span.status in OPEN
        bar_columns = self.timeline.columns + 3 if self.timeline.columns else 0
        width = self.width - self._number_columns
        deepest = max(8, width - bar_columns - 45)  # limit the indentation, so that deep trees keep room for text
        above = "".join("  " if last else "│ " for last in lasts[:-1])[-deepest:]
        branch = above + ("" if not lasts else "└─" if lasts[-1] else "├─")
        room = width - columns_of(branch) - 2 - DURATION_COLUMNS - 1 - bar_columns
        error = _one_line(node_error(node))
        text = _title(node, room) if node.alike else fit(_without_error(title(span), error), room)
        duration = "left open" if is_left else _duration(node) if own_ms is None else duration_text(own_ms)
        bar = self.timeline.bar(span, [other.span for other in node.alike]) if bar_columns else ""
        yield (
            style(self._number(span) + branch, fg="bright_black")
            + status_style(MARKS[span.status], span.status)
            + " "
            + style(pushed(text, room), fg=COLORS["cancelled"] if span.status == "cancelled" else None, bold=is_bold)
            + " "
            + (duration if is_collected() else pad(duration, DURATION_COLUMNS, right=True))
            + (f" ▕{style(bar, fg=COLORS.get(span.status))}▏" if bar_columns else "")
        )
        below = " " * self._number_columns
        if lasts:
            below += above + ("  " if lasts[-1] else "│ ") + ("│ " if node.children else "  ")
        below_errors = (_one_line(span_error(child.span)) for child in node.children)
        if error is not None and error not in below_errors:  # the error is drawn at the innermost span only
            room = self.width - columns_of(below) - 1
            for line in wrap(error, room, ERROR_LINES):
                yield style(below, fg="bright_black") + " " + status_style(line, "failed")
        late = late_text(span)
        if late is not None:
            yield style(fit_end(f"{below} {late}", self.width), fg="bright_black")
        if is_selected:
            yield style(fit_end(f"{below}   {span.id}", self.width), fg="bright_black")
        if is_selected or (self.payloads and not node.alike):
            yield from self._payload(below, "payload", span.payload, self._number(span).strip())
            yield from self._payload(below, "result", span.result_payload, self._number(span).strip())

    def _number(self, span: AgentSpanRow) -> str:
        """Return the text before the branch of a span: its number, aligned right, if numbers are drawn."""
        return f"{STEP}{self.numbers[span.id]} ".rjust(self._number_columns) if self.numbers else ""

    def _payload(self, below: str, name: str, text: str | None, number: str) -> Iterator[str]:
        if text is None:
            return
        value = jsontext.decode(described(text))
        if isinstance(value, dict) and isinstance(value.get("error"), dict):
            value = {**value, "error": {key: item for key, item in value["error"].items() if key != "stacktrace"}}
        room = self.width - columns_of(below) - 3
        lines = _json_lines(value, room - len(name) - 1)
        lines[0] = f"{name} {lines[0]}"
        if len(lines) > PAYLOAD_LINES:
            where = f"; show {number} has all" if number else ""
            lines[PAYLOAD_LINES - 1 :] = [f"… {len(lines) - PAYLOAD_LINES + 1} more lines{where}"]
        for place, line in enumerate(lines):
            yield style(f"{below} {'' if place == 0 else '  '}", fg="bright_black") + fit_end(line, room + 2)


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


def _facts(run: AgentInstanceRow, tags: Sequence[str]) -> Iterator[str]:
    """Yield commit, test, task, session, user and tags of a run, if recorded. The task of a trial is its case."""
    if run.git_commit:
        yield f"commit {run.git_commit[:SHORT_COMMIT]}{' with changes' if run.git_dirty else ''}"
    test = tree.test_of(run)
    task = run.task if run.task != test and tree.trial_of(run) is None else None
    for name, text in (("test", test), ("task", task), ("session", run.session), ("user", run.user)):
        if text:
            yield f"{name} {text}"
    if tags:
        yield f"{'tag' if len(tags) == 1 else 'tags'} {', '.join(tags)}"


def _case_lines(storage: Storage, case: CaseOfTrial, run_id: str, columns: int) -> Iterator[str]:
    """Yield the lines about the case of a trial: its id, the verdicts on its trials, and on the runs of the base."""
    yield from wrap(case.text, columns, CASE_LINES)
    shown = [*case.trials[:MOST_TRIALS], *case.base_runs[:MOST_TRIALS]]
    ids = by_name.short_ids(storage, [each.run_id for each in shown])

    def listed(runs: Sequence[CaseRun]) -> str:
        parts = [f"{each.number} {each.verdict.mark} {'this run' if each.run_id == run_id else ids[each.run_id]}"
                 for each in runs[:MOST_TRIALS]]  # fmt: skip
        return ", ".join([*parts, f"… {len(runs):,} in all"] if len(runs) > MOST_TRIALS else parts)

    yield from wrap(f"trials: {listed(case.trials)}", columns, CASE_LINES)
    if case.base is not None:
        yield from wrap(f"{case.base}: {listed(case.base_runs) or 'no run of this case'}", columns, CASE_LINES)


def _title(node: Node, columns: int) -> str:
    """Return the title of a folded group of spans; if it is too long, the name is cut, not the number of spans."""
    span, number = node.span, len(node.alike) + 1
    below = _below(node)
    each = f" · {noun(below, 'span')} in each" if below else ""
    name = f"{span.schema_title}{f' {span.label}' if span.label else ''}"
    ended = " failed" if span.status == "failed" else " returned an error" if has_failed(span) else ""
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


def _name(span: AgentSpanRow) -> str:
    """Return the type of a span, and its label: its title in a few words."""
    return " ".join(filter(None, (span.schema_title, span.label)))


def _duration(node: Node) -> str:
    span = node.span
    if span.status in ("cancelled", "pending"):
        return span.status
    if span.duration_ms is None:
        return "running"
    if not span.duration_ms and not node.alike and built_in_part(span.schema_name) in MOMENTS:
        return ""
    return duration_text(span.duration_ms + sum(other.span.duration_ms or 0 for other in node.alike))


def _one_line(text: str | None) -> str | None:
    return one_line(text, 1000) if text else None


MOMENTS = frozenset({"message", "event"})
"""The span types whose spans have no duration when a session's file has only one time of them."""
AROUND = 5
"""The number of steps before, and after, a span that `--around` shows."""
SCORE_CHARACTERS = 500


@command("show")
@click.argument("id", type=RUN)
@click.option("--full", is_flag=True, help="Show each of the siblings that repeat, instead of counting them.")
@click.option("--payloads", is_flag=True, help="Show what went into each span, and what came out.")
@click.option("--slow", metavar="N", type=click.IntRange(1), help="List the N steps that took longest by themselves.")
@click.option("--failed", is_flag=True, help="Show only the spans that failed.")
@click.option("--around", is_flag=True, help="With the id of a span: show its run at that step.")
@click.option("--context", is_flag=True, help="Show what a model call read, by source; of a run, its largest one.")
@click.option("--conversation", is_flag=True, help="Show what was said: prompts, answers, and a line for each call.")
@utc_option
@reads
def show_command(
    database: Database,
    id: str,
    *,
    as_json: bool,
    full: bool = False,
    payloads: bool = False,
    slow: int | None = None,
    failed: bool = False,
    around: bool = False,
    context: bool = False,
    conversation: bool = False,
) -> None:
    """Show a run as a tree, or one of its steps in full; with --session a conversation, with --follow what happens now.

    ID is a run: its id, the unique beginning of one, or - for the latest run. Or it is a step, by its number in the
    tree, such as -#12, or by its id. --session and --follow have options of their own: `show --follow --help` lists
    them.
    """
    storage = database.storage
    if conversation and (slow is not None or failed or around or payloads or context):
        raise click.UsageError("--conversation shows all that was said: no other choice of steps goes with it")
    found = by_name.find_run_or_span(storage, id)
    if context:
        show_context(storage, found, as_json=as_json, full=full)
        return
    at = found if isinstance(found, AgentSpanRow) else None
    if at is not None and (slow is not None or failed or conversation):
        raise click.UsageError("--slow, --failed and --conversation are about a whole run, not about a span")
    if around and at is None:
        raise click.UsageError("--around is about a span: it shows the steps of its run around it")
    if at is not None and not around:
        show_span(storage, at, as_json=as_json)
        return
    run = found if isinstance(found, AgentInstanceRow) else instance(storage, found.agent_instance_id)
    if conversation:
        _conversation(storage, run, as_json=as_json)
        return
    spans = [*storage.ask(SpansOf(run.id))] if as_json or payloads else storage.ask(Outlines(run.id))
    if at is not None:
        spans = [at if span.id == at.id else span for span in spans]
    spans = spans if as_json else tree.with_calls(run, spans)
    roots = build(spans)
    steps = numbers(roots)
    found_slow = (
        []
        if slow is None
        else tree.slowest(roots, slow, (lambda node: has_failed(node.span)) if failed else lambda _: True)
    )
    wanted = _around(steps, at) if at is not None and not full else None
    if failed and slow is None:
        wanted = {node.span.id for node in every(roots) if has_failed(node.span)}
    if as_json:
        by_id = {span.id: span for span in spans}
        shown_spans = [span for span in spans if wanted is None or span.id in wanted]
        shown_spans = shown_spans if slow is None else [by_id[each.span.id] for each in found_slow]
        _document(storage, run, shown_spans, steps, at)
        return
    shown = roots if wanted is None else tree.keep(roots, lambda node: node.span.id in wanted)
    if wanted is None and not full and session_title(run) is not None:  # hooks may be half of a session
        shown = tree.keep(roots, lambda node: not tree.is_notice(node))
    kept = len(numbers(shown))
    if not full and at is None:
        shown = tree.fold(shown)
    drawn = len(numbers(shown))
    if at is not None:
        end = f"step {STEP}{steps[at.id]} of {len(spans):,}\nthe whole run: {to_copy('show', run.id)}"
    elif slow is not None:
        each = "step" if not failed else "failed step"
        end = f"{noun(len(found_slow), each)} of {len(spans):,}, by the time in which no step inside it ran"
        if found_slow:
            first = f"{by_name.short_id(storage, run.id)}{STEP}{steps[found_slow[0].span.id]}"
            end = "\n".join([end, *hint("the slowest in full", to_copy("show", first), width())])
    elif wanted is not None and not kept and failed:
        end = f"no step failed; how it ended: {to_copy('why', run.id)}"
    elif wanted is not None:
        folded = f", in {noun(drawn, 'line')}; --full shows each" if drawn < kept else ""
        end = f"{kept:,} of {noun(len(spans), 'span')}{folded}"
        if kept:
            first = f"{by_name.short_id(storage, run.id)}{STEP}{min(steps[id] for id in wanted)}"
            end = "\n".join([end, *hint("a step in full", to_copy("show", first), width())])
    else:
        end = _left_out(drawn, kept, len(spans))
    lives = Lives(storage)
    writers = {run.writer_id, *(span.writer_id for span in spans if span.status in OPEN)}
    picture = Picture(
        run,
        spans,
        width(),
        dead={id for id in writers if lives.of(id) == "dead"},
        payloads=payloads,
        selected=None if at is None else at.id,
        numbers=steps,
        judge=outcome_rule(None),
    )
    if slow is not None:
        page(chain(picture.head(storage), picture.slow(found_slow), end.splitlines()))
    else:
        page(chain(picture.lines(storage, shown), end.splitlines()))


def _conversation(storage: Storage, run: AgentInstanceRow, *, as_json: bool) -> None:
    """Print what was said in a run, as the viewer's conversation shows it."""
    from agentspan.analysis.report import talk  # imported late, as other ways to show a run need neither
    from agentspan.viewer.conversation import stored

    said = stored(storage, run)
    if as_json:
        document(said._asdict())
        return
    spans = storage.ask(Outlines(run.id))
    head = Picture(run, spans, width()).head(storage)
    lines = talk(said.turns, said.sections, said.chapters, numbers(build(spans)), width())
    page(chain(head, map(safe, lines) if said.turns else ["This run has no llm, tool or message spans."]))


def _left_out(drawn: int, kept: int, total: int) -> str:
    """Return the line about what a tree leaves out: steps in folded lines, and hooks and events of a session."""
    notices = f", without {noun(total - kept, 'hook or event', 'hooks and events')}" if kept < total else ""
    return f"{noun(drawn, 'line')} for {noun(total, 'span')}{notices}; --full shows each" if drawn < total else ""


def _around(steps: Mapping[str, int], span: AgentSpanRow) -> set[str]:
    """Return the ids of a span and of the AROUND steps before and after it."""
    return {id for id, number in steps.items() if abs(number - steps[span.id]) <= AROUND}


def _document(
    storage: Storage,
    run: AgentInstanceRow,
    spans: list[AgentSpanRow],
    steps: Mapping[str, int],
    at: AgentSpanRow | None,
) -> None:
    """Print the document of a run, or of a part of it, whose spans have their numbers in the whole run."""
    from agentspan.api import envelopes  # imported late: Pydantic takes 80 ms

    details = envelopes.details_of(storage, run, storage.ask(Account()))
    scores = [row for row in storage.ask(NewestScores([run.id])) if row.target_type == "agent_span"]
    budget, case = budget_of(storage, run), case_of(storage, run)
    document(
        {
            "run": {
                **envelopes.plain(details),
                "agent": run_name(*names_of(storage, [run])[run.id]),
                "verdict": verdicts_on(storage, [run], outcome_rule(None))[run.id]._asdict(),
                "budget": None if budget is None else budget.plain(),
                "case": None if case is None else case.plain(),
            },
            "spans": [
                {**plain, "number": steps[span.id]}
                for span, plain in zip(spans, plain_rows(storage, spans), strict=True)
            ],
            "span_scores": plain_rows(storage, scores),
            "step": None if at is None else steps[at.id],
            "total": len(steps),
        }
    )


def show_span(storage: Storage, row: AgentSpanRow, *, as_json: bool) -> None:
    """Print one span in full; images and other blobs are shown by type and size only."""
    scores = [each for each in storage.ask(NewestScores([row.agent_instance_id])) if each.target_id == row.id]
    violations = storage.ask(Violations([row.id], instance_id=row.agent_instance_id))[row.id]
    outlines = storage.ask(Outlines(row.agent_instance_id))
    own, steps = _own_time(row, outlines), numbers(build(outlines))
    if as_json:
        (found,), judged = plain_rows(storage, [row]), plain_rows(storage, scores)
        found["number"] = steps[row.id]
        document(
            {
                "span": found,
                "own_ms": own,
                "violations": [violation._asdict() for violation in violations],
                "scores": judged,
            }
        )
        return
    echo(status_style(MARKS[row.status], row.status) + " " + style(fit(title(row), width() - 2), bold=True))
    closed = closed_text(row)
    facts: dict[str, Any] = {
        "id": row.id,
        "run": row.agent_instance_id,
        "step": f"{STEP}{steps[row.id]} of {len(steps):,}",
        "parent": row.parent_span_id and f"{row.parent_span_id}{_numbered(steps.get(row.parent_span_id))}",
        "type": row.schema_name,
        "status": row.status if closed is None else f"{row.status} (closed by being {closed})",
        "started": _time(row.started_at),
        "finished": _time(row.finished_at),
        "took": None if row.duration_ms is None else duration_text(row.duration_ms),
        "self": None if own is None else duration_text(own),
        "tokens": _tokens(row.input_tokens, row.output_tokens),
        "cost": None if row.cost_usd is None else cost_text(row.cost_usd),
    }
    facts |= other_facts(row)
    for name, value in facts.items():
        if value is not None:
            echo(f"  {name:<8} {safe(str(value))}")
    for each in scores:
        echo(f"  {'score':<9}{safe(one_line(score_text(each), SCORE_CHARACTERS))}")
    _show_json("payload", jsontext.decode(described(row.payload)))
    if row.result_payload is not None:
        result = jsontext.decode(described(row.result_payload))
        error = error_in(result)
        trace = error.get("stacktrace") if isinstance(error, dict) else None
        if isinstance(trace, str):
            shown = {key: value for key, value in error.items() if key != "stacktrace"}
            result = shown if error is result else {**result, "error": shown}
        _show_json("result_payload", result)
        if isinstance(trace, str):
            echo(style("stacktrace", bold=True))
            echo(safe("".join(f"  {line}" for line in trace.splitlines(keepends=True))))
    if violations:
        echo(style("does not match its schema", bold=True))
        for violation in violations:
            echo(safe(f"  {violation.side} {violation.path}: {violation.message}"))
    echo_lines(hint("its run at this step", to_copy("show", row.id, "--around"), width()))


def _numbered(number: int | None) -> str:
    return "" if number is None else f" ({STEP}{number})"


def _own_time(row: AgentSpanRow, outlines: Iterable[AgentSpanRow]) -> float | None:
    """Return the time in ms in which no child of a span ran; None for an open span."""
    if row.duration_ms is None:
        return None
    return tree.own_ms(row, tree.in_time(each for each in outlines if each.parent_span_id == row.id))


def _show_json(name: str, value: Any) -> None:
    echo(style(name, bold=True))
    text = json.dumps(value, indent=2, ensure_ascii=False)
    echo(safe("".join(f"  {line}" for line in text.splitlines(keepends=True))))


def _time(text: str | None) -> str | None:
    return None if text is None else f"{local(text):%Y-%m-%d %H:%M:%S.%f %Z}"


def _tokens(input_tokens: int | None, output_tokens: int | None) -> str | None:
    if input_tokens is None and output_tokens is None:
        return None
    return f"{'?' if input_tokens is None else input_tokens} in, {'?' if output_tokens is None else output_tokens} out"
