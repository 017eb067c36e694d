"""The columns of each table, read from its row class, and the values in them that a client marks as sensitive.

A marked value is a *wrapper*: `{"$sensitive": "string", "labels": ["email"], "value": "mia@example.com"}`. The form is
the API's `sensitive_encoding`: `$sensitive` is the value's type, `labels` says what kind of value it is. A wrapper is
stored with its type and labels, and with REDACTED in the place of its value. Schemas and templates describe the value
and not the wrapper, so they receive payloads without wrappers.
"""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from agentspan import jsontext
from agentspan.model.rows import DERIVED, ROWS, TYPE_OF, AgentSpanRow, ResourceType, Row, Value

Holds = Literal["time", "object", "list", "json", "flag"]
"""The forms of values: the names in the annotations Time, JsonObject, JsonList, Json and Flag of model.rows."""
NoneType = type(None)


class Column(NamedTuple):
    """One column of a table.

    Attributes:
        type: str, int or float; in SQL TEXT, INTEGER or REAL.
        nullable: True if the value may be None.
        holds: the form of the values beyond their type (a time, a JSON object …); None if they have no special form.
        default: the value in a row that leaves the column out; also None if there is no default.
    """

    name: str
    type: type[str] | type[int] | type[float]
    nullable: bool
    holds: Holds | None
    default: Value

    @property
    def is_json(self) -> bool:
        """True if the text of the column is JSON."""
        return self.holds in ("object", "list", "json")


@cache
def columns_of(type_: ResourceType) -> tuple[Column, ...]:
    """Return the columns of a resource type's table, in order. Cached, because reading them takes 50 µs."""
    row = ROWS[type_]
    return tuple(_column(name, hint, row._field_defaults.get(name)) for name, hint in row.__annotations__.items())


def _column(name: str, hint: Any, default: Value) -> Column:
    members = get_args(hint) if NoneType in get_args(hint) else (hint,)
    (of,) = (member for member in members if member is not NoneType)
    type_, holds = get_args(of) if get_origin(of) is Annotated else (of, None)
    return Column(name, type_, NoneType in members, holds, default)


@cache
def json_columns(type_: ResourceType) -> tuple[str, ...]:
    """Return the names of a table's columns whose text is JSON."""
    return tuple(column.name for column in columns_of(type_) if column.is_json)


@cache
def _flags(type_: ResourceType) -> tuple[str, ...]:
    return tuple(column.name for column in columns_of(type_) if column.holds == "flag")


_RENAMED = {"agent_instance_id": "run", "id": "span", "parent_span_id": "parent", "schema_name": "type"}
_FIRST = (*_RENAMED, "label", "status", "summary", "started_at", "finished_at", "duration_ms")
_PAYLOADS = ("payload", "result_payload")
_HIDDEN = (*_PAYLOADS, "agent_id", "schema_title", "inserted_at", "updated_at", "writer_id", "sensitive_encoding")
SHOWN_OF_SPANS: Mapping[str, str] = {
    name: _RENAMED.get(name, name)
    for name in dict.fromkeys((*_FIRST, *DERIVED, *AgentSpanRow._fields))
    if name not in _HIDDEN
}
"""The columns of a span that are shown to people besides its payloads, in order, with their names in the view `spans`
and in data frames."""


_NAMED = (*_RENAMED, "status", "summary", "started_at", "finished_at", "duration_ms", "closed_by")
_NAMED += ("input_tokens", "output_tokens", "cost_usd")


def other_facts(span: AgentSpanRow) -> dict[str, Value]:
    """Return a span's values, except None and 0, of the columns that pages of one span do not show in another way."""
    values = ((name, getattr(span, name)) for name in SHOWN_OF_SPANS if name not in _NAMED)
    return {name: value for name, value in values if value not in (None, 0)}


def values_of(row: Row) -> dict[str, Any]:
    """Return the values of a row by column in the form of the API: JSON decoded, flags as booleans."""
    values: dict[str, Any] = {}
    put_values(row, values)
    return values


def put_values(row: Row, into: dict[str, Any]) -> None:
    """Write the values of a row by column into a dict, in the form of the API: JSON decoded, flags as booleans."""
    into.update(zip(row._fields, row, strict=True))
    type_ = TYPE_OF[type(row)]
    for name in json_columns(type_):
        if into[name] is not None:
            into[name] = jsontext.decode(into[name])
    for name in _flags(type_):
        into[name] = bool(into[name])


REDACTED = "[redacted]"
"""The text that stands for a value that was kept out of the storage."""
MARK_IN_TEXT = '"$sensitive"'
"""A text that each JSON text with a wrapper contains. A JSON text without a wrapper may contain it, too."""


_UNKNOWN = REDACTED.encode().decode()
"""The text that replaces a redacted value. It is an object of its own, so `is` distinguishes it from equal texts."""
_OF_MEMBERS = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "const", "enum", "contains", "uniqueItems", None})
"""Keywords that a list or object can fail because of a value in it."""


def masked(value: Any) -> Any:
    """Return plain JSON with REDACTED as the value of each wrapper; the same object if it has no wrapper."""
    return _replaced(value, lambda wrapper: {**wrapper, "value": REDACTED})


def unwrapped(value: Any) -> Any:
    """Return plain JSON with each wrapper replaced by its value; the same object if it has no wrapper."""
    return _replaced(value, lambda wrapper: _UNKNOWN if wrapper["value"] == REDACTED else wrapper["value"])


def read_payload(text: str) -> tuple[Any, int]:
    """Decode stored JSON text to plain JSON without wrappers. Return also 1 if the text has a wrapper, else 0."""
    plain = jsontext.decode(text)
    if MARK_IN_TEXT not in text:
        return plain, 0
    without = unwrapped(plain)
    return without, int(without is not plain)


def is_wrapper(value: dict[str, Any]) -> bool:
    """Return whether a JSON object is a wrapper."""
    return "$sensitive" in value and "value" in value


def is_unknown(instance: Any, keyword: str | None) -> bool:
    """Return whether a violation may be due to a redacted value, which cannot be checked.

    Args:
        instance: the part of a payload, from `unwrapped`, that does not match the schema.
        keyword: the keyword of the schema that the part does not satisfy; None for the schema `false`.
    """
    if instance is _UNKNOWN:
        return True
    return type(instance) in (dict, list) and keyword in _OF_MEMBERS and _has_unknown(instance)


def _has_unknown(value: Any) -> bool:
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if each is _UNKNOWN:
            return True
        if type(each) in (dict, list):
            waiting += each.values() if type(each) is dict else each
    return False


def _replaced(value: Any, replace: Any) -> Any:
    """Return a value with each wrapper replaced. Recursive: Python's stack has room for the 500 levels of a payload."""
    if type(value) is dict:
        if is_wrapper(value):
            return replace(value)
        items: Any = value.items()
    elif type(value) is list:
        items = enumerate(value)
    else:
        return value
    changed = {}
    for key, item in items:
        if type(item) is dict or type(item) is list:
            other = _replaced(item, replace)
            if other is not item:
                changed[key] = other
    if not changed:
        return value
    if type(value) is dict:
        return {**value, **changed}
    return [changed.get(index, item) for index, item in enumerate(value)]
