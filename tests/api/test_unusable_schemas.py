"""A schema that cannot be used refuses no registration: it is stored as sent, and its payloads are unchecked."""

import logging
from typing import Any

import pytest

import agentspan
from agentspan import Database
from agentspan.errors import ValidationErrors
from agentspan.storage.protocol import Storage
from tests.schemas.random_schemas import UNUSABLE

ELSEWHERE = {"$ref": "https://example.org/a.json"}
REASON = "the schema has a $ref to another document; put it under $defs and refer to #/$defs/…"


def registered(db: Database, **span_type: Any) -> str:
    types = [{"name": "mine", **span_type}]
    return db.agent_instances.register("a", agent_schema_version={"span_type_schemas": types}).id


@pytest.mark.parametrize("schema", UNUSABLE)
def test_a_schema_is_stored_as_it_was_sent(db: Database, schema: dict[str, Any]) -> None:
    run = db.agent_instances.get(registered(db, params_schema=schema, result_schema=schema))
    version = db.agent_schema_versions.get(run.agent_schema_version_id)
    assert version.span_type_schemas == [{"name": "mine", "params_schema": schema, "result_schema": schema}]


def test_payload_and_result_are_unchecked_each_with_the_reason(db: Database) -> None:
    run = registered(db, params_schema=ELSEWHERE, result_schema={"pattern": "(?=a)"}, template="{{a}}")
    for _ in range(2):  # the second one does not compile the schema again
        span = db.agent_spans.create(run, "mine", status="active", payload={"a": 1})
        assert [tuple(v) for v in db.agent_spans.violations(span.id)] == [("payload", "$", "$unchecked", REASON)]
        finished = db.agent_spans.finish(span.id, result_payload={"b": 1})
        assert finished.summary == "1"
        found = {(v.side, v.keyword) for v in db.agent_spans.violations(span.id)}
        assert found == {("payload", "$unchecked"), ("result_payload", "$unchecked")}


def test_flat_maps_of_schemas_are_taken_too(db: Database) -> None:
    maps = {"span_schemas": {"mine": ELSEWHERE}, "span_result_schemas": {"mine": {"items": [{}]}}}
    run = db.agent_instances.register("a", agent_schema_version=maps)
    span = db.agent_spans.create(run.id, "mine", status="complete", payload={}, result_payload={})
    assert [v.keyword for v in db.agent_spans.violations(span.id)] == ["$unchecked"]


def test_a_quality_schema_that_cannot_be_used_takes_payloads(db: Database) -> None:
    quality = [{"name": "tone", "schema": ELSEWHERE, "template": "tone {{kind}}"}]
    run = db.agent_instances.register("a", agent_schema_version={"quality_schemas": quality})
    found = db.agent_instances.record_quality(run.id, "tone", {"kind": "warm"})
    assert found.quality_summaries == {"tone": "tone warm"}


def test_the_log_says_once_which_schema_and_why(db: Database, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="agentspan"):
        for _ in range(2):
            registered(db, params_schema={"$ref": f"{db.storage}.json"})
    (record,) = caplog.records
    assert "mine (its params_schema has a $ref to another document" in record.getMessage()


def test_strict_schemas_refuse_what_cannot_be_checked(storage: Storage) -> None:
    strict = agentspan.open(storage, strict_schemas=True)
    run = registered(strict, params_schema=ELSEWHERE)
    with pytest.raises(ValidationErrors, match="has a \\$ref to another document"):
        strict.agent_spans.create(run, "mine", status="active", payload={})


@pytest.mark.parametrize("depth", [63, 100, 400])
def test_a_schema_nested_deep_refuses_no_registration(db: Database, depth: int) -> None:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"properties": {"a": schema}}
    run = registered(db, params_schema=schema)
    span = db.agent_spans.create(run, "mine", status="active", payload={"a": 1})
    assert [v.keyword for v in db.agent_spans.violations(span.id)] in ([], ["$unchecked"])
