"""Dialects of JSON Schema: the draft that `$schema` names, else the one whose form a schema has; its bounded validator.

Drafts 04, 06, 07, 2019-09 and 2020-12 are checked, each by jsonschema's validator of that draft. Other values of
`$schema` mean nothing, as in jsonschema, but draft-03 and older are refused: they share too few keywords.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from agentspan import forks
from agentspan.errors import SchemaError
from agentspan.schemas.keywords import bounded, size, spend


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
        "$anchor",
        "$defs",
        "$recursiveAnchor",
        "$recursiveRef",
        "dependentRequired",
        "dependentSchemas",
        "maxContains",
        "minContains",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
_MAPS_OF_SCHEMAS = ("$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties")
_LISTS_OF_SCHEMAS = ("allOf", "anyOf", "items", "oneOf", "prefixItems")
_SCHEMAS = (
    "additionalItems",
    "additionalProperties",
    "contains",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
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
    """Return the dialect that the keywords of a schema tell: 2020-12 unless a form exists in older drafts only."""
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
        with forks.importing:
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

    jsonschema's own `evolve` drops the limits there. `_resolver` is private to jsonschema, which passes it here by that
    name; without it, `#/$defs/…` of the whole schema would not be found. `attrs.evolve` copies it in public, but makes
    a check a third slower.
    """
    spend(size(schema))
    resolver = outer._resolver if _resolver is None else _resolver
    cls = type(outer)
    if type(schema) is dict and "$schema" in schema:
        dialect = _named(schema)
        cls = cls if dialect is None else _class_of(dialect)
    return cls(schema, registry=_no_documents, _resolver=resolver)
