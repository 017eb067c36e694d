"""Values that a client marks as sensitive: `{"$sensitive": "string", "labels": ["email"], "value": "mia@example.com"}`.

The form is the API's `sensitive_encoding`: `$sensitive` is the value's type, `labels` says what kind of value it is.
Such a *wrapper* is stored with its type and labels, and with REDACTED in the place of its value. Schemas and templates
describe the value and not the wrapper, so they receive payloads without wrappers.
"""

from typing import Any

from agentspan import jsontext

REDACTED = "[redacted]"
"""The text that stands for a value that was kept out of the storage."""
IN_TEXT = '"$sensitive"'
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


def read(text: str) -> tuple[Any, int]:
    """Decode stored JSON text to plain JSON without wrappers. Return also 1 if the text has a wrapper, else 0."""
    plain = jsontext.decode(text)
    if IN_TEXT not in text:
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
