"""Commands that write to the database: demo, resummarize, reprice, mark, score, terminate, doctor, prune."""

from typing import Any

import click

from agentspan.cli.app import location_in, main, opened_existing, options
from agentspan.cli.filter_options import filter_options
from agentspan.model.scores import SOURCES


@main.command()
@options
@click.pass_context
def demo(ctx: click.Context, db: str | None, as_json: bool) -> None:
    """Record a small real agent at work on the current folder, and show its run."""
    from agentspan.cli import demo_agent

    demo_agent.command(location_in(ctx, db), as_json=as_json)


@main.command()
@click.argument("run", required=False)
@options
@click.pass_context
def resummarize(ctx: click.Context, run: str | None, db: str | None, as_json: bool) -> None:
    """Render the summaries of RUN, or of all runs, again, by the newest templates of each agent."""
    from agentspan.cli import resummarize as resummarize_

    with opened_existing(ctx, db) as database:
        resummarize_.command(database, run, as_json=as_json)


@main.command()
@click.argument("run", required=False)
@options
@click.pass_context
def reprice(ctx: click.Context, run: str | None, db: str | None, as_json: bool) -> None:
    """Compute costs again by today's prices, of RUN or of all runs; costs that their clients gave stay."""
    from agentspan.cli import reprice as reprice_

    with opened_existing(ctx, db) as database:
        reprice_.command(database, run, as_json=as_json)


@main.command()
@click.argument("target", metavar="RUN")
@click.argument("label", metavar="[MARK]", required=False)
@click.option("--note", metavar="TEXT", help="Why; without MARK, a note of its own.")
@click.option("--as", "identifier", metavar="NAME", help="Who marks, where several people do: each has a mark.")
@click.option("--remove", is_flag=True, help="Take back the mark and the note.")
@options
@click.pass_context
def mark(
    ctx: click.Context,
    target: str,
    label: str | None,
    note: str | None,
    identifier: str | None,
    remove: bool,
    db: str | None,
    as_json: bool,
) -> None:
    """Mark RUN, or the span with this id, as good, bad or any other word; the newest mark counts."""
    from agentspan.cli import mark as mark_

    with opened_existing(ctx, db) as database:
        mark_.command(database, target, label, note=note, identifier=identifier, remove=remove, as_json=as_json)


@main.command(context_settings={"ignore_unknown_options": True})  # a VALUE may be -1
@click.argument("target", metavar="RUN")
@click.argument("name")
@click.argument("value", required=False)
@click.option("--note", metavar="TEXT", help="Why; without VALUE, a note of its own.")
@click.option("--by", type=click.Choice(SOURCES), default="code", show_default=True, help="Who judged.")
@click.option("--as", "identifier", metavar="NAME", help="The judge, where several judge the same: each has a score.")
@click.option("--remove", is_flag=True, help="Take back the score.")
@options
@click.pass_context
def score(
    ctx: click.Context, /, target: str, name: str, value: str | None, db: str | None, as_json: bool, **how: Any
) -> None:
    """Add a score to RUN, or to the span with this id: VALUE is a number, true, false or a word.

    The newest score of a NAME counts.
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
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--dead-host", "dead_hosts", metavar="NAME", multiple=True, help="A host whose programs are all dead.")
@click.option("--idle", metavar="TIME", help="Close runs made by id that have not changed for so long: 2h, 7d …")
@options
@click.pass_context
def doctor(
    ctx: click.Context, db: str | None, as_json: bool, dry_run: bool, dead_hosts: tuple[str, ...], idle: str | None
) -> None:
    """Check the file, and close the runs and spans that programs left open when they died."""
    from agentspan.cli import doctor as doctor_

    with opened_existing(ctx, db, read_only=dry_run) as database:
        doctor_.command(database, dry_run=dry_run, dead_hosts=dead_hosts, idle=idle, as_json=as_json)


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
