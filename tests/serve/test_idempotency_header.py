"""The header Idempotency-Key counts like the field; and which requests are the same request."""

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
KEY = "Idempotency-Key"


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with agentspan.open(tmp_path / "runs.db") as opened:
        yield opened


@pytest.fixture
def client(db: Database) -> Iterator[Client]:
    with Client(create_app(db)) as asking:
        yield asking


def span_of(db: Database, **more: Any) -> dict[str, Any]:
    run = db.agent_instances.register("a").id
    return {"agent_instance_id": run, "schema_name": "step", "status": "active", **more}


def test_a_request_that_is_sent_again_with_the_header_changes_nothing(client: Client, db: Database) -> None:
    span = span_of(db)
    for place in ({}, {"idempotency_key": "key-1"}):
        made = [
            details(client.post(f"{API}/agent_spans", json={"details": {**span, **place}}, headers={KEY: "key-1"}))
            for _ in range(2)
        ]
        made.append(details(client.post(f"{API}/agent_spans", json={"details": span, "idempotency_key": "key-1"})))
        assert len({each["id"] for each in made}) == 1
    assert db.agent_spans.list(span["agent_instance_id"]).pagination.item_count == 1
    finish = f"{API}/agent_spans/{made[0]['id']}/finish"
    ends = [details(client.post(finish, headers={KEY: "key-2"})) for _ in range(3)]
    assert ends[0] == ends[1] == ends[2]
    assert refusal(client.post(finish, json={"status": "failed"}, headers={KEY: "key-2"})) == (
        409,
        "idempotency_key_already_used",
    )


def test_operations_without_a_key_ignore_the_header(client: Client) -> None:
    wrong = {KEY: "x" * 65}
    items = [{"_type": "agents/list", "idempotency_key": "long-enough"}]
    assert client.post(f"{API}/bulk", json={"items": items}, headers=wrong).status_code == 200
    assert client.post(f"{API}/pfid/generate", headers=wrong).status_code == 200
    assert refusal(client.post(f"{API}/agent", json={"details": {"name": "n"}}, headers=wrong))[0] == 422


WRITES: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/agent", {"details": {"name": "n"}}),
    ("PUT", "/agent/AGENT", {"details": {"name": "n"}}),
    ("POST", "/agent/AGENT/retire", {}),
    ("POST", "/agent_schema_version", {"details": {"agent_id": "AGENT"}}),
    ("POST", "/agent_instance/register", {"agent_id": "b"}),
    ("POST", "/agent_instance/RUN/start", {}),
    ("POST", "/agent_instance/RUN/record_quality", {"name": "verdict", "payload": {"n": 1}}),
    ("POST", "/agent_spans/SPAN/start", {}),
    ("POST", "/agent_spans/SPAN/finish", {"status": "cancelled"}),
]


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_every_write_takes_the_header_and_refuses_two_keys_that_differ(
    client: Client, db: Database, method: str, path: str, body: dict[str, Any]
) -> None:
    run = db.agent_instances.register(
        "a", agent_schema_version={"quality_schemas": [{"name": "verdict", "schema": {}}]}
    )
    span = db.agent_spans.create(run.id, "step", "pending").id
    for name, id in (("AGENT", run.agent_id), ("RUN", run.id), ("SPAN", span)):
        path = path.replace(name, id)
        body = {"details": {"agent_id": id}} if body == {"details": {"agent_id": "AGENT"}} else body

    def send(header: str, **more: Any) -> Any:
        return client.request(method, API + path, json={**body, **more}, headers={KEY: header})

    differs = send("key-1", idempotency_key="key-2")
    assert refusal(differs) == (422, "invalid_value")
    assert differs.json()["message"].startswith("Idempotency-Key: ")
    first = details(send("key-1"))
    assert details(send("key-1"))["id"] == first["id"]
    assert details(send("key-1", idempotency_key="key-1")) == details(send("key-1"))
    assert details(send("key-1", idempotency_key=None)) == details(send("key-1"))


@pytest.mark.parametrize("key", ["", "x" * 65, "a\tb"])
def test_a_header_that_is_no_key_is_refused_by_its_name(client: Client, db: Database, key: str) -> None:
    response = client.post(f"{API}/agent_instance/register", headers={KEY: key})
    assert refusal(response) == (422, "invalid_value")
    assert response.json()["message"].startswith("Idempotency-Key: ")
    assert db.agent_instances.list().pagination.item_count == 0


def test_two_headers_or_two_fields_that_differ_are_refused(client: Client, db: Database) -> None:
    both = [(KEY, "key-1"), (KEY, "key-2")]
    assert refusal(client.post(f"{API}/agent_instance/register", headers=both)) == (422, "invalid_value")
    body = {"details": {**span_of(db), "idempotency_key": "key-1"}, "idempotency_key": "key-2"}
    assert refusal(client.post(f"{API}/agent_spans", json=body)) == (422, "invalid_value")
    assert details(client.post(f"{API}/agent_instance/register", headers=[(KEY, "key-1")] * 2))["id"]


def test_a_key_in_utf_8_is_the_key_of_the_field(client: Client, db: Database) -> None:
    made = [
        client.post(f"{API}/agent_instance/register", headers={KEY: "clé".encode()}),
        client.post(f"{API}/agent_instance/register", json={"idempotency_key": "clé"}),
    ]
    assert details(made[0])["id"] == details(made[1])["id"]


# The same request


SAME_NUMBERS = [(1, 1.0), (0, -0.0), (10**22, 1e22), (-5, -5.0), ([1, {"a": 2}], [1.0, {"a": 2.0}])]


@pytest.mark.full
@pytest.mark.parametrize(("one", "other"), SAME_NUMBERS)
def test_a_number_with_a_point_is_the_same_number(client: Client, db: Database, one: Any, other: Any) -> None:
    span = span_of(db, idempotency_key="key-1")
    made = [details(client.post(f"{API}/agent_spans", json={"details": {**span, "payload": {"n": each}}}))
            for each in (one, other, one)]  # fmt: skip
    assert len({each["id"] for each in made}) == 1
    assert made[1]["payload"] == {"n": one}  # as the first request said
    finish = f"{API}/agent_spans/{made[0]['id']}/finish"
    for each in (one, other):
        body = {"result_payload": {"n": each}, "idempotency_key": "key-2"}
        assert details(client.post(finish, json=body))["result_payload"] == {"n": one}


@pytest.mark.full
@pytest.mark.parametrize("other", [1.5, "1.0", "1", True, [1.0], 1e-300, 1e300, None])
def test_another_number_is_another_request(client: Client, db: Database, other: Any) -> None:
    span = span_of(db, idempotency_key="key-1")
    assert client.post(f"{API}/agent_spans", json={"details": {**span, "payload": {"n": 1}}}).status_code == 200
    again = client.post(f"{API}/agent_spans", json={"details": {**span, "payload": {"n": other}}})
    assert refusal(again) == (409, "idempotency_key_already_used")


def test_a_payload_with_points_nested_five_hundred_levels_deep_has_a_key(client: Client, db: Database) -> None:
    payload: dict[str, Any] = {"a": 1.0}
    for _ in range(499):
        payload = {"a": payload}
    span = span_of(db, idempotency_key="key-1", payload=payload)
    made = {details(client.post(f"{API}/agent_spans", json={"details": span}))["id"] for _ in range(2)}
    assert len(made) == 1


@pytest.mark.parametrize(
    "times",
    [
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00.000000Z", "2026-01-01T01:00:00+01:00", "2026-01-01t00:00:00z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z", "2016-12-31T15:59:60.000-08:00"),
    ],
)
def test_the_same_moment_is_the_same_request(client: Client, db: Database, times: tuple[str, ...]) -> None:
    run = db.agent_instances.register("a").id
    span = db.agent_spans.create(run, "step", "pending").id
    other = {"agent_instance_id": run, "schema_name": "step", "status": "complete"}
    for path, body in (
        (f"/agent_instance/{run}/start", lambda time: {"timestamp": time}),
        (f"/agent_instance/{run}/finish", lambda time: {"timestamp": time}),
        (f"/agent_spans/{span}/start", lambda time: {"timestamp": time}),
        (f"/agent_spans/{span}/finish", lambda time: {"timestamp": time}),
        ("/agent_spans", lambda time: {"details": {**other, "started_at": time, "finished_at": time}}),
    ):
        found = [details(client.post(API + path, json=body(time), headers={KEY: "key-1"})) for time in times]
        assert all(each == found[0] for each in found), path


def test_a_field_with_null_is_a_field_that_is_left_out(client: Client, db: Database) -> None:
    span = span_of(db, idempotency_key="key-1")
    bodies = [{"details": span}, {"details": {**span, "parent_span_id": None, "result_payload": None}}]
    assert len({details(client.post(f"{API}/agent_spans", json=body))["id"] for body in bodies}) == 1
