"""Strategies for what the unit tests share: any text, plain JSON, and schemas with values that nearly match them."""

from typing import Any

from hypothesis import strategies as st

any_text = st.text(st.characters(exclude_categories=()) | st.sampled_from("  \t\n\x1b\x00\u200d\u0301\u202e\ud800🏽e"))
"""Text of any code points, lone surrogates and control characters included."""

small_integers = st.integers(-3, 3)
numbers = (
    small_integers | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, 1.0])
)
scalars = st.none() | st.booleans() | numbers | any_text

names = st.sampled_from(["a", "b", "c"])
"""Member names, few enough for schemas and values to meet in them."""


def json_of(keys: st.SearchStrategy[str], words: st.SearchStrategy[str] | None = None) -> st.SearchStrategy[Any]:
    """Any JSON value whose objects have such member names, and whose texts are also such words."""
    return st.recursive(
        scalars if words is None else scalars | words,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=12,
    )


json_values = json_of(names | any_text)
json_objects = st.dictionaries(names | any_text, json_values, max_size=5)

types = st.sampled_from(["object", "array", "string", "integer", "number", "boolean", "null"])


def simple_schemas(depth: int = 2) -> st.SearchStrategy[Any]:
    """Schemas of types, required and plain properties: what the pre-check compiles."""
    keywords: dict[str, st.SearchStrategy[Any]] = {
        "type": types | st.lists(types, min_size=1, max_size=4, unique=True),
        "required": st.lists(names, max_size=2, unique=True),
        "additionalProperties": st.just(True),
        "title": st.just("A title"),
        "description": st.just("What it is"),
        "default": scalars,
        "examples": st.lists(scalars, max_size=1),
        "$comment": st.just("for readers"),
    }
    if depth:
        keywords["properties"] = st.dictionaries(names, simple_schemas(depth - 1), max_size=3)
    return st.just(True) | st.fixed_dictionaries({}, optional=keywords)


def rich_schemas(depth: int = 2) -> st.SearchStrategy[Any]:
    """Schemas with the keywords that only jsonschema knows."""
    keywords: dict[str, st.SearchStrategy[Any]] = {
        "type": types | st.lists(types, min_size=1, max_size=4, unique=True),
        "required": st.lists(names, max_size=2, unique=True),
        "enum": st.lists(json_of(names), max_size=3),
        "const": scalars,
        "minimum": small_integers,
        "exclusiveMaximum": small_integers,
        "multipleOf": st.sampled_from([1, 2, 0.5]),
        "minLength": st.integers(0, 3),
        "maxItems": st.integers(0, 3),
        "minProperties": st.integers(0, 2),
        "uniqueItems": st.booleans(),
        "pattern": st.sampled_from(["a", "^b", "c$", "^(a|b)+$", "[abc]{2}", "^$"]),
        "dependentRequired": st.dictionaries(names, st.lists(names, max_size=2, unique=True), max_size=2),
        "unevaluatedItems": st.booleans(),
    }
    if depth:
        inner = rich_schemas(depth - 1)
        keywords |= {
            "properties": st.dictionaries(names, inner, max_size=3),
            "patternProperties": st.dictionaries(st.sampled_from(["a", "^b", "[bc]"]), inner, max_size=2),
            "additionalProperties": inner,
            "propertyNames": inner,
            "items": inner,
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
            "contains": inner,
            "not": inner,
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "oneOf": st.lists(inner, min_size=1, max_size=2),
            "if": inner,
            "then": inner,
            "else": inner,
        }
    return st.booleans() | st.fixed_dictionaries({}, optional=keywords)


def _of_type(schema: Any, name: str, depth: int) -> st.SearchStrategy[Any]:
    if name == "object":
        properties = schema.get("properties", {}) if depth else {}
        members = {key: values_near(inner, depth - 1) for key, inner in properties.items()}
        needed = {key: members.get(key, json_of(names)) for key in schema.get("required", [])}
        optional = {key: value for key, value in members.items() if key not in needed}
        return st.fixed_dictionaries(needed, optional=optional)
    return {
        "array": st.lists(scalars, max_size=3),
        "string": any_text,
        "integer": st.integers() | st.sampled_from([1.0, -0.0, 1e30, 2**70]),
        "number": numbers,
        "boolean": st.booleans(),
        "null": st.none(),
    }[name]


def values_near(schema: Any, depth: int = 3) -> st.SearchStrategy[Any]:
    """JSON values of which many conform to the schema, and many do so but for one thing."""
    anything = json_of(names)
    if not isinstance(schema, dict) or depth == 0:
        return anything
    wanted = schema.get("type", ["object", "string"])
    near = [_of_type(schema, name, depth) for name in ([wanted] if isinstance(wanted, str) else wanted)]
    return st.one_of(*near, *near, anything)


def with_values(schemas: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, Any]]:
    """Pairs of a schema and a value that nearly matches it."""
    return schemas.flatmap(lambda schema: st.tuples(st.just(schema), values_near(schema)))
