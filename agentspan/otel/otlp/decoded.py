"""The content of a request: its spans and logs, its unusable parts, and the limits of both encodings."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentspan.errors import InvalidValue
from agentspan.otel.span import Log, OtelSpan

MAX_ATTRIBUTES = 10_000
"""Attributes of a span, an event or a link that are kept, and events and links of a span; the rest is counted."""
MAX_VALUES = 100_000
"""Values in one span, with those in lists and objects: one that has more is not used. 100,000 take about 10 MB."""
MAX_ITEMS = 50_000
"""Spans or log records of a request, with the resources and scopes that they are in. Exporters send 512 at once, and
collectors 8,192, unless they are told to. To store so many takes some seconds."""
MAX_OBJECTS = 1_000_000
"""Braces, and brackets, of a body: a parsed object takes 64 bytes at least, however short its text is. In protobuf,
they are in the JSON of attributes, such as messages."""
MAX_DEPTH = 64
"""Lists in lists, and objects in objects, of an attribute; deeper ones are replaced by a text that says so."""
MAX_REASONS = 20
TOO_DEEP = "[nested too deep]"


class BodyTooLarge(InvalidValue):
    """A body has more bytes than allowed, as it came or without its compression."""


class MissingExtra(InvalidValue):
    """A body needs a package that is not installed."""


@dataclass(slots=True)
class Decoded:
    """The content of a request.

    Attributes:
        spans, logs: what can be used. `logs` has only the records that were emitted inside a span.
        unusable: how many spans or log records cannot be used, by the reason.
    """

    spans: list[OtelSpan] = field(default_factory=list)
    logs: list[Log] = field(default_factory=list)
    unusable: dict[str, int] = field(default_factory=dict)

    def reject(self, reason: str, count: int = 1) -> None:
        """Count something that cannot be used. Only the first reasons are kept apart."""
        if reason not in self.unusable and len(self.unusable) >= MAX_REASONS:
            reason = "other reasons"
        self.unusable[reason] = self.unusable.get(reason, 0) + count

    @property
    def rejected(self) -> int:
        """Return the number of spans or log records that cannot be used."""
        return sum(self.unusable.values())

    def why(self) -> str:
        """Return the reasons as a text, for the sender; empty if all of it can be used."""
        return "; ".join(f"{count} × {reason}" if count > 1 else reason for reason, count in self.unusable.items())


def check_objects(body: bytes) -> None:
    """Check, before anything is parsed, that a body does not hold too many JSON objects or lists.

    Raises:
        InvalidValue: it does.
    """
    if len(body) <= MAX_OBJECTS:  # to count them takes 0.3 ms a megabyte
        return
    if body.count(b"{") > MAX_OBJECTS or body.count(b"[") > MAX_OBJECTS:
        raise InvalidValue("body", f"has more than {MAX_OBJECTS:,} JSON objects or lists; send fewer spans at once")


def too_many_items() -> InvalidValue:
    """Return the error of a request with more than MAX_ITEMS."""
    return InvalidValue(
        "body", f"has more than {MAX_ITEMS:,} spans or log records, or what they are in; send fewer at once"
    )


class Unusable(Exception):
    """One span or log record cannot be used. Its text is the reason, without any value."""


def kept(pairs: Iterator[tuple[str, Any]]) -> tuple[dict[str, Any], int]:
    """Return attributes as a dict, and how many are over the limit. The first of two with one name stays."""
    found: dict[str, Any] = {}
    over = 0
    for name, value in pairs:
        if len(found) < MAX_ATTRIBUTES:
            found.setdefault(name, value)
        elif name not in found:
            over += 1
    return found, over


def times(start_ns: int, end_ns: int) -> tuple[int, int | None]:
    """Return the start and the end of a span, where 0 is unknown.

    Raises:
        Unusable: neither is known.
    """
    if not start_ns and not end_ns:
        raise Unusable("a span has no time")
    return start_ns or end_ns, end_ns or None


def dropped(**counts: int) -> Mapping[str, int]:
    """Return the counts that are not zero."""
    return {name: count for name, count in counts.items() if count > 0}
