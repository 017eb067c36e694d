"""Commands on whole files: export, import, backup, copy, serve. And on programs: record."""

from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from agentspan.cli.app import location_in, main, opened, options
from agentspan.cli.filter_options import filter_options
from agentspan.storage.location import scheme_of

_viewer = find_spec("agentspan.viewer")
_has_html = _viewer is not None and any(Path(f, "export.py").exists() for f in _viewer.submodule_search_locations or ())
_FORMATS = ["jsonl", "compact", "dataset", "markdown", "otlp", "parquet", *(["html"] if _has_html else [])]


@main.command()
@click.argument("runs", metavar="[RUN...]", nargs=-1)
@click.option("--format", "form", type=click.Choice(_FORMATS), default="jsonl", show_default=True, help="As what.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="The file (of a dataset .csv, .parquet, too), of parquet the folder; else stdout.",
)
@click.option("--blobs", metavar="DIR", help="A folder for the images, audio and other bytes, each in a file.")
@filter_options
@options
@click.pass_context
def export(ctx: click.Context, /, runs: tuple[str, ...], db: str | None, as_json: bool, **how: Any) -> None:
    """Write runs: jsonl or compact for `import`, dataset for evaluations, markdown for a review …

    RUN is as for `show`, or `all`; without RUN, all runs that match the filters. AGENT@VERSION is all its runs.
    """
    from agentspan.cli import export as export_

    with opened(ctx, db) as database:
        export_.command(database, runs, as_json=as_json, **how)


@main.command(name="import")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--from", "form", type=click.Choice(["export", "otlp"]), default="export", show_default=True, help="Of what."
)
@options
@click.pass_context
def import_(ctx: click.Context, files: tuple[str, ...], form: str, db: str | None, as_json: bool) -> None:
    """Import a FILE that `export` wrote (- for stdin), or FILEs of OpenTelemetry; what is stored already stays."""
    from agentspan.cli import import_ as importing

    if form == "export" and len(files) > 1:
        raise click.UsageError("one FILE at a time, unless it is --from otlp")
    with ExitStack() as sources:
        opened_files = [(file, sources.enter_context(importing.seekable(file))) for file in files]
        with opened(ctx, db, read_only=False) as database:
            if form == "otlp":
                importing.command_otlp(database, opened_files, as_json=as_json)
            else:
                importing.command(database, opened_files[0][1], as_json=as_json)


@main.command()
@click.argument("file")
@options
@click.pass_context
def backup(ctx: click.Context, file: str, db: str | None, as_json: bool) -> None:
    """Copy the database as of now to FILE, which must not exist; programs may go on recording."""
    from agentspan.cli import backup as backup_

    with opened(ctx, db) as database:
        backup_.command(database, file, as_json=as_json)


@main.command()
@click.argument("places", metavar="[SRC] DST", nargs=-1, required=True)
@click.option("--since", metavar="TIME", help="Only runs that began since then, such as 7d or 2026-11-24.")
@click.option("--follow", is_flag=True, help="Go on with what is recorded later, until Ctrl-C.")
@click.option(
    "--header", "headers", metavar="NAME=VALUE", multiple=True, help="To https://…: a header of each request."
)
@click.option("--state", metavar="FILE", help="To https://…: notes what was sent; NAME-forward when left out.")
@options
@click.pass_context
def copy(ctx: click.Context, /, places: tuple[str, ...], db: str | None, since: str | None, **how: Any) -> None:
    """Copy all runs of SRC, or of --db, with all that belongs to them, to DST: a file, NAME://…, or https://…

    What DST has already stays, or becomes what it is in SRC. So a copy can be broken off, and repeated.
    To http://… and https://…, the spans that have finished since the last time are sent as OpenTelemetry.
    """
    from agentspan.cli import copy as copy_

    if len(places) > 2:
        raise click.UsageError("a copy has one SRC and one DST")
    source, target = location_in(ctx, db if len(places) == 1 else places[0]), places[-1]
    if scheme_of(target) in ("http", "https"):
        if since is not None:
            raise click.UsageError("--since is for copies to a database; to http://… goes what was not sent before")
        copy_.to_backend(source, target, **how)
    else:
        if how.pop("headers") or how.pop("state") is not None:
            raise click.UsageError("--header and --state are for copies to http://… and https://…")
        copy_.to_database(source, target, since=since, **how)


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8484, show_default=True, help="The port; 0 for any that is free.")
@click.option("--token-file", metavar="PATH", help="A file with the token that clients must send; or AGENTSPAN_TOKEN.")
@click.option("--create", is_flag=True, help="Make the file, if it does not exist.")
@click.option("--read-only", is_flag=True, help="Refuse every write.")
@click.option("--strict-schemas", is_flag=True, help="Refuse payloads that do not match their schema.")
@click.option(
    "--redact",
    type=click.Choice(["credentials", "cards", "off"]),
    default="credentials",
    show_default=True,
    help="What is not stored.",
)
@click.option(
    "--sensitive",
    type=click.Choice(["redact", "keep"]),
    default="redact",
    show_default=True,
    help="Values marked as $sensitive.",
)
@click.option("--allowed-host", "allowed_hosts", metavar="NAME", multiple=True, help="A name to be reached by, too.")
@click.option("--cors-origin", "cors_origins", metavar="URL", multiple=True, help="An origin whose pages may call.")
@click.option("--max-body", default=10 * 2**20, show_default=True, help="Bytes of a request's body, at most.")
@click.option("--db", metavar="PATH", help="The file, or NAME://…, to use.")
@click.pass_context
def serve(ctx: click.Context, /, db: str | None, **options: Any) -> None:
    """Serve the operations over HTTP; the official clients of the Prefactor API work against it."""
    from agentspan.cli import serve as serve_

    serve_.command(location_in(ctx, db), **options)


@main.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-m", "module", metavar="MODULE", help="Run a module, as `python -m` does.")
@click.option("--list", "is_list", is_flag=True, help="List the frameworks that are recorded here; run nothing.")
@click.argument("program", metavar="PROGRAM [ARGUMENT]...", nargs=-1, type=click.UNPROCESSED)
@options
@click.pass_context
def record(
    ctx: click.Context, module: str | None, is_list: bool, program: tuple[str, ...], db: str | None, as_json: bool
) -> None:
    """Run a Python program that knows nothing of agentspan, and record what its instrumentors tell."""
    from agentspan.cli import record as record_

    if is_list and not program and module is None:
        record_.frameworks(as_json=as_json)
        return
    if is_list or as_json:
        raise click.UsageError("--list runs no program, and --json is for --list")
    if not program and module is None:
        raise click.UsageError("a program to run is missing: agentspan record -- python agent.py")
    record_.command(location_in(ctx, db), program, module=module)
