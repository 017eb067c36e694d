"""Stores the parts of payloads, each once in a run, numbered in order of appearance, within a transaction."""

import sqlite3
from collections.abc import Sequence
from hashlib import blake2b
from itertools import islice
from typing import NamedTuple

from agentspan.model.rows import AgentSpanRow, Value
from agentspan.storage.sqlite.contents.blobs import Blobs
from agentspan.storage.sqlite.contents.joining import BIT, BLOB_BIT, ROOM, RUN
from agentspan.storage.sqlite.contents.recent import Recent, recent_of
from agentspan.storage.sqlite.contents.splitting import LEAST, Part, split

SHORT = 200
"""Characters of a text that is stored again, if it is said after the latest part, rather than breaking the range.
Else "continue" in every second message would give each history as many ranges as it has messages."""
AT_ONCE = 500

RUN_NUMBER = "select id from content_runs where agent_instance_id = ?"
NEXT_RUN = "select ifnull(max(id), 0) + 1 from content_runs"
LAST = "select id from contents where id between ? and ? order by id desc limit 1"
"""The latest part of a run. (`max(id)` reads all of them.)"""
INSERT_RUN = "insert into content_runs (id, agent_instance_id) values (?, ?)"
INSERT = "insert into contents (id, run, hash, text) values (?, ?, ?, ?)"


class Stored(NamedTuple):
    """The texts of payloads as they are stored, and the value of `agent_spans.contents` for them."""

    texts: dict[str, str]
    contents: int


class Numbering:
    """The parts of one run, as a transaction sees them. What is new is stored by `write`.

    Args:
        connection: has a write transaction under way, so that no other process numbers at the same time.
    """

    def __init__(self, connection: sqlite3.Connection, instance_id: str) -> None:
        self._connection = connection
        self._recent = recent_of(connection)
        self._instance_id = instance_id
        found = connection.execute(RUN_NUMBER, (instance_id,)).fetchone()
        self._is_known = found is not None
        self._run: int = found[0] if found is not None else connection.execute(NEXT_RUN).fetchone()[0]
        first = self._run * ROOM
        last = connection.execute(LAST, (first, first + ROOM - 1)).fetchone() if found is not None else None
        self._last: int = 0 if last is None else last[0] - first
        self._lists = self._recent.of(self._run) if found else {}
        self._new_lists: list[tuple[str, Recent]] = []
        self._new: list[tuple[int, int, int, str]] = []
        self._added: dict[str, int] = {}
        self._blobs = Blobs(connection, self._run, is_known=self._is_known)

    def stored(self, payloads: dict[str, str], *, with_texts: bool = True) -> Stored | None:
        """Return how payloads are stored, with references to parts and blobs; None where all of them stay whole.

        Args:
            payloads: by the name of the column.
            with_texts: whether long texts are parts, too.
        """
        texts, contents = dict(payloads), 0
        for column, given in payloads.items():
            text = texts[column] = self._blobs.taken(given)
            contents |= BLOB_BIT[column] if text is not given else 0
            pieces = split(text, self._lists, with_texts=with_texts)
            if pieces is not None:
                texts[column] = "".join([self._text(piece, text) for piece in pieces])
                contents |= BIT[column]
        return Stored(texts, contents | self._run * RUN) if contents else None

    def write(self) -> None:
        """Store the parts and blobs that are new.

        Raises:
            sqlite3.IntegrityError: the run does not exist.
        """
        new, self._new = self._new, []
        if (new or self._blobs.has_new) and not self._is_known:
            self._connection.execute(INSERT_RUN, (self._run, self._instance_id))
            self._is_known = True
            self._lists = self._recent.of(self._run)
        self._connection.executemany(INSERT, new)
        self._blobs.write()
        self._added = {}
        for member, recent in self._new_lists:
            self._recent.keep(self._lists, member, recent)
        self._new_lists = []

    def _text(self, piece: str | Part, text: str) -> str:
        if isinstance(piece, str):
            return piece
        if piece.known < 0:
            return f'{{"$content":{self._numbers(piece.texts, [])[0]}}}'
        before = self._lists.get(piece.member)
        numbers = [] if before is None else [*before.numbers[: piece.known]]
        ends = [] if before is None else [*before.ends[: piece.known]]
        numbers = self._numbers(piece.texts, numbers)
        for each in piece.texts:
            ends.append((ends[-1] if ends else 0) + 1 + len(each))
        self._new_lists.append((piece.member, Recent(text[piece.start : piece.start + ends[-1]], ends, numbers)))
        return f'{{"$contents":"{ranges(numbers)}"}}'

    def _numbers(self, texts: Sequence[str], numbers: list[int]) -> list[int]:
        """Return numbers of a list with those of more elements, which are stored if they are new."""
        hashes = [_hash(text) for text in texts]
        known = self._known(texts, hashes)
        previous = numbers[-1] if numbers else -1
        for text, hash in zip(texts, hashes, strict=True):
            candidates = known.get(text, [])
            if text in self._added:
                candidates = [*candidates, self._added[text]]
            if previous + 1 in candidates:
                previous += 1
            elif candidates and not (previous == self._last and len(text) <= SHORT):
                previous = candidates[-1]
            else:
                previous = self._add(text, hash)
            numbers.append(previous)
        return numbers

    def _known(self, texts: Sequence[str], hashes: Sequence[int]) -> dict[str, list[int]]:
        """Return the numbers of stored parts by their text, in ascending order."""
        known: dict[str, list[int]] = {}
        if not self._is_known:
            return known
        wanted, waiting = set(texts), iter(set(hashes))
        while chunk := list(islice(waiting, AT_ONCE)):
            marks = ", ".join("?" * len(chunk))
            found = self._connection.execute(
                f"select id, text from contents where run = ? and hash in ({marks}) order by id", (self._run, *chunk)
            )
            for id, text in found:
                if text in wanted:  # others have the same hash only
                    known.setdefault(text, []).append(id - self._run * ROOM)
        return known

    def _add(self, text: str, hash: int) -> int:
        self._last += 1
        self._new.append((self._run * ROOM + self._last, self._run, hash, text))
        self._added[text] = self._last
        return self._last


def stored_row(numbering: Numbering, row: AgentSpanRow) -> tuple[Value, ...]:
    """Return the values of a span as they are stored, the last one for `contents`."""
    payloads = {"payload": row.payload}
    if row.result_payload is not None:
        payloads["result_payload"] = row.result_payload
    stored = numbering.stored(payloads)
    if stored is None:
        return (*row, 0)
    texts = stored.texts
    row = row._replace(payload=texts["payload"], result_payload=texts.get("result_payload"))
    return (*row, stored.contents)


def are_large(row: AgentSpanRow) -> bool:
    """Return whether the payloads of a span may have parts (0.1 µs)."""
    return len(row.payload) >= LEAST or (row.result_payload is not None and len(row.result_payload) >= LEAST)


def remove_contents(connection: sqlite3.Connection, instance_id: str) -> None:
    """Remove all parts and blobs of a run."""
    found = connection.execute(RUN_NUMBER, (instance_id,)).fetchone()
    if found is not None:
        recent_of(connection).clear()
        rows = (found[0] * ROOM, (found[0] + 1) * ROOM - 1)
        for table in ("contents", "blobs"):
            connection.execute(f"delete from {table} where id between ? and ?", rows)
        connection.execute("delete from content_runs where id = ?", found)


def ranges(numbers: Sequence[int]) -> str:
    """Return numbers as ranges: `1-25,31`."""
    found: list[str] = []
    first = previous = numbers[0]
    for number in (*numbers[1:], -1):
        if number != previous + 1:
            found.append(f"{first}-{previous}" if first != previous else str(first))
            first = number
        previous = number
    return ",".join(found)


def _hash(text: str) -> int:
    """Return a number that nearly always differs between texts. What it finds is compared as text."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)
