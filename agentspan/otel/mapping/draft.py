"""A draft of an agentspan record: families move attributes into its fields. The first value of a field stays.

The shape of a span has the facts that follow from its instrumentor and the names of its attributes, for any values. An
exporter sends thousands of spans of a few shapes. So three things are found once for a shape, which would take a third
of the time of mapping: the families of a span, the rows of their tables that apply, and the lists that names spell.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from agentspan.otel.mapping.values import as_is
from agentspan.otel.span import OtelSpan

MOST_SHAPES = 1000
"""The most cached shapes. A full cache is emptied; the shapes in use are cached again at once."""
LONGEST_SHAPE = 256
"""The most attributes of a span whose shape is cached. Long conversations have more, and each length is a shape."""
MOST_CHARACTERS = 20_000
"""The most characters of the names in a cached shape. Clients choose the names, so their length needs a limit."""
_DEEPEST = 12
"""The most parts between dots that a name may have after its prefix to become part of a list; else it is skipped."""
Read = Callable[[Any], Any]
_Key = tuple[str, str, tuple[str, ...]]


class Source(NamedTuple):
    """An attribute that the spans of a shape have, and the field that gets its value.

    Attributes:
        name: the name of the attribute.
        side: the part of the record with the field: `payload`, `result` or `run`.
        field: the name of the field.
        read: returns the field's value from the attribute's value, or None.
    """

    name: str
    side: str
    field: str
    read: Read


class Spelt(NamedTuple):
    """The list that flat attribute names with one prefix spell, such as `llm.input_messages.0.message.role`.

    Attributes:
        names: the names of the attributes in the list.
        form: nested dicts and lists, with attribute names in the places of their values; None if there is no list.
    """

    names: tuple[str, ...]
    form: Any


class _Node(dict[str, Any]):
    """An object that flat names spell. It is a list if the names of all its members are numbers."""


class Shape:
    """The names of a span's attributes, with cached facts that follow from the names.

    Attributes:
        names: the names of the attributes, in their order.
        families: the families of spans with this shape; None until the caller has set them.
        family_names: the names of the families.
        sources: the attributes that a mapping table reads, by the family's name and the span type.
    """

    __slots__ = ("_spelt", "families", "family_names", "names", "sources")

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.families: Any = None
        self.family_names: tuple[str, ...] = ()
        self.sources: dict[tuple[str, str], tuple[Source, ...]] = {}
        self._spelt: dict[str, Spelt] = {}

    def spelt(self, prefix: str) -> Spelt:
        """Return the list that the names with a prefix spell, sorted by the numbers in them; gaps are skipped."""
        found = self._spelt.get(prefix)
        if found is None:
            found = self._spelt[prefix] = _spelt(self.names, prefix)
        return found


class Shapes:
    """A cache of shapes by instrumentor and names of attributes."""

    def __init__(self) -> None:
        self._known: dict[_Key, Shape] = {}

    def __len__(self) -> int:
        return len(self._known)

    def of(self, span: OtelSpan) -> Shape:
        """Return the shape of a span, from the cache if possible (0.5 µs)."""
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
    """Return the list of a `Spelt`: its form, with attribute names replaced by their values."""
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
    """Convert nested objects whose member names are all numbers to lists."""
    if type(value) is not _Node:
        return value
    if next(iter(value), "").isdecimal():
        try:
            return [_lists(value[key]) for key in sorted(value, key=int)]
        except ValueError:  # not all names are numbers
            pass
    return {key: _lists(item) for key, item in value.items()}


class Row(NamedTuple):
    """A row of a mapping table: a field, and the attributes that it is read from.

    Attributes:
        place: the field, as `payload.NAME`, `result.NAME` or `run.NAME`.
        names: the names of attributes that may have the value, the best first.
        read: returns the field's value from the attribute's value; None if it is unusable.
    """

    place: str
    names: tuple[str, ...]
    read: Read = as_is


def row(place: str, *names: str, read: Read = as_is) -> Row:
    """Return a row of a mapping table. The names of the attributes need no tuple."""
    return Row(place, names, read)


class Family(NamedTuple):
    """A family of attributes, in one version, such as the GenAI conventions of 2026.

    Attributes:
        name: the name for people.
        holds: returns whether a span has attributes of the family, from its scope and names only, never from a value.
        kind: returns the span type; None if the family's attributes do not determine it.
        rows: the mapping table, by span type; the rows of `*` apply to every type.
        rest: sets the fields that need code instead of a row. It runs after the rows.
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
        shape: the shape of the span.
        type: the span type of the record.
        payload, result: the fields that are set so far.
        run: facts about the run in the span's attributes: `agent`, `version`, `session`, `user`.
        left: the attributes that became no field. They will be stored under `attributes`.
        is_failed: True if a family's attributes show a failure that the span's status does not; else None.
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
        """Return the value of an attribute, also if it became a field already; None if the span does not have it."""
        return self.span.attributes.get(name)

    def fill(self, family: Family) -> None:
        """Set each field of a family's mapping table from the first attribute that has a usable value."""
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
            # Such as several finish reasons, of which the field gets the first.
            says_more = type(raw) is list and len(raw) > 1 and value != raw
            if fields.setdefault(field, value) == value and not says_more:
                left.pop(name, None)

    def spelt(self, prefix: str) -> list[Any]:
        """Return the list that flat names with a prefix spell, or []; remove the list's attributes from `left`."""
        names, form = self.shape.spelt(prefix)
        if not names:
            return []
        for name in names:
            self.left.pop(name, None)
        found: list[Any] = built(form, self.span.attributes)
        return found

    def put(self, place: str, value: Any, *names: str) -> None:
        """Set a field that has no value yet, and remove its attributes from `left` if the field has this value.

        Args:
            place: the field, as `payload.NAME`, `result.NAME` or `run.NAME`.
            value: the value; None sets nothing.
            names: the attributes that the value was read from. They stay in `left` for a field of `run`.
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
        """Remove these attributes from `left`: fields have all their content."""
        for name in names:
            self.left.pop(name, None)

    def use_all(self, prefix: str) -> None:
        """Remove all attributes with this prefix from `left`: fields have all their content."""
        for name in [name for name in self.left if name.startswith(prefix)]:
            del self.left[name]

    def leave(self, name: str, value: Any) -> None:
        """Replace an attribute in `left` by the part that became no field; remove it if this part is None or empty."""
        if value is None or value == {} or value == []:
            self.left.pop(name, None)
        elif name in self.left:
            self.left[name] = value
