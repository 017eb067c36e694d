"""Converts spans of OpenTelemetry's SDK to plain data, and to texts in the journal that the drain thread maps.

The caller writes the text (5 µs without content), each attribute once; `raw_spans` reads it. This module only reads
attributes of span objects, so the SDK need not be installed.
"""

import base64
import math
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any

from agentspan.otel.identity import write_state
from agentspan.otel.span import Event, Link, OtelSpan, Scope, StatusCode, scope_attributes
from agentspan.recording.capture.capture import Capture


def span_of(span: Any) -> OtelSpan:
    """Return the current state of an SDK span (a `ReadableSpan`) as plain data; an open span has no end."""
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
    """Return the `tracestate` header of a span's context, which is mostly empty."""
    state = getattr(context, "trace_state", None)
    return write_state(state.items()) if state else ""


def about_scope(scope: Any) -> tuple[str, str, str, dict[str, Any]]:
    """Return the arguments of `Scope` from an SDK scope: name, version, schema URL and attributes."""
    attributes = scope_attributes(_attributes(getattr(scope, "attributes", None)))
    return scope.name or "", scope.version or "", scope.schema_url or "", attributes


AtStart = tuple[Any, Any, str, Any, Any, int]
"""The facts of an SDK span that starts: its context, its parent's context, name, kind, scope, start in ns.

A context is a tuple that begins with the trace id and the span id.
"""
AtEnd = tuple[Any, Any, str, Any, int, Any, Any, Any]
"""The facts of an SDK span that has ended: context, parent's context, name, scope, end in ns, status, events, links."""


_behind_start = attrgetter("_context", "_parent", "_name", "_kind", "_instrumentation_scope", "_start_time")
_behind_end = attrgetter(
    "_context", "_parent", "_name", "_instrumentation_scope", "_end_time", "_status", "_events._dq", "_links._dq"
)
kept_attributes = attrgetter("_attributes._dict")
"""Returns the SDK's internal dict of a span's attributes. Raises AttributeError if another SDK has no such dict."""


def at_start(span: Any) -> AtStart:
    """Return the facts of a span that starts.

    The private attributes of the SDK are read first, and its properties only if they are missing. A property is a
    Python function of 640 instructions. To record a span took 20 properties, a tenth of the whole cost.
    """
    try:
        return _behind_start(span)
    except AttributeError:
        return span.context, span.parent, span.name, span.kind, span.instrumentation_scope, span.start_time


def at_end(span: Any) -> AtEnd:
    """Return the facts of a span that has ended, read as in `at_start`. Events and links may be a deque."""
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
    """Return the value of an attribute as plain JSON. The SDK stores sequences as tuples, which become lists."""
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


READER = "otel"


def attributes_of(span: Any) -> dict[str, Any]:
    """Return a copy of the attributes of an SDK span. Sequences stay tuples, as the SDK stores them."""
    try:
        found: dict[str, Any] = kept_attributes(span).copy()
    except AttributeError:
        found = {} if span.attributes is None else span.attributes.copy()
    return found


Begun = tuple[str, str, dict[str, Any], str]
"""The parts of a span's written begin, from which its end is written: name, head text, attributes, attributes' text.

The name is compared at the end, because the program may change it.
"""


class Writer:
    """Writes the begins and ends of spans as journal texts, for one recorder.

    Args:
        capture: checks whether a text exceeds a limit or may need redaction.
    """

    def __init__(self, capture: Capture) -> None:
        self._unchanged = capture.unchanged
        self._unset: Any = None
        self._heads: dict[tuple[str, int, int], tuple[str | None, Any]] = {}

    def begin(self, start: AtStart, attributes: dict[str, Any]) -> tuple[str, Begun] | None:
        """Return the begin of a span as text; None if a value must be truncated or may need redaction.

        Args:
            start: the facts from `at_start`.
            attributes: the attributes from `attributes_of`.
        """
        _, _, name, kind, scope, start_ns = start
        found = self._heads.get((name, id(kind), id(scope)))
        head = self._head(name, kind, scope) if found is None else found[0]
        written = self._text(attributes) if attributes else "{}"
        if head is None or written is None:
            return None
        return f'{head},"start":{start_ns or 0},"attributes":{written}}}', (name, head, attributes, written)

    def end(
        self, span: Any, end: AtEnd, attributes: dict[str, Any], begun: Begun | None, start_ns: int
    ) -> tuple[str, bool] | None:
        """Return the end of a span as text, and whether the text has more than attributes, such as events or a status.

        Returns None if a value must be truncated or may need redaction.

        Args:
            begun: the second value that `begin` returned for the span; None if its begin was not written as text.
            start_ns: the start of the span, in nanoseconds since the epoch.
        """
        context, _, name, scope, end_ns, status, events, links = end
        head = begun[1] if begun is not None and begun[0] is name else self._head(name, span.kind, scope)
        if head is None:
            return None
        written = self._written(attributes, begun) if attributes else "{}"
        if written is None:
            return None
        text = f'{head},"start":{start_ns},"end":{end_ns},"attributes":{written}'
        if status is not self._unset and status is not None and status.is_unset:
            self._unset = status  # the SDK shares one unset status between spans; `is_unset` takes 1,500 instructions
        is_bare = (status is None or status is self._unset) and not events and not links and not context.trace_state
        if is_bare and (len(attributes) < LEAST_DROPPED or not span.dropped_attributes):  # true for most spans
            return f"{text}}}", False
        rest = _rest(span, attributes)
        if not rest:
            return f"{text}}}", False
        more = self._unchanged(rest)
        return None if more is None else (f"{text},{more[1:]}", True)

    def _written(self, attributes: dict[str, Any], begun: Begun | None) -> str | None:
        """Return the attributes as text. Attributes that the begin has are copied from its text, not encoded again."""
        if begun is None or not begun[2]:
            return self._text(attributes)
        _, _, before, written = begun
        new = attributes.copy()
        for name, value in before.items():
            if new.pop(name, _MISSING) is not value:  # set again since the begin
                return self._text(attributes)
        if not new:
            return written
        more = self._text(new, written, len(before))
        return None if more is None else f"{written[:-1]},{more[1:]}"

    def _text(self, attributes: dict[str, Any], before: str = "", members: int = 0) -> str | None:
        """Return attributes as text; None if they must be truncated or may need redaction."""
        text = self._unchanged(attributes, before, members)
        if text is None and tuple in map(type, attributes.values()):
            return self._unchanged(_listed(attributes), before, members)
        return text

    def _head(self, name: str, kind: Any, scope: Any) -> str | None:
        """Return the start of the text for spans of one name, kind and instrumentor; it is written and checked once.

        Returns None if the text must be truncated or may need redaction.
        """
        key = (name, id(kind), id(scope))  # ids, because an Enum is hashed by slow Python code
        found = self._heads.get(key)
        if found is None:
            head = {"name": name, "kind": kind.name}
            if scope is not None:
                head["scope"] = [scope.name, scope.version, scope.schema_url]
                if scope.attributes:
                    head["scope"].append(about_scope(scope)[3])
            text = self._unchanged(head)
            if len(self._heads) >= HEADS:
                self._heads.clear()
            found = self._heads[key] = None if text is None else text[:-1], scope  # keeps `id(scope)` unique
        return found[0]


_MISSING = object()
HEADS = 1000
LEAST_DROPPED = 8
"""The fewest attributes with which a span is checked for dropped attributes: nobody sets a lower limit."""


def _rest(span: Any, attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the facts at the end of a span that most spans lack: status, events, links, tracestate, dropped counts."""
    rest: dict[str, Any] = {}
    status, events, links = span.status, span.events, span.links
    if status is not None and not status.is_unset:
        rest["status"] = [status.status_code.name, status.description]
    if events:
        rest["events"] = [[each.name, each.timestamp, _listed(each.attributes)] for each in events]
    if links:
        rest["links"] = [
            [
                f"{each.context.trace_id:032x}",
                f"{each.context.span_id:016x}",
                _listed(each.attributes),
                state_of(each.context),
            ]
            for each in links
        ]
    if state := state_of(span.context):
        rest["state"] = state
    if events or links or (len(attributes) >= LEAST_DROPPED and span.dropped_attributes):
        names = ("attributes", "events", "links")
        dropped = {name: count for name in names if (count := getattr(span, f"dropped_{name}", 0))}
        if dropped:
            rest["dropped"] = dropped
    return rest


def _listed(attributes: Any) -> dict[str, Any]:
    found = {} if attributes is None else dict(attributes)
    return {name: [*value] if type(value) is tuple else value for name, value in found.items()}
