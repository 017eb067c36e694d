"""`agentspan backup`: copies a database to a new file."""

import click

from agentspan.cli.output import document, noun, safe
from agentspan.database import Database
from agentspan.maintenance import backup


def command(database: Database, file: str, *, as_json: bool) -> None:
    """Copy the database to a file while other processes write to it, and print the size of the copy."""
    copied = backup.backup(database.storage, file)
    if as_json:
        document({"file": file, "bytes": copied})
    else:
        click.echo(f"copied to {safe(file)}: {noun(copied, 'byte')}")
