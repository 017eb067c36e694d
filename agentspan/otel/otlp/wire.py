"""Protobuf's wire format, as far as it takes to part a request into its spans, and to count what is in one.

Each span is then decoded by itself: one that is broken loses only itself, and one that would become a thousand times as
large in memory is never decoded.
"""

from collections.abc import Iterator, Mapping

from agentspan.errors import InvalidValue
from agentspan.otel.otlp.decoded import MAX_VALUES, Unusable

_VARINT, _FIXED64, _BYTES, _START, _END, _FIXED32 = range(6)
SMALL = 2 * MAX_VALUES
"""Bytes in which there cannot be more than MAX_VALUES values: the shortest one takes two."""
Shape = Mapping[int, str]
_SHAPES: Mapping[str, Shape] = {
    "Span": {9: "KeyValue", 11: "Event", 13: "Link"},
    "LogRecord": {5: "AnyValue", 6: "KeyValue"},
    "Resource": {1: "KeyValue"},
    "Event": {3: "KeyValue"},
    "Link": {4: "KeyValue"},
    "KeyValue": {2: "AnyValue"},
    "AnyValue": {5: "ArrayValue", 6: "KeyValueList"},
    "ArrayValue": {1: "AnyValue"},
    "KeyValueList": {1: "KeyValue"},
}
"""The messages that may hold many others: the numbers of such fields, and the message in each."""


def messages(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the length-delimited fields of a message, with their numbers.

    Raises:
        InvalidValue: it is cut off, or no protobuf.
    """
    at, end = 0, len(data)
    while at < end:
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


def check_size(data: memoryview, shape: str) -> None:
    """Check that a message does not hold too many values.

    Raises:
        Unusable: it does, or is broken.
    """
    if len(data) <= SMALL:
        return
    count, waiting = 0, [(data, _SHAPES[shape])]
    try:
        while waiting:
            part, fields = waiting.pop()
            for number, inner in messages(part):
                held = fields.get(number)
                if held is not None:
                    count += 1
                    if count > MAX_VALUES:
                        raise Unusable(f"a span has more than {MAX_VALUES:,} values")
                    waiting.append((inner, _SHAPES[held]))
    except InvalidValue:
        raise Unusable("it is broken: its fields do not end where they should") from None


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
