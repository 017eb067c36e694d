"""`agentspan import`: reads runs into the database, from a file that `agentspan export` wrote, or from OTLP."""

import gzip
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, cast

import click

from agentspan.analysis import dataset
from agentspan.api.context import Context
from agentspan.cli.output import Failed, document, noun, safe
from agentspan.database import Database
from agentspan.maintenance.importing import import_lines
from agentspan.storage.protocol import Storage

GZIP = b"\x1f\x8b"
"""The first bytes of a file of gzip."""


def command(database: Database, source: IO[bytes], *, as_json: bool) -> None:
    """Import a file that `export` wrote, compressed with gzip or not, and print how many runs and spans are new."""
    with opened_lines(database.storage, source) as read:
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
def opened_lines(storage: Storage, source: IO[bytes]) -> Iterator[Callable[[], Iterable[bytes]]]:
    """Return a function that reads the lines of an export from the first on: of a file, of gzip, or of a dataset."""
    is_packed = source.read(len(GZIP)) == GZIP
    plain = cast(IO[bytes], gzip.GzipFile(fileobj=source)) if is_packed else source

    def read() -> Iterable[bytes]:
        plain.seek(0)
        return dataset.export_lines(storage, plain) if is_dataset else plain

    try:
        source.seek(0)
        is_dataset = dataset.is_dataset(plain.readline())
        yield read
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise Failed("the file is no whole file of gzip; compress it again") from None


def command_otlp(database: Database, sources: Sequence[tuple[str, IO[bytes]]], *, as_json: bool) -> None:
    """Import files of OTLP requests, and print how many runs and spans are new.

    Args:
        sources: the names of the files, and the files.
    """
    from agentspan.errors import InvalidValue
    from agentspan.otel.otlp.decoded import Decoded
    from agentspan.otel.otlp.requests import read_file
    from agentspan.otel.receiving import import_spans
    from agentspan.recording.capture.plain import SentRedaction

    total = Decoded()
    for name, source in sources:
        try:
            for _, found in read_file(source):
                total.spans += found.spans
                total.logs += found.logs
                for reason, count in found.unusable.items():
                    total.reject(reason, count)
        except InvalidValue as error:
            raise Failed(f"{name}: {error}") from None
    done = import_spans(Context(database.storage, redacts=SentRedaction()), total.spans, total.logs)
    if as_json:
        document({**done._asdict(), "unusable": total.rejected, "why": total.why()})
        return
    click.echo(f"{noun(done.runs, 'run')} and {noun(done.spans, 'span')} imported")
    if done.duplicates:
        click.echo(f"{noun(done.duplicates, 'span')} of them repeat another's call of a model")
    if done.known:
        click.echo(f"{noun(done.known, 'span')} known already")
    if done.skipped:
        click.echo(f"{noun(done.skipped, 'span')} left out, because they are no steps")
    if total.rejected:
        click.echo(f"{noun(total.rejected, 'span')} could not be used: {safe(total.why())}", err=True)


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
