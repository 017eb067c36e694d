"""`agentspan export`: runs as a file for elsewhere.

Images, audio and other bytes of runs go into a folder: a file each, named by its hash. Nothing in a file's path comes
from a payload: the ending is one of a fixed list.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import click

from agentspan import files
from agentspan.analysis import dataset, id_prefixes
from agentspan.analysis.agent_names import AT, resolved
from agentspan.analysis.jsonl import lines
from agentspan.analysis.report import markdown
from agentspan.analysis.runs import ids_of
from agentspan.blobs import blobs_in, ending_of
from agentspan.cli import destination
from agentspan.cli.filter_options import filter_in
from agentspan.cli.output import Failed, document, noun, safe
from agentspan.database import Database
from agentspan.model.rows import AgentInstanceRow
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find, RunFilter, SpansOf
from agentspan.storage.row_by_row import expect
from agentspan.storage.scanning import scan


def write(storage: Storage, runs: Iterable[str], folder: Path) -> int:
    """Write each blob of these runs to a file of mode 0600, if there is none of its name; return how many there are.

    Raises:
        Failed: the folder or a file cannot be written.
    """
    found: set[str] = set()
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        for text in _texts(storage, runs):
            for blob in blobs_in(text):
                hash = sha256(blob.data).hexdigest()
                if hash not in found:
                    found.add(hash)
                    _write(folder / f"{hash}.{ending_of(blob.media_type)}", blob.data)
    except OSError as error:
        raise Failed(f"{folder} cannot be written: {error.strerror}") from None
    return len(found)


def _texts(storage: Storage, runs: Iterable[str]) -> Iterator[str]:
    for id in runs:
        run = expect(storage.ask(Find(id, instance_id=id)), AgentInstanceRow, id)
        yield from (text for text in (run.metadata, run.result, run.error) if text is not None)
        for span in storage.ask(SpansOf(id)):
            yield from (text for text in (span.payload, span.result_payload) if text is not None)


def _write(target: Path, data: bytes) -> None:
    number, name = files.aside(target)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(data)
        os.link(name, target)  # unlike a rename it fails where there is a file
    except FileExistsError:
        pass
    finally:
        os.unlink(name)


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
    files = {} if blobs is None else {"blobs": write(storage, runs, Path(blobs))}
    if form == "dataset" and output is not None and output.endswith(".parquet"):
        _check(storage, Path(output))
        _written(output, form, dataset.write_parquet(storage, runs, Path(output)), len(runs), files, as_json=as_json)
    elif form == "parquet":
        _write_tables(storage, runs, output, files, as_json=as_json)
    elif output is not None:
        _check(storage, Path(output))
        is_csv = form == "dataset" and output.endswith(".csv")
        size = destination.write(Path(output), _text(storage, runs, "csv" if is_csv else form))
        _written(output, form, size, len(runs), files, as_json=as_json)
    elif as_json:
        document({"format": form, "content": "".join(_text(storage, runs, form)), "total": len(runs), **files})
    else:
        for part in _text(storage, runs, form):
            # A file for elsewhere is UTF-8, whatever the encoding of this terminal is.
            click.echo(part if sys.stdout.isatty() else part.encode("utf-8", "replace"), nl=False)
    if blobs is not None and not as_json:
        click.echo(f"{noun(files['blobs'], 'blob')} in {safe(blobs)}", err=True)


def _written(output: str, form: str, size: int, runs: int, beside: dict[str, int], *, as_json: bool) -> None:
    to_stdout = destination.is_stdout(output)
    if as_json:
        document({"file": output, "format": form, "bytes": size, "total": runs, **beside}, err=to_stdout)
    else:
        click.echo(f"{noun(runs, 'run')} written to {safe(output)}: {noun(size, 'byte')}", err=to_stdout)


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


def _write_tables(
    storage: Storage, runs: list[str], output: str | None, beside: dict[str, int], *, as_json: bool
) -> None:
    from agentspan.analysis import parquet

    if output is None:
        raise Failed("--format parquet writes three files: name their folder with -o")
    written = parquet.write(storage, runs, Path(output))
    if as_json:
        document({"folder": output, "format": "parquet", "rows": written, "total": len(runs), **beside})
    else:
        counts = ", ".join(noun(number, name.removesuffix("s")) for name, number in written.items())
        click.echo(f"{counts} written to {safe(output)}")


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
    if form == "dataset":
        yield from (f"{line}\n" for line in dataset.lines(storage, runs))
        return
    if form == "csv":
        yield from dataset.csv_lines(storage, runs)
        return
    is_compact = form == "compact"
    for line in lines(storage, runs, compact=is_compact) if form != "markdown" else markdown(storage, runs):
        yield line + "\n"


def _check(storage: Storage, path: Path) -> None:
    location = storage.capabilities().location
    read = None if location is None else location.path
    if read is not None and path.exists() and path.samefile(read):
        raise Failed(f"{path} is the file that is read; choose another name")
