"""Files of OTLP requests: JSON lines, as the OpenTelemetry Collector's file exporter writes them, or one body a file.

A body is JSON or protobuf, as exporters send it. A file may be compressed with gzip.
"""

import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import IO

from agentspan.errors import InvalidValue
from agentspan.otel.otlp import json_bodies, protobuf_bodies
from agentspan.otel.otlp.compression import is_gzip
from agentspan.otel.otlp.decoded import Decoded

_SIGNALS = ("resourceSpans", "resourceLogs", "resourceMetrics", "resourceProfiles")
_CHUNK = 1 << 20


def read(file: IO[bytes]) -> Iterator[tuple[str, Decoded]]:
    """Yield the content of each request in a file, and where it is: `line 7`, or `body` of a file that is one.

    Raises:
        InvalidValue: a line, or the file, is no OTLP. Its name says where.
    """
    source = _inflated(file) if _starts_gzip(file) else iter(lambda: file.read(_CHUNK), b"")
    head = next(source, b"")
    if head[:1] == b"\n" or head.lstrip()[:1] != b"{":  # protobuf begins with the byte of a line feed
        yield "body", _protobuf(b"".join([head, *source]))
        return
    lines = _lines(chain([head], source))
    first = next((line for line in lines if line.strip()), b"")
    try:
        parsed = json_bodies.parsed(first)
    except InvalidValue:
        yield "body", _json("body", b"".join([first, *lines]))  # one request on many lines
        return
    yield "line 1", _json_of("line 1", parsed)
    for number, line in enumerate(lines, start=2):
        if line.strip():
            yield f"line {number}", _json(f"line {number}", line)


def _json(where: str, data: bytes) -> Decoded:
    try:
        parsed = json_bodies.parsed(data)
    except InvalidValue as error:
        raise InvalidValue(where, str(error).partition(" ")[2]) from None
    return _json_of(where, parsed)


def _json_of(where: str, parsed: dict[str, object]) -> Decoded:
    if not any(name in parsed for name in _SIGNALS) and parsed:
        raise InvalidValue(where, f"is no request of OTLP, which has one of {', '.join(_SIGNALS[:2])}")
    decoded, logs = json_bodies.spans_of(parsed, is_sent=False), json_bodies.logs_of(parsed, is_sent=False)
    decoded.logs = logs.logs
    for reason, count in logs.unusable.items():
        decoded.reject(reason, count)
    return decoded


def _protobuf(data: bytes) -> Decoded:
    """Decode a body that may be of spans or of log records, which look alike: what has no span is the other."""
    if not data:
        return Decoded()
    decoded = protobuf_bodies.spans(data, is_sent=False)
    if not decoded.spans and decoded.unusable:
        logs = protobuf_bodies.logs(data, is_sent=False)
        if logs.logs or not logs.unusable:
            return logs
    return decoded


def _starts_gzip(file: IO[bytes]) -> bool:
    head = file.read(2)
    file.seek(0)
    return is_gzip(head)


def _inflated(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the content of a gzip file of any number of members, a part at a time."""
    stream, rest, is_open = zlib.decompressobj(31), b"", False
    try:
        while rest or (rest := file.read(_CHUNK)):
            yield stream.decompress(rest, _CHUNK)
            rest, is_open = stream.unconsumed_tail or stream.unused_data, not stream.eof
            if stream.eof:
                stream = zlib.decompressobj(31)
    except zlib.error:
        raise InvalidValue("body", "is no gzip") from None
    if is_open:
        raise InvalidValue("body", "is cut off: its gzip does not end")


def _lines(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a file, each with its end."""
    waiting: list[bytes] = []
    for part in parts:
        *whole, last = part.split(b"\n")
        for line in whole:
            yield b"".join([*waiting, line]) + b"\n"
            waiting = []
        waiting.append(last)
    if rest := b"".join(waiting):
        yield rest
