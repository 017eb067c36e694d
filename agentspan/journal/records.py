"""The format of a record in a segment, and a reader that continues after damage.

A record is a header of 20 bytes (magic, length of the body, sequence number, CRC), then the body. The CRC is that of
the body, begun with length and number, so that it stands for the header as well: one of the header's own would tell
nothing more, and cost 0.3 µs. Sequence numbers grow by one from record to record, so that old records behind the end
are known as such, and missing ones are counted.

Zeros end what was appended: they stand where the next header will. It is copied there last, by two instructions of the
processor, and only the second one copies its CRC. A program that is killed between the two leaves a header without a
CRC. Its record was not acknowledged: the call that appended it had not returned.

Begins and ends that a foreign instrumentor told are kept as it told them, and read when their record is drained:
reading one costs more than all the rest of a span (0.1 ms, where a recorded call costs 7 µs). A begin whose end comes
in the same batch is not read at all.
"""

import struct
from collections.abc import Iterator
from importlib import import_module
from typing import Any, NamedTuple
from zlib import crc32

from agentspan import forks, jsontext
from agentspan.model.changes import Change, Move, Over, Put, Unit, overs
from agentspan.model.rows import ROWS, TYPE_OF, AgentSchemaVersionRow, AgentSpanRow, Violation
from agentspan.model.status import FinishStatus
from agentspan.schemas.aggregates import stored_aggregate

SEPARATOR = "\x1f"
CREATED, HISTORY, STARTED, UPDATED, FINISHED, UNIT = "C", "H", "S", "U", "F", "X"
"""C id instance_id agent_id parent_span_id schema_name status at_ns payload; H the same with a payload in parts (see
parts); S id at_ns; U id at_ns payload; F id status at_ns elapsed_ns result_payload; X and a unit as JSON."""
FINISHED_AS, RAW_BEGIN, RAW_END = "T", "N", "W"
"""T id status at_ns elapsed_ns result_payload schema_name payload: an end that tells the type and the payload, too.
N id instance_id agent_id parent_span_id at_ns reader text, and W id at_ns elapsed_ns reader text: a begin and an end
that are read when they are drained (see raw_records). `agent_id` is empty where the storage has not said yet which
agent the run has."""
REGISTRATION = "R"
"""R and a unit as JSON, which registers or renames a run. It puts the agent, the version and the schema version that it
names, which may be stored already, under other ids. The content of the schema version is empty if an earlier record of
the segment has it."""


def encode_unit(unit: Unit) -> str:
    """Encode a unit as the body of a record. Recorders make units without a key.

    Raises:
        ValueError: a change is neither a Put nor a Move without `unchanged`.
    """
    return UNIT + SEPARATOR + _encoded(unit)


def encode_registration(unit: Unit, *, with_content: bool) -> str:
    """Encode a unit that registers or renames a run.

    Args:
        with_content: write the content of the schema version (8 kB, of which most is the built-in types).
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
    """Decode a unit."""
    subject, changes = jsontext.decode(text)
    return Unit(tuple(_change(*change) for change in changes), subject)


def _change(kind: str, type_: Any, *fields: Any) -> Change:
    if kind == "put":
        values, violations, minted = fields
        # Not _make: an older version's row ends before the columns that were added since, which have defaults.
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
"""Folds a number of 64 bits into the 32 that a CRC can begin with; no bit of it goes by unseen."""


class Record(NamedTuple):
    """One record: its number, its body, and where the next one begins."""

    sequence: int
    body: bytes
    end: int


class Gap(NamedTuple):
    """A place where something cannot be read.

    Attributes:
        start: where that begins.
        end: where reading goes on; the end of the segment when nothing comes after it.
        missing: how many records that were, as far as the numbers tell; None at the end.
    """

    start: int
    end: int
    missing: int | None


def header(body: bytes, sequence: int) -> bytes:
    """Return the header of a body (0.4 µs)."""
    return pack(MAGIC, len(body), sequence, crc32(body, len(body) ^ sequence % PRIME))


def read(data: bytes, start: int, *, after: int | None = None) -> Iterator[Record | Gap]:
    """Yield the records of a segment from a place on, in order, and the gaps between them.

    Args:
        data: the whole segment.
        start: where the first record begins.
        after: the number of the record before that, where it is known.
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
    """The bodies in a part of a segment, the position of the first record that is not among them, the last number."""

    bodies: list[bytes]
    end: int
    last: int


def bodies(data: bytes) -> Bodies:
    """Read the records of a process's own segment, from the start of one on; the last one may be cut off.

    Checksums are not verified (0.7 µs each): it is this process's own memory. A hole, where the program was interrupted
    in the middle of a record, is skipped.
    """
    found: list[bytes] = []
    position, last, size = 0, 0, len(data)
    while position + HEADER <= size:
        magic, length, sequence, _ = _unpack(data, position)
        if magic != MAGIC:
            following = _next(data, position, None)
            if following is None:  # the last record may be cut off here, too
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
    """Return where a record begins, behind a place, whose end the data does not have; the end of the data if none."""
    size, place = len(data), position
    while (place := data.find(MAGIC, place + 1)) >= 0:
        if place + HEADER > size or place + length_of(data[place : place + HEADER]) > size:
            return place
    starts = (size - length for length in range(len(MAGIC) - 1, 0, -1))
    return next((start for start in starts if start > position and MAGIC.startswith(data[start:])), size)


def length_of(head: bytes) -> int:
    """Return the size of the record with this header, in bytes; 0 if it is no header."""
    magic, length, _, _ = _unpack(head)
    return HEADER + int(length) if magic == MAGIC else 0


def _record(data: bytes, position: int) -> Record | None:
    """Return the record at a place, or None if none begins there, or it is damaged."""
    start = position + HEADER
    if start > len(data) or data[position : position + 4] != MAGIC:
        return None
    _, length, sequence, checksum = _unpack(data, position)
    body = data[start : start + length]
    if len(body) != length or crc32(body, length ^ sequence % PRIME) != checksum:
        return None
    return Record(sequence, body, start + length)


def _ends(data: bytes, position: int) -> bool:
    """Return whether nothing was appended at a place, or a record that was never whole.

    After a power failure, zeros stand from the begin of a page on that did not come to the disk any more.
    """
    magic, crc = data[position : position + 4], data[position + 16 : position + HEADER]
    if not any(magic) or (magic == MAGIC and len(crc) == 4 and not any(crc)):
        return True
    end = position + length_of(data[position : position + HEADER].ljust(HEADER, b"\0"))
    written = len(data.rstrip(b"\0"))
    page = written + -written % PAGE
    return position < page < end and page - written < HEADER


def _next(data: bytes, position: int, last: int | None) -> tuple[int, Record] | None:
    """Find the next whole record that is newer than the last one."""
    place = position + 1
    while (place := data.find(MAGIC, place)) >= 0:
        record = _record(data, place)
        if record is not None and (last is None or record.sequence > last):
            return place, record
        place += 1
    return None


_READERS = {"otel": "agentspan.otel.sdk"}
"""The module of each reader, by its name in records. It has the functions `begin` and `end`. It is imported when it is
needed: a process that recovers the journal of another one may never have recorded such spans."""


class Begin(NamedTuple):
    """The begin of a span: its type, which may be a guess, and its payload as JSON text."""

    schema_name: str
    payload: str


class End(NamedTuple):
    """The end of a span, with the type and the payload that were learnt by then.

    Attributes:
        payload, result: as JSON text; `result` is None if nothing came out.
    """

    schema_name: str
    status: FinishStatus
    payload: str
    result: str | None


def read_begin(reader: str, text: str) -> Begin:
    """Return the begin that a text tells.

    Raises:
        LookupError: a reader that this version does not have.
    """
    found: Begin = _module(reader).begin(text)
    return found


def read_end(reader: str, text: str) -> End:
    """Return the end that a text tells.

    Raises:
        LookupError: a reader that this version does not have.
    """
    found: End = _module(reader).end(text)
    return found


def _module(reader: str) -> Any:
    with forks.importing:
        return import_module(_READERS[reader])
