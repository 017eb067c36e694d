"""OpenTelemetry spans and log records as plain data: the common form of the SDK's spans and of exporters' requests.

This module does not depend on OpenTelemetry's own packages. Ids are lower-case hex, as everywhere in OpenTelemetry;
times are nanoseconds since the Unix epoch. No code changes these objects after they are made. They are not frozen,
because to make a frozen object takes three times as long.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

StatusCode = Literal["UNSET", "OK", "ERROR"]
KINDS = ("INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
"""The kinds of spans, in the order of their numbers in OTLP, which begin with 1."""


@dataclass(slots=True)
class Event:
    """An event of a span, or a log record that was emitted inside a span.

    Attributes:
        name: the name of the event; of a log record, its `event_name`.
        time_ns: the time of the event; 0 if it is unknown.
        attributes: plain JSON values by attribute name.
        body: the body of a log record; always None for an event.
    """

    name: str
    time_ns: int = 0
    attributes: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None


@dataclass(slots=True)
class Link:
    """A link from a span to another span, of the same or another trace."""

    trace_id: str
    span_id: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    trace_state: str = ""


@dataclass(slots=True)
class Scope:
    """The instrumentor that made a span.

    Attributes:
        schema_url: names the version of the semantic conventions that the instrumentor follows.
        attributes: other facts about the instrumentor, limited by `scope_attributes`.
    """

    name: str = ""
    version: str = ""
    schema_url: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)


MAX_SCOPE = 1000
"""The most characters that the attributes of a scope may have in all.

Each span of the scope repeats the attributes, and a request can hold 20,000 spans.
"""


def scope_attributes(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of a scope, or an empty dict if they have more than MAX_SCOPE characters."""
    return attributes if attributes and len(str(attributes)) <= MAX_SCOPE else {}


@dataclass(slots=True)
class Log:
    """A log record that was emitted inside a span."""

    trace_id: str
    span_id: str
    event: Event


@dataclass(slots=True)
class OtelSpan:
    """One OpenTelemetry span, finished or still open.

    Attributes:
        trace_id, span_id: 32 and 16 hexadecimal digits.
        parent_span_id: the id of the parent span, which may be in another process; None for a root span.
        kind: one of KINDS.
        start_ns, end_ns: `end_ns` is None while the span is open.
        attributes: plain JSON values by name, in the order in which the program set them.
        resource: the attributes of the process that made the span.
        schema_url: the version of the conventions of `resource`. The version for the span is in `scope.schema_url`.
        dropped: the numbers of `attributes`, `events` and `links` that a limit cut off; has only the numbers above 0.
        trace_state: the `tracestate` header of the trace.
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

    @property
    def exceptions(self) -> list[Event]:
        """The exception events of the span, in the order in which they were recorded."""
        return [event for event in self.events if event.name == "exception"]
