"""The format of a record in a segment, and a reader that continues after damage.

A record is a header of 20 bytes (magic, length of the body, sequence number, CRC), then the body. The CRC covers the
body and starts from the length and the number, so it protects the header, too. A second CRC for the header would detect
nothing more, and cost 0.3 µs. Sequence numbers grow by one from record to record. So old records behind the end are
recognized, and missing records are counted.

Zeros in place of the next header mark the end of the segment. A header is copied last, by two instructions of the
processor, and only the second one copies its CRC. A program that is killed between the two instructions leaves a header
without a CRC. Its record was never acknowledged: the call that appended it had not returned.

The begin and the end of a span from a foreign instrumentor are stored as raw text, and parsed when their record is
drained. Parsing costs more than the rest of a span (0.1 ms, where a recorded call costs 7 µs). A begin whose end is in
the same batch is not parsed at all.

Payloads in parts: an agent sends its whole history with every call. A record of kind H holds only the new elements of
the history, and numbers for the rest. A record refers only to its own segment, so that each file of a journal can be
read alone. A new or reused segment has a new epoch, in which no element is known. The fields of H are the fields of C
up to the time, then: the numbers of each list's elements (`1-24,30-30;7-9`), the numbers of the elements that this
record holds, the texts around the lists, and the texts of the held elements.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from itertools import count
from typing import Any, NamedTuple
from zlib import crc32

from agentspan import host, jsontext
from agentspan.jsontext import LIST, LIST_TEXT, TextInParts, joined
from agentspan.model.changes import Change, FinishStatus, Move, Over, Put, Unit, overs
from agentspan.model.columns import MARK_IN_TEXT
from agentspan.model.rows import ROWS, TYPE_OF, AgentSchemaVersionRow, AgentSpanRow, Violation
from agentspan.schemas.builtin import stored_aggregate

SEPARATOR = "\x1f"
CREATED, HISTORY, STARTED, UPDATED, FINISHED, UNIT = "C", "H", "S", "U", "F", "X"
"""The fields of each kind of record.

C id instance_id agent_id parent_span_id schema_name status at_ns payload; H: the fields of C with a payload in parts; S
id at_ns; U id at_ns payload; F id status at_ns elapsed_ns result_payload; X and a unit as JSON."""
FINISHED_AS, RAW_BEGIN, RAW_END = "T", "N", "W"
"""T id status at_ns elapsed_ns result_payload schema_name payload: an end that also has the type and the payload.
N id instance_id agent_id parent_span_id at_ns reader text, and W id at_ns elapsed_ns reader text: a raw begin and a raw
end, whose `text` is parsed by `reader` when the record is drained. `agent_id` is empty until the storage has confirmed
the agent of the run."""
REGISTRATION = "R"
"""R and a unit as JSON, which registers or renames a run. The unit puts an agent, a version and a schema version, which
may be stored already under other ids. The content of the schema version is empty if an earlier record of the segment
has it."""


def encode_unit(unit: Unit) -> str:
    """Encode a unit, without its key, as the body of a record.

    Raises:
        ValueError: a change is neither a Put nor a Move without `unchanged`.
    """
    return UNIT + SEPARATOR + _encoded(unit)


def encode_registration(unit: Unit, *, with_content: bool) -> str:
    """Encode a unit that registers or renames a run.

    Args:
        with_content: write the content of the schema version (8 kB, mostly the built-in types).
    """
    if not with_content:
        changes = [
            change._replace(row=change.row._replace(span_type_schemas="", quality_schemas=None))
            if isinstance(change, Put) and isinstance(change.row, AgentSchemaVersionRow)
            else change
            for change in unit.changes
        ]
        unit = unit._replace(changes=tuple(changes))
    return REGISTRATION + SEPARATOR + _encoded(unit)


def _encoded(unit: Unit) -> str:
    changes: list[Any] = []
    for change in unit.changes:
        if isinstance(change, Put):
            changes.append(["put", TYPE_OF[type(change.row)], change.row, change.violations, change.minted])
        elif isinstance(change, Move) and not change.unchanged:
            over = [[sorted(each.leaves), dict(each.set)] for each in overs(change)]
            changes.append(["move", change.type, change.id, sorted(change.leaves), dict(change.set), over])
        else:
            raise ValueError("only rows to put and to move go through a journal")
    return jsontext.encode([unit.subject, changes])[0]


def decode_unit(text: str) -> Unit:
    """Decode the JSON text of a unit."""
    subject, changes = jsontext.decode(text)
    return Unit(tuple(_change(*change) for change in changes), subject)


def _change(kind: str, type_: Any, *fields: Any) -> Change:
    if kind == "put":
        values, violations, minted = fields
        # Not _make, which needs all columns: a row by an older version lacks new columns, which have defaults.
        row = ROWS[type_](*values)
        if isinstance(row, AgentSpanRow):
            row = row._replace(is_aggregate=stored_aggregate(row.schema_name, row.payload))
        return Put(row, (), tuple(Violation(*each) for each in violations), minted)
    id, leaves, values, over = fields
    return Move(type_, id, frozenset(leaves), values, over=tuple(Over(frozenset(of), to) for of, to in over))


MAGIC = b"\xa9sp\x1e"
HEADER = 20
END = bytes(HEADER)
PAGE = 4096

_FIELDS = struct.Struct("<4sIQI")
pack = _FIELDS.pack
_unpack = _FIELDS.unpack_from
PRIME = 4294967291
"""Folds a sequence number of 64 bits into the 32 bits that a CRC can start from. Each of the 64 bits counts."""


class Record(NamedTuple):
    """One record: its number, its body, and where the next one begins."""

    sequence: int
    body: bytes
    end: int


class Gap(NamedTuple):
    """A damaged range of a segment, in which no record can be read.

    Attributes:
        start: the position of its first byte.
        end: the position of the next readable record, or the end of the segment.
        missing: how many records are lost, by the sequence numbers around the gap; None if the number is not known.
    """

    start: int
    end: int
    missing: int | None


def header(body: bytes, sequence: int) -> bytes:
    """Return the header of a body (0.4 µs)."""
    return pack(MAGIC, len(body), sequence, crc32(body, len(body) ^ sequence % PRIME))


def read(data: bytes, start: int, *, after: int | None = None) -> Iterator[Record | Gap]:
    """Yield the records of a segment from a position on, in order, and the gaps between them.

    Args:
        data: the whole segment.
        start: the position of the first record to read.
        after: the number of the record before `start`; None if it is not known.
    """
    position, last = start, after
    while True:
        record = _record(data, position)
        if record is None or (last is not None and record.sequence <= last):
            found = _next(data, position, last)
            if found is None:
                if record is None and not _ends(data, position):
                    yield Gap(position, len(data), None)
                return
            place, record = found
            yield Gap(position, place, None if last is None else record.sequence - last - 1)
        elif last is not None and record.sequence != last + 1:
            yield Gap(position, position, record.sequence - last - 1)
        yield record
        position, last = record.end, record.sequence


class Bodies(NamedTuple):
    """The record bodies in a part of a segment, the position behind them, and the number of the last record."""

    bodies: list[bytes]
    end: int
    last: int


def bodies(data: bytes) -> Bodies:
    """Return the bodies in bytes of this process's own segment, which start with a record. Skip a cut-off last record.

    Checksums are not verified (0.7 µs each), because the bytes come from this process's own memory. A hole is skipped:
    it stays where a signal handler interrupted an append.
    """
    found: list[bytes] = []
    position, last, size = 0, 0, len(data)
    while position + HEADER <= size:
        magic, length, sequence, _ = _unpack(data, position)
        if magic != MAGIC:
            following = _next(data, position, None)
            if following is None:  # a cut-off record may follow the hole
                return Bodies(found, _cut_off(data, position), last)
            position = following[0]
            continue
        start = position + HEADER
        if start + length > size:
            break
        found.append(data[start : start + length])
        position, last = start + length, sequence
    return Bodies(found, position, last)


def _cut_off(data: bytes, position: int) -> int:
    """Return the position of a cut-off record behind `position`; the end of the data if there is no such record."""
    size, place = len(data), position
    while (place := data.find(MAGIC, place + 1)) >= 0:
        if place + HEADER > size or place + length_of(data[place : place + HEADER]) > size:
            return place
    starts = (size - length for length in range(len(MAGIC) - 1, 0, -1))
    return next((start for start in starts if start > position and MAGIC.startswith(data[start:])), size)


def length_of(head: bytes) -> int:
    """Return the size in bytes of the record with this header, header included; 0 if the bytes are no header."""
    magic, length, _, _ = _unpack(head)
    return HEADER + int(length) if magic == MAGIC else 0


def _record(data: bytes, position: int) -> Record | None:
    """Return the record at a position; None if no record begins at it, or the record is damaged."""
    start = position + HEADER
    if start > len(data) or data[position : position + 4] != MAGIC:
        return None
    _, length, sequence, checksum = _unpack(data, position)
    body = data[start : start + length]
    if len(body) != length or crc32(body, length ^ sequence % PRIME) != checksum:
        return None
    return Record(sequence, body, start + length)


def _ends(data: bytes, position: int) -> bool:
    """Return whether a position is the end of a segment: it has zeros, or a record that was never completed.

    After a power failure, a page that did not reach the disk is all zeros.
    """
    magic, crc = data[position : position + 4], data[position + 16 : position + HEADER]
    if not any(magic) or (magic == MAGIC and len(crc) == 4 and not any(crc)):
        return True
    end = position + length_of(data[position : position + HEADER].ljust(HEADER, b"\0"))
    written = len(data.rstrip(b"\0"))
    page = written + -written % PAGE
    return position < page < end and page - written < HEADER


def _next(data: bytes, position: int, last: int | None) -> tuple[int, Record] | None:
    """Return the next undamaged record with a number above `last`, and its position; None if there is none."""
    place = position + 1
    while (place := data.find(MAGIC, place)) >= 0:
        record = _record(data, place)
        if record is not None and (last is None or record.sequence > last):
            return place, record
        place += 1
    return None


_READERS = {"otel": "agentspan.otel.raw_spans"}
"""The module of each parser of raw begins and ends, by the reader name in records.

Each module has the functions `begin` and `end`, which return the fields of Begin and End. It is imported at the first
raw record: a process that recovers the journal of another process may never have imported it."""


class Begin(NamedTuple):
    """The begin of a span: its type, which the end may correct, and its payload as JSON text."""

    schema_name: str
    payload: str


class End(NamedTuple):
    """The end of a span, with its final type and payload.

    Attributes:
        payload, result: JSON texts; `result` is None if the span has no result.
    """

    schema_name: str
    status: FinishStatus
    payload: str
    result: str | None


def read_begin(reader: str, text: str) -> Begin:
    """Parse the raw text of a begin with the reader of this name.

    Raises:
        LookupError: this version has no such reader.
    """
    return Begin(*_module(reader).begin(text))


def read_end(reader: str, text: str) -> End:
    """Parse the raw text of an end with the reader of this name.

    Raises:
        LookupError: this version has no such reader.
    """
    return End(*_module(reader).end(text))


def _module(reader: str) -> Any:
    with host.importing:
        return import_module(_READERS[reader])


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
