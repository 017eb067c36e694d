"""Instances, agents, versions and schema versions by id, in both backends."""

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import agentspan
from agentspan import Database, ids
from agentspan.storage.questions import Find

TYPES = [{"name": "step", "title": "Step", "params_schema": {"type": "object"}, "template": "did {{what}}"}]


def code_of(call: Any) -> str:
    with pytest.raises(agentspan.AgentspanError) as caught:
        call()
    return caught.value.code


def test_registering_makes_what_is_missing_and_finds_what_is_there(db: Database) -> None:
    first = db.agent_instances.register("my-agent", agent_version={"external_identifier": "1"}, metadata={"a": 1})
    second = db.agent_instances.register("my-agent", agent_version={"external_identifier": "1"}, purpose="eval")
    assert first.status == "pending"
    assert (first.metadata, first.purpose, second.purpose) == ({"a": 1}, "live", "eval")
    for field in ("agent_id", "agent_version_id", "agent_schema_version_id", "environment_id", "agent_deployment_id"):
        assert getattr(first, field) == getattr(second, field)
        assert ids.is_pfid(getattr(first, field))
    other = db.agent_instances.register("my-agent", agent_version={"external_identifier": "2"})
    assert other.agent_version_id != first.agent_version_id
    assert [agent.external_identifier for agent in db.agents.list()] == ["my-agent"]


def test_an_agent_is_named_by_its_id_too(db: Database) -> None:
    agent = db.agents.create("Researcher", "finds things", "researcher")
    assert db.agent_instances.register(agent.id).agent_id == agent.id
    assert db.agent_instances.register("researcher").agent_id == agent.id
    assert code_of(lambda: db.agent_instances.register("013xrzp12g3nqk8n4evtrcj59k8dhn3t")) == "not_found"
    run = db.agent_instances.register("researcher")
    assert code_of(lambda: db.agent_instances.register(run.id)) == "unexpected_ref_type"


def test_all_ids_of_a_file_share_its_partition(db: Database) -> None:
    run = db.agent_instances.register("a")
    span = db.agent_spans.create(run.id, "tool", "active")
    found = [run.id, run.account_id, run.agent_id, run.environment_id, run.agent_deployment_id, span.id]
    assert len({ids.decode(id)[1] for id in found}) == 1


def test_an_agent_is_pending_until_its_first_instance_starts(db: Database) -> None:
    run = db.agent_instances.register("a")
    assert db.agents.get(run.agent_id).status == "pending"
    db.agent_instances.start(run.id)
    assert db.agents.get(run.agent_id).status == "active"
    db.agent_instances.start(db.agent_instances.register("a").id)


def test_an_instance_follows_the_transition_table(db: Database) -> None:
    run = db.agent_instances.register("a")
    assert code_of(lambda: db.agent_instances.finish(run.id)) == "invalid_action"
    started = db.agent_instances.start(run.id)
    assert started.status == "active"
    assert code_of(lambda: db.agent_instances.start(run.id)) == "invalid_action"
    assert code_of(lambda: db.agent_instances.finish(run.id, "cancelled")) == "invalid_action"
    assert code_of(lambda: db.agent_instances.finish(run.id, "terminated")) == "invalid_value"  # type: ignore[arg-type]
    assert db.agent_instances.finish(run.id, "failed").status == "failed"
    assert code_of(lambda: db.agent_instances.finish(run.id)) == "invalid_action"
    cancelled = db.agent_instances.finish(db.agent_instances.register("a").id, "cancelled")
    assert cancelled.started_at == cancelled.finished_at


def test_an_instances_times_follow_the_spans_rule(db: Database) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    run = db.agent_instances.register("a")
    db.agent_instances.start(run.id, at)
    assert code_of(lambda: db.agent_instances.finish(run.id, timestamp=at - timedelta(minutes=2))) == "invalid_value"
    done = db.agent_instances.finish(run.id, timestamp=at + timedelta(seconds=3))
    assert (done.started_at, done.duration_ms) == (at, 3000)


def test_finishing_an_instance_leaves_its_spans_alone(db: Database) -> None:
    run = db.agent_instances.register("a")
    db.agent_instances.start(run.id)
    for status in ("pending", "active", "complete", "complete", "failed", "cancelled"):
        db.agent_spans.create(run.id, "tool", status)
    counts = db.agent_instances.finish(run.id).span_counts
    assert counts.model_dump() == {
        "total": 6,
        "pending": 1,
        "active": 1,
        "complete": 2,
        "failed": 1,
        "cancelled": 1,
        "finished": 4,
    }


@pytest.mark.parametrize(
    "bad",
    [
        {"purpose": "fun"},
        {"id": "x"},
        {"metadata": [1]},
        {"agent_version": "1"},
        {"agent_version": {"name": 1}},
        {"agent_schema_version": []},
        {"agent_schema_version": {"span_type_schemas": {}}},
        {"agent_schema_version": {"span_type_schemas": [1]}},
        {"agent_schema_version": {"span_type_schemas": [{"params_schema": {}}]}},
        {"agent_schema_version": {"span_type_schemas": [{"name": "a"}, {"name": "a"}]}},
        {"agent_schema_version": {"span_type_schemas": [{"name": "a", "params_schema": "text"}]}},
        {"agent_schema_version": {"span_schemas": {"a": 5}}},
        {"agent_schema_version": {"span_schemas": [1]}},
    ],
)
def test_a_registration_that_makes_no_sense_is_refused(db: Database, bad: Any) -> None:
    assert code_of(lambda: db.agent_instances.register("a", **bad)) == "invalid_value"
    assert len(db.agent_instances.list()) == 0


def test_equal_content_is_one_schema_version(db: Database) -> None:
    first = db.agent_instances.register(
        "a", agent_schema_version={"external_identifier": "x1", "span_type_schemas": TYPES}
    )
    reordered = [dict(reversed(TYPES[0].items()))]
    second = db.agent_instances.register(
        "a", agent_schema_version={"external_identifier": "x2", "span_type_schemas": reordered}
    )
    assert first.agent_schema_version_id == second.agent_schema_version_id
    created = db.agent_schema_versions.create(first.agent_id, "x3", span_type_schemas=TYPES)
    assert created.id == first.agent_schema_version_id
    assert created.external_identifier == "x1"
    changed = db.agent_schema_versions.create(first.agent_id, span_type_schemas=[{**TYPES[0], "title": "Other"}])
    assert changed.id != created.id
    assert db.agent_schema_versions.get(changed.id).span_type_schemas[0]["title"] == "Other"
    assert [version.id for version in db.agent_schema_versions.list(first.agent_id)] == [created.id, changed.id]


def test_flat_maps_of_schemas_are_span_types_too(db: Database) -> None:
    schemas = {
        "span_schemas": {"a": {"title": "An A", "required": ["x"]}},
        "span_result_schemas": {"a": {"required": ["y"]}},
    }
    run = db.agent_instances.register("agent", agent_schema_version=schemas)
    span = db.agent_spans.create(run.id, "a", "complete", {}, {})
    assert span.schema_title == "An A"
    assert [violation.side for violation in db.agent_spans.violations(span.id)] == ["payload", "result_payload"]
    assert span.summary is None


def test_a_spans_title_and_summary_come_from_its_instances_version(db: Database) -> None:
    run = db.agent_instances.register("a", agent_schema_version={"span_type_schemas": TYPES})
    span = db.agent_spans.create(run.id, "step", "active", {"what": "it"})
    assert (span.schema_title, span.summary) == ("Step", "did it")
    assert db.agent_spans.create(run.id, "lib:llm", "active", {"model": "m"}).summary == "LLM m"
    unknown = db.agent_spans.create(run.id, "other", "active", {"model": "m"})
    assert (unknown.schema_title, unknown.summary) == ("other", None)


@pytest.mark.parametrize("template", ["{% if x %}y", "{{ x | system }}", "{% include 'x' %}", "{{> file}}", "{{"])
def test_a_clients_template_that_cannot_be_used_is_kept_and_gives_no_summary(
    db: Database, template: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"step-{hash(template)}"
    item = {"name": name, "params_schema": {}, "template": template, "result_template": template}
    with caplog.at_level(logging.WARNING, "agentspan"):
        run = db.agent_instances.register("a", agent_schema_version={"span_type_schemas": [item]})
        db.agent_instances.register("a", agent_schema_version={"span_type_schemas": [item]})
    assert len([record for record in caplog.records if "no summaries" in record.message]) <= 1
    assert db.agent_schema_versions.get(run.agent_schema_version_id).span_type_schemas[0]["template"] == template
    assert db.agent_spans.create(run.id, name, "active", {"x": 1}).summary is None


def test_update_current_version_renames_a_version(db: Database) -> None:
    version = {"external_identifier": "1", "name": "old"}
    first = db.agent_instances.register("a", agent_version=version)
    db.agent_instances.register("a", agent_version={**version, "name": "new"})
    assert _version_name(db, first.agent_version_id) == "old"
    db.agent_instances.register("a", agent_version={**version, "name": "new"}, update_current_version=True)
    assert _version_name(db, first.agent_version_id) == "new"


def _version_name(db: Database, id: str) -> Any:
    return getattr(db.storage.ask(Find(id)).rows[id][1], "name", None)


def test_agents_have_unique_external_identifiers(db: Database) -> None:
    agent = db.agents.create("A", external_identifier="a")
    assert code_of(lambda: db.agents.create("B", external_identifier="a")) == "invalid_value"
    assert code_of(lambda: db.agents.create("")) == "required_value"
    assert code_of(lambda: db.agents.create("x", id=agent.id)) == "invalid_value"
    db.agents.create("0 first")
    assert [found.name for found in db.agents.list(sorting="name")] == ["0 first", "A"]
    assert [found.name for found in db.agents.list(sorting="-name")] == ["A", "0 first"]


def test_instances_are_listed_by_agent_and_version(db: Database) -> None:
    a1 = db.agent_instances.register("a", agent_version={"name": "1"})
    a2 = db.agent_instances.register("a", agent_version={"name": "2"})
    db.agent_instances.register("b")
    assert [run.id for run in db.agent_instances.list(a1.agent_id)] == [a1.id, a2.id]
    assert [run.id for run in db.agent_instances.list(a1.agent_id, a2.agent_version_id)] == [a2.id]
    assert db.agent_instances.list().pagination.item_count == 3
    assert code_of(lambda: db.agent_instances.list(a1.id)) == "unexpected_ref_type"
    assert code_of(lambda: db.agent_instances.list("nobody")) == "not_found"


def test_what_nobody_named_has_a_default(db: Database) -> None:
    run = db.agent_instances.register()
    assert db.agents.get(run.agent_id).external_identifier == "default"


def test_terminating_closes_what_is_open_at_once(db: Database) -> None:
    run = db.agent_instances.start(db.agent_instances.register("a").id)
    statuses = ("pending", "active", "complete", "cancelled")
    spans = [db.agent_spans.create(run.id, "tool", status, {"name": "x"}) for status in statuses]  # type: ignore[arg-type]
    done = db.agent_instances.terminate(run.id, "ran away", idempotency_key="t")
    assert (done.status, done.termination_reason) == ("terminated", "ran away")
    assert done.finished_at is not None
    after = [db.agent_spans.get(span.id) for span in spans]
    assert [span.status for span in after] == ["cancelled", "failed", "complete", "cancelled"]
    assert [span.closed_by for span in after] == ["terminated", "terminated", None, None]
    assert after[1].result_payload == {"error": {"type": "Terminated", "message": "ran away"}}
    assert after[1].summary == "Tool x() → Terminated: ran away"
    assert after[2:] == spans[2:]
    assert db.agent_instances.terminate(run.id, "ran away", idempotency_key="t") == done


def test_only_an_active_instance_can_be_terminated_and_only_once(db: Database) -> None:
    run = db.agent_instances.register("a")
    assert code_of(lambda: db.agent_instances.terminate(run.id, "x")) == "invalid_action"
    db.agent_instances.start(run.id)
    assert code_of(lambda: db.agent_instances.terminate(run.id, "")) == "required_value"
    db.agent_instances.terminate(run.id, "x")
    for again in (
        lambda: db.agent_instances.terminate(run.id, "x"),
        lambda: db.agent_instances.start(run.id),
        lambda: db.agent_instances.finish(run.id, "cancelled"),
    ):
        assert code_of(again) == "invalid_action"
    assert code_of(lambda: db.agent_instances.terminate("nobody", "x")) == "not_found"


def test_a_spans_own_end_replaces_what_the_termination_said(db: Database) -> None:
    run = db.agent_instances.start(db.agent_instances.register("a").id)
    active, planned = (db.agent_spans.create(run.id, "tool", status, {"name": "x"}) for status in ("active", "pending"))
    db.agent_instances.terminate(run.id, "too slow")
    closed = db.agent_spans.get(active.id)
    assert code_of(lambda: db.agent_spans.start(planned.id)) == "invalid_action"
    assert code_of(lambda: db.agent_spans.finish(active.id, "cancelled")) == "invalid_action"
    ended = db.agent_spans.finish(active.id, "complete", {"output": "paid"})
    assert (ended.status, ended.result_payload, ended.summary) == ("complete", {"output": "paid"}, "Tool x() → paid")
    assert (ended.closed_by, ended.closed_at, ended.ended_late) == ("terminated", closed.closed_at, True)
    assert ended.started_at == active.started_at
    assert db.agent_spans.finish(planned.id, "cancelled").ended_late
    for again in (active.id, planned.id):
        assert code_of(lambda again=again: db.agent_spans.finish(again)) == "invalid_action"
    assert db.agent_spans.get(active.id) == ended


def test_the_end_of_a_terminated_run_is_kept_and_closes_what_is_open_in_it(db: Database) -> None:
    run = db.agent_instances.start(db.agent_instances.register("a").id)
    terminated = db.agent_instances.terminate(run.id, "too slow")
    late = db.agent_spans.create(run.id, "tool", "active")
    at = datetime(2999, 1, 1, tzinfo=UTC)
    ended = db.agent_instances.finish(run.id, timestamp=at)
    assert (ended.status, ended.termination_reason, ended.ended_late) == ("terminated", "too slow", True)
    assert (ended.closed_at, ended.finished_at) == (terminated.closed_at, at)
    span = db.agent_spans.get(late.id)
    assert (span.status, span.closed_by) == ("failed", "terminated")
    assert code_of(lambda: db.agent_instances.finish(run.id)) == "invalid_action"


def test_a_span_of_a_terminated_instance_is_still_recorded(db: Database) -> None:
    run = db.agent_instances.start(db.agent_instances.register("a").id)
    db.agent_instances.terminate(run.id, "x")
    late = db.agent_spans.create(run.id, "tool", "active")
    assert db.agent_spans.finish(late.id).status == "complete"
    assert db.storage.ask(Find(late.id)).terminated == {run.id: "x"}
