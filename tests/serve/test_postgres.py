"""The HTTP API and the viewer over PostgreSQL: two applications on one schema answer each other's clients."""

import asyncio
from collections.abc import Callable

import pytest

import agentspan
from agentspan.serve import create_app
from agentspan.storage.location import Location
from agentspan.storage.questions import MissingPartitions, Partitions
from tests.postgres import Emptied, prepare_nothing
from tests.postgres_proxy import proxy
from tests.serve.asgi import Client
from tests.serve.servers import Api, details, refusal
from tests.waiting import until

psycopg = pytest.importorskip("psycopg", reason="needs psycopg")

pytestmark = pytest.mark.full


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


def test_a_request_takes_few_round_trips(postgres_location: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write is one statement, after one that reads what it changes; a span that is read is one."""
    prepare_nothing(monkeypatch)
    with proxy(postgres_location.text) as between, agentspan.open(between.url) as db:
        client = Client(create_app(db), "http://localhost/api/v1")
        api = Api(client)  # type: ignore[arg-type]
        run = api.instance("traveller")
        pending = api.span(run, status="pending")
        took: dict[str, int] = {}
        requests: dict[str, Callable[[], object]] = {
            "create": lambda: api.span(run, status="pending"),
            "start": lambda: details(api.post(f"/agent_spans/{pending}/start", {}))["id"],
            "finish": lambda: details(api.finish(pending))["id"],
            "read": lambda: details(client.get(f"/agent_spans/{pending}"))["id"],
            "the page of a run again": lambda: client.get(f"/agent_spans?agent_instance_id={run}").status_code,
        }
        for name, request in requests.items():
            before = between.round_trips
            assert request()
            took[name] = between.round_trips - before
        client.close()
    assert took == {"create": 1, "start": 2, "finish": 2, "read": 1, "the page of a run again": 3}


@pytest.mark.parametrize("read_only", [False, True])
def test_a_server_makes_the_partitions_that_are_missing_when_it_starts(
    postgres_server: Emptied, read_only: bool
) -> None:
    location = postgres_server.new()
    with agentspan.open(location) as db:
        last = db.storage.ask(Partitions())[-2].name
        with psycopg.connect(postgres_server.url, autocommit=True) as owner:
            owner.execute(f"drop table {location.text.partition('?schema=')[2]}.{last}")
        assert db.storage.ask(MissingPartitions()) == 1
        app = create_app(location, read_only=read_only)

        async def served() -> None:
            async with app.router.lifespan_context(app):
                if not read_only:
                    await asyncio.to_thread(until, lambda: db.storage.ask(MissingPartitions()) == 0)

        asyncio.run(served())
        assert db.storage.ask(MissingPartitions()) == int(read_only)


def test_without_the_database_the_ping_is_answered_and_other_requests_with_503(
    postgres_location: Location, postgres_server: Emptied
) -> None:
    with (
        proxy(postgres_location.text) as between,
        agentspan.open(between.url) as db,
        Client(create_app(db), "http://localhost/api/v1") as client,
    ):
        run = Api(client).instance("traveller")  # type: ignore[arg-type]
        between.refuses = True
        postgres_server.end_connections()
        accepted = between.accepted
        assert client.get("/ping").status_code == 200
        assert between.accepted == accepted
        for answer in (
            client.get(f"/agent_instance/{run}"),
            client.get("/agent"),
            client.post(f"/agent_instance/{run}/finish", json={}),
        ):
            assert refusal(answer)[0] == 503
        between.refuses = False
        assert client.get(f"/agent_instance/{run}").status_code == 200
