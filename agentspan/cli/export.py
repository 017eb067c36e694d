"""`agentspan export`: runs as a file for elsewhere."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from agentspan.analysis import id_prefixes
from agentspan.analysis.agent_names import AT, resolved
from agentspan.analysis.jsonl import lines
from agentspan.analysis.report import markdown
from agentspan.analysis.runs import ids_of
from agentspan.cli import blob_files, destination
from agentspan.cli.filter_options import filter_in
from agentspan.cli.output import Failed, document, noun, safe
from agentspan.database import Database
from agentspan.model.rows import AgentInstanceRow
from agentspan.storage.protocol import Storage
from agentspan.storage.run_filter import RunFilter
from agentspan.storage.scanning import scan

ALL = "all"


def command(
    database: Database,
    what: Sequence[str],
    *,
    form: str,
    output: str | None,
    as_json: bool,
    blobs: str | None = None,
    **given: Any,
) -> None:
    """Write runs to a file, or to stdout."""
    storage = database.storage
    runs = _runs(storage, what, filter_in(storage, given))
    files = {} if blobs is None else {"blobs": blob_files.write(storage, runs, Path(blobs))}
    if output is not None:
        _check(storage, Path(output))
        size = destination.write(Path(output), _text(storage, runs, form))
        to_stdout = destination.is_stdout(output)
        if as_json:
            document({"file": output, "format": form, "bytes": size, "total": len(runs), **files}, err=to_stdout)
        else:
            click.echo(f"{noun(len(runs), 'run')} written to {safe(output)}: {noun(size, 'byte')}", err=to_stdout)
    elif as_json:
        document({"format": form, "content": "".join(_text(storage, runs, form)), "total": len(runs), **files})
    else:
        for part in _text(storage, runs, form):
            # A file for elsewhere is UTF-8, whatever the encoding of this terminal is.
            click.echo(part if sys.stdout.isatty() else part.encode("utf-8", "replace"), nl=False)
    if blobs is not None and not as_json:
        click.echo(f"{noun(files['blobs'], 'blob')} in {safe(blobs)}", err=True)


def _runs(storage: Storage, what: Sequence[str], filter: RunFilter) -> list[str]:
    if filter != RunFilter():
        if what not in ((), (ALL,)):
            raise click.UsageError("RUN and filters of runs exclude each other")
        return ids_of(storage, filter)[::-1]
    if not what:
        raise click.UsageError(f"a RUN is missing, or a filter; {ALL} is every run")
    if ALL in what:
        return [row.id for row in scan(storage, AgentInstanceRow)]  # ids only: 90 MB for a million runs
    found: dict[str, None] = {}
    for one in what:
        of_version = resolved(storage, RunFilter(agent=one)) if AT in one else None
        ids = [id_prefixes.find_run(storage, one).id] if of_version is None else ids_of(storage, of_version)[::-1]
        found.update(dict.fromkeys(ids))
    return [*found]


def _text(storage: Storage, runs: list[str], form: str) -> Iterator[str]:
    if form == "html":
        from agentspan.viewer.export import parts

        yield from parts(storage, runs)
        return
    if form == "otlp":
        from agentspan.otel.forwarding import lines as otlp_lines

        for line in otlp_lines(storage, runs):
            yield line + "\n"
        return
    is_compact = form == "compact"
    for line in lines(storage, runs, compact=is_compact) if form != "markdown" else markdown(storage, runs):
        yield line + "\n"


def _check(storage: Storage, path: Path) -> None:
    location = storage.capabilities().location
    read = None if location is None else location.path
    if read is not None and path.exists() and path.samefile(read):
        raise Failed(f"{path} is the file that is read; choose another name")
