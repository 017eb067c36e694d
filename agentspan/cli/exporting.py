"""`agentspan export` and `agentspan import`: runs as files for elsewhere, and back."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click

from agentspan.analysis import find
from agentspan.analysis.jsonl import lines
from agentspan.analysis.report import markdown
from agentspan.cli.output import document, noun
from agentspan.operations.context import Context
from agentspan.operations.database import Database
from agentspan.operations.importing import import_lines
from agentspan.storage.protocol import Query, Storage
from agentspan.storage.sqlite import SQLiteStorage

ALL = "all"


def export(database: Database, what: Sequence[str], *, form: str, output: str | None, as_json: bool) -> None:
    """Write runs to a file, or to stdout."""
    storage = database.storage
    runs = _runs(storage, what)
    if output is not None:
        size = _write(storage, Path(output), _text(storage, runs, form))
        if as_json:
            document({"file": output, "format": form, "bytes": size, "total": len(runs)})
        else:
            click.echo(f"{noun(len(runs), 'run')} written to {output}: {noun(size, 'byte')}")
    elif as_json:
        document({"format": form, "content": "".join(_text(storage, runs, form)), "total": len(runs)})
    else:
        for part in _text(storage, runs, form):
            click.echo(part, nl=False)


def _runs(storage: Storage, what: Sequence[str]) -> list[str]:
    if ALL in what:
        return [row.id for row in storage.page(Query("agent_instance")).rows]
    return list(dict.fromkeys(find.run(storage, one).id for one in what))


def _text(storage: Storage, runs: list[str], form: str) -> Iterator[str]:
    if form == "html":
        from agentspan.viewer.export import parts

        yield from parts(storage, runs)
        return
    for line in lines(storage, runs) if form == "jsonl" else markdown(storage, runs):
        yield line + "\n"


def _write(storage: Storage, path: Path, parts: Iterable[str]) -> int:
    """Write a file whole or not at all, readable by its owner only, like the one that it is from."""
    if isinstance(storage, SQLiteStorage) and path.exists() and path.samefile(storage.path):
        raise click.ClickException(f"{path} is the file that is read; choose another name")
    try:
        number, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.absolute().parent)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(number, "w", encoding="utf-8", errors="replace", newline="\n") as file:
            file.writelines(parts)
        size = os.path.getsize(name)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    return size


def import_(database: Database, source: IO[bytes], *, as_json: bool) -> None:
    """Take in a file that export wrote."""

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
    """Open a file to be read twice: what comes through a pipe is put aside first."""
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
        raise click.ClickException(f"{file} cannot be read: {error.strerror}") from None
    with tempfile.TemporaryFile() as aside:
        shutil.copyfileobj(sys.stdin.buffer, aside)
        yield aside
