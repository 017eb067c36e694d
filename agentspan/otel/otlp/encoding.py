"""Encodes OTLP requests and answers to exporters in protobuf, without a protobuf package."""

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agentspan.otel.otlp.decoded import Decoded
from agentspan.otel.otlp.requests import JSON, PROTOBUF, Signal

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
    return _bytes(1, _scope(message["scope"])) + encoded + _text(3, message["schemaUrl"])


def _log(message: Mapping[str, Any]) -> bytes:
    at = int(message["timeUnixNano"])
    ids = _bytes(9, bytes.fromhex(message["traceId"])) + _bytes(10, bytes.fromhex(message["spanId"]))
    return (
        _fixed(1, at) + _attributes(6, message["attributes"]) + ids + _fixed(11, at) + _text(12, message["eventName"])
    )


def _scope(message: Mapping[str, Any]) -> bytes:
    return _text(1, message["name"]) + _text(2, message["version"])


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
    return _answer_bytes(1, _answer_number(1, rejected) + _answer_bytes(2, why.encode("utf-8", "replace")))


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
    return _answer_number(1, code) + _answer_bytes(2, message.encode("utf-8", "replace"))


def _answer_number(field: int, value: int) -> bytes:
    return bytes([field << 3]) + varint(value)


def _answer_bytes(field: int, value: bytes) -> bytes:
    return bytes([field << 3 | 2]) + varint(len(value)) + value
