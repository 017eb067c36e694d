"""Imports a file of `agentspan export`. New rows are stored unchanged. Stored rows stay, but open ones may be finished.

The storage may have the same agent, version or schema version under another id. Then the imported rows refer to the
stored id.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar, cast

from agentspan import clock, jsontext
from agentspan.api.context import Context
from agentspan.errors import InvalidValue
from agentspan.ids import is_pfid
from agentspan.maintenance import compact_lines
from agentspan.maintenance.compact_lines import Joiner
from agentspan.model.changes import (
    INSTANCE_STATUSES,
    OPEN,
    SPAN_STATUSES,
    Applied,
    Move,
    Outcome,
    Put,
    Refused,
    Unit,
    check_text,
)
from agentspan.model.columns import Column, columns_of
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
from agentspan.schemas.builtin import stored_aggregate
from agentspan.text import one_line

T = TypeVar("T")

BATCH = 500
FIRST_TYPE, VERSION = "agentspan_export", 1
MOST_NAMES = 5
"""How many members of the first line an error names if the file is no export."""
_PIECES = ("payload", "result_payload")
"""The columns of a span that are pieces in the compact form."""
_TYPES: frozenset[ResourceType] = frozenset(
    {"agent", "agent_version", "agent_schema_version", "writer", "agent_instance", "agent_span", "tag", "score"}
)
_FOLLOWS = "is_aggregate"
"""The column that an import derives instead of reading it: it follows from `schema_name` and the payload."""
_STATUSES: dict[type[Row], tuple[str, ...]] = {AgentInstanceRow: INSTANCE_STATUSES, AgentSpanRow: SPAN_STATUSES}
_MANY = (AgentSpanRow, ScoreRow, TagRow)
"""The types whose rows no other row refers to by id, so that they are stored in batches."""
_CLOSED_SETS: dict[type[Row], dict[str, Sequence[str]]] = {
    ScoreRow: {"source": SOURCES, "target_type": ("agent_instance", "agent_span")}
}
"""The columns, by type, that allow a few texts only, and these texts."""
_REFERENCES = ("agent_id", "agent_version_id", "agent_schema_version_id", "agent_instance_id")


class Imported(NamedTuple):
    """The counts of an import.

    Attributes:
        runs, spans: how many runs and spans are new.
        finished: how many runs and spans were stored as pending or active, and have a later status in the import.
        known: how many rows were stored already, and did not change.
    """

    runs: int
    spans: int
    finished: int
    known: int


class _Entry(NamedTuple):
    line: int
    row: Row
    violations: tuple[Violation, ...]


def import_lines(
    ctx: Context, read: Callable[[], Iterable[bytes]], *, most_characters: int = compact_lines.MOST
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
    for _ in _entries(read(), most_characters):
        pass
    return _Import(ctx).run(_entries(read(), most_characters))


class _Import:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._ids: dict[str, str] = {}
        self._runs = self._spans = self._finished = self._known = 0

    def run(self, entries: Iterator[_Entry]) -> Imported:
        """Store all rows: spans, tags and scores in batches, other rows one by one, because their ids may change."""
        batch: list[_Entry] = []
        for entry in entries:
            is_one_of_many = isinstance(entry.row, _MANY)
            if is_one_of_many:
                batch.append(entry)
            else:
                self._apply(batch)
                batch = [entry]
            if len(batch) >= BATCH or not is_one_of_many:
                self._apply(batch)
                batch = []
        self._apply(batch)
        return Imported(self._runs, self._spans, self._finished, self._known)

    def _apply(self, batch: list[_Entry]) -> None:
        if not batch:
            return
        batch = [entry._replace(row=self._renamed(entry.row)) for entry in batch]
        units = [Unit((Put(entry.row, violations=entry.violations),)) for entry in batch]
        outcomes = self._ctx.storage.apply(units, wait_s=self._ctx.wait_s)
        for entry, outcome in zip(batch, outcomes, strict=True):
            self._done(entry, outcome)

    def _renamed(self, row: Row) -> Row:
        changed = {name: self._ids[getattr(row, name)] for name in _REFERENCES if getattr(row, name, None) in self._ids}
        renamed: Row = cast(Any, row)._replace(**changed) if changed else row
        return renamed

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


def _entries(lines: Iterable[bytes], most_characters: int) -> Iterator[_Entry]:
    number = 0
    is_compact = False
    joiner = Joiner(most_characters)
    for number, line in enumerate(lines, start=1):
        data = _parsed(number, line)
        if number == 1:
            is_compact = _check_first(data) == compact_lines.VERSION
        elif is_compact and data is not None and data.get("type") == compact_lines.TYPE:
            _of(number, compact_lines.TYPE, joiner.add, data)
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
    begin = f'{{"type": "{FIRST_TYPE}"}}'
    return f"is {first}: this is no agentspan export, which begins with {begin}; spans of OTLP need --from otlp"


def _check_first(data: dict[str, Any] | None) -> int:
    """Check the first line of an export, and return the version of its form."""
    if data is None or data.get("type") != FIRST_TYPE:
        names = ", ".join(one_line(name, 20) for name in sorted(data or ())[:MOST_NAMES])
        raise _wrong(1, _foreign(f"an object with {names}" if names else "an empty object"))
    version = data.get("version")
    if version not in (VERSION, compact_lines.VERSION):
        raise _wrong(1, "is of a newer agentspan; run: pip install --upgrade agentspan-sqlite")
    return int(version)


def _entry(number: int, data: dict[str, Any], joiner: Joiner | None) -> _Entry:
    type_ = data.get("type")
    if not isinstance(type_, str) or type_ not in _TYPES:
        raise _wrong(number, f"type must be one of {', '.join(sorted(_TYPES))}")
    row_type = ROWS[type_]
    values: dict[str, Any] = {}
    for column in columns_of(type_):
        name, value = column.name, data.get(column.name, column.default)
        if joiner is not None and row_type is AgentSpanRow and name in _PIECES and value is not None:
            values[name] = _object_text(number, name, _of(number, name, joiner.text, value))
        elif name != _FOLLOWS:
            values[name] = _value(number, column, value)
    if not is_pfid(values["id"]):
        raise _wrong(number, "id must be a PFID, 32 characters")
    statuses = _STATUSES.get(row_type)
    if statuses is not None and values["status"] not in statuses:
        raise _wrong(number, f"status must be one of {', '.join(statuses)}")
    for name, allowed in _CLOSED_SETS.get(row_type, {}).items():
        if values[name] not in allowed:
            raise _wrong(number, f"{name} must be one of {', '.join(allowed)}")
    row = row_type(**values)
    if isinstance(row, AgentSpanRow):
        row = row._replace(is_aggregate=stored_aggregate(row.schema_name, row.payload))
    return _Entry(number, row, _violations(number, data.get("violations", [])))


def _object_text(number: int, name: str, text: str) -> str:
    """Check that a text is the JSON of an object, and return it unchanged."""
    try:
        text.encode()
        is_object = isinstance(json.loads(text, parse_constant=_no_constant), dict)
    except (RecursionError, ValueError):
        raise _wrong(number, f"{name} is no JSON") from None
    if not is_object:
        raise _wrong(number, f"{name} must be an object")
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
        return float(value)
    if type(value) is not column.type or (type(value) is int and not -(2**63) <= value < 2**63):
        raise _wrong(number, f"{name} has the wrong type")
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
