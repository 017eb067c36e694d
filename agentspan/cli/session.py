"""`agentspan show --session`: prints the runs of one session in order, each with its first prompt."""

from collections.abc import Iterator
from typing import Any

import click

from agentspan.analysis.session_runs import PAGE, SessionRun, SessionRuns, session_runs, totals_text
from agentspan.analysis.tree import run_name
from agentspan.answers import session as answers
from agentspan.cli.app import command, reads
from agentspan.cli.filter_options import filter_in, filter_options, outcome_option, outcome_rule, page_options
from agentspan.cli.output import (
    document,
    fit,
    local,
    page,
    plain_rows,
    style,
    width,
    wrap,
    zone_name,
)
from agentspan.cli.rendering import items
from agentspan.database import Database
from agentspan.storage.protocol import Storage
from agentspan.text import dotted, noun


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
    page(_lines(storage, found, offset))


def _lines(storage: Storage, found: SessionRuns, offset: int) -> Iterator[str]:
    columns = width()
    yield style(fit(dotted(f"session {found.session}", found.title or ""), columns), bold=True)
    yield from wrap(totals_text(noun(found.total, "run"), found.totals), columns, 2)
    if found.runs:
        yield ""
    zone = zone_name([found.first_at, found.last_at]) if found.runs else ""
    yield from items(answers.table(found, lambda text: f"{local(text):%m-%d %H:%M:%S} {zone}", offset), storage)
    if len(found.runs) < found.total:
        last = offset + len(found.runs)
        yield style(f"{len(found.runs):,} of {found.total:,} runs; --offset {last} goes on", fg="bright_black")


def _plain(each: SessionRun, row: dict[str, Any]) -> dict[str, Any]:
    sums = {name: getattr(each.run, name) for name in ("spans", "failed", "input_tokens", "output_tokens", "cost_usd")}
    own: dict[str, Any] = {"agent": run_name(each.run.agent, each.run.version), "prompt": each.prompt}
    own |= {"verdict": each.verdict._asdict(), "reason": each.cause}
    return {**row, **sums, **own}
