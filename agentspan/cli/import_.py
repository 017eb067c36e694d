"""`agentspan import`: reads the runs of a file that `agentspan export` wrote into the database."""

import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO

import click

from agentspan.cli.output import Failed, document, noun
from agentspan.database import Database
from agentspan.maintenance.importing import import_lines
from agentspan.operations.context import Context


def command(database: Database, source: IO[bytes], *, as_json: bool) -> None:
    """Import a file that `export` wrote, and print how many runs and spans are new."""

    def read() -> Iterable[bytes]:
        source.seek(0)
        return source

    done = import_lines(Context(database.storage), read)
    if as_json:
        document(done._asdict())
        return
    click.echo(f"{noun(done.runs, 'run')} and {noun(done.spans, 'span')} imported")
    if done.finished:
        click.echo(f"{noun(done.finished, 'row')} that had been open finished")
    if done.known:
        click.echo(f"{noun(done.known, 'row')} known already")


@contextmanager
def seekable(file: str) -> Iterator[IO[bytes]]:
    """Open a file so that it can be read twice; a pipe is copied to a temporary file first."""
    try:
        if file != "-":
            with open(file, "rb") as source:
                if source.seekable():
                    yield source
                    return
                with tempfile.TemporaryFile() as aside:
                    shutil.copyfileobj(source, aside)
                    yield aside
            return
    except OSError as error:
        if error.filename is None:
            raise
        raise Failed(f"{file} cannot be read: {error.strerror}") from None
    with tempfile.TemporaryFile() as aside:
        shutil.copyfileobj(sys.stdin.buffer, aside)
        yield aside
