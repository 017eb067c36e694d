"""`agentspan export` writes runs to a file.

Blobs of runs, such as images and audio, are written to a folder, one file per blob, named by its hash. No part of a
path comes from a payload: the file extension is one of a fixed list.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from agentspan import files
from agentspan.analysis import by_name, dataset
from agentspan.analysis.by_name import AT, resolved
from agentspan.analysis.outcomes import OutcomeRule, decided, outcomes, parse, rule_of
from agentspan.analysis.report import markdown
from agentspan.analysis.runs import ids_of, run_briefs
from agentspan.blobs import blobs_in, ending_of
from agentspan.cli.app import command, reads, removing_unfinished
from agentspan.cli.completion import RUN
from agentspan.cli.filter_options import filter_in, filter_options
from agentspan.cli.output import Failed, document, is_stdout, safe
from agentspan.database import Database
from agentspan.maintenance.jsonl import lines
from agentspan.model.rows import AgentInstanceRow
from agentspan.storage.access import instances, scan
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import RunFilter, SpansOf
from agentspan.text import noun

ALL = "all"
_viewer = find_spec("agentspan.viewer")
_has_html = _viewer is not None and any(Path(f, "export.py").exists() for f in _viewer.submodule_search_locations or ())
_FORMATS = ["jsonl", "compact", "atif", "dataset", "markdown", "otlp", "parquet", *(["html"] if _has_html else [])]


@command("export")
@click.argument("runs", metavar="[RUN...]", nargs=-1, type=RUN)
@click.option(
    "--format",
    "form",
    metavar="FORM",
    type=click.Choice(_FORMATS),
    default="jsonl",
    show_default=True,
    help=f"The format: {', '.join(_FORMATS)}.",
)
@click.option("-o", "--output", metavar="FILE", help="Write to this file, or folder (parquet, atif); else stdout.")
@click.option("--blobs", metavar="DIR", help="Write images, audio and other bytes to this folder, each to a file.")
@click.option(
    "--balanced", metavar="RULE", help="Only the runs that failed, and as many that passed: 'reward>=1', or status."
)
@filter_options
@reads
@removing_unfinished()
def export_command(
    database: Database,
    *,
    runs: Sequence[str],
    form: str,
    output: str | None,
    as_json: bool,
    blobs: str | None = None,
    balanced: str | None = None,
    **filters: Any,
) -> None:
    """Write runs to a file: for `import`, for evaluations, for a review.

    RUN is as for `show`, or `all`; without RUN, all runs that match the filters. AGENT@VERSION is all its runs.
    """
    storage = database.storage
    filter = filter_in(storage, filters)
    ids = _runs(storage, runs, filter)
    if balanced is not None:
        ids = _balanced(storage, ids, RunFilter(ids=frozenset(ids)) if runs and ALL not in runs else filter, balanced)
    files = {} if blobs is None else {"blobs": _write_blobs(storage, ids, Path(blobs))}
    if form == "dataset" and output is not None and output.endswith(".parquet"):
        _check(storage, Path(output))
        _written(output, form, dataset.write_parquet(storage, ids, Path(output)), len(ids), files, as_json=as_json)
    elif form == "atif" and output is not None and (len(ids) != 1 or Path(output).is_dir()):
        _write_trajectories(storage, ids, Path(output), blobs, files, as_json=as_json)
    elif form == "parquet":
        _write_tables(storage, ids, output, files, as_json=as_json)
    elif output is not None:
        _check(storage, Path(output))
        is_csv = form == "dataset" and output.endswith(".csv")
        size = _write_text(Path(output), _text(storage, ids, "csv" if is_csv else form, Path(output), blobs))
        _written(output, form, size, len(ids), files, as_json=as_json)
    elif as_json:
        document(
            {"format": form, "content": "".join(_text(storage, ids, form, Path(), blobs)), "total": len(ids), **files}
        )
    else:
        for part in _text(storage, ids, form, Path(), blobs):
            # An exported file is always UTF-8, whatever the encoding of the terminal.
            click.echo(part if sys.stdout.isatty() else part.encode("utf-8", "replace"), nl=False)
    if blobs is not None and not as_json:
        click.echo(f"{noun(files['blobs'], 'blob')} in {safe(blobs)}", err=True)


def _written(output: str, form: str, size: int, runs: int, beside: dict[str, int], *, as_json: bool) -> None:
    to_stdout = is_stdout(output)
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
        return [row.id for row in scan(storage, AgentInstanceRow)]  # keep only ids: 90 MB for a million runs
    found: dict[str, None] = {}
    for one in what:
        of_version = resolved(storage, RunFilter(agent=one)) if AT in one else None
        ids = [by_name.find_run(storage, one).id] if of_version is None else ids_of(storage, of_version)[::-1]
        found.update(dict.fromkeys(ids))
    return [*found]


def _balanced(storage: Storage, ids: Sequence[str], filter: RunFilter, rule: str) -> list[str]:
    """Return those of some runs that failed, and as many of the latest that passed, whatever failure the filter names.

    Args:
        filter: selects the runs.
        rule: decides whether a run passed.
    """
    judge = rule_of(rule)
    name = judge.name if isinstance(judge, OutcomeRule) else None
    scores = tuple(each for each in filter.scores if parse(each).name != name)
    wanted = filter._replace(status=None, failed=False, error=None, signature=None, scores=scores)
    others = run_briefs(storage, wanted)
    passed = outcomes(storage, others, decided(storage, others, judge))
    failed = [id for id in ids if passed.get(id) is False]
    return sorted([*failed, *[run.id for run in others if passed[run.id]][: len(failed)]])


def _write_tables(
    storage: Storage, runs: list[str], output: str | None, beside: dict[str, int], *, as_json: bool
) -> None:

    from agentspan.analysis import tables

    if output is None:
        raise Failed("--format parquet writes three files: name their folder with -o")
    written = tables.write(storage, runs, Path(output))
    if as_json:
        document({"folder": output, "format": "parquet", "rows": written, "total": len(runs), **beside})
    else:
        counts = ", ".join(noun(number, name.removesuffix("s")) for name, number in written.items())
        click.echo(f"{counts} written to {safe(output)}")


def _write_trajectories(
    storage: Storage, runs: Sequence[str], folder: Path, blobs: str | None, beside: dict[str, int], *, as_json: bool
) -> None:
    """Write the trajectory of each run to a file of the folder, and print their number and size."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Failed(f"{folder} cannot be written: {error.strerror}") from None
    files = ((folder / f"{id}.trajectory.json", id) for id in runs)
    size = sum(_write_text(file, _trajectories(storage, [id], file, blobs)) for file, id in files)
    if as_json:
        document({"folder": str(folder), "format": "atif", "bytes": size, "total": len(runs), **beside})
    else:
        click.echo(f"{noun(len(runs), 'run')} written to {safe(str(folder))}: {noun(size, 'byte')}")


def _trajectories(storage: Storage, runs: Sequence[str], file: Path, blobs: str | None) -> Iterable[str]:
    """Yield the lines of a file of trajectories, which names images in the folder `blobs` from its own folder."""
    from agentspan.analysis.atif import lines as atif_lines

    images = None if blobs is None else Path(os.path.relpath(blobs, file.parent)).as_posix()
    return (f"{line}\n" for line in atif_lines(storage, runs, images))


def _text(storage: Storage, runs: list[str], form: str, file: Path, blobs: str | None) -> Iterable[str]:
    if form == "atif":
        return _trajectories(storage, runs, file, blobs)
    if form == "html":
        from agentspan.viewer.export import parts

        return parts(storage, runs)
    if form == "csv":
        return dataset.csv_lines(storage, runs)
    if form == "otlp":
        from agentspan.otel.forwarding import lines as otlp_lines

        found: Iterable[str] = otlp_lines(storage, runs)
    elif form in ("dataset", "markdown"):
        found = (dataset.lines if form == "dataset" else markdown)(storage, runs)
    else:
        found = lines(storage, runs, compact=form == "compact")
    return (f"{line}\n" for line in found)


def _check(storage: Storage, path: Path) -> None:
    location = storage.capabilities().location
    read = None if location is None else location.path
    if read is not None and path.exists() and path.samefile(read):
        raise Failed(f"{path} is the file that is read; choose another name")


def _write_blobs(storage: Storage, runs: Iterable[str], folder: Path) -> int:
    """Write each blob of runs to a file of mode 0600, unless the file exists; return the number of different blobs.

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
                    _write_blob(folder / f"{hash}.{ending_of(blob.media_type)}", blob.data)
    except OSError as error:
        raise Failed(f"{folder} cannot be written: {error.strerror}") from None
    return len(found)


def _texts(storage: Storage, runs: Iterable[str]) -> Iterator[str]:
    for run in instances(storage, runs):
        yield from (text for text in (run.metadata, run.result, run.error) if text is not None)
        for span in storage.ask(SpansOf(run.id)):
            yield from (text for text in (span.payload, span.result_payload) if text is not None)


def _write_blob(target: Path, data: bytes) -> None:
    number, name = files.aside(target)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(data)
        os.link(name, target)  # unlike a rename, a link does not replace an existing file
    except FileExistsError:
        pass
    finally:
        os.unlink(name)


_AS_TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "replace", "newline": "\n"}


def _write_text(path: Path, parts: Iterable[str]) -> int:
    """Write a text as UTF-8; return its size in bytes. A new file has mode 0600; an existing one keeps its mode.

    A regular file, or the target of a link, is replaced atomically. Pipes, terminals and devices are opened for writing
    instead, because replacing `/dev/null` would make it a regular file.

    Raises:
        Failed: the file cannot be written.
    """
    try:
        if is_stdout(path):  # the shell may append stdout to a file, so do not replace it
            size = sum(sys.stdout.buffer.write(part.encode("utf-8", "replace")) for part in parts)
            sys.stdout.buffer.flush()
            return size
        if path.exists() and not path.is_file():  # check before realpath: the path of a pipe does not resolve
            with path.open("wb") as file:
                return sum(file.write(part.encode("utf-8", "replace")) for part in parts)
        return _replace(Path(os.path.realpath(path)), parts)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Failed(f"{path} cannot be written: {error.strerror}") from None


def _replace(target: Path, parts: Iterable[str]) -> int:
    with files.replacing(target, keeps_mode=True, **_AS_TEXT) as file:
        file.writelines(parts)
        file.flush()
        return os.fstat(file.fileno()).st_size
