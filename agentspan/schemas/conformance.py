"""Whether a payload conforms to a schema: found out in bounded time, told without any value of the payload.

jsonschema decides (Draft 2020-12), fenced in: references may only point inside the schema, patterns run on the
regular expressions of pydantic-core (linear time; Python's `re` took 16 s for `^(a+)+$` on 28 characters),
uniqueItems is linear, and a check stops after MAX_STEPS keywords. It never raises for what it is given.
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from agentspan.errors import SchemaError
from agentspan.model.changes import Side, Violation
from agentspan.schemas.precheck import Check, compile_check

MAX_SCHEMA = 65_536
MAX_SCHEMA_DEPTH = 64
MAX_STEPS = 20_000
MAX_VIOLATIONS = 20

JSONSchema = Mapping[str, Any] | bool


class Conformance:
    """A schema: `check` lists how a payload differs from it.

    Attributes:
        quick: tells in a moment that a payload conforms; its False only means that `check` has to look.

    Raises:
        SchemaError: when constructed with `trusted=False` from a schema that cannot be used.
    """

    __slots__ = ("_validator", "quick", "side")

    def __init__(self, schema: JSONSchema | None, side: Side, *, trusted: bool = False) -> None:
        plain = True if schema is None else schema
        self.side: Side = side
        compiled = compile_check(plain)
        self.quick: Check = compiled or _doubt
        self._validator: Any = _validator(plain) if compiled is None and not trusted else lambda: _validator(plain)

    def check(self, payload: Any) -> tuple[Violation, ...]:
        """Return what is wrong with a payload of plain JSON; at most MAX_VIOLATIONS, empty when it conforms."""
        if self.quick(payload):
            return ()
        try:
            if callable(self._validator):
                self._validator = self._validator()  # a plain schema needs jsonschema (62 ms) at its first mismatch
            _budget.steps = MAX_STEPS
            return tuple(islice(self._violations(payload), MAX_VIOLATIONS))
        except (RecursionError, _OutOfSteps):
            return (Violation(self.side, "$", "$unchecked", "the check was given up: too large or too deep"),)
        except Exception as error:  # whatever it was: the record must not depend on it
            return (Violation(self.side, "$", "$unchecked", f"the check failed: {type(error).__name__}"),)

    def _violations(self, payload: Any) -> Iterator[Violation]:
        for error in self._validator.iter_errors(payload):
            yield Violation(self.side, error.json_path[:200], str(error.validator), _message(error))


def _message(error: Any) -> str:
    """Say what is wrong from the schema's side: jsonschema's own message has the whole instance in it."""
    keyword, wanted = error.validator, error.validator_value
    if keyword == "required":
        missing = [name for name in wanted if name not in error.instance]
        return f"lacks {', '.join(missing)}"[:200]
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


def _validator(schema: JSONSchema) -> Any:
    """Check a schema and compile it."""
    check_bounds(schema)
    from jsonschema.exceptions import SchemaError as NotASchema

    cls = _validator_class()
    try:
        cls.check_schema(schema)
        _check_references(schema)
    except NotASchema as error:
        where = error.json_path.replace("$", "schema", 1)
        raise SchemaError("schema", f"is not valid JSON Schema at {where}: {error.validator} is not met") from None
    except RecursionError:
        raise SchemaError("schema", "is nested too deep") from None
    from referencing import Registry

    return cls(schema, registry=Registry())


_class: Any = None


def _validator_class() -> Any:
    global _class
    if _class is None:
        from jsonschema import Draft202012Validator
        from jsonschema.validators import extend

        keywords = {**Draft202012Validator.VALIDATORS, "uniqueItems": _unique_items, "pattern": _pattern}
        keywords["patternProperties"] = _pattern_properties
        keywords["additionalProperties"] = _additional_properties
        # check_schema stays the original's: the metaschema is no stranger's.
        _class = extend(Draft202012Validator, {name: _counted(keyword) for name, keyword in keywords.items()})
    return _class


def _counted(keyword: Callable[..., Any]) -> Callable[..., Any]:
    def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        _budget.steps -= 1
        if _budget.steps < 0:
            raise _OutOfSteps
        return keyword(validator, value, instance, schema)

    return counted


def _error(message: str) -> Any:
    from jsonschema.exceptions import ValidationError

    return ValidationError(message)


def _unique_items(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
    """Linear: items are compared by canonical text, in which 1 and 1.0 are equal and 1 and true are not."""
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
    return bool(compiled.isinstance_python(text))


def compile_pattern(pattern: str) -> Any:
    """Compile a regular expression to one that matches in linear time.

    Raises:
        SchemaError: it is none, or it needs look-around or back-references, which cannot be bounded.
    """
    from pydantic_core import SchemaError as NotAPattern
    from pydantic_core import SchemaValidator, core_schema

    try:
        return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
    except NotAPattern:
        raise SchemaError(
            "schema",
            "has a pattern that cannot be matched in bounded time (look-around, back-reference, or too large)",
        ) from None


def check_bounds(schema: Any) -> None:
    """Refuse what is no JSON, too large, or nested too deep, before anything recursive sees it."""
    if not isinstance(schema, (dict, bool)):
        raise SchemaError("schema", "must be a JSON object or a boolean")
    level, depth = [schema], 0
    while level:
        if depth > MAX_SCHEMA_DEPTH:
            raise SchemaError("schema", f"is nested deeper than {MAX_SCHEMA_DEPTH}, or refers to itself as an object")
        level = [child for node in level for child in _children(node)]
        if len(level) > MAX_SCHEMA:
            raise SchemaError("schema", f"is larger than {MAX_SCHEMA} bytes of JSON")
        depth += 1
    try:
        size = len(json.dumps(schema))
    except (TypeError, ValueError):
        raise SchemaError("schema", "holds a value that is no JSON") from None
    if size > MAX_SCHEMA:
        raise SchemaError("schema", f"has {size} bytes of JSON; at most {MAX_SCHEMA} are allowed")


def _children(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return [value for value in node.values() if isinstance(value, (dict, list))]
    return [value for value in node if isinstance(value, (dict, list))] if isinstance(node, list) else []


def _check_references(schema: Any) -> None:
    """Refuse references that leave the schema or lead nowhere, and patterns that cannot be bounded."""
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    resolver = Registry().resolver_with_root(DRAFT202012.create_resource(schema))
    nodes = [schema]
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
        if isinstance(node.get("pattern"), str):
            compile_pattern(node["pattern"])
        if isinstance(node.get("patternProperties"), dict):
            for pattern in node["patternProperties"]:
                compile_pattern(pattern)
