"""`agentspan import` adds sessions of coding agents, files that `export` wrote, and spans of OpenTelemetry."""

import gzip
import os
import select
import shutil
import stat
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from io import UnsupportedOperation
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import click

from agentspan.analysis import dataset
from agentspan.api.context import Context
from agentspan.cli.app import command, opened, options
from agentspan.cli.output import Failed, answer, safe, utc_option
from agentspan.cli.sessions import CHOICE_NAMES, choice_options, import_sessions
from agentspan.database import Database
from agentspan.errors import InvalidValue
from agentspan.maintenance.jsonl import FIRST, check_is_export, import_lines
from agentspan.storage.protocol import Storage
from agentspan.text import noun

if TYPE_CHECKING:
    from agentspan.otel.otlp.json_bodies import Decoded

GZIP = b"\x1f\x8b"
"""The first bytes of a gzip file."""
LINE_BYTES = 4096
"""The most bytes of the first line of an export that are read to recognise it."""


@command("import")
@click.argument("names", metavar="[SOURCE...]", nargs=-1)
@click.option(
    "--from",
    "form",
    type=click.Choice(["export", "otlp"]),
    help="Read files of this kind; OTLP needs it, an export is recognised.",
)
@choice_options
@click.option("--again", is_flag=True, help="Read files of sessions that have not changed, too.")
@click.option("--yes", is_flag=True, help="Import without asking.")
@utc_option
@options
@click.pass_context
def import_command(
    ctx: click.Context, /, names: tuple[str, ...], form: str | None, db: str | None, as_json: bool, **how: Any
) -> None:
    """Add sessions of coding agents, runs that `export` wrote, or spans of OpenTelemetry; with --list, only list
    sessions.

    SOURCE is a format of sessions, such as claude or codex, or all; a file or folder of sessions; or another file, or -
    for stdin. Without one, the sessions of this machine are listed, and imported after a yes. What is stored already
    stays.
    """
    if form is None and (not names or any(is_of_sessions(name) for name in names)):
        import_sessions(ctx, db, names, as_json=as_json, **how)
        return
    if form is None:
        _check_names(names)
    if any(how[name] for name in (*CHOICE_NAMES, "again")):
        raise click.UsageError("--since, --project, --exclude-project and --again are for sessions of coding agents")
    _import_files(ctx, db, names, form or "export", as_json=as_json)


def is_of_sessions(name: str) -> bool:
    """Return whether an argument names sessions: a format, a folder, or a file that a format reads."""
    from agentspan.sessions.machine import ALL, Place, sources_at
    from agentspan.sessions.registry import formats

    known, path = formats(), Path(name)
    if path.is_dir():
        return True
    if not path.is_file():
        return name == ALL or name in known
    return not _is_export(path) and bool(sources_at(Place(path, None), known))


def _check_names(names: Sequence[str]) -> None:
    """Refuse a word that is no file, and looks as if it should have been a format.

    Raises:
        Failed: there is such a word.
    """
    from agentspan.sessions.registry import formats

    for name in names:
        if name.isidentifier() and not Path(name).exists():
            raise Failed(f"{name} is no file, and no format of sessions: {', '.join([*sorted(formats()), 'all'])}")


def _is_export(path: Path) -> bool:
    from agentspan.sessions.registry import likely

    with suppress(OSError, EOFError, zlib.error), open(path, "rb") as source:
        packed = source.read(len(GZIP)) == GZIP
        source.seek(0)
        plain = cast(IO[bytes], gzip.GzipFile(fileobj=source)) if packed else source
        first = plain.readline(LINE_BYTES)
        return str(FIRST["type"]).encode() in first or (not likely(path, first) and dataset.is_dataset(first))
    return False


def _import_files(ctx: click.Context, db: str | None, files: Sequence[str], form: str, *, as_json: bool) -> None:
    if not files:
        raise click.UsageError("a FILE is missing")
    if form == "export" and len(files) > 1:
        raise click.UsageError("one FILE at a time, unless it is --from otlp")
    with ExitStack() as sources:
        opened_files = [(file, sources.enter_context(_seekable(file))) for file in files]
        if form == "otlp":
            found = _decoded(opened_files)
            with opened(ctx, db, read_only=False) as database:
                _import_otlp(database, found, as_json=as_json)
        else:
            lines_of = sources.enter_context(_opened_lines(opened_files[0][1]))
            with opened(ctx, db, read_only=False) as database:
                _import(database.storage, lines_of, as_json=as_json)


LinesOf = Callable[[Storage], Iterable[bytes]]
"""Returns the lines of an export from the first on; of a dataset, those of the runs that the storage does not have."""


def _import(storage: Storage, lines_of: LinesOf, *, as_json: bool) -> None:
    """Import the lines of an export, and print the number of new runs and spans.

    Exits with code 1 if lines of the export are missing.
    """
    done = import_lines(Context(storage), lambda: lines_of(storage))
    answer(
        done._asdict(),
        f"{noun(done.runs, 'run')} and {noun(done.spans, 'span')} imported",
        f"{noun(done.finished, 'row')} that had been open finished" if done.finished else "",
        f"{noun(done.known, 'row')} known already" if done.known else "",
        as_json=as_json,
    )
    if done.is_cut:
        click.echo("the file was cut or filtered: it lacks runs or spans of its export, or its last line", err=True)
        raise SystemExit(1)


@contextmanager
def _opened_lines(source: IO[bytes]) -> Iterator[LinesOf]:
    """Yield a function that returns the lines of an export; the source may be gzipped, or a dataset."""
    is_packed = source.read(len(GZIP)) == GZIP
    plain = cast(IO[bytes], gzip.GzipFile(fileobj=source)) if is_packed else source

    def lines_of(storage: Storage) -> Iterable[bytes]:
        plain.seek(0)
        return dataset.export_lines(storage, plain) if is_dataset else plain

    try:
        source.seek(0)
        first = plain.readline()
        is_dataset = dataset.is_dataset(first)
        if not is_dataset:
            check_is_export(first)
        yield lines_of
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise Failed("the file is no whole file of gzip; compress it again") from None


def _decoded(sources: Sequence[tuple[str, IO[bytes]]]) -> "Decoded":
    """Decode files of OTLP requests.

    Args:
        sources: the name of each file, and the open file.
    """
    from agentspan.otel.otlp.json_bodies import Decoded
    from agentspan.otel.otlp.requests import read_file

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
    return total


def _import_otlp(database: Database, total: "Decoded", *, as_json: bool) -> None:
    """Import what files of OTLP requests had, and print the number of new runs and spans."""
    from agentspan.otel.receiving import import_spans
    from agentspan.recording.capture.plain import SentRedaction

    done = import_spans(Context(database.storage, redacts=SentRedaction()), total.spans, total.logs)
    answer(
        {**done._asdict(), "unusable": total.rejected, "why": total.why()},
        f"{noun(done.runs, 'run')} and {noun(done.spans, 'span')} imported",
        f"{noun(done.duplicates, 'span')} of them repeat another's call of a model" if done.duplicates else "",
        f"{noun(done.known, 'span')} known already" if done.known else "",
        f"{noun(done.skipped, 'span')} left out, because they are no steps" if done.skipped else "",
        as_json=as_json,
    )
    if total.rejected and not as_json:
        click.echo(f"{noun(total.rejected, 'span')} could not be used: {safe(total.why())}", err=True)


PIPE_S = 0.5
"""The seconds to wait for a program that writes to a pipe."""


@contextmanager
def _seekable(file: str) -> Iterator[IO[bytes]]:
    """Open a file, or stdin for `-`, as a seekable file; a pipe is copied to a temporary file first.

    Raises:
        Failed: the file cannot be read, or is a device, or a pipe that no program writes to.
    """
    with ExitStack() as opened_files:
        try:
            source, head = (sys.stdin.buffer, b"") if file == "-" else _opened_file(file)
            if file != "-":
                opened_files.enter_context(source)
            with suppress(UnsupportedOperation):  # stdin may be an object of a program
                if stat.S_ISCHR(os.fstat(source.fileno()).st_mode) and not source.isatty():
                    raise Failed(f"{'stdin' if file == '-' else file} is a device, which has no end; name a file")
        except OSError as error:
            raise Failed(f"{file} cannot be read: {error.strerror}") from None
        if file != "-" and source.seekable():
            yield source
            return
        with tempfile.TemporaryFile() as aside:
            aside.write(head)
            shutil.copyfileobj(source, aside)
            yield aside


def _opened_file(file: str) -> tuple[IO[bytes], bytes]:
    """Open a file for reading, and wait PIPE_S seconds for the writer of a pipe; return also a first byte of a pipe."""
    flags = [getattr(os, name, 0) for name in ("O_RDONLY", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY")]
    source, head = os.fdopen(os.open(file, sum(flags)), "rb"), b""
    if stat.S_ISFIFO(os.fstat(source.fileno()).st_mode):
        is_begun = select.select([source], [], [], PIPE_S)[0]
        with suppress(BlockingIOError):  # there is a writer, which has written nothing yet
            head = os.read(source.fileno(), 1)
            if not head and not is_begun:
                source.close()
                raise Failed(f"{file} is a pipe that no program writes to")
        os.set_blocking(source.fileno(), True)
    return source, head
