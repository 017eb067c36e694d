"""Checks payloads against a JSON Schema, in bounded time. Violations contain no value of the payload.

jsonschema does the check, by the draft of the schema (see dialects), within limits: references may only point inside
the schema, patterns run on the regular expressions of pydantic-core (linear time; Python's `re` took 16 s for `^(a+)+$`
on 28 characters), uniqueItems is linear, and a check stops after MAX_STEPS keywords and subschemas. A check never
raises, whatever the payload: a check that fails to run gives a violation of `$unchecked`, whose message has the reason.

A schema itself is checked before, by form, size, depth, references and patterns. Simple ones (types, required, plain
properties) are compiled to a check that takes 0.1 µs, where jsonschema takes 11 to 50. It accepts plain JSON only, as a
JSON parser returns it. jsonschema decides every other case: a schema with any other keyword is not compiled, and a
payload that fails this check is checked by jsonschema. A property test proves that both agree.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from agentspan.errors import InvalidValue, SchemaError
from agentspan.host import let_through
from agentspan.model import columns
from agentspan.model.rows import Side, Violation
from agentspan.schemas.dialects import (
    DRAFT4,
    Dialect,
    OutOfSteps,
    budget,
    compile_pattern,
    dialect_of,
    metaschema_of,
    specification,
    validator,
)
from agentspan.text import is_near, printable

MAX_SCHEMA = 65_536
"""The most bytes of a JSON Schema; a larger one is a `SchemaError`, or, from a client, payloads are `$unchecked`."""
MAX_SCHEMA_DEPTH = 64
"""The most levels of a JSON Schema."""
MAX_PATTERNS = 64  # compiling one takes up to 60 ms
"""The most patterns of a JSON Schema."""


def check_bounds(schema: Any) -> None:
    """Check form, size and depth of a schema without recursion.

    Raises:
        SchemaError: it is not JSON, too large, or nested too deep.
    """
    if not isinstance(schema, (dict, bool)):
        raise SchemaError("schema", "must be a JSON object or a boolean")
    level, depth = [schema], 0
    while level:
        if depth > MAX_SCHEMA_DEPTH:
            raise SchemaError("schema", f"is nested deeper than {MAX_SCHEMA_DEPTH}, or refers to itself as an object")
        if any(type(key) is not str for node in level if isinstance(node, dict) for key in node):
            raise SchemaError("schema", "has a key that is no text")
        level = list(islice((child for node in level for child in _children(node)), MAX_SCHEMA + 1))
        if len(level) > MAX_SCHEMA:
            raise SchemaError("schema", f"is larger than {MAX_SCHEMA} bytes of JSON")
        depth += 1
    try:
        size = len(json.dumps(schema, allow_nan=False))
    except (TypeError, ValueError):
        raise SchemaError("schema", "holds a value that is no JSON") from None
    if size > MAX_SCHEMA:
        raise SchemaError("schema", f"has {size} bytes of JSON; at most {MAX_SCHEMA} are allowed")


def _children(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return [value for value in node.values() if isinstance(value, (dict, list))]
    return [value for value in node if isinstance(value, (dict, list))] if isinstance(node, list) else []


def check_references(schema: Any, dialect: Dialect) -> None:
    """Check the references and patterns of a schema that the metaschema allows.

    Raises:
        SchemaError: it refers to another document or to nothing, has too many patterns, or one without a time bound.
    """
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    resolver = Registry().resolver_with_root(specification(dialect).create_resource(schema))
    nodes = [schema]
    patterns: set[str] = set()
    words: set[str] = set()
    has_base, base = False, "id" if dialect == DRAFT4 else "$id"
    while nodes:
        node = nodes.pop()
        nodes.extend(_children(node))
        if not isinstance(node, dict):
            continue
        has_base = has_base or base in node
        for word in ("$ref", "$dynamicRef"):
            reference = node.get(word)
            if not isinstance(reference, str):
                continue
            if not reference.startswith("#"):
                raise SchemaError(
                    "schema", f"has a {word} to another document; put it under $defs and refer to #/$defs/…"
                )
            try:
                if not has_base:
                    resolver.lookup(reference)
            except Unresolvable:
                raise SchemaError("schema", f"has a {word} that leads nowhere") from None
        words.update(node)
        if isinstance(node.get("pattern"), str):
            patterns.add(node["pattern"])
        if isinstance(node.get("patternProperties"), dict):
            patterns.update(node["patternProperties"])
    if {"patternProperties", "unevaluatedProperties"} <= words:  # there jsonschema uses Python's `re`
        raise SchemaError("schema", "has patternProperties beside unevaluatedProperties; use additionalProperties")
    if len(patterns) > MAX_PATTERNS:
        raise SchemaError("schema", f"has {len(patterns)} patterns; at most {MAX_PATTERNS} are allowed")
    for pattern in sorted(patterns):
        compile_pattern(pattern)


Check = Callable[[Any], bool]

_ANNOTATIONS = frozenset({"title", "description", "default", "examples", "$comment"})
_KNOWN = _ANNOTATIONS | {"type", "required", "properties", "additionalProperties"}
_CLASSES: Mapping[str, frozenset[type]] = {
    "object": frozenset({dict}),
    "array": frozenset({list}),
    "string": frozenset({str}),
    "integer": frozenset({int}),  # 1.0 is an integer too: jsonschema decides that
    "number": frozenset({int, float}),
    "boolean": frozenset({bool}),
    "null": frozenset({type(None)}),
}
_EVERY_CLASS: frozenset[type] = frozenset().union(*_CLASSES.values())


class Simple(NamedTuple):
    """A simple schema: the classes that a value may have, and the members of an object.

    Attributes:
        classes: the Python classes of allowed values.
        required: the names of required members.
        members: the schemas of members, by name.
    """

    classes: frozenset[type]
    required: frozenset[str]
    members: Mapping[str, "Simple"]

    def compiled(self) -> Check:
        """Return a check: True means valid, False means that jsonschema must decide. Compiling takes 20 µs a member."""
        scope: dict[str, Any] = {"__builtins__": {"dict": dict, "type": type}, "classes": self.classes}
        tests = ["type(v) is dict", *self._tests_of_members(scope)]
        if dict not in self.classes:
            tests = ["type(v) in classes"]
        elif len(self.classes) > 1:
            tests = ["type(v) in classes", f"(type(v) is not dict or {' and '.join(tests)})"]
        check: Check = eval(f"lambda v: {' and '.join(tests)}", scope)  # fixed pieces: names and classes are constants
        return check

    def _tests_of_members(self, scope: dict[str, Any]) -> Iterator[str]:
        for number, name in enumerate({**dict.fromkeys(self.required), **self.members}):
            member = self.members.get(name, _ANYTHING)
            scope[f"name{number}"] = name
            if name in self.required:
                yield f"name{number} in v"
            if member.members or member.required:
                scope[f"check{number}"] = member.compiled()
                yield f"(name{number} not in v or check{number}(v[name{number}]))"
            elif member.classes != _EVERY_CLASS:
                # A missing member is replaced by a value of an allowed class.
                scope[f"classes{number}"], scope[f"default{number}"] = member.classes, next(iter(member.classes))()
                yield f"type(v.get(name{number}, default{number})) in classes{number}"


_ANYTHING = Simple(_EVERY_CLASS, frozenset(), {})


def simple(schema: Any) -> Simple | None:
    """Return a schema as a Simple; None for a schema with other keywords."""
    if schema is True:
        schema = {}
    if not isinstance(schema, dict) or not set(schema) <= _KNOWN:
        return None
    classes = _classes_of(schema)
    required, properties = schema.get("required", []), schema.get("properties", {})
    if (
        classes is None
        or schema.get("additionalProperties", True) is not True
        or not isinstance(properties, dict)
        or not isinstance(required, list)
        or not all(isinstance(name, str) for name in required)
        or len(set(required)) != len(required)
        or not all(isinstance(schema.get(word, ""), str) for word in ("title", "description", "$comment"))
        or not isinstance(schema.get("examples", []), list)
    ):
        return None
    members: dict[str, Simple] = {}
    for name, property_schema in properties.items():
        member = simple(property_schema)
        if member is None:
            return None
        members[name] = member
    return Simple(classes, frozenset(required), members)


def _classes_of(schema: Mapping[str, Any]) -> frozenset[type] | None:
    if "type" not in schema:
        return _EVERY_CLASS
    names = schema["type"]
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and n in _CLASSES for n in names):
        return None
    if len(set(names)) != len(names):
        return None
    return frozenset().union(*(_CLASSES[name] for name in names))


MAX_STEPS = 40_000  # 0.1 s
"""The most steps (keywords, subschemas, size) of a conformance check. Beyond them there is one violation,
`$unchecked`."""
MAX_SCHEMA_STEPS = 160_000  # the schema's own check, once: 0.6 s
MAX_VIOLATIONS = 20
"""The most violations that are stored for a payload."""

JSONSchema = Mapping[str, Any] | bool


class Conformance:
    """A compiled schema: `check` returns the violations of a payload.

    Args:
        schema: None accepts every payload.
        side: whether the schema is for payloads or for result payloads; each violation names it.
        trusted: skip the checks of the schema itself, and compile it at its first use.

    Attributes:
        quick: a fast check. True means that a payload conforms, False that `check` must decide.

    Raises:
        SchemaError: the schema cannot be used; not with `trusted=True`.
    """

    __slots__ = ("_simple", "_unusable", "_validator", "quick", "side")

    def __init__(self, schema: JSONSchema | None, side: Side, *, trusted: bool = False) -> None:
        accepted = True if schema is None else schema
        if not trusted:
            check_bounds(accepted)  # before any recursive function receives it
        self.side: Side = side
        try:
            self._simple = simple(accepted)
        except RecursionError:  # only a trusted schema can be that deep
            self._simple = None
        self.quick: Check = _doubt if self._simple is None else self._compile
        if self._simple is not None and not trusted:
            self.quick = self._simple.compiled()
        self._unusable: str | None = None
        is_needed = self._simple is None and not trusted
        try:
            self._validator: Any = _validator(accepted) if is_needed else lambda: _validator(accepted)
        except RecursionError:
            raise SchemaError("schema", "is nested too deep") from None

    def _compile(self, payload: Any) -> bool:
        """Compile `quick` at its first call: most of the built-in types are never used."""
        assert self._simple is not None
        try:
            self.quick = self._simple.compiled()
        except (MemoryError, RecursionError):  # no stack left here: the next payload tries again
            return False
        return self.quick(payload)

    def check(self, payload: Any) -> tuple[Violation, ...]:
        """Return the violations of a payload of plain JSON: at most MAX_VIOLATIONS, none if it conforms."""
        if self.quick(payload):
            return ()
        if self._unusable is not None:
            return self._unchecked(self._unusable)
        try:
            made = self._validator  # read once: another thread may replace it
            if callable(made):
                self._validator = made()  # a plain schema needs jsonschema (62 ms) at its first mismatch
            budget.steps = MAX_STEPS
            return tuple(islice(self._violations(payload), MAX_VIOLATIONS))
        except SchemaError as error:  # a client's schema is stored and used, not refused
            self._unusable = f"the schema {problem_of(error)}"
            return self._unchecked(self._unusable)
        except (RecursionError, OutOfSteps):
            return self._unchecked("the check was given up: too large or too deep")
        except Exception as error:  # a failed check must not lose the record
            let_through(error)
            return self._unchecked(f"the check failed: {type(error).__name__}")

    def _unchecked(self, reason: str) -> tuple[Violation, ...]:
        return (Violation(self.side, "$", "$unchecked", printable(reason)),)

    def _violations(self, payload: Any) -> Iterator[Violation]:
        for error in self._validator.iter_errors(payload):
            if columns.is_unknown(error.instance, error.validator):
                continue
            yield Violation(self.side, printable(error.json_path[:200]), error.validator or "false", _message(error))


def problem_of(error: InvalidValue) -> str:
    """Return the problem with a schema or a template: the message of an error, without the field's name."""
    return str(error).removeprefix(f"{error.field}: ")


def _message(error: Any) -> str:
    """Return a message made of the schema only: jsonschema's own message contains the whole payload."""
    keyword, wanted = error.validator, error.validator_value
    if keyword == "required":
        missing = [name for name in wanted if name not in error.instance]
        near = next(
            ((key, name) for name in missing for key in islice(error.instance, 100) if is_near(key, name)), None
        )
        meant = "" if near is None else f" ({near[0]}: is {near[1]} meant?)"
        return printable(f"lacks {', '.join(missing)}"[:200] + meant)
    if keyword == "type":
        return f"is not of type {wanted if isinstance(wanted, str) else ' or '.join(wanted)}"
    if keyword == "additionalProperties":
        return "has properties that the schema does not allow"
    if keyword is None:
        return "nothing is allowed here"
    return f"does not satisfy {keyword}: {json.dumps(wanted, default=str)}"[:200]


def _doubt(payload: Any) -> bool:
    return False


def _validator(schema: JSONSchema) -> Any:
    """Check a schema and compile it."""
    check_bounds(schema)
    dialect = dialect_of(schema)
    made = validator(dialect, schema)
    _check_schema(made, schema)
    check_references(schema, dialect)
    return made


def _check_schema(made: Any, schema: JSONSchema) -> None:
    """Check a schema against its metaschema within limits: jsonschema's check_schema took 17 s for 64 kB."""
    budget.steps = MAX_SCHEMA_STEPS
    try:
        error = next(metaschema_of(made).iter_errors(schema), None)
    except OutOfSteps:
        raise SchemaError("schema", "has too many parts to be checked; split it up") from None
    if error is not None:
        where = error.json_path.replace("$", "schema", 1)[:200]
        raise SchemaError("schema", f"is not valid JSON Schema at {where}: {error.validator} is not met")
