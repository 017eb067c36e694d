"""Payloads in parts: a record refers to the elements of lists that earlier records of the same segment hold.

An agent sends its whole history with every call. A record of kind H holds what is new of it, and numbers for the rest.
It refers to its own segment only, from the segment's beginning on, so that each file of a journal is whole in itself:
what begins anew, a segment or the use of its space, has a new epoch, in which nothing is known.

The fields of H are those of C up to the time, then: the numbers of each list's elements (`1-24,30;7-9`), the numbers of
the elements that this record holds, the texts around the lists, and the texts of those elements.
"""

from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any, NamedTuple

from agentspan import jsontext
from agentspan.journal.records import HISTORY, SEPARATOR
from agentspan.jsontext import LIST, LIST_TEXT, TextInParts, joined
from agentspan.model.sensitive import IN_TEXT

FIELDS = 8
"""Fields before the numbers."""
LOST = '{"$not_json":{"type":"dict","reason":"lost with a damaged record of the journal"}}'
"""Stands for an element whose record cannot be read."""
MOST_DECODED = 16 * 2**20
"""Characters of elements that are kept decoded. Beyond it all are decoded once more."""

_SEPARATOR = SEPARATOR.encode()
_new_numbers = count(1)
"""Of this process: several objects may stand for one run."""


class Element:
    """An element of a list as it is recorded.

    Attributes:
        text: its JSON text.
        place: the epoch of the segment that holds it, and its number; epoch 0 if none does.
    """

    __slots__ = ("place", "text")

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.place = (0, 0)


class Parts(NamedTuple):
    """A payload in parts: the JSON text around its lists, and the elements of each list.

    Attributes:
        around: one text more than there are lists.
        lists: in the order of the payload, none of them empty.
    """

    around: Sequence[bytes]
    lists: Sequence[Sequence[Element]]

    @property
    def size(self) -> int:
        """The number of bytes of its texts."""
        return sum(map(len, self.around)) + sum([len(element.text) for each in self.lists for element in each])

    def text(self) -> str:
        """Return the payload as JSON text."""
        lists = [[element.text.decode() for element in elements] for elements in self.lists]
        return joined([text.decode() for text in self.around], lists)


def whole(payload: str | Parts) -> str:
    """Return a captured payload as JSON text."""
    return payload.text() if isinstance(payload, Parts) else payload


class Encoded(NamedTuple):
    """The body of a record, and the elements that it holds, with their places once the record is appended."""

    body: bytes
    new: Sequence[tuple[Element, tuple[int, int]]]

    def note(self) -> None:
        """Note where the elements are: the record is appended. Until then other threads record them, too."""
        for element, place in self.new:
            element.place = place


def encode(head: str, parts: Parts, epoch: int) -> Encoded:
    """Return the record of a new span whose payload is in parts.

    Args:
        head: the fields of the record up to the time, with their separators.
        epoch: that of the segment to which the record will be appended.
    """
    new: list[tuple[Element, tuple[int, int]]] = []
    numbered: list[str] = []
    for elements in parts.lists:
        places = [element.place for element in elements]
        for index, (known, _) in enumerate(places):
            if known != epoch:
                places[index] = epoch, next(_new_numbers)
                new.append((elements[index], places[index]))
        numbered.append(_ranges([number for _, number in places]))
    fields = [
        f"{head}{SEPARATOR}{';'.join(numbered)}{SEPARATOR}{_ranges([number for _, (_, number) in new])}".encode(),
        *parts.around,
        *[element.text for element, _ in new],
    ]
    return Encoded(_SEPARATOR.join(fields), new)


class Payload(NamedTuple):
    """The payload of a record.

    Attributes:
        text: its JSON text.
        value: the same, decoded. Others share its elements: they must not be changed.
        is_suspect: whether a wrapper may be in it (see model.sensitive).
    """

    text: str
    value: dict[str, Any]
    is_suspect: bool


_HISTORY = HISTORY.encode()


class Elements:
    """The elements that the records of one segment hold, by number.

    Args:
        in_parts: return payloads as TextInParts, for a storage that keeps contents.
    """

    def __init__(self, *, in_parts: bool) -> None:
        self._in_parts = in_parts
        self._texts: dict[int, str] = {}
        self._decoded: dict[int, Any] = {}
        self._size = 0
        self._is_suspect = False

    def note_stored(self, bodies: Iterable[bytes]) -> None:
        """Note the elements of those of some records that hold some: they are in the storage already."""
        for body in bodies:
            if body[:1] == _HISTORY:
                try:
                    self._note(body.decode().split(SEPARATOR))
                except (ValueError, IndexError):  # its bytes are as they were written: a later version's
                    pass

    def payload(self, fields: Sequence[str]) -> Payload:
        """Return the payload of a record with these fields. Its elements are noted.

        Raises:
            ValueError, IndexError: the record cannot be read.
        """
        around = self._note(fields)
        numbers = [_numbers(each) for each in fields[FIELDS].split(";")]
        lists = [self._elements(each) for each in numbers]
        text = joined(around, lists)
        rest = LIST_TEXT.join(around)
        value = jsontext.decode(rest)
        members = [name for name, member in value.items() if member == LIST]
        value.update(zip(members, map(self._values, numbers, lists), strict=True))
        if self._in_parts:
            text = TextInParts(text)
            text.rest, text.lists = rest, lists
        return Payload(text, value, self._is_suspect or IN_TEXT in rest)

    def _note(self, fields: Sequence[str]) -> Sequence[str]:
        """Note the elements of a record; return the texts around its lists."""
        end = FIELDS + 2 + len(fields[FIELDS].split(";")) + 1
        numbers, texts = fields[FIELDS + 1], fields[end:]
        self._texts.update(zip(_numbers(numbers) if numbers else (), texts, strict=True))
        self._is_suspect = self._is_suspect or any(IN_TEXT in text for text in texts)
        return fields[FIELDS + 2 : end]

    def _elements(self, numbers: Sequence[int]) -> list[str]:
        """Return the texts of the elements with these numbers."""
        try:
            return [*map(self._texts.__getitem__, numbers)]
        except KeyError:
            return [self._texts.get(number, LOST) for number in numbers]

    def _values(self, numbers: Sequence[int], texts: Sequence[str]) -> list[Any]:
        """Return the elements with these numbers, decoded."""
        decoded = self._decoded
        for number, text in zip(numbers, texts, strict=True):
            if number not in decoded:
                decoded[number] = jsontext.decode(text)
                self._size += len(text)
        values = [*map(decoded.get, numbers)]
        if self._size > MOST_DECODED:
            self._size, self._decoded = 0, {}
        return values


def _ranges(numbers: Sequence[int]) -> str:
    """Return numbers as ranges: `1-25,31`."""
    if not numbers:
        return ""
    first = numbers[0]
    if numbers == [*range(first, first + len(numbers))]:  # nearly always
        return f"{first}-{numbers[-1]}"
    found: list[str] = []
    previous = first
    for number in (*numbers[1:], -1):
        if number != previous + 1:
            found.append(f"{first}-{previous}")
            first = number
        previous = number
    return ",".join(found)


def _numbers(ranges: str) -> Sequence[int]:
    """Return the numbers of ranges."""
    found = [(int(first), int(last) + 1) for first, _, last in (each.partition("-") for each in ranges.split(","))]
    return range(*found[0]) if len(found) == 1 else [number for each in found for number in range(*each)]
