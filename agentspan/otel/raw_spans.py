"""Reads the texts of spans in the journal, which `sdk.Writer` wrote; the thread that drains it maps them (100 µs)."""

from agentspan import jsontext
from agentspan.model.changes import FinishStatus
from agentspan.otel.mapping.mapped import Mapped, map_span
from agentspan.otel.span import Event, Link, OtelSpan, Scope, StatusCode


def begin(text: str) -> tuple[str, str]:
    """Map the text of a span's begin: its type, which is guessed if no attribute names it yet, and its payload."""
    mapped = _mapped(text)
    return mapped.schema_name, jsontext.encode(mapped.payload)[0]


def end(text: str) -> tuple[str, FinishStatus, str, str | None]:
    """Map the text of a span's end: its type, status, payload and result."""
    mapped = _mapped(text)
    result = None if mapped.result_payload is None else jsontext.encode(mapped.result_payload)[0]
    return mapped.schema_name, mapped.status, jsontext.encode(mapped.payload)[0], result


def _mapped(text: str) -> Mapped:
    """Map a text. The ids stay empty: the journal's record has them."""
    decoded = jsontext.decode(text)
    name, version, url, *more = decoded.get("scope") or ("", "", "")
    status: StatusCode
    status, message = decoded.get("status") or ("UNSET", None)
    span = OtelSpan(
        "",
        "",
        None,
        decoded["name"],
        decoded["start"] or 0,
        decoded.get("end"),
        decoded["kind"],
        status,
        message,
        decoded["attributes"],
        tuple(Event(each, at or 0, attributes) for each, at, attributes in decoded.get("events", ())),
        tuple(Link(*each) for each in decoded.get("links", ())),
        Scope(name or "", version or "", url or "", *more),
        dropped=decoded.get("dropped", {}),
        trace_state=decoded.get("state", ""),
    )
    return map_span(span)
