"""The capability of a storage that keeps the spans of runs in partitions, by the time that the ids of runs carry."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol, get_args

Width = Literal["day", "week", "month"]
WIDTHS: tuple[Width, ...] = get_args(Width)
AHEAD = 4
"""Partitions that are made for times to come."""
MOST_LATE = 100_000
"""Spans up to which those that the index lacks are counted."""


class Partition(NamedTuple):
    """A partition of the finished spans.

    Attributes:
        name: of its table.
        start, end: the times, as stored text, that the ids of its runs carry: from `start` on, before `end`. None where
            there is no bound; both are None for the default partition.
        is_default: whether it has the spans for which there is no other partition.
        rows: how many spans it has, as the storage estimates, None if it cannot; of the default partition exactly.
        bytes: its size, with its indexes.
    """

    name: str
    start: str | None
    end: str | None
    is_default: bool
    rows: int | None
    bytes: int


class State(NamedTuple):
    """The state of the tables.

    Attributes:
        version: of the tables.
        late: for each part of the index that was filled, how many finished spans it lacks; MOST_LATE for more.
    """

    version: int
    late: Mapping[str, int]


class Made(NamedTuple):
    """The partitions that were made.

    Attributes:
        names: of their tables, by time.
        moved: spans that were moved out of the default partition.
    """

    names: Sequence[str] = ()
    moved: int = 0


class Dropped(NamedTuple):
    """The partitions that were removed.

    Attributes:
        partitions: how many.
        runs, spans: how many those had; of a partition of more than 10,000,000 spans as the storage estimates.
    """

    partitions: int = 0
    runs: int = 0
    spans: int = 0


class Partitions(Protocol):
    """Keeps finished spans in partitions, each for a range of times, and whole runs in one of them.

    A span for which no partition was made lies in the default one, and is read like any other. So partitions may be
    made late, and by few programs: by those that may change tables.
    """

    def partitions(self) -> list[Partition]:
        """Return all partitions by time, the default one last; an empty list where the tables were made without any."""
        ...

    def state(self) -> State:
        """Return the version of the tables, and how far the index is."""
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

    def drop_old(self, before: str, is_dead: Callable[[str], bool], wait_s: float) -> Dropped:
        """Remove the partitions that are old as a whole, the oldest first, with all that belongs to their runs.

        Each in one commit; only where a partition has very many violations, most of them are removed before. Guards,
        for each: its times are over; all runs have finished before a time, and nothing in them is open; and of runs
        that were closed for their programs, these are dead. One with another run stays, and so does the default one.

        Args:
            before: the time, as stored text.
            is_dead: called with the writers of runs that were closed for them.

        Raises:
            DatabaseBusy: others used the partitions for `wait_s` seconds; what was removed so far is.
            DatabaseUnusable: the user may not remove tables.
            NotPermitted: the storage was opened to be read only.
        """
        ...
