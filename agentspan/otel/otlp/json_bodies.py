"""Decodes OTLP in JSON: ids in hex, enums as numbers, 64-bit numbers as texts or numbers. Ignores unknown members.

Also the decoded content of a request, and the limits that JSON and protobuf share.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentspan import jsontext
from agentspan.arriving.json_values import list_in, object_in
from agentspan.errors import InvalidValue
from agentspan.otel.span import KINDS, Event, Link, Log, OtelSpan, Scope, StatusCode, scope_attributes

MAX_ATTRIBUTES = 10_000
"""The most attributes of a span, event or link, and the most events or links of a span. The rest is only counted."""
MAX_VALUES = 100_000
"""The most values in a span, with the values in lists and objects. A span with more is rejected. They take 10 MB."""
VALUES_OF_REQUEST = 500_000
"""The most values of all spans of a request. The spans behind them are rejected. They take half a second."""
LINK = 5
"""The values as which an event or a link counts: it takes 4 µs and 500 bytes, also if it is empty."""
MAX_TRACES = 3000
"""The most traces of a request, each of which becomes a run, at worst of an agent of its own in 0.2 ms."""
MAX_STATE = 8192
"""The most characters of a `tracestate`; the rest is cut off. W3C asks for 512."""
MAX_ITEMS = 20_000
"""The most spans or log records of a request, counted with their resources and scopes. To store them takes a second.

By default, exporters send 512 spans at once and collectors 8,192.
"""
MAX_OBJECTS = 1_000_000
"""The most opening braces, and the most opening brackets, in a body. A parsed object takes 64 bytes at least.

A protobuf body has them in the JSON of attributes, such as messages.
"""
MAX_DEPTH = 64
"""The most levels of lists and objects in an attribute. A deeper one is replaced by the text TOO_DEEP."""
MAX_REASONS = 20
TOO_DEEP = "[nested too deep]"


class BodyTooLarge(InvalidValue):
    """A body has more bytes than allowed, before or after decompression."""


class MissingExtra(InvalidValue):
    """A body needs a package that is not installed."""


@dataclass(slots=True)
class Decoded:
    """The decoded content of a request.

    Attributes:
        is_sent: whether the request came from a client. A file of the user may have any number of values and traces.
        spans, logs: the usable spans and log records. `logs` has only records that were emitted inside a span.
        unusable: the number of rejected spans or log records, by the reason.
        values: the number of values that were read so far.
        traces: the ids of the traces so far.
    """

    is_sent: bool = True
    spans: list[OtelSpan] = field(default_factory=list)
    logs: list[Log] = field(default_factory=list)
    unusable: dict[str, int] = field(default_factory=dict)
    values: int = 0
    traces: set[str] = field(default_factory=set)

    def read(self, reads: Callable[..., Any], *args: Any) -> Any:
        """Return what `reads(*args, room)` returns; None if that is unusable, or a limit of requests is reached.

        `room` is a list with the number of values that may still come; each value reduces it by one.
        """
        left = VALUES_OF_REQUEST - self.values if self.is_sent else MAX_VALUES
        most = min(MAX_VALUES, left)
        room = [most]
        try:
            if left <= 0:
                raise Unusable("")
            found = reads(*args, room)
            if self.is_sent and found is not None and found.trace_id not in self.traces:
                if len(self.traces) >= MAX_TRACES:
                    raise Unusable(f"a request has more than {MAX_TRACES:,} traces; send fewer spans at once")
                self.traces.add(found.trace_id)
            return found
        except Unusable as error:
            is_full = left <= 0 or (left < MAX_VALUES and room[0] < 0)  # else this span alone has too many
            many = f"a request has more than {VALUES_OF_REQUEST:,} values; send fewer spans at once"
            self.reject(many if is_full else str(error))
            return None
        finally:
            if self.is_sent:
                self.values += most - max(room[0], 0)

    def reject(self, reason: str, count: int = 1) -> None:
        """Count rejected spans or log records. The first MAX_REASONS reasons are counted separately."""
        if reason not in self.unusable and len(self.unusable) >= MAX_REASONS:
            reason = "other reasons"
        self.unusable[reason] = self.unusable.get(reason, 0) + count

    @property
    def rejected(self) -> int:
        """The number of rejected spans or log records."""
        return sum(self.unusable.values())

    def why(self) -> str:
        """Return the reasons of rejections as a text for the sender; empty if nothing was rejected."""
        return "; ".join(f"{count} × {reason}" if count > 1 else reason for reason, count in self.unusable.items())


def check_objects(body: bytes) -> None:
    """Check, before a body is parsed, that it does not have too many JSON objects or lists.

    Raises:
        InvalidValue: the body has more than MAX_OBJECTS braces or brackets.
    """
    if len(body) <= MAX_OBJECTS:  # to count them takes 0.3 ms a megabyte
        return
    if body.count(b"{") > MAX_OBJECTS or body.count(b"[") > MAX_OBJECTS:
        raise InvalidValue("body", f"has more than {MAX_OBJECTS:,} JSON objects or lists; send fewer spans at once")


def too_many_items() -> InvalidValue:
    """Return the error for a request with more than MAX_ITEMS spans or log records."""
    return InvalidValue(
        "body", f"has more than {MAX_ITEMS:,} spans or log records, or what they are in; send fewer at once"
    )


class Unusable(Exception):
    """A span or log record must be rejected. The text is the reason, without any value of the record."""


def spend(room: list[int], count: int) -> None:
    """Reduce the number of values that a span may still have.

    Raises:
        Unusable: the span has more than MAX_VALUES values.
    """
    room[0] -= count
    if room[0] < 0:
        raise Unusable(f"a span has more than {MAX_VALUES:,} values")


def kept(pairs: Iterator[tuple[str, Any]]) -> tuple[dict[str, Any], int]:
    """Return attributes as a dict, and the number of attributes over MAX_ATTRIBUTES. The first of equal names wins."""
    found: dict[str, Any] = {}
    over = 0
    for name, value in pairs:
        if len(found) < MAX_ATTRIBUTES:
            found.setdefault(name, value)
        elif name not in found:
            over += 1
    return found, over


def times(start_ns: int, end_ns: int) -> tuple[int, int | None]:
    """Return the start and the end of a span. An unknown start becomes the end; an unknown end becomes None.

    Args:
        start_ns, end_ns: 0 if unknown.

    Raises:
        Unusable: both are unknown.
    """
    if not start_ns and not end_ns:
        raise Unusable("a span has no time")
    return start_ns or end_ns, end_ns or None


def dropped(**counts: int) -> Mapping[str, int]:
    """Return the counts of dropped attributes, events and links that are greater than 0."""
    return {name: count for name, count in counts.items() if count > 0}


MAX_MEMBERS = 300_000
"""The most members of all objects of a body. An attribute has three.

No other thread runs while the parser runs. To parse so many different names takes 0.13 s.
"""
MAX_ELEMENTS = 1_000_000
"""The most members of objects and elements of lists in a body. To parse so many different texts takes 0.12 s."""
_HEX = frozenset("0123456789abcdef")
_STATUS: tuple[StatusCode, ...] = ("UNSET", "OK", "ERROR")
MAX_NS = 253_402_300_799_000_000_000  # the end of the year 9999


def parsed(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a body.

    Raises:
        InvalidValue: the body is no JSON object, or has too many objects, lists, members or elements.
    """
    check_objects(body)
    _check_members(body)
    try:
        data = jsontext.decode(body.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise InvalidValue("body", "is no UTF-8") from None
    except RecursionError:
        raise InvalidValue("body", "is nested too deep") from None
    except ValueError:
        raise InvalidValue("body", "is no JSON") from None
    if type(data) is not dict:
        raise InvalidValue("body", "is no JSON object")
    return data


def _check_members(body: bytes) -> None:
    if body.count(b":") <= MAX_MEMBERS and body.count(b",") <= MAX_ELEMENTS:  # upper bounds, counted in texts, too
        return
    members = elements = 0
    for _, outside in jsontext.structure(body):
        members += outside.count(b":")
        elements += outside.count(b",")
        if members > MAX_MEMBERS or elements > MAX_ELEMENTS:
            counts = f"{MAX_MEMBERS:,} members of JSON objects, or {MAX_ELEMENTS:,} with the elements of lists"
            raise InvalidValue("body", f"has more than {counts}; send fewer spans at once")


def spans(data: Mapping[str, Any], *, is_sent: bool = True) -> Decoded:
    """Return the spans of a parsed ExportTraceServiceRequest.

    Args:
        is_sent: whether the request came from a client. A file of the user may have any number of spans.

    Raises:
        InvalidValue: the request has too many spans.
    """
    decoded = Decoded(is_sent)
    for resource, inner, items in _groups(data, "Spans", "spans", decoded):
        scope = _scope(inner)
        for item in items:
            if (found := decoded.read(_span, item, *resource, scope)) is not None:
                decoded.spans.append(found)
    return decoded


def logs(data: Mapping[str, Any], *, is_sent: bool = True) -> Decoded:
    """Return the log records of a parsed ExportLogsServiceRequest that were emitted inside a span.

    Args:
        is_sent: whether the request came from a client. A file of the user may have any number of log records.

    Raises:
        InvalidValue: the request has too many log records.
    """
    decoded = Decoded(is_sent)
    for _, _, items in _groups(data, "Logs", "logRecords", decoded):
        for item in items:
            inside = item.get("traceId") and item.get("spanId")  # else the record was not emitted inside a span
            if inside and (found := decoded.read(_log, item)) is not None:
                decoded.logs.append(found)
    return decoded


Group = tuple[tuple[dict[str, Any], str], Mapping[str, Any], Iterator[dict[str, Any]]]


def _groups(data: Mapping[str, Any], kind: str, name: str, decoded: Decoded) -> Iterator[Group]:
    """Yield each scope of a request: its resource with the schema URL, the scope, and its spans or log records."""
    room = [MAX_ITEMS] if decoded.is_sent else None
    for group in _objects(data, f"resource{kind}", decoded, room):
        resource = _resource(group)
        for inner in _objects(group, f"scope{kind}", decoded, room, f"instrumentationLibrary{kind}"):
            yield resource, inner, _objects(inner, name, decoded, room)


def _objects(
    data: Mapping[str, Any], name: str, decoded: Decoded, room: list[int] | None, older: str = ""
) -> Iterator[dict[str, Any]]:
    found = data.get(name) or data.get(older) or ()
    if type(found) is not list:
        if found != ():
            decoded.reject(f"{name} is no list")
        return
    if room is not None:
        room[0] -= len(found)
        if room[0] < 0:
            raise too_many_items()
    for item in found:
        if type(item) is dict:
            yield item
        else:
            decoded.reject(f"an item of {name} is no object")


def _resource(group: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    return _attributes(object_in(group.get("resource"))), _text(group.get("schemaUrl"))


def _scope(inner: Mapping[str, Any]) -> Scope:
    scope = object_in(inner.get("scope") or inner.get("instrumentationLibrary"))
    about = _text(scope.get("name")), _text(scope.get("version")), _text(inner.get("schemaUrl"))
    return Scope(*about, scope_attributes(_attributes(scope)))


def _attributes(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a resource or a scope; none if they cannot be used."""
    try:
        return kept(_pairs(item.get("attributes"), [MAX_VALUES]))[0]
    except Unusable:
        return {}


def _span(item: Mapping[str, Any], resource: dict[str, Any], url: str, scope: Scope, room: list[int]) -> OtelSpan:
    attributes, over = kept(_pairs(item.get("attributes"), room))
    events, links = list_in(item.get("events")), list_in(item.get("links"))
    status = object_in(item.get("status"))
    parent = item.get("parentSpanId")
    start_ns, end_ns = times(nanos(item.get("startTimeUnixNano")), nanos(item.get("endTimeUnixNano")))
    return OtelSpan(
        _id(item.get("traceId"), 32, "traceId"),
        _id(item.get("spanId"), 16, "spanId"),
        _parent(parent),
        _text(item.get("name")),
        start_ns,
        end_ns,
        _kind(item.get("kind")),
        _STATUS[_enum(status.get("code"), "STATUS_CODE_", _STATUS, 0)],
        _text(status.get("message")) or None,
        attributes,
        tuple(_event(event, room) for event in events[:MAX_ATTRIBUTES] if type(event) is dict),
        tuple(_link(link, room) for link in links[:MAX_ATTRIBUTES] if type(link) is dict),
        scope,
        resource,
        url,
        dropped(
            attributes=over + _count(item.get("droppedAttributesCount")),
            events=max(0, len(events) - MAX_ATTRIBUTES) + _count(item.get("droppedEventsCount")),
            links=max(0, len(links) - MAX_ATTRIBUTES) + _count(item.get("droppedLinksCount")),
        ),
        _text(item.get("traceState"))[:MAX_STATE],
    )


def _log(item: Mapping[str, Any], room: list[int]) -> Log:
    attributes, _ = kept(_pairs(item.get("attributes"), room))
    name = _text(item.get("eventName")) or attributes.get("event.name")
    at = nanos(item.get("timeUnixNano")) or nanos(item.get("observedTimeUnixNano"))
    event = Event(_text(name), at, attributes, any_value(item.get("body"), room))
    return Log(_id(item.get("traceId"), 32, "traceId"), _id(item.get("spanId"), 16, "spanId"), event)


def _event(item: Mapping[str, Any], room: list[int]) -> Event:
    spend(room, LINK)
    return Event(
        _text(item.get("name")), nanos(item.get("timeUnixNano")), kept(_pairs(item.get("attributes"), room))[0]
    )


def _link(item: Mapping[str, Any], room: list[int]) -> Link:
    spend(room, LINK)
    attributes, _ = kept(_pairs(item.get("attributes"), room))
    ids = _text(item.get("traceId")).lower(), _text(item.get("spanId")).lower()
    return Link(*ids, attributes, _text(item.get("traceState")))


def _pairs(items: Any, room: list[int]) -> Iterator[tuple[str, Any]]:
    for item in list_in(items):
        if type(item) is dict and type(item.get("key")) is str:
            yield item["key"], any_value(item.get("value"), room)


def any_value(value: Any, room: list[int], depth: int = 0) -> Any:
    """Return an AnyValue as plain JSON.

    Args:
        room: a list with the number of values that the span may still have; each value reduces it by one.
        depth: the number of lists and objects around the value.

    Raises:
        Unusable: the span has more than MAX_VALUES values.
    """
    spend(room, 1)
    if type(value) is not dict or not value:
        return None
    if depth >= MAX_DEPTH:
        return TOO_DEEP
    for name, read in _READERS.items():
        if value.get(name) is not None:
            return read(value[name])
    items = value.get("arrayValue")
    if type(items) is dict:
        return [any_value(item, room, depth + 1) for item in list_in(items.get("values"))]
    items = value.get("kvlistValue")
    if type(items) is dict:
        pairs = [item for item in list_in(items.get("values")) if type(item) is dict and type(item.get("key")) is str]
        return {item["key"]: any_value(item.get("value"), room, depth + 1) for item in pairs}
    return None


def _double(value: Any) -> Any:
    if type(value) is str:
        try:
            value = float(value)
        except ValueError:
            return value
    if type(value) is float and not math.isfinite(value):
        return str(value)  # JSON has no NaN or inf
    return value if type(value) in (int, float) else None


def _integer(value: Any) -> int | None:
    if type(value) is str and len(value) <= 20 and value.removeprefix("-").isdecimal() and value.isascii():
        return int(value)
    if type(value) is float and value.is_integer() and abs(value) < 2**63:
        return int(value)
    return value if type(value) is int and abs(value) < 2**63 else None


def _string(value: Any) -> str | None:
    return value if type(value) is str else None


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "stringValue": _string,
    "boolValue": lambda value: value if type(value) is bool else None,
    "intValue": _integer,
    "doubleValue": _double,
    "bytesValue": _string,
}


def _id(value: Any, length: int, name: str) -> str:
    found = value.lower() if type(value) is str else ""
    if len(found) != length or not set(found) <= _HEX or not found.strip("0"):
        raise Unusable(f"{name} is not of {length} hexadecimal digits")
    return found


def _parent(value: Any) -> str | None:
    if value is None or value == "" or (type(value) is str and not value.strip("0")):
        return None
    return _id(value, 16, "parentSpanId")


def nanos(value: Any) -> int:
    """Return a time in nanoseconds since the epoch; 0 if the value is no such time or is after the year 9999."""
    found = _integer(value)
    return found if found is not None and 0 < found <= MAX_NS else 0


def _kind(value: Any) -> str:
    number = _enum(value, "SPAN_KIND_", ("UNSPECIFIED", *KINDS), 1)
    return KINDS[number - 1] if number else "INTERNAL"


def _enum(value: Any, prefix: str, names: tuple[str, ...], default: int) -> int:
    """Return the number of an enum value. Some senders write the name, such as `SPAN_KIND_CLIENT`."""
    if type(value) is str:
        name = value.removeprefix(prefix)
        return names.index(name) if name in names else default
    return value if type(value) is int and 0 <= value < len(names) else default


def _count(value: Any) -> int:
    found = _integer(value)
    return found if found is not None and found > 0 else 0


def _text(value: Any) -> str:
    return value if type(value) is str else ""
