"""Periods of time in which runs are counted, for histograms."""

from collections.abc import Collection, Iterable
from itertools import chain, count
from typing import NamedTuple

from agentspan import clock


class Periods(NamedTuple):
    """Periods of equal length, one after another, in which runs are counted.

    Attributes:
        first_at: the beginning of the first period, as stored text.
        seconds: the length of a period.
        number: the number of periods.
    """

    first_at: str
    seconds: int
    number: int

    def counted(self, times: Iterable[str]) -> tuple[int, ...]:
        """Return the number of these times, as stored text, in each period; times outside count at the nearest end."""
        counts = [0] * self.number
        first = clock.to_datetime(self.first_at)
        for at in times:
            place = int((clock.to_datetime(at) - first).total_seconds() // self.seconds)
            counts[min(max(place, 0), self.number - 1)] += 1
        return tuple(counts)

    def edges(self) -> list[str]:
        """Return the beginning of each period, and the end of the last one, as stored text."""
        first = round(clock.to_datetime(self.first_at).timestamp())
        return [clock.to_text((first + place * self.seconds) * 10**9) for place in range(self.number + 1)]


MOST_PERIODS = 30
"""The largest number of periods of a histogram."""
LENGTHS_S = (1, 5, 15, 60, 300, 900, 3600, 10_800, 21_600, 43_200, 86_400, 604_800, 2_419_200)
"""The lengths of a period, in seconds: 1, 5, 15 seconds and minutes, 1, 3, 6, 12 hours, a day, 1, 4 weeks. Longer:
multiples."""
_MONDAY_S = 4 * 86_400
"""A Monday, in seconds since 1970: weeks begin on Mondays, in UTC."""


def plausible(text: str) -> str:
    """Return a stored time, or the first or last one from which periods and zones can be computed: 1971 and 2200."""
    return min(max(text, "1971-01-01T00:00:00.000000Z"), "2200-01-01T00:00:00.000000Z")


def periods_of(times: Collection[str], *, most: int = MOST_PERIODS, shortest_s: int = 60) -> Periods | None:
    """Return periods of the least length of which at most `most` cover these times; None without times."""
    if not times:
        return None
    ends = plausible(min(times)), plausible(max(times))
    first, last = (int(clock.to_datetime(text).timestamp()) - _MONDAY_S for text in ends)
    lengths = chain(
        (each for each in LENGTHS_S if each >= shortest_s), (LENGTHS_S[-1] * 2**power for power in count(1))
    )
    seconds = next(each for each in lengths if last // each - first // each < most)
    start = first // seconds
    return Periods(clock.to_text((start * seconds + _MONDAY_S) * 10**9), seconds, last // seconds - start + 1)
