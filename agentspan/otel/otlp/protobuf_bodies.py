"""OTLP in protobuf. The messages are those of the package `opentelemetry-proto`, which the extra `otlp` installs."""

import base64
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from agentspan import forks
from agentspan.otel.otlp.decoded import (
    MAX_ATTRIBUTES,
    MAX_DEPTH,
    TOO_DEEP,
    Decoded,
    MissingExtra,
    Unusable,
    dropped,
    kept,
    times,
)
from agentspan.otel.otlp.json_bodies import nanos
from agentspan.otel.otlp.wire import SMALL, check_request, check_size, messages
from agentspan.otel.span import KINDS, Event, Link, Log, OtelSpan, Scope, StatusCode, scope_attributes

_STATUS: tuple[StatusCode, ...] = ("UNSET", "OK", "ERROR")


AT_ONCE = 2**20
"""Bytes of the largest body that is decoded at once, which saves 3 µs a span. It can become 100 MB in memory, if it is
all empty attributes. A larger body could fill it: it is parted first, and each span is measured and decoded alone."""


class _Messages(NamedTuple):
    request: Any
    span: Any
    log: Any
    resource: Any
    scope: Any
    error: type[Exception]


_loaded: list[_Messages] = []


def is_available() -> bool:
    """Return whether the package for protobuf is installed."""
    try:
        return bool(_messages())
    except MissingExtra:
        return False


def spans(body: bytes, *, at_once: int = AT_ONCE, is_sent: bool = True) -> Decoded:
    """Return the spans of an ExportTraceServiceRequest.

    Args:
        at_once: bytes of the largest body that is decoded at once.
        is_sent: whether it came from a client, and not from a file of one's own, which may hold any number.

    Raises:
        InvalidValue: the body is no such message, cut off, or has too many of them.
        MissingExtra: the package for protobuf is not installed.
    """
    known = _messages()
    if is_sent:
        check_request(body, "Span")
    if len(body) <= at_once:
        try:
            return _all_spans(known.request.FromString(body), may_be_large=len(body) > SMALL)
        except known.error:  # a span or an attribute of it is broken
            pass
    decoded = Decoded()
    for resource, url, scope, data in _items(known, body, decoded):
        try:
            check_size(data, "Span")
            decoded.spans.append(_span(_parsed(known, known.span, data), resource, url, scope))
        except Unusable as error:
            decoded.reject(str(error))
    return decoded


def _all_spans(request: Any, *, may_be_large: bool) -> Decoded:
    decoded = Decoded()
    for group in request.resource_spans:
        resource, url = _attributes(group.resource.attributes)[0], group.schema_url
        for inner in group.scope_spans:
            scope = _named(inner.scope, inner.schema_url)
            for item in inner.spans:
                try:
                    if may_be_large and item.ByteSize() > SMALL:
                        check_size(memoryview(item.SerializeToString()), "Span")
                    decoded.spans.append(_span(item, resource, url, scope))
                except Unusable as error:
                    decoded.reject(str(error))
    return decoded


def logs(body: bytes, *, is_sent: bool = True) -> Decoded:
    """Return the log records of an ExportLogsServiceRequest that were emitted inside a span, as `spans` does."""
    known, decoded = _messages(), Decoded()
    if is_sent:
        check_request(body, "LogRecord")
    for _, _, _, data in _items(known, body, decoded):
        try:
            check_size(data, "LogRecord")
            record = _parsed(known, known.log, data)
            if record.trace_id and record.span_id:
                decoded.logs.append(_log(record))
        except Unusable as error:
            decoded.reject(str(error))
    return decoded


def _messages() -> _Messages:
    if not _loaded:
        with forks.importing:
            try:
                from google.protobuf.message import DecodeError
                from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
                from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
                from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
                from opentelemetry.proto.resource.v1.resource_pb2 import Resource
                from opentelemetry.proto.trace.v1.trace_pb2 import Span
            except ImportError:
                raise MissingExtra(
                    "body", "is protobuf, which needs an extra: pip install 'agentspan-sqlite[otlp]'; or send JSON"
                ) from None
        parts = Span, LogRecord, Resource, InstrumentationScope
        _loaded.append(_Messages(ExportTraceServiceRequest, *parts, DecodeError))
    return _loaded[0]


def _items(known: _Messages, body: bytes, decoded: Decoded) -> Iterator[tuple[dict[str, Any], str, Scope, memoryview]]:
    """Yield each span or log record of a request, still encoded, with its resource and scope."""
    for number, group in messages(memoryview(body)):
        if number != 1:
            continue
        fields = list(messages(group))
        resource = _resource(known, next((inner for field, inner in fields if field == 1), None), decoded)
        url = _utf8(next((inner for field, inner in fields if field == 3), None))
        for field, inner in fields:
            if field != 2:
                continue
            parts = list(messages(inner))
            scope_url = _utf8(next((part for name, part in parts if name == 3), None))
            scope = _scope(known, next((part for name, part in parts if name == 1), None), scope_url)
            for name, part in parts:
                if name == 2:
                    yield resource, url, scope, part


def _parsed(known: _Messages, message: Any, data: memoryview) -> Any:
    try:
        return message.FromString(data.tobytes())
    except known.error:
        raise Unusable("it is broken: not protobuf, no UTF-8, or nested too deep") from None


def _resource(known: _Messages, data: memoryview | None, decoded: Decoded) -> dict[str, Any]:
    if data is None:
        return {}
    try:
        check_size(data, "Resource")
        return _attributes(_parsed(known, known.resource, data).attributes)[0]
    except Unusable:
        return {}  # its spans can be used all the same


def _scope(known: _Messages, data: memoryview | None, url: str) -> Scope:
    if data is None:
        return Scope(schema_url=url)
    try:
        check_size(data, "Scope")
        scope = _parsed(known, known.scope, data)
    except Unusable:
        return Scope(schema_url=url)
    return _named(scope, url)


def _named(scope: Any, url: str) -> Scope:
    found = scope_attributes(_attributes(scope.attributes)[0]) if scope.attributes else {}
    return Scope(scope.name, scope.version, url, found)


def _utf8(data: memoryview | None) -> str:
    return "" if data is None else data.tobytes().decode("utf-8", "replace")


def _span(item: Any, resource: dict[str, Any], url: str, scope: Scope) -> OtelSpan:
    attributes, over = _attributes(item.attributes)
    events, links, status = item.events, item.links, item.status
    code, parent = status.code, item.parent_span_id
    cut_off = over or item.dropped_attributes_count or item.dropped_events_count or item.dropped_links_count
    start_ns, end_ns = times(nanos(item.start_time_unix_nano), nanos(item.end_time_unix_nano))
    return OtelSpan(
        _id(item.trace_id, 16, "trace_id"),
        _id(item.span_id, 8, "span_id"),
        _id(parent, 8, "parent_span_id") if any(parent) else None,
        item.name,
        start_ns,
        end_ns,
        KINDS[item.kind - 1] if 1 <= item.kind <= len(KINDS) else "INTERNAL",
        _STATUS[code] if 0 <= code < len(_STATUS) else "UNSET",
        status.message or None,
        attributes,
        tuple(map(_event, events[:MAX_ATTRIBUTES])) if events else (),
        tuple(map(_link, links[:MAX_ATTRIBUTES])) if links else (),
        scope,
        resource,
        url,
        _dropped(item, over) if cut_off or len(events) > MAX_ATTRIBUTES or len(links) > MAX_ATTRIBUTES else {},
        item.trace_state,
    )


def _event(item: Any) -> Event:
    return Event(item.name, nanos(item.time_unix_nano), _attributes(item.attributes)[0])


def _link(item: Any) -> Link:
    return Link(item.trace_id.hex(), item.span_id.hex(), _attributes(item.attributes)[0], item.trace_state)


def _dropped(item: Any, over: int) -> Mapping[str, int]:
    return dropped(
        attributes=over + item.dropped_attributes_count,
        events=max(0, len(item.events) - MAX_ATTRIBUTES) + item.dropped_events_count,
        links=max(0, len(item.links) - MAX_ATTRIBUTES) + item.dropped_links_count,
    )


def _log(item: Any) -> Log:
    attributes, _ = _attributes(item.attributes)
    name = getattr(item, "event_name", "") or attributes.get("event.name")
    at = nanos(item.time_unix_nano) or nanos(item.observed_time_unix_nano)
    event = Event(name if type(name) is str else "", at, attributes, _value(item.body, 0))
    return Log(_id(item.trace_id, 16, "trace_id"), _id(item.span_id, 8, "span_id"), event)


def _id(value: bytes, length: int, name: str) -> str:
    if len(value) != length or not any(value):
        raise Unusable(f"{name} is not of {length} bytes")
    return value.hex()


def _attributes(items: Any) -> tuple[dict[str, Any], int]:
    """Return attributes as a dict, and how many are over the limit (see kept). Most values are texts."""
    number = len(items)
    if number <= MAX_ATTRIBUTES:
        found = {item.key: (value := item.value).string_value or _value(value, 0) for item in items}
        if len(found) == number:
            return found, 0
    return kept(_pairs(items))


def _pairs(items: Any) -> Iterator[tuple[str, Any]]:
    for item in items:
        yield item.key, _value(item.value, 0)


def _value(value: Any, depth: int) -> Any:
    """Return an AnyValue as plain JSON."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return TOO_DEEP if depth >= MAX_DEPTH else [_value(item, depth + 1) for item in value.array_value.values]
    if kind == "kvlist_value":
        if depth >= MAX_DEPTH:
            return TOO_DEEP
        return {item.key: _value(item.value, depth + 1) for item in value.kvlist_value.values}
    found = getattr(value, kind)
    if type(found) is bytes:
        return base64.b64encode(found).decode()
    if type(found) is float and not math.isfinite(found):
        return str(found)  # no JSON: nan, inf
    return found
