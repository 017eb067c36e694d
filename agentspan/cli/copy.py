"""`agentspan copy` copies runs to a database, or sends them as OpenTelemetry; `copy --backup` copies a file."""

import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from agentspan.analysis import filter_words
from agentspan.cli.app import command, location_in, options, reads, recover, removing_unfinished
from agentspan.cli.output import Failed, Unanswered, answer, bar, document, is_stdout, safe, zone
from agentspan.database import Database, open
from agentspan.errors import InvalidValue
from agentspan.maintenance import copying
from agentspan.maintenance.copying import Copied, copy
from agentspan.storage.location import Location, scheme_of
from agentspan.storage.questions import Damage
from agentspan.storage.registry import location_of
from agentspan.text import noun


@command("copy")
@click.argument("places", metavar="[SRC] DST", nargs=-1, required=True)
@click.option("--since", metavar="TIME", help="Copy only runs that began since then: 7d, or 2026-11-24.")
@click.option("--follow", is_flag=True, help="Go on with what is recorded later, until Ctrl-C.")
@click.option(
    "--header", "headers", metavar="NAME=VALUE", multiple=True, help="To https://…: send this header with each request."
)
@click.option("--state", metavar="FILE", help="To https://…: note here what was sent; NAME-forward when left out.")
@options
@click.pass_context
def copy_command(ctx: click.Context, /, places: tuple[str, ...], db: str | None, since: str | None, **how: Any) -> None:
    """Copy all runs to another database, or send them to a backend of OpenTelemetry; with --backup, the file as it is
    now.

    SRC is a file or NAME://…, else that of --db. DST is one, too: what it has already stays, or becomes what it is in
    SRC. To http://… or https://…, the spans that have finished since the last time are sent. A copy can be interrupted,
    and repeated.
    """
    if len(places) > 2:
        raise click.UsageError("a copy has one SRC and one DST")
    source, target = location_in(ctx, db if len(places) == 1 else places[0]), places[-1]
    if scheme_of(target) in ("http", "https"):
        if since is not None:
            raise click.UsageError("--since is for copies to a database; to http://… goes what was not sent before")
        _to_backend(source, target, **how)
    else:
        if (how.pop("headers"), how.pop("state")) != ((), None):
            raise click.UsageError("--header and --state are for copies to http://… and https://…")
        _to_database(source, target, since=since, **how)


def _to_database(source: Location, dst: str, *, since: str | None, follow: bool, as_json: bool) -> None:
    """Copy runs to another database, and print the number of new rows; exit with code 1 if rows were left out."""
    target = location_of(dst)
    at = None if since is None else filter_words.parse_time(since, zone=zone())
    if source == target:
        raise Failed("DST is SRC itself")
    if source.path is not None and not source.path.exists():
        raise Failed(source.not_there)
    stop = _on(signal.SIGINT, signal.SIGTERM) if follow else bool
    for location in (source, target):
        if location.path is not None:
            recover(location.path)
    with open(source, read_only=True) as of, open(target) as to, bar("copying runs") as progress:
        done = copy(
            of.storage, to.storage, since=at, follow=follow, stop=stop, progress=progress, on_failure=_say
        )  # fmt: skip
    if as_json:
        document({**done._asdict(), "examples": [example._asdict() for example in done.examples]})
    else:
        _print(done, str(target))
    if done.left_out:
        raise SystemExit(1)


def _say(failure: Exception) -> None:
    click.echo(f"{safe(str(failure))}; trying again", err=True)


def _print(done: Copied, target: str) -> None:
    what = f"{noun(done.runs, 'run')} and {noun(done.spans, 'span')} copied to {safe(target)}"
    click.echo(f"{what}, and {noun(done.others, 'other row')}" if done.others else what)
    if done.changed:
        click.echo(f"{noun(done.changed, 'row')} there brought up to date")
    if done.left_out:
        click.echo(f"{noun(done.left_out, 'row')} left out:", err=True)
        for example in done.examples:
            click.echo(f"  {safe(example.id)}: {safe(example.why)}", err=True)


def _to_backend(
    source: Location, url: str, *, headers: Sequence[str], follow: bool, state: str | None, as_json: bool
) -> None:
    """Send all spans and runs finished since the previous call as OpenTelemetry; print the number of spans and runs."""
    from agentspan.otel.forwarding import ForwardingFailed, forward

    if state is None and source.path is None:
        raise Failed(f"{source} has no file beside which to note what was sent; name one: --state FILE")
    stop = _on(signal.SIGTERM) if follow else bool
    try:
        done = forward(url, source, headers=_parsed(headers), follow=follow, state=state, stop=stop)
    except (ForwardingFailed, InvalidValue) as error:
        raise Failed(str(error)) from None
    except KeyboardInterrupt:
        return
    late = f", and {noun(done.late_scores, 'late score')}," if done.late_scores else ""
    answer(
        done._asdict(),
        f"{noun(done.spans, 'span')} and {noun(done.runs, 'run')}{late} forwarded to {safe(url)}",
        f"{noun(done.left_scores, 'late score')} left out: the target has no /v1/logs" if done.left_scores else "",
        as_json=as_json,
    )


def _parsed(headers: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for header in headers:
        name, sign, value = header.partition("=" if "=" in header and ":" not in header.partition("=")[0] else ":")
        if not sign or not name.strip():
            raise Unanswered("--header is NAME=VALUE")
        found[name.strip()] = value.strip()
    return found


def _on(*signals: signal.Signals) -> Callable[[], bool]:
    """Handle signals so that they no longer end the process; return a function: has one of them arrived?"""
    came: list[int] = []
    for number in signals:
        signal.signal(number, lambda number, _: came.append(number))
    return lambda: bool(came)


@command("backup")
@click.argument("file")
@reads
@removing_unfinished()
def backup_command(database: Database, *, file: str, as_json: bool) -> None:
    """Copy the file as of now to a new FILE.

    Programs may go on recording.
    """
    to_stdout = is_stdout(file)
    if to_stdout:
        if sys.stdout.isatty():
            raise Failed("a backup is no text for a terminal; name a file, or redirect it")
        copied = copying.pour(database.storage, sys.stdout.buffer)
    else:
        copied = copying.backup(database.storage, file)
    if not as_json:  # before the check, which may find a file that it cannot read to its end
        click.echo(f"copied to {safe(file)}: {noun(copied, 'byte')}", err=to_stdout)
    problems = database.storage.ask(Damage()) if Damage in database.storage.capabilities().answers else []
    if as_json:
        document({"file": file, "bytes": copied, "problems": problems}, err=to_stdout)
    elif problems:
        for problem in problems:
            click.echo(safe(f"✗ {problem}"), err=True)
        click.echo("the file is damaged, and so is the copy; keep the backups of before", err=True)
    if problems:
        raise SystemExit(1)
