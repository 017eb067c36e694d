"""The work of each arrival at the storage: texts as they may be stored, runs registered, many rows put at once."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentspan import clock, jsontext
from agentspan.api.context import Context
from agentspan.model import registration, spans
from agentspan.model.changes import Applied, Outcome, Put, PutSpans, Refused, SpanStatus, Unit, parted
from agentspan.model.registration import DEFAULT, References, Registration
from agentspan.model.rows import AgentInstanceRow, AgentRow, AgentSpanRow, Row
from agentspan.model.spans import Times
from agentspan.schemas.span_types import MAX_NAME, REGISTRY, describe, title_of
from agentspan.storage.access import references, unique
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


class Registrar:
    """Registers runs. It remembers the stored agents and versions until `forget`.

    Attributes:
        schema: the schema version of each run: the span types that this process knows.
    """

    def __init__(self) -> None:
        self.schema = registration.fields_of(REGISTRY.items())
        self._known: dict[tuple[str, str], References] = {}

    def forget(self) -> None:
        """Forget agents and versions: some of them may have been removed from the storage."""
        self._known.clear()

    def known(self, ctx: Context, wanted: Registration) -> References:
        """Return the stored rows that a run refers to."""
        which = wanted.agent, wanted.version.external_identifier
        known = self._known.get(which)
        if known is None:
            agent = unique(ctx.storage, AgentRow, external_identifier=wanted.agent)
            known = references(ctx.storage, agent, which[1], wanted.schema.content_hash)
            if None not in known:
                self._known[which] = known
        return known

    def register(self, ctx: Context, wanted: Registration) -> tuple[AgentInstanceRow, Outcome | Exception]:
        """Try to register a run; return its row and the outcome. If it is refused, all known rows are forgotten."""
        changes = registration.register(wanted, self.known(ctx, wanted), ctx.ids.new, clock.now())
        outcome = ctx.storage.apply([Unit(changes)], wait_s=ctx.wait_s)[0]
        if not isinstance(outcome, Applied):
            self.forget()
        rows = (change.row for change in changes if isinstance(change, Put))
        return next(row for row in rows if isinstance(row, AgentInstanceRow)), outcome


def span_row(
    instance: AgentInstanceRow,
    own: tuple[str, str | None],
    name: str,
    status: SpanStatus,
    admitted: tuple[tuple[str, Any, int], tuple[str, Any, int]],
    times: Times,
    now: str,
    *,
    title: str | None = None,
    known: Mapping[str, Any] | None = None,
) -> AgentSpanRow:
    """Return the row of a span.

    Args:
        own: the ids of the span and of its parent.
        name: the schema_name of the span, already redacted and truncated.
        admitted: the payload and the result: for each the text to store, its plain JSON, and 1 if values of it are
            marked as sensitive. A missing result is None, with an empty text.
        now: the current time as stored text.
        title: the title of the span type, if it is not the title in this installation.
        known: values of derived columns that replace the derived values, such as `summary`.
    """
    (payload, sent, is_marked), (result, returned, is_result_marked) = admitted
    span_type = REGISTRY.resolve(name)
    meaning = describe(span_type, name, status, sent, returned, times.duration_ms)
    put = spans.created(
        own[0],
        instance.agent_id,
        instance.id,
        own[1],
        name,
        title or title_of(span_type, name),
        status,
        payload,
        result or None,
        times,
        meaning._replace(**known) if known else meaning,
        now,
        sensitive_encoding=is_marked or is_result_marked,
    )
    assert isinstance(put.row, AgentSpanRow)
    return put.row


def puts_of(rows: Sequence[AgentSpanRow]) -> list[Unit]:
    """Return the units that insert new spans. A single span is one statement, without a transaction."""
    batches = [rows[at : at + BATCH] for at in range(0, len(rows), BATCH)]
    return [Unit((PutSpans(batch) if len(batch) > 1 else Put(batch[0], minted=True),)) for batch in batches]


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
