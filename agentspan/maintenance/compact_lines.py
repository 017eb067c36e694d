"""The compact form of an export: what the payloads of a run repeat is in the file once. Cuts and joins texts only.

A payload is a list of pieces, which put together are its JSON text: texts as they are; numbers, for a part; and pairs
`[1, 25]`, for the parts from 1 to 25 with commas between. Elements of lists are numbered within a run from 1 on, long
texts from -1 down: between elements they would end the ranges. Those that are new are in a line before their span,
`{"type": "parts", "elements": [...], "texts": [...]}`.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from agentspan.storage.first_said import parts_of

VERSION = 2
"""The version of a file in this form; 1 is that of a file with whole payloads."""
TYPE = "parts"
SHORT = 200
"""Characters of a part that is written again if it is said after the latest one, rather than ending a range."""
MOST = 2**28
"""Characters of a payload that is put together, at most: a small file could name a large part a million times."""


class Cutter:
    """The parts of one run that were written so far."""

    def __init__(self) -> None:
        self._elements, self._texts = _Numbers(), _Numbers()

    def pieces(self, text: str) -> list[Any]:
        """Return the pieces of a payload. The parts that it is the first to have are new."""
        pieces: list[Any] = []
        copied = previous = 0
        for part in parts_of(text):
            part_text = text[part.start : part.end]
            if not part.is_element:
                pieces += (text[copied : part.start], -self._texts.number(part_text, 0))
                copied = part.end
                continue
            if text[part.start - 1] == "[":
                previous = 0
            number = self._elements.number(part_text, previous)
            if previous and number == previous + 1:
                pieces[-1][1] = number
            else:
                pieces += (text[copied : part.start], [number, number])
            copied, previous = part.end, number
        pieces.append(text[copied:])
        return [one[0] if isinstance(one, list) and one[0] == one[1] else one for one in pieces]

    def line(self) -> dict[str, Any] | None:
        """Return the line of the parts that are new since the last one; None if there are none."""
        elements, texts = self._elements.taken(), self._texts.taken()
        return {"type": TYPE, "elements": elements, "texts": texts} if elements or texts else None


class _Numbers:
    """The numbers of texts, which are known by their hashes, and the texts that are not written yet."""

    def __init__(self) -> None:
        self._known: dict[bytes, list[int]] = {}
        self._last = 0
        self._new: list[str] = []

    def number(self, text: str, previous: int) -> int:
        """Return the number of a text, if possible the next one after another."""
        known = self._known.setdefault(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest(), [])
        if previous + 1 in known:
            return previous + 1
        if known and not (previous and previous == self._last and len(text) <= SHORT):
            return known[-1]
        self._last += 1
        self._new.append(text)
        known.append(self._last)
        return self._last

    def taken(self) -> list[str]:
        """Return the texts that are not written yet, which are then."""
        new, self._new = self._new, []
        return new


class Joiner:
    """The parts of one run that were read so far.

    Args:
        most: characters of a payload that is put together, at most.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._elements: list[str] = []
        self._texts: list[str] = []

    def add(self, line: dict[str, Any]) -> None:
        """Add the parts of a line.

        Raises:
            ValueError: it has no lists of texts.
        """
        for name, texts in (("elements", self._elements), ("texts", self._texts)):
            new = line.get(name)
            if not isinstance(new, list) or not all(isinstance(text, str) for text in new):
                raise ValueError(f"must have {name}, a list of texts")
            texts += new

    def text(self, pieces: Any) -> str:
        """Return the text of a payload.

        Raises:
            ValueError: these are no pieces, they name a part that no line before has, or the text is too large.
        """
        if not isinstance(pieces, list):
            raise ValueError("must be a list of pieces")
        size = 0
        texts: list[str] = []
        for piece in pieces:
            found = [piece] if isinstance(piece, str) else self._parts(piece)
            size += sum(map(len, found)) + len(found)
            if size > self._most:
                raise ValueError("is too large")
            texts.append(",".join(found))
        return "".join(texts)

    def _parts(self, piece: Any) -> Sequence[str]:
        first, last = piece if isinstance(piece, list) and len(piece) == 2 else (piece, piece)
        if type(first) is int and type(last) is int:
            if first == last < 0 and -first <= len(self._texts):
                return [self._texts[-first - 1]]
            if 0 < first <= last <= len(self._elements):
                return self._elements[first - 1 : last]
        raise ValueError("refers to a part that is in no line before it")
