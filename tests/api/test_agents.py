"""An agent's life by id, in both backends: changed, retired, reinstated, deleted."""

from typing import Any

import pytest

import agentspan
from agentspan import Database


def code_of(call: Any) -> str:
    with pytest.raises(agentspan.AgentspanError) as caught:
        call()
    return caught.value.code


def test_an_agent_is_shown_by_exactly_one_of_its_names(db: Database) -> None:
    agent = db.agents.create("Researcher", external_identifier="r-1")
    assert db.agents.show(agent.id).id == agent.id
    assert db.agents.show(external_identifier="r-1").id == agent.id
    assert code_of(lambda: db.agents.show()) == "required_value"
    assert code_of(lambda: db.agents.show(agent.id, external_identifier="r-1")) == "required_value"
    assert code_of(lambda: db.agents.show(external_identifier="nobody")) == "not_found"


def test_what_is_left_out_of_a_change_stays(db: Database) -> None:
    agent = db.agents.create("Researcher", "finds things", "r-1")
    changed = db.agents.update(agent.id, "Finder")
    assert (changed.name, changed.description, changed.external_identifier) == ("Finder", "finds things", "r-1")
    assert db.agents.update(agent.id, description="other").name == "Finder"
    assert code_of(lambda: db.agents.update(agent.id, "")) == "required_value"
    again = [db.agents.update(agent.id, "Third", idempotency_key="k") for _ in range(2)]
    assert again[0].updated_at == again[1].updated_at
    assert code_of(lambda: db.agents.update(agent.id, "Fourth", idempotency_key="k")) == "idempotency_key_already_used"


def test_the_ids_of_the_service_are_kept_and_answered(db: Database) -> None:
    def ids(agent: agentspan.Agent) -> tuple[str | None, ...]:
        return agent.owner_person_id, agent.team_id, agent.risk_profile_id

    agent = db.agents.create("a", owner_person_id="p", team_id="t", risk_profile_id="r", idempotency_key="key-1")
    assert ids(agent) == ids(db.agents.get(agent.id)) == ("p", "t", "r")
    assert ids(db.agents.update(agent.id, "b", team_id="t2")) == ("p", "t2", "r")
    assert [ids(each) for each in db.agents.list()] == [("p", "t2", "r")]
    assert ids(db.agents.create("c")) == (None, None, None)
    assert code_of(lambda: db.agents.create("d", team_id=7)) == "invalid_value"  # type: ignore[arg-type]
    again = {"name": "a", "owner_person_id": "p", "team_id": "other", "risk_profile_id": "r"}
    assert code_of(lambda: db.agents.create(**again, idempotency_key="key-1")) == "idempotency_key_already_used"
    item = {"_type": "agents/create", "idempotency_key": "key-00002", "name": "e", "team_id": "t3"}
    assert db.bulk([item])["key-00002"]["details"]["team_id"] == "t3"


def test_a_retired_agent_is_reinstated_to_what_it_was(db: Database) -> None:
    agent = db.agents.create("Researcher")
    assert code_of(lambda: db.agents.reinstate(agent.id)) == "invalid_action"
    assert db.agents.retire(agent.id).status == "retired"
    assert code_of(lambda: db.agents.retire(agent.id)) == "invalid_action"
    assert db.agents.reinstate(agent.id).status == "pending"
    run = db.agent_instances.register(agent.id)
    db.agent_instances.start(run.id)
    db.agents.retire(agent.id)
    assert db.agents.reinstate(agent.id).status == "active"


def test_the_available_actions_are_those_that_succeed(db: Database) -> None:
    agent = db.agents.create("Researcher")

    def actions() -> dict[str, bool]:
        found = db.agents.get(agent.id).available_actions
        assert found is not None
        return found.model_dump()

    assert actions() == {"update": True, "retire": True, "reinstate": False, "delete": True}
    db.agent_instances.register(agent.id)
    assert not actions()["delete"]
    db.agents.retire(agent.id)
    assert actions() == {"update": True, "retire": False, "reinstate": True, "delete": False}


def test_an_agents_instances_are_counted_by_status(db: Database) -> None:
    agent = db.agents.create("Researcher")
    runs = [db.agent_instances.register(agent.id) for _ in range(4)]
    for run in runs[1:]:
        db.agent_instances.start(run.id)
    db.agent_instances.finish(runs[1].id)
    db.agent_instances.terminate(runs[2].id, "enough")
    counts = db.agents.get(agent.id).instance_counts
    assert counts is not None
    assert counts.model_dump(exclude_defaults=True) == {
        "total": 4,
        "pending": 1,
        "active": 1,
        "complete": 1,
        "terminated": 1,
        "finished": 2,
    }


def test_only_an_agent_without_instances_is_deleted(db: Database) -> None:
    unused, used = db.agents.create("unused", external_identifier="u"), db.agents.create("used")
    version = db.agent_schema_versions.create(unused.id, span_type_schemas=[{"name": "step"}])
    db.agent_instances.register(used.id)
    assert code_of(lambda: db.agents.delete(used.id)) == "invalid_action"
    assert db.agents.delete(unused.id).name == "unused"
    assert code_of(lambda: db.agents.get(unused.id)) == "not_found"
    assert code_of(lambda: db.agent_schema_versions.get(version.id)) == "not_found"
    assert code_of(lambda: db.agents.delete(unused.id)) == "not_found"
    assert db.agents.create("new", external_identifier="u").id != unused.id


def test_a_key_that_made_what_is_deleted_cannot_be_answered_again(db: Database) -> None:
    agent = db.agents.create("short-lived", idempotency_key="k")
    db.agents.delete(agent.id)
    assert code_of(lambda: db.agents.create("short-lived", idempotency_key="k")) == "not_found"


def test_versions_are_listed_with_what_they_ran_with(db: Database) -> None:
    runtime = {"os": "linux", "runtime": "cpython@3.11", "agent_sdk": ["x@1"]}
    run = db.agent_instances.register("a", agent_version={"name": "v1", "runtime_environment": runtime})
    (version,) = db.agent_versions.list(run.agent_id)
    assert (version.name, version.external_identifier, version.runtime_environment) == ("v1", "v1", runtime)
    assert db.agent_versions.get(run.agent_version_id) == version
    db.agent_instances.register("b")
    assert len(db.agent_versions.list()) == 2
    assert len(db.agent_versions.list(run.agent_id)) == 1


def test_a_known_version_is_changed_only_when_asked(db: Database) -> None:
    def register(description: str, **how: Any) -> str | None:
        run = db.agent_instances.register(
            "a", agent_version={"external_identifier": "1", "description": description}, **how
        )
        return db.agent_versions.get(run.agent_version_id).description

    assert register("first") == "first"
    assert register("second") == "first"
    assert register("third", update_current_version=True) == "third"


def test_an_instance_has_a_name_of_its_own_among_its_agents(db: Database) -> None:
    run = db.agent_instances.register("a", external_identifier="order-17")
    assert db.agent_instances.get(run.id).external_identifier == "order-17"
    assert code_of(lambda: db.agent_instances.register("a", external_identifier="order-17")) == "invalid_value"
    assert db.agent_instances.register("b", external_identifier="order-17").id != run.id


@pytest.mark.parametrize("count", [0, 1001, True, "3", 1.5])
def test_only_a_sensible_number_of_ids_is_made(db: Database, count: Any) -> None:
    assert code_of(lambda: db.pfids(count)) == "invalid_value"


def test_ids_are_made_in_ascending_order(db: Database) -> None:
    made = db.pfids(100)
    assert made == sorted(set(made))
    run = db.agent_instances.register("a", id=made[0])
    assert run.id == made[0]
