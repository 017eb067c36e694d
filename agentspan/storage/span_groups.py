"""Computes statistics of a span type or label from an index that has counts by bucket of duration."""

from collections.abc import Callable, Sequence
from typing import Any

from agentspan.storage.answers import Stat

CANCELLED = -1
"""The number of the bucket for cancelled spans, which have no duration."""


class SpanGroup:
    """The sums over the spans of one type, or of one label of a type: finished spans by bucket, and open spans.

    Attributes:
        ids: the ids of the groups of the index that were added.
        ran: bucket → number of complete and failed spans in it. A higher number means longer durations.
    """

    def __init__(self) -> None:
        self.ids: set[int] = set()
        self.ran: dict[int, int] = {}
        self.count = self.failed = self.cancelled = self.open = 0
        self.total = 0.0
        self.longest: float | None = None
        self.used: list[Any] = [None, None, None]
        self.is_aggregate = False

    def add_cell(self, id: int, bucket: int, spans: int, failed: int, ms: float, longest: float) -> None:
        """Add the finished spans of one bucket of a group of the index."""
        self.ids.add(id)
        self.count += spans
        if bucket == CANCELLED:
            self.cancelled += spans
            return
        self.ran[bucket] = self.ran.get(bucket, 0) + spans
        self.failed += failed
        self.total += ms
        self.longest = longest if self.longest is None else max(self.longest, longest)

    def add_sums(self, id: int, spans: int, cancelled: int, failed: int, ms: float, ran: dict[int, int]) -> None:
        """Add the finished spans of a group of the index. `longest` stays unknown: `percentile(100)` determines it."""
        self.ids.add(id)
        self.count += spans + cancelled
        self.cancelled += cancelled
        self.failed += failed
        self.total += ms
        for bucket, number in ran.items():
            if number:
                self.ran[bucket] = self.ran.get(bucket, 0) + number

    def add_open(self, spans: int) -> None:
        """Add a number of open spans."""
        self.count += spans
        self.open += spans

    def add_used(self, used: Sequence[Any]) -> None:
        """Add input tokens, output tokens and cost. None means that no span has a value."""
        self.used = [b if a is None else a if b is None else a + b for a, b in zip(self.used, used, strict=True)]

    def place(self, percent: int) -> tuple[int, int] | None:
        """Return the bucket that contains a percentile, and its place in the bucket from zero; None without spans.

        The percentile is of the kind "nearest rank".
        """
        place = -(-sum(self.ran.values()) * percent // 100) - 1
        for bucket in sorted(self.ran):
            if place < self.ran[bucket]:
                return bucket, place
            place -= self.ran[bucket]
        return None

    def stat(
        self, schema_name: str, label: str | None, percentile: Callable[[int], float | None], histogram: tuple[int, ...]
    ) -> Stat:
        """Return the statistics of the group.

        Args:
            percentile: returns the duration at a percentile, in ms; None if no span ran.
            histogram: the number of spans in each bucket of BOUNDS_MS.
        """
        input_tokens, output_tokens, cost_usd = self.used
        return Stat(
            schema_name,
            label,
            self.count,
            self.failed,
            self.cancelled,
            self.open,
            percentile(50),
            percentile(95),
            percentile(99),
            self.longest if self.longest is not None else percentile(100),
            self.total,
            histogram,
            input_tokens,
            output_tokens,
            cost_usd,
            self.is_aggregate,
        )


Groups = dict[tuple[str, str | None], SpanGroup]
"""Groups by (name of the type, label). The label None means the type as a whole."""


def groups_of(groups: Groups, schema_name: str, label: str) -> list[SpanGroup]:
    """Return the group of a type and, if the label is not empty, the group of the label. Missing groups are added."""
    keys = [(schema_name, None), (schema_name, label)] if label else [(schema_name, None)]
    return [groups.setdefault(key, SpanGroup()) for key in keys]
