"""`agentspan diff`: prints where two runs part, or whether two groups of runs differ by more than chance.

With `--context`, it prints the difference of the contexts of two model calls.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import click

from agentspan.analysis import by_name, diff_text, differences, drift_text
from agentspan.analysis.by_name import AT, resolved, unmatched
from agentspan.analysis.cases import cases_of_groups
from agentspan.analysis.causes import Verdict, verdicts_on
from agentspan.analysis.diff import DiffRun, DiffStep, RunDiff, StepChange, diff
from agentspan.analysis.diff_text import markdown as as_markdown
from agentspan.analysis.differences import FieldChange, Words
from agentspan.analysis.drift import Drift, drift, least_of
from agentspan.analysis.filter_words import parse
from agentspan.analysis.fingerprints import PartChange, changed_part, plain_change, sentences
from agentspan.analysis.outcomes import rule_of
from agentspan.analysis.runs import find_runs
from agentspan.analysis.side_by_side import Side, sides, with_divergences
from agentspan.analysis.tree import judgement_text, run_name
from agentspan.answers import groups
from agentspan.answers import markdown as report
from agentspan.answers.blocks import Sentence
from agentspan.cli.app import command, opened, options
from agentspan.cli.completion import RUN
from agentspan.cli.context import diff_contexts
from agentspan.cli.filter_options import outcome_rule
from agentspan.cli.output import (
    MARKS,
    Unanswered,
    argument,
    columns_of,
    document,
    echo_lines,
    fit,
    fit_end,
    indexing,
    minute,
    page,
    style,
    table,
    utc_option,
    verdict_style,
    width,
    wrap,
    zone,
)
from agentspan.cli.rendering import show
from agentspan.database import Database
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import RunFilter
from agentspan.text import cost_text, count_text, dotted, duration_text, noun, printable

MAX_CHANGES = 20
"""The number of changes after the divergence that are shown without `--full`."""
MAX_FIELDS = 8
"""The number of differing members of the divergence that are shown without `--full`."""
FIELD_LINES = 6
"""The largest number of lines of a differing member without `--full`."""
WIDE = 110
"""The terminal width from which the comparison of groups shows intervals and percentiles."""
MOST_CASES = 40
"""The number of cases that are listed without `--full`; only those that differ."""
WHOLE = "--full shows each"
PROPERTIES = ("is_significant", "is_worse", "is_small", "is_turned")
"""The properties of a DriftRow that the document of `--json` has besides its fields."""
COLORS = {
    "removed": "red", "added": "green", "figures": "bright_black", "words": "bright_black", "same": "bright_black",
    "moved": "yellow",
}  # fmt: skip
_WORD = re.compile(r"\s+|\S+")
PLAIN = {"removed": ("[-", "-]"), "added": ("{+", "+}"), "same": ("", "")}


@command("diff")
@click.argument("a", metavar="[A", required=False, type=RUN)
@click.argument("b", metavar="B]", required=False, type=RUN)
@click.argument("more", metavar="[C …]", nargs=-1, type=RUN)
@click.option(
    "--full", is_flag=True, help="Show every difference: each step, also if only words differ; for groups, each row."
)
@click.option("--against", metavar="FILTER", help="Count how other runs go on: all, or 'status=complete since=7d'.")
@click.option("--base", metavar="FILTER", help="Compare with these runs: AGENT@1.0, or 'tag=nightly until=7d'.")
@click.option("--head", metavar="FILTER", help="Judge these runs.")
@click.option("--outcome", metavar="RULE", help="For groups, say what passed means: 'reward>=1', or status.")
@click.option(
    "--least",
    metavar="MEASURE=N",
    multiple=True,
    help="For groups, ignore what is smaller: cost_usd=0.0001.",
)
@click.option(
    "--by", metavar="PART", help="Compare runs by a part of the fingerprint: its newest value, and the one before."
)
@click.option("--cases", is_flag=True, help="For groups, list the cases that became worse or better.")
@click.option("--context", "of_context", is_flag=True, help="With ids of model calls: compare what they read.")
@click.option("--markdown", is_flag=True, help="Write Markdown.")
@utc_option
@options
@click.pass_context
def diff_command(
    ctx: click.Context,
    /,
    a: str | None,
    b: str | None,
    more: tuple[str, ...],
    base: str | None,
    head: str | None,
    outcome: str | None,
    least: tuple[str, ...],
    against: str | None,
    of_context: bool,
    by: str | None,
    cases: bool,
    db: str | None,
    **how: Any,
) -> None:
    """Show where two runs part, or whether two groups of runs differ by more than chance.

    A and B are runs: an id, the unique beginning of one, or - for the latest. Or they are groups: AGENT@1.0 AGENT@2.0;
    other groups are --base FILTER and --head FILTER. With --context they are model calls, as `show` numbers them, such
    as -#12; A alone is compared with the call before it.
    """
    is_grouped = by or base or head or (a and b and all(AT in each or "=" in each for each in (a, b)))
    if cases and (not is_grouped or more or of_context or how["markdown"] or against):
        raise click.UsageError("--cases is about two groups: AGENT@1.0 AGENT@2.0, or --base and --head")
    if more:
        if not (base is head is outcome is against is by is None) or least or of_context or how["markdown"]:
            raise click.UsageError("of three runs and more, only --full and --json go with the ids")
        with opened(ctx, db) as database:
            _several(database.storage, (a or "", b or "", *more), as_json=how["as_json"])
        return
    if of_context:
        if base or head or outcome or least or against or by or how["markdown"]:
            raise click.UsageError("--context compares two model calls: only --full and --json go with it")
        with opened(ctx, db) as database:
            diff_contexts(database.storage, a, b, as_json=how["as_json"], full=how["full"])
        return
    if by is not None:
        if b or base or head or against:
            raise click.UsageError("--by finds the groups itself: one FILTER at most says among which runs")
        with opened(ctx, db) as database:
            _groups_by(database, by, a, outcome=outcome, least=least, cases=cases, **how)
        return
    if a and b and base is head is None and against is None and all(AT in each or "=" in each for each in (a, b)):
        a, b, base, head = None, None, a, b
    if base is not None and head is not None and a is b is None and against is None:
        with opened(ctx, db) as database:
            _groups(database, base, head, outcome=outcome, least=least, cases=cases, **how)
    elif not (a and b and base is head is None):
        raise click.UsageError("two runs are needed, A and B; or two groups: AGENT@1.0 AGENT@2.0, or --base and --head")
    elif outcome is not None or least:
        raise click.UsageError("--outcome and --least are about groups: AGENT@1.0 AGENT@2.0, or --base and --head")
    else:
        with opened(ctx, db) as database:
            _two_runs(database, a, b, against=against, **how)


def _two_runs(
    database: Database, a: str, b: str, *, as_json: bool, markdown: bool, full: bool, against: str | None
) -> None:
    """Print the difference of two runs."""
    storage = database.storage
    ids = (by_name.find_run(storage, run).id for run in (a, b))
    found = diff(storage, *ids, baseline=against, zone=zone())
    if as_json:
        document(asdict(found))
    elif markdown:
        echo_lines(as_markdown(found))
    else:
        rows = [by_name.find_run(storage, id) for id in (found.a.run_id, found.b.run_id)]
        page(_lines(found, verdicts_on(storage, rows, outcome_rule(None)), full=full))


def _several(storage: Storage, runs: Sequence[str], *, as_json: bool) -> None:
    """Print several runs side by side, and where each parts from the first."""
    found = with_divergences(storage, sides(storage, [by_name.find_run(storage, run).id for run in runs]))
    if as_json:
        document({"runs": [_plain_side(side) for side in found]})
        return
    ids = by_name.short_ids(storage, [side.run.run.id for side in found])
    rows = [
        ["agent", *(run_name(side.run.agent, side.run.version) for side in found)],
        ["verdict", *(str(side.verdict) for side in found)],
        ["why", *(side.cause.text if side.cause else "" for side in found)],
        ["took", *("" if side.run.duration_ms is None else duration_text(side.run.duration_ms) for side in found)],
        ["steps", *(f"{side.run.spans:,}" for side in found)],
        ["failed", *(f"{side.run.failed:,}" for side in found)],
        ["tokens", *("" if side.tokens is None else count_text(side.tokens) for side in found)],
        ["cost", *("" if side.run.cost_usd is None else cost_text(side.run.cost_usd) for side in found)],
        ["scores", *("; ".join(map(judgement_text, side.scores)) for side in found)],
        ["parts", *("" if side.is_same is None else _parts(side) for side in found)],
    ]
    room = max(10, (width() - 9 - 2 * len(found)) // len(found))
    cells = [[name, *(fit(text, room) for text in texts)] for name, *texts in rows if any(texts)]
    table(["", *(ids[side.run.run.id] for side in found)], cells)


def _parts(side: Side) -> str:
    found = side.divergence
    if found is None:
        return "the same steps"
    step = found.b or found.a
    return f"{'' if step is None else f'at step {step.number:,}: '}{diff_text.parting(found, 'the first', 'this one')}"


def _plain_side(side: Side) -> dict[str, Any]:
    """Return a run as the document of `--json` has it."""
    run = side.run
    return {
        "run_id": run.run.id,
        "agent": run.agent,
        "version": run.version,
        "verdict": side.verdict._asdict(),
        "cause": None if side.cause is None else side.cause.text,
        "task": run.run.task,
        "duration_ms": run.duration_ms,
        "spans": run.spans,
        "failed": run.failed,
        "tokens": side.tokens,
        "cost_usd": run.cost_usd,
        "scores": [{"name": each.name, "value": each.value, "label": each.label} for each in side.scores],
        "is_same": side.is_same,
        "divergence": None if side.divergence is None else asdict(side.divergence),
    }


def _lines(found: RunDiff, verdicts: Mapping[str, Verdict], *, full: bool) -> Iterator[str]:
    columns = width()
    for side, run in (("A", found.a), ("B", found.b)):
        yield from _run(side, run, verdicts[run.run_id], columns)
    yield fit(f"B − A: {diff_text.deltas(found.a, found.b)}", columns)
    if not found.is_shortest:
        yield style(fit(diff_text.NOT_SHORTEST, columns), fg="yellow")
    yield from _fields(found.fields, columns, full=full)
    yield ""
    first = found.first_divergence
    if first is None:
        yield f"the same steps in both: {sum(step.count for step in found.steps):,}"
        return
    yield style(f"  {diff_text.before(first)}", fg="bright_black")
    if (hint := diff_text.read_first(first)) is not None:
        yield f"  {hint}"
    yield style(f"{diff_text.CHANGED} here they part: {diff_text.parting(first)}", bold=True)
    yield from _steps(first.a, first.b, columns)
    if found.against is not None:
        for line in wrap(diff_text.against(found.against, first.same), columns - 2, 5):
            yield f"  {line}"
        task = diff_text.same_task(found)
        if task is not None:
            yield "  " + fit(f"of this task alone: --against {argument(task)}", columns - 2)
    yield from _fields(first.fields, columns, full=full)
    yield from _rest(found, columns, full=full)


def _run(side: str, run: DiffRun, verdict: Verdict, columns: int) -> Iterator[str]:
    name = fit(run_name(run.agent, run.version), max(8, columns - 2 - len(run.run_id) - 2))
    yield style(f"{side} {run.run_id}  {name}", bold=True)
    text = fit(f"{verdict.mark} {diff_text.facts(run, verdict.text)}", columns - 2)
    yield "  " + verdict_style(text[0], verdict, run.status) + text[1:]


def _steps(a: DiffStep | None, b: DiffStep | None, columns: int) -> Iterator[str]:
    """Yield the steps at which two runs part, cut so that the place where their titles differ is shown."""
    titles = (
        diff_text.apart(a.title, b.title, columns - 12) if a and b else (a.title if a else "", b.title if b else "")
    )
    for side, step, title in zip("AB", (a, b), titles, strict=True):
        color = COLORS["removed" if side == "A" else "added"]
        if step is None:
            yield style(f"{side} no more steps", fg=color)
            continue
        more = diff_text.attempts_text(step)
        head = f"{side} {step.number:,} {MARKS[step.status]} "
        yield style(head, fg=color) + fit(title, max(8, columns - columns_of(head) - len(more))) + more


def _fields(fields: tuple[FieldChange, ...], columns: int, *, full: bool) -> Iterator[str]:
    shown = fields if full else fields[:MAX_FIELDS]
    for field in shown:
        path = fit(field.path, columns - 4)
        values = [(op, text) for op, text in (("removed", field.a), ("added", field.b)) if text is not None]
        room = columns - 6 - columns_of(path)
        if sum(columns_of(text) + 5 for _, text in values) <= room and not any("\n" in text for _, text in values):
            yield f"    {style(path, bold=True)}  " + " ".join(_styled(fit(text, room), op) for op, text in values)
            continue
        yield "    " + style(path, bold=True)
        if any(part.op == "same" and part.text.strip() for part in field.words):
            yield from _wrapped([*diff_text.shortened(field.words)], columns - 6, full=full)
        else:
            yield from (f"      {_styled(fit(text, columns - 10), op)}" for op, text in values)
    if len(shown) < len(fields):
        more = noun(len(fields) - len(shown), "more member", "more members")
        yield style(f"    {more}; --full shows each", fg="bright_black")
    elif len(fields) == differences.MAX_FIELDS:
        yield style(f"    {len(fields)} members are compared at most; there may be more", fg="bright_black")


def _wrapped(words: list[Words], columns: int, *, full: bool) -> Iterator[str]:
    """Wrap the parts of a text difference to lines of at most `columns` columns, broken at blanks."""
    lines: list[list[tuple[str, str]]] = [[]]
    used = 0
    for part in words:
        for word in _WORD.findall(printable(part.text, keep="\n\t\r")):
            word = " " if word.isspace() else fit_end(word, columns - 4)
            marks = 0 if part.op == "same" or (lines[-1] and lines[-1][-1][1] == part.op) else 4
            if used + columns_of(word) + marks > columns and lines[-1]:
                lines.append([])
                used, marks = 0, 0 if part.op == "same" else 4
            if word != " " or lines[-1]:
                lines[-1].append((word, part.op))
                used += columns_of(word) + marks
    limit = len(lines) if full else FIELD_LINES
    for line in lines[:limit]:
        yield f"      {''.join(_runs(line))}".rstrip()
    if len(lines) > limit:
        more = noun(len(lines) - limit, "more line", "more lines")
        yield style(f"      … {more}; --full shows all", fg="bright_black")


def _runs(line: list[tuple[str, str]]) -> Iterator[str]:
    """Yield the words of a line with their marks, consecutive words of one kind joined."""
    start = 0
    while line and line[-1][0] == " ":
        line = line[:-1]
    for end in range(1, len(line) + 1):
        if end == len(line) or line[end][1] != line[start][1]:
            yield _styled("".join(word for word, _ in line[start:end]), line[start][1])
            start = end


def _styled(text: str, op: str) -> str:
    """Mark a text as removed or added: by colour, or by brackets without colours."""
    colored = style(text, fg=COLORS[op]) if op != "same" else text
    opening, closing = PLAIN[op]
    return colored if colored != text else f"{opening}{text}{closing}"


def _rest(found: RunDiff, columns: int, *, full: bool) -> Iterator[str]:
    changes = [change for change in diff_text.rest(found) if full or change.kind not in diff_text.QUIET]
    differing = sum(change.kind != "same" for change in changes)
    if not differing:
        return
    yield ""
    shown = changes if full else changes[:MAX_CHANGES]
    for change in shown:
        yield _change(change, columns)
    left = differing - sum(change.kind != "same" for change in shown)
    if left:
        yield style(f"  {left:,} more changes; --full shows each", fg="bright_black")


def _change(change: StepChange, columns: int) -> str:
    mark = diff_text.MARKS.get(change.kind, diff_text.CHANGED)
    indent = " " * min(2 * change.depth, columns // 3)
    text = fit(f"{diff_text.change_text(change)}", max(8, columns - 2 - len(indent)))
    return style(f"{mark} {indent}{text}", fg=COLORS.get(change.kind, "red"))


def _groups(database: Database, base: str, head: str, **how: Any) -> None:
    """Compare two groups of runs, and print the verdict."""
    storage = database.storage
    filters = [resolved(storage, parse(text, name, zone=zone())) for name, text in (("base", base), ("head", head))]
    _verdict(storage, filters, (base, head), None, **how)


def _groups_by(database: Database, part: str, text: str | None, **how: Any) -> None:
    """Compare the runs with the newest value of a part of the fingerprint with those of the value before."""
    storage = database.storage
    filter = RunFilter() if text is None else resolved(storage, parse(text, zone=zone()))
    found = changed_part([run.run for run in find_runs(storage, filter, limit=None).runs], part)
    filters = [RunFilter(ids=found.base), RunFilter(ids=found.head)]
    _verdict(storage, filters, found.names(), found, **how)


def _verdict(
    storage: Storage,
    filters: Sequence[RunFilter],
    names: tuple[str, str],
    change: PartChange | None,
    *,
    outcome: str | None,
    least: Sequence[str] = (),
    cases: bool = False,
    full: bool,
    markdown: bool,
    as_json: bool,
) -> None:
    base, head = names
    with_calls = as_json or (not markdown and width() >= WIDE)
    judge = outcome_rule(outcome)
    with indexing() as progress:
        found = drift(
            storage,
            filters[0],
            filters[1],
            judge=judge,
            least=least_of(_numbers(least)),
            with_calls=with_calls,
            progress=progress,
        )
    if found.verdict == "not_compared":
        lacking = next((each for each, number in zip(filters, found.matched, strict=True) if not number), None)
        known = "" if lacking is None else unmatched(storage, lacking)
        raise Unanswered(drift_text.sentence(found, base, head) + known)
    about = [] if change is None else sentences(change, minute)
    by_case = cases_of_groups(storage, names, filters, rule_of(found.rule) or judge) if cases else None
    if as_json:
        more = {} if by_case is None else {"cases": asdict(by_case)}
        document(plain_groups(found, base, head) | ({} if change is None else {"change": plain_change(change)}) | more)
        return
    missed = [] if found.missed is None else [str(found.missed)]
    judged = f"judged by {found.rule}"
    changes = [Sentence(line) for line in about]
    if markdown:
        rule = [] if found.rule is None else [judged]
        echo_lines(
            report.markdown([*groups.comparison(found, base, head, whole=full, about=[*missed, *rule]), *changes])
        )
    elif by_case is not None:
        verdict = Sentence(drift_text.sentence(found, base, head))
        show([[*changes, verdict, *groups.cases(by_case, MOST_CASES, whole=full)]], storage, whole=WHOLE)
    else:
        chosen = "no run failed by its status; --outcome chooses another rule"
        rule = [dotted(judged, chosen)] if judge is None and found.rule is not None else []
        compared = groups.comparison(found, base, head, whole=full, about=[*missed, *rule])
        show([[*changes, *compared]], storage, whole=WHOLE)


def _numbers(words: Sequence[str]) -> dict[str, float]:
    found = {}
    for text in words:
        name, _, number = text.partition("=")
        try:
            found[name] = float(number)
        except ValueError:
            raise click.UsageError(f"--least must be such as duration_ms=50, not {text!r}") from None
    return found


def plain_groups(found: Drift, base: str, head: str) -> dict[str, Any]:
    """Return the document of `--json` for the comparison of two groups."""
    rows = [
        asdict(row) | {"metric": row.metric._asdict(), **{name: getattr(row, name) for name in PROPERTIES}}
        for row in found.rows
    ]
    text = drift_text.sentence(found, base, head)
    missed = found.missed and found.missed.plain()
    over_all = [*drift_text.over_all(found)]
    own = {"base": base, "head": head, "text": text, "over_all": over_all, "rows": rows, "total": len(rows)}
    return asdict(found) | {"missed": missed} | own
