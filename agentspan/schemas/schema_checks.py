"""Checks of a JSON Schema itself: form, size, depth, references, patterns. The metaschema is checked elsewhere."""

import json
from itertools import islice
from typing import Any

from agentspan.errors import SchemaError
from agentspan.schemas.dialects import DRAFT4, Dialect, specification
from agentspan.schemas.keywords import compile_pattern

MAX_SCHEMA = 65_536
MAX_SCHEMA_DEPTH = 64
MAX_PATTERNS = 64  # compiling one takes up to 60 ms


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
        SchemaError: it refers to another document or to nothing, or has a pattern whose time has no bound, or too many.
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
