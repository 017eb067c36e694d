"""`agentspan prune`: removes old runs."""

import re
from typing import Any

import click

from agentspan.analysis import filter_words
from agentspan.analysis.runs import ids_that_match
from agentspan.cli.filter_options import filter_in
from agentspan.cli.output import document, noun, zone
from agentspan.database import Database
from agentspan.errors import InvalidValue
from agentspan.storage.questions import RunFilter

_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,3})?) ?([kmgt]?)i?b?\Z", re.IGNORECASE)


def command(
    database: Database,
    *,
    older_than: str | None,
    max_size: str | None,
    keep_failed: bool,
    whole_partitions: bool,
    dry_run: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Remove old runs and keys, and print how many."""
    storage = database.storage
    filter = filter_in(storage, given)
    done = database.prune(
        older_than=None if older_than is None else filter_words.parse_time(older_than, "older_than", zone=zone()),
        max_bytes=None if max_size is None else size(max_size),
        keep_failed=keep_failed,
        dry_run=dry_run,
        whole_partitions=whole_partitions,
        only=None if filter == RunFilter() else lambda rows: ids_that_match(storage, rows, filter),
    )
    if as_json:
        document({**done._asdict(), "dry_run": dry_run})
        return
    about = "about " if dry_run and max_size is not None else ""
    what = f"{about}{noun(done.runs, 'run')} with {noun(done.spans, 'span')}, and {noun(done.keys, 'idempotency key')}"
    click.echo(f"{'would remove' if dry_run else 'removed'} {what}")
    if done.partitions:
        click.echo(f"{noun(done.partitions, 'partition')} dropped")
    if done.freed_bytes is not None:
        click.echo(f"{noun(done.freed_bytes, 'byte')} freed")


def size(text: str) -> int:
    """Return the bytes of `500MB`, `2 GiB`, `1048576`; k, M, G, T are powers of 1024.

    Raises:
        InvalidValue: it is no size.
    """
    match = _SIZE.match(text.strip())
    if match is None:
        raise InvalidValue("max_size", "must be such as 500MB, 2GB or 1048576")
    return int(float(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " "))
