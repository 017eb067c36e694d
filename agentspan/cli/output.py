"""Output of the commands: width, colours, text without control characters, tables, one JSON document.

Times are shown as people read them: in the machine's zone, with its name, or in UTC with `--utc`; documents keep UTC. A
progress bar is on stderr, only on a terminal, and only if the work reports progress. On a terminal or pipe that is not
UTF-8, marks and lines are in ASCII, other characters are `?`.
"""

import codecs
import gc
import io
import json
import os
import shlex
import shutil
import sys
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, tzinfo
from typing import Any, TypeVar

import click

from agentspan import clock
from agentspan.text import one_line, printable

MARKS = {"pending": "◌", "active": "●", "complete": "✓", "failed": "✗", "cancelled": "○", "terminated": "■"}
COLORS = {"active": "yellow", "complete": "green", "failed": "red", "cancelled": "bright_black", "terminated": "red"}

GIVEN_DB = "agentspan.db"
"""The key in click's `Context.meta` of the storage that `--db` named, without its password."""


class Failed(click.ClickException):
    """Ends a command with one line on stderr and exit code 1. The message may name a file with control characters."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class Unanswered(Failed):
    """Ends a command with exit code 2, whose exit code 1 is one of its answers."""

    exit_code = 2


def width() -> int:
    """Return the width of the output in columns: COLUMNS, else the terminal's, else 80."""
    return max(40, shutil.get_terminal_size((80, 24)).columns)


def colored() -> bool:
    """Return whether to use colours: on a terminal, unless NO_COLOR is set (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def style(text: str, **how: Any) -> str:
    """Colour a text, if colours are used."""
    return click.style(text, **how) if colored() else text


def status_style(text: str, status: str) -> str:
    """Colour a text as its status."""
    return style(text, fg=COLORS.get(status))


def safe(text: str) -> str:
    """Replace control characters in a payload's text, which may have several lines."""
    return printable(text.replace("\t", "    "), keep="\n")


def argument(value: object) -> str:
    """Write a path as an argument of a command to be copied: in quotes if it needs them, without control characters."""
    return printable(shlex.quote(str(value)))


def to_copy(*words: str, db: object = None) -> str:
    """Write a command of agentspan to be copied, which reads the same storage as the one that prints it.

    It may be wider than the terminal, because half of it is of no use.

    Args:
        words: the name of the command, its arguments and options.
        db: the storage; what `--db` of the printing command named, when left out.
    """
    context = click.get_current_context(silent=True)
    named = db if db is not None or context is None else context.meta.get(GIVEN_DB)
    return " ".join(["agentspan", *map(_word, words), *([] if named is None else ["--db", argument(named)])])


def _word(word: str) -> str:
    """Write a word of a command as `argument` does. A shortened id needs no quotes: `…` means nothing to a shell."""
    return word if "…" in word and word.replace("…", "").isalnum() else argument(word)


def hint(lead: str, command: str, columns: int) -> list[str]:
    """Return a sentence that ends in a command, which has a line of its own where both do not fit on one."""
    text = f"{lead}: {command}"
    return [text] if columns_of(text) <= columns else [*wrap(f"{lead}:", columns, 2), f"  {command}"]


def document(value: Any, *, err: bool = False) -> None:
    """Print the one JSON document that `--json` promises; on stderr if stdout has something else."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=True), err=err)


BATCH_LINES = 500


def echo_lines(lines: Iterable[str]) -> None:
    """Print many lines, not each by itself: that takes 20 µs."""
    waiting: list[str] = []
    for line in lines:
        waiting.append(line)
        if len(waiting) >= BATCH_LINES:
            click.echo("\n".join(waiting))
            waiting.clear()
    if waiting:
        click.echo("\n".join(waiting))


def page(lines: Iterator[str]) -> None:
    """Print lines; on a terminal that they do not fit, through PAGER, or less."""
    if not sys.stdout.isatty():
        echo_lines(lines)
        return
    height = shutil.get_terminal_size((80, 24)).lines
    first = [line for line, _ in zip(lines, range(height), strict=False)]
    if len(first) < height:
        click.echo("\n".join(first))
        return
    os.environ.setdefault("LESS", "-R")  # else less shows the codes of colours as text
    click.echo_via_pager((f"{line}\n" for part in (first, lines) for line in part), color=colored())


def columns_of(text: str) -> int:
    """Count the columns that a printable text takes: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(map(_columns, text))


class _Columns(dict[str, int]):
    """Columns of a character, looked up once each: the tree's own marks are in every line of it."""

    def __missing__(self, character: str) -> int:
        if unicodedata.combining(character) or unicodedata.category(character) == "Cf":
            found = 0
        else:
            found = 2 if unicodedata.east_asian_width(character) in "WF" else 1
        self[character] = found
        return found


_columns = _Columns().__getitem__


def fit(text: str, columns: int) -> str:
    """Put a text on one line of at most so many columns, cut with `…`."""
    text = one_line(text, 4 * columns)
    if columns_of(text) <= columns:
        return text
    used, end = 0, 0
    for end, character in enumerate(text):  # noqa: B007 (the index is used after the loop)
        used += _columns(character)
        if used > columns - 1:
            break
    return text[:end].rstrip() + "…"


def wrap(text: str, columns: int, lines: int) -> list[str]:
    """Put a text on at most so many lines, each of at most so many columns; what is longer ends in `…`."""
    shown: list[str] = []
    rest = one_line(text, 4 * columns * lines)
    while len(shown) < lines - 1 and columns_of(rest) > columns:
        head = fit_end(rest, columns + 1)[:-1]
        blank = head.rfind(" ") + 1
        head = head[:blank] if blank > len(head) // 2 else head  # a long word goes on the next line in its middle
        shown.append(head.rstrip())
        rest = rest[len(head) :].lstrip()
    return [*shown, fit(rest, columns)]


def pad(text: str, columns: int, *, right: bool = False) -> str:
    """Fill a text up to so many columns."""
    blanks = " " * max(0, columns - columns_of(text))
    return blanks + text if right else text + blanks


def noun(number: int, word: str, many: str | None = None) -> str:
    """Write a count with its noun: `1 run`, `1,200 runs`."""
    return f"{number:,} {word if number == 1 else many or word + 's'}"


def table(
    header: Sequence[str], rows: Sequence[Sequence[str] | str], *, right: Collection[int] = (), shrink: int = 0
) -> None:
    """Print a table that fits the terminal: columns as wide as their texts, one of them cut where that is too much.

    Args:
        rows: the cells of each; a text is a line over all columns.
        right: the numbers of the columns that are flush right.
        shrink: the number of the column that is cut.
    """
    cells = [row if isinstance(row, str) else [_indented(cell, 1000) for cell in row] for row in (header, *rows)]
    widths = [max(columns_of(row[n]) for row in cells if not isinstance(row, str)) for n in range(len(header))]
    others = sum(widths) - widths[shrink] + 2 * (len(widths) - 1)
    widths[shrink] = min(widths[shrink], max(8, width() - others))
    for index, row in enumerate(cells):
        if isinstance(row, str):
            click.echo(style(_indented(row, width()), fg="bright_black"))
            continue
        texts = [pad(_indented(row[n], widths[n]), widths[n], right=n in right) for n in range(len(row))]
        line = fit_end("  ".join(texts).rstrip(), width())
        click.echo(style(line, bold=True) if index == 0 else line)


def _indented(cell: str, columns: int) -> str:
    """Fit a text, but keep the blanks before it."""
    indent = cell[: len(cell) - len(cell.lstrip(" "))]
    return indent + fit(cell, max(1, columns - len(indent)))


def fit_end(line: str, columns: int) -> str:
    """Cut a line that is laid out already at its end."""
    if columns_of(line) <= columns:
        return line
    used = 0
    for end, character in enumerate(line):
        used += _columns(character)
        if used > columns - 1:
            return line[:end] + "…"
    return line


F = TypeVar("F", bound=Callable[..., Any])
_IS_UTC = "agentspan.cli.output.is_utc"


def utc_option(command: F) -> F:
    """Add the option `--utc` to a command. Its function gets no parameter for it."""

    def keep(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        ctx.meta[_IS_UTC] = value

    option = click.option(
        "--utc", is_flag=True, expose_value=False, callback=keep, help="Show times in UTC, not in local time."
    )
    return option(command)


def zone() -> tzinfo | None:
    """Return the zone of the command that is running: UTC with `--utc`, else None, the machine's own."""
    context = click.get_current_context(silent=True)
    return UTC if context is not None and context.meta.get(_IS_UTC) else None


def local(text: str) -> datetime:
    """Return a stored time in the zone of the command."""
    return clock.to_datetime(text).astimezone(zone())


def zone_name(texts: Iterable[str] = ()) -> str:
    """Return the name of the zone at these stored times, or now; `local` where summer and winter time are mixed."""
    names = {local(text).tzname() or "" for text in [*texts] or [clock.now()]}
    return names.pop() if len(names) == 1 else "local"


@contextmanager
def bar(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a function `update(done, total)` that draws the bar, or None if stderr is no terminal."""
    if not sys.stderr.isatty():
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
    """Yield the bar for one question about many runs, and pause Python's cyclic garbage collector meanwhile.

    The collector looks through all rows again and again while they are read, and finds nothing: a fifth of the time.
    Whatever nothing refers to is freed as always.
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
    """Return whether a path names the standard output, as /dev/stdout does: messages then go to stderr."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError):  # ValueError: a stdout without a file, as in tests
        return False


_ASCII = {
    "✓": "+", "✗": "x", "●": "*", "◌": ".", "○": "o", "■": "#",
    "│": "|", "├": "|", "└": "`", "─": "-", "▏": "|", "▕": "|", "█": "#", "▒": "=", "░": "-",
    "…": "...", "·": "-", "→": "->", "×": "x", "µ": "u", "“": '"', "”": '"', "‘": "'", "’": "'", "–": "-", "—": "-",
}  # fmt: skip
_NAME = "agentspan-ascii"


def _as_ascii(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    shown = []
    for character in error.object[error.start : error.end]:
        if character in _ASCII:
            shown.append(_ASCII[character])
        else:  # é is written as e where there is no é
            shown.append(unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode() or "?")
    return "".join(shown), error.end


codecs.register_error(_NAME, _as_ascii)


def adapt_output() -> None:
    """Let stdout and stderr write characters that their encoding does not have in another form, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors=_NAME)
