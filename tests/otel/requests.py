"""Requests of exporters for tests: the JSON of a recording, also as protobuf."""

import json
from typing import Any

from tests.otel.recorded import lines_of


def export_request(*spans: dict[str, Any], **scope: Any) -> dict[str, Any]:
    """A request with these spans, each of which gets what it lacks."""
    ids = {"traceId": "ab" * 16, "startTimeUnixNano": "1000000000", "endTimeUnixNano": "2000000000"}
    whole = [{**ids, "spanId": f"{number + 1:016x}", "name": "step", **span} for number, span in enumerate(spans)]
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "agent"}}]}
    return {
        "resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope or {"name": "s"}, "spans": whole}]}]
    }


def body_of(request: dict[str, Any]) -> bytes:
    """A request as JSON."""
    return json.dumps(request).encode()


def protobuf_of(request: dict[str, Any], signal: str = "traces") -> bytes:
    """The same request in protobuf, by the reference implementation of its messages."""
    from google.protobuf.json_format import ParseDict
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    message = ExportTraceServiceRequest() if signal == "traces" else ExportLogsServiceRequest()
    encoded: bytes = ParseDict(_with_base64(request), message).SerializeToString()
    return encoded


def _with_base64(value: Any) -> Any:
    """Ids in base64, as protobuf's own JSON has them; OTLP's JSON has them in hex."""
    import base64

    if isinstance(value, list):
        return [_with_base64(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {}
    for name, item in value.items():
        is_id = name in ("traceId", "spanId", "parentSpanId")
        found[name] = base64.b64encode(bytes.fromhex(item)).decode() if is_id else _with_base64(item)
    return found


def requests_of(name: str) -> list[tuple[str, dict[str, Any]]]:
    """The requests of a recording, each with `traces` or `logs`."""
    parsed = [json.loads(line) for line in lines_of(name)]
    return [("traces" if "resourceSpans" in request else "logs", request) for request in parsed]
