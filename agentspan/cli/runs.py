"""`agentspan runs` lists runs with the sums over all matching ones; `agentspan stats` prints statistics of spans."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import click

from agentspan.analysis import by_name
from agentspan.analysis.budgets import budget_of
from agentspan.analysis.by_name import AT
from agentspan.analysis.causes import Judged, page_of
from agentspan.analysis.runs import (
    Rest,
    StatsByVersion,
    find_runs,
    ids_of,
    shorten,
    stats,
    stats_by_version,
)
from agentspan.analysis.session_runs import about, prompt_of, totals_text
from agentspan.analysis.tree import run_name, score_text, session_title
from agentspan.cli.app import command, reads
from agentspan.cli.completion import RUN
from agentspan.cli.filter_options import (
    asked_for,
    filter_in,
    filter_options,
    no_run,
    options_of,
    outcome_rule,
    page_options,
)
from agentspan.cli.output import (
    COLORS,
    bar,
    columns_of,
    document,
    echo,
    echo_lines,
    fit,
    hint,
    indexing,
    local,
    pad,
    plain_rows,
    status_style,
    style,
    to_copy,
    verdict_style,
    width,
    wrap,
    zone_name,
)
from agentspan.database import Database
from agentspan.model.rows import ScoreRow
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import RunFilter, RunSort
from agentspan.storage.row_by_row import labels_of, tokens_of
from agentspan.storage.sums import BOUNDS_MS, RunList, RunSummary, Stat
from agentspan.text import cost_texts, count_text, duration_text, noun

LATEST_RUNS = 50
"""The runs that `agentspan runs` lists without `--limit`: the latest ones."""
DATED = 76
"""The terminal width from which the list shows the start of each run."""
WIDE = 100
"""The terminal width from which the list shows the tokens and cost of each run."""
WIDEST = 150
"""The terminal width from which the subject of a run has a column; else it is a line below the run."""
AGENT_COLUMNS = 24
"""The width of the column of agents, if the subject of a run has a column, too."""
LEAST_ABOUT = 24
"""The least width for the subject of a run on the line of its cause; with less room it has its own line."""


@command("runs")
@filter_options
@page_options(LATEST_RUNS, sort=True)
@reads
def runs_command(
    database: Database,
    *,
    limit: int,
    offset: int,
    sort: RunSort,
    as_json: bool,
    **filters: Any,
) -> None:
    """List runs, the latest first, with totals.

    A ? marks a run that its program left open when it died.
    """
    storage = database.storage
    asked, grep, others = asked_for(filters), filters["grep"], options_of({**filters, "grep": None})
    filter = filter_in(storage, filters)
    with bar("indexing") as progress:
        found = find_runs(storage, filter, limit=limit, offset=offset, sort=sort, progress=progress)
    page = page_of(storage, found.runs, outcome_rule(None))
    if as_json:
        document(_plain_runs(storage, found, page))
        return
    if not found.total:
        echo_lines(wrap(no_run(storage, filter, asked), width(), 4))
        echo_lines(_in_steps(grep, others))
        return
    stale = {id for id, judged in page.verdicts.items() if judged.kind == "left"}
    labels = labels_of(storage, [run.run.id for run in found.runs]) if filter.mark or filter.scores else {}
    abouts = {run.run.id: about(run.run, prompt_of(storage, run.run)) for run in found.runs}
    _table(storage, found.runs, page, abouts, {id: one.scores for id, one in labels.items()})
    echo(_runs_total(found, offset))
    echo_lines(_in_steps(grep, others))
    if stale:
        echo(f"? its program died; `{to_copy('doctor')}` closes what it left open")


def _in_steps(grep: str | None, others: Sequence[str]) -> list[str]:
    """Return the command that finds a text in steps, because the filter is about the runs' own texts."""
    if grep is None:
        return []
    return hint("runs with it in their steps", to_copy("search", grep, "--by-run", *others), width())


def _plain_runs(storage: Storage, found: RunList, page: Judged) -> dict[str, Any]:
    return {
        "runs": [
            {
                **plain,
                "agent": run_name(run.agent, run.version),
                "about": about(run.run, prompt_of(storage, run.run)),
                "verdict": page.verdicts[run.run.id]._asdict(),
                "reason": page.causes[run.run.id].text if run.run.id in page.causes else None,
                "abandoned": page.verdicts[run.run.id].kind == "left" or run.run.closed_by == "abandoned",
                "input_tokens": run.input_tokens,
                "output_tokens": run.output_tokens,
                "cost_usd": run.cost_usd,
                "budget": None if (budget := budget_of(storage, run.run)) is None else budget.plain(),
            }
            for run, plain in zip(found.runs, plain_rows(storage, [run.run for run in found.runs]), strict=True)
        ],
        "total": found.total,
        "totals": found.totals._asdict(),
    }


def _table(
    storage: Storage,
    runs: list[RunSummary],
    page: Judged,
    abouts: Mapping[str, str],
    scores: Mapping[str, Sequence[ScoreRow]],
) -> None:
    ids = by_name.short_ids(storage, [run.run.id for run in runs])
    columns = width()
    id_columns = max([len(id) for id in ids.values()], default=by_name.SHORTEST_ID)
    zone = zone_name(run.run.started_at or run.run.inserted_at for run in runs)
    started = (pad(f"  started ({zone})", 16),) if columns >= DATED else ()
    used = (pad("tok", 8, right=True), pad("cost", 10, right=True)) if columns >= WIDE else ()
    took = {run.run.id: duration_text(run.duration_ms) for run in runs if run.duration_ms is not None}
    took_columns = max([7, *(1 + len(text) for text in took.values())])
    verdict = pad("verdict", 12) + pad("took", took_columns, right=True)
    header = "".join((pad("run", id_columns), *started, "  ", verdict, "  spans failed", *used))
    room = max(8, columns - len(header) - 2)
    names = {run.run.id: run_name(run.agent, run.version) for run in runs}
    beside = min(AGENT_COLUMNS, max(map(columns_of, names.values()), default=0)) if columns >= WIDEST else 0
    echo(style(f"{header}  {pad('agent', beside)}{'  about' if beside else ''}".rstrip(), bold=True))
    for run, cost in zip(runs, cost_texts(run.cost_usd for run in runs), strict=True):
        row = run.run
        at = f"  {local(row.started_at or row.inserted_at):%m-%d %H:%M:%S}" if started else ""
        tokens = tokens_of(run)
        judged = page.verdicts[row.id]
        shown = f"{judged.mark} {'missed' if judged.kind == 'missed' else judged.text}"
        echo(
            f"{pad(ids[row.id], id_columns)}{at}  "
            + verdict_style(pad(shown, 12), judged, row.status)
            + f"{pad(took.get(row.id, ''), took_columns, right=True)}{pad(str(run.spans), 7, right=True)}"
            + style(pad(str(run.failed or ""), 7, right=True), fg=COLORS["failed"])
            + (pad("" if tokens is None else count_text(tokens), 8, right=True) if used else "")
            + (pad(cost, 10, right=True) if used else "")
            + f"  {pad(fit(names[row.id], beside or room), beside)}"
            + (f"  {fit(abouts[row.id], room - beside - 2)}".rstrip() if beside else "")
        )
        cause = page.causes[row.id].text if row.id in page.causes else ""
        about = "" if beside else abouts[row.id]
        echo_lines(_below(cause, about, columns - 2, is_title=session_title(row) is not None))
        if (budget := budget_of(storage, row)) is not None:
            echo("  " + fit(budget.text(), columns - 2))
        for score in scores.get(row.id, ()):
            echo("  " + fit(score_text(score), columns - 2))


def _below(cause: str, about: str, columns: int, *, is_title: bool) -> Iterator[str]:
    """Yield the subject of a run and the cause of its failure, on one line if most of both fits there."""
    room = columns - columns_of(cause) - 3
    if about and cause and not is_title and room >= min(LEAST_ABOUT, columns_of(about)):
        yield f"  {status_style(cause, 'failed')} · {style(fit(about, room), fg='bright_black')}"
        return
    if about:
        yield "  " + style(fit(about, columns), fg=None if is_title else "bright_black", bold=is_title)
    if cause:
        yield "  " + status_style(fit(cause, columns), "failed")


def _runs_total(found: RunList, offset: int) -> str:
    shown = f"{len(found.runs)} of {noun(found.total, 'run')}"
    from_ = f", from number {offset + 1} on" if offset and found.runs else ""
    return fit(totals_text(f"{shown}{from_}", found.totals, "span"), width())


ROWS = 40
"""The number of rows of types and labels that are printed by default."""


@command("stats")
@click.argument("run", required=False, type=RUN)
@filter_options
@click.option("-n", "--limit", metavar="N", type=click.IntRange(1), help="List N rows at most; 40 when left out.")
@click.option("--by", type=click.Choice(["version"]), help="List each version of the agent below each row.")
@click.option("--all", "whole", is_flag=True, help="List all types, models and tools.")
@reads
def stats_command(
    database: Database,
    run: str | None,
    *,
    limit: int | None,
    whole: bool,
    by: str | None,
    as_json: bool,
    **filters: Any,
) -> None:
    """Sum up steps by type, and by model or tool: counts, failures, durations, tokens, cost.

    Of all runs, of those that match, or of RUN. --since and --until are about steps here, the other filters about their
    runs.
    """
    storage = database.storage
    if run is not None and AT in run and filters["agent"] is None:
        run, filters["agent"] = None, run
    run_id = None if run is None else by_name.find_run(storage, run).id
    asked = filter_in(storage, filters)
    since, until = asked.since, asked.until
    of_runs = asked._replace(since=None, until=None)
    if run_id is not None and of_runs != RunFilter():
        raise click.UsageError("RUN and filters of runs exclude each other")
    if run_id is not None and by is not None:
        raise click.UsageError("RUN has one version; --by version is for many runs")
    parted: StatsByVersion | None = None
    with indexing() as progress:
        if by is not None:
            parted = stats_by_version(storage, of_runs, since=since, until=until, progress=progress)
            found = [*parted.stats]
        else:
            ids = None if of_runs == RunFilter() else ids_of(storage, of_runs, progress=progress)
            found = stats(storage, run=run_id, since=since, until=until, runs=ids, progress=progress)
    shown = found if whole or (as_json and limit is None) else shorten(found, ROWS if limit is None else limit)
    if as_json:
        plain = [_plain(stat) for stat in shown if isinstance(stat, Stat)]
        more = {} if parted is None else _plain_versions(parted, shown)
        window = {"since": since, "until": until}
        document({"stats": plain, "bounds_ms": BOUNDS_MS, "run": run_id, **window, "total": len(found), **more})
        return
    from agentspan.answers import stats as of_stats  # imported late: `runs` needs neither blocks nor their renderer
    from agentspan.cli.rendering import show

    show([of_stats.statistics(found, shown, parted)], storage, whole="--all shows each")


def _plain_versions(parted: StatsByVersion, shown: Sequence[Stat | Rest]) -> dict[str, Any]:
    """Return the members about versions for the document of `--json`, limited to the shown types and labels."""
    kept = {(stat.schema_name, stat.label) for stat in shown if isinstance(stat, Stat)}
    versions = [
        {
            "agent": version.agent,
            "version": version.version,
            "runs": version.runs,
            "stats": [_plain(stat) for stat in version.stats if (stat.schema_name, stat.label) in kept],
        }
        for version in parted.versions
    ]
    left_out = {"left_out_versions": parted.left_out_versions, "left_out_labels": parted.left_out_labels}
    return {"versions": versions, **left_out}


def _plain(stat: Stat) -> dict[str, Any]:
    return {**{field.name: getattr(stat, field.name) for field in fields(stat)}, "error_rate": stat.error_rate}
