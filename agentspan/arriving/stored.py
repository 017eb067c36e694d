"""What each arrival does at the storage: texts as they may be stored, and rows put some at a time."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentspan import jsontext
from agentspan.api.context import Context
from agentspan.model.changes import Put, Refused, Unit, parted
from agentspan.model.registration import DEFAULT
from agentspan.model.rows import Row
from agentspan.schemas.span_types import MAX_NAME
from agentspan.text import one_line

BATCH = 500
"""The most rows that one statement inserts; also about as many spans as one commit stores."""


def name_of(ctx: Context, text: str) -> str:
    """Return a name redacted, on one line and truncated, as it may be stored; DEFAULT for an empty name."""
    return one_line(ctx.admit_text(text), MAX_NAME) or DEFAULT


def about_of(ctx: Context, text: str | None) -> str | None:
    """Return the name of a session or user redacted, on one line and truncated; None for an empty name."""
    return None if text is None else one_line(ctx.admit_text(text), MAX_NAME) or None


def object_of(ctx: Context, value: Mapping[str, Any]) -> str:
    """Return the JSON text of an object, redacted and truncated as it may be stored."""
    return ctx.admit(jsontext.text_of(value), value).text


def refused_puts(ctx: Context, waiting: list[Unit]) -> Iterator[tuple[Row, Row | None]]:
    """Commit units; yield each row that was not inserted, with the stored row that has its id, if any.

    Args:
        waiting: the units, which are removed when they are committed. The caller may append units between two rows.
    """
    while waiting:
        waiting[:], settled = parted(waiting, ctx.storage.apply(waiting, wait_s=ctx.wait_s))
        for unit, outcome in settled:
            change = unit.changes[0]
            if isinstance(outcome, Refused) and isinstance(change, Put):
                yield change.row, outcome.stored


def put_rows(ctx: Context, rows: Sequence[Row]) -> None:
    """Commit rows, such as scores, some at a time. A row whose id is stored already stays unchanged."""
    for at in range(0, len(rows), BATCH):
        ctx.storage.apply([Unit((Put(row),)) for row in rows[at : at + BATCH]], wait_s=ctx.wait_s)
