"""`agentspan resummarize`: renders stored summaries again."""

import sys

import click

from agentspan.analysis import id_prefixes
from agentspan.api.context import Context
from agentspan.cli.output import document
from agentspan.database import Database
from agentspan.maintenance import resummarize as operation
from agentspan.model.rows import AgentInstanceRow
from agentspan.storage.questions import Counts
from agentspan.storage.scanning import count, scan


def command(database: Database, what: str | None, *, as_json: bool) -> None:
    """Render summaries again, with a progress bar on a terminal."""
    storage = database.storage
    if what is None:
        instances, total = scan(storage, AgentInstanceRow), count(storage, "agent_span")
    else:
        run = id_prefixes.find_run(storage, what)
        instances, total = iter((run,)), storage.ask(Counts([run.id]))[run.id].total
    seen = changed = 0
    with click.progressbar(length=total, label="resummarize", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        for progress in operation.resummarize(Context(storage), instances):
            seen += progress.seen
            changed += progress.changed
            bar.update(progress.seen)
    if as_json:
        document({"spans": seen, "changed": changed})
    else:
        click.echo(f"{changed} of {seen} summaries changed")
