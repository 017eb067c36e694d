"""A compiled check for the simplest schemas: types, required, plain properties. 0.5 µs, where jsonschema takes 11–50.

It takes plain JSON only (what a JSON parser returns). jsonschema stays the judge: a schema with any other keyword
is not compiled, a payload that this check doubts goes to jsonschema, and a property test proves that both agree.
"""

from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any], bool]

_ANNOTATIONS = frozenset({"title", "description", "default", "examples", "$comment"})
_KNOWN = _ANNOTATIONS | {"type", "required", "properties", "additionalProperties"}
_CLASSES: Mapping[str, frozenset[type]] = {
    "object": frozenset({dict}),
    "array": frozenset({list}),
    "string": frozenset({str}),
    "integer": frozenset({int}),  # 1.0 is an integer too: jsonschema gets to say so
    "number": frozenset({int, float}),
    "boolean": frozenset({bool}),
    "null": frozenset({type(None)}),
}
_EVERY_CLASS: frozenset[type] = frozenset().union(*_CLASSES.values())


def compile_check(schema: Any) -> Check | None:
    """Return a check whose True means valid and whose False means "ask jsonschema"; None for any richer schema."""
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
    members: dict[str, frozenset[type]] = {}
    nested: dict[str, Check] = {}
    for name, property_schema in properties.items():
        check = compile_check(property_schema)
        if check is None:
            return None
        known = property_schema if isinstance(property_schema, dict) else {}
        allowed = _classes_of(known)
        if allowed and allowed != _EVERY_CLASS:  # what may be anything is not looked at
            members[name] = allowed
        if known.get("properties") or known.get("required"):
            nested[name] = check
    return _compiled(classes, tuple(required), members, nested)


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


def _compiled(
    classes: frozenset[type],
    required: tuple[str, ...],
    members: Mapping[str, frozenset[type]],
    nested: Mapping[str, Check],
) -> Check:
    classes_of = members.get

    def check(value: Any) -> bool:
        if type(value) not in classes:
            return False
        if type(value) is not dict:
            return True
        for name in required:
            if name not in value:
                return False
        for name, item in value.items():
            allowed = classes_of(name)
            if allowed is not None and type(item) not in allowed:
                return False
        return not nested or all(nested[name](value[name]) for name in nested if name in value)

    return check
