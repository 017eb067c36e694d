"""Decodes the requests of exporters: `POST /v1/traces` and `/v1/logs`, in protobuf or JSON, compressed or not."""

from typing import Literal

from agentspan.errors import InvalidValue
from agentspan.otel.otlp import json_bodies, protobuf_bodies
from agentspan.otel.otlp.compression import MAX_BODY, plain
from agentspan.otel.otlp.decoded import Decoded

PROTOBUF, JSON = "application/x-protobuf", "application/json"
Signal = Literal["traces", "logs"]


def decode(
    signal: Signal, body: bytes, content_type: str | None, encoding: str | None = None, limit: int = MAX_BODY
) -> Decoded:
    """Return the spans or log records of a request, and what of it cannot be used.

    Args:
        signal: what the request is about, which its address says.
        body: as it was sent; an empty one has no spans.
        content_type: `application/x-protobuf` or `application/json`, with or without parameters.
        encoding: its Content-Encoding (see compression.plain).
        limit: bytes of the body without its compression.

    Raises:
        BodyTooLarge: it has more bytes.
        MissingExtra: it is protobuf, and the extra `otlp` is not installed.
        InvalidValue: it is neither, or broken as a whole. What is broken in a single span is in `unusable`.
    """
    form = (content_type or "").partition(";")[0].strip().lower()
    if form not in (PROTOBUF, JSON, "application/protobuf"):
        raise InvalidValue("Content-Type", f"must be {PROTOBUF} or {JSON}")
    data = plain(body, encoding, limit)
    if not data:
        return Decoded()
    if form == JSON:
        return json_bodies.spans(data) if signal == "traces" else json_bodies.logs(data)
    return protobuf_bodies.spans(data) if signal == "traces" else protobuf_bodies.logs(data)
