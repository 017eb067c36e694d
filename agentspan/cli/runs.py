"""`agentspan runs`: lists the latest runs, with sums over all that match."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from agentspan.analysis import id_prefixes
from agentspan.analysis.runs import failure_reason, find_runs
from agentspan.analysis.wording import score_text
from agentspan.api import from_rows
from agentspan.cli.filter_options import asked_for, filter_in, no_run
from agentspan.cli.output import (
    COLORS,
    MARKS,
    bar,
    document,
    fit,
    local,
    noun,
    pad,
    status_style,
    style,
    to_copy,
    width,
    zone_name,
)
from agentspan.database import Database
from agentspan.figures import cost_text, count_text, duration_text
from agentspan.journal.writers import Lives
from agentspan.model.rows import AgentInstanceRow, ScoreRow
from agentspan.model.status import OPEN
from agentspan.storage.answers import RunList, RunSummary
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Account, Counts, RunSort
from agentspan.storage.row_by_row import Name, said_of, tokens_of

DATED = 76
"""From so many columns on, runs are shown with when they began."""
WIDE = 100
"""From so many columns on, with tokens and cost."""


def command(
    database: Database,
    *,
    limit: int,
    offset: int,
    sort: RunSort,
    as_json: bool,
    **given: Any,
) -> None:
    """List runs, and print how many match in all."""
    storage = database.storage
    asked = asked_for(given)
    filter = filter_in(storage, given)
    with bar("indexing") as progress:
        found = find_runs(storage, filter, limit=limit, offset=offset, sort=sort, progress=progress)
    stale = left_open(storage, [run.run for run in found.runs])
    if as_json:
        document(_plain(database, found, stale))
        return
    if not found.total:
        click.echo(no_run(asked))
        return
    said = said_of(storage, [run.run.id for run in found.runs]) if filter.mark or filter.scores else {}
    _table(storage, found.runs, stale, {id: one.scores for id, one in said.items()})
    click.echo(_total(found, offset))
    if stale:
        click.echo(f"? its program died; `{to_copy('doctor')}` closes what it left open")


def left_open(storage: Storage, runs: Sequence[AgentInstanceRow]) -> set[str]:
    """Return the ids of those runs that are open although their programs have died."""
    lives = Lives(storage)
    return {run.id for run in runs if run.status in OPEN and lives.of(run.writer_id) == "dead"}


def name_of(run: RunSummary | Name) -> str:
    """Return the agent and its version, if it has one."""
    return run.agent if run.version == "default" else f"{run.agent} {run.version}"


def _plain(database: Database, found: RunList, stale: set[str]) -> dict[str, Any]:
    account = database.storage.ask(Account())
    ids = [run.run.id for run in found.runs]
    counts, said = database.storage.ask(Counts(ids)), said_of(database.storage, ids)
    return {
        "runs": [
            {
                **from_rows.plain(
                    from_rows.instance(run.run, account, counts[run.run.id]._asdict(), **said[run.run.id]._asdict())
                ),
                "agent": name_of(run),
                "reason": failure_reason(database.storage, run),
                "abandoned": run.run.id in stale or run.run.closed_by == "abandoned",
                "input_tokens": run.input_tokens,
                "output_tokens": run.output_tokens,
                "cost_usd": run.cost_usd,
            }
            for run in found.runs
        ],
        "total": found.total,
        "totals": found.totals._asdict(),
    }


def _table(storage: Storage, runs: list[RunSummary], stale: set[str], scores: Mapping[str, Sequence[ScoreRow]]) -> None:
    ids = id_prefixes.short_ids(storage, [run.run.id for run in runs])
    columns = width()
    id_columns = max([len(id) for id in ids.values()], default=id_prefixes.SHORTEST_ID)
    zone = zone_name(run.run.started_at or run.run.inserted_at for run in runs)
    started = (pad(f"  started ({zone})", 16),) if columns >= DATED else ()
    used = (pad("tok", 8, right=True), pad("cost", 10, right=True)) if columns >= WIDE else ()
    header = "".join((pad("run", id_columns), *started, "  ", pad("status", 12), "   took  spans failed", *used))
    click.echo(style(f"{header}  agent", bold=True))
    room = max(8, columns - len(header) - 2)
    for run in runs:
        row = run.run
        took = "" if row.duration_ms is None else duration_text(row.duration_ms)
        at = f"  {local(row.started_at or row.inserted_at):%m-%d %H:%M:%S}" if started else ""
        tokens = tokens_of(run)
        click.echo(
            f"{pad(ids[row.id], id_columns)}{at}  "
            + status_style(pad(f"{MARKS[row.status]} {row.status}{'?' if row.id in stale else ''}", 12), row.status)
            + f"{pad(took, 7, right=True)}{pad(str(run.spans), 7, right=True)}"
            + style(pad(str(run.failed or ""), 7, right=True), fg=COLORS["failed"])
            + (pad("" if tokens is None else count_text(tokens), 8, right=True) if used else "")
            + (pad("" if run.cost_usd is None else cost_text(run.cost_usd), 10, right=True) if used else "")
            + f"  {fit(name_of(run), room)}"
        )
        reason = failure_reason(storage, run)
        if reason is not None:
            click.echo("  " + status_style(fit(reason, columns - 2), "failed"))
        for score in scores.get(row.id, ()):
            click.echo("  " + fit(score_text(score), columns - 2))


def _total(found: RunList, offset: int) -> str:
    totals, tokens = found.totals, tokens_of(found.totals)
    shown = f"{len(found.runs)} of {noun(found.total, 'run')}"
    parts = [
        f"{shown}, from number {offset + 1} on" if offset and found.runs else shown,
        noun(totals.spans, "span"),
        f"{totals.failed:,} failed" if totals.failed else "",
        f"{totals.open:,} open" if totals.open else "",
        f"{count_text(tokens)} tok" if tokens is not None else "",
        cost_text(totals.cost_usd) if totals.cost_usd is not None else "",
        duration_text(totals.duration_ms) if totals.duration_ms is not None else "",
    ]
    return fit(" · ".join(part for part in parts if part), width())
