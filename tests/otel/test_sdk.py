"""Spans of OpenTelemetry's SDK become the same plain data as those of its exporters."""

from contextlib import suppress
from types import SimpleNamespace as Object
from typing import Any

import pytest

from agentspan.otel.mapping.mapped import map_span
from agentspan.otel.sdk import at_end, at_start, attributes_of, span_of


def _span(**changed: Any) -> Any:
    context = Object(trace_id=0xAB, span_id=0xCD)
    fields: dict[str, Any] = {"context": context, "parent": None, "name": "step", "kind": Object(name="CLIENT")}
    fields |= {"start_time": 5, "end_time": None, "status": Object(status_code=Object(name="UNSET"), description=None)}
    fields |= {"attributes": {}, "events": (), "links": (), "resource": None, "instrumentation_scope": None}
    return Object(**{**fields, **changed})


def test_an_active_span() -> None:
    span = span_of(_span())
    assert (span.trace_id, span.span_id, span.parent_span_id) == (f"{0xAB:032x}", f"{0xCD:016x}", None)
    assert (span.start_ns, span.end_ns, span.kind, span.status) == (5, None, "CLIENT", "UNSET")


def test_values_are_plain_json() -> None:
    said = {"list": ("a", "b"), "bytes": b"hi", "nan": float("nan"), "map": {"x": (1,)}, "bool": True, "none": None}
    span = span_of(_span(attributes=said))
    plain = {"list": ["a", "b"], "bytes": "aGk=", "nan": "nan", "map": {"x": [1]}, "bool": True, "none": None}
    assert span.attributes == plain


def test_the_sdk_itself() -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="needs opentelemetry-sdk")
    export = pytest.importorskip(
        "opentelemetry.sdk.trace.export.in_memory_span_exporter", reason="needs opentelemetry-sdk"
    )
    exporter = export.InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(sdk.export.SimpleSpanProcessor(exporter))
    with suppress(ValueError), provider.get_tracer("scope", "1").start_as_current_span("step") as span:
        span.set_attribute("gen_ai.operation.name", "execute_tool")
        span.set_attribute("gen_ai.tool.name", "f")
        raise ValueError("no")
    (ended,) = exporter.get_finished_spans()
    told = map_span(span_of(ended))
    assert (told.type, told.status, told.payload["name"]) == ("tool", "failed", "f")
    assert (told.result_payload or {})["error"]["type"] == "ValueError"


def test_a_span_that_keeps_its_members_otherwise_is_read_by_its_properties() -> None:
    kind, scope, status = Object(name="CLIENT"), Object(name="s"), Object(description=None)
    span = _span(kind=kind, instrumentation_scope=scope, status=status, end_time=9, attributes={"a": ("b",)})
    assert at_start(span) == (span.context, None, "step", kind, scope, 5)
    assert at_end(span) == (span.context, None, "step", scope, 9, status, (), ())
    assert attributes_of(span) == {"a": ("b",)}
