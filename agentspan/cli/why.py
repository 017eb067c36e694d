"""`agentspan why`: prints failed runs in groups, and features associated with failure; or why one run failed."""

from dataclasses import asdict
from math import inf
from typing import Any

import click

from agentspan.analysis import by_name
from agentspan.analysis.associations import Finding
from agentspan.analysis.causes import left_open
from agentspan.analysis.why import Why, why, why_run
from agentspan.answers import why as answers
from agentspan.answers import why_run as answer_of_run
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
    document,
    echo_lines,
    indexing,
    local,
    page,
    width,
    wrap,
    zone_name,
)
from agentspan.cli.rendering import lines, show
from agentspan.database import Database

COUNTS = ("outcome", "by_agent", "in_result", "runs", "failed", "unknown", "open", "silent", "with_step")
"""The first members of the document of `--json`: fields of Why that are copied unchanged."""


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
            ids = by_name.short_ids(storage, [row.id, *([one.nearest.run_id] if one.nearest else [])])
            answer = answer_of_run.why(one, _seen, ids.__getitem__, is_dead=bool(left_open(storage, [row])))
            show(answer, storage, whole="diff shows each")
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
