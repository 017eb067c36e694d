"""`agentspan export` and `agentspan import`: runs as files for elsewhere, and back."""

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click

from agentspan import files
from agentspan.analysis import find
from agentspan.analysis.jsonl import lines
from agentspan.analysis.report import markdown
from agentspan.cli.output import document, noun
from agentspan.model.rows import AgentInstanceRow
from agentspan.operations.context import Context
from agentspan.operations.database import Database
from agentspan.operations.importing import import_lines
from agentspan.storage.protocol import Storage
from agentspan.storage.scanning import scan

ALL = "all"
_AS_TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "replace", "newline": "\n"}


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
        return [row.id for row in scan(storage, AgentInstanceRow)]  # ids only: 90 MB for a million runs
    return list(dict.fromkeys(find.run(storage, one).id for one in what))


def _text(storage: Storage, runs: list[str], form: str) -> Iterator[str]:
    if form == "html":
        from agentspan.viewer.export import parts

        yield from parts(storage, runs)
        return
    for line in lines(storage, runs) if form == "jsonl" else markdown(storage, runs):
        yield line + "\n"


def _write(storage: Storage, path: Path, parts: Iterable[str]) -> int:
    """Write a file whole or not at all. A new one is readable by its owner only; one that exists keeps its mode."""
    location = storage.capabilities().location
    read = None if location is None else location.path
    if read is not None and path.exists() and path.samefile(read):
        raise click.ClickException(f"{path} is the file that is read; choose another name")
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and not target.is_file():  # a pipe, /dev/stdout: nothing to be put in its place
            with target.open("w", **_AS_TEXT) as file:
                return sum(file.write(part) and len(part.encode("utf-8", "replace")) for part in parts)
        number, name = files.aside(target)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(number, "w", **_AS_TEXT) as file:
            file.writelines(parts)
            file.flush()
            size = os.fstat(number).st_size
            if target.exists():
                os.chmod(name, stat.S_IMODE(target.stat().st_mode))
        os.replace(name, target)
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
