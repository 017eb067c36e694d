"""Decodes OTLP in protobuf, with the message classes of `opentelemetry-proto`, which the extra `otlp` installs.

This module also parses protobuf's wire format, to split a request into spans and to count the values of a span. So each
span of a large request is decoded separately: a broken span loses only itself, and a span that would become a thousand
times as large in memory is never decoded.
"""

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from agentspan import host, installing
from agentspan.errors import InvalidValue
from agentspan.otel.otlp.json_bodies import (
    MAX_ATTRIBUTES,
    MAX_DEPTH,
    MAX_ITEMS,
    MAX_NS,
    MAX_VALUES,
    TOO_DEEP,
    Decoded,
    MissingExtra,
    Unusable,
    check_objects,
    dropped,
    kept,
    nanos,
    times,
    too_many_items,
)
from agentspan.otel.span import KINDS, Event, Link, Log, OtelSpan, Scope, StatusCode, scope_attributes

_VARINT, _FIXED64, _BYTES, _START, _END, _FIXED32 = range(6)
SMALL = 2 * MAX_VALUES
"""The largest message that is not counted: it cannot have more than MAX_VALUES values, which take two bytes each."""
MAX_FIELDS = 2_000_000
"""The most fields of all messages of a request. An attribute with a text has four. To count so many takes 1.7 s."""
_MAX_OPEN = 200
"""The most levels of nested messages that are counted. Protobuf itself decodes no more than 100."""
Shape = Mapping[int, str]
_SHAPES: Mapping[str, Shape] = {
    "Request": {1: "Group"},
    "Group": {1: "Resource", 2: "ScopeGroup"},
    "Span": {9: "KeyValue", 11: "Event", 13: "Link"},
    "LogRecord": {5: "AnyValue", 6: "KeyValue"},
    "Resource": {1: "KeyValue", 3: "EntityRef"},
    "EntityRef": {3: "Text", 4: "Text"},
    "Scope": {3: "KeyValue"},
    "Event": {3: "KeyValue"},
    "Link": {4: "KeyValue"},
    "KeyValue": {2: "AnyValue"},
    "AnyValue": {5: "ArrayValue", 6: "KeyValueList"},
    "ArrayValue": {1: "AnyValue"},
    "KeyValueList": {1: "KeyValue"},
    "Text": {},
}
"""The messages that may hold many others: by message, the numbers of such fields and the message type in each."""


class _TooMany(Exception):
    """A message has more fields than the limit in `room`."""


def _fields(data: memoryview, room: list[int] | None = None) -> Iterator[tuple[int, memoryview]]:
    """Yield the length-delimited fields of a message, with their numbers.

    Args:
        room: a list with the number of fields that may still come; each field of any kind reduces it by one.

    Raises:
        InvalidValue: the message is truncated, or no protobuf.
    """
    at, end = 0, len(data)
    while at < end:
        if room is not None:
            room[0] -= 1
            if room[0] < 0:
                raise _TooMany
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise InvalidValue("body", "is no protobuf")
        if kind == _BYTES:
            size, at = _varint(data, at)
            if size > end - at:
                raise _cut_off()
            yield number, data[at : at + size]
            at += size
        elif kind == _VARINT:
            _, at = _varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
            if at > end:
                raise _cut_off()
        else:
            raise InvalidValue("body", "is no protobuf")


def check_request(body: bytes, item: str) -> int:
    """Check, before a request is decoded, that it does not have too many spans, log records or fields.

    An empty span takes two bytes, a hundred times as much when it is decoded, and nearly none when it is compressed.
    Broken spans and log records are not detected.

    Args:
        item: the message type of the items, "Span" or "LogRecord".

    Returns:
        An upper limit for the bytes of the largest item.

    Raises:
        InvalidValue: the request has too many items or fields, or is broken outside of its items.
    """
    check_objects(body)
    data, largest = memoryview(body), len(body)
    if len(data) > 2 * MAX_ITEMS:  # a smaller request cannot have more: the shortest field takes two bytes
        room = [MAX_ITEMS]
        try:
            groups = [inner for number, group in _fields(data, room) if number == 1 for inner in _fields(group, room)]
            largest = max((_largest(inner.tobytes(), room) for number, inner in groups if number == 2), default=0)
        except _TooMany:
            raise too_many_items() from None
    if len(data) > 2 * MAX_FIELDS:
        try:
            _count(data, {**_SHAPES, "ScopeGroup": {1: "Scope", 2: item}}, "Request", [MAX_FIELDS], is_strict=False)
        except _TooMany:
            raise InvalidValue("body", f"has more than {MAX_FIELDS:,} fields; send fewer spans at once") from None
    return largest


def _largest(data: bytes, room: list[int]) -> int:
    """Return the bytes of the largest length-delimited field of a message (0.3 µs a field; `_fields` takes 2.5)."""
    at, end, largest, left = 0, len(data), 0, room[0]
    while at + 2 < end and data[at] & 0x87 == _BYTES and data[at] != _BYTES:  # a field number of 1 to 15, with bytes
        left -= 1
        size, at = data[at + 1], at + 2
        if size > 127:
            size, at = (size & 127 | data[at] << 7, at + 1) if data[at] < 128 else _varint(data, at - 1)
        if size > end - at:
            raise _cut_off()
        if left < 0:
            raise _TooMany
        at += size
        largest = max(largest, size)
    room[0] = left
    return max(largest, max((len(field) for _, field in _fields(memoryview(data)[at:], room)), default=0))


def check_size(data: memoryview, shape: str) -> None:
    """Check that a message has at most MAX_VALUES values.

    Raises:
        Unusable: the message has more values, or is broken.
    """
    if len(data) <= SMALL:
        return
    try:
        if _count(data, _SHAPES, shape, [4 * MAX_VALUES]) <= MAX_VALUES:
            return
    except _TooMany:
        pass
    except InvalidValue:
        raise Unusable("it is broken: its fields do not end where they should") from None
    raise Unusable(f"a span has more than {MAX_VALUES:,} values")


def _count(
    data: memoryview, shapes: Mapping[str, Shape], shape: str, room: list[int], *, is_strict: bool = True
) -> int:
    """Return the number of messages inside a message, at any depth.

    Args:
        shapes: the nested messages to count, such as _SHAPES.
        shape: the type of the outer message.
        room: a list with the number of fields that may still come.
        is_strict: whether a broken inner message raises; if not, it is counted up to the break.
    """
    count, open_ = 0, [(_fields(data, room), shapes[shape])]
    while open_:
        parts, fields = open_[-1]
        try:
            for number, inner in parts:
                held = fields.get(number)
                if held is not None:
                    count += 1
                    if inner and shapes[held] and len(open_) < _MAX_OPEN:
                        open_.append((_fields(inner, room), shapes[held]))
                        break
            else:
                open_.pop()
        except InvalidValue:
            if is_strict:
                raise
            open_.pop()
    return count


def _varint(data: Sequence[int], at: int) -> tuple[int, int]:
    value = shift = 0
    for index in range(at, min(at + 10, len(data))):
        byte = data[index]
        value |= (byte & 127) << shift
        if byte < 128:
            return value, index + 1
        shift += 7
    raise _cut_off()


def _cut_off() -> InvalidValue:
    return InvalidValue("body", "is cut off, or no protobuf")


_STATUS: tuple[StatusCode, ...] = ("UNSET", "OK", "ERROR")
_NO_TRACE, _NO_SPAN = bytes(16), bytes(8)


AT_ONCE = 2**20
"""The bytes of the largest body that is decoded as a whole, which saves 3 µs a span.

A body of this size can take 100 MB in memory if it has only empty attributes. A larger body could exhaust the memory:
it is split first, and each span is checked and decoded separately.
"""


class _Messages(NamedTuple):
    request: Any
    span: Any
    log: Any
    resource: Any
    scope: Any
    error: type[Exception]


_loaded: list[_Messages] = []


def spans(body: bytes, *, at_once: int = AT_ONCE, is_sent: bool = True) -> Decoded:
    """Return the spans of an ExportTraceServiceRequest.

    Args:
        at_once: the bytes of the largest body that is decoded as a whole.
        is_sent: whether the body came from a client. A file of the user may have any number of spans.

    Raises:
        InvalidValue: the body is no such message, is truncated, or has too many spans.
        MissingExtra: the package for protobuf is not installed.
    """
    known = _messages()
    largest = check_request(body, "Span") if is_sent else len(body)
    if len(body) <= at_once:
        try:
            return _all_spans(known.request.FromString(body), may_be_large=largest > SMALL)
        except known.error:  # a span is broken: decode the spans separately
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
    """Return the log records of an ExportLogsServiceRequest that were emitted inside a span.

    Args:
        is_sent: whether the body came from a client. A file of the user may have any number of log records.

    Raises:
        InvalidValue: the body is no such message, is truncated, or has too many log records.
        MissingExtra: the package for protobuf is not installed.
    """
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
        with host.importing:
            try:
                from google.protobuf.message import DecodeError
                from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
                from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
                from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
                from opentelemetry.proto.resource.v1.resource_pb2 import Resource
                from opentelemetry.proto.trace.v1.trace_pb2 import Span
            except ImportError:
                raise MissingExtra(
                    "body", f"is protobuf, which needs more packages; send JSON, or run: {installing.extra('otlp')}"
                ) from None
        parts = Span, LogRecord, Resource, InstrumentationScope
        _loaded.append(_Messages(ExportTraceServiceRequest, *parts, DecodeError))
    return _loaded[0]


def _items(known: _Messages, body: bytes, decoded: Decoded) -> Iterator[tuple[dict[str, Any], str, Scope, memoryview]]:
    """Yield the spans or log records of a request: resource, its schema URL, scope, and the item still encoded."""
    for number, group in _fields(memoryview(body)):
        if number != 1:
            continue
        fields = list(_fields(group))
        resource = _resource(known, next((inner for field, inner in fields if field == 1), None), decoded)
        url = _utf8(next((inner for field, inner in fields if field == 3), None))
        for field, inner in fields:
            if field != 2:
                continue
            parts = list(_fields(inner))
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
        return {}  # the spans of a broken resource are still usable


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
    code, trace_id, span_id, parent = status.code, item.trace_id, item.span_id, item.parent_span_id
    cut_off = over or item.dropped_attributes_count or item.dropped_events_count or item.dropped_links_count
    start_ns, end_ns = item.start_time_unix_nano, item.end_time_unix_nano
    if not (0 < start_ns <= MAX_NS and 0 < end_ns <= MAX_NS):
        start_ns, end_ns = times(nanos(start_ns), nanos(end_ns))
    return OtelSpan(
        trace_id.hex() if len(trace_id) == 16 and trace_id != _NO_TRACE else _id(trace_id, 16, "trace_id"),
        span_id.hex() if len(span_id) == 8 and span_id != _NO_SPAN else _id(span_id, 8, "span_id"),
        parent.hex() if len(parent) == 8 and parent != _NO_SPAN else _parent(parent),
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


def _parent(value: bytes) -> str | None:
    return _id(value, 8, "parent_span_id") if any(value) else None


def _attributes(items: Any) -> tuple[dict[str, Any], int]:
    """Return attributes as a dict, and the number of attributes over MAX_ATTRIBUTES. Texts and numbers are fast."""
    number = len(items)
    if number <= MAX_ATTRIBUTES:
        found = {item.key: (value := item.value).string_value or value.int_value or _value(value, 0) for item in items}
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
        return str(found)  # JSON has no nan or inf
    return found
