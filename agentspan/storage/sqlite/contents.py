"""Splits payloads into parts, and stores each part once per run, with numbers in the order of appearance.

A cache has the parts of the runs that this process wrote last, so that repeated parts are found without SQL. Each SQL
statement releases the GIL, and waits 5 ms to get it back if another thread computes. So a batch of spans needs few
statements per run, however much it repeats. A grown history is recognised by one comparison of texts.
"""

import json
import re
import sqlite3
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, cast

from agentspan.jsontext import LIST_TEXT, LONG, TextInParts, common_elements, common_start, joined
from agentspan.model.rows import AgentSpanRow, Value
from agentspan.storage.sqlite.joining import BIT, BLOB_BIT, ROOM, RUN, Blobs
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
        sent: the same for lists that were passed as elements; the key is that of the first element.
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
        self.is_settled = True

    def of(self, connection: "FileConnection", instance_id: str) -> RunParts:
        """Return the parts of a run in the state of the open transaction. After its commit, set `is_settled`.

        A run's number is never reused, and parts never change. So cached parts are complete if the number of the run
        and the number of its latest part are the same as in the file.
        """
        if connection.transaction != self._transaction:
            if not self.is_settled:
                self.clear()
            self._transaction = connection.transaction
            (self._version,) = connection.execute("pragma data_version").fetchone()  # changes if others commit
        self.is_settled = False
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
        for known, end in ((parts.last, APART), (parts.last_apart, ROOM)) if number else ():
            first, last = parts.first_row + known, parts.first_row + end - 1
            latest = connection.execute(LAST, (first, last)).fetchone()
            if latest is not None and latest[0] != first:  # other connections have stored more
                for id, text in connection.execute(TEXTS, (first + 1, last)):
                    parts.add(id - parts.first_row, text)
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
    """Return the key of a list in a RunParts: the member's name and the start of the list's text."""
    return f"{member}:{text[start : start + KEY]}"


def recent_of(connection: sqlite3.Connection) -> RecentRuns:
    """Return the cache of a connection that writes."""
    assert isinstance(connection, FileConnection)
    return connection.recent


LEAST = 512
"""The least length of a payload that is split, and of a list or text that becomes parts. Splitting costs space, too."""
LEAST_ELEMENT = 32
"""The least average length of the elements of a list that becomes parts. With one row per number, an embedding would
take six times the space."""
MOST_NESTED = 500
"""The largest number of opening brackets in the remaining text. SQLite reads JSON that is nested up to 1,000 deep."""
REFERENCE = '{"$content'
"""The start of a reference: `{"$contents":"1-25,31"}` for a list, `{"$content":7}` for a member that is one part."""

NO_LISTS: Mapping[str, Recent] = {}
_KEY = re.compile(r'"([^"\\\x00-\x1f]*)":')
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
_scan: Callable[[str, int], tuple[object, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
"""Decodes the JSON value at a position; returns it and its end (2 ns a character; regular expressions take 10 ns)."""


def _end_of(text: str, start: int) -> int:
    """Return the end of the JSON value at a position.

    A text without an escaped quote ends at the next quote. In a very long payload, no text is decoded: memory counts.
    """
    if text[start] != '"':
        return _scan(text, start)[1]
    at = text.index('"', start + 1)
    if text[at - 1] != "\\":
        return at + 1
    if len(text) < LONG:
        return _scan(text, start)[1]
    at = start
    while True:
        at = before = text.index('"', at + 1)
        while text[before - 1] == "\\":
            before -= 1
        if (at - before) % 2 == 0:
            return at + 1


_CUT = ("{", "[", '"')


class Part(NamedTuple):
    """A member of a payload that is stored in `contents`: a list by its elements, or another value as one part.

    Attributes:
        member: the name of the member.
        start: the position of its value in the payload.
        texts: for a list, the texts of its elements after the first `known` ones; else the one text of the value.
        known: how many elements at the start of the list equal those of its last stored version; -1 if it is no list.
        is_given: whether the elements were passed as separate texts (see TextInParts).
    """

    member: str
    start: int
    texts: Sequence[str]
    known: int = -1
    is_given: bool = False


def split(
    text: str,
    recent: Mapping[str, Recent] = NO_LISTS,
    *,
    with_texts: bool = True,
    elements: Sequence[Sequence[str]] = (),
) -> list[str | Part] | None:
    """Split a payload into pieces, in order: texts that stay in it, and parts. Return None if it stays whole.

    A member that looks like a reference becomes a part, so that the remaining text has only real references. A text
    that SQLite's JSON functions would not return byte for byte stays whole: blanks between values, escapes in keys, or
    a repeated key.

    Args:
        recent: the last stored lists of the run, by `key_of`, with which lists are compared.
        with_texts: whether long texts become parts, too.
        elements: the elements of each list whose place in the text is marked by LIST_TEXT.
    """
    if (len(text) < LEAST and not elements) or text[0] != "{" or not (elements or _may_be_cut(text)):
        return None
    try:
        pieces = _pieces(text, recent, with_texts, iter(elements))
    except (ValueError, IndexError, StopIteration, RecursionError):  # no JSON, or nested too deep
        return None
    if len(pieces) == 1:
        return None
    kept = "null".join([piece for piece in pieces if type(piece) is str])
    if kept.count("{") > 1 or "[" in kept:  # else nothing is nested in it, and `_pieces` has found no blanks
        kept = _STRING.sub('""', kept)
        if kept.count("{") + kept.count("[") > MOST_NESTED or len(kept.split()) > 1:
            return None
    return pieces


def _may_be_cut(text: str) -> bool:
    """Return False if a payload surely has no long list, no long text and no reference. Takes a tenth of `_pieces`.

    A list of LEAST characters must begin that far before the last closing bracket. Around a text of LEAST characters
    are two quotes that far apart, with none between them.
    """
    if "\\" in text and '\\"' in text:  # first, because most texts of code have one near their start
        return True
    closing = text.rfind("]")
    if (closing >= LEAST and text.find(":[", 0, closing - LEAST + 2) >= 0) or ("$" in text and REFERENCE in text):
        return True
    quote = -1
    while (near := text.rfind('"', quote + 1, quote + LEAST - 1)) >= 0:
        quote = near
    return text.find('"', quote + LEAST - 1) >= 0


def _pieces(
    text: str, recent: Mapping[str, Recent], with_texts: bool, elements: Iterator[Sequence[str]]
) -> list[str | Part]:
    pieces: list[str | Part] = []
    keys: set[str] = set()
    copied, at = 0, 1
    while True:
        key = _KEY.match(text, at)
        if key is None or key[1] in keys:
            return [text]
        keys.add(key[1])
        start = key.end()
        texts: list[str] = []
        known = 0
        part: str | Part | None
        if text[start] == "[":
            before = recent.get(key_of(key[1], text, start)) if recent else None
            known = 0 if before is None else common_elements(before.text, before.ends, text, start)
            texts, end = _elements(text, start, 0 if before is None or not known else before.ends[known - 1])
        elif text[start] == "{" and text.find('},"', start) < 0 and not text.startswith(REFERENCE, start):
            end = len(text) - 1  # the last member: an object with a member behind it ends in these three characters
        else:
            end = _end_of(text, start)
        length, number = end - start, known + len(texts)
        if text.startswith(LIST_TEXT, start):
            part = _given(key[1], start, next(elements))
        elif number and length >= LEAST and length >= LEAST_ELEMENT * number:
            part = Part(key[1], start, texts, known)
        elif (text[start] == '"' and length >= LEAST and with_texts) or text.startswith(REFERENCE, start):
            part = Part(key[1], start, [text[start:end]])
        else:
            part = None
        if part is not None:
            pieces += (text[copied:start], part)
            copied = end
        if text[end] == "}":
            pieces.append(text[copied:])
            return pieces if end + 1 == len(text) else [text]
        at = end + 1


def _given(member: str, start: int, texts: Sequence[str]) -> str | Part:
    """Return the part for a list whose elements were passed as separate texts; its JSON text if it is too short."""
    length = sum(map(len, texts))
    if length >= LEAST and length >= LEAST_ELEMENT * len(texts):
        return Part(member, start, texts, is_given=True)
    return joined(["", ""], [texts])


def _elements(text: str, start: int, skip: int) -> tuple[list[str], int]:
    """Return the texts of a list's elements, and the end of the list. For a list of numbers, the texts are empty.

    Args:
        skip: the length of the list's start with known elements, which are left out; 0 if no element is known.
    """
    at = start + (skip or 1)
    texts: list[str] = []
    if skip and text[at] == "]":
        return texts, at + 1
    if skip:
        at += 1
    elif text[at] not in _CUT:
        return texts, _scan(text, start)[1]
    while True:
        end = _end_of(text, at)
        texts.append(text[at:end])
        if text[end] == "]":
            return texts, end + 1
        at = end + 1


SHORT = 200
"""The longest text that is stored again if it follows the latest part, so that a list keeps one range of numbers.
Without this, "continue" in every second message would give a history as many ranges as it has messages."""
AT_ONCE = 500

INSERT = "insert into contents (id, run, text) values (?, ?, ?)"


_NOTHING_SENT = Sent([], [], has_blobs=False)


class Stored(NamedTuple):
    """The stored texts of a span's payloads, by column, and the value of `agent_spans.contents` for them."""

    texts: dict[str, str]
    contents: int


class Numbering:
    """Assigns numbers to the parts of one run within a write transaction.

    `write` stores the new parts. `drop` discards them.

    Args:
        connection: a connection with an open write transaction, so that no other process assigns numbers.
        instance_id: the id of the run.
    """

    def __init__(self, connection: sqlite3.Connection, instance_id: str) -> None:
        self._connection = connection
        self._instance_id = instance_id
        self._recent = recent_of(connection)
        self._parts = self._recent.of(cast(FileConnection, connection), instance_id)
        self._new: dict[int, str] = {}
        self._has_blobs = False
        self._blobs = Blobs(connection, self._run, is_known=self._parts.number > 0)

    def stored(self, payloads: dict[str, str], *, with_texts: bool = True) -> Stored | None:
        """Return payloads with references to parts and blobs, as they are stored; None if all of them stay whole.

        Args:
            payloads: name of the column → JSON text.
            with_texts: whether long texts become parts, too.

        Raises:
            sqlite3.IntegrityError: the run does not exist.
        """
        texts, contents = dict(payloads), 0
        for column, payload in payloads.items():
            of_result = column == "result_payload"
            self._has_blobs, pieces = False, None
            if isinstance(payload, TextInParts):
                text = self._taken(payload.rest)
                pieces = split(text, NO_LISTS, with_texts=with_texts, elements=payload.lists)
            if pieces is None:
                text = texts[column] = self._taken(payload)
                pieces = split(text, NO_LISTS if of_result else self._parts.lists, with_texts=with_texts)
            if pieces is not None:
                texts[column] = "".join([self._text(piece, text, of_result=of_result) for piece in pieces])
                contents |= BIT[column]
            contents |= BLOB_BIT[column] if self._has_blobs else 0
        return Stored(texts, contents | self._run() * RUN) if contents else None

    def write(self) -> None:
        """Store the new parts and blobs."""
        first, run = self._parts.first_row, self._parts.number
        self._connection.executemany(INSERT, [(first + number, run, text) for number, text in self._new.items()])
        self._blobs.write()
        self._new = {}

    def drop(self) -> None:
        """Discard the new parts, because the change that refers to them was refused."""
        self._recent.drop(self._instance_id)

    def _taken(self, text: str) -> str:
        """Return JSON text with base64 replaced by references to blobs."""
        taken = self._blobs.taken(text)
        self._has_blobs = self._has_blobs or taken is not text
        return taken

    def _run(self) -> int:
        """Return the run's number in `content_runs`. The first call for a run inserts it."""
        parts = self._parts
        if not parts.number:
            parts.number = cast(int, self._connection.execute(INSERT_RUN, (self._instance_id,)).lastrowid)
        return parts.number

    def _text(self, piece: str | Part, text: str, *, of_result: bool) -> str:
        if isinstance(piece, str):
            return piece
        self._run()
        if piece.is_given:
            return f'{{"$contents":"{ranges(self._given(piece))}"}}'
        if piece.known < 0:
            return f'{{"$content":{self._numbers(piece.texts, [], apart=True)[0]}}}'
        if of_result:
            return f'{{"$contents":"{ranges(self._numbers(piece.texts, [], apart=True))}"}}'
        key = key_of(piece.member, text, piece.start)
        before = self._parts.lists.get(key)
        ends = [] if before is None else [*before.ends[: piece.known]]
        known = [] if before is None else [*before.numbers[: piece.known]]
        numbers = self._numbers(piece.texts, known, apart=False)
        for each in piece.texts:
            ends.append((ends[-1] if ends else 0) + 1 + len(each))
        self._recent.keep(self._parts, key, Recent(text[piece.start : piece.start + ends[-1]], ends, numbers))
        return f'{{"$contents":"{ranges(numbers)}"}}'

    def _given(self, piece: Part) -> list[int]:
        """Return the part numbers of a list that was passed as elements. It nearly always extends its last version."""
        key = key_of(piece.member, piece.texts[0], 0)
        before = self._parts.sent.get(key, _NOTHING_SENT)
        common = common_start(before.elements, piece.texts)
        has_blobs, self._has_blobs = self._has_blobs, bool(common) and before.has_blobs
        new = [self._taken(each) for each in piece.texts[common:]]
        numbers = self._numbers(new, [*before.numbers[:common]], apart=False)
        self._recent.keep(self._parts, key, Sent(piece.texts, numbers, self._has_blobs))
        self._has_blobs = self._has_blobs or has_blobs
        return numbers

    def _numbers(self, texts: Sequence[str], numbers: list[int], *, apart: bool) -> list[int]:
        """Append the part numbers of more elements to `numbers`, and return it. New parts get new numbers."""
        parts = self._parts
        known = self._known(texts, apart)
        previous = numbers[-1] if numbers else -1
        for text in texts:
            candidates = known.get(text, ())
            last = parts.last_apart if apart else parts.last
            at = bisect_left(candidates, previous + 1)  # thousands of equal elements have thousands of candidates
            if at < len(candidates) and candidates[at] == previous + 1:
                previous += 1
            elif candidates and not (previous == last and len(text) <= SHORT):
                previous = candidates[-1]
            else:
                previous = last + 1
                parts.add(previous, text)
                self._new[previous] = text
                known.setdefault(text, []).append(previous)
            numbers.append(previous)
        return numbers

    def _known(self, texts: Sequence[str], apart: bool) -> dict[str, list[int]]:
        """Return text → numbers of the stored parts with this text, ascending. Texts are compared, not only hashes."""
        known: dict[str, list[int]] = {}
        by_hash, first = self._parts.by_hash, self._parts.first_row
        hashes = {hash(text) for text in texts}
        alike = {number for each in hashes for number in by_hash.get(each, ()) if (number > APART) is apart}
        found = {number: self._new[number] for number in alike if number in self._new}
        waiting = iter([first + number for number in alike if number not in found])
        while chunk := list(islice(waiting, AT_ONCE)):
            marks = ", ".join("?" * len(chunk))
            rows = self._connection.execute(f"select id, text from contents where id in ({marks})", chunk)
            found.update((id - first, text) for id, text in rows)
        for number in sorted(found):
            known.setdefault(found[number], []).append(number)
        return known


def stored_row(numbering: Numbering, row: AgentSpanRow) -> tuple[Value, ...]:
    """Return the stored values of a span's columns. The last value is for the column `contents`."""
    payloads = {"payload": row.payload}
    if row.result_payload is not None:
        payloads["result_payload"] = row.result_payload
    stored = numbering.stored(payloads)
    if stored is None:
        return (*row, 0)
    values = [*row, stored.contents]
    values[_PAYLOAD], values[_RESULT] = stored.texts["payload"], stored.texts.get("result_payload")
    return tuple(values)


_PAYLOAD, _RESULT = map(AgentSpanRow._fields.index, ("payload", "result_payload"))


def are_large(row: AgentSpanRow) -> bool:
    """Return whether the payload or result of a span is long enough to have parts (0.1 µs)."""
    return len(row.payload) >= LEAST or (row.result_payload is not None and len(row.result_payload) >= LEAST)


def remove_contents(connection: sqlite3.Connection, instance_id: str) -> None:
    """Remove all parts and blobs of a run."""
    found = connection.execute(RUN_NUMBER, (instance_id,)).fetchone()
    if found is not None:
        recent_of(connection).drop(instance_id)
        rows = (found[0] * ROOM, (found[0] + 1) * ROOM - 1)
        for table in ("contents", "blobs"):
            connection.execute(f"delete from {table} where id between ? and ?", rows)
        connection.execute("delete from content_runs where id = ?", found)


def ranges(numbers: Sequence[int]) -> str:
    """Return numbers as a text of ranges, such as `1-25,31`."""
    first = previous = numbers[0]
    if numbers == [*range(first, first + len(numbers))]:  # nearly always
        return f"{first}-{numbers[-1]}" if len(numbers) > 1 else str(first)
    found: list[str] = []
    for number in (*numbers[1:], -1):
        if number != previous + 1:
            found.append(f"{first}-{previous}" if first != previous else str(first))
            first = number
        previous = number
    return ",".join(found)
