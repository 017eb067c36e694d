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
    LINK,
    MAX_ATTRIBUTES,
    MAX_DEPTH,
    MAX_ITEMS,
    MAX_NS,
    MAX_STATE,
    MAX_VALUES,
    TOO_DEEP,
    VALUES_OF_REQUEST,
    Decoded,
    MissingExtra,
    Unusable,
    check_objects,
    dropped,
    kept,
    nanos,
    spend,
    times,
    too_many_items,
)
from agentspan.otel.span import KINDS, Event, Link, Log, OtelSpan, Scope, StatusCode, scope_attributes

_VARINT, _FIXED64, _BYTES, _START, _END, _FIXED32 = range(6)
MAX_FIELDS = 4 * MAX_VALUES
"""The most fields of all large spans of a request. An attribute with a text has four. To count so many takes 0.3 s."""
_MAX_OPEN = 200
"""The most levels of nested messages that are counted. Protobuf itself decodes no more than 100."""
Shape = Mapping[int, str]
_SHAPES: Mapping[str, Shape] = {
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


def check_request(body: bytes) -> None:
    """Check, before a request is decoded, that it does not have too many spans or log records.

    An empty span takes two bytes, a hundred times as much when it is decoded, and nearly none when it is compressed.

    Raises:
        InvalidValue: the request has too many spans or log records, or is broken outside of them.
    """
    check_objects(body)
    data = memoryview(body)
    if len(data) > 2 * MAX_ITEMS:  # a smaller request cannot have more: the shortest field takes two bytes
        room = [MAX_ITEMS]
        try:
            groups = [inner for number, group in _fields(data, room) if number == 1 for inner in _fields(group, room)]
            for number, inner in groups:
                if number == 2:
                    _count_fields(inner.tobytes(), room)
        except _TooMany:
            raise too_many_items() from None


def _count_fields(data: bytes, room: list[int]) -> None:
    """Reduce `room` by the number of fields of a message (0.3 µs a field; `_fields` takes 2.5)."""
    at, end, left = 0, len(data), room[0]
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
    room[0] = left
    for _ in _fields(memoryview(data)[at:], room):
        pass


def check_size(data: memoryview, shape: str, room: list[int]) -> None:
    """Check that a large message has at most MAX_VALUES values. A smaller one may be decoded, which counts them.

    Args:
        room: a list with the number of fields that the large messages of the request may still have.

    Raises:
        Unusable: the message has more values, or is broken.
    """
    if len(data) <= AT_ONCE:
        return
    try:
        if _count(data, shape, room) <= MAX_VALUES:
            return
    except _TooMany:
        pass
    except InvalidValue:
        raise Unusable("it is broken: its fields do not end where they should") from None
    raise Unusable(f"a span has more than {MAX_VALUES:,} values")


def _count(data: memoryview, shape: str, room: list[int]) -> int:
    """Return the number of messages inside a message, at any depth.

    Args:
        shape: the type of the outer message.
        room: a list with the number of fields that may still come.
    """
    count, open_ = 0, [(_fields(data, room), _SHAPES[shape])]
    while open_:
        parts, fields = open_[-1]
        for number, inner in parts:
            held = fields.get(number)
            if held is not None:
                count += 1
                if inner and _SHAPES[held] and len(open_) < _MAX_OPEN:
                    open_.append((_fields(inner, room), _SHAPES[held]))
                    break
        else:
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
    of: Mapping[str, Any]
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
    if is_sent:
        check_request(body)
    decoded, fields = Decoded(is_sent), [MAX_FIELDS]
    if len(body) <= at_once:
        try:
            return _all_spans(known.request.FromString(body), decoded)
        except known.error:  # a span is broken: decode the spans separately
            pass

    def span_in(data: memoryview, resource: dict[str, Any], url: str, scope: Scope, room: list[int]) -> OtelSpan:
        return _span(_parsed(known, "Span", data, fields if is_sent else [MAX_FIELDS]), resource, url, scope, room)

    for resource, url, scope, data in _items(known, body, decoded):
        if (found := decoded.read(span_in, data, resource, url, scope)) is not None:
            decoded.spans.append(found)
    return decoded


def _all_spans(request: Any, decoded: Decoded) -> Decoded:
    for group in request.resource_spans:
        resource, url = _attributes_of(group.resource, decoded), group.schema_url
        for inner in group.scope_spans:
            scope = _named(inner.scope, inner.schema_url, decoded)
            for item in inner.spans:
                if (found := decoded.read(_span, item, resource, url, scope)) is not None:
                    decoded.spans.append(found)
    return decoded


def logs(body: bytes, *, is_sent: bool = True) -> Decoded:
    """Return the log records of an ExportLogsServiceRequest that were emitted inside a span.

    Args:
        is_sent: whether the body came from a client. A file of the user may have any number of log records.

    Raises:
        InvalidValue: the body is no such message, is truncated, or has too many log records.
        MissingExtra: the package for protobuf is not installed.
    """
    known, decoded, fields = _messages(), Decoded(is_sent), [MAX_FIELDS]
    if is_sent:
        check_request(body)

    def log_in(data: memoryview, room: list[int]) -> Log | None:
        record = _parsed(known, "LogRecord", data, fields if is_sent else [MAX_FIELDS])
        return _log(record, room) if record.trace_id and record.span_id else None

    for _, _, _, data in _items(known, body, decoded):
        if (found := decoded.read(log_in, data)) is not None:
            decoded.logs.append(found)
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
        parts = {"Span": Span, "LogRecord": LogRecord, "Resource": Resource, "Scope": InstrumentationScope}
        _loaded.append(_Messages(ExportTraceServiceRequest, parts, DecodeError))
    return _loaded[0]


def _items(known: _Messages, body: bytes, decoded: Decoded) -> Iterator[tuple[dict[str, Any], str, Scope, memoryview]]:
    """Yield the spans or log records of a request: resource, its schema URL, scope, and the item still encoded."""
    for number, group in _fields(memoryview(body)):
        if number != 1:
            continue
        fields = list(_fields(group))
        about = _about(known, "Resource", next((inner for field, inner in fields if field == 1), None), decoded)
        resource = {} if about is None else _attributes_of(about, decoded)
        url = _utf8(next((inner for field, inner in fields if field == 3), None))
        for field, inner in fields:
            if field != 2:
                continue
            parts = list(_fields(inner))
            scope_url = _utf8(next((part for name, part in parts if name == 3), None))
            about = _about(known, "Scope", next((part for name, part in parts if name == 1), None), decoded)
            scope = Scope(schema_url=scope_url) if about is None else _named(about, scope_url, decoded)
            for name, part in parts:
                if name == 2:
                    yield resource, url, scope, part


def _parsed(known: _Messages, shape: str, data: memoryview, fields: list[int]) -> Any:
    check_size(data, shape, fields)
    try:
        return known.of[shape].FromString(data.tobytes())
    except known.error:
        raise Unusable("it is broken: not protobuf, no UTF-8, or nested too deep") from None


def _about(known: _Messages, shape: str, data: memoryview | None, decoded: Decoded) -> Any:
    """Return a resource or a scope; None if there is none, or it is unusable: its spans still are usable."""
    try:
        is_full = decoded.values >= VALUES_OF_REQUEST
        return None if data is None or is_full else _parsed(known, shape, data, [MAX_VALUES // 10])
    except Unusable:
        return None


def _attributes_of(about: Any, decoded: Decoded) -> dict[str, Any]:
    """Return the attributes of a resource or a scope, which count as values of the request; {} if they are too many."""
    items, room = about.attributes, [min(MAX_VALUES, VALUES_OF_REQUEST - decoded.values)]
    if not items:
        return {}
    before = room[0]
    try:
        return _attributes(items, room)[0]
    except Unusable:
        return {}
    finally:
        if decoded.is_sent:
            decoded.values += before - room[0]


def _named(scope: Any, url: str, decoded: Decoded) -> Scope:
    return Scope(scope.name, scope.version, url, scope_attributes(_attributes_of(scope, decoded)))


def _utf8(data: memoryview | None) -> str:
    return "" if data is None else data.tobytes().decode("utf-8", "replace")


def _span(item: Any, resource: dict[str, Any], url: str, scope: Scope, room: list[int]) -> OtelSpan:
    attributes, over = _attributes(item.attributes, room)
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
        tuple([_event(event, room) for event in events[:MAX_ATTRIBUTES]]) if events else (),
        tuple([_link(link, room) for link in links[:MAX_ATTRIBUTES]]) if links else (),
        scope,
        resource,
        url,
        _dropped(item, over) if cut_off or len(events) > MAX_ATTRIBUTES or len(links) > MAX_ATTRIBUTES else {},
        item.trace_state[:MAX_STATE],
    )


def _event(item: Any, room: list[int]) -> Event:
    spend(room, LINK)
    return Event(item.name, nanos(item.time_unix_nano), _attributes(item.attributes, room)[0])


def _link(item: Any, room: list[int]) -> Link:
    spend(room, LINK)
    return Link(item.trace_id.hex(), item.span_id.hex(), _attributes(item.attributes, room)[0], item.trace_state)


def _dropped(item: Any, over: int) -> Mapping[str, int]:
    return dropped(
        attributes=over + item.dropped_attributes_count,
        events=max(0, len(item.events) - MAX_ATTRIBUTES) + item.dropped_events_count,
        links=max(0, len(item.links) - MAX_ATTRIBUTES) + item.dropped_links_count,
    )


def _log(item: Any, room: list[int]) -> Log:
    attributes, _ = _attributes(item.attributes, room)
    name = getattr(item, "event_name", "") or attributes.get("event.name")
    at = nanos(item.time_unix_nano) or nanos(item.observed_time_unix_nano)
    event = Event(name if type(name) is str else "", at, attributes, _value(item.body, 0, room))
    return Log(_id(item.trace_id, 16, "trace_id"), _id(item.span_id, 8, "span_id"), event)


def _id(value: bytes, length: int, name: str) -> str:
    if len(value) != length or not any(value):
        raise Unusable(f"{name} is not of {length} bytes")
    return value.hex()


def _parent(value: bytes) -> str | None:
    return _id(value, 8, "parent_span_id") if any(value) else None


def _attributes(items: Any, room: list[int]) -> tuple[dict[str, Any], int]:
    """Return attributes as a dict, and the number of attributes over MAX_ATTRIBUTES. Texts and numbers are fast."""
    number = len(items)
    spend(room, number)
    if number <= MAX_ATTRIBUTES:
        found = {
            item.key: (value := item.value).string_value or value.int_value or _value(value, 0, room) for item in items
        }
        if len(found) == number:
            return found, 0
    return kept((item.key, _value(item.value, 0, room)) for item in items)


def _value(value: Any, depth: int, room: list[int]) -> Any:
    """Return an AnyValue as plain JSON."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind in ("array_value", "kvlist_value"):
        if depth >= MAX_DEPTH:
            return TOO_DEEP
        items = getattr(value, kind).values
        spend(room, len(items))
        if kind == "array_value":
            return [_value(item, depth + 1, room) for item in items]
        return {item.key: _value(item.value, depth + 1, room) for item in items}
    found = getattr(value, kind)
    if type(found) is bytes:
        return base64.b64encode(found).decode()
    if type(found) is float and not math.isfinite(found):
        return str(found)  # JSON has no nan or inf
    return found
