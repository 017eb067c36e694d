"""`agentspan forward`: sends finished spans to another backend."""

import signal
from collections.abc import Sequence

import click

from agentspan.cli.output import Failed, document, noun, safe
from agentspan.errors import InvalidValue
from agentspan.storage.location import Location


def command(
    location: Location, to: str, headers: Sequence[str], *, follow: bool, state: str | None, as_json: bool
) -> None:
    """Send all that has finished since the last time, and print how much that was."""
    from agentspan.otel.forwarding import forward
    from agentspan.otel.sending import ForwardingFailed

    if state is None and location.path is None:
        raise Failed(f"{location} has no file beside which to note what was sent; name one: --state FILE")
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    if follow:
        signal.signal(signal.SIGTERM, stop)
    try:
        done = forward(to, location, headers=_parsed(headers), follow=follow, state=state, stop=lambda: stopped)
    except (ForwardingFailed, InvalidValue) as error:
        raise Failed(str(error)) from None
    except KeyboardInterrupt:
        return
    if as_json:
        document(done._asdict())
    else:
        late = f", and {noun(done.late_scores, 'late score')}," if done.late_scores else ""
        click.echo(f"{noun(done.spans, 'span')} and {noun(done.runs, 'run')}{late} forwarded to {safe(to)}")
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
