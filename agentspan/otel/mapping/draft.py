"""A span of agentspan while it is assembled: fields in, attributes out. The first value of a field stays."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from agentspan.otel.mapping.values import as_is
from agentspan.otel.span import OtelSpan

Read = Callable[[Any], Any]


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
        holds: whether a span has attributes of it.
        kind: the span type; None where this family does not tell.
        rows: the mapping table, by span type; the rows of `*` hold for every type.
        rest: assembles the fields that no row can say. It runs after the rows.
    """

    name: str
    holds: Callable[[OtelSpan], bool]
    kind: Callable[[OtelSpan], str | None]
    rows: Mapping[str, tuple[Row, ...]]
    rest: Callable[["Draft"], None] | None = None


_Sources = tuple[frozenset[str], tuple[tuple[str, str, Read], ...]]
_sources: dict[tuple[str, str], _Sources] = {}


def _sources_of(family: Family, type_: str) -> _Sources:
    """Return the attributes that a mapping table reads for a type, and for each its place, in the table's order."""
    found = _sources.get((family.name, type_))
    if found is None:
        rows = (*family.rows.get(type_, ()), *family.rows.get("*", ()))
        flat = tuple((name, row.place, row.read) for row in rows for name in row.names)
        found = _sources[family.name, type_] = frozenset(name for name, _, _ in flat), flat
    return found


class Draft:
    """A span that is being mapped.

    Attributes:
        span: the OpenTelemetry span.
        type: the span type that it will have.
        payload, result: the fields so far.
        run: what the span says of its run: `agent`, `version`, `session`, `user`.
        left: the attributes that no field came from. They are stored under `attributes`.
        is_failed: whether the family says so where the status does not; None if it says nothing.
    """

    def __init__(self, span: OtelSpan, type_: str) -> None:
        self.span = span
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
        attributes = self.span.attributes
        names, sources = _sources_of(family, self.type)
        if names.isdisjoint(attributes):  # a third of the time of looking each of them up
            return
        for name, place, read in sources:
            if name in attributes:
                raw = attributes[name]
                if raw is not None and (value := read(raw)) is not None:
                    says_more = type(raw) is list and len(raw) > 1 and value != raw  # such as several finish reasons
                    self.put(place, value, *(() if says_more else (name,)))

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
            self.use(*names)

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
