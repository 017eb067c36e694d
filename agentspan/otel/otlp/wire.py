"""Protobuf's wire format, as far as it takes to part a request into its spans, and to count what is in one.

Each span is then decoded by itself: one that is broken loses only itself, and one that would become a thousand times as
large in memory is never decoded.
"""

from collections.abc import Iterator, Mapping

from agentspan.errors import InvalidValue
from agentspan.otel.otlp.decoded import MAX_ITEMS, MAX_VALUES, Unusable, check_objects, too_many_items

_VARINT, _FIXED64, _BYTES, _START, _END, _FIXED32 = range(6)
SMALL = 2 * MAX_VALUES
"""Bytes in which there cannot be more than MAX_VALUES values: the shortest one takes two."""
MAX_FIELDS = 2_000_000
"""Fields of all messages of a request: an attribute with a text has four. To count so many takes 1.7 s."""
_MAX_OPEN = 200
"""Messages within each other. Protobuf itself decodes no more than 100."""
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
"""The messages that may hold many others: the numbers of such fields, and the message in each."""


class _TooMany(Exception):
    """There are more fields than room for them."""


def messages(data: memoryview, room: list[int] | None = None) -> Iterator[tuple[int, memoryview]]:
    """Yield the length-delimited fields of a message, with their numbers.

    Args:
        room: how many fields of any kind may come; each takes one of them.

    Raises:
        InvalidValue: it is cut off, or no protobuf.
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


def check_request(body: bytes, item: str) -> None:
    """Check, before anything is decoded, that a request does not hold too many spans or log records, or fields.

    An empty span takes two bytes, a hundred times as much when it is decoded, and nearly nothing when it is compressed.
    What is broken in one item is not looked for here.

    Args:
        item: "Span" or "LogRecord".

    Raises:
        InvalidValue: it does, or is broken itself.
    """
    check_objects(body)
    data = memoryview(body)
    if len(data) > 2 * MAX_ITEMS:  # the shortest field takes two bytes
        room = [MAX_ITEMS]
        try:
            for number, group in messages(data, room):
                for inner_number, inner in messages(group, room) if number == 1 else ():
                    for _ in messages(inner, room) if inner_number == 2 else ():
                        pass
        except _TooMany:
            raise too_many_items() from None
    if len(data) > 2 * MAX_FIELDS:
        try:
            _count(data, {**_SHAPES, "ScopeGroup": {1: "Scope", 2: item}}, "Request", [MAX_FIELDS], is_strict=False)
        except _TooMany:
            raise InvalidValue("body", f"has more than {MAX_FIELDS:,} fields; send fewer spans at once") from None


def check_size(data: memoryview, shape: str) -> None:
    """Check that a message does not hold too many values.

    Raises:
        Unusable: it does, or is broken.
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
    """Return how many messages are in one. Without `is_strict`, what is broken counts up to there."""
    count, open_ = 0, [(messages(data, room), shapes[shape])]
    while open_:
        parts, fields = open_[-1]
        try:
            for number, inner in parts:
                held = fields.get(number)
                if held is not None:
                    count += 1
                    if inner and shapes[held] and len(open_) < _MAX_OPEN:
                        open_.append((messages(inner, room), shapes[held]))
                        break
            else:
                open_.pop()
        except InvalidValue:
            if is_strict:
                raise
            open_.pop()
    return count


def _varint(data: memoryview, at: int) -> tuple[int, int]:
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
