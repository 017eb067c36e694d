"""An end that comes after the termination of its run: kept, answered with `control`, alone, in bulk and in Python."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan import Database
from agentspan.serve.app import create_app
from tests.serve.asgi import Client
from tests.serve.servers import details

API = "/api/v1"
CONTROL = {"terminate": True, "reason": "too dear"}


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with agentspan.open(tmp_path / "runs.db") as opened:
        yield opened


@pytest.fixture
def client(db: Database) -> Iterator[Client]:
    with Client(create_app(db)) as asking:
        yield asking


@pytest.fixture
def run(db: Database) -> str:
    """A run that was terminated with one span active and one pending."""
    id = db.agent_instances.register("a").id
    db.agent_instances.start(id)
    for status in ("active", "pending"):
        db.agent_spans.create(id, "llm", status, {"model": "m"})
    db.agent_instances.terminate(id, "too dear")
    return id


def spans(db: Database, run: str) -> tuple[str, str]:
    one, other, *_ = db.agent_spans.list(run)
    return one.id, other.id


def bulk(client: Client, *items: dict[str, Any]) -> list[dict[str, Any]]:
    numbered = [{"idempotency_key": f"a-bulk-key-{n}", **item} for n, item in enumerate(items)]
    return list(client.post(f"{API}/bulk", json={"items": numbered}).json()["outputs"].values())


@pytest.mark.parametrize("is_bulk", [False, True])
def test_the_late_end_of_a_span_is_kept_once(client: Client, db: Database, run: str, is_bulk: bool) -> None:
    active, pending = spans(db, run)

    def finish(id: str, **fields: Any) -> tuple[int, dict[str, Any]]:
        if is_bulk:
            (output,) = bulk(client, {"_type": "agent_spans/finish", "agent_span_id": id, **fields})
            return (200 if output["status"] == "success" else 409), output
        response = client.post(f"{API}/agent_spans/{id}/finish", json=fields)
        return response.status_code, response.json()

    for id, status in ((active, "complete"), (pending, "failed")):
        key = f"key-of-{id[-20:]}"
        code, answer = finish(id, status=status, result_payload={"text": "late"}, idempotency_key=key)
        assert (code, answer["control"]) == (200, CONTROL)
        told = answer["details"]
        assert (told["status"], told["result_payload"], told["ended_late"]) == (status, {"text": "late"}, True)
        assert told["closed_by"] == "terminated"
        again = finish(id, status=status, result_payload={"text": "late"}, idempotency_key=key)
        assert again == (code, answer)  # the same request again
        code, answer = finish(id, status=status, idempotency_key=f"again-{id[-20:]}")
        assert (code, answer["code"], answer["control"]) == (409, "invalid_action", CONTROL)


@pytest.mark.parametrize("is_bulk", [False, True])
@pytest.mark.parametrize("status", ["complete", "failed"])
def test_the_late_end_of_an_instance_is_kept_once(
    client: Client, db: Database, run: str, status: str, is_bulk: bool
) -> None:
    def finish(**fields: Any) -> tuple[int, dict[str, Any]]:
        if is_bulk:
            (output,) = bulk(client, {"_type": "agent_instances/finish", "agent_instance_id": run, **fields})
            return (200 if output["status"] == "success" else 409), output
        response = client.post(f"{API}/agent_instance/{run}/finish", json=fields)
        return response.status_code, response.json()

    late = db.agent_spans.create(run, "llm", "active").id  # begun after the termination, and left open
    at = "2099-01-01T00:00:00Z"
    code, answer = finish(status=status, timestamp=at, idempotency_key="key-of-finish")
    assert (code, answer["control"]) == (200, CONTROL)
    told = answer["details"]
    assert (told["status"], told["ended_late"], told["closed_by"]) == ("terminated", True, "terminated")
    assert (told["finished_at"], told["termination_reason"]) == ("2099-01-01T00:00:00Z", "too dear")
    assert finish(status=status, timestamp=at, idempotency_key="key-of-finish") == (code, answer)
    assert db.agent_spans.get(late).closed_by == "terminated"
    code, answer = finish(idempotency_key="another-key")
    assert (code, answer["code"], answer["control"]) == (409, "invalid_action", CONTROL)


@pytest.mark.parametrize("is_bulk", [False, True])
def test_every_answer_about_a_terminated_run_tells_of_it(client: Client, db: Database, run: str, is_bulk: bool) -> None:
    span = {"agent_instance_id": run, "schema_name": "llm"}
    for status in ("pending", "active", "complete", "failed", "cancelled"):
        if is_bulk:
            (answer,) = bulk(client, {"_type": "agent_spans/create", "status": status, **span,
                                      "idempotency_key": f"create-{status}"})  # fmt: skip
        else:
            answer = client.post(f"{API}/agent_spans", json={"details": {**span, "status": status}}).json()
        assert (answer["status"], answer["control"]) == ("success", CONTROL)
        assert not answer["details"]["ended_late"]
    _, closed = spans(db, run)
    for path in (f"/agent_spans/{closed}/start", f"/agent_instance/{run}/start"):
        refused = client.post(API + path)
        assert (refused.status_code, refused.json()["code"], refused.json()["control"]) == (
            409,
            "invalid_action",
            CONTROL,
        )
    (answer,) = bulk(client, {"_type": "agent_instances/start", "agent_instance_id": run})
    assert (answer["code"], answer["control"]) == ("invalid_action", CONTROL)
    cancelled = client.post(f"{API}/agent_instance/{run}/finish", json={"status": "cancelled"})
    assert (cancelled.status_code, cancelled.json()["control"]) == (409, CONTROL)


def test_an_ordinary_answer_has_no_control(client: Client, db: Database) -> None:
    run = db.agent_instances.register("a").id
    assert "control" not in client.post(f"{API}/agent_instance/{run}/start").json()
    body = {"details": {"agent_instance_id": run, "schema_name": "llm", "status": "active"}}
    made = client.post(f"{API}/agent_spans", json=body).json()
    assert "control" not in made
    assert "control" not in client.post(f"{API}/agent_spans/{made['details']['id']}/finish").json()
    assert "control" not in client.post(f"{API}/agent_instance/{run}/finish").json()
    assert details(client.get(f"{API}/agent_instance/{run}"))["status"] == "complete"
