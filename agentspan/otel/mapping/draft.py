"""A draft of an agentspan record: families move attributes into its fields. The first value of a field stays.

Attributes are converted by functions that never raise: texts, counts, JSON texts and Python literals as texts. Most
return None for an unusable value, so that the next attribute for the field is tried.

The shape of a span has the facts that follow from its instrumentor and the names of its attributes, for any values. An
exporter sends thousands of spans of a few shapes. So three things are found once for a shape, which would take a third
of the time of mapping: the families of a span, the rows of their tables that apply, and the lists that names spell.
"""

import ast
import json
import math
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from agentspan import jsontext
from agentspan.otel.span import OtelSpan

MAX_LITERAL = 20_000
"""The most characters of a text that is parsed as a Python literal: Python's parser takes 100 bytes for each."""
MAX_NESTED = 100
"""The most levels of brackets in a text that is parsed as JSON or a Python literal; a deeper value stays a text."""
MAX_VALUES = 100_000
"""The most values of a JSON text that is parsed; a text with more stays a text.

A message of five characters takes 330 bytes in memory. And no other thread runs while the parser runs.
"""
BYTES_OF_VALUE = 330
MAX_OF_SPAN = 3 * MAX_VALUES
"""The most values of all parsed JSON texts of a span. A text that several families parse counts each time."""
SHORT = 1000
"""The most characters of a text whose values are estimated and not counted: a value takes two characters or more."""
JSON_STARTS = frozenset('{["(' + "".join(filter(str.isspace, map(chr, range(0x3001)))))
"""The characters that a parsed text can start with: brackets, a quote, or white space."""
_NO_BOUNDS = bytes(each for each in range(256) if each not in b",[{")
_BRACKETS = re.compile(r"[\[{(\])}]")


def as_is(value: Any) -> Any:
    """Return a value unchanged."""
    return value


def text(value: Any) -> str | None:
    """Return a text; None if the value is empty or no text."""
    return value if type(value) is str and value else None


def whole(value: Any) -> int | None:
    """Return a whole number of 0 or more, also from a float such as `3.0` or a text such as `"3"`; else None."""
    if type(value) is int:
        return value if 0 <= value < 2**63 else None
    found = number(value)
    return int(found) if found is not None and found >= 0 and found == int(found) else None


def number(value: Any) -> int | float | None:
    """Return a finite number, also from a text such as `"0.5"`; else None."""
    if type(value) is str and 0 < len(value) <= 40:
        try:
            value = float(value) if not value.isascii() or not value.isdigit() else int(value)
        except ValueError:
            return None
    if type(value) is int and -(2**63) <= value < 2**63:
        return value
    return value if type(value) is float and math.isfinite(value) else None


def flag(value: Any) -> bool | None:
    """Return a boolean, also from the texts `true` and `false`; else None."""
    if type(value) is str:
        return {"true": True, "false": False}.get(value.lower())
    return value if type(value) is bool else None


def millis(value: Any) -> float | None:
    """Return a number of seconds as milliseconds; None if the value is no number."""
    seconds = number(value)
    return None if seconds is None else round(seconds * 1000, 6)


def first(value: Any) -> str | None:
    """Return the text `stop` from a list `["stop"]`, a JSON list `'["stop"]'` or a text `"stop"`; else None."""
    value = parsed(value)
    return text(next(iter(value), None) if type(value) is list else value)


def parsed(value: Any) -> Any:
    """Parse a JSON object, list or string in a text. Another value is returned unchanged, an empty text as None.

    A number stays a text: a tool that returned the text `305` did not return a number.
    """
    if type(value) is not str:
        return value
    start = value.lstrip()[:1]
    if start not in ("{", "[", '"'):
        return value or None
    return decoded(value)


def decoded(value: Any) -> Any:
    """Parse a JSON text of any kind, also a number. A value that is no JSON text is returned unchanged."""
    if type(value) is not str:
        return value
    if _is_deep(value) or not _takes(value):
        return value
    try:
        if "NaN" in value or "Infinity" in value:  # JSON has neither, but Python's `json` writes both
            return json.loads(value, parse_constant=str)
        return jsontext.decode(value)
    except (RecursionError, ValueError):
        return value


def listed(value: Any) -> list[Any] | None:
    """Return a non-empty list, also from a JSON text, with each JSON text in it parsed; else None."""
    value = parsed(value)
    return [parsed(item) for item in value] if type(value) is list and value else None


def members(value: Any) -> dict[str, Any] | None:
    """Return an object as a dict, also from a JSON text; else None."""
    value = parsed(value)
    return value if type(value) is dict else None


def literal(value: Any) -> Any:
    """Parse a Python literal in a text, such as `{'city': 'Seattle'}`. Another value is returned unchanged."""
    if type(value) is not str or value[:1] not in ("{", "[", "(") or len(value) > MAX_LITERAL or _is_deep(value):
        return value
    try:
        return _plain(ast.literal_eval(value))
    except (MemoryError, RecursionError, SyntaxError, TypeError, ValueError):
        return value


def begin_span() -> None:
    """Reset this thread's count of parsed values for a new span. MAX_OF_SPAN limits the count."""
    _room.values = MAX_OF_SPAN


class _Room(threading.local):
    """The number of values that a thread may still parse for its current span."""

    values = MAX_OF_SPAN


_room = _Room()


def _takes(value: str) -> bool:
    """Return whether a JSON text is within the limits of the current span, and count its values."""
    count = len(value) // 2 if len(value) <= SHORT else values_in(value)
    if count > MAX_VALUES:  # characters within strings may have been counted, too
        count = 0
        for _, outside in jsontext.structure(value):
            count += values_in(outside)
            if count > MAX_VALUES:
                return False
    if count > _room.values:
        return False
    _room.values -= count
    return True


def values_in(text: str) -> int:
    """Return an upper limit for the number of values in a JSON text, from its commas and opening brackets."""
    return len(text.encode("utf-8", "surrogatepass").translate(None, _NO_BOUNDS))  # half the time of three counts


def memory_of(value: Any) -> int:
    """Return the estimated bytes in memory of a text or plain JSON after it is parsed and mapped."""
    if type(value) is str:
        return 2 * len(value) + BYTES_OF_VALUE * min(values_in(value), MAX_OF_SPAN)
    if type(value) is dict:
        value = [*value.values()]
    return BYTES_OF_VALUE * len(value) + sum(map(memory_of, value)) if type(value) is list else 0


def _is_deep(value: str) -> bool:
    if len(value) <= MAX_NESTED or sum(map(value.count, "[{(")) <= MAX_NESTED:  # the case of most texts
        return False
    depth = 0
    for bracket in _BRACKETS.findall(value):
        depth += 1 if bracket in "[{(" else -1
        if depth > MAX_NESTED:
            return True
    return False


def _plain(value: Any) -> Any:
    """Convert the value of a Python literal to plain JSON."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)


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
        parts: the parts of the list, an outer one before those in it; none if there is no list.
    """

    names: tuple[str, ...]
    parts: tuple["SpeltPart", ...]


class SpeltPart(NamedTuple):
    """A dict, a list or a value in the list that names spell.

    Attributes:
        outer: the number of the dict or list that the part is in; 0 is the whole list, the others count from 1.
        key: the name of the part in a dict; None in a list.
        make: `dict` or `list`; None for a value.
        name: the name of the attribute with the value.
    """

    outer: int
    key: str | None
    make: Callable[[], Any] | None
    name: str


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


def built(parts: Iterable[SpeltPart], values: Mapping[str, Any]) -> list[Any]:
    """Return the list that names spell, from its parts and the values of the attributes."""
    made: list[Any] = [[]]
    for outer, key, make, name in parts:
        if make is None:
            part = values[name]
        else:
            part = make()
            made.append(part)
        if key is None:
            made[outer].append(part)
        else:
            made[outer][key] = part
    found: list[Any] = made[0]
    return found


def _add_parts(parts: list[SpeltPart], form: Any, outer: int, number: int) -> int:
    """Add the parts in a dict or list of names, and return how many dicts and lists there are then.

    Args:
        outer: the number of this dict or list.
        number: the number of the last one so far.
    """
    for key, each in form.items() if type(form) is dict else ((None, each) for each in form):
        if type(each) is str:
            parts.append(SpeltPart(outer, key, None, each))
        else:
            number += 1
            parts.append(SpeltPart(outer, key, type(each), ""))
            number = _add_parts(parts, each, number, number)
    return number


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
    form, parts = _lists(root), list[SpeltPart]()
    if type(form) is list:
        _add_parts(parts, form, 0, 0)
    return Spelt(tuple(used), tuple(parts))


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


KINDS: Mapping[str, str] = {
    **{kind: kind for kind in ("agent", "chain", "llm", "tool", "embedding", "guardrail")},
    **dict.fromkeys(("prompt", "parser", "workflow"), "chain"),
    **dict.fromkeys(("generation", "chat_model"), "llm"),
    **{"retriever": "retrieval", "reranker": "rerank", "evaluator": "evaluation"},
}
"""The span types by the names that platforms have for kinds of spans, in small letters."""


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
        names, parts = self.shape.spelt(prefix)
        if not names:
            return []
        for name in names:
            self.left.pop(name, None)
        return built(parts, self.span.attributes)

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

    def put_contents(self, asked: str, answered: str, read: Read) -> None:
        """Set the arguments of a tool, or the input of another step, and the output, each from one attribute."""
        self.put("payload.arguments" if self.type == "tool" else "payload.input", read(self.get(asked)), asked)
        self.put("result.output", read(self.get(answered)), answered)

    def put_documents(self, found: list[Any], *names: str) -> None:
        """Set the documents that a search or a rerank returned, and their number."""
        self.put("result.documents", found, *names)
        self.put("result.count", len(found))

    def first_event(self, *names: str) -> None:
        """Set the time to the first token from the first event with one of these names."""
        if not self.span.events:
            return
        start_ns = self.span.start_ns
        times = (event.time_ns for event in self.span.events if event.name in names and event.time_ns >= start_ns)
        if (at_ns := next(times, None)) is not None:
            self.put("result.time_to_first_token_ms", (at_ns - start_ns) / 1_000_000)

    def use_total(self, name: str) -> None:
        """Remove an attribute with the sum of the input and output tokens from `left` if the fields have this sum."""
        total = whole(self.get(name))
        if total is not None and total == self.result.get("input_tokens", 0) + self.result.get("output_tokens", 0):
            self.use(name)

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
