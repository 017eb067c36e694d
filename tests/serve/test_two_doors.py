"""One surface, two doors: what HTTP answers and what Python returns is the same."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan import Database
from agentspan.api.bulk import BULK
from agentspan.api.resources import AvailableActions
from agentspan.serve.app import create_app
from agentspan.storage.questions import Account
from tests.serve.asgi import Client
from tests.serve.servers import details, refusal

API = "/api/v1"
STEP = {"name": "step", "params_schema": {"properties": {"n": {"type": "integer"}}}}


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with agentspan.open(tmp_path / "runs.db") as opened:
        yield opened


@pytest.fixture
def client(db: Database) -> Iterator[Client]:
    with Client(create_app(db)) as asking:
        yield asking


def test_python_is_told_of_a_termination_as_http_is(db: Database) -> None:
    run = db.agent_instances.register("a").id
    assert db.agent_instances.start(run).control is None
    active = db.agent_spans.create(run, "step", "active")
    pending = db.agent_spans.create(run, "step", "pending")
    assert (active.control, pending.control) == (None, None)
    assert db.agent_instances.terminate(run, "too dear").control is None
    control = agentspan.Control(reason="too dear")
    assert control.terminate is True
    assert db.agent_spans.create(run, "step", "active").control == control
    assert db.agent_spans.finish(active.id, idempotency_key="key-1").control == control
    assert db.agent_spans.finish(active.id, idempotency_key="key-1").control == control  # a replay
    assert db.agent_spans.get(active.id).control is None  # only writes are answered with it
    with pytest.raises(agentspan.InvalidAction) as refused:
        db.agent_spans.start(pending.id)
    assert refused.value.terminated == "too dear"
    assert db.agent_instances.finish(run).control == control


def test_control_is_no_field_of_the_resource(db: Database) -> None:
    run = db.agent_instances.register("a").id
    db.agent_instances.start(run)
    db.agent_instances.terminate(run, "too dear")
    span = db.agent_spans.create(run, "step", "complete")
    assert span.control is not None
    assert "control" not in span.model_dump()
    assert "control" not in agentspan.AgentSpan.model_fields


def test_python_gets_the_schema_version_of_a_registration(db: Database, client: Client) -> None:
    made = db.agent_instances.register("a", agent_schema_version={"span_type_schemas": [STEP]})
    assert isinstance(made.agent_schema_version, agentspan.AgentSchemaVersion)
    assert made.agent_schema_version.id == made.agent_schema_version_id
    assert [schema["name"] for schema in made.agent_schema_version.span_type_schemas] == ["step"]
    answer = client.post(f"{API}/agent_instance/register", json={"agent_schema_version": {"span_type_schemas": [STEP]}})
    assert answer.json()["agent_schema_version"]["content_hash"] == made.agent_schema_version.content_hash
    assert db.agent_instances.get(made.id).agent_schema_version is None
    assert "agent_schema_version" not in made.model_dump()


def test_a_version_of_an_agent_has_a_public_name(db: Database) -> None:
    made = db.agent_instances.register("a", agent_version={"name": "1.2"})
    assert isinstance(db.agent_versions.get(made.agent_version_id), agentspan.AgentVersion)


def test_http_lists_the_violations_of_a_span(db: Database, client: Client) -> None:
    run = db.agent_instances.register("a", agent_schema_version={"span_type_schemas": [STEP]}).id
    span = db.agent_spans.create(run, "step", "active", {"n": "s3cret"}).id
    answer = client.get(f"{API}/agent_spans/{span}/violations")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "success",
        "summaries": [violation._asdict() for violation in db.agent_spans.violations(span)],
        "pagination": None,
        "sorting": None,
    }
    (found,) = answer.json()["summaries"]
    assert (found["side"], found["path"], found["keyword"]) == ("payload", "$.n", "type")
    assert "s3cret" not in answer.text
    fine = db.agent_spans.create(run, "step", "active", {"n": 1}).id
    assert client.get(f"{API}/agent_spans/{fine}/violations").json()["summaries"] == []
    assert refusal(client.get(f"{API}/agent_spans/{run}/violations")) == (422, "unexpected_ref_type")
    assert refusal(client.get(f"{API}/agent_spans/{'0' * 32}/violations")) == (404, "not_found")


def outputs(db: Database, client: Client, items: list[dict[str, Any]], door: str) -> list[dict[str, Any]]:
    if door == "python":
        return list(db.bulk(items).values())
    return list(client.post(f"{API}/bulk", json={"items": items}).json()["outputs"].values())


@pytest.mark.parametrize("door", ["python", "http"])
def test_bulk_starts_spans_and_terminates_runs(db: Database, client: Client, door: str) -> None:
    run = db.agent_instances.register("a").id
    db.agent_instances.start(run)
    span = db.agent_spans.create(run, "step", "pending").id
    at = "2026-01-02T03:04:05Z"
    items: list[dict[str, Any]] = [
        {"_type": "agent_spans/start", "agent_span_id": span, "timestamp": at},
        {"_type": "agent_instances/terminate", "agent_instance_id": run, "details": {"reason": "too dear"}},
        {"_type": "agent_spans/finish", "agent_span_id": span},
        {"_type": "agent_instances/terminate", "agent_instance_id": run, "reason": "again"},
    ]
    items = [{**item, "idempotency_key": f"a-bulk-key-{n}"} for n, item in enumerate(items)]
    started, terminated, late, refused = outputs(db, client, items, door)
    assert (started["details"]["status"], started["details"]["started_at"]) == ("active", "2026-01-02T03:04:05.000000Z")
    assert (terminated["details"]["status"], terminated["details"]["termination_reason"]) == ("terminated", "too dear")
    assert late["control"] == {"terminate": True, "reason": "too dear"}
    assert refused["code"] == "invalid_action"
    assert db.agent_spans.get(span).ended_late
    again = outputs(db, client, items[:2], door)
    assert [answer["status"] for answer in again] == ["success", "success"]
    missing = [{"_type": "agent_instances/terminate", "agent_instance_id": run, "idempotency_key": "without-reason"}]
    (answer,) = outputs(db, client, missing, door)
    assert answer["code"] == "required_value"
    assert answer["message"].startswith("reason: ")


@pytest.mark.full
def test_the_actions_of_bulk_have_a_route_each(client: Client) -> None:
    """So that an action is the same by both."""
    singular = {"agents": "agent", "agent_instances": "agent_instance", "agent_spans": "agent_spans"}
    paths = {path.removeprefix(API) for path in client.get("/openapi.json").json()["paths"]}
    for action in BULK:
        resource, _, verb = action.partition("/")
        endings = {
            "list": "",
            "create": "",
            "show": "/{id}",
            "update": "/{id}",
            "register": "/register",
            "score": "/{id}/scores",
        }
        ending = endings.get(verb, f"/{{id}}/{verb}")
        noun = {"agents": "agent", "agent_instances": "agent_instance", "agent_spans": "agent_span"}[resource]
        assert f"/{singular[resource]}{ending.replace('{id}', '{' + noun + '_id}')}" in paths, action


def test_replays_are_refused_by_a_server_that_only_reads(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    body = {"agent_id": "a", "idempotency_key": "key-1"}
    with agentspan.open(path) as db, Client(create_app(db)) as client:
        assert details(client.post(f"{API}/agent_instance/register", json=body))["id"]
    with Client(create_app(path, read_only=True)) as client:
        assert refusal(client.post(f"{API}/agent_instance/register", json=body)) == (403, "not_permitted")


def test_who_only_reads_writes_nothing_whatever_the_write_would_do(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    key = {"idempotency_key": "key-1"}
    with agentspan.open(path) as db:
        run = db.agent_instances.register("a").id
        db.agent_instances.start(run, idempotency_key="key-1")
        pending, span = (
            db.agent_spans.create(run, "tool", status, {"name": "n"}).id for status in ("pending", "active")
        )
        db.agent_spans.start(pending, idempotency_key="key-1")
        db.agent_spans.finish(span, idempotency_key="key-1")
        db.agent_instances.terminate(run, "stop", idempotency_key="key-1")
        agent = db.agent_instances.get(run).agent_id
    again: list[tuple[str, dict[str, Any]]] = [
        (f"/agent_instance/{run}/start", {}),
        (f"/agent_spans/{pending}/start", {}),
        (f"/agent_spans/{span}/finish", {}),
        (f"/agent_instance/{run}/terminate", {"reason": "stop"}),
        (f"/agent_instance/{run}/finish", {}),
    ]
    with agentspan.open(path) as writable, Client(create_app(writable, read_only=True)) as over:
        assert refusal(over.post(f"{API}/agent_spans/{span}/finish", json={})) == (403, "not_permitted")
    with Client(create_app(path, read_only=True)) as client:
        for place, body in again:
            for said in (body | key, body, body | {"idempotency_key": "another"}):
                assert refusal(client.post(f"{API}{place}", json=said)) == (403, "not_permitted")
        assert refusal(client.post(f"{API}/agent/{agent}/retire")) == (403, "not_permitted")
        assert refusal(client.post(f"{API}/agent_spans/{run}/finish", json={})) == (403, "not_permitted")  # no span
        wrong = client.post(f"{API}/agent_spans/{span}/finish", json={"status": "done"})
        assert refusal(wrong) == (422, "validation_errors")
    with agentspan.open(path, read_only=True) as db:
        writes: list[Callable[[], object]] = [
            lambda: db.agent_instances.start(run, idempotency_key="key-1"),
            lambda: db.agent_spans.start(pending, idempotency_key="key-1"),
            lambda: db.agent_spans.finish(span, idempotency_key="key-1"),
            lambda: db.agent_spans.finish(span, "failed"),
            lambda: db.agent_instances.terminate(run, "stop", idempotency_key="key-1"),
            lambda: db.agents.delete(agent),
        ]
        for write in writes:
            with pytest.raises(agentspan.NotPermitted):
                write()


@pytest.mark.parametrize("is_wrapped", [False, True], ids=["flat", "wrapped"])
def test_a_finish_in_the_wrapper_of_a_creation_is_read(db: Database, client: Client, is_wrapped: bool) -> None:
    run = db.agent_instances.register("a").id
    at = "2030-01-01T00:00:00Z"

    def post(place: str, **fields: Any) -> Any:
        return client.post(f"{API}{place}", json={"details": fields} if is_wrapped else fields)

    assert details(post(f"/agent_instance/{run}/start", timestamp=at))["started_at"].startswith("2030-01-01")
    span = db.agent_spans.create(run, "tool", "pending", {"name": "n"}).id
    assert details(post(f"/agent_spans/{span}/start", timestamp=at))["started_at"].startswith("2030-01-01")
    result = {"error": {"message": "m"}}
    for _ in range(2):  # the second is a replay
        done = details(
            post(f"/agent_spans/{span}/finish", status="failed", result_payload=result, idempotency_key="key-1")
        )
        assert (done["status"], done["result_payload"]) == ("failed", result)
    wrong = post(f"/agent_spans/{span}/finish", status="done")
    assert refusal(wrong) == (422, "validation_errors" if not is_wrapped else "invalid_value")
    assert details(post(f"/agent_instance/{run}/finish", status="failed"))["status"] == "failed"


def test_a_finish_that_says_two_things_is_refused(db: Database, client: Client) -> None:
    run = db.agent_instances.register("a").id
    span = db.agent_spans.create(run, "tool", "active", {"name": "n"}).id
    for body in (
        {"status": "complete", "details": {"status": "failed"}},
        {"details": [{"status": "failed"}]},
        {"details": "failed"},
    ):
        answer = client.post(f"{API}/agent_spans/{span}/finish", json=body)
        assert refusal(answer) in ((422, "invalid_value"), (422, "validation_errors"))
    assert db.agent_spans.get(span).status == "active"
    both = {"status": "failed", "details": {"status": "failed"}}
    assert details(client.post(f"{API}/agent_spans/{span}/finish", json=both))["status"] == "failed"


@pytest.mark.parametrize("door", ["python", "http"])
@pytest.mark.parametrize("state", ["pending", "used", "retired", "retired after use"])
def test_available_actions_are_those_that_succeed(db: Database, client: Client, state: str, door: str) -> None:
    def made(name: str) -> str:
        agent = db.agents.create(name)
        assert agent.available_actions is not None
        assert agent.available_actions.delete
        if state in ("used", "retired after use"):
            db.agent_instances.start(db.agent_instances.register(agent.id).id)
        if state.startswith("retired"):
            db.agents.retire(agent.id)
        return agent.id

    def act(name: str, agent: str) -> bool:
        if door == "http":
            path = f"{API}/agent/{agent}" + (f"/{name}" if name in ("retire", "reinstate") else "")
            method = {"update": "PUT", "delete": "DELETE"}.get(name, "POST")
            body = {"json": {"details": {"name": "new"}}} if name == "update" else {}
            return client.request(method, path, **body).status_code == 200
        try:
            getattr(db.agents, name)(agent, *(["new"] if name == "update" else []))
        except agentspan.InvalidAction:
            return False
        return True

    for name in AvailableActions.model_fields:
        agent = made(f"{name} {state}")
        said = details(client.get(f"{API}/agent/{agent}"))["available_actions"]
        actions = db.agents.get(agent).available_actions
        assert actions is not None
        assert actions.model_dump() == said
        assert said[name] == act(name, agent), name


def test_a_deleted_agent_has_no_available_actions(db: Database, client: Client) -> None:
    deleted = details(client.request("DELETE", f"{API}/agent/{db.agents.create('a').id}"))
    assert (deleted["available_actions"], deleted["instance_counts"]) == (None, None)
    assert db.agents.delete(db.agents.create("b").id).available_actions is None


def test_a_page_over_the_limit_is_refused_by_each_door(db: Database, client: Client) -> None:
    assert refusal(client.get(f"{API}/agent?pagination[page_size]=101")) == (400, "bad_request")
    with pytest.raises(agentspan.InvalidValue):
        db.agents.list(page_size=101)
    items = [{"_type": "agents/list", "idempotency_key": "a-bulk-key", "pagination": {"page_size": 101}}]
    for door in ("python", "http"):
        (answer,) = outputs(db, client, items, door)
        assert answer["code"] == "invalid_value"


def test_what_one_door_has_and_the_other_has_not(client: Client, db: Database) -> None:
    assert client.get(f"{API}/ping").status_code == 200
    assert db.storage.ask(Account()).id == db.agents.create("a").account_id
    with pytest.raises(TypeError):
        db.agents.create("b", surprise=1)  # type: ignore[call-arg]


def test_the_ids_of_the_service_that_an_agent_has_are_kept_and_answered(client: Client) -> None:
    ids = {"owner_person_id": "p", "team_id": "t", "risk_profile_id": "r"}
    made = details(client.post(f"{API}/agent", json={"details": {"name": "a", **ids}}))
    assert ids.items() <= made.items()
    changed = details(client.request("PUT", f"{API}/agent/{made['id']}", json={"details": {"team_id": "t2"}}))
    assert (ids | {"team_id": "t2"}).items() <= changed.items()
    assert (ids | {"team_id": "t2"}).items() <= details(client.get(f"{API}/agent/{made['id']}")).items()
