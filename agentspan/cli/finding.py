"""The commands of findings that are declared in `agentspan/answers/findings.py`, such as `agentspan cost`."""

from typing import Any

import click

from agentspan.answers.finding import Asked
from agentspan.answers.findings import finding_of
from agentspan.cli.app import HELPS, command, reads
from agentspan.cli.filter_options import asked_for, filter_in, filter_options, no_run
from agentspan.cli.output import document, echo_lines, indexing, width, wrap, zone
from agentspan.cli.rendering import show
from agentspan.database import Database


def command_of(name: str) -> click.Command:
    """Return the command of a finding."""
    finding = finding_of(name)
    rows = f"List N rows at most; {finding.rows} when left out."

    @filter_options
    @click.option("-n", "--limit", metavar="N", type=click.IntRange(1), help=rows)
    @reads
    def answer(database: Database, *, limit: int | None, as_json: bool, by: str = "", **filters: Any) -> None:
        asked = asked_for(filters)
        filter = filter_in(database.storage, filters)
        with indexing() as progress:
            found = finding.find(database.storage, filter, Asked(by, limit, zone(), progress))
        if as_json:
            document(finding.plain(found, limit))
            return
        parts = [[*part] for part in finding.answer(found, limit or finding.rows)]
        show(parts, database.storage, whole="-n {} lists all")
        if not any(parts):
            echo_lines(wrap(no_run(database.storage, filter, asked), width(), 4))

    answer.__doc__ = f"{HELPS[name]}\n\n{finding.about}"
    if finding.kinds:
        kinds = click.Choice(finding.kinds)
        how: dict[str, Any] = {"type": kinds, "default": finding.kinds[0], "show_default": True}
        answer = click.option("--by", help="Say what the rows are.", **how)(answer)
    return command(name)(answer)
