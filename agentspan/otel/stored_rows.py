"""The rows that spans of OpenTelemetry become: of a span, of a run and its end, of scores, of a log record that waits.

Rows of scores and of log records have the same ids however often their span comes.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from agentspan import clock, ids, jsontext
from agentspan.api.context import Context
from agentspan.model import spans
from agentspan.model.changes import Move, Put, Refused, Unit, parted
from agentspan.model.registration import DEFAULT
from agentspan.model.rows import DERIVED, AgentInstanceRow, AgentSpanRow, OtelLogRow, Row, ScoreRow, Value
from agentspan.model.scores import Judgement, score_row
from agentspan.model.spans import Times
from agentspan.model.status import FinishStatus
from agentspan.otel.mapping.judgements import FoundScore
from agentspan.otel.mapping.mapped import Mapped, RunFacts
from agentspan.otel.span import Event, Log, OtelSpan
from agentspan.otel.traces import ABANDONED, end_of_run
from agentspan.schemas.meaning import describe
from agentspan.schemas.span_types import MAX_NAME, REGISTRY, title_of
from agentspan.text import one_line

_REWRITTEN = (
    "schema_name",
    "schema_title",
    "status",
    "payload",
    "result_payload",
    "finished_at",
    "duration_ms",
    "closed_by",
    "closed_at",
    "sensitive_encoding",
    *DERIVED,
)
"""The columns that change if a span turns out to be another's duplicate, or the log records with its messages come."""
ENDED = frozenset({"complete", "failed"})
_EPOCH = clock.to_datetime("1970-01-01T00:00:00Z")


def row_of(
    ctx: Context,
    span: OtelSpan,
    mapped: Mapped,
    instance: AgentInstanceRow,
    own: tuple[str, str | None],
    run_end_ns: int | None,
    now: str,
) -> AgentSpanRow:
    """Return the row of a span. One that has not ended is closed as abandoned, at the end of its run.

    Args:
        own: its id and its parent's, in agentspan.
    """
    times = times_of(span.start_ns, span.end_ns or run_end_ns)
    result, status = mapped.result_payload, mapped.status
    if span.end_ns is None:
        status = "failed"
        result = {**(result or {}), "error": (result or {}).get("error", ABANDONED)}
    name = mapped.schema_name if mapped.type != "custom" else name_of(ctx, mapped.schema_name)
    row = span_row(ctx, instance, own, name, status, (mapped.payload, result), times, now)
    return row if span.end_ns is not None else row._replace(closed_by="abandoned", closed_at=now)


def span_row(
    ctx: Context,
    instance: AgentInstanceRow,
    own: tuple[str, str | None],
    name: str,
    status: FinishStatus,
    values: tuple[Any, Any],
    times: Times,
    now: str,
    *,
    title: str | None = None,
    known: Mapping[str, Any] | None = None,
) -> AgentSpanRow:
    """Return the row of a span that has ended.

    Args:
        own: its id and its parent's.
        name: its schema_name, as it may be stored.
        values: its payload and its result, plain JSON; None for no result.
        title: of its type, where that is not the title here.
        known: fields of its meaning that are not derived, such as `summary`.
    """
    sent, returned = values
    payload = ctx.admit(jsontext.text_of(sent), sent)
    result = None if returned is None else ctx.admit(jsontext.text_of(returned), returned)
    span_type = REGISTRY.resolve(name)
    plain = None if result is None else result.plain
    meaning = describe(span_type, name, status, payload.plain, plain, times.duration_ms)
    put = spans.created(
        own[0],
        instance.agent_id,
        instance.id,
        own[1],
        name,
        title or title_of(span_type, name),
        status,
        payload.text,
        None if result is None else result.text,
        times,
        meaning._replace(**known) if known else meaning,
        now,
        sensitive_encoding=payload.is_marked or (0 if result is None else result.is_marked),
    )
    assert isinstance(put.row, AgentSpanRow)
    return put.row


def refused_puts(ctx: Context, waiting: list[Unit]) -> Iterator[tuple[Row, Row | None]]:
    """Commit units; yield each row that was not put, and the stored one in its place.

    Args:
        waiting: the units. More may be added while the rows are yielded.
    """
    while waiting:
        waiting[:], settled = parted(waiting, ctx.storage.apply(waiting, wait_s=ctx.wait_s))
        for unit, outcome in settled:
            change = unit.changes[0]
            if isinstance(outcome, Refused) and isinstance(change, Put):
                yield change.row, outcome.stored


def rewritten(row: AgentSpanRow) -> Move:
    """Return the move that gives a stored span the values of this row."""
    values: dict[str, Value] = {name: getattr(row, name) for name in _REWRITTEN}
    values["updated_at"] = row.updated_at
    return Move("agent_span", row.id, ENDED, values, instance_id=row.agent_instance_id)


def stored_mapped(row: AgentSpanRow) -> Mapped:
    """Return the record of a stored span, as far as its row has it."""
    result = None if row.result_payload is None else jsontext.decode(row.result_payload)
    payload: dict[str, Any] = jsontext.decode(row.payload)
    type_ = REGISTRY.resolve(row.schema_name).name
    status: Any = row.status
    return Mapped(row.schema_name, type_, payload, result, status, RunFacts())


def times_of(start_ns: int, end_ns: int | None) -> Times:
    """Return the times of a span or a run. A clock that went back makes no negative duration."""
    end_ns = max(start_ns, end_ns or start_ns)
    return Times(clock.text_of(str(start_ns)), clock.text_of(str(end_ns)), (end_ns - start_ns) / 1_000_000)


def ns_of(text: str | None) -> int:
    """Return a stored time in nanoseconds since the epoch; 0 for None."""
    if text is None:
        return 0
    since = clock.to_datetime(text) - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000


def end_of(ctx: Context, mapped: Mapped, *, is_ended: bool, times: Times, now: str) -> dict[str, Value]:
    """Return the columns of the end of a run, which ends as its root did."""
    end = end_of_run(mapped)
    columns: dict[str, Value] = {
        "status": end.status,
        "finished_at": times.finished_at,
        "duration_ms": times.duration_ms,
        "closed_by": None,
        "closed_at": None,
    }
    if end.error is not None:
        columns["error"] = object_of(ctx, end.error)
    if end.result is not None:
        columns["result"] = object_of(ctx, end.result)
    if not is_ended:
        columns |= {"status": "failed", "closed_by": "abandoned", "closed_at": now, "error": object_of(ctx, ABANDONED)}
    return columns


def name_of(ctx: Context, text: str) -> str:
    """Return a name as it may be stored."""
    return one_line(ctx.admit_text(text), MAX_NAME) or DEFAULT


def about_of(ctx: Context, text: str | None) -> str | None:
    """Return the name of a session or a user as it may be stored."""
    return None if text is None else one_line(ctx.admit_text(text), MAX_NAME) or None


def object_of(ctx: Context, value: Mapping[str, Any]) -> str:
    """Return a JSON object as it may be stored."""
    return ctx.admit(jsontext.text_of(value), value).text


def log_row(ctx: Context, log: Log, now: str) -> OtelLogRow:
    """Return the row of a log record. The same record has the same id, however often it comes."""
    event = log.event
    decoded = {"name": event.name, "attributes": dict(event.attributes), "body": event.body}
    text = object_of(ctx, decoded)
    hashed = hashlib.sha256(f"{log.trace_id}:{log.span_id}:{event.time_ns}:{text}".encode()).digest()
    id = ids.encode(
        min(max(event.time_ns // 1_000_000, 0), 2**48 - 1), ctx.account.partition, int.from_bytes(hashed[:10])
    )
    return OtelLogRow(id, log.trace_id, log.span_id, event.time_ns, text, now)


def log_of(row: OtelLogRow) -> Log:
    """Return the log record of a row."""
    decoded = jsontext.decode(row.record)
    return Log(row.trace_id, row.span_id, Event(decoded["name"], row.time_ns, decoded["attributes"], decoded["body"]))


BATCH = 500


def score_rows(
    scores: Iterable[FoundScore], run_id: str, span_id: str | None, partition: int, admit: Callable[[str], str]
) -> list[ScoreRow]:
    """Return the rows of the scores of a span.

    Args:
        span_id: in agentspan; None of what is told of the run.
        partition: of the file.
        admit: returns a text without credentials.
    """
    return [_score_row(each, run_id, None if each.is_of_run else span_id, partition, admit) for each in scores]


def store_scores(ctx: Context, rows: list[ScoreRow]) -> None:
    """Commit scores; those that are stored already add nothing."""
    for at in range(0, len(rows), BATCH):
        ctx.storage.apply([Unit((Put(row),)) for row in rows[at : at + BATCH]], wait_s=ctx.wait_s)


def _score_row(
    score: FoundScore, run_id: str, span_id: str | None, partition: int, admit: Callable[[str], str]
) -> ScoreRow:
    name, value, label, why, source, identifier = score.judged
    label, why, identifier = (text and admit(text) for text in (label, why, identifier))
    judged = Judgement(admit(name), value, label, why, source, identifier)
    target = span_id or run_id
    id = score.id if score.id is not None and ids.is_pfid(score.id) else _score_id(target, score, judged, partition)
    type_ = "agent_instance" if span_id is None else "agent_span"
    return score_row(id, run_id, type_, target, judged, clock.to_text(score.time_ns or clock.wall_ns()))


def _score_id(target: str, score: FoundScore, judged: Judgement, partition: int) -> str:
    """Return the id of a score: of its time and of a hash of its content, so that it is the same each time."""
    hashed = hashlib.sha256(repr((target, score.time_ns, judged)).encode()).digest()
    return ids.encode(min(max(score.time_ns // 1_000_000, 0), 2**48 - 1), partition, int.from_bytes(hashed[:10]))
