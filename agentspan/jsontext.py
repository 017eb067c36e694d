"""JSON text: the strict way in for values that must be JSON, and the way back. For any value: recording.capture."""

import json
from typing import Any

from pydantic_core import PydanticSerializationError, from_json, to_json

# json.dumps would make an encoder at each call.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def encode(value: Any) -> tuple[str, Any]:
    """Return a value as JSON text, and as the plain JSON that the text holds.

    Takes what pydantic serialises: dicts, lists, tuples, models, dataclasses, datetimes …

    Raises:
        ValueError: it holds something that JSON cannot say. The message names no value.
    """
    try:
        data = to_json(value, inf_nan_mode="constants", bytes_mode="base64")
        return data.decode(), from_json(data, allow_inf_nan=False)
    except (PydanticSerializationError, ValueError, RecursionError):
        pass  # lone surrogates and depth over 200 are JSON too: the slower encoder takes those
    try:
        # Without its own look for circles they end in a RecursionError, like depth.
        text = json.dumps(value, allow_nan=False, check_circular=False, separators=(",", ":"))
        return text, json.loads(text)
    except RecursionError:
        raise ValueError("is nested too deep, or contains itself") from None
    except (TypeError, ValueError):
        raise ValueError("holds a value that is no JSON (NaN, infinity, or an object without a JSON form)") from None


def decode(text: str) -> Any:
    """Read stored JSON text (1 µs for a small payload)."""
    try:
        return from_json(text)
    except ValueError:
        return json.loads(text)


def canonical(value: Any) -> str:
    """Return text that is the same for equal plain JSON, whatever the order of keys."""
    return _CANONICAL.encode(value)
