"""Shared by all commands: the group, the options `--db` and `--json`, and opening the storage.

Before a command reads a file, the journals of killed programs are recovered, with a progress bar.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agentspan import __version__
from agentspan.cli.output import GIVEN_DB, Failed, Unanswered, adapt_output
from agentspan.errors import AgentspanError, InvalidValue, StorageError
from agentspan.journal.journal_folder import folder_of, is_possible
from agentspan.storage.location import Location
from agentspan.storage.questions import Damage
from agentspan.storage.registry import location_of
from agentspan.text import printable

if TYPE_CHECKING:
    from agentspan.database import Database


LARGE = 4 * 2**20
"""Bytes of segments from which on a person may want to know what takes so long: a third of a second."""


def recover(path: Path) -> None:
    """Recover large journals beside a file, with a progress bar on a terminal. Opening the file recovers small ones."""
    if not is_possible() or not path.exists() or not sys.stderr.isatty() or _size_of(folder_of(path)) < LARGE:
        return
    from agentspan.recovery.adopting import Adoption
    from agentspan.storage.sqlite import SQLiteStorage

    with closing(SQLiteStorage(path)) as storage:
        bar = _Bar()
        try:
            records = Adoption(lambda: nullcontext(storage), folder_of(path)).adopt(bar)
        except StorageError:  # busy: what is in the file can be read all the same
            return
        finally:
            bar.end()
    if records:
        click.echo(f"{records:,} transitions of programs that were killed are in the file now", err=True)


def _size_of(folder: Path) -> int:
    try:
        return sum(each.stat().st_size for each in folder.iterdir())
    except OSError:  # there is none, or another process removes it
        return 0


class _Bar:
    """A progress bar that appears with the first progress: segments of living programs are not recovered."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._done = 0

    def __call__(self, done: int, size: int) -> None:
        if self._bar is None:
            self._bar = click.progressbar(length=size, label="reading journals", file=sys.stderr, width=30)
            self._bar.__enter__()
        self._bar.update(done - self._done)
        self._done = done

    def end(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.update(self._bar.length - self._done)
            self._bar.__exit__(None, None, None)


F = TypeVar("F", bound=Callable[..., Any])


@contextmanager
def _printable() -> Iterator[None]:
    """Replace the control characters in click's own errors: they repeat arguments, which may be names of files."""
    try:
        yield
    except click.ClickException as error:
        error.message = printable(error.message, keep="\n")  # type: ignore[misc]  # declared final, but it is read later
        raise


SECTIONS = {
    "Look": ("runs", "show", "search", "stats", "sql"),
    "Compare": ("why", "diff", "check", "score"),
    "Watch": ("record", "tail", "serve", "terminate", "demo"),
    "Share": ("export", "import", "copy", "backup"),
    "Keep": ("init", "doctor", "prune", "rederive"),
}
"""The commands in the order in which `--help` lists them."""


class _Group(click.Group):
    """Turns agentspan's errors into one line on stderr and exit code 1, or 2 for a rule that cannot be answered."""

    def main(self, *args: Any, **extra: Any) -> Any:
        adapt_output()
        return super().main(*args, **extra)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _printable():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _printable():
                return super().invoke(ctx)
        except BrokenPipeError:  # `agentspan show - | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise SystemExit(0) from None
        except (AgentspanError, OSError) as error:
            # A wrong rule for outcomes leaves the question without an answer: that is not the answer "failed".
            is_rule = isinstance(error, InvalidValue) and error.field == "outcome"
            raise (Unanswered if is_rule else Failed)(_message(error)) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by what they are for, with their descriptions whole: on as many lines as they need."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        helps = {name: each.get_short_help_str(limit=1000) for name, each in commands if each}
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, helps[name]) for name in names])


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="agentspan")
@click.option(
    "--db", metavar="PATH", help="The file, or NAME://…, to use; AGENTSPAN_DB, else ./agentspan.db, when left out."
)
@click.pass_context
def main(ctx: click.Context, db: str | None) -> None:
    """A flight recorder for AI agents: record runs into one SQLite file, and read them."""
    ctx.obj = db


def options(command: F) -> F:
    """Add the options `--json` and `--db` to a command; `--db` may also stand before its name."""
    command = click.option("--json", "as_json", is_flag=True, help="Answer with one JSON document.")(command)
    return click.option("--db", metavar="PATH", help="The file, or NAME://…, to use.")(command)


@contextmanager
def opened(ctx: click.Context, db: str | None, *, read_only: bool = True) -> Iterator["Database"]:
    """Open the storage of a command. A missing file is made, unless `read_only`."""
    from agentspan.database import open

    location = location_in(ctx, db)
    if location.path is not None:
        recover(location.path)
    with open(location, read_only=read_only) as database:
        try:
            yield database
        except (AgentspanError, OSError, click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            _explain(error, location, database)
            raise


def _explain(error: Exception, location: Location, database: "Database") -> None:
    """Raise an error that names the damage if the file is damaged; else return: the error is a bug of agentspan."""
    from agentspan.storage.sqlite.driver_errors import damaged

    storage = database.storage
    problems = storage.ask(Damage()) if Damage in storage.capabilities().answers else []
    if problems and location.path is not None:
        raise damaged(location.path, problems[0]) from error
    if problems:
        raise Failed(f"{location} is damaged: {problems[0]}") from error


@contextmanager
def opened_existing(ctx: click.Context, db: str | None, *, read_only: bool = False) -> Iterator["Database"]:
    """Open the storage of a command that changes a file which must exist."""
    path = location_in(ctx, db).path
    if path is not None and not path.exists():  # opening for writing would make it
        raise Failed(f"{path} does not exist; nothing has been recorded there yet")
    with opened(ctx, db, read_only=read_only) as database:
        yield database


@contextmanager
def answering() -> Iterator[None]:
    """Let the errors of a command end it with exit code 2, because 1 is one of its answers."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (AgentspanError, OSError) as error:
        raise Unanswered(_message(error)) from None
    except Failed as error:
        raise Unanswered(error.message) from None


def _message(error: AgentspanError | OSError) -> str:
    if isinstance(error, OSError):  # `agentspan show - > /dev/full`
        return f"cannot write the answer: {error.strerror}"
    return str(error)  # it may name a file, whose name may hold control characters


def location_in(ctx: click.Context, db: str | None) -> Location:
    """Return where the storage of a command is. Commands that it prints name it, too, if `--db` does."""
    location = location_of(db or ctx.obj or None)
    if db or ctx.obj:
        ctx.meta[GIVEN_DB] = str(location)
    return location
