"""Turning what a program hands over into JSON, once, in the caller, before anything is stored. It never raises.

Everything that is recorded comes through here: payloads, results, errors, metadata. This is the one place where
credentials are redacted and where limits hold.
"""

from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json

from agentspan import jsontext
from agentspan.recording.limits import Limits, shrink
from agentspan.recording.plain import MAX_INT_BITS, NOT_JSON, Plain
from agentspan.recording.redaction import Redaction

MAX_STACKTRACE = 16_384
MAX_MESSAGE = 16_384
MAX_FRAMES = 64
MAX_MEMBERS = 20
"""Exceptions of a group that are listed, at most so deep as well."""

_BIG = 1 << MAX_INT_BITS


class Capture:
    """How one recorder takes values.

    Args:
        limits: how much of a payload is kept.
        redaction: what is kept out of the file; None for nothing.
    """

    __slots__ = ("limits", "redaction")

    def __init__(self, limits: Limits, redaction: Redaction | None) -> None:
        self.limits = limits
        self.redaction = redaction

    def object(self, value: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return a mapping as JSON text, and the plain JSON that it holds (2 µs for 300 bytes).

        The plain JSON may be the mapping itself: look at it now, do not keep it. What is no mapping is put under
        `input`.
        """
        try:
            # The common case: JSON already, not too much of it, and nothing to redact.
            if type(value) is dict and _size(value, self.limits) >= 0:
                text = to_json(value).decode()
                if len(text) <= self.limits.payload and (self.redaction is None or self.redaction.has_nothing_in(text)):
                    return text, value
        except Exception:
            pass
        return self._slowly(value)

    def text(self, text: str) -> str:
        """Return a text for a column of its own, redacted."""
        return text if self.redaction is None else self.redaction.text(text)

    def error(self, exception: BaseException) -> dict[str, Any]:
        """Describe an exception: `type` as its module and name, `message`, `stacktrace` (bounded, its end is kept).

        The members of a group are listed in `exceptions`, each with its type and message.
        """
        return {**self._exception(exception, 0), "stacktrace": self._stacktrace(exception)}

    def _slowly(self, value: Any) -> tuple[str, dict[str, Any]]:
        try:
            plain = Plain(self.limits, self.redaction).of(value)
            if type(plain) is not dict:
                plain = {"input": plain}
            text = _encode(plain)
            if len(text) > self.limits.payload:
                plain = shrink(plain, self.limits.payload)
                text = _encode(plain)
            return text, plain
        except Exception:
            plain = {NOT_JSON: {"type": type(value).__qualname__}}
            return _encode(plain), plain

    def _exception(self, exception: BaseException, depth: int) -> dict[str, Any]:
        cls = type(exception)
        name = (
            cls.__qualname__ if cls.__module__ in ("builtins", "__main__") else f"{cls.__module__}.{cls.__qualname__}"
        )
        described: dict[str, Any] = {"type": name, "message": self._message(exception)}
        if isinstance(exception, BaseExceptionGroup) and depth < MAX_MEMBERS:
            members = exception.exceptions
            described["exceptions"] = [self._exception(member, depth + 1) for member in members[:MAX_MEMBERS]]
            if len(members) > MAX_MEMBERS:
                described["more_exceptions"] = len(members) - MAX_MEMBERS
        return described

    def _message(self, exception: BaseException) -> str:
        try:
            message = str(exception)
            cut = self.text(_text(message[: MAX_MESSAGE + 400]))[:MAX_MESSAGE]
            return cut + "…" if len(message) > MAX_MESSAGE else cut
        except Exception:
            return "(its message could not be read)"

    def _stacktrace(self, exception: BaseException) -> str:
        import traceback  # 8 ms, for the first failure only

        try:
            lines = traceback.format_exception(type(exception), exception, exception.__traceback__, limit=-MAX_FRAMES)
            return self.text(_text("".join(lines)[-2 * MAX_STACKTRACE :]))[-MAX_STACKTRACE:]
        except Exception:
            return ""


def _size(value: Any, limits: Limits) -> int:
    """Return about how many characters of JSON a dict or list takes, or -1 for what is more than JSON within limits.

    Plain JSON is dicts with texts as keys, lists, texts, finite numbers, booleans and None, of exactly these types:
    the encoder cannot change those, nor does reading the text give anything else (0.5 µs for 300 bytes).
    """
    size = len(value)
    if size > limits.items:
        return -1
    if type(value) is dict:
        for key in value:
            if type(key) is not str:
                return -1
        value = value.values()
    for item in value:
        kind = type(item)
        if kind is str:
            length = len(item)
            if length > limits.value:
                return -1
            size += length
        elif kind is dict or kind is list:
            nested = _size(item, limits)
            if nested < 0:
                return -1
            size += nested
        elif kind is float:
            if item - item != 0:  # NaN or infinite
                return -1
        elif kind is int:
            if not -_BIG < item < _BIG:
                return -1
        elif item is not None and kind is not bool:
            return -1
    return size if size <= limits.payload else -1


def _encode(plain: dict[str, Any]) -> str:
    return jsontext.encode(plain)[0]


def _text(text: str) -> str:
    """Replace lone surrogates, which no reader of the file could decode."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
