"""The parts of the runs that this process wrote last: what is stored is found without asking the file.

Each statement lets other threads run, and waits 5 ms for its turn where one of them computes. So a batch of spans asks
once for each run, whatever it repeats; a history that grew is recognised by one comparison of texts.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from agentspan.jsontext import common_elements
from agentspan.storage.sqlite.contents.joining import ROOM
from agentspan.tuning import STANDARD

MOST = 16 * 2**20
"""Characters of lists that are kept. Beyond it all lists are dropped, and their elements looked up once more."""
KEY = 64
"""Characters of a list's start that tell it from others of the same member: two agents in a run take turns."""

APART = 2**31
"""The number before the first part that is no element of a payload's list: a long text, or an element in a result. With
numbers between those of the messages, an answer after each of them would break the range of a history as often."""

RUN_NUMBER = "select id from content_runs where agent_instance_id = ?"
INSERT_RUN = "insert into content_runs (agent_instance_id) values (?)"
LAST = "select id from contents where id between ? and ? order by id desc limit 1"
TEXTS = "select id, text from contents where id between ? and ?"


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

    @property
    def size(self) -> int:
        """The number of characters of its text."""
        return len(self.text)

    def common(self, text: str, start: int) -> int:
        """Return how many elements a list has in common with this one, from its start.

        Args:
            start: where the other list begins in `text`.
        """
        return common_elements(self.text, self.ends, text, start)


class Sent(NamedTuple):
    """A list whose elements were given, as it was stored the last time.

    Attributes:
        elements: their JSON texts.
        numbers: the number of each.
        has_blobs: whether the stored text of one refers to a blob.
    """

    elements: Sequence[str]
    numbers: Sequence[int]
    has_blobs: bool

    @property
    def size(self) -> int:
        """The number of characters of its elements."""
        return sum(map(len, self.elements))


class RunParts:
    """The parts of one run.

    Attributes:
        number: the run's number; 0 while it has no parts.
        last, last_apart: the number of the latest part below `APART`, and above.
        by_hash: the numbers of the parts whose text has a hash, in ascending order.
        lists: the lists that were stored last, by `key_of`.
        sent: the same of lists whose elements were given, by `key_of_elements`.
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
        """The row before that of the first part."""
        return self.number * ROOM

    def read(self, connection: sqlite3.Connection) -> None:
        """Read the parts that came to the file since."""
        first = self.first_row
        for known, end in ((self.last, APART), (self.last_apart, ROOM)):
            last = connection.execute(LAST, (first + known, first + end - 1)).fetchone()
            if last is not None and last[0] - first != known:
                for id, text in connection.execute(TEXTS, (first + known + 1, first + end - 1)):
                    self.add(id - first, text)

    def add(self, number: int, text: str) -> None:
        """Note a part, the latest one."""
        self.by_hash.setdefault(hash(text), []).append(number)
        if number > APART:
            self.last_apart = number
        else:
            self.last = number


class RecentRuns:
    """The parts of the latest runs. Right only as long as the file is: what was rolled back is dropped.

    Args:
        most_runs: how many are kept.
        most_parts: how many parts are known, of all runs but the latest.
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
        """Return the parts of a run as the transaction under way sees them. What is added counts only after `settle`.

        The number of a run is never used again, and its parts never change: they are complete if the number is the
        same, and the latest part too.
        """
        if connection.transaction != self._transaction:
            if not self._is_settled:
                self.clear()
            self._transaction = connection.transaction
            (self._version,) = connection.execute("pragma data_version").fetchone()  # changes with others' commits
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
        """Keep what the transaction under way has added: it is committed."""
        self._is_settled = True

    def keep(self, parts: RunParts, key: str, recent: Recent | Sent) -> None:
        """Keep a list in the place of the one before."""
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
        """Drop what is known of a run."""
        parts = self._runs.pop(instance_id, None)
        if parts is not None:
            self._size -= sum(recent.size for lists in (parts.lists, parts.sent) for recent in lists.values())

    def clear(self) -> None:
        """Drop all runs."""
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
    """A connection with the parts that it has stored.

    Attributes:
        transaction: the number of the latest transaction that writes.
    """

    def __init__(self, *args: object, **named: object) -> None:
        super().__init__(*args, **named)  # type: ignore[arg-type]
        self.recent = RecentRuns()
        self.transaction = 0


def key_of(member: str, text: str, start: int) -> str:
    """Return the key of a list in `RunParts.lists`."""
    return f"{member}:{text[start : start + KEY]}"


def key_of_elements(member: str, elements: Sequence[str]) -> str:
    """Return the key of a list in `RunParts.sent`."""
    return f"{member}:{elements[0][:KEY]}"


def recent_of(connection: sqlite3.Connection) -> RecentRuns:
    """Return what a connection that writes has stored."""
    assert isinstance(connection, FileConnection)
    return connection.recent
