"""`agentspan show --session`: prints the runs of one session in order, each with its first prompt."""

from collections.abc import Iterator
from typing import Any

import click

from agentspan.analysis import by_name
from agentspan.analysis.session_runs import PAGE, SessionRun, SessionRuns, session_runs, totals_text
from agentspan.analysis.tree import run_name
from agentspan.cli.app import command, reads
from agentspan.cli.filter_options import filter_in, filter_options, outcome_option, outcome_rule, page_options
from agentspan.cli.output import (
    document,
    fit,
    local,
    page,
    plain_rows,
    status_style,
    style,
    width,
    wrap,
    zone_name,
)
from agentspan.database import Database
from agentspan.storage.row_by_row import tokens_of
from agentspan.text import amounts, dotted, noun


@command("session")
@click.argument("id")
@outcome_option
@filter_options
@page_options(PAGE)
@reads
def session_command(
    database: Database,
    id: str,
    *,
    outcome: str | None,
    limit: int,
    offset: int,
    as_json: bool,
    **filters: Any,
) -> None:
    """Show the runs of one session in order: what was asked first, what became of it, and what it took."""
    storage = database.storage
    if filters["session"] is not None:
        raise click.UsageError("ID and --session exclude each other")
    filter = filter_in(storage, filters)
    found = session_runs(storage, id, filter, outcome_rule(outcome), limit=limit, offset=offset)
    if as_json:
        rows = plain_rows(storage, [each.run.run for each in found.runs])
        document(
            {
                "session": found.session,
                "title": found.title,
                "outcome": found.outcome,
                "runs": [_plain(each, row) for each, row in zip(found.runs, rows, strict=True)],
                "total": found.total,
                "totals": found.totals._asdict(),
            }
        )
        return
    short = by_name.short_ids(storage, [each.run.run.id for each in found.runs])
    page(_lines(found, short, offset))


def _plain(each: SessionRun, row: dict[str, Any]) -> dict[str, Any]:
    sums = {name: getattr(each.run, name) for name in ("spans", "failed", "input_tokens", "output_tokens", "cost_usd")}
    own: dict[str, Any] = {"agent": run_name(each.run.agent, each.run.version), "prompt": each.prompt}
    own |= {"verdict": each.verdict._asdict(), "reason": each.cause}
    return {**row, **sums, **own}


def _lines(found: SessionRuns, short: dict[str, str], offset: int) -> Iterator[str]:
    columns = width()
    yield style(fit(dotted(f"session {found.session}", found.title or ""), columns), bold=True)
    yield from wrap(totals_text(found.total, found.totals), columns, 2)
    if found.runs:
        yield ""
    zone = zone_name([found.first_at, found.last_at]) if found.runs else ""
    for number, each in enumerate(found.runs, start=offset + 1):
        run, row = each.run, each.run.run
        at = local(row.started_at or row.inserted_at)
        is_bad = each.verdict.kind in ("failed", "missed")
        mark = status_style(each.verdict.mark, "failed" if is_bad else row.status)
        yield mark + " " + style(fit(f"{number:,}. {each.prompt or 'no prompt was recorded'}", columns - 2), bold=True)
        facts = dotted(
            f"run {short[row.id]}",
            run_name(run.agent, run.version),
            f"{at:%m-%d %H:%M:%S} {zone}",
            each.verdict.text,
            noun(run.spans, "step"),
            noun(run.failed, "failed step") if run.failed else "",
            *amounts(tokens_of(run), run.cost_usd, row.duration_ms),
        )
        for line in wrap(facts, columns - 2, 3):
            yield "  " + style(line, fg="bright_black")
        if each.cause is not None:
            yield "  " + status_style(fit(each.cause, columns - 2), "failed")
    if len(found.runs) < found.total:
        last = offset + len(found.runs)
        yield style(f"{len(found.runs):,} of {found.total:,} runs; --offset {last} goes on", fg="bright_black")
