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


def test_a_quality_payload_needs_no_declared_schema_in_python(db: Database) -> None:
    run = registered(db)
    found = db.agent_instances.record_quality(run.id, "speed", {"score": 2})
    assert (found.quality_payloads, found.quality_summaries) == ({"speed": {"score": 2}}, {})
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


# As scores


def said(db: Database, run_id: str) -> list[tuple[Any, ...]]:
    return [(score.name, score.value, score.label, score.explanation) for score in db.scores.list(run_id)]


def test_a_quality_payload_is_readable_as_scores(db: Database) -> None:
    run = db.agent_instances.register("a")
    payload = {
        "score": 0.5,
        "label": "half",
        "reason": "slow",
        "steps": 7,
        "polite": True,
        "tone": {"rating": 3, "comment": "dry"},
        "model": "m",
    }
    found = db.agent_instances.record_quality(run.id, "review", payload)
    assert said(db, run.id) == [
        ("review", 0.5, "half", "slow"),
        ("review.steps", 7.0, None, None),
        ("review.polite", 1.0, None, None),
        ("review.tone", 3.0, None, "dry"),
    ]
    assert [score.name for score in found.scores] == [name for name, *_ in said(db, run.id)]
    db.agent_instances.record_quality(run.id, "review", {"score": 1})
    assert said(db, run.id) == [("review", 1.0, None, None)]
    db.agent_instances.record_quality(run.id, "review", None)
    assert said(db, run.id) == []
    assert len(db.scores.list(run.id, history=True)) == 4 + 4 + 1


def test_an_evaluation_without_a_name_is_called_quality_and_one_without_a_number_explains_itself(db: Database) -> None:
    run = db.agent_instances.register("a")
    db.agent_instances.update(run.id, quality_payload={"checks": [1, 2]})
    assert said(db, run.id) == [("quality", None, None, '{"checks":[1,2]}')]
    db.agent_instances.update(run.id, quality_payload={"accuracy": 0.75})
    assert said(db, run.id) == [("quality.accuracy", 0.75, None, None)]
    db.agent_instances.update(run.id, quality_payload=None)
    assert said(db, run.id) == []
