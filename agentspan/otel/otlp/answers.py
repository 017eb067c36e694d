"""The answers to exporters: an empty one, one that counts the unusable spans, and an error's `Status`.

In the content type of the request. The messages are small, so they are written without the package for protobuf.
"""

import json

from agentspan.otel.otlp.decoded import Decoded
from agentspan.otel.otlp.encoding import varint
from agentspan.otel.otlp.requests import JSON, PROTOBUF, Signal

_CODES = {400: 3, 401: 16, 403: 7, 408: 4, 413: 8, 415: 3, 429: 8, 500: 13, 503: 14}
"""The codes of google.rpc.Status by the status of HTTP."""
_REJECTED = {"traces": "rejectedSpans", "logs": "rejectedLogRecords"}


def content_type(said: str | None) -> str:
    """Return the content type of an answer to a request of this one."""
    return JSON if (said or "").partition(";")[0].strip().lower() == JSON else PROTOBUF


def done(signal: Signal, decoded: Decoded, form: str) -> bytes:
    """Return the answer to a request whose spans or log records are stored, but for those that cannot be used.

    Args:
        form: the content type of the answer.
    """
    rejected, why = decoded.rejected, decoded.why()
    if not rejected:
        return b"{}" if form == JSON else b""
    if form == JSON:
        return json.dumps({"partialSuccess": {_REJECTED[signal]: str(rejected), "errorMessage": why}}).encode()
    return _bytes(1, _number(1, rejected) + _bytes(2, why.encode("utf-8", "replace")))


def refused(status: int, message: str, form: str) -> bytes:
    """Return the answer to a request of which nothing is stored.

    Args:
        status: of HTTP.
        form: the content type of the answer.
    """
    code = _CODES.get(status, 2)
    if form == JSON:
        return json.dumps({"code": code, "message": message}).encode()
    return _number(1, code) + _bytes(2, message.encode("utf-8", "replace"))


def _number(field: int, value: int) -> bytes:
    return bytes([field << 3]) + varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return bytes([field << 3 | 2]) + varint(len(value)) + value
