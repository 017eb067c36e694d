"""The `agentspan` command: one function a command, each importing what it needs when it runs."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agentspan import __version__
from agentspan.errors import AgentspanError
from agentspan.storage import default_path

if TYPE_CHECKING:
    from agentspan.operations.database import Database

F = TypeVar("F", bound=Callable[..., Any])


class _Group(click.Group):
    """Turns agentspan's errors into one line on stderr and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except AgentspanError as error:
            raise click.ClickException(str(error)) from None
        except BrokenPipeError:  # `agentspan show - | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise SystemExit(0) from None
        except OSError as error:  # `agentspan show - > /dev/full`
            raise click.ClickException(f"cannot write the answer: {error.strerror}") from None


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="agentspan")
@click.option("--db", metavar="PATH", help="The file to use; AGENTSPAN_DB, else ./agentspan.db, when left out.")
@click.pass_context
def main(ctx: click.Context, db: str | None) -> None:
    """A flight recorder for AI agents: record runs into one SQLite file, and read them."""
    ctx.obj = db


def _options(command: F) -> F:
    """Give a command `--json`, and `--db` after its name as well as before it."""
    command = click.option("--json", "as_json", is_flag=True, help="Answer with one JSON document.")(command)
    return click.option("--db", metavar="PATH", help="The file to use.")(command)


@contextmanager
def _opened(ctx: click.Context, db: str | None, *, read_only: bool = True) -> Iterator["Database"]:
    from agentspan.operations.database import open

    with open(_path(ctx, db), read_only=read_only) as database:
        yield database


@contextmanager
def _opened_existing(ctx: click.Context, db: str | None, *, read_only: bool = False) -> Iterator["Database"]:
    path = _path(ctx, db)
    if not path.exists():  # opening for writing would make it
        raise click.ClickException(f"{path} does not exist; nothing has been recorded there yet")
    with _opened(ctx, db, read_only=read_only) as database:
        yield database


def _path(ctx: click.Context, db: str | None) -> Path:
    return Path(db or ctx.obj or default_path())


@main.command()
@_options
@click.pass_context
def demo(ctx: click.Context, db: str | None, as_json: bool) -> None:
    """Record a small real agent at work on the current folder, and show its run."""
    from agentspan.cli import demo_agent

    demo_agent.command(_path(ctx, db), as_json=as_json)


@main.command()
@_options
@click.pass_context
def runs(ctx: click.Context, db: str | None, as_json: bool) -> None:
    """List the latest 50 runs. A ? marks those that a program left open when it died."""
    from agentspan.cli import reading

    with _opened(ctx, db) as database:
        reading.runs(database, as_json=as_json)


@main.command()
@click.argument("run")
@_options
@click.pass_context
def show(ctx: click.Context, run: str, db: str | None, as_json: bool) -> None:
    """Show RUN as a tree: an id, the unique beginning of one, or - for the latest."""
    from agentspan.cli import reading

    with _opened(ctx, db) as database:
        reading.show(database, run, as_json=as_json)


@main.command()
@click.argument("id")
@_options
@click.pass_context
def span(ctx: click.Context, id: str, db: str | None, as_json: bool) -> None:
    """Show all of one span: times, payload, result, error, and where they break its schema."""
    from agentspan.cli import reading

    with _opened(ctx, db) as database:
        reading.span(database, id, as_json=as_json)


@main.command()
@click.option("--all", "all_types", is_flag=True, help="Include the built-in span types.")
@_options
@click.pass_context
def schemas(ctx: click.Context, db: str | None, as_json: bool, all_types: bool) -> None:
    """List the span types that agents were registered with."""
    from agentspan.cli import reading

    with _opened(ctx, db) as database:
        reading.schemas(database, as_json=as_json, all_types=all_types)


@main.command()
@click.argument("run", required=False)
@_options
@click.pass_context
def resummarize(ctx: click.Context, run: str | None, db: str | None, as_json: bool) -> None:
    """Render the summaries of RUN, or of all runs, again, by the newest templates of each agent."""
    from agentspan.cli import rewriting

    with _opened_existing(ctx, db) as database:
        rewriting.resummarize(database, run, as_json=as_json)


@main.command()
@click.argument("run")
@click.option("--reason", required=True, help="Why; it stands on the run, and its program is told.")
@_options
@click.pass_context
def terminate(ctx: click.Context, run: str, db: str | None, as_json: bool, reason: str) -> None:
    """Terminate RUN, for good: its open spans are closed, and its program learns of it at its next span."""
    from agentspan.cli import rewriting

    with _opened_existing(ctx, db) as database:
        rewriting.terminate(database, run, reason, as_json=as_json)


@main.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--dead-host", "dead_hosts", metavar="NAME", multiple=True, help="A host whose programs are all dead.")
@_options
@click.pass_context
def doctor(ctx: click.Context, db: str | None, as_json: bool, dry_run: bool, dead_hosts: tuple[str, ...]) -> None:
    """Check the file, and close the runs and spans that programs left open when they died."""
    from agentspan.cli import doctoring

    with _opened_existing(ctx, db, read_only=dry_run) as database:
        doctoring.command(database, dry_run=dry_run, dead_hosts=dead_hosts, as_json=as_json)


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8484, show_default=True, help="The port; 0 for any that is free.")
@click.option("--token-file", metavar="PATH", help="A file with the token that clients must send; or AGENTSPAN_TOKEN.")
@click.option("--read-only", is_flag=True, help="Refuse every write.")
@click.option("--strict-schemas", is_flag=True, help="Refuse payloads that do not match their schema.")
@click.option("--allowed-host", "allowed_hosts", metavar="NAME", multiple=True, help="A name to be reached by, too.")
@click.option("--cors-origin", "cors_origins", metavar="URL", multiple=True, help="An origin whose pages may call.")
@click.option("--max-body", default=10 * 2**20, show_default=True, help="Bytes of a request's body, at most.")
@click.option("--db", metavar="PATH", help="The file to use.")
@click.pass_context
def serve(ctx: click.Context, /, db: str | None, **options: Any) -> None:
    """Serve the operations over HTTP; the official clients of the Prefactor API work against it."""
    from agentspan.cli import serving

    serving.command(_path(ctx, db), **options)
