"""What tests of OTLP over HTTP share: requests and their parts, answers, and what a storage has."""

from typing import Any

from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Query, SpansOf
from tests.otel.requests import body_of, protobuf_of
from tests.serve.asgi import Client

PROTOBUF = {"Content-Type": "application/x-protobuf"}
JSON = {"Content-Type": "application/json"}


def runs(storage: Storage) -> list[AgentInstanceRow]:
    return [row for row in storage.ask(Query("agent_instance")).rows if isinstance(row, AgentInstanceRow)]


def spans(storage: Storage) -> list[AgentSpanRow]:
    return [row for run in runs(storage) for row in storage.ask(SpansOf(run.id))]


def post(client: Client, request: Any, signal: str = "traces", **headers: str) -> Any:
    """Send a request in JSON, or a body as it is."""
    body = request if isinstance(request, bytes) else body_of(request)
    return client.post(f"/v1/{signal}", content=body, headers={**JSON, **headers})


def status_of(content: bytes) -> tuple[int, str]:
    """The code and the message of a `google.rpc.Status`."""
    assert (content[0], content[2]) == (8, 18)
    size = content[3] if content[3] < 128 else content[3] - 128 + (content[4] << 7)
    text = content[4 if content[3] < 128 else 5 :]
    assert len(text) == size
    return content[1], text.decode()


def string(key: str, value: str) -> dict[str, Any]:
    """An attribute with a text."""
    return {"key": key, "value": {"stringValue": value}}


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, data: bytes) -> bytes:
    """A field of a message, of the wire type for bytes."""
    return bytes([number << 3 | 2]) + varint(len(data)) + data


def wrapped(*encoded: bytes) -> bytes:
    """A request with these encoded spans."""
    return field(1, field(2, b"".join(field(2, each) for each in encoded)))


def protobuf_spans(request: dict[str, Any]) -> list[bytes]:
    """The spans of a request, each in protobuf."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    message = ExportTraceServiceRequest.FromString(protobuf_of(request))
    return [span.SerializeToString() for span in message.resource_spans[0].scope_spans[0].spans]
