"""Times as people read them: in the machine's zone, with its name, or in UTC with `--utc`. Documents keep UTC."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, tzinfo
from typing import Any, TypeVar

import click

from agentspan import clock

F = TypeVar("F", bound=Callable[..., Any])
_IS_UTC = "agentspan.cli.local_time.is_utc"


def utc_option(command: F) -> F:
    """Add the option `--utc` to a command. Its function gets no parameter for it."""

    def keep(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        ctx.meta[_IS_UTC] = value

    option = click.option("--utc", is_flag=True, expose_value=False, callback=keep, help="Times are UTC, not local.")
    return option(command)


def zone() -> tzinfo | None:
    """Return the zone of the command that is running: UTC with `--utc`, else None, the machine's own."""
    context = click.get_current_context(silent=True)
    return UTC if context is not None and context.meta.get(_IS_UTC) else None


def local(text: str) -> datetime:
    """Return a stored time in the zone of the command."""
    return clock.to_datetime(text).astimezone(zone())


def zone_name(texts: Iterable[str] = ()) -> str:
    """Return the name of the zone at these stored times, or now; `local` where summer and winter time are mixed."""
    names = {local(text).tzname() or "" for text in [*texts] or [clock.now()]}
    return names.pop() if len(names) == 1 else "local"
