"""A cache of the parts of the runs that this process wrote last, so that repeated parts are found without SQL.

Each SQL statement releases the GIL, and waits 5 ms to get it back if another thread computes. So a batch of spans needs
few statements per run, however much it repeats. A grown history is recognised by one comparison of texts.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from agentspan.jsontext import common_elements
from agentspan.storage.sqlite.contents.joining import ROOM
from agentspan.tuning import STANDARD

MOST = 16 * 2**20
"""The largest number of characters of lists that are kept. Beyond it, all lists are dropped from the cache."""
KEY = 64
"""The number of characters at a list's start that distinguish lists of a member, such as two agents' histories."""

APART = 2**31
"""Long texts and elements of results have part numbers above this one; list elements of payloads have lower numbers. So
the messages of a history keep one range of numbers, even if an answer is stored after each message."""

RUN_NUMBER = "select id from content_runs where agent_instance_id = ?"
INSERT_RUN = "insert into content_runs (agent_instance_id) values (?)"
LAST = "select id from contents where id between ? and ? order by id desc limit 1"
TEXTS = "select id, text from contents where id between ? and ?"


class Recent(NamedTuple):
    """The last stored version of a list, to compare the next version with.

    Attributes:
        text: the list's JSON text without the closing bracket.
        ends: the end position of each element in `text`.
        numbers: the part number of each element.
    """

    text: str
    ends: Sequence[int]
    numbers: Sequence[int]

    @property
    def size(self) -> int:
        """The number of characters of the list's text."""
        return len(self.text)

    def common(self, text: str, start: int) -> int:
        """Return how many elements at the start of another list equal the elements of this list.

        Args:
            text: the payload with the other list.
            start: the position of the other list in `text`.
        """
        return common_elements(self.text, self.ends, text, start)


class Sent(NamedTuple):
    """The last stored version of a list whose elements were passed as separate texts (see TextInParts).

    Attributes:
        elements: the JSON texts of the elements.
        numbers: the part number of each element.
        has_blobs: whether the stored text of an element refers to a blob.
    """

    elements: Sequence[str]
    numbers: Sequence[int]
    has_blobs: bool

    @property
    def size(self) -> int:
        """The number of characters of all elements."""
        return sum(map(len, self.elements))


class RunParts:
    """The cached parts of one run.

    Attributes:
        number: the run's number in `content_runs`; 0 while the run has no parts.
        last, last_apart: the number of the latest part below `APART`, and of the latest part above it.
        by_hash: hash of a text → numbers of the parts with that hash, in ascending order.
        lists: key of a list (see key_of) → its last stored version.
        sent: key of a list (see key_of_elements) → its last stored version, for lists that were passed as elements.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.last = 0
        self.last_apart = APART
        self.by_hash: dict[int, list[int]] = {}
        self.lists: dict[str, Recent] = {}
        self.sent: dict[str, Sent] = {}
        self.version = -1

    @property
    def first_row(self) -> int:
        """The rowid before the first part of the run in `contents`."""
        return self.number * ROOM

    def read(self, connection: sqlite3.Connection) -> None:
        """Read the parts of the run that other connections have stored since the last call."""
        first = self.first_row
        for known, end in ((self.last, APART), (self.last_apart, ROOM)):
            last = connection.execute(LAST, (first + known, first + end - 1)).fetchone()
            if last is not None and last[0] - first != known:
                for id, text in connection.execute(TEXTS, (first + known + 1, first + end - 1)):
                    self.add(id - first, text)

    def add(self, number: int, text: str) -> None:
        """Add the latest part of the run to the cache."""
        self.by_hash.setdefault(hash(text), []).append(number)
        if number > APART:
            self.last_apart = number
        else:
            self.last = number


class RecentRuns:
    """The cached parts of the runs that a connection wrote last. After a rollback, the cache is dropped.

    Args:
        most_runs: the largest number of runs that are kept.
        most_parts: the largest number of parts of all runs except the latest one.
    """

    def __init__(
        self, most_runs: int = STANDARD.known_content_runs, most_parts: int = STANDARD.known_content_parts
    ) -> None:
        self._most_runs, self._most_parts = most_runs, most_parts
        self._runs: dict[str, RunParts] = {}
        self._size = 0
        self._version = -1
        self._transaction = -1
        self._is_settled = True

    def of(self, connection: "FileConnection", instance_id: str) -> RunParts:
        """Return the parts of a run in the state of the open transaction. Call `settle` after its commit.

        A run's number is never reused, and parts never change. So cached parts are complete if the number of the run
        and the number of its latest part are the same as in the file.
        """
        if connection.transaction != self._transaction:
            if not self._is_settled:
                self.clear()
            self._transaction = connection.transaction
            (self._version,) = connection.execute("pragma data_version").fetchone()  # changes if others commit
        self._is_settled = False
        parts = self._runs.pop(instance_id, None)
        if parts is None or parts.version != self._version:
            parts = self._checked(connection, instance_id, parts)
            parts.version = self._version
        while self._runs and (
            len(self._runs) >= self._most_runs
            or sum([len(one.by_hash) for one in self._runs.values()]) > self._most_parts
        ):
            self.drop(next(iter(self._runs)))
        self._runs[instance_id] = parts
        return parts

    def settle(self) -> None:
        """Keep the parts that the last transaction added, because it was committed. Without this call, drop them."""
        self._is_settled = True

    def keep(self, parts: RunParts, key: str, recent: Recent | Sent) -> None:
        """Cache the last stored version of a list, in place of the previous version."""
        lists: Any = parts.lists if isinstance(recent, Recent) else parts.sent
        before = lists.get(key)
        self._size += recent.size - (0 if before is None else before.size)
        lists[key] = recent
        if self._size > MOST:
            for each in self._runs.values():
                each.lists.clear()
                each.sent.clear()
            self._size = 0

    def drop(self, instance_id: str) -> None:
        """Drop a run from the cache."""
        parts = self._runs.pop(instance_id, None)
        if parts is not None:
            self._size -= sum(recent.size for lists in (parts.lists, parts.sent) for recent in lists.values())

    def clear(self) -> None:
        """Drop all runs from the cache."""
        self._runs, self._size = {}, 0

    def _checked(self, connection: "FileConnection", instance_id: str, parts: RunParts | None) -> RunParts:
        found = connection.execute(RUN_NUMBER, (instance_id,)).fetchone()
        number = 0 if found is None else found[0]
        if parts is None or parts.number != number:
            parts = RunParts(number)
        if number:
            parts.read(connection)
        return parts


class FileConnection(sqlite3.Connection):
    """A connection with a cache of the parts that it has stored.

    Attributes:
        recent: the cache.
        transaction: the number of the latest transaction that writes.
    """

    def __init__(self, *args: object, **named: object) -> None:
        super().__init__(*args, **named)  # type: ignore[arg-type]
        self.recent = RecentRuns()
        self.transaction = 0


def key_of(member: str, text: str, start: int) -> str:
    """Return the key of a list in `RunParts.lists`: the member's name and the start of the list's text."""
    return f"{member}:{text[start : start + KEY]}"


def key_of_elements(member: str, elements: Sequence[str]) -> str:
    """Return the key of a list in `RunParts.sent`: the member's name and the start of the first element."""
    return f"{member}:{elements[0][:KEY]}"


def recent_of(connection: sqlite3.Connection) -> RecentRuns:
    """Return the cache of a connection that writes."""
    assert isinstance(connection, FileConnection)
    return connection.recent
