"""Turning what a program hands over into JSON, once, in the caller, before anything is stored. It never raises.

Everything that is recorded comes through here: payloads, results, errors.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json, to_json

from agentspan import jsontext

MAX_STACKTRACE = 16_384
MAX_FRAMES = 64
MAX_DEPTH = 100
MAX_VALUES = 100_000
"""Values looked at in something that is not plain JSON."""

NOT_JSON = "$not_json"
"""The key of the mark that stands for a value which could not be written as JSON."""


def capture(value: Any) -> tuple[str, Any]:
    """Return any value as JSON text, and as the plain JSON that the text holds (2 µs for 300 bytes)."""
    try:
        tame = value if _is_plain(value) else _tame(value, (), [MAX_VALUES])
        data = to_json(tame, inf_nan_mode="strings", bytes_mode="base64", fallback=_fallback)
        return data.decode(), from_json(data)
    except Exception:
        return _capture_slowly(value)


def capture_object(value: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a mapping as a JSON object; one whose JSON is no object is put under `input`."""
    text, plain = capture(value)
    return (text, plain) if type(plain) is dict else capture({"input": plain})


_ATOMS = frozenset({str, int, float, bool, type(None)})


def _is_plain(value: Any) -> bool:
    """Tell whether a value is made of dicts, lists, tuples and atoms only (0.3 µs): the encoder cannot change those.

    It would use up iterators, and so the program's generators and open files.
    """
    kind = type(value)
    if kind is dict:
        value = value.values()
    elif kind is not list and kind is not tuple:
        return kind in _ATOMS
    for item in value:  # noqa: SIM110 (a generator would cost 0.3 µs)
        if type(item) not in _ATOMS and not _is_plain(item):
            return False
    return True


def _tame(value: Any, above: tuple[int, ...], room: list[int]) -> Any:
    """Copy the containers of a value, with whatever is used up by looking at it replaced by what it says of itself.

    Args:
        above: the ids of the containers that hold this one; what is among them is a circle.
        room: how many values may still be copied.
    """
    kind = type(value)
    if kind in _ATOMS:
        return value
    room[0] -= 1
    if id(value) in above or len(above) > MAX_DEPTH or room[0] < 0:
        return {NOT_JSON: {"type": kind.__qualname__, "reason": "circular, too deep, or too much"}}
    if hasattr(kind, "__next__"):
        return _fallback(value)
    above = (*above, id(value))
    if isinstance(value, Mapping):
        return {key: _tame(item, above, room) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset | deque):
        return [_tame(item, above, room) for item in value]
    fields = getattr(value, "__dict__", None)
    if type(fields) is dict and _is_record(kind) and _holds_iterator(fields, len(above)):
        return {name: _tame(item, above, room) for name, item in fields.items()}
    return value


def _holds_iterator(value: Any, depth: int) -> bool:
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple | set | frozenset | deque):
        fields = getattr(value, "__dict__", None) if _is_record(type(value)) else None
        return hasattr(type(value), "__next__") or (type(fields) is dict and _holds_iterator(fields, depth + 1))
    return depth > MAX_DEPTH or any(_holds_iterator(item, depth + 1) for item in value)


def _is_record(kind: type) -> bool:
    """Tell whether the encoder would write the fields of such an object: dataclasses and pydantic models."""
    return hasattr(kind, "__dataclass_fields__") or hasattr(kind, "__pydantic_serializer__")


def _capture_slowly(value: Any) -> tuple[str, Any]:
    """Take values that the fast encoder refuses: lone surrogates and depth are JSON; the rest leaves a mark."""
    try:
        if _is_plain(value):
            return jsontext.encode(value)
    except Exception:
        pass
    if type(value) is dict:  # one bad member must not cost the others
        pairs = [(_name(key), _member(item)) for key, item in list(value.items())]
        plain = {key: item for key, item in pairs if key is not None}
        return jsontext.encode(plain)
    mark = {NOT_JSON: {"type": type(value).__qualname__}}
    return jsontext.encode(mark)


def _name(key: Any) -> str | None:
    try:
        return jsontext.encode(str(key))[1] if key is not None else "null"
    except Exception:
        return None


def _member(value: Any) -> Any:
    try:
        return jsontext.encode(value if _is_plain(value) else _tame(value, (), [MAX_VALUES]))[1]
    except Exception:
        return {NOT_JSON: {"type": type(value).__qualname__}}


def _fallback(value: Any) -> Any:
    """Stand in for an object without a JSON form: what its own repr says, or its type."""
    try:
        return repr(value)[:1000].encode("utf-8", "replace").decode()
    except Exception:
        return {NOT_JSON: {"type": type(value).__qualname__}}


def error_of(exception: BaseException) -> dict[str, str]:
    """Describe an exception: `type` as its module and name, `message`, `stacktrace` (bounded, its end is kept)."""
    cls = type(exception)
    name = cls.__qualname__ if cls.__module__ in ("builtins", "__main__") else f"{cls.__module__}.{cls.__qualname__}"
    return {"type": name, "message": _message(exception), "stacktrace": _stacktrace(exception)}


def _message(exception: BaseException) -> str:
    try:
        return _text(str(exception))
    except Exception:
        return "(its message could not be read)"


def _text(text: str) -> str:
    """Replace lone surrogates, which no reader of the file could decode."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _stacktrace(exception: BaseException) -> str:
    import traceback  # 8 ms, for the first failure only

    try:
        lines = traceback.format_exception(type(exception), exception, exception.__traceback__, limit=-MAX_FRAMES)
        return _text("".join(lines)[-MAX_STACKTRACE:])
    except Exception:
        return ""
