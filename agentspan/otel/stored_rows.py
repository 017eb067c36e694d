"""The rows that spans of OpenTelemetry become: of a span, of a run and its end, of scores, of a log record that waits.

Rows of scores and of log records have the same ids however often their span comes.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from agentspan import clock, ids, jsontext
from agentspan.model import spans
from agentspan.model.changes import Move, Put, Unit
from agentspan.model.registration import DEFAULT
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow, OtelLogRow, ScoreRow, Value
from agentspan.model.scores import Judgement, score_row
from agentspan.model.spans import Times
from agentspan.operations.context import Context
from agentspan.otel.mapping.judgements import Told
from agentspan.otel.mapping.mapped import Mapped, RunFacts
from agentspan.otel.span import Event, Log, OtelSpan
from agentspan.schemas.meaning import describe
from agentspan.schemas.span_types import MAX_NAME, REGISTRY, title_of
from agentspan.text import one_line

ABANDONED = {"type": "Abandoned", "message": "its end was never sent"}
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
    *spans.DERIVED,
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
    payload = ctx.admit(jsontext.text_of(mapped.payload), mapped.payload)
    returned = None if result is None else ctx.admit(jsontext.text_of(result), result)
    span_type = REGISTRY.resolve(name)
    plain_result = None if returned is None else returned.plain
    meaning = describe(span_type, name, status, payload.plain, plain_result, times.duration_ms)
    put = spans.created(
        own[0],
        instance.agent_id,
        instance.id,
        own[1],
        name,
        title_of(span_type, name),
        status,
        payload.text,
        None if returned is None else returned.text,
        times,
        meaning,
        now,
        sensitive_encoding=payload.is_marked or (0 if returned is None else returned.is_marked),
    )
    row = put.row
    assert isinstance(row, AgentSpanRow)
    return row if span.end_ns is not None else row._replace(closed_by="abandoned", closed_at=now)


def rewritten(row: AgentSpanRow) -> Move:
    """Return the move that gives a stored span what this row has."""
    values: dict[str, Value] = {name: getattr(row, name) for name in _REWRITTEN}
    values["updated_at"] = row.updated_at
    return Move("agent_span", row.id, ENDED, values, instance_id=row.agent_instance_id)


def stored_mapped(row: AgentSpanRow) -> Mapped:
    """Return what a stored span records, as far as its row tells."""
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
    columns: dict[str, Value] = {
        "status": mapped.status,
        "finished_at": times.finished_at,
        "duration_ms": times.duration_ms,
        "closed_by": None,
        "closed_at": None,
    }
    result = mapped.result_payload or {}
    if mapped.status == "failed":
        columns["error"] = object_of(ctx, result.get("error", {}))
    if result.get("output") is not None:
        columns["result"] = object_of(ctx, {"output": result["output"]})
    if not is_ended:
        columns |= {"status": "failed", "closed_by": "abandoned", "closed_at": now, "error": object_of(ctx, ABANDONED)}
    return columns


def metadata_of(ctx: Context, resource: Mapping[str, Any], scopes: Iterable[str], trace_id: str | None) -> str:
    """Return the metadata of a run.

    Args:
        resource: of the process.
        scopes: the names of its instrumentors.
        trace_id: of a run that is one trace.
    """
    found: dict[str, Any] = {"resource": dict(resource), "scopes": [*scopes]}
    if trace_id is not None:
        found["trace_id"] = trace_id
    return object_of(ctx, {"otel": found})


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
    said = {"name": event.name, "attributes": dict(event.attributes), "body": event.body}
    text = object_of(ctx, said)
    hashed = hashlib.sha256(f"{log.trace_id}:{log.span_id}:{event.time_ns}:{text}".encode()).digest()
    id = ids.encode(
        min(max(event.time_ns // 1_000_000, 0), 2**48 - 1), ctx.account.partition, int.from_bytes(hashed[:10])
    )
    return OtelLogRow(id, log.trace_id, log.span_id, event.time_ns, text, now)


def log_of(row: OtelLogRow) -> Log:
    """Return the log record of a row."""
    said = jsontext.decode(row.record)
    return Log(row.trace_id, row.span_id, Event(said["name"], row.time_ns, said["attributes"], said["body"]))


BATCH = 500


def score_rows(
    told: Iterable[Told], run_id: str, span_id: str | None, partition: int, admit: Callable[[str], str]
) -> list[ScoreRow]:
    """Return the rows of the scores of a span.

    Args:
        span_id: in agentspan; None of what is told of the run.
        partition: of the file.
        admit: returns a text without credentials.
    """
    return [_score_row(each, run_id, None if each.is_of_run else span_id, partition, admit) for each in told]


def store_scores(ctx: Context, rows: list[ScoreRow]) -> None:
    """Commit scores; those that are stored already add nothing."""
    for at in range(0, len(rows), BATCH):
        ctx.storage.apply([Unit((Put(row),)) for row in rows[at : at + BATCH]], wait_s=ctx.wait_s)


def _score_row(told: Told, run_id: str, span_id: str | None, partition: int, admit: Callable[[str], str]) -> ScoreRow:
    name, value, label, why, source, identifier = told.judged
    label, why, identifier = (text and admit(text) for text in (label, why, identifier))
    judged = Judgement(admit(name), value, label, why, source, identifier)
    target = span_id or run_id
    id = told.id if told.id is not None and ids.is_pfid(told.id) else _score_id(target, told, judged, partition)
    type_ = "agent_instance" if span_id is None else "agent_span"
    return score_row(id, run_id, type_, target, judged, clock.to_text(told.time_ns or clock.wall_ns()))


def _score_id(target: str, told: Told, judged: Judgement, partition: int) -> str:
    """Return the id of a score: that of its time and of a hash of what it says, so that it is the same each time."""
    hashed = hashlib.sha256(repr((target, told.time_ns, judged)).encode()).digest()
    return ids.encode(min(max(told.time_ns // 1_000_000, 0), 2**48 - 1), partition, int.from_bytes(hashed[:10]))
