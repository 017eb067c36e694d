"""The compact form of an export: parts that payloads of a run repeat are written once. Cuts and joins texts only.

A payload is a list of pieces that join to its JSON text. A piece is a text, the number of a part, or a pair such as
`[1, 25]` for the parts from 1 to 25 with commas between them. Within a run, list elements are numbered from 1 up, and
long texts from -1 down: with common numbers, a text between elements would end a range. A line before a span has its
new parts, `{"type": "parts", "elements": [...], "texts": [...]}`.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from agentspan.storage.text_search import parts_of

VERSION = 2
"""The version of an export in the compact form; an export with whole payloads has version 1."""
TYPE = "parts"
SHORT = 200
"""The most characters of a known part that is written again to continue a range: naming the old part would end it."""
MOST = 2**28
"""The most characters of a joined payload: a small file could name a large part a million times."""


class Cutter:
    """Cuts the payloads of one run into pieces, and remembers the parts written so far."""

    def __init__(self) -> None:
        self._elements, self._texts = _Numbers(), _Numbers()

    def pieces(self, text: str) -> list[Any]:
        """Return the pieces of a payload. Parts that no earlier payload has are added to the next `line`."""
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
        """Return the line of the parts that are new since the last line; None if no part is new."""
        elements, texts = self._elements.taken(), self._texts.taken()
        return {"type": TYPE, "elements": elements, "texts": texts} if elements or texts else None


class _Numbers:
    """The numbers of texts, found by the hash of a text, and the texts that are not written yet."""

    def __init__(self) -> None:
        self._known: dict[bytes, list[int]] = {}
        self._last = 0
        self._new: list[str] = []

    def number(self, text: str, previous: int) -> int:
        """Return a number of a text: the one after `previous` if the text has it, else its latest, else a new one."""
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
        """Return the texts that are not written yet, and forget them: the caller writes them."""
        new, self._new = self._new, []
        return new


class Joiner:
    """Joins pieces to the payloads of one run, and remembers the parts read so far.

    Args:
        most: the most characters of a joined payload.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._elements: list[str] = []
        self._texts: list[str] = []

    def add(self, line: dict[str, Any]) -> None:
        """Add the parts of a line.

        Raises:
            ValueError: the line has no lists of texts.
        """
        for name, texts in (("elements", self._elements), ("texts", self._texts)):
            new = line.get(name)
            if not isinstance(new, list) or not all(isinstance(text, str) for text in new):
                raise ValueError(f"must have {name}, a list of texts")
            texts += new

    def text(self, pieces: Any) -> str:
        """Join the pieces of a payload to its JSON text.

        Raises:
            ValueError: `pieces` is no list of pieces, names a part that no earlier line has, or makes too large a text.
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
