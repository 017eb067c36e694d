"""`agentspan cost` prints the costs of runs, by model, day, prompt …, and the savings of the providers' caches."""

from dataclasses import asdict
from typing import Any

import click

from agentspan.analysis.costs import BYS, Costs, costs
from agentspan.answers import cost
from agentspan.cli.app import command, reads
from agentspan.cli.filter_options import asked_for, filter_in, filter_options, no_run
from agentspan.cli.output import document, echo_lines, indexing, width, wrap, zone
from agentspan.cli.rendering import show
from agentspan.database import Database

ROWS = 20
"""The number of rows that are printed by default."""


@command("cost")
@click.option("--by", type=click.Choice(BYS), default=BYS[0], show_default=True, help="Say what the rows are.")
@filter_options
@click.option("-n", "--limit", metavar="N", type=click.IntRange(1), help="List N rows at most; 20 when left out.")
@reads
def cost_command(database: Database, *, by: str, limit: int | None, as_json: bool, **filters: Any) -> None:
    """Sum up what runs cost: by model, day, agent, project, tool, version or session; and what caches saved.

    A cost belongs to the day on which its run began. By tool it is that of all model calls inside its calls.
    """
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
    show(cost.answer(found, limit or ROWS), database.storage, whole="-n {} lists all")


def _plain(found: Costs, limit: int | None) -> dict[str, Any]:
    """Return the document of `--json`."""
    return asdict(found) | {
        "periods": [period._asdict() for period in found.periods],
        "rows": [asdict(row) for row in found.rows[:limit]],
        "total_rows": len(found.rows),
        "cache": [{**asdict(row), "net_usd": row.net_usd} for row in found.cache],
    }
