"""The decoded content of an OTLP request, and the limits that protobuf and JSON share."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentspan.errors import InvalidValue
from agentspan.otel.span import Log, OtelSpan

MAX_ATTRIBUTES = 10_000
"""The most attributes of a span, event or link, and the most events or links of a span. The rest is only counted."""
MAX_VALUES = 100_000
"""The most values in a span, with the values in lists and objects. A span with more is rejected. They take 10 MB."""
MAX_ITEMS = 50_000
"""The most spans or log records of a request, counted with their resources and scopes. To store them takes seconds.

By default, exporters send 512 spans at once and collectors 8,192.
"""
MAX_OBJECTS = 1_000_000
"""The most opening braces, and the most opening brackets, in a body. A parsed object takes 64 bytes at least.

A protobuf body has them in the JSON of attributes, such as messages.
"""
MAX_DEPTH = 64
"""The most levels of lists and objects in an attribute. A deeper one is replaced by the text TOO_DEEP."""
MAX_REASONS = 20
TOO_DEEP = "[nested too deep]"


class BodyTooLarge(InvalidValue):
    """A body has more bytes than allowed, before or after decompression."""


class MissingExtra(InvalidValue):
    """A body needs a package that is not installed."""


@dataclass(slots=True)
class Decoded:
    """The decoded content of a request.

    Attributes:
        spans, logs: the usable spans and log records. `logs` has only records that were emitted inside a span.
        unusable: the number of rejected spans or log records, by the reason.
    """

    spans: list[OtelSpan] = field(default_factory=list)
    logs: list[Log] = field(default_factory=list)
    unusable: dict[str, int] = field(default_factory=dict)

    def reject(self, reason: str, count: int = 1) -> None:
        """Count rejected spans or log records. The first MAX_REASONS reasons are counted separately."""
        if reason not in self.unusable and len(self.unusable) >= MAX_REASONS:
            reason = "other reasons"
        self.unusable[reason] = self.unusable.get(reason, 0) + count

    @property
    def rejected(self) -> int:
        """The number of rejected spans or log records."""
        return sum(self.unusable.values())

    def why(self) -> str:
        """Return the reasons of rejections as a text for the sender; empty if nothing was rejected."""
        return "; ".join(f"{count} × {reason}" if count > 1 else reason for reason, count in self.unusable.items())


def check_objects(body: bytes) -> None:
    """Check, before a body is parsed, that it does not have too many JSON objects or lists.

    Raises:
        InvalidValue: the body has more than MAX_OBJECTS braces or brackets.
    """
    if len(body) <= MAX_OBJECTS:  # to count them takes 0.3 ms a megabyte
        return
    if body.count(b"{") > MAX_OBJECTS or body.count(b"[") > MAX_OBJECTS:
        raise InvalidValue("body", f"has more than {MAX_OBJECTS:,} JSON objects or lists; send fewer spans at once")


def too_many_items() -> InvalidValue:
    """Return the error for a request with more than MAX_ITEMS spans or log records."""
    return InvalidValue(
        "body", f"has more than {MAX_ITEMS:,} spans or log records, or what they are in; send fewer at once"
    )


class Unusable(Exception):
    """A span or log record must be rejected. The text is the reason, without any value of the record."""


def kept(pairs: Iterator[tuple[str, Any]]) -> tuple[dict[str, Any], int]:
    """Return attributes as a dict, and the number of attributes over MAX_ATTRIBUTES. The first of equal names wins."""
    found: dict[str, Any] = {}
    over = 0
    for name, value in pairs:
        if len(found) < MAX_ATTRIBUTES:
            found.setdefault(name, value)
        elif name not in found:
            over += 1
    return found, over


def times(start_ns: int, end_ns: int) -> tuple[int, int | None]:
    """Return the start and the end of a span. An unknown start becomes the end; an unknown end becomes None.

    Args:
        start_ns, end_ns: 0 if unknown.

    Raises:
        Unusable: both are unknown.
    """
    if not start_ns and not end_ns:
        raise Unusable("a span has no time")
    return start_ns or end_ns, end_ns or None


def dropped(**counts: int) -> Mapping[str, int]:
    """Return the counts of dropped attributes, events and links that are greater than 0."""
    return {name: count for name, count in counts.items() if count > 0}
