"""Shapes: facts that follow from the instrumentor of a span and the names of its attributes, whatever the values are.

An exporter sends thousands of spans of a few shapes. So a span's families, the lines of their tables that it has an
attribute for, and the lists that its names spell are found once for a shape (a third of the time of mapping).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from agentspan.otel.span import OtelSpan

MOST = 1000
"""Shapes that are kept. Then all are dropped: those in use come back at once."""
LONGEST = 256
"""Attributes of a span whose shape is kept; conversations of 100 messages have more, and each length is a shape."""
MOST_CHARACTERS = 20_000
"""Characters of the names of a shape that is kept: clients choose them."""
_DEEPEST = 12
"""Dots in the name of an attribute that are levels of an object; what is deeper stays an attribute."""
Read = Callable[[Any], Any]
_Key = tuple[str, str, tuple[str, ...]]


class Source(NamedTuple):
    """An attribute that a span of a shape has, and the field that it is read into.

    Attributes:
        side: `payload`, `result` or `run`.
    """

    name: str
    side: str
    field: str
    read: Read


class Spelt(NamedTuple):
    """The list that flat names with one prefix spell, such as `llm.input_messages.0.message.role`.

    Attributes:
        names: the attributes that are in it.
        form: nested dicts and lists, with the name of an attribute in the place of its value; None for no list.
    """

    names: tuple[str, ...]
    form: Any


class _Node(dict[str, Any]):
    """An object that flat names spell, or a list if all its members are numbers."""


class Shape:
    """The names of a span's attributes, with what was found out about them.

    Attributes:
        names: of the attributes, in their order.
        families: the families of such a span; None until the caller has set them.
        told_as: their names.
        sources: the lines of mapping tables that it has an attribute for, by the name of the family and the type.
    """

    __slots__ = ("_spelt", "families", "names", "sources", "told_as")

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.families: Any = None
        self.told_as: tuple[str, ...] = ()
        self.sources: dict[tuple[str, str], tuple[Source, ...]] = {}
        self._spelt: dict[str, Spelt] = {}

    def spelt(self, prefix: str) -> Spelt:
        """Return the list that the names with a prefix spell, in the order of their numbers; holes are skipped."""
        found = self._spelt.get(prefix)
        if found is None:
            found = self._spelt[prefix] = _spelt(self.names, prefix)
        return found


class Shapes:
    """Shapes by the names of attributes, and by their scope."""

    def __init__(self) -> None:
        self._known: dict[_Key, Shape] = {}

    def __len__(self) -> int:
        return len(self._known)

    def of(self, span: OtelSpan) -> Shape:
        """Return the shape of a span (0.5 µs)."""
        scope, attributes = span.scope, span.attributes
        if len(attributes) > LONGEST:
            return Shape(tuple(attributes))
        names = tuple(attributes)
        key = (scope.name, scope.schema_url, names)
        found = self._known.get(key)
        if found is None:
            found = Shape(names)
            if len(scope.name) + len(scope.schema_url) + sum(map(len, names)) <= MOST_CHARACTERS:
                if len(self._known) >= MOST:
                    self._known.clear()
                self._known[key] = found
        return found


shape_of = Shapes().of


def built(form: Any, values: Mapping[str, Any]) -> Any:
    """Return the form of a `Spelt` with the values of its attributes."""
    if type(form) is str:
        return values[form]
    if type(form) is list:
        return [built(each, values) for each in form]
    return {key: built(each, values) if type(each) is not str else values[each] for key, each in form.items()}


def _spelt(names: Iterable[str], prefix: str) -> Spelt:
    root, used, start = _Node(), [], len(prefix)
    for name in names:
        if not name.startswith(prefix):
            continue
        path = name[start:].split(".")
        if len(path) > _DEEPEST or not path[0].isdecimal():
            continue
        here: Any = root
        last = path.pop()
        for member in path:
            deeper = here.get(member)
            if deeper is None:
                deeper = here[member] = _Node()
            if type(deeper) is not _Node:
                break
            here = deeper
        else:
            if last not in here:
                here[last] = name
                used.append(name)
    form = _lists(root)
    return Spelt(tuple(used), form if type(form) is list else None)


def _lists(value: Any) -> Any:
    """Return objects whose members are numbers as lists."""
    if type(value) is not _Node:
        return value
    if next(iter(value), "").isdecimal():
        try:
            return [_lists(value[key]) for key in sorted(value, key=int)]
        except ValueError:  # not all of them are
            pass
    return {key: _lists(item) for key, item in value.items()}
