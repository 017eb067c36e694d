"""A finished OpenTelemetry span, and a log record, as plain data: each source of them is turned into these.

Sources are the SDK of a program and the requests of exporters (`otlp/`). Nothing here depends on OpenTelemetry's own
packages. Ids are lower-case hex, as everywhere in its ecosystem; times are nanoseconds since the Unix epoch. Nothing
changes these objects; they are not frozen, because making a frozen one takes three times as long.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

StatusCode = Literal["UNSET", "OK", "ERROR"]
KINDS = ("INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
"""The kinds of spans, in the order of their numbers in OTLP, which begin with 1."""


@dataclass(slots=True)
class Event:
    """An event of a span, or a log record that belongs to one.

    Attributes:
        name: its name; of a log record, `event_name`.
        time_ns: when it happened; 0 if nobody said so.
        attributes: plain JSON by name.
        body: what a log record holds; None of an event.
    """

    name: str
    time_ns: int = 0
    attributes: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None


@dataclass(slots=True)
class Link:
    """A link from a span to one of any trace."""

    trace_id: str
    span_id: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    trace_state: str = ""


@dataclass(slots=True)
class Scope:
    """The instrumentor that made a span: its name, its version, and the version of the conventions that it follows.

    Attributes:
        attributes: what else it says of itself, from `scope_attributes`.
    """

    name: str = ""
    version: str = ""
    schema_url: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)


MAX_SCOPE = 1000
"""Characters of the attributes of a scope. Each of its spans repeats them: a request could hold 50,000."""


def scope_attributes(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of a scope; none where they are longer than MAX_SCOPE."""
    return attributes if attributes and len(str(attributes)) <= MAX_SCOPE else {}


@dataclass(slots=True)
class Log:
    """A log record that was emitted inside a span."""

    trace_id: str
    span_id: str
    event: Event


@dataclass(slots=True)
class OtelSpan:
    """One OpenTelemetry span.

    Attributes:
        trace_id, span_id: 32 and 16 hexadecimal digits.
        parent_span_id: of the span around it, which may be of another process; None of a root.
        kind: one of KINDS.
        start_ns, end_ns: `end_ns` is None of a span that has not ended.
        attributes: plain JSON by name, in the order in which they were set.
        resource: the attributes of the process.
        schema_url: the version of the conventions of the resource; that of the span is its scope's.
        dropped: how many attributes, events and links the limits of the SDK cut off, by these names; only where any.
        trace_state: the `tracestate` header of its trace.
    """

    trace_id: str
    span_id: str
    parent_span_id: str | None
    name: str
    start_ns: int
    end_ns: int | None
    kind: str = "INTERNAL"
    status: StatusCode = "UNSET"
    status_message: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    links: tuple[Link, ...] = ()
    scope: Scope = field(default_factory=Scope)
    resource: Mapping[str, Any] = field(default_factory=dict)
    schema_url: str = ""
    dropped: Mapping[str, int] = field(default_factory=dict)
    trace_state: str = ""
