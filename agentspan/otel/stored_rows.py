"""Makes the rows of OpenTelemetry data: of spans, the ends of runs, scores, and log records that wait for their span.

The ids of scores and log records are derived from their content, so storing the same data again adds no row.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from agentspan import clock, ids, jsontext
from agentspan.api.context import Context
from agentspan.arriving.identity import hashed_id
from agentspan.arriving.stored import name_of, object_of, span_row
from agentspan.model import spans
from agentspan.model.changes import Move
from agentspan.model.rows import DERIVED, AgentInstanceRow, AgentSpanRow, OtelLogRow, ScoreRow, Value
from agentspan.model.scores import Judgement, score_row
from agentspan.otel.mapping.judgements import FoundScore
from agentspan.otel.mapping.mapped import Mapped, RunFacts
from agentspan.otel.span import Event, Log, OtelSpan
from agentspan.otel.traces import ABANDONED, end_of_run
from agentspan.schemas.span_types import REGISTRY

_REWRITTEN = (
    *("schema_name", "schema_title", "status", "payload", "result_payload", "finished_at", "duration_ms"),
    *("closed_by", "closed_at", "sensitive_encoding", *DERIVED),
)
"""The columns that are updated when a stored span becomes a duplicate, or log records with its messages come."""
ENDED = frozenset({"complete", "failed"})
_new = tuple.__new__  # see model.spans
_EPOCH = clock.to_datetime("1970-01-01T00:00:00Z")


class Arrived(NamedTuple):
    """A span that has arrived, and what its row is made of.

    Attributes:
        own: the ids of the span and of its parent in agentspan.
        run_end_ns: the latest known end of a span of the run; None if no span has ended.
    """

    span: OtelSpan
    mapped: Mapped
    instance: AgentInstanceRow
    own: tuple[str, str | None]
    run_end_ns: int | None


def rows_of(ctx: Context, arrived: Sequence[Arrived], now: str) -> list[AgentSpanRow]:
    """Return the rows of OpenTelemetry spans. An open span is closed as abandoned, at the end of its run.

    Args:
        arrived: many spans, because redaction takes a third of the time for many texts at once.
        now: the current time as stored text.
    """
    contents: list[tuple[str, Any]] = []
    for span, mapped, *_ in arrived:
        sent, returned = mapped.payload, mapped.result_payload
        if span.end_ns is None:
            returned = {**(returned or {}), "error": (returned or {}).get("error", ABANDONED)}
        contents += content_of(sent), content_of(returned)
    admitted = iter(ctx.admit_all(contents))
    rows: list[AgentSpanRow] = []
    for (span, mapped, instance, own, run_end_ns), payload, result in zip(arrived, admitted, admitted, strict=False):
        is_open = span.end_ns is None
        times = times_of(span.start_ns, run_end_ns if is_open else span.end_ns)
        name = mapped.schema_name if mapped.type != "custom" else name_of(ctx, mapped.schema_name)
        row = span_row(instance, own, name, "failed" if is_open else mapped.status, (payload, result), times, now)
        rows.append(row._replace(closed_by="abandoned", closed_at=now) if is_open else row)
    return rows


def content_of(plain: Any) -> tuple[str, Any]:
    """Return a payload as JSON text and as plain JSON, as `Context.admit_all` takes it; for None the text is empty."""
    return ("" if plain is None else jsontext.text_of(plain)), plain


def rewritten(row: AgentSpanRow) -> Move:
    """Return the change that updates a stored span to the values of this row."""
    values: dict[str, Value] = {name: getattr(row, name) for name in _REWRITTEN}
    values["updated_at"] = row.updated_at
    return Move("agent_span", row.id, ENDED, values, instance_id=row.agent_instance_id)


def stored_mapped(row: AgentSpanRow) -> Mapped:
    """Return the Mapped record of a stored span. The facts about its run are not stored, so they are empty."""
    result = jsontext.value_of(row.result_payload)
    payload: dict[str, Any] = jsontext.decode(row.payload)
    type_ = REGISTRY.resolve(row.schema_name).name
    status: Any = row.status
    return Mapped(row.schema_name, type_, payload, result, status, RunFacts())


def times_of(start_ns: int, end_ns: int | None) -> spans.Times:
    """Return the times of a span or a run. The duration is 0 if the end is unknown or before the start."""
    if end_ns is None or end_ns < start_ns:
        end_ns = start_ns
    return _new(
        spans.Times, (clock.text_of(str(start_ns)), clock.text_of(str(end_ns)), (end_ns - start_ns) / 1_000_000)
    )


def ns_of(text: str | None) -> int:
    """Return a stored time text in nanoseconds since the epoch; 0 for None."""
    if text is None:
        return 0
    since = clock.to_datetime(text) - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000


def end_of(ctx: Context, mapped: Mapped, *, is_ended: bool, times: spans.Times, now: str) -> dict[str, Value]:
    """Return the columns that end a run with the status, result and error of its root span.

    Args:
        mapped: the record of the root span.
        is_ended: whether the root span has ended. If not, the run is closed as abandoned.
        times: the times of the run.
        now: the current time as stored text.
    """
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


def log_row(ctx: Context, log: Log, now: str) -> OtelLogRow:
    """Return the row of a log record. Its id is a hash of the record, so the same record always has the same id."""
    event = log.event
    decoded = {"name": event.name, "attributes": dict(event.attributes), "body": event.body}
    text = object_of(ctx, decoded)
    content = f"{log.trace_id}:{log.span_id}:{event.time_ns}:{text}"
    id = hashed_id(content, event.time_ns, ctx.account.partition)
    return OtelLogRow(id, log.trace_id, log.span_id, event.time_ns, text, now)


def log_of(row: OtelLogRow) -> Log:
    """Return the log record that a row stores."""
    decoded = jsontext.decode(row.record)
    return Log(row.trace_id, row.span_id, Event(decoded["name"], row.time_ns, decoded["attributes"], decoded["body"]))


def score_rows(
    scores: Iterable[FoundScore], run_id: str, span_id: str | None, partition: int, admit: Callable[[str], str]
) -> list[ScoreRow]:
    """Return the rows of scores that were found in a span or a log record.

    Args:
        span_id: the id of the span in agentspan; None if the scores are about the run.
        partition: the partition of the file.
        admit: redacts a text.
    """
    return [_score_row(each, run_id, None if each.is_of_run else span_id, partition, admit) for each in scores]


def _score_row(
    score: FoundScore, run_id: str, span_id: str | None, partition: int, admit: Callable[[str], str]
) -> ScoreRow:
    name, value, label, why, source, identifier = score.judged
    label, why, identifier = (text and admit(text) for text in (label, why, identifier))
    judged = Judgement(admit(name), value, label, why, source, identifier)
    target = span_id or run_id
    content = repr((target, score.time_ns, judged))  # the same score gets the same id
    id = score.id if score.id is not None and ids.is_pfid(score.id) else hashed_id(content, score.time_ns, partition)
    type_ = "agent_instance" if span_id is None else "agent_span"
    return score_row(id, run_id, type_, target, judged, clock.to_text(score.time_ns or clock.wall_ns()))
