"""`agentspan why`: prints failed runs in groups, and features associated with failure; or why one run failed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from math import inf
from typing import Any

import click

from agentspan.analysis import by_name, diff_text, failure_text, why_text
from agentspan.analysis.associations import Finding
from agentspan.analysis.by_name import STEP
from agentspan.analysis.causes import left_open
from agentspan.analysis.tree import run_name
from agentspan.analysis.why import Group, RunWhy, Why, why, why_run
from agentspan.cli.app import command, reads
from agentspan.cli.completion import RUN
from agentspan.cli.filter_options import (
    asked_for,
    filter_in,
    filter_options,
    how_chosen,
    limit_option,
    no_run,
    options_of,
    outcome_option,
    outcome_rule,
)
from agentspan.cli.output import (
    MARKS,
    columns_of,
    document,
    echo_lines,
    fit,
    fit_end,
    hint,
    indexing,
    local,
    pad,
    page,
    pushed,
    style,
    to_copy,
    width,
    wrap,
    zone_name,
)
from agentspan.database import Database
from agentspan.storage.protocol import Storage
from agentspan.text import dotted, noun, one_line

SHORTEST_SIGNATURE = 4
MAX_POOLED = 3
"""The number of findings over all runs together that are shown if nothing was found within tasks."""
COUNTS = ("outcome", "by_agent", "in_result", "runs", "failed", "unknown", "open", "silent", "with_step")
"""The first members of the document of `--json`: fields of Why that are copied unchanged."""
BAR_COLUMNS = 24
"""The columns beside the bars of a histogram."""
FIELDS = 2
"""The largest number of differing members that are shown of a divergence."""


@command("why")
@click.argument("run", required=False, type=RUN)
@outcome_option
@filter_options
@limit_option(10)
@reads
def why_command(
    database: Database,
    run: str | None,
    *,
    outcome: str | None,
    limit: int,
    as_json: bool,
    **filters: Any,
) -> None:
    """Group the failed runs by what failed, and list what goes with failure.

    With RUN, show why that run failed.
    """
    storage = database.storage
    judge = outcome_rule(outcome)
    asked = asked_for(filters)
    if run is not None:
        if asked:
            raise click.UsageError(f"RUN and filters of runs exclude each other: {asked} does not select a run here")
        row = by_name.find_run(storage, run)
        with indexing() as progress:
            one = why_run(storage, row, judge, progress=progress)
        if as_json:
            own = {"signature": one.signature._asdict(), "missed": one.missed and one.missed.plain()}
            document(asdict(one) | own | {"abandoned": bool(left_open(storage, [row])) or row.closed_by == "abandoned"})
        else:
            echo_lines(_run_lines(storage, one, is_dead=bool(left_open(storage, [row]))))
        return
    options = options_of(filters)
    filter = filter_in(storage, filters)
    with indexing() as progress:
        found = why(storage, filter, judge, progress=progress)
    if as_json:
        document(plain(found))
    else:
        has_some = found.groups if found.signature is not None else found.runs or found.unknown
        nothing = "" if has_some else no_run(storage, filter, asked)
        page(_lines(storage, found, limit, nothing, options, how_chosen(judge, found.outcome)))


def plain(found: Why) -> dict[str, Any]:
    """Return the document of `--json` for many runs; infinite bounds are null."""
    findings = found.findings
    return {
        **{name: getattr(found, name) for name in COUNTS},
        "interval": None if found.interval is None else [found.interval.low, found.interval.high],
        "groups": [asdict(group) for group in found.groups],
        "periods": found.periods and found.periods._asdict(),
        "histogram": found.histogram,
        "findings": [_plain_finding(each) for each in findings.findings],
        "pooled_findings": [_plain_finding(each) for each in findings.pooled],
        "missed": found.missed and found.missed.plain(),
        "pair": found.pair and found.pair._asdict(),
        "compared": {
            **{name: getattr(findings, name) for name in ("runs", "tasks", "tested", "tested_pooled", "stratified")},
            "drawn": found.compared,
            "read": found.read,
            "detectable": None if findings.detectable == inf else findings.detectable,
        },
    }


def _plain_finding(each: Finding) -> dict[str, Any]:
    effect, low, high = (None if value == inf else value for value in (each.odds_ratio, each.low, each.high))
    counts = ("q", "stratified", "failed_with", "failed", "passed_with", "passed", "tasks")
    named = {name: getattr(each, name) for name in (*counts, "also")}
    return {"feature": each.feature, "effect": effect, "interval": [low, high], **named}


def _lines(
    storage: Storage, found: Why, limit: int, nothing: str, options: Sequence[str], chosen: str
) -> Iterator[str]:
    columns = width()
    if nothing and found.signature is not None:
        yield from wrap(nothing, columns, 4)
        return
    yield from wrap(nothing or dotted(failure_text.head(found), chosen), columns, 4)
    if found.missed is not None:
        rule = str(found.missed.rule)
        numbers = f"{found.missed.missed:,} of {found.missed.runs:,}"
        yield from hint(f"{numbers} missed {rule}", to_copy("why", *options, "--outcome", rule), columns)
    yield from wrap(text, columns, 3) if (text := failure_text.unrecorded(found)) else ()
    short = _short([group.signature for group in found.groups])
    failures = [group for group in found.groups if group.kind != "ending"]
    endings = [group for group in found.groups if group.kind == "ending"]
    shown = [*failures[:limit], *endings[:limit]]
    short |= by_name.short_ids(storage, [group.run_id for group in shown])
    of = "failed runs" if found.failed else "runs with a failed step"
    several = " (a run can be in several)" if failure_text.overlap(failures, found) else ""
    endings_of = "without a failed step, by how they ended"
    for title, groups in ((f"{of}, by what failed{several}", failures), (endings_of, endings)):
        if not groups:
            continue
        yield ""
        yield from (style(line, bold=True) for line in wrap(title, columns, 2))
        for group in groups[:limit]:
            yield from _group(group, short, found, columns)
        if len(groups) > limit:
            yield style(
                f"  {noun(len(groups) - limit, 'more group')}; --limit {len(groups)} lists all", fg="bright_black"
            )
    if found.failed and found.failed < found.runs:
        yield ""
        yield from _findings(found, columns)
    if found.failed:
        yield ""
        yield from _ways(storage, found, options, columns)


def _ways(storage: Storage, found: Why, options: Sequence[str], columns: int) -> Iterator[str]:
    """Yield commands that go on: where a failed run parts from one that passed, and cases for an evaluation."""
    if found.pair is not None:
        pair = by_name.short_ids(storage, found.pair)
        yield from hint("where the latest parts from one that passed", to_copy("diff", *pair.values()), columns)
    if found.by_agent is not None:
        return  # no one rule selects them
    cases = ["export", *(options or ["all"]), "--balanced", found.outcome or "status", "--format", "dataset"]
    yield from hint("cases: the failed runs, and as many that passed", to_copy(*cases), columns)


def _group(group: Group, short: Mapping[str, str], found: Why, columns: int) -> Iterator[str]:
    signature = short[group.signature]
    indent = " " * (len(signature) + 2)
    title = wrap(group.text, columns - len(indent), 2)
    yield f"{style(signature, fg='yellow')}  {title[0]}"
    yield from (f"{indent}{line}" for line in title[1:])
    if group.example is not None:
        yield indent + fit(f"latest: {group.example}", columns - len(indent))
    for line in wrap(failure_text.where(group, found), columns - len(indent), 2):
        yield indent + line
    example = f"{'run' if group.runs == 1 else 'latest run'} {short[group.run_id]}"
    seen = _seen(group.first_at, group.last_at)
    facts = dotted(failure_text.steps(group), failure_text.agents(group), failure_text.versions(group), seen)
    room = columns - len(indent)
    fits = columns_of(facts) + 3 + columns_of(example) <= room
    for line in [f"{facts} · {example}"] if fits else [*wrap(facts, room, 2), example]:
        yield indent + style(line, fg="bright_black")
    if found.periods is not None and found.periods.number > 1 and room >= found.periods.number + BAR_COLUMNS:
        bars = f"runs per {failure_text.length_text(found.periods)} ▕{failure_text.bars(group.histogram)}▏"
        yield indent + style(bars, fg="bright_black")


def _seen(first_at: str, last_at: str) -> str:
    """Return a period of time to the minute, with its zone; a single time if both ends are equal."""
    first, last = (f"{local(text):%m-%d %H:%M}" for text in (first_at, last_at))
    zone = zone_name((first_at, last_at))
    return f"{last} {zone}" if first == last else f"{first} – {last} {zone}"


def _findings(answer: Why, columns: int) -> Iterator[str]:
    found = answer.findings
    for line in wrap(failure_text.compared(answer), columns, 3):
        yield style(line, bold=True)
    parts = [("", answer.compared), ("arguments of ", answer.read)]
    of = answer.comparable
    partly = [f"{what}{number:,} of {of:,} runs" for what, number in parts if number < of]
    if partly:
        yield fit(f"looked at: {', '.join(partly)}", columns)
    text = failure_text.missable(found)
    missable = wrap(text, columns, 3) if text else []
    if not found.findings:
        yield from missable
    pooled = found.findings if not found.stratified else () if found.findings else found.pooled[:MAX_POOLED]
    if pooled:
        tested = f" ({found.tested_pooled:,} things tested)" if found.stratified else ""
        yield from wrap(f"pooled only, so that it may be the tasks{tested}:", columns, 2)
    for each in pooled or found.findings:
        yield from _finding(each, columns)
    if found.findings:
        yield from missable
    if pooled or found.findings:
        yield from wrap(failure_text.Q_EXPLAINED, columns, 2)


def _finding(each: Finding, columns: int) -> Iterator[str]:
    counts, effect = failure_text.finding(each)
    facts = [counts, effect] if each.stratified else [dotted(counts, effect)]
    room = columns - columns_of(facts[0]) - 4
    if len(facts) == 1 and columns_of(each.feature) <= room:
        yield f"  {pushed(each.feature, room)}  {facts[0]}"
    else:
        yield f"  {fit(each.feature, columns - 2)}"
        for part in facts:
            yield from (f"    {line}" for line in wrap(part, columns - 4, 2))
    if each.also:
        yield from (f"    {line}" for line in wrap(failure_text.also(each), columns - 4, 3))


def _short(ids: list[str]) -> dict[str, str]:
    """Return the shortest prefixes of ids, all of the same length, that are all different; by id."""
    for length in range(SHORTEST_SIGNATURE, 12):
        if len({id[:length] for id in ids}) == len(set(ids)):
            return {id: id[:length] for id in ids}
    return {id: id for id in ids}


def _run_lines(storage: Storage, found: RunWhy, *, is_dead: bool) -> Iterator[str]:
    columns = width()
    yield style(fit(f"run {found.run_id} {run_name(found.agent, found.version)}", columns), bold=True)
    yield fit(f"{found.verdict}{'?' if is_dead else ''} · {dotted(*found.head)}", columns)
    if is_dead:
        yield from hint("? its program died; this closes what it left open", to_copy("doctor"), columns)
    if found.missed is not None:
        rule = str(found.missed.rule)
        again = to_copy("why", by_name.short_id(storage, found.run_id), "--outcome", rule)
        yield from hint(f"it missed {rule}", again, columns)
    yield ""
    if found.error is not None:
        yield from _labelled("error", found.error, columns, 3)
    if found.still_open is not None:
        yield from _labelled("left open" if is_dead else "still open", why_text.place(found.still_open), columns, 2)
    if found.step is None and found.still_open is not None:
        yield _next_step("read it", "show", by_name.short_id(storage, found.run_id))
    elif found.step is None:
        yield from _labelled("no step failed; it ended", found.signature.text, columns, 2)
        yield _next_step("read it", "show", by_name.short_id(storage, found.run_id))
        yield _next_step("the same ending", "runs", "--signature", found.signature.id[:SHORTEST_SIGNATURE])
    else:
        if found.passed and found.missed is None:
            yield "this run passed all the same"
        yield from _step(storage, found, columns)
    if not found.passed:
        yield ""
        yield from _nearest(storage, found, columns)


def _next_step(label: str, *words: str) -> str:
    return f"  {style(label, bold=True)}: {to_copy(*words)}"


def _step(storage: Storage, found: RunWhy, columns: int) -> Iterator[str]:
    step = found.step
    assert step is not None
    yield style(fit(f"✗ step {STEP}{step.number}: {why_text.title(step)}", columns), fg="red")
    for fact in why_text.step_facts(found):
        yield from _labelled(fact.label, fact.text, columns, fact.lines)
    other = found.elsewhere
    text = why_text.elsewhere(found)
    if other is not None and other.runs:
        text += f", {_seen(other.first_at, other.last_at)}"
    yield from _labelled(f"{found.signature.id[:SHORTEST_SIGNATURE]} elsewhere", text, columns, 1)
    yield _next_step("read it", "show", f"{by_name.short_id(storage, found.run_id)}{STEP}{step.number}", "--around")


def _labelled(label: str, text: str, columns: int, lines: int) -> Iterator[str]:
    room = columns - 2 - len(label) - 2
    shown = wrap(text, room, lines)
    yield f"  {style(label, bold=True)}: {shown[0]}"
    yield from (" " * (len(label) + 4) + line for line in shown[1:])


def _nearest(storage: Storage, found: RunWhy, columns: int) -> Iterator[str]:
    nearest = found.nearest
    if nearest is None:
        yield fit(why_text.nearest(found, None), columns)
        return
    yield from wrap(f"{why_text.nearest(found, nearest)}: {nearest.run_id}", columns, 2)
    first = nearest.divergence
    if first is None:
        yield f"  {why_text.parting(nearest)}"
        return
    yield style(fit(f"≠ {why_text.parting(nearest)}", columns), bold=True)
    if (read_first := diff_text.read_first(first)) is not None:
        yield f"  {read_first}"
    a, b = first.a, first.b
    titles = (
        diff_text.apart(a.title, b.title, columns - 20) if a and b else (a.title if a else "", b.title if b else "")
    )
    for who, step, title in zip(("passing", "this one"), (a, b), titles, strict=True):
        text = "no more steps" if step is None else f"{step.number:,} {MARKS[step.status]} {title}"
        yield f"  {pad(who, 8)}  {fit(text, columns - 12)}"
    if first.fields:
        yield "  what differs: passing → this one"
    shown = sorted(first.fields, key=why_text.interest)[:FIELDS]
    for field in shown:
        path = fit(field.path, columns // 2)
        half = max(10, (columns - 4 - columns_of(path) - 5) // 2)
        texts = diff_text.apart(one_line(field.a or "nothing", 1000), one_line(field.b or "nothing", 1000), half)
        widths = [min(half, columns_of(text)) for text in texts]
        sides = [fit(text, 2 * half - other) for text, other in zip(texts, reversed(widths), strict=True)]
        yield fit_end(f"    {path}: {' → '.join(sides)}", columns)
    if len(shown) < len(first.fields):
        yield style(f"    {len(first.fields) - len(shown):,} more: --json", fg="bright_black")
    short = by_name.short_ids(storage, [nearest.run_id, found.run_id])
    yield style(f"  {to_copy('diff', *short.values())}", fg="bright_black")
