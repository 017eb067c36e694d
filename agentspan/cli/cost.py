"""`agentspan cost` prints the costs of runs, by model, day, prompt …, and the savings of the providers' caches."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import click

from agentspan.analysis import by_name, costs_text
from agentspan.analysis.costs import BY_STEPS, BYS, CacheRow, CostRow, Costs, costs
from agentspan.cli.app import command, reads
from agentspan.cli.filter_options import asked_for, filter_in, filter_options, no_run
from agentspan.cli.output import columns_of, document, echo_lines, fit, indexing, style, table, width, wrap, zone
from agentspan.database import Database
from agentspan.text import noun

ROWS = 20
"""The number of rows that are printed by default."""
NAME_COLUMNS = 30
"""The width that names get at most; with more room, the latest periods have columns."""
PERIOD_COLUMNS = 11
MOST_PERIODS = 7


@command("cost")
@click.option("--by", type=click.Choice(BYS), default=BYS[0], show_default=True, help="Say what the rows are.")
@filter_options
@click.option("-n", "--limit", metavar="N", type=click.IntRange(1), help="List N rows at most; 20 when left out.")
@reads
def cost_command(database: Database, *, by: str, limit: int | None, as_json: bool, **filters: Any) -> None:
    """Print the costs of the matching runs."""
    asked = asked_for(filters)
    filter = filter_in(database.storage, filters)
    with indexing() as progress:
        found = costs(database.storage, filter, by, zone=zone(), progress=progress)
    if as_json:
        document(_plain(found, limit))
        return
    if not found.total.runs:
        echo_lines(wrap(no_run(database.storage, filter, asked), width(), 4))
        return
    for line in costs_text.sentences(found):
        echo_lines(wrap(line, width(), 4))
    if found.rows:
        click.echo()
        _print_rows(database, found, limit or ROWS)
    if len(found.cache) > 2:  # with one row and the sum, the sentence above has all figures
        click.echo()
        _print_cache(found, limit or ROWS)


def _plain(found: Costs, limit: int | None) -> dict[str, Any]:
    """Return the document of `--json`."""
    return asdict(found) | {
        "periods": [period._asdict() for period in found.periods],
        "rows": [asdict(row) for row in found.rows[:limit]],
        "total_rows": len(found.rows),
        "cache": [{**asdict(row), "net_usd": row.net_usd} for row in found.cache],
    }


def _print_rows(database: Database, found: Costs, limit: int) -> None:
    shown = found.rows[:limit]
    header = [*costs_text.header(found.by), ""]
    short = by_name.short_ids(database.storage, [row.run_id for row in shown if row.run_id is not None])
    cells = [["", *costs_text.cells(row, found)] for row in shown]
    for row, cell in zip(shown, cells, strict=True):
        if row.run_id is not None:
            cell[1] = cell[1].replace(row.run_id, short[row.run_id])
    taken = sum(2 + max(columns_of(row[n]) for row in (header, *cells)) for n in range(1, len(header)))
    names = max(NAME_COLUMNS, width() - taken) if found.by == "prompt" else NAME_COLUMNS
    for row, cell in zip(shown, cells, strict=True):
        cell[0] = _name(row, found.by, names)
    room = min(MOST_PERIODS, max(0, width() - taken - names) // PERIOD_COLUMNS)
    periods = range(len(found.periods))[-room:] if room and found.by != "day" and len(found.periods) > 1 else range(0)
    header += [costs_text.period_name(found.periods[n], found.unit) for n in periods]
    rows = [
        [*cell, *(costs_text.cost_or_dash(row.costs[n]) for n in periods)]
        for row, cell in zip(shown, cells, strict=True)
    ]
    table(header, rows, right=range(1, len(header)))
    echo_lines(style(line, fg="bright_black") for line in _notes(found, len(shown), periods))


def _name(row: CostRow | CacheRow, by: str, most: int = NAME_COLUMNS) -> str:
    """Return the name of a row on at most that many columns; of a folder that is too long, the end."""
    name = costs_text.row_name(row, by)
    is_long = by == "project" and columns_of(name) > NAME_COLUMNS
    return "…" + name[-NAME_COLUMNS + 1 :] if is_long else fit(name, most)


def _notes(found: Costs, shown: int, periods: Sequence[int]) -> Iterator[str]:
    if shown < len(found.rows):
        yield f"{noun(len(found.rows) - shown, 'more row')}; -n {len(found.rows)} lists all"
    if periods:
        yield f"Costs by {found.unit}{' (from Monday on)' if found.unit == 'week' else ''} on which the call began."


def _print_cache(found: Costs, limit: int) -> None:
    header = ["model" if found.by in BY_STEPS else found.by, *costs_text.CACHE_HEADER]
    rows = [[_name(row, found.by), *costs_text.cache_cells(row)] for row in found.cache[1 : limit + 1]]
    table(header, rows, right=range(1, len(header)))
