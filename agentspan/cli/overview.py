"""`agentspan` without a command: what happened to the runs of the last day, or how to get a first run."""

from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import click

from agentspan.analysis import by_name
from agentspan.analysis.overview import Overview, overview
from agentspan.answers import overview as answers
from agentspan.answers.blocks import Command
from agentspan.cli.app import command, location_in, opened, reads
from agentspan.cli.filter_options import (
    asked_for,
    filter_in,
    filter_options,
    no_run,
    options_of,
    outcome_option,
    outcome_rule,
)
from agentspan.cli.output import (
    document,
    echo_lines,
    indexing,
    is_collected,
    to_copy,
    width,
    wrap,
)
from agentspan.cli.rendering import beside, show
from agentspan.database import Database

MOST_CAUSES = 3


def answer_alone(ctx: click.Context) -> None:
    """Print the overview of the file in at most twelve lines; without runs, three ways to get a first one."""
    location = location_in(ctx, None)
    if location.path is not None and not location.path.exists():
        echo_lines(_first_steps())
        return
    with opened(ctx, None) as database:
        _answer(database, None, {}, as_json=False)


@command("overview")
@outcome_option
@filter_options
@reads
def overview_command(database: Database, *, outcome: str | None, as_json: bool, **filters: Any) -> None:
    """Say what happened to the runs of the last day that has some: how many failed, and why most often.

    --since replaces the day. After an import of many days, it is about all that was imported.
    """
    _answer(database, outcome, filters, as_json=as_json)


def _answer(database: Database, outcome: str | None, filters: dict[str, Any], *, as_json: bool) -> None:
    storage, judge, asked, options = database.storage, outcome_rule(outcome), asked_for(filters), options_of(filters)
    filter = filter_in(storage, filters)
    with indexing() as progress:
        found = overview(storage, filter, judge, progress=progress)
    if as_json:
        document(_plain(found))
    elif found.runs:
        pair = [] if found.pair is None else [*by_name.short_ids(storage, found.pair).values()]
        further = answers.further(found, options, pair)
        browser = [] if is_collected() else [Command("in a browser", ("open",))]
        blocks = [*answers.overview(found, MOST_CAUSES), replace(further, ways=[*further.ways, *browser])]
        show([blocks], storage)
    else:
        echo_lines(wrap(no_run(storage, filter, asked), width(), 4) if asked else _first_steps())


def _plain(found: Overview) -> dict[str, Any]:
    named = {each.name: getattr(found, each.name) for each in fields(found)}
    causes = None if found.causes is None else [asdict(each) for each in found.causes]
    own = {
        "pair": found.pair and found.pair._asdict(),
        "totals": found.totals._asdict(),
        "buckets": [asdict(each) for each in found.buckets],
        "causes": causes,
    }
    return {**named, **own, "answer": found.answer, "sums": found.sums}


def _first_steps() -> Iterator[str]:
    tests = Path(".agentspan", "tests.db")
    ways = {to_copy("runs", db=tests): "the runs of your tests"} if tests.is_file() else {}
    ways |= {
        to_copy("demo"): "record a small agent, and look at its run",
        to_copy("import"): "take in sessions of coding agents",
        "import agentspan; agentspan.instrument()": "in a program of yours",
    }
    return beside(ways)
