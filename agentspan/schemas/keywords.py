"""jsonschema's keywords with bounds: linear patterns and uniqueItems, and a budget of steps for each check."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from agentspan import forks
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
    """Return the keywords of a validator class with bounds: each spends steps, and those below are replaced."""
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
    with forks.importing:
        from pydantic_core import SchemaError as NotAPattern
        from pydantic_core import SchemaValidator, core_schema

    try:
        with forks.importing:  # the first validator is made under a lock, which a forked child would inherit held
            return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
    except NotAPattern:
        raise SchemaError(
            "schema",
            "has a pattern that is no regular expression, or cannot be matched in bounded time (look-around, "
            "back-references, or too large)",
        ) from None
