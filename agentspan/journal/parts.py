"""Payloads in parts: a record refers by number to list elements that earlier records of the same segment hold.

An agent sends its whole history with every call. A record of kind H holds only the new elements of the history, and
numbers for the rest. A record refers only to its own segment, so that each file of a journal can be read alone. A new
or reused segment has a new epoch, in which no element is known.

The fields of H are the fields of C up to the time, then: the numbers of each list's elements (`1-24,30-30;7-9`), the
numbers of the elements that this record holds, the texts around the lists, and the texts of the held elements.
"""

from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any, NamedTuple

from agentspan import jsontext
from agentspan.journal.records import HISTORY, SEPARATOR
from agentspan.jsontext import LIST, LIST_TEXT, TextInParts, joined
from agentspan.model.columns import MARK_IN_TEXT

FIELDS = 8
"""The number of fields of a record before the numbers of elements."""
LOST = '{"$not_json":{"type":"dict","reason":"lost with a damaged record of the journal"}}'
"""The JSON text in place of an element whose record cannot be read."""
MOST_DECODED = 16 * 2**20
"""The number of characters of decoded elements in the cache; beyond it the cache is emptied."""

_SEPARATOR = SEPARATOR.encode()
_new_numbers = count(1)
"""The numbers of elements, unique in this process: several objects may represent one run."""


class Element:
    """An element of a recorded list.

    Attributes:
        text: the JSON text of the element.
        place: the epoch of the segment that holds the element, and the element's number; epoch 0 if no segment does.
    """

    __slots__ = ("place", "text")

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.place = (0, 0)


class Parts(NamedTuple):
    """A payload in parts: the JSON text around its lists, and the elements of each list.

    Attributes:
        around: the texts before, between and behind the lists: one more than there are lists.
        lists: the lists in the order of the payload. No list is empty.
    """

    around: Sequence[bytes]
    lists: Sequence[Sequence[Element]]

    @property
    def size(self) -> int:
        """The size of the payload's texts, in bytes."""
        return sum(map(len, self.around)) + sum([len(element.text) for each in self.lists for element in each])

    def text(self) -> str:
        """Return the payload as JSON text."""
        lists = [[element.text.decode() for element in elements] for elements in self.lists]
        return joined([text.decode() for text in self.around], lists)


def whole(payload: str | Parts) -> str:
    """Return a captured payload as JSON text."""
    return payload.text() if isinstance(payload, Parts) else payload


class Encoded(NamedTuple):
    """The body of a record, and its new elements, each with the place that it has once the record is appended."""

    body: bytes
    new: Sequence[tuple[Element, tuple[int, int]]]

    def note(self) -> None:
        """Set the places of the new elements, after the record was appended. Before, other threads record them, too."""
        for element, place in self.new:
            element.place = place


def encode(head: str, parts: Parts, epoch: int) -> Encoded:
    """Encode the record of a new span whose payload is in parts.

    Args:
        head: the fields of the record up to the time, with their separators.
        epoch: the epoch of the segment that the record will be appended to.
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
        text: the payload as JSON text.
        value: the decoded payload. Its list elements are shared with other payloads and must not be changed.
        is_suspect: whether the payload may hold a value marked as sensitive (see model.columns).
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
        """Note the list elements in records that are in the storage already: later records may refer to them."""
        for body in bodies:
            if body[:1] == _HISTORY:
                try:
                    self._note(body.decode().split(SEPARATOR))
                except (ValueError, IndexError):  # its bytes are as they were written: a later version's
                    pass

    def payload(self, fields: Sequence[str]) -> Payload:
        """Return the payload of a record of kind H, and note the elements that the record holds.

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
        return Payload(text, value, self._is_suspect or MARK_IN_TEXT in rest)

    def _note(self, fields: Sequence[str]) -> Sequence[str]:
        """Note the elements of a record; return the texts around its lists."""
        end = FIELDS + 2 + len(fields[FIELDS].split(";")) + 1
        numbers, texts = fields[FIELDS + 1], fields[end:]
        self._texts.update(zip(_numbers(numbers) if numbers else (), texts, strict=True))
        self._is_suspect = self._is_suspect or any(MARK_IN_TEXT in text for text in texts)
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
    """Return numbers as a text of ranges, such as `1-25,31-31`."""
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
    """Return the numbers in a text of ranges, such as `1-25,31-31`."""
    found = [(int(first), int(last) + 1) for first, _, last in (each.partition("-") for each in ranges.split(","))]
    return range(*found[0]) if len(found) == 1 else [number for each in found for number in range(*each)]
