"""`agentspan export`: runs as a file for elsewhere."""

import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from agentspan import files
from agentspan.analysis import id_prefixes
from agentspan.analysis.jsonl import lines
from agentspan.analysis.report import markdown
from agentspan.cli.output import Failed, document, noun, safe
from agentspan.database import Database
from agentspan.model.rows import AgentInstanceRow
from agentspan.storage.protocol import Storage
from agentspan.storage.scanning import scan

ALL = "all"
_AS_TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "replace", "newline": "\n"}


def command(database: Database, what: Sequence[str], *, form: str, output: str | None, as_json: bool) -> None:
    """Write runs to a file, or to stdout."""
    storage = database.storage
    runs = _runs(storage, what)
    if output is not None:
        size = _write(storage, Path(output), _text(storage, runs, form))
        if as_json:
            document({"file": output, "format": form, "bytes": size, "total": len(runs)})
        else:
            click.echo(f"{noun(len(runs), 'run')} written to {safe(output)}: {noun(size, 'byte')}")
    elif as_json:
        document({"format": form, "content": "".join(_text(storage, runs, form)), "total": len(runs)})
    else:
        for part in _text(storage, runs, form):
            # A file for elsewhere is UTF-8, whatever the encoding of this terminal is.
            click.echo(part if sys.stdout.isatty() else part.encode("utf-8", "replace"), nl=False)


def _runs(storage: Storage, what: Sequence[str]) -> list[str]:
    if ALL in what:
        return [row.id for row in scan(storage, AgentInstanceRow)]  # ids only: 90 MB for a million runs
    return list(dict.fromkeys(id_prefixes.find_run(storage, one).id for one in what))


def _text(storage: Storage, runs: list[str], form: str) -> Iterator[str]:
    if form == "html":
        from agentspan.viewer.export import parts

        yield from parts(storage, runs)
        return
    for line in lines(storage, runs) if form == "jsonl" else markdown(storage, runs):
        yield line + "\n"


def _write(storage: Storage, path: Path, parts: Iterable[str]) -> int:
    """Write a file atomically; return its bytes. A new file has mode 0600; an existing one keeps its mode."""
    location = storage.capabilities().location
    read = None if location is None else location.path
    if read is not None and path.exists() and path.samefile(read):
        raise Failed(f"{path} is the file that is read; choose another name")
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and not target.is_file():  # a pipe, /dev/stdout: nothing to be put in its place
            with target.open("w", **_AS_TEXT) as file:
                return sum(file.write(part) and len(part.encode("utf-8", "replace")) for part in parts)
        number, name = files.aside(target)
    except OSError as error:
        raise Failed(f"{path} cannot be written: {error.strerror}") from None
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
