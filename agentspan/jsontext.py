"""JSON text: strict encoding of values that must be JSON, and decoding. recording.capture encodes any other value."""

import json
import json.encoder
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, AnyStr

from pydantic_core import PydanticSerializationError, from_json, to_json

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
# json's C encoder is made once: JSONEncoder.encode makes one at each call, which takes a third of its time.
_in_c = getattr(json.encoder, "c_make_encoder", None)
_canonical_parts: Callable[[Any, int], Iterable[str]] | None = _in_c and _in_c(
    None, _CANONICAL.default, json.encoder.encode_basestring_ascii, None, ":", ",", True, False, True
)

LONG = 4 * 2**20
"""The bytes of a text from which on its memory matters."""
_ASCII = json.JSONEncoder(check_circular=False, allow_nan=False, separators=(",", ":"))
_NO_BEGIN, _CONTINUED, _LATIN, _NARROW = map(bytes, (range(0xC0), range(0x80, 0xC0), range(0xC4), range(0xF0)))
"""Bytes of UTF-8: those that begin no character beyond ASCII, that continue one, and those up to the begins of
characters that take one and two bytes in a `str`."""


def encode(value: Any) -> tuple[str, Any]:
    """Return a value as JSON text, and as the plain JSON that this text decodes to.

    Accepts every value that pydantic serialises: dicts, lists, tuples, models, dataclasses, datetimes …

    Raises:
        ValueError: a value has no JSON form. The message contains no value.
    """
    try:
        data = to_json(value, inf_nan_mode="constants", bytes_mode="base64")
        return data.decode(), from_json(data, allow_inf_nan=False)
    except (PydanticSerializationError, ValueError, RecursionError):
        pass  # lone surrogates and depth over 200 are JSON, too: the slower encoder accepts them
    try:
        # Without json's check for cycles, a cycle ends in a RecursionError, as depth does.
        text = json.dumps(value, allow_nan=False, check_circular=False, separators=(",", ":"))
        return text, json.loads(text)
    except RecursionError:
        raise ValueError("is nested too deep, or contains itself") from None
    except (TypeError, ValueError):
        raise ValueError("holds a value that is no JSON (NaN, infinity, or an object without a JSON form)") from None


def text_of(plain: Any) -> str:
    """Encode plain JSON (dicts, lists, texts, numbers …) as JSON text, in half the time of `encode`.

    Infinity and NaN become texts: a parser makes infinity of a number such as `1e400`. In a text of megabytes, what is
    beyond ASCII is escaped if that saves memory: one emoji in a text makes each of its characters take four bytes.

    Raises:
        ValueError: a value has no JSON form. The message contains no value.
    """
    try:
        data = to_json(plain, inf_nan_mode="strings")
        if len(data) >= LONG and _is_smaller_escaped(data):
            del data
            return _ASCII.encode(plain)
        return data.decode()
    except (PydanticSerializationError, ValueError, RecursionError):
        return encode(plain)[0]


def _is_smaller_escaped(data: bytes) -> bool:
    """Return whether a `str` of UTF-8 takes more memory than one with escapes in the place of what is beyond ASCII."""
    begins = data.translate(None, _NO_BEGIN)  # one byte of each character beyond ASCII
    wide = len(begins.translate(None, _NARROW))
    width = 4 if wide else 2 if begins.translate(None, _LATIN) else 1
    plain = len(data.translate(None, _CONTINUED))
    return plain * width > plain + 5 * len(begins) + 6 * wide


def decode(text: str) -> Any:
    """Decode stored JSON text (1 µs for a small payload)."""
    try:
        return from_json(text)
    except ValueError:
        return json.loads(text)


def value_of(text: str | None) -> Any:
    """Decode stored JSON text; return None for None."""
    return None if text is None else decode(text)


def decoded(text: str | None, otherwise: Any = None) -> Any:
    """Decode JSON text; return None for None, and `otherwise` for a text that is no JSON, or too deep."""
    try:
        return value_of(text)
    except (ValueError, RecursionError):
        return otherwise


LIST = "\ue000list\ue000"
"""The text that replaces each list in `TextInParts.rest`."""
LIST_TEXT = f'"{LIST}"'


class TextInParts(str):
    """The JSON text of a payload, and its lists element by element, because elements were probably sent before.

    Attributes:
        rest: the text with LIST in the place of each list. LIST occurs nowhere else in it.
        lists: for each list in order, the JSON texts of its elements.
    """

    rest = ""
    lists: Sequence[Sequence[str]] = ()


def joined(around: Sequence[str], lists: Sequence[Sequence[str]]) -> str:
    """Join the texts around lists (one more than there are lists) and the elements of each list to one JSON text."""
    pieces = [around[0]]
    for elements, after in zip(lists, around[1:], strict=True):
        pieces[-1] += f"[{elements[0]}" if elements else "["
        pieces += elements[1:]
        pieces[-1] += f"]{after}"
    return ",".join(pieces)


def common_start(before: Sequence[str], after: Sequence[str]) -> int:
    """Return how many texts at the start of two sequences are equal."""
    if after[: len(before)] == before:
        return len(before)
    both = enumerate(zip(before, after, strict=False))
    return next((number for number, (one, other) in both if one != other), min(len(before), len(after)))


PORTION = 128 * 2**10
"""How many characters of a text are scanned at once. Other threads can run between two portions."""


def structure(text: AnyStr) -> Iterator[tuple[int, AnyStr]]:
    """Yield, for each portion of a JSON text, about how many strings it has, and the characters outside strings."""
    signs: Any = ('"', "\\") if isinstance(text, str) else (b'"', b"\\")
    quote, back = signs
    nothing: AnyStr = text[:0]
    plain = text.replace(back + back, nothing).replace(back + quote, nothing)
    is_inside = 0  # 1 if the portion begins inside a string
    for at in range(0, len(plain), PORTION):
        pieces = plain[at : at + PORTION].split(quote)
        yield len(pieces) // 2, nothing.join(pieces[is_inside::2])
        is_inside ^= (len(pieces) - 1) % 2


def canonical(value: Any) -> str:
    """Return JSON text that is equal for equal values; the order of keys does not matter.

    Raises:
        TypeError, ValueError, RecursionError: a value in it is no JSON, or contains itself.
    """
    return _CANONICAL.encode(value) if _canonical_parts is None else "".join(_canonical_parts(value, 0))


def common_elements(before: AnyStr, ends: Sequence[int], after: AnyStr, start: int = 0, first: int = 0) -> int:
    """Return how many elements at the start of two JSON lists are equal.

    Args:
        before: a text in which one list begins at `first`.
        ends: the position in `before` at which each element ends.
        after: a text in which the other list begins at `start`.
    """
    if not ends or after.startswith(before[first : ends[-1]], start):
        return len(ends)
    low, high = 0, len(ends) - 1  # the first `low` are common, the first `high + 1` are not
    step = 0  # starts small: mostly few elements are common, and each comparison copies a part of the text
    while low < high:
        step = 2 * step + 1
        middle = min(low + step, (low + high + 1) // 2)
        if after.startswith(before[first : ends[middle - 1]], start):
            low = middle
        else:
            high = middle - 1
    return low
