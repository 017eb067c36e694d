"""Exports runs as lines of JSON, for another file or another program, and imports such lines unchanged.

The first line identifies the format. Each further line is one row: the columns of its table and its `type`. A row comes
after all rows that it refers to. JSON columns are JSON; the violations of a span are a further member. A run is
followed by its tags, all its scores, and its spans. The first line announces the last one, which counts runs and spans:
an import reports a file that was cut at the end of a line. Several exports may follow one another in a file.

In the compact form, parts that payloads of a run repeat are written once. A payload is a list of pieces that join to
its JSON text. A piece is a text, the number of a part, or a pair such as `[1, 25]` for the parts from 1 to 25 with
commas between them. Within a run, list elements are numbered from 1 up, and long texts from -1 down: with common
numbers, a text between elements would end a range. A line before a span has its new parts,
`{"type": "parts", "elements": [...], "texts": [...]}`.

An import stores new rows unchanged. Stored rows stay, but open ones may be finished. The storage may have the same
agent, version or schema version under another id. Then the imported rows refer to the stored id.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import chain, islice
from typing import Any, NamedTuple, TypeVar

from agentspan import clock, jsontext
from agentspan.api.context import Context
from agentspan.errors import InvalidValue
from agentspan.ids import is_pfid
from agentspan.maintenance.copying_rows import renamed
from agentspan.model.changes import (
    INSTANCE_STATUSES,
    NUL,
    OPEN,
    SPAN_STATUSES,
    Applied,
    Move,
    Outcome,
    Put,
    PutSpans,
    Refused,
    Unit,
    check_text,
)
from agentspan.model.columns import Column, columns_of, json_columns
from agentspan.model.rows import (
    REFERENCES,
    ROWS,
    TYPE_OF,
    AgentInstanceRow,
    AgentSpanRow,
    ResourceType,
    Row,
    ScoreRow,
    TagRow,
    Violation,
    instance_of,
)
from agentspan.model.scores import SOURCES
from agentspan.schemas import aliases
from agentspan.schemas.builtin import stored_aggregate
from agentspan.storage.access import instances, scan
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find, SpansOf, Violations
from agentspan.storage.row_by_row import history
from agentspan.storage.text_search import parts_of
from agentspan.text import one_line

T = TypeVar("T")

BATCH = 500
"""The number of spans in memory at a time, whose violations are read together."""
FIRST = {"type": "agentspan_export", "version": 1}
HAS_END = {"has_end": True}
"""What the first line has if a last one follows. Lines of other programs, without it, need no last one."""
END = "agentspan_export_end"
COMPACT_VERSION = 2
"""The version of an export in the compact form; an export with whole payloads has version 1."""
PARTS = "parts"
SHORT_PART = 200
"""The most characters of a known part that is written again to continue a range: naming the old part would end it."""
MOST_CHARACTERS = 2**28
"""The most characters of a joined payload: a small file could name a large part a million times."""


def lines(storage: Storage, run_ids: Sequence[str], *, compact: bool = False) -> Iterator[str]:
    """Yield the lines of an export of runs, in ASCII, without line ends.

    Args:
        compact: write repeated text of payloads once per run.
    """
    yield json.dumps({**FIRST, **({"version": COMPACT_VERSION} if compact else {}), **HAS_END})
    written: set[str] = set()
    runs = total = 0
    for run in instances(storage, run_ids):
        runs += 1
        needed = (run.agent_id, run.agent_version_id, run.agent_schema_version_id, run.writer_id)
        yield from _once(storage, written, *needed, run.id)
        kept: Iterable[TagRow | ScoreRow] = chain(
            scan(storage, TagRow, {"agent_instance_id": run.id}), history(storage, run.id)
        )
        for row in kept:
            yield _line(TYPE_OF[type(row)], row, {})
        spans = storage.ask(SpansOf(run.id))
        cutter = Cutter() if compact else None
        while batch := list(islice(spans, BATCH)):
            found = storage.ask(Violations([span.id for span in batch], instance_id=run.id))
            total += len(batch)
            for span in batch:
                yield from _once(storage, written, span.writer_id)
                violations = [violation._asdict() for violation in found[span.id]]
                more: dict[str, Any] = {"violations": violations} if violations else {}
                if cutter is not None:
                    for name in _PIECES:
                        text = getattr(span, name)
                        more[name] = None if text is None else cutter.pieces(text)
                    if (new := cutter.line()) is not None:
                        yield json.dumps(new)
                yield _line("agent_span", span, more)
    yield json.dumps({"type": END, "runs": runs, "spans": total})


def _once(storage: Storage, written: set[str], *ids: str | None) -> Iterator[str]:
    for id in ids:
        if id is not None and id not in written:
            written.add(id)
            located = storage.ask(Find(id)).rows.get(id)
            if located is not None:
                yield _line(*located, {})


def _line(type_: ResourceType, row: Row, more: dict[str, Any]) -> str:
    of_json = json_columns(type_)
    values = {
        name: jsontext.decode(value) if name in of_json and isinstance(value, str) else value
        for name, value in row._asdict().items()
        if name not in more
    }
    return json.dumps({"type": type_, **values, **more})


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
        return {"type": PARTS, "elements": elements, "texts": texts} if elements or texts else None


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
        if known and not (previous and previous == self._last and len(text) <= SHORT_PART):
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

    def __init__(self, most: int = MOST_CHARACTERS) -> None:
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


MOST_NAMES = 5
"""How many members of the first line an error names if the file is no export."""
_PIECES = ("payload", "result_payload")
"""The columns of a span that are pieces in the compact form."""
_TYPES: frozenset[ResourceType] = frozenset(
    {"agent", "agent_version", "agent_schema_version", "writer", "agent_instance", "agent_span", "tag", "score"}
)
_FOLLOWS = "is_aggregate"
"""The column that an import derives instead of reading it: it follows from `schema_name` and the payload."""
_MANY = (AgentSpanRow, ScoreRow, TagRow)
"""The types whose rows no other row refers to by id, so that they are stored in batches."""
_CLOSED_SETS: dict[type[Row], dict[str, Sequence[str]]] = {
    AgentInstanceRow: {"status": INSTANCE_STATUSES},
    AgentSpanRow: {"status": SPAN_STATUSES},
    ScoreRow: {"source": SOURCES, "target_type": ("agent_instance", "agent_span")},
}
"""The columns, by type, that allow a few texts only, and these texts."""


class Imported(NamedTuple):
    """The counts of an import.

    Attributes:
        runs, spans: how many runs and spans are new.
        finished: how many runs and spans were stored as pending or active, and have a later status in the import.
        known: how many rows were stored already, and did not change.
        is_cut: whether lines of the export are missing: the last one, or some of the runs and spans that it counts.
    """

    runs: int
    spans: int
    finished: int
    known: int
    is_cut: bool = False


class _Entry(NamedTuple):
    line: int
    row: Row
    violations: tuple[Violation, ...]


def import_lines(
    ctx: Context, read: Callable[[], Iterable[bytes]], *, most_characters: int = MOST_CHARACTERS
) -> Imported:
    """Import the lines of an export. Idempotent: importing twice stores each row once.

    Args:
        read: returns the lines from the first on at each call. It is called twice, because all lines are checked
            before one is stored.
        most_characters: the most characters of a payload in a compact export.

    Raises:
        InvalidValue: a line does not have the form of an export; the message has its number. Nothing is stored then.
            But if only the storage can find the fault (a reference to a missing row), the lines before it are stored.
    """
    counted = _Counted()
    for entry in _entries(read(), most_characters, counted):
        counted.add(entry.row)
    done = _Import(ctx).run(_entries(read(), most_characters, _Counted()))
    return done._replace(is_cut=counted.is_cut or counted.needs_end)


class _Counted:
    """Counts the runs and spans of an export, and compares them with its last line.

    Attributes:
        needs_end: whether the first line has announced a last one, which has not come yet.
        is_cut: whether an export before had no last line, or fewer runs or spans than its last line says.
    """

    def __init__(self) -> None:
        self.needs_end = self.is_cut = False
        self._runs = self._spans = 0

    def add(self, row: Row) -> None:
        """Count a row."""
        self._runs += isinstance(row, AgentInstanceRow)
        self._spans += isinstance(row, AgentSpanRow)

    def begin(self, first: dict[str, Any]) -> None:
        """Begin to count anew at the first line of an export."""
        self.is_cut |= self.needs_end
        self.needs_end = first.get("has_end") is True
        self._runs = self._spans = 0

    def end(self, last: dict[str, Any]) -> None:
        """Compare the counts with the last line of an export.

        Raises:
            ValueError: the line has no counts.
        """
        runs, spans = last.get("runs"), last.get("spans")
        if type(runs) is not int or type(spans) is not int:
            raise ValueError("must have runs and spans, two numbers")
        self.is_cut |= self._runs < runs or self._spans < spans
        self.needs_end = False


class _Import:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._ids: dict[str, str] = {}
        self._runs = self._spans = self._finished = self._known = 0

    def run(self, entries: Iterator[_Entry]) -> Imported:
        """Store all rows: spans, tags and scores in batches, other rows one by one, because their ids may change."""
        batch: list[_Entry] = []
        for entry in entries:
            if batch and (type(entry.row) is not type(batch[0].row) or len(batch) >= BATCH):
                self._apply(batch)
                batch = []
            batch.append(entry)
            if not isinstance(entry.row, _MANY):
                self._apply(batch)
                batch = []
        self._apply(batch)
        return Imported(self._runs, self._spans, self._finished, self._known)

    def _apply(self, batch: list[_Entry]) -> None:
        if not batch:
            return
        if self._ids:
            batch = [entry._replace(row=renamed(entry.row, self._ids)) for entry in batch]
        if isinstance(batch[0].row, AgentSpanRow) and self._are_new(batch):
            self._spans += len(batch)
            return
        units = [Unit((Put(entry.row, violations=entry.violations),)) for entry in batch]
        outcomes = self._ctx.storage.apply(units, wait_s=self._ctx.wait_s)
        for entry, outcome in zip(batch, outcomes, strict=True):
            self._done(entry, outcome)

    def _are_new(self, batch: list[_Entry]) -> bool:
        """Store spans with one statement for many; return False, with nothing stored, if one is known or in the way."""
        violations = [(entry.row.id, violation) for entry in batch for violation in entry.violations]
        put = PutSpans([entry.row for entry in batch if isinstance(entry.row, AgentSpanRow)], violations)
        return isinstance(self._ctx.storage.apply([Unit((put,))], wait_s=self._ctx.wait_s)[0], Applied)

    def _done(self, entry: _Entry, outcome: Outcome) -> None:
        row = entry.row
        if isinstance(outcome, Applied):
            self._runs += isinstance(row, AgentInstanceRow)
            self._spans += isinstance(row, AgentSpanRow)
            return
        assert isinstance(outcome, Refused)  # no keys are used
        stored = outcome.stored
        if outcome.why == "not_unique" and stored is not None and not isinstance(row, AgentInstanceRow):
            self._ids[row.id] = stored.id
        elif outcome.why == "not_unique":
            raise _wrong(entry.line, "another run of this agent has its external_identifier")
        elif outcome.why == "missing":
            raise _wrong(entry.line, "refers to a row that is neither before it nor stored")
        elif type(stored) is not type(row):
            raise _wrong(entry.line, f"its id is used by another {_noun(stored)}")
        elif self._is_newer(row, stored) and self._finish(entry, stored):
            self._finished += 1
            return
        self._known += 1

    def _is_newer(self, row: Row, stored: Row | None) -> bool:
        return (
            isinstance(row, (AgentInstanceRow, AgentSpanRow))
            and isinstance(stored, (AgentInstanceRow, AgentSpanRow))
            and stored.status in OPEN
            and row.status != stored.status
            and row.status != "pending"
        )

    def _finish(self, entry: _Entry, stored: Row | None) -> bool:
        row = entry.row
        fixed = {"id", "inserted_at", *REFERENCES.get(TYPE_OF[type(row)], ())}
        values = {
            name: value for name, value in row._asdict().items() if name not in fixed and value != getattr(stored, name)
        }
        leaves = frozenset({getattr(stored, "status", "")})
        run_id = None if stored is None else instance_of(stored)
        move = Move(TYPE_OF[type(row)], row.id, leaves, values, entry.violations, instance_id=run_id)
        return isinstance(self._ctx.storage.apply([Unit((move,))], wait_s=self._ctx.wait_s)[0], Applied)


def _noun(row: Row | None) -> str:
    return "resource" if row is None else TYPE_OF[type(row)].replace("_", " ")


def _wrong(line: int, what: str) -> InvalidValue:
    return InvalidValue(f"line {line}", what)


def _entries(lines: Iterable[bytes], most_characters: int, counted: _Counted) -> Iterator[_Entry]:
    number = 0
    is_compact = False
    joiner = Joiner(most_characters)
    for number, line in enumerate(lines, start=1):
        data = _parsed(number, line)
        if number == 1 or (data is not None and data.get("type") == FIRST["type"]):
            is_compact = _check_first(data, number)
            counted.begin(data or {})
        elif data is not None and data.get("type") == END:
            _of(number, END, counted.end, data)
        elif is_compact and data is not None and data.get("type") == PARTS:
            _of(number, PARTS, joiner.add, data)
        elif data is not None:
            if data.get("type") == "agent_instance":
                joiner = Joiner(most_characters)
            yield _entry(number, data, joiner if is_compact else None)
    if number == 0:
        raise _wrong(1, "is missing: the file is empty")


def _parsed(number: int, line: bytes) -> dict[str, Any] | None:
    if not line.strip() and number > 1:
        return None
    try:
        data = json.loads(line)
    except (RecursionError, UnicodeDecodeError, ValueError):
        raise _wrong(number, "is no JSON" if number > 1 else _foreign("no JSON")) from None
    if not isinstance(data, dict):
        raise _wrong(number, "is no JSON object")
    return data


def _of(number: int, name: str, call: Callable[[Any], T], value: Any) -> T:
    try:
        return call(value)
    except ValueError as error:
        raise _wrong(number, f"{name} {error}") from None


def _foreign(first: str) -> str:
    """Return the error message for a file that is no export. `first` describes its first line, without values."""
    begin = f'{{"type": "{FIRST["type"]}"}}'
    return f"is {first}: this is no agentspan export, which begins with {begin}; spans of OTLP need --from otlp"


def check_is_export(first: bytes) -> None:
    """Check that a line is the first one of an export.

    Raises:
        InvalidValue: it is none, or that of a newer version.
    """
    if not first:
        raise _wrong(1, "is missing: the file is empty")
    _check_first(_parsed(1, first))


def _check_first(data: dict[str, Any] | None, number: int = 1) -> bool:
    """Check the first line of an export, and return whether it is in the compact form."""
    if data is None or data.get("type") != FIRST["type"]:
        names = ", ".join(one_line(name, 20) for name in sorted(data or ())[:MOST_NAMES])
        raise _wrong(1, _foreign(f"an object with {names}" if names else "an empty object"))
    version = data.get("version")
    if version not in (FIRST["version"], COMPACT_VERSION):
        raise _wrong(number, "is of a newer agentspan; install a newer one")
    return bool(version == COMPACT_VERSION)


def _entry(number: int, data: dict[str, Any], joiner: Joiner | None) -> _Entry:
    type_ = data.get("type")
    if not isinstance(type_, str) or type_ not in _TYPES:
        raise _wrong(number, f"type must be one of {', '.join(sorted(_TYPES))}")
    row_type = ROWS[type_]
    values: dict[str, Any] = {}
    get, has_pieces = data.get, joiner is not None and row_type is AgentSpanRow
    for column in columns_of(type_):
        name, of, nullable, holds, default = column
        value = get(name, default)
        if value is None and nullable:
            values[name] = None
        elif holds is None and of is str and type(value) is str and value.isascii() and NUL not in value:
            values[name] = value  # the common case
        elif has_pieces and name in _PIECES and value is not None:
            assert joiner is not None
            values[name] = _json_text(number, column, _of(number, name, joiner.text, value))
        elif name != _FOLLOWS:
            values[name] = _value(number, column, value)
    for name in ("id", "parent_span_id", "target_id"):
        if values.get(name) is not None and not is_pfid(values[name]):
            raise _wrong(number, f"{name} must be a PFID, 32 characters")
    if values.get("target_type") == "agent_instance" and values["target_id"] != values["agent_instance_id"]:
        raise _wrong(number, "target_id must be agent_instance_id")
    for name, allowed in _CLOSED_SETS.get(row_type, {}).items():
        if values[name] not in allowed:
            raise _wrong(number, f"{name} must be one of {', '.join(allowed)}")
    row = row_type(**values)
    if isinstance(row, AgentSpanRow):
        row = row._replace(is_aggregate=stored_aggregate(row.schema_name, row.payload))
    return _Entry(number, row, _violations(number, data.get("violations", [])))


def _json_text(number: int, column: Column, text: str) -> str:
    """Check that a text is JSON that the column may hold, and return it unchanged."""
    try:
        text.encode()
        value = json.loads(text, parse_constant=_no_constant)
    except (RecursionError, ValueError):
        raise _wrong(number, f"{column.name} is no JSON") from None
    if column.holds == "object" and not isinstance(value, dict):
        raise _wrong(number, f"{column.name} must be an object")
    return text


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _value(number: int, column: Column, value: Any) -> Any:
    """Check the value of a column in an export, and return it in the form in which it is stored."""
    name, holds = column.name, column.holds
    if value is None:
        if column.nullable:
            return None
        raise _wrong(number, f"{name} is missing")
    if column.is_json:
        if holds != "json" and not isinstance(value, dict if holds == "object" else list):
            raise _wrong(number, f"{name} must be {'an object' if holds == 'object' else 'a list'}")
        try:
            return jsontext.encode(value)[0]
        except ValueError as error:
            raise _wrong(number, f"{name} {error}") from None
    if holds == "time":
        try:
            return clock.parse(value)
        except ValueError as error:
            raise _wrong(number, f"{name} is {error}") from None
    if column.type is float and type(value) in (int, float) and abs(value) <= 1e300:
        return aliases.cost(value) if name == "cost_usd" else float(value)
    if type(value) is not column.type or (type(value) is int and not -(2**63) <= value < 2**63):
        raise _wrong(number, f"{name} has the wrong type")
    if type(value) is int and name.endswith("_tokens"):
        return aliases.count(value)  # as of a span that is recorded
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _wrong(number, f"{name} holds half a character") from None
        check_text(f"line {number}: {name}", value)
    return value


def _violations(number: int, items: Any) -> tuple[Violation, ...]:
    if not isinstance(items, list):
        raise _wrong(number, "violations must be a list")
    found = []
    for item in items:
        if not isinstance(item, dict) or any(not isinstance(item.get(name), str) for name in Violation._fields):
            raise _wrong(number, "a violation must have side, path, keyword and message")
        if item["side"] not in ("payload", "result_payload"):
            raise _wrong(number, "a violation's side must be payload or result_payload")
        found.append(Violation._make(check_text(f"line {number}: {name}", item[name]) for name in Violation._fields))
    return tuple(found)
