"""Checks payloads against a JSON Schema, in bounded time. Violations contain no value of the payload.

jsonschema does the check (Draft 2020-12), within limits: references may only point inside the schema, patterns run on
the regular expressions of pydantic-core (linear time; Python's `re` took 16 s for `^(a+)+$` on 28 characters),
uniqueItems is linear, and a check stops after MAX_STEPS keywords and subschemas. A check never raises, whatever the
payload.
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from agentspan import forks
from agentspan.errors import SchemaError
from agentspan.interrupts import let_through
from agentspan.model import sensitive
from agentspan.model.changes import Side, Violation
from agentspan.schemas.precheck import Check, simple
from agentspan.text import printable

MAX_SCHEMA = 65_536
MAX_SCHEMA_DEPTH = 64
MAX_PATTERNS = 64  # compiling one takes up to 60 ms
MAX_STEPS = 40_000  # 0.1 s
MAX_SCHEMA_STEPS = 160_000  # the schema's own check, once: 0.6 s
MAX_VIOLATIONS = 20

JSONSchema = Mapping[str, Any] | bool


class Conformance:
    """A compiled schema: `check` returns the violations of a payload.

    Args:
        schema: None accepts every payload.
        side: the payload or the result payload; violations have it.
        trusted: skip the checks of the schema itself, and compile it at its first use.

    Attributes:
        quick: a fast check. True means that a payload conforms, False that `check` must decide.

    Raises:
        SchemaError: the schema cannot be used; not with `trusted=True`.
    """

    __slots__ = ("_simple", "_validator", "quick", "side")

    def __init__(self, schema: JSONSchema | None, side: Side, *, trusted: bool = False) -> None:
        accepted = True if schema is None else schema
        if not trusted:
            check_bounds(accepted)  # before any recursive function receives it
        self.side: Side = side
        self._simple = simple(accepted)
        self.quick: Check = _doubt if self._simple is None else self._compile
        if self._simple is not None and not trusted:
            self.quick = self._simple.compiled()
        is_needed = self._simple is None and not trusted
        self._validator: Any = _validator(accepted) if is_needed else lambda: _validator(accepted)

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
        try:
            if callable(self._validator):
                self._validator = self._validator()  # a plain schema needs jsonschema (62 ms) at its first mismatch
            _budget.steps = MAX_STEPS
            return tuple(islice(self._violations(payload), MAX_VIOLATIONS))
        except (RecursionError, _OutOfSteps):
            return (Violation(self.side, "$", "$unchecked", "the check was given up: too large or too deep"),)
        except Exception as error:  # a failed check must not lose the record
            let_through(error)
            return (Violation(self.side, "$", "$unchecked", f"the check failed: {type(error).__name__}"),)

    def _violations(self, payload: Any) -> Iterator[Violation]:
        for error in self._validator.iter_errors(payload):
            if sensitive.is_unknown(error.instance, error.validator):
                continue
            yield Violation(self.side, printable(error.json_path[:200]), error.validator or "false", _message(error))


def _message(error: Any) -> str:
    """Return a message made of the schema only: jsonschema's own message contains the whole payload."""
    keyword, wanted = error.validator, error.validator_value
    if keyword == "required":
        missing = [name for name in wanted if name not in error.instance]
        return printable(f"lacks {', '.join(missing)}"[:200])
    if keyword == "type":
        return f"is not of type {wanted if isinstance(wanted, str) else ' or '.join(wanted)}"
    if keyword == "additionalProperties":
        return "has properties that the schema does not allow"
    if keyword is None:
        return "nothing is allowed here"
    return f"does not satisfy {keyword}: {json.dumps(wanted, default=str)}"[:200]


def _doubt(payload: Any) -> bool:
    return False


class _OutOfSteps(Exception):
    pass


class _Budget(threading.local):
    steps = MAX_STEPS


_budget = _Budget()


def _spend(steps: int) -> None:
    _budget.steps -= steps
    if _budget.steps < 0:
        raise _OutOfSteps


def _size(value: Any) -> int:
    """Return the number of steps that the members of a list or an object cost."""
    return 1 + (len(value) >> 4 if type(value) is list or type(value) is dict else 0)


def _validator(schema: JSONSchema) -> Any:
    """Check a schema and compile it."""
    check_bounds(schema)
    cls = _validator_class()
    try:
        _check_schema(cls, schema)
        _check_references(schema)
    except RecursionError:
        raise SchemaError("schema", "is nested too deep") from None
    return cls(schema, registry=_no_documents)


def _check_schema(cls: Any, schema: JSONSchema) -> None:
    """Check a schema against the metaschema with the same limits: jsonschema's check_schema took 17 s for 64 kB."""
    _budget.steps = MAX_SCHEMA_STEPS
    try:
        error = next(cls(cls.META_SCHEMA, registry=_no_documents).iter_errors(schema), None)
    except _OutOfSteps:
        raise SchemaError("schema", "has too many parts to be checked; split it up") from None
    if error is not None:
        where = error.json_path.replace("$", "schema", 1)[:200]
        raise SchemaError("schema", f"is not valid JSON Schema at {where}: {error.validator} is not met")


_class: Any = None
_no_documents: Any = None
"""The registry of all validators, empty: no reference may leave its schema."""


def _validator_class() -> Any:
    global _class, _no_documents
    if _class is None:
        with forks.importing:
            from jsonschema import Draft202012Validator
            from jsonschema.validators import extend
            from referencing import Registry

        _no_documents = Registry()
        keywords = {**Draft202012Validator.VALIDATORS, "uniqueItems": _unique_items, "pattern": _pattern}
        keywords["patternProperties"] = _pattern_properties
        keywords["additionalProperties"] = _additional_properties
        keywords["required"] = _required
        _class = extend(Draft202012Validator, {name: _counted(name, keyword) for name, keyword in keywords.items()})
        _class.evolve = _evolve
    return _class


def _counted(name: str, keyword: Callable[..., Any]) -> Callable[..., Any]:
    compares_all_pairs = name in ("unevaluatedItems", "unevaluatedProperties")

    def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        _spend(_size(value))
        if compares_all_pairs and type(instance) in (list, dict):
            _spend(len(instance) ** 2 >> 12)
        for error in keyword(validator, value, instance, schema) or ():
            _spend(len(error.message) >> 10)  # jsonschema writes the whole instance into each
            yield error

    return counted


def _evolve(validator: Any, *, schema: Any, _resolver: Any = None) -> Any:
    """Return the validator of a subschema. jsonschema's own `evolve` drops the limits at a nested `$schema`.

    `_resolver` is private to jsonschema, which passes it here by that name; without it, `#/$defs/…` of the whole schema
    would not be found. `attrs.evolve` copies it in public, but makes a check a third slower.
    """
    _spend(_size(schema))
    resolver = validator._resolver if _resolver is None else _resolver
    return type(validator)(schema, registry=_no_documents, _resolver=resolver)


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
    with forks.importing:
        from pydantic_core import SchemaError as NotAPattern
        from pydantic_core import SchemaValidator, core_schema

    try:
        return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
    except NotAPattern:
        raise SchemaError(
            "schema",
            "has a pattern that is no regular expression, or cannot be matched in bounded time (look-around, "
            "back-references, or too large)",
        ) from None


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


def _check_references(schema: Any) -> None:
    """Refuse references to other documents or to nothing, and patterns whose time has no bound."""
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    resolver = Registry().resolver_with_root(DRAFT202012.create_resource(schema))
    nodes = [schema]
    patterns: set[str] = set()
    words: set[str] = set()
    has_base = False
    while nodes:
        node = nodes.pop()
        nodes.extend(_children(node))
        if not isinstance(node, dict):
            continue
        has_base = has_base or "$id" in node
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
