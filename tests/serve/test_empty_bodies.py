"""Requests whose body may be absent: they need no Content-Type, and `null` is such a body."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import agentspan
from agentspan import Database
from agentspan.serve.app import create_app
from tests.serve.asgi import Client
from tests.serve.servers import details, refusal

API = "/api/v1"
JSON = {"Content-Type": "application/json"}
EMPTY: list[dict[str, Any]] = [
    {},
    {"headers": {"Content-Length": "0"}},
    {"headers": JSON},
    {"content": b"null", "headers": JSON},
    {"content": b" null\n", "headers": JSON},
    {"content": b"{}", "headers": JSON},
    {"content": b"", "headers": {"Content-Type": "text/plain;charset=UTF-8"}},
]
"""The last: what fetch sends of `body: ""`."""
FOREIGN = [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}]


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with agentspan.open(tmp_path / "runs.db") as opened:
        yield opened


@pytest.fixture
def client(db: Database) -> Iterator[Client]:
    with Client(create_app(db)) as asking:
        yield asking


def post(client: Client, path: str, empty: dict[str, Any]) -> httpx.Response:
    return client.post(API + path, **empty)


@pytest.mark.full
@pytest.mark.parametrize("empty", EMPTY)
def test_a_run_is_made_started_and_finished_without_a_body(client: Client, empty: dict[str, Any]) -> None:
    run = details(post(client, "/agent_instance/register", empty))["id"]
    assert details(post(client, f"/agent_instance/{run}/start", empty))["status"] == "active"
    span = {"agent_instance_id": run, "schema_name": "step", "status": "pending"}
    made = details(client.post(f"{API}/agent_spans", json={"details": span}))["id"]
    assert details(post(client, f"/agent_spans/{made}/start", empty))["status"] == "active"
    assert details(post(client, f"/agent_spans/{made}/finish", empty))["status"] == "complete"
    assert details(post(client, f"/agent_instance/{run}/finish", empty))["status"] == "complete"


@pytest.mark.full
@pytest.mark.parametrize("empty", EMPTY)
def test_an_agent_is_retired_and_reinstated_without_a_body(client: Client, db: Database, empty: dict[str, Any]) -> None:
    agent = db.agents.create("a").id
    assert details(post(client, f"/agent/{agent}/retire", empty))["status"] == "retired"
    assert details(post(client, f"/agent/{agent}/reinstate", empty))["status"] == "pending"
    assert len(details(post(client, "/pfid/generate", empty))["pfids"]) == 1


@pytest.mark.full
@pytest.mark.parametrize("empty", EMPTY[:-2])
def test_a_body_that_is_needed_is_missed_and_no_type_of_it(client: Client, db: Database, empty: dict[str, Any]) -> None:
    run = db.agent_instances.register("a")
    for method, path in (
        ("POST", "/agent"), ("PUT", f"/agent/{run.agent_id}"), ("POST", "/agent_spans"), ("POST", "/bulk"),
        ("POST", f"/agent_instance/{run.id}/terminate"), ("POST", f"/agent_instance/{run.id}/record_quality"),
    ):  # fmt: skip
        assert refusal(client.request(method, API + path, **empty)) == (400, "bad_request"), path


def test_an_empty_body_in_chunks_needs_no_type_and_another_does(client: Client) -> None:
    async def chunks(*parts: bytes) -> Any:
        for part in parts:
            yield part

    assert client.post(f"{API}/pfid/generate", content=chunks()).status_code == 200
    assert client.post(f"{API}/pfid/generate", content=chunks(b"", b"")).status_code == 200
    assert refusal(client.post(f"{API}/pfid/generate", content=chunks(b"", b"{}"))) == (415, "bad_request")


@pytest.mark.parametrize("headers", FOREIGN)
def test_a_page_of_a_browser_must_name_the_type_even_of_nothing(
    client: Client, db: Database, headers: dict[str, str]
) -> None:
    """Else a foreign page could send it without asking first (a simple request)."""
    run = db.agent_instances.register("a").id
    path = f"{API}/agent_instance/{run}/start"
    assert refusal(client.post(path, headers=headers)) == (415, "bad_request")
    assert refusal(client.post(path, headers={**headers, "Content-Type": "text/plain"})) == (415, "bad_request")
    assert db.agent_instances.get(run).status == "pending"
    assert details(client.post(path, headers={**headers, **JSON}))["status"] == "active"


# Whole numbers


def test_a_whole_number_may_have_a_point(client: Client, db: Database) -> None:
    assert len(details(client.post(f"{API}/pfid/generate", json={"count": 3.0}))["pfids"]) == 3
    assert refusal(client.post(f"{API}/pfid/generate", json={"count": 1.5})) == (422, "validation_errors")
    for name in ("a", "b", "c"):
        db.agents.create(name)
    paged = client.get(f"{API}/agent?pagination[offset]=1.0&pagination[page_size]=1.0&sorting=name").json()
    assert [agent["name"] for agent in paged["summaries"]] == ["b"]
    item = {"_type": "agents/list", "idempotency_key": "a-bulk-key", "sorting": "name"}
    body = {"items": [{**item, "pagination": {"offset": 1.0, "page_size": 1.0}}]}
    output = client.post(f"{API}/bulk", json=body).json()["outputs"]["a-bulk-key"]
    assert [agent["name"] for agent in output["summaries"]] == ["b"]
    assert type(output["pagination"]["page_offset"]) is int
    assert len(db.pfids(2.0)) == 2  # type: ignore[arg-type]
    for wrong in (1.5, True, float("inf"), "2"):
        with pytest.raises(agentspan.InvalidValue):
            db.pfids(wrong)  # type: ignore[arg-type]
        with pytest.raises(agentspan.InvalidValue):
            db.agents.list(offset=wrong)  # type: ignore[arg-type]


@pytest.mark.full
@pytest.mark.parametrize(
    ("sent", "stored"),
    [(648.0, 648), (648, 648), (0.0, 0), (-0.0, 0), (1.5, None), (1e300, None), (True, None), ("648", None)],
)
def test_tokens_that_are_whole_numbers_with_a_point_are_counts(
    client: Client, db: Database, sent: Any, stored: int | None
) -> None:
    run = db.agent_instances.register("a").id
    span = {"agent_instance_id": run, "schema_name": "llm", "status": "active", "payload": {"input_tokens": sent}}
    made = details(client.post(f"{API}/agent_spans", json={"details": span}))
    assert made["input_tokens"] == stored
    body = {"result_payload": {"output_tokens": sent}}
    done = details(client.post(f"{API}/agent_spans/{made['id']}/finish", json=body))
    assert (done["input_tokens"], done["output_tokens"]) == (stored, stored)
    kept = db.agent_spans.get(made["id"])
    assert (kept.input_tokens, kept.output_tokens) == (stored, stored)
    assert kept.input_tokens is None or type(kept.input_tokens) is int
