"""Finds the spans of one run that contain all terms of a search, from the stored texts: each part is read once.

An agent may send its whole history with each call. The joined payloads of such a run grow with the square of its
length, but each message is stored once (see contents). Only where stored texts do not decide it, a payload is joined.
"""

import re
import sqlite3
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from agentspan import jsontext
from agentspan.blobs import LEAST, has_blobs
from agentspan.model.rows import AgentSpanRow
from agentspan.storage.questions import SpansWith
from agentspan.storage.sqlite import statements
from agentspan.storage.sqlite.contents import RUN_NUMBER
from agentspan.storage.sqlite.joining import BLOB_BIT, MARK, PAYLOAD, RESULT, ROOM
from agentspan.storage.text_search import PREFIX, Matcher, Term, fold, without_escapes

PARTS = "select id - ?1, text from contents where id between ?1 and ?1 + ?2 order by id"
TEXTS = "select id, summary, payload, result_payload, contents from agent_spans where agent_instance_id = ? order by id"
WHOLE = f"{statements.SELECT['agent_span']} where id in (IDS)"
_REFERENCE = re.compile(r'\{"\$contents?":(?:"([0-9,-]+)"|([0-9]+))\}')
_ANY_BLOB = sum(BLOB_BIT.values())


def spans_with(connection: sqlite3.Connection, asked: SpansWith) -> list[str]:
    """Return the ids of the spans of a run that contain all terms."""
    search = _Search(asked.words)
    number = connection.execute(RUN_NUMBER, (asked.instance_id,)).fetchone()
    if number is not None:
        for part, text in connection.execute(PARTS, (number[0] * ROOM, ROOM - 1)):
            search.add_part(part, text)
    found, unclear = [], []
    for id, summary, payload, result, contents in connection.execute(TEXTS, (asked.instance_id,)):
        is_match = search.decide(summary or "", payload, result or "", contents)
        if is_match is None:
            unclear.append(id)
        elif is_match:
            found.append(id)
    matcher = Matcher(asked.words)
    for ids in statements.chunks(unclear):
        rows = connection.execute(WHOLE.replace("IDS", ", ".join("?" * len(ids))), ids)
        found += [span.id for span in map(AgentSpanRow._make, rows) if matcher.matches(span)]
    return sorted(found)


class _Search:
    """The terms of a search, and the parts of a run that contain them.

    A text has a bit set for each term that it contains, and for each token of a term of several tokens: these may be
    adjacent across two stored texts. UNCLEAR is set if only the joined payload tells what the text contains.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._needles: list[tuple[int, Term]] = []
        self._terms: list[tuple[int, int]] = []
        for word in words:
            *tokens, last = word.removesuffix(PREFIX).split()
            ending = word[len(word.removesuffix(PREFIX)) :]
            sure = self._bit(word)
            likely = sum(map(self._bit, [*tokens, last + ending])) if tokens else sure
            self._terms.append((sure, likely))
        self._unclear = 1 << len(self._needles)
        self._parts: list[tuple[int, list[int]]] = [(1 << place, []) for place in range(len(self._needles) + 1)]

    def _bit(self, word: str) -> int:
        self._needles.append((1 << len(self._needles), Term(word)))
        return self._needles[-1][0]

    def add_part(self, number: int, text: str) -> None:
        """Add a part of the run, in the order of the numbers."""
        bits = self._unclear if MARK in text else self._bits(text)
        for bit, numbers in self._parts if bits else ():
            if bits & bit:
                numbers.append(number)

    def decide(self, summary: str, payload: str, result: str, contents: int) -> bool | None:
        """Return whether a span matches, by its stored texts; None if it may match."""
        if contents & _ANY_BLOB:
            return None
        bits = self._bits(summary)
        bits |= self._joined_bits(payload) if contents & PAYLOAD else self._bits(payload)
        bits |= self._joined_bits(result) if contents & RESULT else self._bits(result)
        if bits & self._unclear:
            return None
        if all(bits & sure for sure, _ in self._terms):
            return True
        return None if all(bits & sure or bits & likely == likely for sure, likely in self._terms) else False

    def _bits(self, text: str) -> int:
        if "\\u" in text or (len(text) >= LEAST and has_blobs(text)):
            return self._unclear
        folded, bits = text.lower() if text.isascii() else fold(text), 0
        for bit, term in self._needles:
            if term.first in folded and term.is_in(without_escapes(folded)):
                bits |= bit
        return bits

    def _joined_bits(self, text: str) -> int:
        """Return the bits of a text with references to parts."""
        references = [*_REFERENCE.finditer(text)]
        if len(references) > 1 and len(references) != _number_of_references(text):
            return self._unclear  # one of them is quoted in a deeper object
        bits = copied = 0
        for reference in references:
            bits |= self._bits(text[copied : reference.start()])
            copied = reference.end()
            for first, last in _ranges(reference[1] or reference[2]):
                for bit, numbers in self._parts:
                    if not bits & bit:
                        at = bisect_left(numbers, first)
                        bits |= bit if at < len(numbers) and numbers[at] <= last else 0
        return bits | self._bits(text[copied:])


def _number_of_references(text: str) -> int:
    members = jsontext.decode(text).values()
    return sum(type(value) is dict and next(iter(value), "").startswith("$content") for value in members)


def _ranges(numbers: str) -> Iterator[tuple[int, int]]:
    """Yield the ranges of a reference, such as `1-25,31`."""
    for each in numbers.split(","):
        first, _, last = each.partition("-")
        yield int(first), int(last or first)
