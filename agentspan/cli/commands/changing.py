"""Commands that write to the database: demo, rederive, score, terminate, init, doctor, prune."""

from typing import Any

import click

from agentspan.cli.app import location_in, main, opened, opened_existing, options
from agentspan.cli.filter_options import filter_options
from agentspan.model.scores import SOURCES
from agentspan.storage.answers import WIDTHS
from agentspan.storage.questions import AHEAD


@main.command()
@options
@click.pass_context
def demo(ctx: click.Context, db: str | None, as_json: bool) -> None:
    """Record a small real agent at work on the current folder, and show its run."""
    from agentspan.cli import demo_agent

    demo_agent.command(location_in(ctx, db), as_json=as_json)


@main.command()
@click.argument("run", required=False)
@click.option("--summaries", is_flag=True, help="Only summaries, by the newest templates of each agent.")
@click.option("--prices", is_flag=True, help="Only costs, by today's prices; costs that their clients gave stay.")
@options
@click.pass_context
def rederive(ctx: click.Context, /, run: str | None, db: str | None, as_json: bool, **how: bool) -> None:
    """Derive the summaries and costs of RUN, or of all runs, again: after a template or prices have changed."""
    from agentspan.cli import rederive as rederive_

    with opened_existing(ctx, db) as database:
        rederive_.command(database, run, as_json=as_json, **how)


@main.command(context_settings={"ignore_unknown_options": True})  # a VALUE may be -1
@click.argument("target", metavar="RUN")
@click.argument("name", required=False)
@click.argument("value", required=False)
@click.option("--mark", metavar="LABEL", help="Mark it as good, bad or any other word: a score without a NAME.")
@click.option("--note", metavar="TEXT", help="Why; without a VALUE or a mark, a note of its own.")
@click.option("--by", type=click.Choice(SOURCES), help="Who judged; code, or human of marks and notes, when left out.")
@click.option("--as", "identifier", metavar="NAME", help="The judge, where several judge the same: each has a score.")
@click.option("--remove", is_flag=True, help="Take back the score; without a NAME, the mark and the note.")
@options
@click.pass_context
def score(
    ctx: click.Context, /, target: str, name: str | None, value: str | None, db: str | None, as_json: bool, **how: Any
) -> None:
    """Score RUN, or the span with this id: NAME is what is judged, VALUE a number, true, false or a word.

    The newest score of a NAME counts, and so does the newest mark.
    """
    from agentspan.cli import score as score_

    with opened_existing(ctx, db) as database:
        score_.command(database, target, name, value, as_json=as_json, **how)


@main.command()
@click.argument("run")
@click.option("--reason", required=True, help="Why; it is stored on the run, and its program receives it.")
@options
@click.pass_context
def terminate(ctx: click.Context, run: str, db: str | None, as_json: bool, reason: str) -> None:
    """Terminate RUN, for good: its open spans are closed, and its program learns of it at its next span."""
    from agentspan.cli import terminate as terminate_

    with opened_existing(ctx, db) as database:
        terminate_.command(database, run, reason, as_json=as_json)


@main.command()
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
    ctx: click.Context, /, url: str | None, citus: bool, shards: int, db: str | None, as_json: bool, **how: Any
) -> None:
    """Make or migrate the tables of URL, or of --db, and the partitions that are missing."""
    from agentspan.cli import init as init_

    init_.command(location_in(ctx, url or db), shards=shards if citus else None, as_json=as_json, **how)


@main.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--dead-host", "dead_hosts", metavar="NAME", multiple=True, help="A host whose programs are all dead.")
@click.option("--idle", metavar="TIME", help="Close runs made by id that have not changed for so long: 2h, 7d …")
@click.option("--schemas", is_flag=True, help="Only list the span types of agents, and what of them cannot be used.")
@click.option("--all", "all_types", is_flag=True, help="With --schemas: include the built-in span types.")
@click.option("--tables", is_flag=True, help="Only show the version of the tables, and their partitions.")
@options
@click.pass_context
def doctor(
    ctx: click.Context,
    /,
    db: str | None,
    as_json: bool,
    dry_run: bool,
    schemas: bool,
    all_types: bool,
    tables: bool,
    **how: Any,
) -> None:
    """Check the file, and close the runs and spans that programs left open when they died."""
    from agentspan.cli import doctor as doctor_

    if ((schemas or tables) and ((schemas and tables) or any(how.values()))) or (all_types and not schemas):
        raise click.UsageError("--schemas (with --all) and --tables only list; each stands alone")
    if tables:
        doctor_.tables(location_in(ctx, db), as_json=as_json)
    elif schemas:
        with opened(ctx, db) as database:
            doctor_.schemas(database, as_json=as_json, all_types=all_types)
    else:
        with opened_existing(ctx, db, read_only=dry_run) as database:
            doctor_.command(database, dry_run=dry_run, as_json=as_json, **how)


@main.command()
@click.option("--older-than", metavar="TIME", help="Runs that finished before: 30d, 12h ago, 2026-11-24 …")
@click.option("--max-size", metavar="SIZE", help="The oldest runs, until no more is in use: 500MB, 2GB …")
@click.option("--keep-failed", is_flag=True, help="Keep runs that failed, or in which a span did.")
@click.option("--whole-partitions", is_flag=True, help="PostgreSQL: only drop partitions that are old as a whole.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@filter_options
@options
@click.pass_context
def prune(ctx: click.Context, /, db: str | None, as_json: bool, dry_run: bool, **how: Any) -> None:
    """Remove old runs that have finished, and idempotency keys older than 7 days; make the file smaller.

    With filters, only runs that match are removed: all of these, if neither --older-than nor --max-size is given.
    """
    from agentspan.cli import prune as prune_

    with opened_existing(ctx, db, read_only=dry_run) as database:
        prune_.command(database, dry_run=dry_run, as_json=as_json, **how)
