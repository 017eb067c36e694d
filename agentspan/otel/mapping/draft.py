"""A span of agentspan while it is assembled: fields in, attributes out. The first value of a field stays.

The shape of a span has the facts that follow from its instrumentor and the names of its attributes, whatever the values
are. An exporter sends thousands of spans of a few shapes. So a span's families, the lines of their tables that it has
an attribute for, and the lists that its names spell are found once for a shape (a third of the time of mapping).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from agentspan.otel.mapping.values import as_is
from agentspan.otel.span import OtelSpan

MOST_SHAPES = 1000
"""Shapes that are kept. Then all are dropped: those in use come back at once."""
LONGEST_SHAPE = 256
"""Attributes of a span whose shape is kept; conversations of 100 messages have more, and each length is a shape."""
MOST_CHARACTERS = 20_000
"""Characters of the names of a shape that is kept: clients choose them."""
_DEEPEST = 12
"""Dots in the name of an attribute that are levels of an object; a deeper name stays an attribute."""
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
    """The names of a span's attributes, with the facts that follow from them.

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
        if len(attributes) > LONGEST_SHAPE:
            return Shape(tuple(attributes))
        names = tuple(attributes)
        key = (scope.name, scope.schema_url, names)
        found = self._known.get(key)
        if found is None:
            found = Shape(names)
            if len(scope.name) + len(scope.schema_url) + sum(map(len, names)) <= MOST_CHARACTERS:
                if len(self._known) >= MOST_SHAPES:
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


class Row(NamedTuple):
    """A line of a mapping table: where a field is found.

    Attributes:
        place: `payload.…` or `result.…` of the span, or `run.…`; after the dot the name of the field.
        names: the attributes that may hold it, the best first.
        read: returns the value of the field, or None if the attribute does not hold one.
    """

    place: str
    names: tuple[str, ...]
    read: Read = as_is


def row(place: str, *names: str, read: Read = as_is) -> Row:
    """Return a line of a mapping table."""
    return Row(place, names, read)


class Family(NamedTuple):
    """One family of attributes, and one version of it.

    Attributes:
        name: for people.
        holds: whether a span has attributes of it. It looks at the scope and at names only, never at a value.
        kind: the span type; None where this family does not tell.
        rows: the mapping table, by span type; the rows of `*` hold for every type.
        rest: assembles the fields that no row can say. It runs after the rows.
    """

    name: str
    holds: Callable[[OtelSpan], bool]
    kind: Callable[[OtelSpan], str | None]
    rows: Mapping[str, tuple[Row, ...]]
    rest: Callable[["Draft"], None] | None = None


def _sources(family: Family, type_: str, shape: Shape) -> tuple[Source, ...]:
    """Return the attributes of a shape that a mapping table reads for a type, in the table's order."""
    found = shape.sources.get((family.name, type_))
    if found is None:
        rows = (*family.rows.get(type_, ()), *family.rows.get("*", ()))
        read = [(name, row.place.partition("."), row.read) for row in rows for name in row.names if name in shape.names]
        found = tuple(Source(name, side, field, how) for name, (side, _, field), how in read)
        shape.sources[family.name, type_] = found
    return found


class Draft:
    """A span that is being mapped.

    Attributes:
        span: the OpenTelemetry span.
        shape: of its attributes.
        type: the span type that it will have.
        payload, result: the fields so far.
        run: what the span says of its run: `agent`, `version`, `session`, `user`.
        left: the attributes that no field came from. They are stored under `attributes`.
        is_failed: whether the family says so where the status does not; None if it says nothing.
    """

    __slots__ = ("is_failed", "left", "payload", "result", "run", "shape", "span", "type")

    def __init__(self, span: OtelSpan, shape: Shape, type_: str) -> None:
        self.span = span
        self.shape = shape
        self.type = type_
        self.payload: dict[str, Any] = {}
        self.result: dict[str, Any] = {}
        self.run: dict[str, str] = {}
        self.left = dict(span.attributes)
        self.is_failed: bool | None = None

    def get(self, name: str) -> Any:
        """Return the value of an attribute, whether it was used or not; None without one."""
        return self.span.attributes.get(name)

    def fill(self, family: Family) -> None:
        """Set each field of a family's mapping table from the first attribute that holds it."""
        attributes, left = self.span.attributes, self.left
        for name, side, field, read in _sources(family, self.type, self.shape):
            raw = attributes[name]
            if raw is None or (value := read(raw)) is None:
                continue
            if side == "run":
                if type(value) is str:
                    self.run.setdefault(field, value)
                continue
            fields = self.payload if side == "payload" else self.result
            says_more = type(raw) is list and len(raw) > 1 and value != raw  # such as several finish reasons
            if fields.setdefault(field, value) == value and not says_more:
                left.pop(name, None)

    def spelt(self, prefix: str) -> list[Any]:
        """Return the list that flat names with a prefix spell, and note that they are used; [] if there is none."""
        names, form = self.shape.spelt(prefix)
        if not names:
            return []
        for name in names:
            self.left.pop(name, None)
        found: list[Any] = built(form, self.span.attributes)
        return found

    def put(self, place: str, value: Any, *names: str) -> None:
        """Set a field that has no value yet. An attribute that says something else than the field is kept.

        Args:
            place: as in Row.
            value: None is no value.
            names: the attributes that it was read from. What is said of the run stays with the span, too.
        """
        if value is None:
            return
        side, _, field = place.partition(".")
        if side == "run":
            if type(value) is str:
                self.run.setdefault(field, value)
            return
        fields = self.payload if side == "payload" else self.result
        if fields.setdefault(field, value) == value:
            for name in names:
                self.left.pop(name, None)

    def use(self, *names: str) -> None:
        """Note that a field has all that these attributes say."""
        for name in names:
            self.left.pop(name, None)

    def use_all(self, prefix: str) -> None:
        """Note that a field has all that the attributes with this prefix say."""
        for name in [name for name in self.left if name.startswith(prefix)]:
            del self.left[name]

    def leave(self, name: str, value: Any) -> None:
        """Keep the rest of an attribute, which no field has; nothing where the rest is None or empty."""
        if value is None or value == {} or value == []:
            self.left.pop(name, None)
        elif name in self.left:
            self.left[name] = value
