"""Spans of OpenTelemetry's SDK as plain data. Reads their attributes only, so that the SDK need not be installed."""

import base64
import math
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any

from agentspan.otel.span import Event, Link, OtelSpan, Scope, StatusCode, scope_attributes
from agentspan.otel.w3c import write_state


def span_of(span: Any) -> OtelSpan:
    """Return a span of the SDK (a `ReadableSpan`) as it is now; one that is active has no end yet."""
    context, parent, scope, status = span.context, span.parent, span.instrumentation_scope, span.status
    resource = span.resource
    dropped = {name: getattr(span, f"dropped_{name}", 0) for name in ("attributes", "events", "links")}
    code: StatusCode = getattr(status.status_code, "name", "UNSET") if status is not None else "UNSET"
    return OtelSpan(
        f"{context.trace_id:032x}",
        f"{context.span_id:016x}",
        None if parent is None else f"{parent.span_id:016x}",
        span.name,
        span.start_time or 0,
        span.end_time,
        getattr(span.kind, "name", "INTERNAL"),
        code,
        None if status is None else status.description,
        _attributes(span.attributes),
        tuple(Event(each.name, each.timestamp or 0, _attributes(each.attributes)) for each in span.events),
        tuple(_link(each) for each in span.links),
        Scope() if scope is None else Scope(*about_scope(scope)),
        {} if resource is None else _attributes(resource.attributes),
        "" if resource is None else resource.schema_url or "",
        {name: count for name, count in dropped.items() if count},
        state_of(context),
    )


def state_of(context: Any) -> str:
    """Return the `tracestate` of a span's context, mostly an empty one."""
    state = getattr(context, "trace_state", None)
    return write_state(state.items()) if state else ""


def about_scope(scope: Any) -> tuple[str, str, str, dict[str, Any]]:
    """Return the fields of a Scope."""
    attributes = scope_attributes(_attributes(getattr(scope, "attributes", None)))
    return scope.name or "", scope.version or "", scope.schema_url or "", attributes


AtStart = tuple[Any, Any, str, Any, Any, int]
"""A span of the SDK when it starts: its context and its parent's, name, kind, scope, start in ns. Contexts are tuples
that begin with the ids of a trace and a span."""
AtEnd = tuple[Any, Any, str, Any, int, Any, Any, Any]
"""A span of the SDK when it has ended: its context and its parent's, name, scope, end in ns, status, events, links."""


_behind_start = attrgetter("_context", "_parent", "_name", "_kind", "_instrumentation_scope", "_start_time")
_behind_end = attrgetter(
    "_context", "_parent", "_name", "_instrumentation_scope", "_end_time", "_status", "_events._dq", "_links._dq"
)
kept_attributes = attrgetter("_attributes._dict")
"""Returns the attributes of a span as the SDK keeps them. Raises AttributeError where they are kept otherwise."""


def at_start(span: Any) -> AtStart:
    """Return what a span is when it starts.

    The SDK's properties are functions in Python, of 640 instructions each: a recorded span asked for 20 of them, a
    tenth of all that it cost. So the attributes behind them are read, and the properties only where those are missing.
    """
    try:
        return _behind_start(span)
    except AttributeError:
        return span.context, span.parent, span.name, span.kind, span.instrumentation_scope, span.start_time


def at_end(span: Any) -> AtEnd:
    """Return what a span is when it has ended; see `at_start`. Its events and links may be given as a deque."""
    try:
        return _behind_end(span)
    except AttributeError:
        about = span.context, span.parent, span.name, span.instrumentation_scope, span.end_time
        return *about, span.status, span.events, span.links


def _link(link: Any) -> Link:
    context = link.context
    return Link(f"{context.trace_id:032x}", f"{context.span_id:016x}", _attributes(link.attributes), state_of(context))


def _attributes(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    return {} if attributes is None else {name: _plain(value) for name, value in attributes.items()}


def _plain(value: Any) -> Any:
    """Return the value of an attribute as plain JSON: the SDK keeps sequences as tuples."""
    if type(value) is str or type(value) is int or type(value) is bool or value is None:
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Iterable):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, int) else str(value)
