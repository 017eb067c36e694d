"""The rows of scores that spans of OpenTelemetry tell: the same ones, with the same ids, however often a span comes."""

import hashlib
from collections.abc import Callable, Iterable

from agentspan import clock, ids
from agentspan.model.changes import Put, Unit
from agentspan.model.rows import ScoreRow
from agentspan.model.scores import Judgement, score_row
from agentspan.operations.context import Context
from agentspan.otel.mapping.judgements import Told

BATCH = 500


def rows_of(
    told: Iterable[Told], run_id: str, span_id: str | None, partition: int, admit: Callable[[str], str]
) -> list[ScoreRow]:
    """Return the rows of the scores of a span.

    Args:
        span_id: in agentspan; None of what is told of the run.
        partition: of the file.
        admit: returns a text without credentials.
    """
    return [_row(each, run_id, None if each.is_of_run else span_id, partition, admit) for each in told]


def store(ctx: Context, rows: list[ScoreRow]) -> None:
    """Commit scores; those that are stored already add nothing."""
    for at in range(0, len(rows), BATCH):
        ctx.storage.apply([Unit((Put(row),)) for row in rows[at : at + BATCH]], wait_s=ctx.wait_s)


def _row(told: Told, run_id: str, span_id: str | None, partition: int, admit: Callable[[str], str]) -> ScoreRow:
    name, value, label, why, source, identifier = told.judged
    label, why, identifier = (text and admit(text) for text in (label, why, identifier))
    judged = Judgement(admit(name), value, label, why, source, identifier)
    target = span_id or run_id
    id = told.id if told.id is not None and ids.is_pfid(told.id) else _id(target, told, judged, partition)
    type_ = "agent_instance" if span_id is None else "agent_span"
    return score_row(id, run_id, type_, target, judged, clock.to_text(told.time_ns or clock.wall_ns()))


def _id(target: str, told: Told, judged: Judgement, partition: int) -> str:
    """Return the id of a score: that of its time and of a hash of what it says, so that it is the same each time."""
    hashed = hashlib.sha256(repr((target, told.time_ns, judged)).encode()).digest()
    return ids.encode(min(max(told.time_ns // 1_000_000, 0), 2**48 - 1), partition, int.from_bytes(hashed[:10]))
