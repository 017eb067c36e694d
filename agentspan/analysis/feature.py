"""A feature of runs: a yes or no, such as whether a tool was used. `findings` tests which go with failure."""

from typing import NamedTuple

FEWEST = 3
"""Runs that have a feature, and that lack it, at least."""


class Feature(NamedTuple):
    """A property that some runs have and others lack.

    Attributes:
        text: what it is, such as `Tool book_reservation used`.
        runs: the ids of the runs that have it.
        known: the ids of the runs of which it is known; None for all.
        lacking: what the other runs have in common, such as `Tool book_reservation not used`; "" for `no` and the text.
    """

    text: str
    runs: frozenset[str]
    known: frozenset[str] | None = None
    lacking: str = ""

    @property
    def opposite(self) -> str:
        """The words for the runs without it."""
        return self.lacking or f"no {self.text}"
