"""Schemas of each draft have the verdict of jsonschema's validator of that draft, or their payloads are unchecked."""

from collections import Counter
from typing import Any

import pytest
from referencing import Registry

import agentspan
from agentspan.errors import SchemaError
from agentspan.schemas.conformance import Conformance
from agentspan.schemas.dialects import DRAFT4, DRAFT6, DRAFT7, DRAFT2019, DRAFT2020, Dialect, dialect_of
from agentspan.schemas.span_types import make
from tests.schemas import random_schemas
from tests.tiers import longer

# 1,000 with AGENTSPAN_TEST_SCHEMAS=1000: a minute.
SCHEMAS = longer("AGENTSPAN_TEST_SCHEMAS", 20, 120, 2000)


def valid(schema: Any, payload: Any) -> bool:
    return Conformance(schema, "payload").check(payload) == ()


@pytest.mark.parametrize(
    ("schema", "dialect"),
    [
        ({"$schema": "http://json-schema.org/draft-04/schema#"}, DRAFT4),
        ({"$schema": "http://json-schema.org/draft-04/schema"}, DRAFT4),
        ({"$schema": "http://json-schema.org/draft-06/schema#"}, DRAFT6),
        ({"$schema": "https://json-schema.org/draft-07/schema#"}, DRAFT7),
        ({"$schema": "https://json-schema.org/draft/2019-09/schema"}, DRAFT2019),
        ({"$schema": "https://json-schema.org/draft/2020-12/schema"}, DRAFT2020),
        ({"$schema": "https://json-schema.org/draft/2020-12/schema", "items": [{}]}, DRAFT2020),
        ({"$schema": "https://example.org/own", "items": [{}]}, DRAFT7),
        ({"items": [{}]}, DRAFT7),
        ({"properties": {"a": {"anyOf": [{"items": [{}], "additionalItems": False}]}}}, DRAFT7),
        ({"dependencies": {"a": ["b"]}}, DRAFT7),
        ({"items": [{}], "unevaluatedItems": False}, DRAFT2019),
        ({"properties": {"a": {"$recursiveRef": "#"}}}, DRAFT2019),
        ({"properties": {"a": {"minimum": 1, "exclusiveMinimum": True}}}, DRAFT4),
        ({"properties": {"a": {"exclusiveMaximum": 3}}}, DRAFT2020),
        ({"prefixItems": [{}], "dependencies": {}}, DRAFT2020),
        ({"properties": {"items": {"enum": [{"items": []}]}, "dependencies": {}}}, DRAFT2020),
        ({"default": {"exclusiveMinimum": True}, "enum": [{"items": [{}]}]}, DRAFT2020),
        ({}, DRAFT2020),
        (True, DRAFT2020),
    ],
)
def test_the_dialect_is_the_named_one_else_the_one_of_the_form(schema: Any, dialect: Dialect) -> None:
    assert dialect_of(schema) == dialect


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"items": [{"type": "string"}, {"type": "integer"}], "additionalItems": False}, ["a", 1], [1, "a"]),
        ({"items": [{"type": "string"}], "additionalItems": False}, ["a"], ["a", 1]),
        ({"minimum": 3, "exclusiveMinimum": True}, 4, 3),
        ({"maximum": 3, "exclusiveMaximum": True}, 2, 3),
        ({"maximum": 3, "exclusiveMaximum": False}, 3, 4),
        ({"$schema": "http://json-schema.org/draft-04/schema#", "type": "integer"}, 1, 1.0),
        ({"$schema": "http://json-schema.org/draft-06/schema#", "type": "integer"}, 1.0, 1.5),
        ({"dependencies": {"a": ["b"]}}, {"a": 1, "b": 1}, {"a": 1}),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "if": {"type": "string"}, "then": False}, 1, "a"),
        ({"properties": {"a": {"$recursiveRef": "#"}}, "maxProperties": 1}, {"a": {"a": 1}}, {"a": {"b": 1, "c": 1}}),
        ({"definitions": {"t": {"items": [{"type": "null"}]}}, "$ref": "#/definitions/t"}, [None], [1]),
    ],
)  # fmt: skip
def test_a_payload_is_checked_under_the_schemas_own_draft(schema: Any, good: Any, bad: Any) -> None:
    assert valid(schema, good)
    assert not valid(schema, bad)
    assert [v.keyword for v in Conformance(schema, "payload").check(bad)] != ["$unchecked"]


def test_a_schema_below_may_name_another_draft() -> None:
    old = {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "string"}]}
    schema = {"$ref": "#/unknown/a", "unknown": {"a": old}}
    assert valid(schema, ["a"])
    assert not valid(schema, [1])


def test_a_draft_older_than_04_raises_when_it_is_registered_in_python() -> None:
    with pytest.raises(SchemaError, match="older than 04"):
        make("mine", payload={"$schema": "http://json-schema.org/draft-03/schema#"})


@pytest.mark.parametrize("bad", random_schemas.UNUSABLE)
def test_ones_own_type_with_a_schema_that_cannot_be_used_raises(bad: Any) -> None:
    with pytest.raises(SchemaError):
        agentspan.span_type("mine", payload=bad)


def test_random_schemas_of_all_drafts_are_registered_and_checked_as_jsonschema_does() -> None:
    """Every registration succeeds; each payload has jsonschema's verdict, or a violation that says it is unchecked."""
    verdicts: Counter[str] = Counter()
    with agentspan.open("memory://") as db:
        for seed in range(SCHEMAS):
            made = random_schemas.make(seed)
            span_type = {"name": "random", "params_schema": made.schema}
            run = db.agent_instances.register("random", agent_schema_version={"span_type_schemas": [span_type]})
            reference = made.validator(made.schema, registry=Registry())
            for payload in made.payloads:
                span = db.agent_spans.create(run.id, "random", status="active", payload=payload)
                found = db.agent_spans.violations(span.id)
                if [v.keyword for v in found] == ["$unchecked"]:
                    assert not made.usable, (seed, found)
                    assert found[0].message.startswith("the schema ")
                    verdicts["unchecked"] += 1
                    continue
                assert made.usable or "$unchecked" not in [v.keyword for v in found], seed
                assert (not found) == reference.is_valid(payload), (seed, payload, found)
                verdicts["invalid" if found else "valid"] += 1
    print(f"{SCHEMAS} schemas: {dict(verdicts)}")  # noqa: T201
    assert min(verdicts["valid"], verdicts["invalid"], verdicts["unchecked"]) > SCHEMAS / 3
