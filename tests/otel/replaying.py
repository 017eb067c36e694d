"""Recorded spans as spans of OpenTelemetry's SDK, replayed through the processor as if their program ran now."""

import random
from collections.abc import Iterable, Sequence
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.otel import SpanProcessor
from agentspan.otel.span import OtelSpan
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Query, SpansOf


def _context(trace_id: str, span_id: str) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=TraceFlags(1))


def readable(span: OtelSpan, *, has_ended: bool = True, has_attributes: bool = True) -> ReadableSpan:
    """A span of the SDK, as it is at its start or at its end."""
    parent = None if span.parent_span_id is None else _context(span.trace_id, span.parent_span_id)
    events = [Event(event.name, event.attributes, event.time_ns) for event in span.events] if has_ended else []
    return ReadableSpan(
        span.name,
        _context(span.trace_id, span.span_id),
        parent,
        Resource(span.resource, span.schema_url or None),
        span.attributes if has_attributes else {},
        events,
        [Link(_context(link.trace_id, link.span_id), link.attributes) for link in span.links],
        SpanKind[span.kind],
        status=Status(StatusCode[span.status], span.status_message) if has_ended else Status(),
        start_time=span.start_ns,
        end_time=span.end_ns if has_ended else None,
        instrumentation_scope=InstrumentationScope(span.scope.name, span.scope.version, span.scope.schema_url or None),
    )


def replay(processor: SpanProcessor, spans: Sequence[OtelSpan], *, tells_late: bool = True, seed: int = 0) -> None:
    """Start and end spans in the order of their times.

    Args:
        tells_late: whether spans have no attributes before they end.
        seed: shuffles the ends, which all come after the starts then; 0 for none.
    """
    begins = [(span.start_ns, 0, number, span) for number, span in enumerate(spans)]
    ends = [(span.end_ns, 1, number, span) for number, span in enumerate(spans) if span.end_ns is not None]
    order: list[Any] = sorted([*begins, *ends], key=lambda each: (each[0], each[1], _depth(each[3], spans), each[2]))
    if seed:
        random.Random(seed).shuffle(ends)
        order = [*[each for each in order if each[1] == 0], *ends]
    for _, is_end, _, span in order:
        if is_end:
            processor.on_end(readable(span))
        else:
            processor.on_start(readable(span, has_ended=False, has_attributes=not tells_late))


def _depth(span: OtelSpan, spans: Iterable[OtelSpan]) -> int:
    by_id = {each.span_id: each for each in spans}
    depth, above = 0, span.parent_span_id
    while above is not None and above in by_id and depth < 100:
        depth, above = depth + 1, by_id[above].parent_span_id
    return depth


def runs_in(storage: Storage) -> list[AgentInstanceRow]:
    """All runs of a storage."""
    return [row for row in storage.ask(Query("agent_instance")).rows if isinstance(row, AgentInstanceRow)]


def spans_in(storage: Storage) -> list[AgentSpanRow]:
    """All spans of a storage."""
    return [span for run in runs_in(storage) for span in storage.ask(SpansOf(run.id))]


def tree(storage: Storage) -> dict[str, tuple[Any, ...]]:
    """Each span by what identifies it in any run: what is above it, its type, status, label and tokens."""
    found: dict[str, tuple[Any, ...]] = {}
    for row in spans_in(storage):
        above = None if row.parent_span_id is None else row.parent_span_id[16:]
        facts = (row.schema_name, row.status, row.label, row.input_tokens, row.output_tokens, row.started_at)
        found[row.id[16:]] = (above, *facts, row.finished_at, row.is_aggregate)
    return found
