"""The group of all commands, `agentspan` itself. It imports the module of a command when the command is called."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from agentspan import __version__
from agentspan.answers.findings import FINDINGS
from agentspan.cli.app import COMMANDS, HELPS, SETTINGS, WAYS, called, meant, message, print_nothing
from agentspan.cli.output import Failed, adapt_output, program, width, wrap
from agentspan.errors import AgentspanError
from agentspan.text import printable

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


_FILES = {
    "stats": "runs", "sql": "search", "run": "score", "terminate": "score", "allow": "score", "demo": "record",
    "import": "importing", "backup": "copy",
    "init": "keep", "doctor": "keep", "prune": "keep", "rederive": "keep",
    "mcp": "agentspan.mcp.server", "setup": "agentspan.mcp.setup", "skill": "agentspan.mcp.skill",
}  # fmt: skip
"""The modules of commands that share a module, or lie in a later layer. All others have a module of the same name."""


NAMES = [name for section in COMMANDS.values() for name in section]
"""The names of all commands, as help lists them."""
ALIASES = {"ls": "runs", "list": "runs"}
"""Other names of commands, which no help lists."""


@contextmanager
def _printable() -> Iterator[None]:
    """Replace control characters in click's own errors, which repeat arguments such as file names."""
    try:
        yield
    except click.ClickException as error:
        error.message = printable(error.message, keep="\n")  # type: ignore[misc]  # declared final, but it is read later
        raise


def named(name: str) -> click.Command:
    """Import the module of a command, and return its function `NAME_command`."""
    if name in FINDINGS:
        of_finding: click.Command = import_module("agentspan.cli.finding").command_of(name)
        return of_finding
    file = _FILES.get(name, name)
    found: click.Command = getattr(import_module(file if "." in file else f"agentspan.cli.{file}"), f"{name}_command")
    return found


def _problem(words: list[str], found: click.Command, rest: list[str]) -> str:
    """Return why a call means no command: it calls two ways of one, or has options before its command; else ""."""
    name, before = words[0], words[: words.index("--")] if "--" in words else words
    signs = {sign for command, sign in (call.split(" ")[:2] for call in WAYS.values() if call) if command == name}
    both = [sign for sign in sorted(signs) if any(word.partition("=")[0] == sign for word in before[1:])]
    if len(both) > 1 and both[0].startswith("-"):
        return f"{' and '.join(both)} exclude each other: call {name} with one of them"
    if name != "overview" or not rest or not rest[0].startswith("-"):
        return ""
    try:
        context = click.Context(found, **found.context_settings)  # the help option is kept with its names
        others = found.make_parser(context).parse_args([*rest])[1]
    except click.UsageError:  # an option that the overview has not
        others = rest
    other = next((each for each in others if each in HELPS or each in ALIASES), None)
    if other is None:
        return ""
    options = [each for at, each in enumerate(rest) if at != rest.index(other)]
    return f"the options of a command stand after its name: {program()} {shlex.join([other, *options])}"


class _Group(click.Group):
    """The group of all commands. Turns errors into one line on stderr and exit code 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*NAMES]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, whose module is imported now; None for an unknown one."""
        cmd_name = ALIASES.get(cmd_name, cmd_name)
        return named(cmd_name) if cmd_name in HELPS else None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options of the group. Other options before a command are those of the overview."""
        return super().parse_args(ctx, with_command(args))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of the first argument; an unknown one is an error with the commands that may be meant."""
        name, rest = meant([ALIASES.get(args[0], args[0]), *args[1:]])
        found = self.get_command(ctx, name)
        if found is None and not ctx.resilient_parsing and name[:1].isalnum():
            close = [called(each) or "agentspan" for each in get_close_matches(name.lower(), [*HELPS, *ALIASES], 3)]
            known = f"is {' or '.join(close)} meant?" if close else f"the commands are {', '.join(NAMES)}"
            ctx.fail("\n".join(wrap(f"No such command {name[:40]!r}; {known}", width() - len("Error: "), 9)))
        if found is not None and not ctx.resilient_parsing and (problem := _problem(args, found, rest)):
            ctx.fail(problem)
        return super().resolve_command(ctx, [name, *rest]) if found is None else (called(name), found, rest)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """Complete the name of a command, without importing it, or an option."""
        from click.shell_completion import CompletionItem

        names = [CompletionItem(name, help=HELPS[name]) for name in NAMES if name.startswith(incomplete)]
        own = click.Command.shell_complete(self, ctx, incomplete)
        return names + own + (named("overview").shell_complete(ctx, incomplete) if incomplete.startswith("-") else [])

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
            print_nothing()
            raise SystemExit(0) from None
        except (AgentspanError, OSError) as error:
            raise Failed(message(error)) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands in groups by purpose, each with the whole first sentence of its help."""
        for title, helps in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(name, help) for name, help in helps.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_paragraph()
        formatter.write_text(f"`{program()} COMMAND --help` has the options of a command, and examples.")


def with_command(words: list[str]) -> list[str]:
    """Return the words of a call with the name of its command: without one it is the overview, if it has options."""
    at = 0
    while words[at : at + 1] and words[at].partition("=")[0] == "--db":
        at += 1 if "=" in words[at] else 2
    is_other = words[at : at + 1] and words[at].startswith("-") and words[at] not in ("--version", "-h", "--help", "--")
    return [*words[:at], "overview", *words[at:]] if is_other else words


@click.group(cls=_Group, invoke_without_command=True, context_settings={**SETTINGS, "max_content_width": 100})
@click.version_option(__version__, prog_name="agentspan")
@click.option(
    "--db", metavar="PATH", help="Use this file, or NAME://…; AGENTSPAN_DB, else ./agentspan.db, when left out."
)
@click.pass_context
def main(ctx: click.Context, db: str | None) -> None:
    """A flight recorder for AI agents: record runs into one SQLite file, and read them.

    Without a command: what happened to the runs of the last day, or to those that the options of `runs` choose, as in
    `agentspan --since 7d`.
    """
    ctx.obj = db
    if ctx.invoked_subcommand is None:
        import_module("agentspan.cli.overview").answer_alone(ctx)
