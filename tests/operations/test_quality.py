"""Evaluations of a run, in both backends: named payloads with schemas and summaries of their own."""

import threading
from typing import Any

import pytest

import agentspan
from agentspan import Database
from agentspan.storage.protocol import Storage

SCHEMAS = [
    {
        "name": "accuracy",
        "schema": {"type": "object", "required": ["score"], "properties": {"score": {"type": "number"}}},
        "template": "scored {{score}}",
    },
    {"name": "tone", "schema": True},
]


def code_of(call: Any) -> str:
    with pytest.raises(agentspan.AgentspanError) as caught:
        call()
    return caught.value.code


def registered(db: Database) -> agentspan.AgentInstance:
    return db.agent_instances.register("a", agent_schema_version={"quality_schemas": SCHEMAS})


def test_a_payload_is_set_by_name_and_others_stay(db: Database) -> None:
    run = registered(db)
    assert (run.quality_payloads, run.quality_summaries) == ({}, {})
    db.agent_instances.record_quality(run.id, "accuracy", {"score": 0.5})
    found = db.agent_instances.record_quality(run.id, "tone", {"kind": True})
    assert found.quality_payloads == {"accuracy": {"score": 0.5}, "tone": {"kind": True}}
    assert found.quality_summaries == {"accuracy": "scored 0.5"}
    found = db.agent_instances.record_quality(run.id, "accuracy", {"score": 1})
    assert found.quality_summaries == {"accuracy": "scored 1"}
    found = db.agent_instances.record_quality(run.id, "accuracy", None)
    assert (found.quality_payloads, found.quality_summaries) == ({"tone": {"kind": True}}, {})


def test_a_run_is_evaluated_whatever_its_status(db: Database) -> None:
    run = registered(db)
    db.agent_instances.start(run.id)
    db.agent_instances.terminate(run.id, "enough")
    found = db.agent_instances.record_quality(run.id, "tone", {})
    assert (found.status, found.quality_payloads) == ("terminated", {"tone": {}})


def test_only_a_quality_schema_of_the_runs_can_be_recorded(db: Database) -> None:
    run = registered(db)
    assert code_of(lambda: db.agent_instances.record_quality(run.id, "speed", {})) == "invalid_value"
    assert code_of(lambda: db.agent_instances.record_quality(run.id, "tone", [])) == "invalid_value"  # type: ignore[arg-type]
    assert code_of(lambda: db.agent_instances.record_quality("x", "tone", {})) == "not_found"


def test_a_mismatch_blocks_only_in_strict_mode(storage: Storage) -> None:
    run = registered(agentspan.open(storage))
    strict = agentspan.open(storage, strict_schemas=True)
    assert code_of(lambda: strict.agent_instances.record_quality(run.id, "accuracy", {})) == "validation_errors"
    found = agentspan.open(storage).agent_instances.record_quality(run.id, "accuracy", {"score": "high"})
    assert found.quality_payloads == {"accuracy": {"score": "high"}}


def test_the_same_request_again_changes_nothing(db: Database) -> None:
    run = registered(db)
    first = db.agent_instances.record_quality(run.id, "tone", {"a": 1}, idempotency_key="k")
    db.agent_instances.record_quality(run.id, "tone", {"a": 2})
    again = db.agent_instances.record_quality(run.id, "tone", {"a": 1}, idempotency_key="k")
    assert (first.quality_payloads, again.quality_payloads) == ({"tone": {"a": 1}}, {"tone": {"a": 2}})


def test_evaluations_at_the_same_moment_do_not_overwrite_each_other(db: Database) -> None:
    names = [f"q{number}" for number in range(8)]
    schemas = [{"name": name, "schema": {}} for name in names]
    run = db.agent_instances.register("a", agent_schema_version={"quality_schemas": schemas})
    gate = threading.Barrier(len(names))

    def record(name: str) -> None:
        gate.wait()
        db.agent_instances.record_quality(run.id, name, {"by": name})

    threads = [threading.Thread(target=record, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert db.agent_instances.get(run.id).quality_payloads == {name: {"by": name} for name in names}


@pytest.mark.parametrize(
    "wrong",
    [
        "text",
        [{"schema": {}}],
        [{"name": "a", "schema": [3]}],
        [{"name": "a"}, {"name": "a"}],
        [{"name": "a", "template": 3}],
        [3],
    ],
)
def test_what_is_no_quality_schema_is_refused_at_registration(db: Database, wrong: Any) -> None:
    version = {"quality_schemas": wrong}
    assert code_of(lambda: db.agent_instances.register("a", agent_schema_version=version)) == "invalid_value"


def test_quality_schemas_are_part_of_a_versions_content(db: Database) -> None:
    plain = db.agent_instances.register("a", agent_schema_version={})
    first, second = registered(db), registered(db)
    assert first.agent_schema_version_id == second.agent_schema_version_id != plain.agent_schema_version_id
    version = db.agent_schema_versions.get(first.agent_schema_version_id)
    assert [schema["name"] for schema in version.quality_schemas] == ["accuracy", "tone"]
