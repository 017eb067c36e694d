"""`agentspan` without a command: what happened to the runs of the last day, or how to get a first run."""

from collections.abc import Iterator
from pathlib import Path

import click

from agentspan.analysis import by_name
from agentspan.analysis.overview import Overview, overview
from agentspan.cli.app import location_in, opened
from agentspan.cli.filter_options import outcome_rule
from agentspan.cli.output import bar, columns_of, echo_lines, fit, pad, to_copy, width, wrap

MOST_CAUSES = 3


def answer_alone(ctx: click.Context) -> None:
    """Print the overview of the file in at most twelve lines; without runs, three ways to get a first one."""
    location = location_in(ctx, None)
    if location.path is not None and not location.path.exists():
        echo_lines(_first_steps())
        return
    with opened(ctx, None) as database, bar("indexing") as progress:
        found = overview(database.storage, judge=outcome_rule(None), progress=progress)
        pair = [] if found.pair is None else [*by_name.short_ids(database.storage, found.pair).values()]
    echo_lines(_lines(found, pair) if found.runs else _first_steps())


def _first_steps() -> Iterator[str]:
    tests = Path(".agentspan", "tests.db")
    ways = {to_copy("runs", db=tests): "the runs of your tests"} if tests.is_file() else {}
    ways |= {
        to_copy("demo"): "record a small agent, and look at its run",
        to_copy("import"): "take in sessions of coding agents",
        "import agentspan; agentspan.instrument()": "in a program of yours",
    }
    return _beside(ways)


def _lines(found: Overview, pair: list[str]) -> Iterator[str]:
    columns = width()
    yield from wrap(found.answer, columns, 2)
    for cause in (found.causes or ())[:MOST_CAUSES]:
        only = "" if cause.only_in is None else fit(f" · only in {cause.only_in}", columns // 3)
        yield f"  {cause.runs:>4,} × {fit(cause.text, columns - 9 - columns_of(only))}{only}"
    rest = len(found.causes or ()) - MOST_CAUSES
    if rest > 0:
        yield f"  {'…':>4}   and {rest:,} more"
    if found.silent:
        yield f"  {found.silent:>4,} × no step failed"
    yield found.sums
    ways = {to_copy("why"): "what goes with failure"} if found.failed or found.missed else {}
    if pair:
        ways[to_copy("diff", *pair)] = "where the latest parts from a success"
    yield from _beside({**ways, to_copy("runs"): "each run, and why it failed", to_copy("serve"): "in a browser"})


def _beside(ways: dict[str, str]) -> Iterator[str]:
    """Yield commands with their meanings beside them. A command is never cut; a meaning that lacks room is left out."""
    widest = max(columns_of(command) for command in ways)
    for command, meaning in ways.items():
        line = f"  {pad(command, widest)}  {meaning}"
        yield line if columns_of(line) <= width() else f"  {command}"
