"""Finds the parts of a client's span types that agentspan stores but cannot use, each with the reason.

A client's schema or template never makes a registration fail: payloads are then unchecked, spans have no summary.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from agentspan.errors import SchemaError, TemplateError
from agentspan.model.rows import Side
from agentspan.schemas.conformance import Conformance, problem_of
from agentspan.schemas.liquid import client_template

SIDES: Mapping[str, Side] = {"params_schema": "payload", "result_schema": "result_payload", "schema": "payload"}

TEMPLATES = ("template", "result_template")


class Unusable(NamedTuple):
    """A part of a registered type that is stored, but not used.

    Attributes:
        name: the type's schema_name, or the quality schema's name.
        field: `params_schema`, `result_schema`, `schema`, `template` or `result_template`.
        reason: what prevents its use, without a value of a payload.
    """

    name: str
    field: str
    reason: str


def unusable_parts(item: Mapping[str, Any]) -> list[Unusable]:
    """Return the unusable schemas and template of a span type or quality schema, as the API writes it."""
    found: list[Unusable] = []
    name = item["name"]
    for field, side in SIDES.items():
        try:
            Conformance(item.get(field), side)
        except SchemaError as error:
            found.append(Unusable(name, field, problem_of(error)))
    for field in TEMPLATES:
        if item.get(field) is not None:
            try:
                client_template(item[field])
            except TemplateError as error:
                found.append(Unusable(name, field, problem_of(error)))
    return found
