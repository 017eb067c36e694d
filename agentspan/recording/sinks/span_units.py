"""The units of a span's transitions, for a sink that commits: derived in the call that records.

The journal derives the same from its records, in journal/deriving.py; tests compare both.
"""

from typing import cast

from agentspan import clock
from agentspan.journal import records
from agentspan.model import sensitive, spans
from agentspan.model.changes import Unit, unit_of
from agentspan.model.rows import AgentInstanceRow
from agentspan.model.spans import Times
from agentspan.model.status import FinishStatus
from agentspan.recording.sinks.protocol import SpanFacts
from agentspan.schemas.meaning import describe
from agentspan.schemas.span_types import title_of

_new = tuple.__new__  # see model.spans


def created(span: SpanFacts, at_ns: int) -> Unit:
    """Return the unit that puts a new span."""
    span_type, now, text = span.span_type, clock.to_text(at_ns), span.payload_text()
    payload, is_marked = sensitive.read(text)
    span.decoded = (text, payload, at_ns, now)  # its end needs them, too: 1.3 µs
    meaning = describe(span_type, span.schema_name, span.status, payload, None, None, (True, False))
    instance: AgentInstanceRow = span.run.registered_row  # type: ignore[assignment]  # the run is recorded
    put = spans.created(
        span.id,
        instance.agent_id,
        instance.id,
        span.parent_span_id,
        span.schema_name,
        title_of(span_type, span.schema_name),
        span.status,
        text,
        None,
        _new(Times, (now if span.status == "active" else None, None, None)),
        meaning,
        now,
        writer_id=span.writer_id,
        minted=True,
        sensitive_encoding=is_marked,
    )
    return unit_of(put)


def created_raw(span: SpanFacts, reader: str, text: str, at_ns: int) -> Unit:
    """Return the unit that puts a new active span as a text tells it (see journal.raw_records)."""
    span.learn(records.read_begin(reader, text))
    return created(span, at_ns)


def started(span: SpanFacts) -> Unit:
    """Return the unit that makes a pending span active."""
    now, payload = clock.to_text(span.started_ns), sensitive.read(span.payload_text())[0]
    meaning = describe(span.span_type, span.schema_name, "active", payload, None, None, (False, False))
    run_id = span.run.id
    return unit_of(
        spans.started(span.id, started_at=now, meaning=meaning, now=now, also_closed=True, instance_id=run_id)
    )


def updated(span: SpanFacts, at_ns: int) -> Unit:
    """Return the unit that sets the changed payload of an open span."""
    text = span.payload_text()
    payload, is_marked = sensitive.read(text)
    meaning = describe(span.span_type, span.schema_name, span.status, payload, None, None, (True, False))
    now, run_id = clock.to_text(at_ns), span.run.id
    move = spans.updated(span.id, payload=text, meaning=meaning, now=now, instance_id=run_id)
    return unit_of(spans.with_sensitive(move) if is_marked else move)


def finished(span: SpanFacts, result: str | None, at_ns: int, elapsed_ns: int) -> Unit:
    """Return the unit that ends a span."""
    now, status, elapsed_ms = clock.to_text(at_ns), cast(FinishStatus, span.status), elapsed_ns / 1_000_000
    decoded, span.decoded = span.decoded, None
    text, payload, started_ns, started_at = decoded or ("", {}, 0, "")
    if text is not span.payload_text():
        payload = sensitive.read(span.payload_text())[0]
    returned, is_marked = (None, 0) if result is None else sensitive.read(result)
    if status == "cancelled":
        started_at = now
    elif started_ns != span.started_ns:
        started_at = clock.to_text(span.started_ns)
    meaning = describe(span.span_type, span.schema_name, status, payload, returned, elapsed_ms, (False, True))
    times = _new(Times, (started_at, now, elapsed_ms))
    move = spans.finished(span.id, status, result, times, meaning, now, span.run.id)
    return unit_of(spans.with_sensitive(move) if is_marked else move)


def finished_as(span: SpanFacts, result: str | None, at_ns: int, elapsed_ns: int) -> Unit:
    """Return the unit that ends a span, and sets the type and the payload that were learnt at the end."""
    now, status, elapsed_ms = clock.to_text(at_ns), cast(FinishStatus, span.status), elapsed_ns / 1_000_000
    span.decoded = None
    span_type, schema_name, text = span.span_type, span.schema_name, span.payload_text()
    payload, is_marked = sensitive.read(text)
    returned, of_result = (None, 0) if result is None else sensitive.read(result)
    started_at = now if status == "cancelled" else clock.to_text(span.started_ns)
    meaning = describe(span_type, schema_name, status, payload, returned, elapsed_ms)
    times = _new(Times, (started_at, now, elapsed_ms))
    learnt = schema_name, title_of(span_type, schema_name), text
    move = spans.finished_as(span.id, *learnt, status, result, times, meaning, now, span.run.id)
    return unit_of(spans.with_sensitive(move) if is_marked or of_result else move)


def finished_raw(span: SpanFacts, reader: str, text: str, at_ns: int, elapsed_ns: int) -> Unit:
    """Return the unit that ends a span as a text tells (see raw_records)."""
    end = records.read_end(reader, text)
    span.learn(end)
    return finished_as(span, end.result, at_ns, elapsed_ns)
