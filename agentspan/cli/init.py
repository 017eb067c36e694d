"""`agentspan init`: makes the tables and partitions of a database."""

from typing import cast

import click

from agentspan.analysis import time_expressions
from agentspan.cli.output import document, noun, safe, zone
from agentspan.errors import InvalidValue
from agentspan.storage.answers import Width
from agentspan.storage.location import Location
from agentspan.storage.questions import MakePartitions
from agentspan.storage.registry import open_direct

WAIT_S = 60.0
"""Seconds to wait, for each partition, for those who use the default one."""


def command(
    location: Location, *, ahead: int, since: str | None, width: str | None, shards: int | None, as_json: bool
) -> None:
    """Open a database by a program that may write, which makes its tables; and make the partitions that are missing.

    Args:
        shards: distribute the spans in so many parts; None to leave them as they are.
    """
    begin = None if since is None else time_expressions.parse(since, "since", zone=zone())
    storage = open_direct(location, wait_s=WAIT_S)
    try:
        made = None
        if MakePartitions in storage.capabilities().answers:
            made = storage.ask(MakePartitions(ahead, begin, cast(Width | None, width), WAIT_S))
    finally:
        storage.close()
    if shards is not None:
        _distribute(location, shards)
    if as_json:
        document({"made": [] if made is None else [*made.names], "moved": 0 if made is None else made.moved})
        return
    click.echo(f"{safe(str(location))} is ready")
    if made is None:
        click.echo("it has no partitions")
    elif made.names:
        click.echo(f"made {noun(len(made.names), 'partition')}: {', '.join(made.names)}")
        click.echo(f"moved {noun(made.moved, 'span')} out of the default partition")


def _distribute(location: Location, shards: int) -> None:
    if location.scheme != "postgresql":
        raise InvalidValue("citus", "needs the URL of a database of PostgreSQL")
    from agentspan.storage.postgres.citus import distribute

    if distribute(location, shards):
        click.echo(f"the finished spans are distributed in {noun(shards, 'shard')}", err=True)
