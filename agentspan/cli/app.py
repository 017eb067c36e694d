"""Lists all commands, defines the options `--db` and `--json`, opens the storage of a command.

Before a command reads a file, the journals of dead programs are recovered, with a progress bar.
"""

import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agentspan.cli.examples import EXAMPLES
from agentspan.cli.output import GIVEN_DB, Failed, Unanswered, bar, program, to_call
from agentspan.errors import AgentspanError, InvalidValue, StorageError
from agentspan.journal.journal_folder import folder_of, is_possible
from agentspan.storage.location import Location
from agentspan.storage.questions import Damage
from agentspan.storage.registry import location_of
from agentspan.tuning import STANDARD

if TYPE_CHECKING:
    from agentspan.database import Database


LARGE = 4 * 2**20
"""The size of journals, in bytes, from which their recovery shows a progress bar: it takes a third of a second."""


def recover(path: Path) -> None:
    """Recover large journals beside a file, with a progress bar on a terminal. Opening the file recovers small ones."""
    if not is_possible() or not path.exists() or not sys.stderr.isatty() or _size_of(folder_of(path)) < LARGE:
        return
    from agentspan.journal.adopting import Adoption
    from agentspan.storage.sqlite import SQLiteStorage

    with closing(SQLiteStorage(path)) as storage, bar("reading journals") as progress:
        try:
            records = Adoption(lambda: nullcontext(storage), folder_of(path)).adopt(
                progress, most_s=STANDARD.read_adopts_s / 2
            )
        except StorageError:  # busy: the file can be read without the journals
            return
    if records:
        click.echo(f"{records:,} transitions of programs that were killed are in the file now", err=True)


def _size_of(folder: Path) -> int:
    try:
        return sum(each.stat().st_size for each in folder.iterdir())
    except OSError:  # the folder is missing, or another process is removing it
        return 0


F = TypeVar("F", bound=Callable[..., Any])


COMMANDS = {
    "Look at runs": {
        "runs": "List runs, the latest first, with totals.",
        "show": "Show a run as a tree, or one of its steps in full; with --session a conversation, with --follow what "
        "happens now.",
        "search": "Find the steps that have all WORDS.",
        "stats": "Sum up steps by type, and by model or tool: counts, failures, durations, tokens, cost.",
        "cost": "Sum up what runs cost: by model, day, agent, project, tool, prompt, version or session; and what "
        "caches saved.",
        "sql": "Answer a QUERY in SQL over the tables and views.",
        "open": "Open the viewer in a browser: the list of runs, or the page of RUN.",
    },
    "Compare and judge": {
        "why": "Group the failed runs by what failed, and list what goes with failure.",
        "diff": "Show where two runs part, or whether two groups of runs differ by more than chance.",
        "versions": "Show the versions of AGENT side by side, and whether the newest is worse than the one before.",
        "check": "Check runs in CI: budgets, calls, a baseline.",
        "evaluate": "Run cases through a function, score its runs, and compare them with another version's.",
        "score": "Add a score, a mark or a note to a run or a step.",
    },
    "Record and watch": {
        "record": "Run a Python program, and record what its AI frameworks do.",
        "watch": "Follow the sessions of coding agents as they grow, until Ctrl-C.",
        "serve": "Serve the viewer and the operations over HTTP.",
        "run": "Allow a run more than its budget, or terminate it.",
        "demo": "Record a small agent at work on the current folder, and show its run.",
    },
    "Share": {
        "export": "Write runs to a file: for `import`, for evaluations, for a review.",
        "import": "Add sessions of coding agents, runs that `export` wrote, or spans of OpenTelemetry; with --list, "
        "only list sessions.",
        "copy": "Copy all runs to another database, or send them to a backend of OpenTelemetry; with --backup, the "
        "file as it is now.",
    },
    "For coding agents": {
        "mcp": "Answer coding agents over MCP on stdin and stdout, with tools that only read.",
        "setup": "Add agentspan to a coding agent, its MCP server and two skills; or print the script by which a shell "
        "completes commands.",
    },
    "Keep in order": {
        "doctor": "Check the file, and close what dead programs left open; with --init make its tables, with "
        "--rederive compute summaries and costs again.",
        "prune": "Remove old runs that have finished, and make the file smaller.",
    },
}
"""All commands in groups by purpose, with the first sentences of their docstrings, which are their help texts.

They stand here too, so that `agentspan --help` imports no command.
"""
WAYS = {
    "overview": "",
    "session": "show --session ID",
    "tail": "show --follow [RUN]",
    "allow": "run allow",
    "terminate": "run terminate",
    "sessions": "import --list [SOURCE...]",
    "backup": "copy --backup FILE",
    "init": "doctor --init [URL]",
    "rederive": "doctor --rederive [RUN]",
    "completion": "setup bash|zsh|fish",
    "skill": "setup --print-skill [NAME]",
}
"""By the name of a former command, how it is called now. The old names go on working; no help lists them.

`overview` is `agentspan` without a command.
"""
_HELPS_OF_WAYS = {
    "overview": "Say what happened to the runs of the last day that has some: how many failed, and why most often.",
    "session": "Show the runs of one session in order: what was asked first, what became of it, and what it took.",
    "tail": "Print each step of RUN as it begins and ends, then of the runs after it.",
    "allow": "Allow a run more than its budget.",
    "terminate": "Terminate a run from outside, for good.",
    "sessions": "List the sessions of coding agents on this machine.",
    "backup": "Copy the file as of now to a new FILE.",
    "init": "Make or migrate the tables of a database.",
    "rederive": "Compute summaries and costs again, after a template or prices have changed.",
    "completion": "Print the script by which your shell completes commands, options and runs.",
    "skill": "Print the skill that tells a coding agent how to find out what failed, and why.",
}
HELPS = {name: help for section in (*COMMANDS.values(), _HELPS_OF_WAYS) for name, help in section.items()}
SETTINGS = {"help_option_names": ["-h", "--help"]}
"""Settings of the group and of each command: completion looks at commands without their group."""


def called(name: str) -> str:
    """Return how a command is called, without arguments: `show --follow` for `tail`, which is a way of `show`."""
    return " ".join(word for word in WAYS.get(name, name).split(" ")[:2] if "|" not in word)


def meant(words: Sequence[str]) -> tuple[str, list[str]]:
    """Return the name of the command that a call means, and the words after it: `tail` for `show --follow`."""
    name, *rest = words
    before = rest[: rest.index("--")] if "--" in rest else rest
    for way, call in WAYS.items():
        command, sign = [*call.split(" "), ""][:2]
        for at, word in enumerate(before if sign.startswith("-") else before[:1]):
            first, equals, value = word.partition("=")
            if command == name and first in sign.split("|"):
                kept = word if "|" in sign else value if equals else None
                return way, [*rest[:at], *([] if kept is None else [kept]), *rest[at + 1 :]]
    return name, rest


class _Context(click.Context):
    """The context of a command, which may have no name: `agentspan --since 7d`."""

    @property
    def command_path(self) -> str:
        """Return the words that call the command."""
        return super().command_path.rstrip()


class _Command(click.Command):
    """A command whose arguments may be `-#12`, which click would take for an option. `#12` means the same step.

    An invalid value of an option ends it with exit code 2, as click's own errors do. The options that call its ways are
    in its help; the group finds the way before the command is parsed.
    """

    context_class = _Context

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        for way, call in WAYS.items():
            command, sign, value = [*call.split(" ", 2), "", ""][:3]
            if command == self.name and sign.startswith("-"):
                help = HELPS[way]
                self.params.append(click.Option([sign], metavar=value, expose_value=False, help=help))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except InvalidValue as error:
            names = {each.name for each in self.params if isinstance(each, click.Option)} | _OF_OPTIONS
            if error.field.partition(" ")[0] in names:
                raise Unanswered(message(error)) from None
            raise

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        options = [each for each in self.params if isinstance(each, click.Option) and not each.is_flag]
        with_value = {name for each in options for name in each.opts}
        before = ["", *args]
        return super().parse_args(
            ctx,
            [
                word[1:] if _LATEST_STEP.fullmatch(word) and last not in with_value else word
                for last, word in zip(before, args, strict=False)
            ],
        )

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples of the command, if it has any. They are never wrapped: a part of a command is useless."""
        examples = EXAMPLES.get(self.name or "", ())
        if examples:
            formatter.write_paragraph()
            formatter.write_heading("Examples")
        for about, example in examples:
            formatter.write(f"  {about}:\n    {program()} {example}\n")


_OF_OPTIONS = frozenset({"outcome", "filter"})
"""Names that errors have for the values of several options: rules over a score, and filters in one text."""
_LATEST_STEP = re.compile(r"-#\d+", re.ASCII)


def command(name: str, **settings: Any) -> Callable[[Callable[..., None]], click.Command]:
    """Return a decorator that makes a function a click command, whose help text is the docstring."""
    settings["context_settings"] = {**SETTINGS, **settings.get("context_settings", {})}
    return click.command(name, cls=_Command, **settings)


def db_option(function: F) -> F:
    """Add the option `--db` to a command; it may also stand before the command's name."""
    return click.option("--db", metavar="PATH", help="Use this file, or NAME://….")(function)


def options(function: F) -> F:
    """Add the options `--db` and `--json` to a command."""
    return db_option(click.option("--json", "as_json", is_flag=True, help="Answer with one JSON document.")(function))


def reads(function: Callable[..., None]) -> Callable[..., None]:
    """Add `--db` and `--json` to a command that only reads. Its first argument becomes the opened Database."""
    return _with_database(function, lambda ctx, db, how: opened(ctx, db))


def changes(function: Callable[..., None]) -> Callable[..., None]:
    """Add `--db` and `--json` to a command that changes an existing file; with `dry_run` the file is opened read-only.

    The first argument of the command's function becomes the opened Database.
    """
    return _with_database(function, lambda ctx, db, how: opened_existing(ctx, db, read_only=how.get("dry_run", False)))


_Opens = Callable[[click.Context, str | None, dict[str, Any]], AbstractContextManager["Database"]]


def _with_database(function: Callable[..., None], opens: _Opens) -> Callable[..., None]:
    @options
    @click.pass_context
    @wraps(function)
    def call(ctx: click.Context, /, *, db: str | None, **how: Any) -> None:
        with opens(ctx, db, how) as database:
            function(database, **how)

    return call


@contextmanager
def opened(ctx: click.Context, db: str | None, *, read_only: bool = True) -> Iterator["Database"]:
    """Open the storage of a command. A missing file is created, unless `read_only` is set.

    A program that calls commands in this process may pass them an opened Database as the `obj` of their context.
    """
    from agentspan.database import Database, open

    if isinstance(ctx.obj, Database):
        yield ctx.obj
        return
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
    """Raise an error that names the damage if the storage is damaged; else return: the error has another cause."""
    from agentspan.storage.sqlite.driver import damaged

    storage = database.storage
    problems = storage.ask(Damage()) if Damage in storage.capabilities().answers else []
    if problems and location.path is not None:
        raise damaged(location.path, problems[0]) from error
    if problems:
        raise Failed(f"{location} is damaged: {problems[0]}") from error


@contextmanager
def opened_existing(ctx: click.Context, db: str | None, *, read_only: bool = False) -> Iterator["Database"]:
    """Open the storage of a command that changes a file which must exist."""
    location = location_in(ctx, db)
    if location.path is not None and not location.path.exists():  # opening for writing would create the file
        raise Failed(location.not_there)
    with opened(ctx, db, read_only=read_only) as database:
        yield database


@contextmanager
def answering() -> Iterator[None]:
    """Turn errors of a command into exit code 2, for commands whose exit code 1 is a result."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (AgentspanError, OSError) as error:
        raise Unanswered(message(error)) from None
    except Failed as error:
        raise Unanswered(error.message) from None


@contextmanager
def removing_unfinished() -> Iterator[None]:
    """Turn SIGTERM into SystemExit: a command that `timeout` or a service manager ends deletes its unfinished files."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def read_or_not() -> Iterator[None]:
    """Print an answer, and go on if its reader has gone, as in `check | head -1`: the exit code answers, too."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        print_nothing()


def print_nothing() -> None:
    """Discard what is printed from now on: its reader has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def message(error: AgentspanError | OSError) -> str:
    """Return the line that says an error, with the options of this call in its commands."""
    if isinstance(error, OSError):  # `agentspan show - > /dev/full`
        return f"cannot write the answer: {error.strerror}"
    return to_call(str(error))  # `Failed` escapes control characters in names of files


def location_in(ctx: click.Context, db: str | None) -> Location:
    """Return the location of a command's storage. If `--db` is set, it is stored for the commands that it prints."""
    location = location_of(db or ctx.obj or None)
    if db or ctx.obj:
        ctx.meta[GIVEN_DB] = str(location)
    return location
