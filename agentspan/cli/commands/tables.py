"""Commands on the tables of a database: storage init, storage status."""

import click

from agentspan.cli.app import location_in, main, options
from agentspan.storage.answers import WIDTHS
from agentspan.storage.questions import AHEAD


@main.group()
def storage() -> None:
    """Prepare the tables of a database, and show their partitions."""


@storage.command()
@click.argument("url", required=False)
@click.option("--ahead", metavar="N", type=click.IntRange(0, 1000), default=AHEAD, show_default=True,
              help="How many partitions there should be for times to come.")  # fmt: skip
@click.option("--since", metavar="TIME", help="Make also those of all times since: 90d, 2026-01-01 …")
@click.option("--width", type=click.Choice(WIDTHS), help="Of new partitions; that of the latest one when left out.")
@click.option("--citus", is_flag=True, help="Distribute the finished spans over the workers of a Citus cluster.")
@click.option("--shards", metavar="N", type=click.IntRange(1, 1024), default=32, show_default=True,
              help="With --citus: in how many parts a partition is distributed.")  # fmt: skip
@options
@click.pass_context
def init(
    ctx: click.Context,
    url: str | None,
    ahead: int,
    since: str | None,
    width: str | None,
    citus: bool,
    shards: int,
    db: str | None,
    as_json: bool,
) -> None:
    """Make or migrate the tables of URL, or of --db, and the partitions that are missing."""
    from agentspan.cli import storage as storage_

    storage_.init(
        location_in(ctx, url or db),
        ahead=ahead,
        since=since,
        width=width,
        shards=shards if citus else None,
        as_json=as_json,
    )


@storage.command()
@click.argument("url", required=False)
@options
@click.pass_context
def status(ctx: click.Context, url: str | None, db: str | None, as_json: bool) -> None:
    """Show the version of the tables of URL, or of --db, their partitions, and how far the index is."""
    from agentspan.cli import storage as storage_

    storage_.status(location_in(ctx, url or db), as_json=as_json)
