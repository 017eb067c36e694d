"""`agentspan copy`: copies all runs of one database to another, of whatever kinds, and follows it."""

import signal

import click

from agentspan.analysis import filter_words
from agentspan.cli.app import recover
from agentspan.cli.output import Failed, bar, document, noun, safe, zone
from agentspan.database import open
from agentspan.maintenance.copying import Copied, copy
from agentspan.storage.registry import location_of


def command(src: str, dst: str, *, since: str | None, follow: bool, as_json: bool) -> None:
    """Copy, and print how many rows are new. Exit code 1 if rows are left out."""
    source, target = location_of(src), location_of(dst)
    at = None if since is None else filter_words.parse_time(since, zone=zone())
    if source == target:
        raise Failed("DST is SRC itself")
    if source.path is not None and not source.path.exists():
        raise Failed(f"{source} does not exist; nothing has been recorded there yet")
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    if follow:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
    for location in (source, target):
        if location.path is not None:
            recover(location.path)
    with open(source, read_only=True) as of, open(target) as to, bar("copying runs") as progress:
        done = copy(of.storage, to.storage, since=at, follow=follow, stop=lambda: stopped, progress=progress)
    if as_json:
        document({**done._asdict(), "examples": [example._asdict() for example in done.examples]})
    else:
        _print(done, str(target))
    if done.left_out:
        raise SystemExit(1)


def _print(done: Copied, target: str) -> None:
    what = f"{noun(done.runs, 'run')} and {noun(done.spans, 'span')} copied to {safe(target)}"
    click.echo(f"{what}, and {noun(done.others, 'other row')}" if done.others else what)
    if done.changed:
        click.echo(f"{noun(done.changed, 'row')} there brought up to date")
    if done.left_out:
        click.echo(f"{noun(done.left_out, 'row')} left out:", err=True)
        for example in done.examples:
            click.echo(f"  {safe(example.id)}: {safe(example.why)}", err=True)
