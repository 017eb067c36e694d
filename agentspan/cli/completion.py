"""`agentspan setup SHELL` prints the script by which a shell completes words; the types of arguments that complete.

A shell calls the program at each press of the tab key. So a completion reads at most MOST rows, and has no words if the
file cannot be read.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from agentspan.cli.app import command
from agentspan.errors import AgentspanError
from agentspan.storage.registry import location_of
from agentspan.text import dotted

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from agentspan.storage.protocol import Storage

    _Type = click.ParamType[str]
else:
    _Type = click.ParamType  # before click 8.4 it is not generic

MOST = 50
"""The largest number of runs, or agents, that are completed: the latest."""
SHELLS = ("bash", "zsh", "fish")
Words = Iterator[tuple[str, str | None]]


class _Stored(_Type):
    """The type of a text that a shell completes with words of the storage; the text itself is not checked.

    Args:
        words: yields the words with a beginning, each with a help text, from an opened storage.
    """

    name = "text"

    def __init__(self, words: "Callable[[Storage, str], Words]") -> None:
        self._words = words

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> "list[CompletionItem]":
        from click.shell_completion import CompletionItem

        from agentspan.journal.opening import open_storage

        try:
            location = location_of(ctx.params.get("db") or ctx.find_root().params.get("db"))
            storage = open_storage(location, read_only=True)
            try:
                return [CompletionItem(word, help=about) for word, about in self._words(storage, incomplete)]
            finally:
                storage.close()
        except (AgentspanError, OSError):  # an error would be printed into the command that a person types
            return []


def _runs(storage: "Storage", beginning: str) -> Words:
    from agentspan.analysis.tree import run_name
    from agentspan.model.rows import AgentInstanceRow
    from agentspan.storage.questions import Query
    from agentspan.storage.row_by_row import names_of

    rows = storage.ask(Query("agent_instance", prefix=beginning, descending=True, limit=MOST)).rows
    runs = [row for row in rows if isinstance(row, AgentInstanceRow)]
    names = names_of(storage, runs)
    for run in runs:
        yield run.id, dotted(run_name(*names[run.id]), run.status, run.task or "")
    if not beginning:
        yield "-", "the latest run"


def _agents(storage: "Storage", beginning: str) -> Words:
    from agentspan.model.rows import AgentRow
    from agentspan.storage.access import scan

    names = {row.name for row in scan(storage, AgentRow, descending=True, limit=MOST)}
    for name in sorted(names):
        if name.startswith(beginning):
            yield name, None


RUN = _Stored(_runs)
"""The type of an argument or option that names a run."""
AGENT = _Stored(_agents)
"""The type of an option that names an agent."""


@command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion_command(ctx: click.Context, /, shell: str) -> None:
    """Print the script by which your shell completes commands, options and runs.

    Append it to the file that the shell reads when it starts.
    """
    from click.shell_completion import get_completion_class

    found: Any = get_completion_class(shell)
    assert found is not None
    # Not `source()`: bash's starts a bash to read its version, and prints a warning without one.
    made = found(ctx.find_root().command, {}, "agentspan", "_AGENTSPAN_COMPLETE")
    click.echo(made.source_template % made.source_vars())
