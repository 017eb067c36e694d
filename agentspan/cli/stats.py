"""`agentspan stats`: prints counts, errors, durations, tokens and cost by span type and by model or tool."""

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

import click

from agentspan.analysis import id_prefixes
from agentspan.analysis.agent_names import AT
from agentspan.analysis.runs import ids_of
from agentspan.analysis.stats import Rest, StatsByVersion, shorten, stats, stats_by_version
from agentspan.cli.collecting import paused
from agentspan.cli.filter_options import filter_in
from agentspan.cli.output import bar, columns_of, document, noun, table, width
from agentspan.database import Database
from agentspan.figures import cost_text, count_text, duration_text, share_text
from agentspan.storage.answers import BOUNDS_MS, Stat
from agentspan.storage.questions import RunFilter

HEADER = ("span type", "spans", "failed", "p50", "p95", "p99", "max", "total", "tok", "cost")
SPARED = (5, 6, 8, 3, 7, 4)
"""Columns of the table that are left out where the terminal is too narrow, the first one first: cost stays."""
NAME_COLUMNS = 24
"""Columns of the terminal that a name has before columns are left out for it."""
ROWS = 40
"""Rows of types and labels that are printed, unless more are asked for."""


def command(
    database: Database,
    run: str | None,
    *,
    limit: int | None,
    whole: bool,
    by: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Print the statistics of all runs, of those that match, or of one; with `by`, of each version, too."""
    storage = database.storage
    if run is not None and AT in run and given["agent"] is None:
        run, given["agent"] = None, run
    run_id = None if run is None else id_prefixes.find_run(storage, run).id
    asked = filter_in(storage, given)
    since, until = asked.since, asked.until
    of_runs = replace(asked, since=None, until=None)
    if run_id is not None and of_runs != RunFilter():
        raise click.UsageError("RUN and filters of runs exclude each other")
    if run_id is not None and by is not None:
        raise click.UsageError("RUN has one version; --by version is for many runs")
    parted: StatsByVersion | None = None
    with bar("indexing") as progress, paused():
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
    rows = [*_rows(shown, parted)]
    columns = _columns([row for row in rows if not isinstance(row, str)])
    table(
        [HEADER[n] for n in columns],
        [row if isinstance(row, str) else [row[n] for n in columns] for row in rows],
        right=range(1, len(columns)),
    )
    click.echo(_total(found))
    if parted is not None and (parted.left_out_versions or parted.left_out_labels):
        left = noun(parted.left_out_versions, "version"), noun(parted.left_out_labels, "label")
        click.echo(f"not broken down: {left[0]} with earlier runs, {left[1]} with less time")


def _rows(shown: Sequence[Stat | Rest], parted: StatsByVersion | None) -> Iterator[list[str] | str]:
    """Yield the rows of the table: after each type and label those of its versions."""
    versions = () if parted is None else parted.versions
    of_version = [{(each.schema_name, each.label): each for each in version.stats} for version in versions]
    for stat in shown:
        if isinstance(stat, Rest):
            yield _rest(stat)
            continue
        yield _row(stat)
        for version, own in zip(versions, of_version, strict=True):
            if (stat.schema_name, stat.label) in own:
                yield [f"    {version.name}", *_row(own[stat.schema_name, stat.label])[1:]]


def _plain_versions(parted: StatsByVersion, shown: Sequence[Stat | Rest]) -> dict[str, Any]:
    """Return the members of the document about versions: the same types and labels as for all of them."""
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


def _columns(rows: list[list[str]]) -> list[int]:
    """Return the numbers of the columns that fit beside the names."""
    widths = [max(columns_of(row[n]) for row in (HEADER, *rows)) for n in range(len(HEADER))]
    columns = [n for n in range(len(HEADER)) if n not in (8, 9) or any(row[n] for row in rows)]
    for spared in SPARED:
        if min(widths[0], NAME_COLUMNS) + sum(widths[n] + 2 for n in columns[1:]) <= width():
            break
        columns = [n for n in columns if n != spared]
    return columns


def _total(found: list[Stat]) -> str:
    types = [stat for stat in found if stat.label is None]
    failed = sum(stat.failed for stat in types)
    open_ = sum(stat.open for stat in types)
    counted = [stat for stat in types if not stat.is_aggregate]
    tokens = [number for stat in counted if (number := _tokens(stat)) is not None]
    costs = [stat.cost_usd for stat in counted if stat.cost_usd is not None]
    parts = (
        noun(sum(stat.count for stat in types), "span"),
        f"{failed:,} failed" if failed else "",
        f"{open_:,} open" if open_ else "",
        f"of {noun(len(types), 'type')}",
        f"{count_text(sum(tokens))} tok" if tokens else "",
        cost_text(sum(costs)) if costs else "",
    )
    return " · ".join(part for part in parts if part)


def _rest(rest: Rest) -> str:
    if rest.schema_name is None:
        return f"… and {noun(rest.number, 'more type')}; --all shows each"
    return f"  … and {rest.number:,} more; --all shows each"


def _row(stat: Stat) -> list[str]:
    rate = stat.error_rate
    tokens = _tokens(stat)
    return [
        stat.schema_name if stat.label is None else f"  {stat.label}",
        f"{stat.count:,}",
        "" if not rate else share_text(rate, 1),
        *("" if ms is None else duration_text(ms) for ms in (stat.p50_ms, stat.p95_ms, stat.p99_ms, stat.max_ms)),
        duration_text(stat.total_ms) if stat.ran else "",
        "" if tokens is None else count_text(tokens),
        "" if stat.cost_usd is None else cost_text(stat.cost_usd),
    ]


def _tokens(stat: Stat) -> int | None:
    if stat.input_tokens is None and stat.output_tokens is None:
        return None
    return (stat.input_tokens or 0) + (stat.output_tokens or 0)


def _plain(stat: Stat) -> dict[str, Any]:
    return {**{field.name: getattr(stat, field.name) for field in fields(stat)}, "error_rate": stat.error_rate}
