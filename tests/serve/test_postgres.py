"""The HTTP API and the viewer over PostgreSQL: two applications on one schema answer each other's clients."""

import pytest

import agentspan
from agentspan.serve import create_app
from agentspan.storage.location import Location
from tests.serve.asgi import Client
from tests.serve.servers import Api, details, refusal

pytest.importorskip("psycopg")


def test_two_servers_answer_from_one_schema(postgres_location: Location) -> None:
    with agentspan.open(postgres_location) as db, agentspan.open(postgres_location) as other:
        clients = [Client(create_app(each), "http://localhost/api/v1") for each in (db, other)]
        one, two = (Api(client) for client in clients)  # type: ignore[arg-type]
        run = one.instance("traveller")
        span = two.span(run, payload={"city": "Zürich"})
        key = {"Idempotency-Key": "k"}
        first, again = (each.client.post(f"/agent_spans/{span}/finish", json={}, headers=key) for each in (one, two))
        assert details(first) == details(again)
        assert details(first)["status"] == "complete"
        assert refusal(two.finish(span))[1] == "invalid_action"
        taken = two.client.post(f"/agent_spans/{span}/finish", json={"status": "failed"}, headers=key)
        assert refusal(taken)[1] == "idempotency_key_already_used"
        assert details(one.post(f"/agent_instance/{run}/finish", {}))["status"] == "complete"
        page = Client(create_app(other), "http://localhost")
        assert "traveller" in page.get("/").text
        assert page.get(f"/runs/{run}").status_code == 200
        for client in (*clients, page):
            client.close()
