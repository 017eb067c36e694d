"""Dialects of JSON Schema: finds a schema's draft, by `$schema` or else by its keywords, and its bounded validator.

Drafts 04, 06, 07, 2019-09 and 2020-12 are checked, each by jsonschema's validator of that draft. Other values of
`$schema` are ignored, as in jsonschema, but draft-03 and older are refused: they share too few keywords.
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from agentspan import host
from agentspan.errors import SchemaError

Keyword = Callable[..., Any]
"""A keyword as jsonschema calls it: with the validator, the keyword's value, the instance and the schema."""


class OutOfSteps(Exception):
    """A check used up its steps."""


class Budget(threading.local):
    """The steps that the check of this thread may still take."""

    steps = 0


budget = Budget()


def spend(steps: int) -> None:
    """Take steps from the budget.

    Raises:
        OutOfSteps: there are not enough.
    """
    budget.steps -= steps
    if budget.steps < 0:
        raise OutOfSteps


def size(value: Any) -> int:
    """Return the number of steps that the members of a list or an object cost."""
    return 1 + (len(value) >> 4 if type(value) is list or type(value) is dict else 0)


def bounded(keywords: Mapping[str, Keyword]) -> dict[str, Keyword]:
    """Return the keywords of a validator class with bounds: each spends steps, and slow ones are replaced."""
    replaced = {name: _REPLACED.get(name, keyword) for name, keyword in keywords.items()}
    return {name: _counted(name, keyword) for name, keyword in replaced.items()}


def _counted(name: str, keyword: Keyword) -> Keyword:
    compares_all_pairs = name in ("unevaluatedItems", "unevaluatedProperties")

    def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        spend(size(value))
        if compares_all_pairs and type(instance) in (list, dict):
            spend(len(instance) ** 2 >> 12)
        for error in keyword(validator, value, instance, schema) or ():
            spend(len(error.message) >> 10)  # jsonschema writes the whole instance into each
            yield error

    return counted


def _error(message: str) -> Any:
    from jsonschema.exceptions import ValidationError

    return ValidationError(message)


def _unique_items(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
    """Check uniqueItems in linear time, by canonical texts, in which 1 and 1.0 are equal and 1 and true are not."""
    if wanted and validator.is_type(instance, "array"):
        texts = {json.dumps(_canonical_numbers(item), sort_keys=True) for item in instance}
        if len(texts) < len(instance):
            yield _error("has equal items")


def _canonical_numbers(value: Any) -> Any:
    if type(value) is float and value.is_integer():
        return int(value)
    if type(value) is list:
        return [_canonical_numbers(item) for item in value]
    if type(value) is dict:
        return {key: _canonical_numbers(item) for key, item in value.items()}
    return value


def _required(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
    """Yield one error for all missing properties: the message names them."""
    if validator.is_type(instance, "object") and not all(name in instance for name in wanted):
        yield _error("lacks properties")


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    if validator.is_type(instance, "string") and not _search(pattern, instance):
        yield _error("does not match")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, schema: Any) -> Iterator[Any]:
    if validator.is_type(instance, "object"):
        for pattern, subschema in patterns.items():
            for name, item in instance.items():
                if _search(pattern, name):
                    yield from validator.descend(item, subschema, path=name, schema_path=pattern)


def _additional_properties(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
    if not validator.is_type(instance, "object"):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name, item in instance.items():
        if name in known or any(_search(pattern, name) for pattern in patterns):
            continue
        if wanted is False:
            yield _error("has a property that is not allowed")
            return
        yield from validator.descend(item, wanted, path=name)


_REPLACED: Mapping[str, Keyword] = {
    "additionalProperties": _additional_properties,
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "required": _required,
    "uniqueItems": _unique_items,
}

_patterns: dict[str, Any] = {}


def _search(pattern: str, text: str) -> bool:
    compiled = _patterns.get(pattern)
    if compiled is None:
        if len(_patterns) > 1000:
            _patterns.clear()
        compiled = _patterns[pattern] = compile_pattern(pattern)
    if not text.isascii():  # a lone surrogate is no text for Rust
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return bool(compiled.isinstance_python(text))


def compile_pattern(pattern: str) -> Any:
    """Compile a regular expression that matches in linear time.

    Raises:
        SchemaError: it is not a regular expression, or needs look-around or back-references, whose time has no bound.
    """
    with host.importing:
        from pydantic_core import SchemaError as NotAPattern
        from pydantic_core import SchemaValidator, core_schema

    try:
        with host.importing:  # the first validator is made under a lock, which a forked child would inherit held
            return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
    except NotAPattern:
        raise SchemaError(
            "schema",
            "has a pattern that is no regular expression, or cannot be matched in bounded time (look-around, "
            "back-references, or too large)",
        ) from None


class Dialect(NamedTuple):
    """A draft of JSON Schema.

    Attributes:
        name: as people write it.
        validator: the name of its class in jsonschema.
        specification: the name of its specification in referencing.
    """

    name: str
    validator: str
    specification: str


DRAFT4 = Dialect("draft-04", "Draft4Validator", "DRAFT4")
DRAFT6 = Dialect("draft-06", "Draft6Validator", "DRAFT6")
DRAFT7 = Dialect("draft-07", "Draft7Validator", "DRAFT7")
DRAFT2019 = Dialect("2019-09", "Draft201909Validator", "DRAFT201909")
DRAFT2020 = Dialect("2020-12", "Draft202012Validator", "DRAFT202012")

_BY_URI = {
    "json-schema.org/draft-04/schema": DRAFT4,
    "json-schema.org/draft-06/schema": DRAFT6,
    "json-schema.org/draft-07/schema": DRAFT7,
    "json-schema.org/draft/2019-09/schema": DRAFT2019,
    "json-schema.org/draft/2020-12/schema": DRAFT2020,
}
_TOO_OLD = frozenset(f"json-schema.org/draft-0{number}/schema" for number in (0, 1, 2, 3))

_OF_2020 = frozenset({"prefixItems", "$dynamicRef", "$dynamicAnchor"})
_SINCE_2019 = frozenset(
    {
        *("$anchor", "$defs", "$recursiveAnchor", "$recursiveRef", "dependentRequired", "dependentSchemas"),
        *("maxContains", "minContains", "unevaluatedItems", "unevaluatedProperties"),
    }
)
_MAPS_OF_SCHEMAS = ("$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties")
_LISTS_OF_SCHEMAS = ("allOf", "anyOf", "items", "oneOf", "prefixItems")
_SCHEMAS = (
    *("additionalItems", "additionalProperties", "contains", "else", "if", "items", "not", "propertyNames"),
    *("then", "unevaluatedItems", "unevaluatedProperties"),
)


def dialect_of(schema: Any) -> Dialect:
    """Return the dialect of a schema whose bounds were checked.

    Raises:
        SchemaError: `$schema` names a draft that cannot be checked.
    """
    if not isinstance(schema, dict):
        return DRAFT2020
    return _named(schema) or _of_form(schema)


def _named(schema: Any) -> Dialect | None:
    uri = schema.get("$schema")
    if not isinstance(uri, str):
        return None
    found = uri.removesuffix("#").removeprefix("https://").removeprefix("http://")  # clients write either scheme
    if found in _TOO_OLD:
        raise SchemaError("schema", "is of a draft older than 04, which cannot be checked")
    return _BY_URI.get(found)


def _of_form(schema: Any) -> Dialect:
    """Return the dialect of a schema by its keywords: 2020-12, unless it uses a form of older drafts only."""
    words: set[str] = set()
    has_tuples = has_boolean_limits = False
    for each in _subschemas(schema):
        words.update(each)
        has_tuples = has_tuples or isinstance(each.get("items"), list)
        for limit in ("exclusiveMinimum", "exclusiveMaximum"):
            has_boolean_limits = has_boolean_limits or isinstance(each.get(limit), bool)
    if has_boolean_limits:
        return DRAFT4
    if words & _OF_2020:
        return DRAFT2020
    if has_tuples or words & {"$recursiveRef", "dependencies"}:
        return DRAFT2019 if words & _SINCE_2019 else DRAFT7
    return DRAFT2020


def _subschemas(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield a schema and the schemas in it, but not the data of `enum`, `default` and the like."""
    nodes = [schema]
    while nodes:
        node = nodes.pop()
        if not isinstance(node, dict):
            continue
        yield node
        nodes.extend(node[word] for word in _SCHEMAS if word in node)
        for word in _LISTS_OF_SCHEMAS:
            if isinstance(node.get(word), list):
                nodes.extend(node[word])
        for word in _MAPS_OF_SCHEMAS:
            if isinstance(node.get(word), dict):
                nodes.extend(node[word].values())


_classes: dict[Dialect, Any] = {}
_no_documents: Any = None
"""The registry of all validators, empty: no reference may leave its schema."""


def validator(dialect: Dialect, schema: Any) -> Any:
    """Return the bounded validator of a schema. The import of jsonschema takes 62 ms, for the first one only."""
    return _class_of(dialect)(schema, registry=_no_documents)


def _class_of(dialect: Dialect) -> Any:
    global _no_documents
    cls = _classes.get(dialect)
    if cls is None:
        with host.importing:
            import jsonschema
            from jsonschema.validators import extend
            from referencing import Registry

        if _no_documents is None:
            _no_documents = Registry()
        original = getattr(jsonschema, dialect.validator)
        cls = extend(original, bounded(original.VALIDATORS))
        cls.evolve = _evolve
        _classes[dialect] = cls
    return cls


def metaschema_of(made: Any) -> Any:
    """Return the bounded validator of the metaschema of a validator's dialect."""
    return type(made)(made.META_SCHEMA, registry=_no_documents)


def specification(dialect: Dialect) -> Any:
    """Return the specification of a dialect, by which references are resolved."""
    from referencing import jsonschema

    return getattr(jsonschema, dialect.specification)


def _evolve(outer: Any, *, schema: Any, _resolver: Any = None) -> Any:
    """Return the validator of a subschema, which may have a `$schema` of its own.

    jsonschema's own `evolve` would drop the limits below such a `$schema`. `_resolver` is private to jsonschema, which
    passes it by that name; without it, `#/$defs/…` of the whole schema would not be found. The public `attrs.evolve`
    copies the resolver, too, but makes a check a third slower.
    """
    spend(size(schema))
    resolver = outer._resolver if _resolver is None else _resolver
    cls = type(outer)
    if type(schema) is dict and "$schema" in schema:
        dialect = _named(schema)
        cls = cls if dialect is None else _class_of(dialect)
    return cls(schema, registry=_no_documents, _resolver=resolver)
