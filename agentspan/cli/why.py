"""`agentspan why`: prints failed runs in groups, and features associated with failure; or why one run failed."""

from collections.abc import Iterator
from dataclasses import asdict
from math import inf
from typing import Any

import click

from agentspan.analysis import by_name, diff_text, why_text
from agentspan.analysis.associations import Finding
from agentspan.analysis.by_name import STEP
from agentspan.analysis.causes import left_open
from agentspan.analysis.tree import run_name
from agentspan.analysis.why import RunWhy, Why, why, why_run
from agentspan.answers import why as answers
from agentspan.cli.app import command, reads
from agentspan.cli.completion import RUN
from agentspan.cli.filter_options import (
    asked_for,
    filter_in,
    filter_options,
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
    style,
    to_copy,
    width,
    wrap,
    zone_name,
)
from agentspan.cli.rendering import lines
from agentspan.database import Database
from agentspan.storage.protocol import Storage
from agentspan.text import dotted, one_line

COUNTS = ("outcome", "by_agent", "in_result", "runs", "failed", "unknown", "open", "silent", "with_step")
"""The first members of the document of `--json`: fields of Why that are copied unchanged."""
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
    elif not (found.groups if found.signature is not None else found.runs or found.unknown):
        echo_lines(wrap(no_run(storage, filter, asked), width(), 4))
    else:
        chosen = (judge is None and found.outcome) or ""
        pair = [] if found.pair is None else [*by_name.short_ids(storage, found.pair).values()]
        parts = [
            answers.first(found, chosen, options),
            *answers.groups(found, limit, _seen),
            answers.findings(found),
        ]
        page(lines([*parts, answers.ways(found, options, pair)], storage, whole="--limit {} lists all"))


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


def _seen(first_at: str, last_at: str) -> str:
    """Return a period of time to the minute, with its zone; a single time if both ends are equal."""
    first, last = (f"{local(text):%m-%d %H:%M}" for text in (first_at, last_at))
    zone = zone_name((first_at, last_at))
    return f"{last} {zone}" if first == last else f"{first} – {last} {zone}"


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
        yield _next_step("the same ending", "runs", "--signature", found.signature.id[: answers.SHORTEST])
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
    yield from _labelled(f"{found.signature.id[: answers.SHORTEST]} elsewhere", text, columns, 1)
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
