"""Decodes and encodes OTLP requests, `POST /v1/traces` and `/v1/logs`, files of such requests, and the answers to them.

A request is protobuf or JSON, and may be compressed with gzip or deflate. Never more bytes than a limit are
decompressed. A file has one body, or JSON lines, the format of the OpenTelemetry Collector's file exporter; it may be
compressed with gzip. To encode needs no protobuf package.
"""

import json
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import IO, Any, Literal

from agentspan.errors import InvalidValue
from agentspan.otel.otlp import json_bodies, protobuf_bodies
from agentspan.otel.otlp.json_bodies import BodyTooLarge, Decoded

MAX_BODY = 20 * 2**20
"""The default limit for the bytes of a decompressed body."""
MAX_RATIO = 100
"""How many times as large as it was sent a body may become without its compression. Real requests reach 30."""
MAX_SMALL = 2**20
"""The bytes without compression that any body may have."""
MAX_MEMBERS = 1000
"""The most members of a gzip body, which are gzip files one after the other. Each takes 40 kB and some microseconds."""
_GZIP, _ZLIB, _RAW = 31, 15, -15
_ZEROS = re.compile(rb"\0*")
_CHUNK = 16 * 2**10
"""The bytes that are passed to zlib at once. Few, because zlib copies all bytes after the end of a member."""


def plain(body: bytes, encoding: str | None, limit: int = MAX_BODY) -> bytes:
    """Decompress the body of a request.

    Args:
        body: the received body.
        encoding: the Content-Encoding of the body: `gzip`, `deflate`, `identity` or None.
        limit: the most bytes of the result. No more are ever decompressed.

    Raises:
        BodyTooLarge: the decompressed body has more bytes.
        InvalidValue: the encoding is unknown, or the body has another encoding or is truncated.
    """
    encoding = (encoding or "identity").strip().lower()
    if encoding == "identity":
        if len(body) > limit:
            raise _too_large(limit)
        return body
    limit = min(limit, max(MAX_SMALL, MAX_RATIO * len(body)))
    if encoding == "gzip":
        return _inflated(body, _GZIP, limit)
    if encoding == "deflate":
        return _inflated(body, _ZLIB if _has_zlib_header(body) else _RAW, limit)
    raise InvalidValue("Content-Encoding", "must be gzip, deflate or identity")


def _has_zlib_header(body: bytes) -> bool:
    return len(body) >= 2 and body[0] & 15 == 8 and int.from_bytes(body[:2]) % 31 == 0


def _inflated(body: bytes, bits: int, limit: int) -> bytes:
    parts: list[bytes] = []
    size = at = members = 0
    end = len(body)
    while at < end:  # a gzip body may have several members
        members += 1
        if members > MAX_MEMBERS:
            raise InvalidValue("body", f"has more than {MAX_MEMBERS:,} members of gzip")
        stream = zlib.decompressobj(bits)
        while not stream.eof:
            if at >= end:
                raise InvalidValue("body", "is cut off: its compression does not end")
            chunk = body[at : at + _CHUNK]
            try:
                part = stream.decompress(chunk, limit - size + 1)
            except zlib.error:
                raise InvalidValue("body", "is not compressed as its Content-Encoding says") from None
            parts.append(part)
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            at += len(chunk) - len(stream.unused_data)
        if bits != _GZIP:
            break
        at = _ZEROS.match(body, at).end()  # type: ignore[union-attr]
    return b"".join(parts)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge("body", f"has more than {limit:,} bytes without its compression")


PROTOBUF, JSON = "application/x-protobuf", "application/json"
Signal = Literal["traces", "logs"]


def decode(
    signal: Signal, body: bytes, content_type: str | None, encoding: str | None = None, limit: int = MAX_BODY
) -> Decoded:
    """Return the spans or log records of a request, and the numbers of unusable ones.

    Args:
        signal: the kind of the request, from its address: `traces` or `logs`.
        body: the received body; an empty body has no spans.
        content_type: `application/x-protobuf` or `application/json`, with or without parameters.
        encoding: the Content-Encoding of the body: `gzip`, `deflate`, `identity` or None.
        limit: the most bytes of the decompressed body.

    Raises:
        BodyTooLarge: the decompressed body has more bytes.
        MissingExtra: the body is protobuf, and the extra `otlp` is not installed.
        InvalidValue: the body is neither protobuf nor JSON, or broken as a whole. A single broken span does not raise:
            it is counted in `unusable`.
    """
    form = (content_type or "").partition(";")[0].strip().lower()
    if form not in (PROTOBUF, JSON, "application/protobuf"):
        raise InvalidValue("Content-Type", f"must be {PROTOBUF} or {JSON}")
    data = plain(body, encoding, limit)
    if not data:
        return Decoded()
    if form == JSON:
        parsed = json_bodies.parsed(data)
        return json_bodies.spans(parsed) if signal == "traces" else json_bodies.logs(parsed)
    return protobuf_bodies.spans(data) if signal == "traces" else protobuf_bodies.logs(data)


_SIGNALS = ("resourceSpans", "resourceLogs", "resourceMetrics", "resourceProfiles")
_READ = 1 << 20


def read_file(file: IO[bytes]) -> Iterator[tuple[str, Decoded]]:
    """Yield the place and the content of each request in a file.

    The place is the line, such as `line 7`, or `body` if the whole file is one request.

    Raises:
        InvalidValue: a line, or the file, is no OTLP. The name in the error is the place.
    """
    source = _inflated_file(file) if _starts_gzip(file) else iter(lambda: file.read(_READ), b"")
    head = next(source, b"")
    if head[:1] == b"\n" or head.lstrip()[:1] != b"{":  # the first byte of a protobuf request is that of a line feed
        yield "body", _protobuf(b"".join([head, *source]))
        return
    lines = _lines(chain([head], source))
    first = next((line for line in lines if line.strip()), b"")
    try:
        parsed = json_bodies.parsed(first)
    except InvalidValue:
        yield "body", _json("body", b"".join([first, *lines]))  # the file is one request on many lines
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
    decoded, logs = json_bodies.spans(parsed, is_sent=False), json_bodies.logs(parsed, is_sent=False)
    decoded.logs = logs.logs
    for reason, count in logs.unusable.items():
        decoded.reject(reason, count)
    return decoded


def _protobuf(data: bytes) -> Decoded:
    """Decode a protobuf body of spans or log records. If no span can be decoded, log records are tried.

    Both kinds of requests have the same outer fields, so the body does not show its kind.
    """
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
    return head == b"\x1f\x8b"


def _inflated_file(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the decompressed content of a gzip file, a part at a time. The file may have any number of members."""
    stream, rest, is_open = zlib.decompressobj(31), b"", False
    try:
        while rest or (rest := file.read(_READ)):
            yield stream.decompress(rest, _READ)
            rest, is_open = stream.unconsumed_tail or stream.unused_data, not stream.eof
            if stream.eof:
                stream = zlib.decompressobj(31)
    except zlib.error:
        raise InvalidValue("body", "is no gzip") from None
    if is_open:
        raise InvalidValue("body", "is cut off: its gzip does not end")


def _lines(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a file, each with its line feed, from parts of any size."""
    waiting: list[bytes] = []
    for part in parts:
        *whole, last = part.split(b"\n")
        for line in whole:
            yield b"".join([*waiting, line]) + b"\n"
            waiting = []
        waiting.append(last)
    if rest := b"".join(waiting):
        yield rest


Encode = Callable[[Mapping[str, Any]], bytes]


def trace_request(request: Mapping[str, Any]) -> bytes:
    """Encode an ExportTraceServiceRequest from OTLP's JSON form to protobuf."""
    return b"".join(_bytes(1, _resource(each, "scopeSpans", "spans", _span)) for each in request["resourceSpans"])


def log_request(request: Mapping[str, Any]) -> bytes:
    """Encode an ExportLogsServiceRequest from OTLP's JSON form to protobuf."""
    return b"".join(_bytes(1, _resource(each, "scopeLogs", "logRecords", _log)) for each in request["resourceLogs"])


def _resource(message: Mapping[str, Any], scopes: str, items: str, encode: Encode) -> bytes:
    """Encode the spans or the logs of one resource.

    Args:
        scopes, items: the members of the message with its scopes, and of a scope with its spans or logs.
        encode: the encoder of one span or log.
    """
    resource = _attributes(1, message["resource"]["attributes"])
    return _bytes(1, resource) + b"".join(_bytes(2, _of_scope(each, items, encode)) for each in message[scopes])


def _of_scope(message: Mapping[str, Any], items: str, encode: Encode) -> bytes:
    encoded = b"".join(_bytes(2, encode(each)) for each in message[items])
    scope = _text(1, message["scope"]["name"]) + _text(2, message["scope"]["version"])
    return _bytes(1, scope) + encoded + _text(3, message["schemaUrl"])


def _log(message: Mapping[str, Any]) -> bytes:
    at = int(message["timeUnixNano"])
    ids = _bytes(9, bytes.fromhex(message["traceId"])) + _bytes(10, bytes.fromhex(message["spanId"]))
    return (
        _fixed(1, at) + _attributes(6, message["attributes"]) + ids + _fixed(11, at) + _text(12, message["eventName"])
    )


def _span(message: Mapping[str, Any]) -> bytes:
    parts = [
        _bytes(1, bytes.fromhex(message["traceId"])),
        _bytes(2, bytes.fromhex(message["spanId"])),
        _text(3, message.get("traceState", "")),
        _bytes(4, bytes.fromhex(message["parentSpanId"])) if "parentSpanId" in message else b"",
        _text(5, message["name"]),
        _number(6, message["kind"]),
        _fixed(7, int(message["startTimeUnixNano"])),
        _fixed(8, int(message["endTimeUnixNano"])),
        _attributes(9, message["attributes"]),
        _number(10, message.get("droppedAttributesCount", 0)),
        *(_bytes(11, _event(event)) for event in message.get("events", ())),
        _number(12, message.get("droppedEventsCount", 0)),
        *(_bytes(13, _link(link)) for link in message.get("links", ())),
        _number(14, message.get("droppedLinksCount", 0)),
    ]
    status = message["status"]
    parts.append(_bytes(15, _text(2, status.get("message", "")) + _number(3, status["code"])))
    return b"".join(parts)


def _event(message: Mapping[str, Any]) -> bytes:
    return _fixed(1, int(message["timeUnixNano"])) + _text(2, message["name"]) + _attributes(3, message["attributes"])


def _link(message: Mapping[str, Any]) -> bytes:
    ids = _bytes(1, bytes.fromhex(message["traceId"])) + _bytes(2, bytes.fromhex(message["spanId"]))
    return ids + _text(3, message.get("traceState", "")) + _attributes(4, message["attributes"])


def _attributes(field: int, attributes: Sequence[Mapping[str, Any]]) -> bytes:
    return b"".join(_bytes(field, _text(1, each["key"]) + _bytes(2, _value(each["value"]))) for each in attributes)


def _value(message: Mapping[str, Any]) -> bytes:
    if not message:  # an empty AnyValue is null
        return b""
    ((kind, value),) = message.items()
    if kind == "stringValue":
        return _bytes(1, _utf8(value))
    if kind == "boolValue":
        return b"\x10" + bytes([value])
    if kind == "intValue":
        return b"\x18" + varint(int(value) & 2**64 - 1)
    if kind == "doubleValue":
        return b"\x21" + struct.pack("<d", value)
    if kind == "kvlistValue":
        return _bytes(6, _attributes(1, value["values"]))
    return _bytes(5, b"".join(_bytes(1, _value(each)) for each in value["values"]))


def _text(field: int, value: str) -> bytes:
    return _bytes(field, _utf8(value)) if value else b""


def _utf8(value: str) -> bytes:
    return value.encode("utf-8", "replace")  # protobuf cannot encode half of a surrogate pair


def _bytes(field: int, value: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(value)) + value


def _number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value) if value else b""


def _fixed(field: int, value: int) -> bytes:
    return varint(field << 3 | 1) + struct.pack("<Q", value)


def varint(value: int) -> bytes:
    """Return a number encoded as a varint of protobuf's wire format."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


_CODES = {400: 3, 401: 16, 403: 7, 408: 4, 413: 8, 415: 3, 429: 8, 500: 13, 503: 14}
"""The codes of google.rpc.Status by HTTP status."""
_REJECTED = {"traces": "rejectedSpans", "logs": "rejectedLogRecords"}


def content_type(header: str | None) -> str:
    """Return the content type of the answer: JSON if the request was JSON, else protobuf.

    Args:
        header: the Content-Type of the request.
    """
    return JSON if (header or "").partition(";")[0].strip().lower() == JSON else PROTOBUF


def done(signal: Signal, decoded: Decoded, form: str) -> bytes:
    """Return the answer to a stored request, with the number of rejected spans or log records and the reasons.

    Args:
        decoded: the content of the request.
        form: the content type of the answer.
    """
    rejected, why = decoded.rejected, decoded.why()
    if not rejected:
        return b"{}" if form == JSON else b""
    if form == JSON:
        return json.dumps({"partialSuccess": {_REJECTED[signal]: str(rejected), "errorMessage": why}}).encode()
    return _bytes(1, _number(1, rejected) + _text(2, why))


def refused(status: int, message: str, form: str) -> bytes:
    """Return the answer to a refused request, of which nothing is stored.

    Args:
        status: the HTTP status of the answer.
        message: the reason for the sender.
        form: the content type of the answer.
    """
    code = _CODES.get(status, 2)
    if form == JSON:
        return json.dumps({"code": code, "message": message}).encode()
    return _number(1, code) + _text(2, message)
