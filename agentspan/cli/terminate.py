"""`agentspan terminate`: terminates a run and closes its open spans."""

import click

from agentspan.analysis import id_prefixes
from agentspan.cli.output import document
from agentspan.database import Database
from agentspan.storage.questions import SpansOf


def command(database: Database, what: str, reason: str, *, as_json: bool) -> None:
    """Terminate a run."""
    run = database.agent_instances.terminate(id_prefixes.find_run(database.storage, what).id, reason)
    if as_json:
        document({"run": run.model_dump(mode="json")})
    else:
        closed = sum(span.closed_by == "terminated" for span in database.storage.ask(SpansOf(run.id)))
        click.echo(f"terminated run {run.id}; {closed} open {'span' if closed == 1 else 'spans'} closed")
