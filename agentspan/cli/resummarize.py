"""`agentspan resummarize`: renders stored summaries again."""

import sys

import click

from agentspan.analysis import find
from agentspan.cli.output import document
from agentspan.database import Database
from agentspan.maintenance import resummarize as operation
from agentspan.model.rows import AgentInstanceRow
from agentspan.operations.context import Context
from agentspan.storage.protocol import Query, Storage


def command(database: Database, what: str | None, *, as_json: bool) -> None:
    """Render summaries again, with a progress bar on a terminal."""
    storage = database.storage
    instances = _all_instances(storage) if what is None else [find.run(storage, what)]
    total = sum(counts.total for counts in storage.counts([row.id for row in instances]).values())
    seen = changed = 0
    with click.progressbar(length=total, label="resummarize", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        for progress in operation.resummarize(Context(storage), iter(instances)):
            seen += progress.seen
            changed += progress.changed
            bar.update(progress.seen)
    if as_json:
        document({"spans": seen, "changed": changed})
    else:
        click.echo(f"{changed} of {seen} summaries changed")


def _all_instances(storage: Storage) -> list[AgentInstanceRow]:
    return [row for row in storage.page(Query("agent_instance")).rows if isinstance(row, AgentInstanceRow)]
