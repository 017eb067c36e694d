"""Splits payloads into parts, and stores each once in a run, numbered in order of appearance, within a transaction."""

import json
import re
import sqlite3
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple, cast

from agentspan.jsontext import LIST_TEXT, TextInParts, common_start, joined
from agentspan.model.rows import AgentSpanRow, Value
from agentspan.storage.sqlite.contents.blobs import Blobs
from agentspan.storage.sqlite.contents.joining import BIT, BLOB_BIT, ROOM, RUN
from agentspan.storage.sqlite.contents.recent import (
    APART,
    INSERT_RUN,
    RUN_NUMBER,
    FileConnection,
    Recent,
    Sent,
    key_of,
    key_of_elements,
    recent_of,
)

LEAST = 512
"""Characters of the shortest payload, list and text that is cut. What is shorter costs less where it is."""
LEAST_ELEMENT = 32
"""Characters of an element in the shortest list that is cut, on average. A row for each number of an embedding would
take six times the room of the list."""
MOST_NESTED = 500
"""Opening brackets in the text that stays. SQLite reads JSON that is nested up to 1,000 deep."""
REFERENCE = '{"$content'
"""The start of a reference: `{"$contents":"1-25,31"}` for a list, `{"$content":7}` for a member that is one part."""

_WINDOW = (LEAST - 2) // 2
"""Characters of a window: the shortest text that is cut has a whole one in it, wherever it begins."""
NO_LISTS: Mapping[str, Recent] = {}
_KEY = re.compile(r'"([^"\\\x00-\x1f]*)":')
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
_scan: Callable[[str, int], tuple[object, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
"""Decodes the value at a place; returns it and where it ends (2 ns a character; regular expressions take 10)."""
_CUT = ("{", "[", '"')


class Part(NamedTuple):
    """A member that is stored apart.

    Attributes:
        member: its name.
        start: where its value begins in the payload.
        texts: the texts of a list's elements without the known ones, or the one text of another value.
        known: how many elements of the list, from its start, are those of the recent list; -1 if it is no list.
        is_given: whether the elements were given apart from the text.
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
    given: Sequence[Sequence[str]] = (),
) -> list[str | Part] | None:
    """Return the pieces of a payload in order, texts that stay and parts that go; None where all of it stays.

    A member that looks like a reference is a part, so that what is left has no other than ours. A text that SQLite's
    JSON functions would not give back byte for byte stays whole: spaces between values, escapes in keys, a key twice.

    Args:
        recent: lists of the same run, by `key_of`, with which lists are compared.
        with_texts: whether long texts are parts, too.
        given: the elements of the lists for which LIST stands in the text.
    """
    if (len(text) < LEAST and not given) or text[0] != "{" or not (given or _may_be_cut(text)):
        return None
    try:
        pieces = _pieces(text, recent, with_texts, iter(given))
    except (ValueError, IndexError, StopIteration, RecursionError):  # no JSON, or nested too deep
        return None
    if len(pieces) == 1:
        return None
    kept = _STRING.sub('""', "null".join([piece for piece in pieces if type(piece) is str]))
    if kept.count("{") + kept.count("[") > MOST_NESTED or len(kept.split()) > 1:
        return None
    return pieces


def _may_be_cut(text: str) -> bool:
    """Return False of a text without a long list, a long text and a reference (a tenth of the time of `_pieces`).

    A list ends at the last bracket that closes one, at the latest. A long text has a whole window without a quote.
    """
    closing = text.rfind("]")
    if closing >= LEAST and text.find(":[", 0, closing - LEAST + 2) >= 0:
        return True
    if REFERENCE in text or ("\\" in text and '\\"' in text):
        return True
    for at in range(0, len(text), _WINDOW):
        if text.find('"', at, at + _WINDOW) < 0 and text.find('"', at) - text.rfind('"', 0, at) > LEAST - 2:
            return True
    return False


def _pieces(
    text: str, recent: Mapping[str, Recent], with_texts: bool, given: Iterator[Sequence[str]]
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
            known = 0 if before is None else before.common(text, start)
            texts, end = _elements(text, start, 0 if before is None or not known else before.ends[known - 1])
        else:
            end = _scan(text, start)[1]
        length, number = end - start, known + len(texts)
        if text.startswith(LIST_TEXT, start):
            part = _given(key[1], start, next(given))
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
    """Return the part of a list whose elements were given; its text if it is too short."""
    length = sum(map(len, texts))
    if length >= LEAST and length >= LEAST_ELEMENT * len(texts):
        return Part(member, start, texts, is_given=True)
    return joined(["", ""], [texts])


def _elements(text: str, start: int, skip: int) -> tuple[list[str], int]:
    """Return the texts of a list's elements, and where the list ends; no texts where it is a list of numbers.

    Args:
        skip: the length of the elements at the start that are known; 0 if none is.
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
        end = _scan(text, at)[1]
        texts.append(text[at:end])
        if text[end] == "]":
            return texts, end + 1
        at = end + 1


SHORT = 200
"""Characters of a text that is stored again, if it is said after the latest part, rather than breaking the range.
Else "continue" in every second message would give each history as many ranges as it has messages."""
AT_ONCE = 500

INSERT = "insert into contents (id, run, text) values (?, ?, ?)"


_NOTHING_SENT = Sent([], [], has_blobs=False)


class Stored(NamedTuple):
    """The texts of payloads as they are stored, and the value of `agent_spans.contents` for them."""

    texts: dict[str, str]
    contents: int


class Numbering:
    """The parts of one run, as a transaction sees them. What is new is stored by `write`, or dropped by `drop`.

    Args:
        connection: has a write transaction under way, so that no other process numbers at the same time.
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
        """Return how payloads are stored, with references to parts and blobs; None where all of them stay whole.

        Args:
            payloads: by the name of the column.
            with_texts: whether long texts are parts, too.

        Raises:
            sqlite3.IntegrityError: the run does not exist.
        """
        texts, contents = dict(payloads), 0
        for column, given in payloads.items():
            of_result = column == "result_payload"
            self._has_blobs, pieces = False, None
            if isinstance(given, TextInParts):
                text = self._taken(given.rest)
                pieces = split(text, NO_LISTS, with_texts=with_texts, given=given.lists)
            if pieces is None:
                text = texts[column] = self._taken(given)
                pieces = split(text, NO_LISTS if of_result else self._parts.lists, with_texts=with_texts)
            if pieces is not None:
                texts[column] = "".join([self._text(piece, text, of_result=of_result) for piece in pieces])
                contents |= BIT[column]
            contents |= BLOB_BIT[column] if self._has_blobs else 0
        return Stored(texts, contents | self._run() * RUN) if contents else None

    def write(self) -> None:
        """Store the parts that are new."""
        first, run = self._parts.first_row, self._parts.number
        self._connection.executemany(INSERT, [(first + number, run, text) for number, text in self._new.items()])
        self._blobs.write()
        self._new = {}

    def drop(self) -> None:
        """Forget the parts that are new: what refers to them was refused."""
        self._recent.drop(self._instance_id)

    def _taken(self, text: str) -> str:
        """Return JSON text with references in the place of base64."""
        taken = self._blobs.taken(text)
        self._has_blobs = self._has_blobs or taken is not text
        return taken

    def _run(self) -> int:
        """Return the number of the run. It is given one with its first part."""
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
        """Return the numbers of a list whose elements were given: the list before is their start, nearly always."""
        key = key_of_elements(piece.member, piece.texts)
        before = self._parts.sent.get(key, _NOTHING_SENT)
        common = common_start(before.elements, piece.texts)
        has_blobs, self._has_blobs = self._has_blobs, bool(common) and before.has_blobs
        new = [self._taken(each) for each in piece.texts[common:]]
        numbers = self._numbers(new, [*before.numbers[:common]], apart=False)
        self._recent.keep(self._parts, key, Sent(piece.texts, numbers, self._has_blobs))
        self._has_blobs = self._has_blobs or has_blobs
        return numbers

    def _numbers(self, texts: Sequence[str], numbers: list[int], *, apart: bool) -> list[int]:
        """Return numbers of a list with those of more elements, which are added if they are new."""
        parts = self._parts
        known = self._known(texts, apart)
        previous = numbers[-1] if numbers else -1
        for text in texts:
            candidates = known.get(text, ())
            last = parts.last_apart if apart else parts.last
            at = bisect_left(candidates, previous + 1)  # in a list of thousands that are equal, each has thousands
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
        """Return the numbers of parts by their text, in ascending order; what has the hash of one is compared."""
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
        recent_of(connection).drop(instance_id)
        rows = (found[0] * ROOM, (found[0] + 1) * ROOM - 1)
        for table in ("contents", "blobs"):
            connection.execute(f"delete from {table} where id between ? and ?", rows)
        connection.execute("delete from content_runs where id = ?", found)


def ranges(numbers: Sequence[int]) -> str:
    """Return numbers as ranges: `1-25,31`."""
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
