"""The elements of lists that were captured before in a run: an agent sends its whole history with every call.

What is known is found by its JSON text, never by identity, because programs change lists and messages in place. First
the whole list is compared with the one before, as bytes: a history that only grew costs its encoding and one
comparison. What comes after the common start is looked up element by element, and only what is new is redacted.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pydantic_core import to_json

from agentspan.jsontext import common_elements

MOST = 8 * 2**20
"""Bytes of elements that are kept for a run. Beyond it all are forgotten, and captured once more."""

Fresh = Callable[[bytes, Any, str], bytes]
"""Captures an element: receives its JSON text, itself, and the member that it is in; returns the text to record."""


class _Before(NamedTuple):
    """A list as it was the last time.

    Attributes:
        data: its JSON text, before redaction.
        ends: where each element ends in it.
        texts: what was recorded of each element; None where that is their JSON text.
    """

    data: bytes
    ends: list[int]
    texts: list[bytes] | None


_NOTHING = _Before(b"", [], None)


class Taken(NamedTuple):
    """The JSON text of a list as it is recorded, and how many bytes of it are new."""

    data: bytes
    new: int


class Repeats:
    """The lists of one run as they were captured, by the member that they are in. Any thread may use it.

    The name counts, because redaction goes by it.
    """

    __slots__ = ("_before", "_known", "_size")

    def __init__(self) -> None:
        self._before: dict[str, _Before] = {}
        self._known: dict[str, dict[bytes, bytes]] = {}
        self._size = 0

    def take(self, name: str, items: Sequence[Any], fresh: Fresh) -> Taken | None:
        """Return a list as it is recorded; None where another thread changed it meanwhile.

        Args:
            items: plain JSON within the limits.
        """
        before = self._before.get(name, _NOTHING)
        known = self._known.setdefault(name, {})
        data = to_json(items, inf_nan_mode="strings")
        count = common_elements(before.data, before.ends, data)
        ends = before.ends[:count]
        texts = None if before.texts is None else before.texts[:count]
        at, new = (ends[-1] if count else 0), 0
        for item in items[count:]:
            encoded = to_json(item, inf_nan_mode="strings")
            at += 1 + len(encoded)
            ends.append(at)
            text = known.get(encoded)
            if text is None:
                text = known[encoded] = fresh(encoded, item, name)
                new += len(text)
                self._size += len(encoded) + len(text)
            if texts is None and text != encoded:
                texts = [data[start + 1 : end] for start, end in zip([0, *ends], ends[:-1], strict=False)]
            if texts is not None:
                texts.append(text)
        if at + 1 != len(data):
            return None
        if self._size > MOST:
            self._size, self._known, self._before = 0, {}, {}
        else:
            self._before[name] = _Before(data, ends, texts)
        return Taken(data if texts is None else b"[" + b",".join(texts) + b"]", new)
