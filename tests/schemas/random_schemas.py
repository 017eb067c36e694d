"""Random JSON Schemas of draft-04 to 2020-12, with payloads near them; some with what agentspan does not use."""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import jsonschema

VALIDATORS: dict[str, Any] = {
    "http://json-schema.org/draft-04/schema#": jsonschema.Draft4Validator,
    "http://json-schema.org/draft-06/schema#": jsonschema.Draft6Validator,
    "http://json-schema.org/draft-07/schema#": jsonschema.Draft7Validator,
    "https://json-schema.org/draft/2019-09/schema": jsonschema.Draft201909Validator,
    "https://json-schema.org/draft/2020-12/schema": jsonschema.Draft202012Validator,
}
DRAFTS = tuple(VALIDATORS)
NAMES = ("a", "b", "c")
TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
VALUES: dict[str, list[Any]] = {
    "string": ["", "a", "b", "ab", "abc", "12"],
    "integer": [-1, 0, 1, 2, 3, 1.0],
    "number": [-1, 0, 1, 2, 3, 0.5, 2.5, 2.0],
    "boolean": [True, False],
    "null": [None],
}
PATTERNS = ("a", "^b", "^(a|b)+$", "[abc]{2}", r"^\d+$", "^$")
UNUSABLE: tuple[dict[str, Any], ...] = (
    {"$ref": "https://example.org/other.json"},
    {"$ref": "other.json#/a"},
    {"$ref": "#/gone/away"},
    {"pattern": "(?=a)b"},
    {"pattern": "(["},
    {"patternProperties": {f"^x{n}$": {"type": "null"} for n in range(70)}},
    {"type": "nonsense"},
    {"minLength": "3"},
    {"properties": ["a"]},
)


class Made(NamedTuple):
    """A schema, the validator class of its draft, payloads, and whether agentspan should be able to check them."""

    schema: Any
    validator: Any
    payloads: list[Any]
    usable: bool


def make(seed: int) -> Made:
    """Return the schema of a seed: one in five of each draft, one in six with something that cannot be used."""
    rng = random.Random(seed)
    draft = rng.choice(DRAFTS)
    number = DRAFTS.index(draft)
    schema = _schema(rng, number, 3)
    if not isinstance(schema, dict):
        schema = {}
    if rng.random() < 0.3 and number in (0, 2, 4):  # no $schema: its form tells
        if number == 0:
            schema["properties"] = {**schema.get("properties", {}), "m": {"minimum": 3, "exclusiveMinimum": True}}
        elif number == 2:
            schema["properties"] = {**schema.get("properties", {}), "t": {"items": [{"type": "string"}, {}]}}
    else:
        schema["$schema"] = draft
    usable = rng.random() > 1 / 6
    if not usable:
        bad = rng.choice(UNUSABLE)
        place = rng.choice(["top", "below"])
        if place == "top":
            schema |= bad
        else:
            schema["properties"] = {**schema.get("properties", {}), "u": bad}
        if number < 3 and place == "below" and "$ref" in schema:
            del schema["$ref"]  # it would hide its siblings
    payloads = [_object(rng, schema, 3) for _ in range(4)]
    return Made(schema, VALIDATORS[draft], payloads, usable)


def _some(rng: random.Random, make_one: Callable[[], Any], most: int = 2) -> list[Any]:
    return [make_one() for _ in range(rng.randint(1, most))]


def _schema(rng: random.Random, draft: int, depth: int) -> Any:
    """A schema that the metaschema of its draft allows."""
    if draft and rng.random() < 0.1:
        return rng.random() < 0.8
    keywords = _keywords(rng, draft, depth)
    chosen = rng.sample(sorted(keywords), min(len(keywords), rng.randint(1, 4)))
    made: dict[str, Any] = {}
    for keyword in chosen:
        made |= keywords[keyword]()
    if depth == 3 and rng.random() < 0.3:
        where = "$defs" if draft > 2 else "definitions"
        made[where] = {"d": _schema(rng, draft, 1) if draft else {"type": rng.choice(TYPES)}}
        made["properties"] = {**made.get("properties", {}), rng.choice(NAMES): {"$ref": f"#/{where}/d"}}
    return made


def _keywords(rng: random.Random, draft: int, depth: int) -> dict[str, Callable[[], dict[str, Any]]]:
    def names() -> list[str]:
        return rng.sample(NAMES, rng.randint(1, 2))

    def scalar() -> Any:
        return rng.choice([0, 1, 2, 1.0, 2.5, "a", "b", "ab", "", True, False, None, [], {"a": 1}])

    keywords: dict[str, Callable[[], dict[str, Any]]] = {
        "type": lambda: {"type": rng.choice(TYPES) if rng.random() < 0.7 else rng.sample(TYPES, 3)},
        "required": lambda: {"required": names()},
        "enum": lambda: {"enum": [[1], *rng.sample(["a", "b", 1, None, {"a": 1}], 3)]},
        "minimum": lambda: {"minimum": rng.randint(-2, 3)},
        "multipleOf": lambda: {"multipleOf": rng.choice([1, 2, 0.5])},
        "lengths": lambda: {"minLength": rng.randint(0, 2), "maxLength": rng.randint(1, 3)},
        "maxItems": lambda: {"maxItems": rng.randint(0, 3)},
        "minProperties": lambda: {"minProperties": rng.randint(0, 2)},
        "uniqueItems": lambda: {"uniqueItems": True},
        "pattern": lambda: {"pattern": rng.choice(PATTERNS)},
        "annotations": lambda: {"title": "T", "description": "D", "default": scalar(), "format": "date-time"},
    }
    if draft == 0:
        keywords["limits"] = lambda: {"maximum": rng.randint(0, 3), "exclusiveMaximum": rng.random() < 0.6}
    else:
        keywords |= {
            "exclusiveMinimum": lambda: {"exclusiveMinimum": rng.randint(-1, 2)},
            "const": lambda: {"const": scalar()},
        }
    if draft > 2:
        keywords |= {
            "dependentRequired": lambda: {"dependentRequired": {rng.choice(NAMES): names()}},
            "unevaluatedItems": lambda: {"unevaluatedItems": False},
        }
    if depth:
        keywords |= _nesting(rng, draft, lambda: _schema(rng, draft, depth - 1), names)
    return keywords


def _nesting(
    rng: random.Random, draft: int, inner: Callable[[], Any], names: Callable[[], list[str]]
) -> dict[str, Callable[[], dict[str, Any]]]:
    found: dict[str, Callable[[], dict[str, Any]]] = {
        "properties": lambda: {"properties": {name: inner() for name in names()}},
        "properties again": lambda: {"properties": {name: inner() for name in NAMES}},
        "patternProperties": lambda: {"patternProperties": {rng.choice(("a", "^b", "[bc]")): inner()}},
        "additionalProperties": lambda: {"additionalProperties": rng.choice([False, inner()])},
        "items": lambda: {"items": inner()},
        "not": lambda: {"not": inner()},
        "allOf": lambda: {"allOf": _some(rng, inner)},
        "anyOf": lambda: {"anyOf": _some(rng, inner)},
        "oneOf": lambda: {"oneOf": _some(rng, inner)},
    }
    if draft < 4:
        found["tuple"] = lambda: {"items": _some(rng, inner, 3), "additionalItems": rng.choice([False, inner()])}
    else:
        found["prefixItems"] = lambda: {"prefixItems": _some(rng, inner, 3)}
    if draft < 3:
        found["dependencies"] = lambda: {"dependencies": {rng.choice(NAMES): rng.choice([names(), inner()])}}
    else:
        found["dependentSchemas"] = lambda: {"dependentSchemas": {rng.choice(NAMES): inner()}}
        found["contains"] = lambda: {"contains": inner(), "minContains": 1, "maxContains": 2}
    if draft in (1, 2):
        found["contains"] = lambda: {"contains": inner()}
    if draft:
        found["propertyNames"] = lambda: {"propertyNames": rng.choice([inner(), {"maxLength": 1}])}
    if draft > 1:
        found["if"] = lambda: {"if": inner(), "then": inner(), "else": inner()}
    return found


def _object(rng: random.Random, schema: Any, depth: int) -> dict[str, Any]:
    """A payload whose members are near those of the schema."""
    properties = schema.get("properties", {}) if isinstance(schema, dict) else {}
    found = {name: _value(rng, {}, depth - 1) for name in NAMES if rng.random() < 0.3}
    if isinstance(properties, dict):
        found |= {name: _value(rng, inner, depth - 1) for name, inner in properties.items() if rng.random() < 0.8}
    return found


def _value(rng: random.Random, schema: Any, depth: int) -> Any:
    wanted = schema.get("type") if isinstance(schema, dict) and rng.random() < 0.8 else None
    if isinstance(wanted, list):
        wanted = rng.choice(wanted)
    if wanted not in TYPES:
        wanted = rng.choice(TYPES)
    if wanted == "object":
        return _object(rng, schema, depth) if depth > 0 else {}
    if wanted == "array":
        inner = schema.get("items", {}) if isinstance(schema, dict) else {}
        return [_value(rng, inner, depth - 1) for _ in range(rng.randint(0, 3))] if depth > 0 else []
    return rng.choice(VALUES[wanted])
