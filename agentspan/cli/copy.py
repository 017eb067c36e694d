"""`agentspan copy`: copies all runs of one database to another one, or sends them as OpenTelemetry; and follows it."""

import signal
from collections.abc import Callable, Sequence

import click

from agentspan.analysis import time_expressions
from agentspan.cli.app import recover
from agentspan.cli.output import Failed, bar, document, noun, safe, zone
from agentspan.database import open
from agentspan.errors import InvalidValue
from agentspan.maintenance.copying import Copied, copy
from agentspan.storage.location import Location
from agentspan.storage.registry import location_of


def to_database(source: Location, dst: str, *, since: str | None, follow: bool, as_json: bool) -> None:
    """Copy, and print how many rows are new. Exit code 1 if rows are left out."""
    target = location_of(dst)
    at = None if since is None else time_expressions.parse(since, zone=zone())
    if source == target:
        raise Failed("DST is SRC itself")
    if source.path is not None and not source.path.exists():
        raise Failed(f"{source} does not exist; nothing has been recorded there yet")
    stop = _on(signal.SIGINT, signal.SIGTERM) if follow else bool
    for location in (source, target):
        if location.path is not None:
            recover(location.path)
    with open(source, read_only=True) as of, open(target) as to, bar("copying runs") as progress:
        done = copy(of.storage, to.storage, since=at, follow=follow, stop=stop, progress=progress)
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


def to_backend(
    source: Location, url: str, *, headers: Sequence[str], follow: bool, state: str | None, as_json: bool
) -> None:
    """Send all that has finished since the last time as OpenTelemetry, and print how much that was."""
    from agentspan.otel.forwarding import forward
    from agentspan.otel.sending import ForwardingFailed

    if state is None and source.path is None:
        raise Failed(f"{source} has no file beside which to note what was sent; name one: --state FILE")
    stop = _on(signal.SIGTERM) if follow else bool
    try:
        done = forward(url, source, headers=_parsed(headers), follow=follow, state=state, stop=stop)
    except (ForwardingFailed, InvalidValue) as error:
        raise Failed(str(error)) from None
    except KeyboardInterrupt:
        return
    if as_json:
        document(done._asdict())
    else:
        late = f", and {noun(done.late_scores, 'late score')}," if done.late_scores else ""
        click.echo(f"{noun(done.spans, 'span')} and {noun(done.runs, 'run')}{late} forwarded to {safe(url)}")
        if done.left_scores:
            click.echo(f"{noun(done.left_scores, 'late score')} left out: the target has no /v1/logs")


def _parsed(headers: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for header in headers:
        name, sign, value = header.partition("=" if "=" in header and ":" not in header.partition("=")[0] else ":")
        if not sign or not name.strip():
            raise Failed("--header is NAME=VALUE")
        found[name.strip()] = value.strip()
    return found


def _on(*signals: signal.Signals) -> Callable[[], bool]:
    """Return whether one of these signals has come; from now on none of them ends the process."""
    came: list[int] = []
    for number in signals:
        signal.signal(number, lambda number, _: came.append(number))
    return lambda: bool(came)
