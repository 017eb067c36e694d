"""Errors name each field as it was sent: never a number alone, never a name from the parser."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan import Database
from agentspan.serve.app import create_app
from tests.serve.asgi import Client
from tests.serve.servers import details, refusal

API = "/api/v1"
STEP = {
    "name": "step",
    "params_schema": {
        "type": "object",
        "properties": {"n": {"type": "integer"}, "list": {"items": {"type": "string"}}},
    },
    "result_schema": {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}},
}
VERDICT = {"name": "verdict", "schema": {"type": "object", "properties": {"score": {"maximum": 1}}}}


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with agentspan.open(tmp_path / "runs.db") as opened:
        yield opened


@pytest.fixture
def client(db: Database) -> Iterator[Client]:
    with Client(create_app(db)) as asking:
        yield asking


@pytest.fixture
def strict(db: Database) -> Iterator[Client]:
    with Client(create_app(db, strict_schemas=True)) as asking:
        yield asking


def errors(response: Any) -> dict[str, str]:
    """The codes by field."""
    assert refusal(response) == (422, "validation_errors")
    answer = response.json()
    for name, error in answer["errors"].items():
        assert set(error) == {"code", "message"}
        assert name.rpartition(".")[2] in answer["message"]
    return {name: error["code"] for name, error in answer["errors"].items()}


UNPARSED: list[tuple[str, dict[str, Any], list[str]]] = [
    ("/agent", {"details": {"name": 5}}, ["details.name"]),
    ("/agent", {"details": [1]}, ["details"]),
    (
        "/agent_instance/register",
        {"agent_schema_version": {"span_type_schemas": [{"name": "a"}, {"name": 5}]}},
        ["agent_schema_version.span_type_schemas[1].name"],
    ),
    (
        "/agent_instance/register",
        {"agent_schema_version": {"span_type_schemas": [{"name": "a", "params_schema": 5}]}},
        ["agent_schema_version.span_type_schemas[0].params_schema"],
    ),
    (
        "/agent_instance/register",
        {"agent_schema_version": {"quality_schemas": [{"name": "a", "schema": "text"}, 7]}},
        ["agent_schema_version.quality_schemas[0].schema"],
    ),
    ("/agent_instance/register", {"agent_version": 5}, ["agent_version"]),
    ("/agent_instance/register", {"purpose": "fun", "metadata": [1]}, ["purpose", "metadata"]),
    ("/pfid/generate", {"count": "many"}, ["count"]),
]


@pytest.mark.parametrize(("path", "body", "names"), UNPARSED)
def test_fields_that_do_not_parse(client: Client, path: str, body: dict[str, Any], names: list[str]) -> None:
    assert list(errors(client.post(API + path, json=body))) == names


def test_a_field_that_is_missing_in_a_list(client: Client) -> None:
    body = {"agent_schema_version": {"span_type_schemas": [{"name": "a"}, {}], "quality_schemas": [{"name": "q"}]}}
    assert errors(client.post(f"{API}/agent_instance/register", json=body)) == {
        "agent_schema_version.span_type_schemas[1].name": "required_value",
        "agent_schema_version.quality_schemas[0].schema": "required_value",
    }


def test_a_payload_that_does_not_match_its_schema(strict: Client) -> None:
    version = {"span_type_schemas": [STEP], "quality_schemas": [VERDICT]}
    run = details(strict.post(f"{API}/agent_instance/register", json={"agent_schema_version": version}))["id"]
    span = {"agent_instance_id": run, "schema_name": "step", "status": "active"}
    bad = {"n": "x", "list": ["a", 5]}
    response = strict.post(f"{API}/agent_spans", json={"details": {**span, "payload": bad}})
    assert errors(response) == {"details.payload.n": "invalid_value", "details.payload.list[1]": "invalid_value"}
    made = details(strict.post(f"{API}/agent_spans", json={"details": {**span, "payload": {"n": 1}}}))["id"]
    finish = f"{API}/agent_spans/{made}/finish"
    assert set(errors(strict.post(finish, json={"result_payload": {"text": 5}}))) == {"result_payload.text"}
    assert set(errors(strict.post(finish, json={"result_payload": {}}))) == {"result_payload"}
    quality = {"name": "verdict", "payload": {"score": 2}}
    path = f"{API}/agent_instance/{run}/record_quality"
    assert set(errors(strict.post(path, json=quality))) == {"payload.score"}
    for item in ({**span, "payload": bad}, {"details": {**span, "payload": bad}}):
        body = {"items": [{"_type": "agent_spans/create", "idempotency_key": "a-bulk-key", **item}]}
        output = strict.post(f"{API}/bulk", json=body).json()["outputs"]["a-bulk-key"]
        prefix = "details." if "details" in item else ""
        assert set(output["errors"]) == {f"{prefix}payload.n", f"{prefix}payload.list[1]"}


def test_a_value_that_is_wrong_is_named_where_it_was_sent(client: Client, db: Database) -> None:
    run = db.agent_instances.register("a").id
    span = {"agent_instance_id": run, "schema_name": "step", "status": "active"}
    nul = "a\x00b"
    for path, body, name in (
        ("/agent", {"details": {"name": ""}}, "details.name"),
        ("/agent_spans", {"details": {**span, "started_at": "noon"}}, "details.started_at"),
        ("/agent_spans", {"details": {**span, "id": "mine"}}, "details.id"),
        ("/agent_spans", {"details": span, "idempotency_key": nul}, "idempotency_key"),
        ("/agent_spans", {"details": {**span, "idempotency_key": nul}}, "details.idempotency_key"),
        ("/agent_instance/register", {"agent_version": {"name": nul}}, "agent_version.name"),
        ("/agent_instance/register", {"agent_version": {"description": nul}}, "agent_version.description"),
        ("/agent_instance/register", {"agent_id": nul}, "agent_id"),
        (
            "/agent_instance/register",
            {"agent_schema_version": {"external_identifier": nul}},
            "agent_schema_version.external_identifier",
        ),
        (
            "/agent_instance/register",
            {"agent_schema_version": {"span_type_schemas": [{"name": "a"}, {"name": "a"}]}},
            "agent_schema_version.span_type_schemas",
        ),
        (
            "/agent_schema_version",
            {"details": {"agent_id": run, "external_identifier": nul}},
            "details.external_identifier",
        ),
        (f"/agent_instance/{run}/start", {"timestamp": "noon"}, "timestamp"),
    ):
        response = client.post(API + path, json=body)
        assert response.status_code == 422, (path, body)
        assert response.json()["message"].startswith(f"{name}: "), response.text


def test_a_wrong_value_of_a_bulk_item_is_named_where_it_was_sent(client: Client) -> None:
    for fields, name in (
        ({"_type": "agents/create", "name": ""}, "name"),
        ({"_type": "agents/create", "details": {"name": ""}}, "details.name"),
        ({"_type": "agents/list", "pagination": {"offset": -1}}, "pagination.offset"),
        ({"_type": "agents/list", "pagination": {"page_size": "x"}}, "pagination.page_size"),
        ({"_type": "agents/list", "sorting": "nonsense"}, "sorting"),
    ):
        body = {"items": [{"idempotency_key": "a-bulk-key", **fields}]}
        output = client.post(f"{API}/bulk", json=body).json()["outputs"]["a-bulk-key"]
        assert output["message"].startswith(f"{name}: "), output


def test_python_names_the_parameter_and_keeps_the_problems_as_text(db: Database) -> None:
    with pytest.raises(agentspan.InvalidValue) as refused:
        db.agent_instances.register(agent_version={"name": "a\x00b"})
    assert refused.value.field == "agent_version.name"
    strict = Database(db.storage, strict_schemas=True)
    run = db.agent_instances.register(agent_schema_version={"span_type_schemas": [STEP]}).id
    with pytest.raises(agentspan.ValidationErrors) as mismatch:
        strict.agent_spans.create(run, "step", "active", {"n": "x"})
    assert mismatch.value.fields == ("payload.n",)
    assert [problem.partition(":")[0] for problem in mismatch.value.problems] == ["$.n"]


@pytest.mark.parametrize("item", ["1", "{}"])
def test_of_many_wrong_items_of_a_list_the_first_is_named(client: Client, item: str) -> None:
    """Before, three million took 5 GB."""
    types = ",".join([item] * 2000)
    body = f'{{"agent_id":"a","agent_version":{{"name":"1"}},"agent_schema_version":{{"span_type_schemas":[{types}]}}}}'
    response = client.post(f"{API}/agent_instance/register", content=body, headers={"Content-Type": "application/json"})
    assert {name.partition("]")[0] for name in errors(response)} == {"agent_schema_version.span_type_schemas[0"}
