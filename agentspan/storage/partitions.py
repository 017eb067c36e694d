"""The capability of a storage that keeps the spans of runs in partitions, by the time that the ids of runs carry."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, get_args

Width = Literal["day", "week", "month"]
WIDTHS: tuple[Width, ...] = get_args(Width)
AHEAD = 4
"""Partitions that are made for times to come."""


class Partition(NamedTuple):
    """A partition of the finished spans.

    Attributes:
        name: of its table.
        start, end: the times, as stored text, that the ids of its runs carry: from `start` on, before `end`. None where
            there is no bound; both are None for the default partition.
        is_default: whether it has the spans for which there is no other partition.
        rows: how many spans it has, as the storage estimates; of the default partition exactly.
        bytes: its size, with its indexes.
    """

    name: str
    start: str | None
    end: str | None
    is_default: bool
    rows: int
    bytes: int


class Made(NamedTuple):
    """The partitions that were made.

    Attributes:
        names: of their tables, by time.
        moved: spans that were moved out of the default partition.
    """

    names: Sequence[str] = ()
    moved: int = 0


class Partitions(Protocol):
    """Keeps finished spans in partitions, each for a range of times, and whole runs in one of them.

    A span for which no partition was made lies in the default one, and is read like any other. So partitions may be
    made late, and by few programs: by those that may change tables.
    """

    def partitions(self) -> list[Partition]:
        """Return all partitions by time, the default one last; an empty list where the tables were made without any."""
        ...

    def missing(self, *, ahead: int = AHEAD) -> int:
        """Return how many partitions `make` would make for now and the times to come."""
        ...

    def make(
        self, *, ahead: int = AHEAD, since: str | None = None, width: Width | None = None, wait_s: float = 5.0
    ) -> Made:
        """Make the partitions that are missing: for now, for times to come, and for many spans in the default one.

        Each is made in a transaction, with its spans moved out of the default partition. It may be called at any time,
        by several programs at once, and again after it was interrupted.

        Args:
            ahead: how many partitions there should be for times to come.
            since: make also those for all times since this one, as stored text.
            width: of new partitions; None for that of the latest one.
            wait_s: how long it may wait for others that use the default partition.

        Raises:
            DatabaseBusy: others used the default partition for `wait_s` seconds; what was made so far stays.
            DatabaseUnusable: the user may not change the tables.
            NotPermitted: the storage was opened to be read only.
        """
        ...
