"""The commands that change what is stored: resummarize, terminate."""

import sys

import click

from agentspan.analysis import find
from agentspan.cli.output import document
from agentspan.model.rows import AgentInstanceRow
from agentspan.operations import resummarize as operation
from agentspan.operations.context import Context
from agentspan.operations.database import Database
from agentspan.storage.scanning import count, scan


def resummarize(database: Database, what: str | None, *, as_json: bool) -> None:
    """Render summaries again, with a progress bar on a terminal."""
    storage = database.storage
    if what is None:
        instances, total = scan(storage, AgentInstanceRow), count(storage, "agent_span")
    else:
        run = find.run(storage, what)
        instances, total = iter((run,)), storage.counts([run.id])[run.id].total
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


def terminate(database: Database, what: str, reason: str, *, as_json: bool) -> None:
    """Terminate a run."""
    run = database.agent_instances.terminate(find.run(database.storage, what).id, reason)
    if as_json:
        document({"run": run.model_dump(mode="json")})
    else:
        closed = sum(span.closed_by == "terminated" for span in database.storage.iter_spans(run.id))
        click.echo(f"terminated run {run.id}; {closed} open {'span' if closed == 1 else 'spans'} closed")
