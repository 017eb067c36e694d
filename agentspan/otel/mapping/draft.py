"""A span of agentspan while it is assembled: fields in, attributes out. The first value of a field stays."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from agentspan.otel.mapping.shapes import Read, Shape, Source, built
from agentspan.otel.mapping.values import as_is
from agentspan.otel.span import OtelSpan


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
        """Keep of an attribute what no field has: None or an empty value of what was used up."""
        if value is None or value == {} or value == []:
            self.left.pop(name, None)
        elif name in self.left:
            self.left[name] = value
