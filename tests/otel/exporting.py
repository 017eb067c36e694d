"""Recorded spans and log records as the requests that an exporter would send, in OTLP's JSON."""

from collections.abc import Iterator, Sequence
from typing import Any

from agentspan.otel.span import KINDS, Event, Link, Log, OtelSpan, StatusCode

_CODES: tuple[StatusCode, ...] = ("UNSET", "OK", "ERROR")


def trace_requests(spans: Sequence[OtelSpan], size: int = 20) -> Iterator[dict[str, Any]]:
    """Yield requests with so many spans each."""
    for at in range(0, len(spans), size):
        yield {"resourceSpans": [_resource_spans(span) for span in spans[at : at + size]]}


def log_requests(logs: Sequence[Log], size: int = 20) -> Iterator[dict[str, Any]]:
    """Yield requests with so many log records each."""
    for at in range(0, len(logs), size):
        yield {"resourceLogs": [{"scopeLogs": [{"logRecords": [_log(log) for log in logs[at : at + size]]}]}]}


def _resource_spans(span: OtelSpan) -> dict[str, Any]:
    scope = {"name": span.scope.name, "version": span.scope.version}
    inner = {"scope": scope, "schemaUrl": span.scope.schema_url, "spans": [_span(span)]}
    return {
        "resource": {"attributes": _attributes(span.resource)},
        "schemaUrl": span.schema_url,
        "scopeSpans": [inner],
    }


def _span(span: OtelSpan) -> dict[str, Any]:
    return {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        **({} if span.parent_span_id is None else {"parentSpanId": span.parent_span_id}),
        "name": span.name,
        **({"traceState": span.trace_state} if span.trace_state else {}),
        "kind": 1 + KINDS.index(span.kind),
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": _attributes(span.attributes),
        "events": [_event(event) for event in span.events],
        "links": [_link(link) for link in span.links],
        "status": {"code": _CODES.index(span.status), "message": span.status_message or ""},
    }


def _event(event: Event) -> dict[str, Any]:
    return {"name": event.name, "timeUnixNano": str(event.time_ns), "attributes": _attributes(event.attributes)}


def _link(link: Link) -> dict[str, Any]:
    ids = {"traceId": link.trace_id, "spanId": link.span_id}
    return {**ids, "traceState": link.trace_state, "attributes": _attributes(link.attributes)}


def _log(log: Log) -> dict[str, Any]:
    event = log.event
    return {
        "traceId": log.trace_id,
        "spanId": log.span_id,
        "eventName": event.name,
        "observedTimeUnixNano": str(event.time_ns),
        "attributes": _attributes(event.attributes),
        **({} if event.body is None else {"body": _value(event.body)}),
    }


def _attributes(said: Any) -> list[dict[str, Any]]:
    return [{"key": name, "value": _value(value)} for name, value in said.items()]


def _value(value: Any) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case str():
            return {"stringValue": value}
        case list():
            return {"arrayValue": {"values": [_value(item) for item in value]}}
        case dict():
            return {"kvlistValue": {"values": _attributes(value)}}
    return {}
