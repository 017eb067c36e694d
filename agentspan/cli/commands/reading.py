"""Commands that only read: runs, show, diff, check, why, tail, stats, search, sql."""

from typing import Any

import click

from agentspan.analysis.agent_names import AT
from agentspan.cli.app import answering, main, opened, options
from agentspan.cli.filter_options import filter_options, page_options
from agentspan.cli.output import utc_option

LATEST_RUNS = 50
FOUND_SPANS = 20


@main.command()
@filter_options
@page_options(LATEST_RUNS, sort=True)
@options
@click.pass_context
def runs(ctx: click.Context, /, db: str | None, as_json: bool, **how: Any) -> None:
    """List runs, the latest first, with totals. A ? marks those that a program left open when it died."""
    from agentspan.cli import runs as runs_

    with opened(ctx, db) as database:
        runs_.command(database, as_json=as_json, **how)


@main.command()
@click.argument("id")
@click.option("--full", is_flag=True, help="Show each of the siblings that repeat, instead of counting them.")
@click.option("--payloads", is_flag=True, help="Show what went in and came out of each span.")
@click.option("--slow", metavar="N", type=click.IntRange(1), help="Only the N spans that took longest by themselves.")
@click.option("--failed", is_flag=True, help="Only the spans that failed.")
@click.option("--around", is_flag=True, help="Of a span: show its run, the steps before and after it.")
@utc_option
@options
@click.pass_context
def show(ctx: click.Context, /, id: str, db: str | None, as_json: bool, **how: Any) -> None:
    """Show a run as a tree, or a span in full. ID is an id, the unique beginning of one, or - for the latest run."""
    from agentspan.cli import show as show_

    with opened(ctx, db) as database:
        show_.command(database, id, as_json=as_json, **how)


@main.command()
@click.argument("a", metavar="[A", required=False)
@click.argument("b", metavar="B]", required=False)
@click.option(
    "--full", is_flag=True, help="Show each step that differs, and each that has other words; of groups all rows."
)
@click.option("--against", metavar="FILTER", help="Count how other runs go on: all, or 'status=complete since=7d' ….")
@click.option("--base", metavar="FILTER", help="The runs that are compared with: AGENT@1.0, 'tag=nightly until=7d' ….")
@click.option("--head", metavar="FILTER", help="The runs that are judged.")
@click.option("--outcome", metavar="RULE", help="Of groups: what passed means, such as 'reward>=1'; or status.")
@click.option(
    "--least",
    metavar="MEASURE=N",
    multiple=True,
    help="Of groups: the smallest difference that counts: duration_ms=10, cost_usd=0.0001.",
)
@click.option("--markdown", is_flag=True, help="Write Markdown.")
@utc_option
@options
@click.pass_context
def diff(
    ctx: click.Context,
    /,
    a: str | None,
    b: str | None,
    base: str | None,
    head: str | None,
    outcome: str | None,
    least: tuple[str, ...],
    against: str | None,
    db: str | None,
    **how: Any,
) -> None:
    """Show where two runs part, A and B: an id, the unique beginning of one, or - for the latest.

    AGENT@1.0 AGENT@2.0, or --base FILTER --head FILTER, shows whether a group of runs is worse than another, or
    differs only by chance.
    """
    from agentspan.cli import diff as diff_

    if a and b and base is head is None and against is None and all(AT in each or "=" in each for each in (a, b)):
        a, b, base, head = None, None, a, b
    if base is not None and head is not None and a is b is None and against is None:
        with opened(ctx, db) as database:
            diff_.groups(database, base, head, outcome=outcome, least=least, **how)
    elif not (a and b and base is head is None):
        raise click.UsageError("two runs are needed, A and B; or two groups: AGENT@1.0 AGENT@2.0, or --base and --head")
    elif outcome is not None or least:
        raise click.UsageError("--outcome and --least are about groups: AGENT@1.0 AGENT@2.0, or --base and --head")
    else:
        with opened(ctx, db) as database:
            diff_.command(database, a, b, against=against, **how)


@main.command()
@click.argument("filter", required=False)
@click.option("--config", metavar="FILE", help="TOML: [budget], [calls], [baseline]; else pyproject.toml.")
@click.option("--outcome", metavar="RULE", help="What passed means, such as 'reward>=1'; or status.")
@click.option("--junit", metavar="FILE", help="Write JUnit XML, too.")
@click.option("--markdown", is_flag=True, help="Write Markdown, for a pull request.")
@filter_options
@options
@click.pass_context
def check(ctx: click.Context, /, filter: str | None, db: str | None, as_json: bool, **how: Any) -> None:
    """Check runs in CI: budgets, calls, a baseline.

    The exit code is 0 if they pass, 1 if not, 2 if they cannot be checked, 3 if they are too few to say.
    """
    from agentspan.cli import check as check_

    with answering(), opened(ctx, db) as database:
        check_.command(database, filter, as_json=as_json, **how)


@main.command()
@click.argument("run", required=False)
@click.option("--outcome", metavar="RULE", help="What passed means, such as 'reward>=1'; or status.")
@filter_options
@click.option("-n", "--limit", default=10, show_default=True, type=click.IntRange(0), help="How many groups to list.")
@options
@click.pass_context
def why(ctx: click.Context, /, run: str | None, db: str | None, as_json: bool, **how: Any) -> None:
    """Group the failed runs by what failed, and list what goes with failure; with RUN, show why it failed."""
    from agentspan.cli import why as why_

    with opened(ctx, db) as database:
        why_.command(database, run, as_json=as_json, **how)


@main.command()
@click.argument("run", required=False)
@click.option("--one", is_flag=True, help="End when the run does, instead of waiting for the next one.")
@click.option("--all", "whole", is_flag=True, help="Begin with the start of the run, instead of its last lines.")
@click.option("--since", metavar="TIME", help="Begin then: 90s, 15m, 2h ago; 02:00, yesterday, 2026-11-24 …")
@utc_option
@options
@click.pass_context
def tail(ctx: click.Context, /, run: str | None, db: str | None, as_json: bool, **how: Any) -> None:
    """Follow RUN from now on, a line for each transition, then the runs after it; without RUN from the latest."""
    from agentspan.cli import tail as tail_

    with opened(ctx, db) as database:
        tail_.command(database, run, as_json=as_json, **how)


@main.command()
@click.argument("run", required=False)
@filter_options
@click.option("-n", "--limit", metavar="N", type=click.IntRange(1), help="How many rows to list; 40 when left out.")
@click.option("--by", type=click.Choice(["version"]), help="List each version of the agent below each row.")
@click.option("--all", "whole", is_flag=True, help="List all types, models and tools.")
@options
@click.pass_context
def stats(ctx: click.Context, /, run: str | None, db: str | None, as_json: bool, **how: Any) -> None:
    """Sum up all spans, or those of RUN or of runs that match, by type and label: counts, errors, durations, cost.

    --since and --until are about spans here, the other filters about their runs.
    """
    from agentspan.cli import stats as stats_

    with opened(ctx, db) as database:
        stats_.command(database, run, as_json=as_json, **how)


@main.command()
@click.argument("words", nargs=-1, required=True)
@click.option("--run", metavar="RUN", help="Only in this run.")
@filter_options
@page_options(FOUND_SPANS)
@options
@click.pass_context
def search(ctx: click.Context, /, words: tuple[str, ...], db: str | None, as_json: bool, **how: Any) -> None:
    """Find the spans whose summary, payload or result has all WORDS; 'two words' in quotes are a phrase."""
    from agentspan.cli import search as search_

    with opened(ctx, db) as database:
        search_.command(database, words, as_json=as_json, **how)


@main.command()
@click.argument("query")
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), help="How to write the rows.")
@options
@click.pass_context
def sql(ctx: click.Context, query: str, db: str | None, as_json: bool, form: str | None) -> None:
    """Run a QUERY in SQL (- reads it from stdin) over the tables and views; it cannot write."""
    from agentspan.cli import sql as sql_

    with opened(ctx, db) as database:
        sql_.command(database, query, form="json" if as_json else form or "table")
