"""`agentspan rederive`: derives summaries and costs of stored spans again."""

import sys

import click

from agentspan.analysis import id_prefixes
from agentspan.api.context import Context
from agentspan.cli.output import Failed, document, noun
from agentspan.database import Database
from agentspan.errors import InvalidValue
from agentspan.maintenance import rederive
from agentspan.model.rows import AgentInstanceRow
from agentspan.storage.questions import Counts
from agentspan.storage.scanning import count, scan


def command(database: Database, what: str | None, *, summaries: bool, prices: bool, as_json: bool) -> None:
    """Set summaries by the newest templates, then costs by today's prices, with a progress bar on a terminal."""
    storage = database.storage
    run = None if what is None else id_prefixes.find_run(storage, what)
    total = count(storage, "agent_span") if run is None else storage.ask(Counts([run.id]))[run.id].total
    works = [
        *([("summaries", rederive.summaries)] if summaries or not prices else []),
        *([("costs", rederive.costs)] if prices or not summaries else []),
    ]
    seen, changed = 0, {}
    for name, work in works:
        instances = scan(storage, AgentInstanceRow) if run is None else iter((run,))
        seen = changed[name] = 0
        try:
            with click.progressbar(length=total, label=name, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
                for progress in work(Context(storage), instances):
                    seen += progress.seen
                    changed[name] += progress.changed
                    bar.update(progress.seen)
        except InvalidValue as error:  # the file of one's own prices
            raise Failed(str(error)) from None
    if as_json:
        document({"spans": seen, "changed": changed})
    else:
        for name, number in changed.items():
            click.echo(f"{name} of {number:,} of {noun(seen, 'span')} changed")
