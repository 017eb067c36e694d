"""Adds up buckets of durations to the statistics of a label or a type, for storages with an index of them."""

from collections.abc import Callable, Sequence
from typing import Any

from agentspan.storage.answers import Stat

CANCELLED = -1
"""The bucket of spans that never ran."""


class SpanGroup:
    """The sums of a label's spans, or of a type's: the finished ones by bucket, and the open ones.

    Attributes:
        ids: the groups of the index that were added.
        ran: how many finished spans lie in each bucket, by its number; the higher, the longer they took.
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
        """Add the finished spans of a bucket of a group in the index."""
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
        """Add the finished spans of a group in the index; the longest one is found in its bucket."""
        self.ids.add(id)
        self.count += spans + cancelled
        self.cancelled += cancelled
        self.failed += failed
        self.total += ms
        for bucket, number in ran.items():
            if number:
                self.ran[bucket] = self.ran.get(bucket, 0) + number

    def add_open(self, spans: int) -> None:
        """Add open spans."""
        self.count += spans
        self.open += spans

    def add_used(self, used: Sequence[Any]) -> None:
        """Add tokens and cost."""
        self.used = [b if a is None else a if b is None else a + b for a, b in zip(self.used, used, strict=True)]

    def place(self, percent: int) -> tuple[int, int] | None:
        """Return the bucket in which a percentile lies, and its place within that, from zero (nearest rank)."""
        place = -(-sum(self.ran.values()) * percent // 100) - 1
        for bucket in sorted(self.ran):
            if place < self.ran[bucket]:
                return bucket, place
            place -= self.ran[bucket]
        return None

    def stat(
        self, schema_name: str, label: str | None, percentile: Callable[[int], float | None], histogram: tuple[int, ...]
    ) -> Stat:
        """Return the statistics.

        Args:
            percentile: returns the duration at a percentile, in ms; None if no span ran.
            histogram: how many spans ran for how long (see Stat).
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
"""Groups by the name of their type, and their label; None for the type as a whole."""


def groups_of(groups: Groups, schema_name: str, label: str) -> list[SpanGroup]:
    """Return the type's group, and the label's if there is a label. Missing ones are added."""
    keys = [(schema_name, None), (schema_name, label)] if label else [(schema_name, None)]
    return [groups.setdefault(key, SpanGroup()) for key in keys]
