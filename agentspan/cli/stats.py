"""`agentspan stats`: prints counts, errors, durations, tokens and cost by span type and by model or tool."""

from dataclasses import fields
from typing import Any

import click

from agentspan.analysis import id_prefixes, time_expressions
from agentspan.analysis.stats import BOUNDS_MS, Stat, stats
from agentspan.cli.output import document, noun, table, width
from agentspan.cli.progress_bar import bar
from agentspan.database import Database
from agentspan.figures import cost_text, count_text, duration_text, share_text

HEADER = ("span type", "spans", "failed", "p50", "p95", "p99", "max", "total", "tok", "cost")
RIGHT = range(1, len(HEADER))
NARROW = {5: 88, 7: 76, 8: 84, 9: 84}
"""Columns of the table that need so many columns of the terminal."""


def command(database: Database, run: str | None, *, since: str | None, until: str | None, as_json: bool) -> None:
    """Print the statistics of all runs, or of one."""
    storage = database.storage
    run_id = None if run is None else id_prefixes.find_run(storage, run).id
    window = {
        "since": None if since is None else time_expressions.parse(since),
        "until": None if until is None else time_expressions.parse(until, "until"),
    }
    with bar("indexing") as progress:
        found = stats(storage, run=run_id, **window, progress=progress)
    if as_json:
        plain = [_plain(stat) for stat in found]
        document({"stats": plain, "bounds_ms": BOUNDS_MS, "run": run_id, **window, "total": len(plain)})
        return
    uses = {8: any(_tokens(stat) is not None for stat in found), 9: any(stat.cost_usd is not None for stat in found)}
    columns = [n for n in range(len(HEADER)) if width() >= NARROW.get(n, 0) and uses.get(n, True)]
    rows = [_row(stat) for stat in found]
    table(
        [HEADER[n] for n in columns],
        [[row[n] for n in columns] for row in rows],
        right=range(1, len(columns)),
    )
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
    click.echo(" · ".join(part for part in parts if part))


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
