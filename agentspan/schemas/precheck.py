"""A compiled check for simple schemas: types, required, plain properties. 0.1 µs; jsonschema takes 11–50 µs.

It accepts plain JSON only, as a JSON parser returns it. jsonschema decides every other case: a schema with any other
keyword is not compiled, and a payload that fails this check is checked by jsonschema. A property test proves that both
agree.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

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
