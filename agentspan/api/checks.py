"""Checks of fields: each function returns the value, or raises the API's error with the name of the field."""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from agentspan import clock, ids, jsontext
from agentspan.errors import AgentspanError, InvalidValue, RequiredValue, ValidationErrors
from agentspan.model.changes import Key, storable_text
from agentspan.storage.questions import Query

MAX_KEY = 64
"""The most characters of an idempotency key; they are printable. Another key is an `InvalidValue`."""
MAX_TEXT = 10_000
"""The most characters of a name, a description or an external identifier by id; more are an `InvalidValue`."""
MAX_DEPTH = 500
"""The most levels of a JSON object. The depth that Python can parse depends on its version and on the stack in use (945
to 9,970 levels): without this limit, an object could be stored by one program and not be read by another."""
MAX_PAGE = 100
"""The most items of a page; by default it has 50."""
MAX_OFFSET = 2**53
MAX_PFIDS = 1000
"""The most ids that `pfids` returns at once."""


class Json(NamedTuple):
    """A JSON value as text and parsed.

    Attributes:
        text: the JSON text that is stored.
        plain: the parsed value.
    """

    text: str
    plain: Any


def json_object(field: str, value: Any) -> Json:
    """Return a JSON object as text and as plain JSON."""
    sent = json_value(field, value)
    if type(sent.plain) is not dict:
        raise InvalidValue(field, "must be a JSON object (a dict)")
    return sent


def json_value(field: str, value: Any) -> Json:
    """Return JSON of any type as text and as plain JSON."""
    try:
        text, plain = jsontext.encode(value)
    except ValueError as error:
        raise InvalidValue(field, str(error)) from None
    if len(text) > MAX_DEPTH and text.count("{") + text.count("[") > MAX_DEPTH and _is_deeper(plain, MAX_DEPTH):
        raise InvalidValue(field, f"is nested deeper than {MAX_DEPTH} levels")
    return Json(text, plain)


def flag(field: str, value: Any) -> bool:
    """Return a boolean; None is False. The texts `true` and `false` are accepted: bulk clients copy them from forms."""
    if value is None or isinstance(value, bool):
        return bool(value)
    if value in ("true", "false"):
        return bool(value == "true")
    raise InvalidValue(field, "must be true or false")


def mark(field: str, value: Any) -> bool | None:
    """Return True or None: False becomes None, so that it is equal to a field that is left out."""
    return flag(field, value) or None


def _is_deeper(value: Any, levels: int) -> bool:
    """Return whether plain JSON has more than `levels` levels. No recursion, which would reach Python's limit."""
    level = [value] if type(value) is dict or type(value) is list else []
    while level and levels >= 0:
        levels -= 1
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is dict or type(inner) is list
        ]
    return levels < 0


def timestamp(field: str, value: Any) -> str | None:
    """Convert a time to the text that is stored; None stays None."""
    if value is None:
        return None
    try:
        return clock.parse(value)
    except ValueError as error:
        raise InvalidValue(field, str(error)) from None


def text(field: str, value: Any) -> str | None:
    """Return a text of at most MAX_TEXT characters that can be stored; None stays None."""
    return storable_text(field, value, MAX_TEXT)


def required_text(field: str, value: Any) -> str:
    """Return text that is not empty."""
    checked = text(field, value)
    if not checked:
        raise RequiredValue(field, "is required")
    return checked


def own_id(field: str, value: Any) -> str | None:
    """Return a client's own id for a new resource: a PFID of any partition; None stays None."""
    if value is not None and not ids.is_pfid(value):
        raise InvalidValue(field, "must be a PFID: 32 characters 0-9 a-z without i l o u, the first one 0-7")
    return value if isinstance(value, str) else None


def whole(value: Any) -> Any:
    """Return a whole number that has a point, such as `2.0`, as an int; any other value as it is."""
    return int(value) if type(value) is float and value.is_integer() else value


def count(field: str, value: Any, least: int, most: int) -> int:
    """Return a whole number within limits."""
    number = whole(value)
    if type(number) is not int or not least <= number <= most:
        raise InvalidValue(field, f"must be a whole number from {least} to {most}")
    return number


_WHOLE_NUMBERS = json.JSONDecoder(parse_float=lambda text: whole(float(text)))


def check_key(field: str, value: Any) -> str:
    """Return an idempotency key."""
    if not isinstance(value, str) or not value or len(value) > MAX_KEY or not value.isprintable():
        raise InvalidValue(field, f"must be 1 to {MAX_KEY} printable characters")
    return value


def key_of(operation: str, key: Any, request: Mapping[str, Any]) -> Key | None:
    """Return an idempotency key with the hash of its request (as canonical JSON without nulls); None without a key.

    Args:
        request: the client's values, with the id of the path and with defaults, without generated ids and times.
    """
    if key is None:
        return None
    check_key("idempotency_key", key)
    plain = {name: item.plain if type(item) is Json else item for name, item in request.items() if item is not None}
    try:
        text = jsontext.canonical(plain)
        if ".0" in text or "e+" in text:  # 1.0 is the same number as 1; few requests have one
            text = jsontext.canonical(_WHOLE_NUMBERS.decode(text))
        digest = hashlib.sha256(text.encode()).hexdigest()
    except (TypeError, ValueError, RecursionError):
        raise InvalidValue("idempotency_key", "the request that it labels holds a value that is no JSON") from None
    return Key(operation, key, digest, clock.now())


def one_of(field: str, value: Any, allowed: Sequence[str]) -> str | None:
    """Return one of the allowed values; None stays None."""
    if value is not None and value not in allowed:
        raise InvalidValue(field, f"must be one of {', '.join(allowed)}")
    return value if isinstance(value, str) else None


def sorting(value: Any) -> str | None:
    """Return the order of a list as `column`, or `-column` for descending; None stays None.

    Args:
        value: such a text, or an object with `field` and `direction` (`asc`, the default, or `desc`).
    """
    if not isinstance(value, Mapping):
        return None if value is None else str(value)
    unknown = value.keys() - {"field", "direction"}
    if unknown:
        raise InvalidValue("sorting", "must have nothing but field and direction")
    field, direction = value.get("field"), one_of("sorting[direction]", value.get("direction"), ("asc", "desc"))
    if not isinstance(field, str) or field.startswith("-"):
        raise InvalidValue("sorting[field]", "must be the name of a field, without a sign")
    return f"-{field}" if direction == "desc" else field


def page(
    query: Query,
    sorted_by: str | None,
    offset: int,
    page_size: int,
    *,
    columns: frozenset[str],
    most_bytes: int | None = None,
) -> Query:
    """Return a query with an order (`column` or `-column`) and a page added."""
    order, descending = "id", False
    sorted_by = sorting(sorted_by)
    if sorted_by is not None:
        order, descending = sorted_by.removeprefix("-"), sorted_by.startswith("-")
        if order not in columns:
            raise InvalidValue("sorting", f"must be one of {', '.join(sorted(columns))}, with - for descending")
    offset, page_size = count("offset", offset, 0, MAX_OFFSET), count("page_size", page_size, 1, MAX_PAGE)
    return query.changed(
        order=order,
        descending=descending,
        offset=offset,
        limit=page_size,
        with_total=True,
        most_bytes=most_bytes,
    )


def as_sent(error: AgentspanError, details: Collection[str]) -> AgentspanError:
    """Return an error that names its fields as the client sent them: `details.FIELD` for a field in `details`.

    Args:
        details: the names of the fields in the `details` of the request.
    """
    if isinstance(error, ValidationErrors):
        names = [f"details.{name}" if _root(name) in details else name for name in error.fields]
        return ValidationErrors(str(error), error.problems, names)
    if isinstance(error, RequiredValue | InvalidValue) and _root(error.field) in details:
        return _inside("details", error)
    return error


@contextmanager
def inside(parent: str) -> Iterator[None]:
    """A with-block that puts a parent before the field names of errors, such as `agent_version.name`."""
    try:
        yield
    except (RequiredValue, InvalidValue) as error:
        if _root(error.field) == parent:
            raise
        raise _inside(parent, error) from None


def _inside(parent: str, error: RequiredValue | InvalidValue) -> AgentspanError:
    return type(error)(f"{parent}.{error.field}", str(error).removeprefix(f"{error.field}: "))


def _root(field: str) -> str:
    return field.partition(".")[0].partition("[")[0]
