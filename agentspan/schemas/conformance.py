"""Checks payloads against a JSON Schema, in bounded time. Violations contain no value of the payload.

jsonschema does the check (Draft 2020-12), within limits: references may only point inside the schema, patterns run on
the regular expressions of pydantic-core (linear time; Python's `re` took 16 s for `^(a+)+$` on 28 characters),
uniqueItems is linear, and a check stops after MAX_STEPS keywords and subschemas. A check never raises, whatever the
payload.
"""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from agentspan import forks
from agentspan.errors import SchemaError
from agentspan.interrupts import let_through
from agentspan.model import sensitive
from agentspan.model.changes import Side, Violation
from agentspan.schemas.keywords import OutOfSteps, bounded, budget, size, spend
from agentspan.schemas.precheck import Check, simple
from agentspan.schemas.schema_checks import check_bounds, check_references
from agentspan.text import printable

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
            budget.steps = MAX_STEPS
            return tuple(islice(self._violations(payload), MAX_VIOLATIONS))
        except (RecursionError, OutOfSteps):
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


def _validator(schema: JSONSchema) -> Any:
    """Check a schema and compile it."""
    check_bounds(schema)
    cls = _validator_class()
    try:
        _check_schema(cls, schema)
        check_references(schema)
    except RecursionError:
        raise SchemaError("schema", "is nested too deep") from None
    return cls(schema, registry=_no_documents)


def _check_schema(cls: Any, schema: JSONSchema) -> None:
    """Check a schema against the metaschema with the same limits: jsonschema's check_schema took 17 s for 64 kB."""
    budget.steps = MAX_SCHEMA_STEPS
    try:
        error = next(cls(cls.META_SCHEMA, registry=_no_documents).iter_errors(schema), None)
    except OutOfSteps:
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
        _class = extend(Draft202012Validator, bounded(Draft202012Validator.VALIDATORS))
        _class.evolve = _evolve
    return _class


def _evolve(validator: Any, *, schema: Any, _resolver: Any = None) -> Any:
    """Return the validator of a subschema. jsonschema's own `evolve` drops the limits at a nested `$schema`.

    `_resolver` is private to jsonschema, which passes it here by that name; without it, `#/$defs/…` of the whole schema
    would not be found. `attrs.evolve` copies it in public, but makes a check a third slower.
    """
    spend(size(schema))
    resolver = validator._resolver if _resolver is None else _resolver
    return type(validator)(schema, registry=_no_documents, _resolver=resolver)
