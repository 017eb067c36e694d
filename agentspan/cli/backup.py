"""`agentspan backup`: copies a database to a new file, or into a pipe or device."""

import sys

import click

from agentspan.cli.destination import is_stdout
from agentspan.cli.output import Failed, document, noun, safe
from agentspan.database import Database
from agentspan.maintenance import backup


def command(database: Database, file: str, *, as_json: bool) -> None:
    """Copy the database to a file while other processes write to it, and print the size of the copy."""
    to_stdout = is_stdout(file)
    if to_stdout:
        if sys.stdout.isatty():
            raise Failed("a backup is no text for a terminal; name a file, or redirect it")
        copied = backup.pour(database.storage, sys.stdout.buffer)
    else:
        copied = backup.backup(database.storage, file)
    if as_json:
        document({"file": file, "bytes": copied}, err=to_stdout)
    else:
        click.echo(f"copied to {safe(file)}: {noun(copied, 'byte')}", err=to_stdout)
