"""Recognizes list elements that were captured before in a run: an agent sends its whole history with every call.

Elements are compared by value, never by identity, because programs change lists and messages in place. A list is
compared with its previous version as bytes of `marshal`, which accepts only exact built-in types, runs no code of the
program, and takes 0.3 µs a kilobyte (JSON: 0.7). After the common start, elements may be missing, because a window
slides over the history; then the list continues as before. The remaining elements are looked up one by one, and only
new elements are redacted and encoded.
"""

import marshal
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import accumulate, count, islice
from typing import Any, NamedTuple

from agentspan.journal.records import Element
from agentspan.jsontext import common_elements
from agentspan.tuning import STANDARD

LONGEST = 64 * 2**20
"""The total size of the lists that are kept for comparison, in bytes."""
LARGE = 64 * 2**10
"""The size in bytes above which an element, such as an image, is recognized only in its place in the latest list."""
_VERSION = 2
"""The version of marshal's format: the newest whose bytes depend only on the value. Later ones have back references."""
_HEAD = 5
"""The number of bytes before the first element of a list: its type and its length."""


class Captured(NamedTuple):
    """The recorded JSON text of an element, and the number of its bytes that count for the limit of a payload."""

    text: bytes
    counted: int


Fresh = Callable[[Sequence[Any], str], Sequence[Captured] | None]
"""A function of elements and the name of their list that captures the elements. Returns None if one is no object."""


class _Before(NamedTuple):
    """The previous version of a list.

    Attributes:
        data: the bytes of all elements, by marshal.
        ends: the position in `data` where each element ends.
        elements: the recorded elements.
    """

    data: bytes
    ends: list[int]
    elements: list[Element]


class _Kept(NamedTuple):
    """The first elements of a list, as far as its previous version had them, too.

    Attributes:
        ends: the position where each element ends, in the bytes of the new list.
        elements: the recorded elements.
    """

    ends: list[int]
    elements: list[Element]

    @property
    def size(self) -> int:
        """The size of the elements in bytes, by marshal."""
        return self.ends[-1] if self.ends else 0


_NOTHING = _Kept([], [])


class Taken(NamedTuple):
    """The recorded elements of a list, and the number of new bytes, which count for the limit of a payload."""

    elements: list[Element]
    new: int


class Repeats:
    """The captured lists of one run, by the name of their member. Any thread may use it.

    Lists are kept by name, because redaction depends on the name.

    Args:
        most: the size in bytes of all known elements. Beyond it, all are forgotten except those of the latest list.
    """

    __slots__ = ("_before", "_known", "_most", "_size")

    def __init__(self, most: int = STANDARD.repeated_elements_bytes) -> None:
        self._most = most
        self._before: dict[str, _Before] = {}
        self._known: dict[str, dict[bytes, Element]] = {}
        self._size = 0

    def take(self, name: str, items: list[Any], held: list[Any], fresh: Fresh) -> Taken | None:
        """Return the recorded elements of a list; None if an element is no object, or another thread changes the list.

        Args:
            name: the name of the member that the list is in.
            items: the list.
            held: the list as plain JSON, for the comparison. The caller has limited its size: a value that is in it a
                thousand times is written a thousand times.
            fresh: captures the new elements.
        """
        before, kept = self._before.get(name), _NOTHING
        known = self._known.setdefault(name, {})
        data = b""
        try:
            if before is not None:
                data = marshal.dumps(held, _VERSION)[_HEAD:]
                kept = _in_common(before, data, held)
            common = len(kept.elements)
            late, plain = items[common:], held[common:]
            if not all(type(each) is dict for each in plain):
                return None
            written = [marshal.dumps(each, _VERSION) for each in plain]
        except ValueError:  # changed meanwhile
            return None
        ends = [*kept.ends, *islice(accumulate(map(len, written), initial=kept.size), 1, None)]
        after = b"".join(written)
        data = data or after
        if len(late) != len(written) or data[kept.size :] != after:  # another thread changed it
            return None
        unknown = {text: item for text, item in zip(written, late, strict=True) if text not in known}
        captured = fresh([*unknown.values()], name) if unknown else ()
        if captured is None:
            return None
        added = {text: Element(one.text) for text, one in zip(unknown, captured, strict=True)}
        elements = kept.elements + [added.get(text) or known[text] for text in written]
        for text, element in added.items():
            if len(text) <= LARGE:
                known[text] = element
                self._size += len(text) + len(element.text)
        self._before[name] = latest = _Before(data, ends, elements)
        if self._size > self._most or sum([len(each.data) for each in [*self._before.values()]]) > LONGEST:
            self._size, self._known, self._before = 0, {}, {name: latest}
        return Taken(elements, sum([one.counted for one in captured]))

    def forget(self) -> None:
        """Forget all elements, because the latest list is not recorded after all."""
        self._size, self._known, self._before = 0, {}, {}


def _in_common(before: _Before, data: bytes, held: list[Any]) -> _Kept:
    """Return the first elements of a list that its previous version has, too, possibly with one gap in that version.

    Args:
        data: the bytes of the list's elements, by marshal.
        held: the list as plain JSON.
    """
    ends = before.ends
    common = common_elements(before.data, ends, data)
    start = _Kept(ends[:common], before.elements[:common])
    if common == len(held) or common == len(ends):
        return start
    found = before.data.find(marshal.dumps(held[common], _VERSION), start.size)
    first = bisect_left(ends, found) + 1  # an element begins where the one before ends
    if found < 0 or first > len(ends) or ends[first - 1] != found:
        return start
    later, ahead = ends[first:], start.size - found
    count = common_elements(before.data, later, data, start.size, found)
    moved = [each + ahead for each in later[:count]]
    return _Kept(start.ends + moved, start.elements + before.elements[first : first + count])


MOST_VALUES = 200_000
"""The largest number of values in a list."""
MANY = 10_000
"""The number of values above which the copy of a value in several places is reused: nested shared lists multiply."""
MOST_CHARACTERS = 64 * 2**20
"""The largest number of characters of texts in a list."""

_get = object.__getattribute__
_numbers = count(1)
_SCALARS = frozenset({int, float, bool, type(None)})


class _NotPlain(Exception):
    """A value in a list is neither plain JSON nor an object with plain attributes, or the list is too large."""


def snapshot(items: list[Any], depth: int) -> list[Any] | None:
    """Return a copy of a list in which each pydantic or dataclass object is a dict of its class and its attributes.

    None if the list has any other values than such objects and plain JSON, or is too large.

    Args:
        depth: the largest number of nested levels in an element.
    """
    walk = _Walk()
    try:
        return walk.list(items, depth + 1)
    except _NotPlain:
        return None


class _Walk:
    """The copying of one list, for `snapshot`."""

    def __init__(self) -> None:
        self._values = MOST_VALUES
        self._characters = MOST_CHARACTERS
        self._done: dict[tuple[int, int], tuple[Any, Any, int, int]] = {}

    def list(self, values: list[Any], depth: int) -> list[Any]:
        self._enter(len(values), depth)
        kept = []
        for item in values:
            kind = type(item)
            if kind is str:
                self._characters -= len(item)
            elif kind not in _SCALARS:
                item = self._of(item, kind, depth - 1)
            kept.append(item)
        return kept

    def _dict(self, members: Iterable[tuple[Any, Any]], length: int, depth: int) -> dict[str, Any]:
        self._enter(length, depth)
        kept = {}
        for name, item in members:
            kind = type(item)
            if kind is str:
                self._characters -= len(item)
            elif kind not in _SCALARS:
                item = self._of(item, kind, depth - 1)
            if type(name) is not str:
                raise _NotPlain
            kept[name] = item
        return kept

    def _of(self, value: Any, kind: type, depth: int) -> Any:
        if self._values > MOST_VALUES - MANY:
            return self._once(value, kind, depth)
        place = id(value), depth
        done = self._done.get(place)
        if done is not None:
            _, kept, values, characters = done
            self._values -= values
            self._characters -= characters
            self._enter(0, depth)
            return kept
        before = self._values, self._characters
        kept = self._once(value, kind, depth)
        self._done[place] = value, kept, before[0] - self._values, before[1] - self._characters
        return kept

    def _once(self, value: Any, kind: type, depth: int) -> Any:
        if kind is dict:
            return self._dict(value.items(), len(value), depth)
        if kind is list:
            return self.list(value, depth)
        about = _about(kind)
        if about is None:
            raise _NotPlain
        try:
            attributes = _get(value, "__dict__")
            held = self._dict(attributes.items(), len(attributes), depth)
            held[""] = about[0]
            for name in about[1]:
                inner = _get(value, name)
                if inner is not None:
                    held[name] = self._of(inner, type(inner), depth - 1)
        except (AttributeError, RuntimeError):  # a dataclass with slots; one that changes meanwhile
            raise _NotPlain from None
        return held

    def _enter(self, length: int, depth: int) -> None:
        self._values -= length + 1
        if depth <= 0 or self._values < 0 or self._characters < 0:
            raise _NotPlain


@lru_cache(256)
def _about(kind: type) -> tuple[tuple[int], tuple[str, ...]] | None:
    """Return an identifier of a class, and its attributes outside `__dict__`; None if its objects are not plain.

    The identifier is a number, because two classes may have the same name; in a tuple, which plain JSON never has.
    """
    if hasattr(kind, "__pydantic_fields__"):
        return (next(_numbers),), ("__pydantic_extra__", "__pydantic_private__")
    return ((next(_numbers),), ()) if hasattr(kind, "__dataclass_fields__") else None
