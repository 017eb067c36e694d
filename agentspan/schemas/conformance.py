"""Checks payloads against a JSON Schema, in bounded time. Violations contain no value of the payload.

jsonschema does the check, by the draft of the schema (see dialects), within limits: references may only point inside
the schema, patterns run on the regular expressions of pydantic-core (linear time; Python's `re` took 16 s for `^(a+)+$`
on 28 characters), uniqueItems is linear, and a check stops after MAX_STEPS keywords and subschemas. A check never
raises, whatever the payload: one that cannot be made is a violation of `$unchecked`, whose message says why.
"""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from agentspan.errors import InvalidValue, SchemaError
from agentspan.interrupts import let_through
from agentspan.model import sensitive
from agentspan.model.changes import Side, Violation
from agentspan.schemas.dialects import dialect_of, metaschema_of, validator
from agentspan.schemas.keywords import OutOfSteps, budget
from agentspan.schemas.precheck import Check, simple
from agentspan.schemas.schema_checks import check_bounds, check_references
from agentspan.text import is_near, printable

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

    __slots__ = ("_simple", "_unusable", "_validator", "quick", "side")

    def __init__(self, schema: JSONSchema | None, side: Side, *, trusted: bool = False) -> None:
        accepted = True if schema is None else schema
        if not trusted:
            check_bounds(accepted)  # before any recursive function receives it
        self.side: Side = side
        try:
            self._simple = simple(accepted)
        except RecursionError:  # only a trusted one is as deep as that
            self._simple = None
        self.quick: Check = _doubt if self._simple is None else self._compile
        if self._simple is not None and not trusted:
            self.quick = self._simple.compiled()
        self._unusable: str | None = None
        is_needed = self._simple is None and not trusted
        try:
            self._validator: Any = _validator(accepted) if is_needed else lambda: _validator(accepted)
        except RecursionError:
            raise SchemaError("schema", "is nested too deep") from None

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
        if self._unusable is not None:
            return self._unchecked(self._unusable)
        try:
            made = self._validator  # read once: another thread may replace it
            if callable(made):
                self._validator = made()  # a plain schema needs jsonschema (62 ms) at its first mismatch
            budget.steps = MAX_STEPS
            return tuple(islice(self._violations(payload), MAX_VIOLATIONS))
        except SchemaError as error:  # a client's schema: it is stored and recorded with, not refused
            self._unusable = f"the schema {problem_of(error)}"
            return self._unchecked(self._unusable)
        except (RecursionError, OutOfSteps):
            return self._unchecked("the check was given up: too large or too deep")
        except Exception as error:  # a failed check must not lose the record
            let_through(error)
            return self._unchecked(f"the check failed: {type(error).__name__}")

    def _unchecked(self, reason: str) -> tuple[Violation, ...]:
        return (Violation(self.side, "$", "$unchecked", printable(reason)),)

    def _violations(self, payload: Any) -> Iterator[Violation]:
        for error in self._validator.iter_errors(payload):
            if sensitive.is_unknown(error.instance, error.validator):
                continue
            yield Violation(self.side, printable(error.json_path[:200]), error.validator or "false", _message(error))


def problem_of(error: InvalidValue) -> str:
    """Return what is wrong with a schema or a template: the error without the field's name."""
    return str(error).removeprefix(f"{error.field}: ")


def _message(error: Any) -> str:
    """Return a message made of the schema only: jsonschema's own message contains the whole payload."""
    keyword, wanted = error.validator, error.validator_value
    if keyword == "required":
        missing = [name for name in wanted if name not in error.instance]
        near = next(
            ((key, name) for name in missing for key in islice(error.instance, 100) if is_near(key, name)), None
        )
        meant = "" if near is None else f" ({near[0]}: is {near[1]} meant?)"
        return printable(f"lacks {', '.join(missing)}"[:200] + meant)
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
    dialect = dialect_of(schema)
    made = validator(dialect, schema)
    _check_schema(made, schema)
    check_references(schema, dialect)
    return made


def _check_schema(made: Any, schema: JSONSchema) -> None:
    """Check a schema against the metaschema with the same limits: jsonschema's check_schema took 17 s for 64 kB."""
    budget.steps = MAX_SCHEMA_STEPS
    try:
        error = next(metaschema_of(made).iter_errors(schema), None)
    except OutOfSteps:
        raise SchemaError("schema", "has too many parts to be checked; split it up") from None
    if error is not None:
        where = error.json_path.replace("$", "schema", 1)[:200]
        raise SchemaError("schema", f"is not valid JSON Schema at {where}: {error.validator} is not met")
