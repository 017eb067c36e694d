"""`agentspan storage`: makes the tables and partitions of a database, and shows them."""

from typing import cast

import click

from agentspan.analysis import filter_words
from agentspan.cli.output import document, noun, safe, table, to_copy, zone
from agentspan.errors import InvalidValue
from agentspan.figures import size_text
from agentspan.storage.answers import MOST_LATE, Partition, Width
from agentspan.storage.location import Location
from agentspan.storage.questions import MakePartitions, MissingPartitions, Partitions, TablesState
from agentspan.storage.registry import open_direct

WAIT_S = 60.0
"""Seconds to wait, for each partition, for those who use the default one."""


def init(
    location: Location, *, ahead: int, since: str | None, width: str | None, shards: int | None, as_json: bool
) -> None:
    """Open a database by a program that may write, which makes its tables; and make the partitions that are missing.

    Args:
        shards: distribute the spans in so many parts; None to leave them as they are.
    """
    begin = None if since is None else filter_words.parse_time(since, "since", zone=zone())
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


def status(location: Location, *, as_json: bool) -> None:
    """Print the version, the partitions, and how far the index is. Exit code 1 if partitions are missing."""
    storage = open_direct(location, read_only=True)
    try:
        if Partitions not in storage.capabilities().answers:
            if as_json:
                document({"backend": storage.capabilities().backend, "partitions": []})
            else:
                click.echo(f"{safe(str(location))} has no partitions")
            return
        found, missing = storage.ask(Partitions()), storage.ask(MissingPartitions())
        state = storage.ask(TablesState())
    finally:
        storage.close()
    if as_json:
        document(
            {
                "backend": storage.capabilities().backend,
                "version": state.version,
                "partitions": [each._asdict() for each in found],
                "missing": missing,
                "index": {part: {"late_spans": late} for part, late in state.late.items()},
            }
        )
    else:
        click.echo(f"{safe(str(location))} has tables of version {state.version}")
        table(_HEAD, [*map(_line, found)], right=(3, 4))
        for part, late in state.late.items():
            click.echo(f"the index of {part} lacks {'more than ' if late >= MOST_LATE else ''}{noun(late, 'span')}")
        if missing:
            lead = f"{noun(missing, 'partition')} for now and times to come are missing"
            click.echo(f"{lead}: {to_copy('storage', 'init')}")
    if missing:
        raise SystemExit(1)


_HEAD = ["partition", "from", "before", "spans", "size"]


def _line(part: Partition) -> list[str]:
    bounds = [(bound or "").partition("T")[0] for bound in (part.start, part.end)]
    rows = "" if part.rows is None else f"{'' if part.is_default else '~'}{part.rows:,}"
    return [part.name, *bounds, rows, size_text(part.bytes)]
