"""Output of the commands: width, colours, text without control characters, tables, JSON documents, progress bars.

Text shows times in the machine's zone, with its name, or in UTC with `--utc`; JSON documents always use UTC. A progress
bar is drawn on stderr, only on a terminal, and only if the work reports progress. If the output's encoding is not
UTF-8, marks and lines are written in ASCII, and other characters as `?`.
"""

import codecs
import gc
import io
import json
import os
import re
import shlex
import shutil
import sys
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agentspan import clock
from agentspan.model.rows import Row
from agentspan.storage.protocol import Storage
from agentspan.text import one_line, printable

if TYPE_CHECKING:
    from agentspan.analysis.causes import Verdict

MARKS = {"pending": "◌", "active": "●", "complete": "✓", "failed": "✗", "cancelled": "○", "terminated": "■"}
COLORS = {"active": "yellow", "complete": "green", "failed": "red", "cancelled": "bright_black", "terminated": "red"}

GIVEN_DB = "agentspan.db"
"""The key in click's `Context.meta` of the storage that `--db` named, without its password."""


class Failed(click.ClickException):
    """Ends a command with one line on stderr and exit code 1. The message may name a file with control characters."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class Unanswered(Failed):
    """Ends a command with exit code 2, for commands whose exit code 1 is a result, such as a failed check."""

    exit_code = 2


@dataclass(frozen=True)
class Collected:
    """Collects what commands print, for a program that called them in this process, such as an MCP server.

    The text has no colours, no bars of times, and nothing at the right edge.

    Attributes:
        columns: the width of a line.
        call: returns the words of a command, such as `["show", "-#12"]`, as the caller must write it.
        text: what was printed.
    """

    columns: int
    call: Callable[[Sequence[str]], str]
    text: io.StringIO = field(default_factory=io.StringIO)


_collected: ContextVar[Collected | None] = ContextVar("agentspan_collected", default=None)


@contextmanager
def collecting(to: Collected) -> Iterator[None]:
    """Collect what commands print in this context; other threads and contexts go on printing."""
    token = _collected.set(to)
    try:
        yield
    finally:
        _collected.reset(token)


def is_collected() -> bool:
    """Return whether a program collects the output."""
    return _collected.get() is not None


def echo(text: str = "", *, err: bool = False, nl: bool = True) -> None:
    """Print a text on stdout, with `err` on stderr; if a program collects the output, give it the text."""
    to = _collected.get()
    click.echo(text, file=None if to is None else to.text, err=err, nl=nl)


def width() -> int:
    """Return the width of the output in columns: that of the program which collects it, COLUMNS, the terminal's, 80."""
    to = _collected.get()
    return to.columns if to is not None else max(40, shutil.get_terminal_size((80, 24)).columns)


def colored() -> bool:
    """Return whether to use colours: on a terminal, unless NO_COLOR is set (https://no-color.org)."""
    return not is_collected() and sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def style(text: str, **how: Any) -> str:
    """Return a text with colours and the like, if the output uses colours; else unchanged."""
    return click.style(text, **how) if colored() else text


def status_style(text: str, status: str) -> str:
    """Return a text in the colour of a status."""
    return style(text, fg=COLORS.get(status))


def verdict_style(text: str, verdict: "Verdict", status: str) -> str:
    """Return a text in the colour of a verdict: that of its status, unless the run missed a rule."""
    return status_style(text, "failed" if verdict.kind == "missed" else status)


def safe(text: str) -> str:
    """Return a text with control characters replaced; line breaks are kept, and tabs become blanks."""
    return printable(text.replace("\t", "    "), keep="\n")


def argument(value: object) -> str:
    """Return a value as a shell argument for a command to copy: quoted if necessary, without control characters."""
    return printable(shlex.quote(str(value)))


def to_copy(*words: str, db: object = None) -> str:
    """Return an agentspan command for users to copy, which reads the same storage as the running command.

    It is never cut to the width of the terminal, because a part of a command is useless.

    Args:
        words: the name of the command, its arguments and options.
        db: the storage for `--db`; when left out, the one that `--db` of the running command names.
    """
    to = _collected.get()
    if to is not None:
        return to.call(words)
    context = click.get_current_context(silent=True)
    named = db if db is not None or context is None else context.meta.get(GIVEN_DB)
    return " ".join([program(), *map(_word, words), *([] if named is None else ["--db", argument(named)])])


def program() -> str:
    """Return the command that runs this agentspan, as a person can copy it.

    It is `agentspan` if that is this program; else the program as it was called, such as `.venv/bin/agentspan` of an
    environment that is not active. In another program, such as pytest, it is `agentspan`.
    """
    called, found = Path(sys.argv[0]), shutil.which("agentspan")
    if called.name == "__main__.py" and called.parent.name == "agentspan":
        own = Path(sys.executable).with_name("agentspan")
        return "agentspan" if found and _is_same(found, own) else f"{argument(sys.orig_argv[0])} -m agentspan"
    is_script = called.name == "agentspan" and not (found and _is_same(found, called))
    return argument(called) if is_script else "agentspan"


def _is_same(one: str, other: Path) -> bool:
    try:
        return other.samefile(one)
    except OSError:
        return False


def to_call(text: str) -> str:
    """Return a sentence whose commands, such as `agentspan demo`, name the program as it was called."""
    return text.replace("`agentspan ", f"`{program()} ")


def _word(word: str) -> str:
    """Return a word of a command, quoted if necessary. Short ids with `…` and steps as `RUN#12` need no quotes."""
    return word if _BARE.fullmatch(word) else argument(word)


_BARE = re.compile(r"([0-9A-Za-z]+(…[0-9A-Za-z]+)?|-)(#\d+)?", re.ASCII)


def hint(lead: str, command: str, columns: int) -> list[str]:
    """Return the lines of a sentence with a command; the command has its own line if both do not fit on one line."""
    text = f"{lead}: {command}"
    return [text] if columns_of(text) <= columns or is_collected() else [*wrap(f"{lead}:", columns, 2), f"  {command}"]


def document(value: Any, *, err: bool = False) -> None:
    """Print the JSON document of `--json`; with `err` on stderr, for commands that write other data to stdout."""
    echo(json.dumps(value, indent=2, ensure_ascii=True), err=err)


def answer(plain: dict[str, Any], *lines: str, as_json: bool) -> None:
    """Print a document, or lines of text, of which empty ones are left out."""
    if as_json:
        document(plain)
    else:
        echo_lines(filter(None, lines))


def plain_rows(storage: Storage, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return rows of one type as documents have them: as the API lists them."""
    from agentspan.api.context import Context
    from agentspan.api.envelopes import plain, resources_of  # imported late: Pydantic takes 80 ms

    return [plain(each) for each in resources_of(Context(storage), rows)]


BATCH_LINES = 500


def echo_lines(lines: Iterable[str]) -> None:
    """Print many lines in batches, because each call of click.echo takes 20 µs."""
    rest = iter(lines)
    while batch := [*islice(rest, BATCH_LINES)]:
        echo("\n".join(batch))


def page(lines: Iterator[str]) -> None:
    """Print lines; if they do not fit on the terminal, through the program in PAGER, or less."""
    if is_collected() or not sys.stdout.isatty():
        echo_lines(lines)
        return
    height = shutil.get_terminal_size((80, 24)).lines
    first = [line for line, _ in zip(lines, range(height), strict=False)]
    if len(first) < height:
        echo("\n".join(first))
        return
    os.environ.setdefault("LESS", "-R")  # without -R, less shows colour codes as text
    click.echo_via_pager((f"{line}\n" for part in (first, lines) for line in part), color=colored())


def columns_of(text: str) -> int:
    """Return the width of a printable text in columns: wide characters take two columns, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(map(_columns, text))


class _Columns(dict[str, int]):
    """A cache of the width of each character: the marks of a tree are in every line."""

    def __missing__(self, character: str) -> int:
        if unicodedata.combining(character) or unicodedata.category(character) == "Cf":
            found = 0
        else:
            found = 2 if unicodedata.east_asian_width(character) in "WF" else 1
        self[character] = found
        return found


_widths = _Columns()
_columns = _widths.__getitem__


def fit(text: str, columns: int) -> str:
    """Return a text on one line of at most `columns` columns; a longer text is cut and ends in `…`."""
    text = one_line(text, 4 * columns)
    if columns_of(text) <= columns:
        return text
    return fit_end(text, columns)[:-1].rstrip() + "…"


def wrap(text: str, columns: int, lines: int) -> list[str]:
    """Wrap a text to at most `lines` lines of at most `columns` columns; a longer text is cut and ends in `…`.

    If a program collects the output, the text stays on one line, so that no sentence is parted.
    """
    if is_collected():
        return [fit(text, columns * lines)]
    shown: list[str] = []
    rest = one_line(text, 4 * columns * lines)
    while len(shown) < lines - 1 and columns_of(rest) > columns:
        head = fit_end(rest, columns + 1)[:-1]
        blank = head.rfind(" ") + 1
        head = head[:blank] if blank > len(head) // 2 else head  # a long word is broken
        shown.append(head.rstrip())
        rest = rest[len(head) :].lstrip()
    return [*shown, fit(rest, columns)]


def pad(text: str, columns: int, *, right: bool = False) -> str:
    """Pad a text with blanks to `columns` columns: at its end, or with `right` at its start."""
    blanks = " " * max(0, columns - columns_of(text))
    return blanks + text if right else text + blanks


def pushed(text: str, columns: int) -> str:
    """Pad a text, so that what follows it stands at the right edge; if a program collects the output, do not."""
    return text if is_collected() else pad(text, columns)


def table(
    header: Sequence[str], rows: Sequence[Sequence[str] | str], *, right: Collection[int] = (), shrink: int = 0
) -> None:
    """Print a table (see table_lines)."""
    echo_lines(table_lines(header, rows, right=right, shrink=shrink))


def table_lines(
    header: Sequence[str], rows: Sequence[Sequence[str] | str], *, right: Collection[int] = (), shrink: int = 0
) -> Iterator[str]:
    """Yield a table whose columns are as wide as their texts; one column is cut if the table exceeds the terminal.

    Args:
        rows: the cells of each row; a text instead of cells is a line across all columns.
        right: the indexes of the columns that are aligned right.
        shrink: the index of the column that is cut.
    """
    cells = [row if isinstance(row, str) else [fit_indented(cell, 1000) for cell in row] for row in (header, *rows)]
    widths = [max(columns_of(row[n]) for row in cells if not isinstance(row, str)) for n in range(len(header))]
    others = sum(widths) - widths[shrink] + 2 * (len(widths) - 1)
    widths[shrink] = min(widths[shrink], max(8, width() - others))
    for index, row in enumerate(cells):
        if isinstance(row, str):
            yield style(fit_indented(row, width()), fg="bright_black")
            continue
        texts = [pad(fit_indented(row[n], widths[n]), widths[n], right=n in right) for n in range(len(row))]
        line = fit_end("  ".join(texts).rstrip(), width())
        yield style(line, bold=True) if index == 0 else line


def fit_indented(cell: str, columns: int) -> str:
    """Cut a cell to `columns` columns, and keep its leading blanks."""
    indent = cell[: len(cell) - len(cell.lstrip(" "))]
    return indent + fit(cell, max(1, columns - len(indent)))


def fit_end(line: str, columns: int) -> str:
    """Cut a line at its end to `columns` columns, without changing its blanks."""
    if columns_of(line) <= columns:
        return line
    used, room = 0, columns - _columns("…")
    for end, character in enumerate(line):
        used += _columns(character)
        if used > room:
            return line[:end] + "…"
    return line


F = TypeVar("F", bound=Callable[..., Any])
_IS_UTC = "agentspan.cli.output.is_utc"


def utc_option(command: F) -> F:
    """Add the option `--utc` to a command; `zone` reads it, so the command's function has no parameter for it."""

    def keep(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        ctx.meta[_IS_UTC] = value

    option = click.option(
        "--utc", is_flag=True, expose_value=False, callback=keep, help="Show times in UTC, not in local time."
    )
    return option(command)


def zone() -> tzinfo | None:
    """Return the zone of times of the running command: UTC with `--utc`, else None for the machine's own zone."""
    context = click.get_current_context(silent=True)
    return UTC if context is not None and context.meta.get(_IS_UTC) else None


def local(text: str) -> datetime:
    """Return a stored time as a datetime in the zone of the running command; in UTC if its year there is 0 or 10000."""
    moment = clock.to_datetime(text)
    try:
        return moment.astimezone(zone())
    except (OverflowError, ValueError):
        return moment


def minute(text: str) -> str:
    """Return a stored time to the minute, in the zone of the running command."""
    return f"{local(text):%Y-%m-%d %H:%M}"


def zone_name(texts: Iterable[str] = ()) -> str:
    """Return the name of the zone at some stored times, or now; `local` if they mix summer and winter time."""
    names = {local(text).tzname() or "" for text in [*texts] or [clock.now()]}
    return names.pop() if len(names) == 1 else "local"


@contextmanager
def bar(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a function `update(done, total)` that draws a progress bar; None if stderr is not a terminal."""
    if is_collected() or not sys.stderr.isatty():
        yield None
        return
    with ExitStack() as ending:
        bars: list[Any] = []

        def update(done: int, total: int) -> None:
            if not bars:
                bars.append(ending.enter_context(click.progressbar(length=total, label=label, file=sys.stderr)))
            (shown,) = bars
            shown.length = total
            shown.update(done - shown.pos)

        yield update
        for shown in bars:
            shown.update(shown.length - shown.pos)


@contextmanager
def indexing() -> Iterator[Callable[[int, int], None] | None]:
    """Yield the progress bar for a query of many runs, with Python's cyclic garbage collector paused.

    While rows are read, the collector scans them again and again without finding garbage, which takes a fifth of the
    time. Reference counting still frees all objects without cycles.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        with bar("indexing") as update:
            yield update
    finally:
        if was_enabled:
            gc.enable()


def is_stdout(path: str | os.PathLike[str]) -> bool:
    """Return whether a path names the standard output, as /dev/stdout does; if so, messages must go to stderr."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError):  # ValueError: a stdout without a file, as in tests
        return False


_ASCII = {
    "✓": "+", "✗": "x", "●": "*", "◌": ".", "○": "o", "■": "#",
    "│": "|", "├": "|", "└": "`", "─": "-", "▏": "|", "▕": "|", "█": "#", "▒": "=", "░": "-",
    "≠": "!", "≥": ">=", "≤": "<=",
    "…": "...", "·": "-", "→": "->", "×": "x", "µ": "u", "“": '"', "”": '"', "‘": "'", "’": "'", "–": "-", "—": "-",
}  # fmt: skip
_NAME = "agentspan-ascii"


def _as_ascii(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    shown = []
    for character in error.object[error.start : error.end]:
        if character in _ASCII:
            shown.append(_ASCII[character])
        else:  # é becomes e if the encoding has no é
            shown.append(unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode() or "?")
    return "".join(shown), error.end


codecs.register_error(_NAME, _as_ascii)
_ENCODING = "agentspan_ascii"
"""ASCII by another name: to a stream whose encoding is `ascii`, click writes UTF-8, because it assumes a mistake."""


def _find_codec(name: str) -> codecs.CodecInfo | None:
    found = codecs.lookup("ascii")
    streams = (found.streamreader, found.streamwriter, found.incrementalencoder, found.incrementaldecoder)
    return codecs.CodecInfo(found.encode, found.decode, *streams, name=_ENCODING) if name == _ENCODING else None


codecs.register(_find_codec)


def adapt_output() -> None:
    """Make stdout and stderr replace characters that their encoding lacks, instead of raising an error.

    One that is closed (`>&-`) drops what is written.
    """
    sys.stdout, sys.stderr = (each or open(os.devnull, "w") for each in (sys.stdout, sys.stderr))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors=_NAME, encoding=_ENCODING if stream.isatty() and is_ascii(os.environ) else None)
    _widths.clear()  # a mark in ASCII may be wider: `…` is three columns
    with suppress(UnicodeError, LookupError):
        "…".encode(getattr(sys.stdout, "encoding", None) or "utf-8")
        return
    _widths.update({character: len(text) for character, text in _ASCII.items()})


def is_ascii(environment: Mapping[str, str]) -> bool:
    """Return whether a terminal is set to ASCII: by `LANG=C`, for example. Python itself writes UTF-8 there.

    Without any locale, as in most containers, terminals show UTF-8. Python sets `LC_CTYPE` to `C.UTF-8` in the locale
    C (PEP 538), so that value says nothing.
    """
    if environment.get("PYTHONIOENCODING") or environment.get("PYTHONUTF8"):
        return False
    names = (environment.get("LC_ALL"), environment.get("LC_CTYPE", "").replace("C.UTF-8", ""), environment.get("LANG"))
    return next(filter(None, names), "") in ("C", "POSIX")
