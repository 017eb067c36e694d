"""`agentspan reprice`: computes the costs of stored calls again."""

import sys

import click

from agentspan.analysis import id_prefixes
from agentspan.api.context import Context
from agentspan.cli.output import Failed, document, noun
from agentspan.database import Database
from agentspan.errors import InvalidValue
from agentspan.maintenance import reprice as operation
from agentspan.model.rows import AgentInstanceRow
from agentspan.storage.questions import Counts
from agentspan.storage.scanning import count, scan


def command(database: Database, what: str | None, *, as_json: bool) -> None:
    """Set costs by today's prices, with a progress bar on a terminal."""
    storage = database.storage
    if what is None:
        instances, total = scan(storage, AgentInstanceRow), count(storage, "agent_span")
    else:
        run = id_prefixes.find_run(storage, what)
        instances, total = iter((run,)), storage.ask(Counts([run.id]))[run.id].total
    seen = changed = 0
    try:
        with click.progressbar(length=total, label="reprice", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
            for progress in operation.reprice(Context(storage), instances):
                seen += progress.seen
                changed += progress.changed
                bar.update(progress.seen)
    except InvalidValue as error:  # the file of one's own prices
        raise Failed(str(error)) from None
    if as_json:
        document({"spans": seen, "changed": changed})
    else:
        click.echo(f"costs of {changed} of {noun(seen, 'span')} changed")
