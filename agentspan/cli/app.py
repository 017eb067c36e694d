"""Lists all commands with their help texts, defines the options `--db` and `--json`, opens the storage of a command.

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
        "runs": "List runs, the latest first, with totals.\n\nA ? marks a run that its program left open when it died.",
        "show": "Show a run as a tree, or one of its steps in full; with --session a conversation, with --follow what "
        "happens now.\n\nID is a run: its id, the unique beginning of one, or - for the latest run. Or it is a step, "
        "by its number in the tree, such as -#12, or by its id. --session and --follow have options of their own: "
        "`show --follow --help` lists them.",
        "search": "Find the steps that have all WORDS.\n\nThey are in its summary, payload or result. 'Two words' in "
        "quotes are a phrase; book* finds booking.",
        "stats": "Sum up steps by type, and by model or tool: counts, failures, durations, tokens, cost.\n\nOf all "
        "runs, of those that match, or of RUN. --since and --until are about steps here, the other filters about their "
        "runs.",
        "cost": "Sum up what runs cost: by model, day, agent, project, tool, version or session; and what caches "
        "saved.\n\nA cost belongs to the day on which its run began. By tool it is that of all model calls inside its "
        "calls.",
        "sql": "Answer a QUERY in SQL over the tables and views.\n\nIt cannot write. With - as QUERY it is read from "
        "stdin.",
        "open": "Open the viewer in a browser: the list of runs, or the page of RUN.\n\nIt is that of a running "
        "`serve` of this file, if there is one. Else a server is started in the background, which only this machine "
        "can reach. It ends by itself after two hours without a request.",
    },
    "Compare and judge": {
        "why": "Group the failed runs by what failed, and list what goes with failure.\n\nWith RUN, show why that run "
        "failed.",
        "diff": "Show where two runs part, or whether two groups of runs differ by more than chance.\n\nA and B are "
        "runs: an id, the unique beginning of one, or - for the latest. Or they are groups: AGENT@1.0 AGENT@2.0; other "
        "groups are --base FILTER and --head FILTER. With --context they are model calls, as `show` numbers them, such "
        "as -#12; A alone is compared with the call before it.",
        "versions": "Show the versions of AGENT side by side, and whether the newest is worse than the one "
        "before.\n\nIt may differ only by chance. Without AGENT, list the agents with several versions.",
        "check": "Check runs in CI: budgets, calls, a baseline.\n\nThe exit code is 0 if they pass, 1 if not, 2 if "
        "they cannot be checked, 3 if they are too few to say.",
        "evaluate": "Run cases through a function, score its runs, and compare them with another "
        "version's.\n\nMODULE:FUNCTION is called with the input of each case. The exit code is 0 if it is no worse, 1 "
        "if it is, 2 if nothing was evaluated, 3 if there is no verdict. The same command again runs the trials that "
        "are missing.",
        "score": "Add a score, a mark or a note to a run or a step.\n\nRUN may be a step, such as -#12. NAME is what "
        "is judged, VALUE a number, true, false or a word. The newest score of a NAME counts, and so does the newest "
        "mark.",
    },
    "Record and watch": {
        "record": "Run a Python program, and record what its AI frameworks do.\n\nThe program needs no change. With "
        "`-m MODULE` as PROGRAM, a module runs, as `python -m` does: the options after it are the module's.",
        "watch": "Follow the sessions of coding agents as they grow, until Ctrl-C.\n\nSOURCE is a format, such as "
        "claude or codex, or a file or folder, or all. Without one, the sessions of this machine are listed, and "
        "followed after a yes.",
        "serve": "Serve the viewer and the operations over HTTP.\n\nThe official clients of the Prefactor API work "
        "against it.",
        "run": "Allow a run more than its budget, or terminate it.\n\nEach has options of its own: `run allow --help` "
        "and `run terminate --help` list them.",
        "demo": "Record a small agent at work on the current folder, and show its run.",
    },
    "Share": {
        "export": "Write runs to a file: for `import`, for evaluations, for a review.\n\nRUN is as for `show`, or "
        "`all`; without RUN, all runs that match the filters. AGENT@VERSION is all its runs.",
        "import": "Add sessions of coding agents, runs that `export` wrote, or spans of OpenTelemetry; with --list, "
        "only list sessions.\n\nSOURCE is a format of sessions, such as claude or codex, or all; a file or folder of "
        "sessions; or another file, or - for stdin. Without one, the sessions of this machine are listed, and imported "
        "after a yes. What is stored already stays.",
        "copy": "Copy all runs to another database, or send them to a backend of OpenTelemetry; with --backup, the "
        "file as it is now.\n\nSRC is a file or NAME://…, else that of --db. DST is one, too: what it has already "
        "stays, or becomes what it is in SRC. To http://… or https://…, the spans that have finished since the last "
        "time are sent. A copy can be interrupted, and repeated.",
    },
    "For coding agents": {
        "mcp": "Answer coding agents over MCP on stdin and stdout, with eight tools that only read.\n\nThe tools print "
        "what the commands of their names print, within a budget of tokens. `serve` has the same tools at /mcp.",
        "setup": "Add agentspan to a coding agent, its MCP server and two skills; or print the script by which a shell "
        "completes commands.\n\nNAME is claude, codex, cursor, gemini, opencode or vscode. The change is shown first; "
        "other entries and comments of the files stay as they are; --remove takes it back. Or NAME is bash, zsh or "
        "fish.",
    },
    "Keep in order": {
        "doctor": "Check the file, and close what dead programs left open; with --init make its tables, with "
        "--rederive compute summaries and costs again.\n\n--init and --rederive have options of their own: `doctor "
        "--init --help` lists them.",
        "prune": "Remove old runs that have finished, and make the file smaller.\n\nIdempotency keys older than 7 days "
        "are removed, too. With filters, only runs that match are removed: all of these, if neither --older-than nor "
        "--max-size is given.",
    },
}
"""All commands in groups by purpose, with their help texts, so that `agentspan --help` imports no command."""
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
    "overview": "Say what happened to the runs of the last day that has some: how many failed, and why most "
    "often.\n\n--since replaces the day.",
    "session": "Show the runs of one session in order: what was asked first, what became of it, and what it took.",
    "tail": "Print each step of RUN as it begins and ends, then of the runs after it.\n\nWithout RUN, of the latest "
    "run.",
    "allow": "Allow a run more than its budget.\n\nA run that is paused goes on. Without options, as much again as "
    "each limit of its budget.",
    "terminate": "Terminate a run from outside, for good.\n\nIts open spans are closed, and its program learns of it "
    "at its next span.",
    "sessions": "List the sessions of coding agents on this machine.\n\nNothing is stored. SOURCE is a format, such as "
    "claude or codex, or a file or folder; without one, of all formats. EXPIRING is how many their product deletes "
    "within a week.",
    "backup": "Copy the file as of now to a new FILE.\n\nPrograms may go on recording.",
    "init": "Make or migrate the tables of a database.\n\nIt also makes the partitions that are missing. URL is a file "
    "or NAME://…, else that of --db.",
    "rederive": "Compute summaries and costs again, after a template or prices have changed.\n\nOf RUN, or of all "
    "runs.",
    "completion": "Print the script by which your shell completes commands, options and runs.\n\nAppend it to the file "
    "that the shell reads when it starts.",
    "skill": "Print the skill that tells a coding agent how to find out what failed, and why.\n\nWith `instrument` it "
    "tells how to record a program.",
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
                help = first_of(HELPS[way])
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


def first_of(help: str) -> str:
    """Return the first sentence of a help text, which is its first paragraph."""
    return help.partition("\n\n")[0]


def command(name: str, **settings: Any) -> Callable[[Callable[..., None]], click.Command]:
    """Return a decorator that makes a function a click command, with its help text from COMMANDS."""
    settings["context_settings"] = {**SETTINGS, **settings.get("context_settings", {})}
    return click.command(name, cls=_Command, help=HELPS[name], **settings)


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
    path = location_in(ctx, db).path
    if path is not None and not path.exists():  # opening for writing would create the file
        raise Failed(f"{path} does not exist; nothing has been recorded there yet")
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
