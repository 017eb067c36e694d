"""Snapshots of lists of messages as plain values: messages are often objects of pydantic, beside dicts.

A snapshot is for comparing only: two that are equal are captured as the same JSON. It reads the attributes that an
object has, and runs no code of the program.
"""

from collections.abc import Iterable
from functools import lru_cache
from itertools import count
from typing import Any

MOST_VALUES = 200_000
"""Values in a list, at most."""
MANY = 10_000
"""Values from which on one that is in several places is looked at once: it may stand for any number of them."""
MOST_CHARACTERS = 64 * 2**20
"""Characters of texts in a list, at most."""

_get = object.__getattribute__
_numbers = count(1)
_SCALARS = frozenset({int, float, bool, type(None)})


class _NotPlain(Exception):
    """Something in a list is neither plain JSON nor an object with plain attributes."""


def snapshot(items: list[Any], depth: int) -> list[Any] | None:
    """Return a list in which an object of pydantic, or of a dataclass, is a dict of its class and its attributes.

    None if there is anything else than those and plain JSON in it, or too much.

    Args:
        depth: levels of values in an element, at most.
    """
    walk = _Walk()
    try:
        return walk.list(items, depth + 1)
    except _NotPlain:
        return None


class _Walk:
    """One walk through one list."""

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
    """Return what stands for a class, and the attributes beside those in `__dict__`; None if its objects are not plain.

    A number, because two classes may have the same name; in a tuple, which is in no plain JSON.
    """
    if hasattr(kind, "__pydantic_fields__"):
        return (next(_numbers),), ("__pydantic_extra__", "__pydantic_private__")
    return ((next(_numbers),), ()) if hasattr(kind, "__dataclass_fields__") else None
