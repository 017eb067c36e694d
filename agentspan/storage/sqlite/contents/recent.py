"""The lists that were stored last in each run, so that a history that grew is recognised by one comparison of texts.

Else each element is hashed and looked up: 5 µs for each message of a history, at every call.
"""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

RUNS = 32
"""Runs whose lists are kept."""
MOST = 16 * 2**20
"""Characters of lists that are kept. Beyond it all are dropped, and looked up once more."""


class Recent(NamedTuple):
    """A list as it was stored the last time.

    Attributes:
        text: its JSON text without the closing bracket.
        ends: where each element ends in it.
        numbers: the number of each element.
    """

    text: str
    ends: Sequence[int]
    numbers: Sequence[int]

    def common(self, text: str, start: int) -> int:
        """Return how many elements a list has in common with this one, from its start.

        Args:
            start: where the other list begins in `text`.
        """
        ends = self.ends
        if text.startswith(self.text, start):
            return len(ends)
        low, high = 0, len(ends) - 1  # the first `low` are common, the first `high + 1` are not
        while low < high:
            middle = (low + high + 1) // 2
            if text.startswith(self.text[: ends[middle - 1]], start):
                low = middle
            else:
                high = middle - 1
        return low


Lists = dict[str, Recent]
"""The lists of a run, by member."""


class RecentLists:
    """The lists of the latest runs. Right only as long as the file is: what was rolled back, or changed by another
    process, is dropped.
    """

    def __init__(self) -> None:
        self._runs: dict[int, Lists] = {}
        self._size = 0
        self._version = -1
        self._transaction = -1
        self._is_settled = True

    def begin(self, connection: "FileConnection") -> None:
        """Drop what may be wrong, at the first use in the transaction under way."""
        if connection.transaction == self._transaction:
            return
        (version,) = connection.execute("pragma data_version").fetchone()  # changes with the commits of others
        if version != self._version or not self._is_settled:
            self.clear()
        self._version, self._transaction = version, connection.transaction

    def settle(self) -> None:
        """Keep what the transaction under way has added: it is committed."""
        self._is_settled = True

    def of(self, run: int) -> Lists:
        """Return the lists of a run, by its number; what is added counts only after `settle`."""
        self._is_settled = False
        lists = self._runs.pop(run, None)
        if lists is None:
            lists = {}
            for oldest in [*self._runs][: max(len(self._runs) - RUNS + 1, 0)]:
                self._size -= sum(len(recent.text) for recent in self._runs.pop(oldest).values())
        self._runs[run] = lists
        return lists

    def keep(self, lists: Lists, member: str, recent: Recent) -> None:
        """Keep a list in the place of the one before."""
        before = lists.get(member)
        self._size += len(recent.text) - (0 if before is None else len(before.text))
        lists[member] = recent
        if self._size > MOST:
            self.clear()

    def clear(self) -> None:
        """Drop all lists."""
        for lists in self._runs.values():
            lists.clear()  # who holds them must not add to what is gone
        self._runs, self._size = {}, 0


class FileConnection(sqlite3.Connection):
    """A connection with the lists that it has stored.

    Attributes:
        transaction: the number of the latest transaction that writes.
    """

    def __init__(self, *args: object, **named: object) -> None:
        super().__init__(*args, **named)  # type: ignore[arg-type]
        self.recent = RecentLists()
        self.transaction = 0


def recent_of(connection: sqlite3.Connection) -> RecentLists:
    """Return the lists of a connection that writes, as far as they hold in the transaction under way."""
    assert isinstance(connection, FileConnection)
    connection.recent.begin(connection)
    return connection.recent
