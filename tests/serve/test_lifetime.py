"""How a server begins and ends, what slow clients cost the others, and an application within another."""

import asyncio
import json
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette

import agentspan
from agentspan.serve.app import create_app
from tests.serve.servers import Api, Server, details, refusal, serving
from tests.tiers import every
from tests.waiting import until


@contextmanager
def locked(db: Path) -> Iterator[None]:
    """Hold the write lock, as another process would."""
    with closing(sqlite3.connect(db, isolation_level=None)) as other:
        other.execute("begin immediate")
        try:
            yield
        finally:
            other.execute("rollback")


def wal(db: Path) -> Path:
    return db.with_name(f"{db.name}-wal")


def send(server: Server, text: str) -> socket.socket:
    """Open a connection and send something."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    connection.sendall(text.encode())
    return connection


def head(path: str, length: int) -> str:
    lines = (
        f"POST /api/v1{path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {length}",
    )
    return "\r\n".join(lines) + "\r\n\r\n"


@pytest.mark.full
def test_a_server_can_be_reached_as_soon_as_it_says_where_it_is(tmp_path: Path) -> None:
    with serving(tmp_path / "runs.db") as server:
        socket.create_connection(("127.0.0.1", server.port)).close()
        assert httpx.get(f"{server.url}/api/v1/ping", timeout=30).status_code == 200


@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_can_be_ended_as_soon_as_it_says_where_it_is(tmp_path: Path, number: int) -> None:
    with serving(tmp_path / "runs.db") as server:
        assert server.end(number) == 0
        assert server.stderr == ""


@pytest.mark.parametrize("number", every(2, [signal.SIGTERM, signal.SIGINT]))
def test_requests_in_flight_are_finished_and_the_file_is_whole_when_a_server_ends(tmp_path: Path, number: int) -> None:
    with serving(tmp_path / "runs.db") as server, server.client() as client, ThreadPoolExecutor(20) as pool:
        api = Api(client)
        run = api.instance("a")
        assert wal(server.db).exists()
        with locked(server.db):
            answers = [pool.submit(api.create, run, payload={"n": n}) for n in range(20)]
            until(lambda: api.client.get("/ping").status_code == 200)  # the loop is not held up by those that wait
            until(lambda: sum(answer.running() for answer in answers) == 20)
            until(lambda: _established(server.port) >= 20)
            server.process.send_signal(number)
            until(lambda: _is_refused(server.port))
        assert [answer.result().status_code for answer in answers] == [200] * 20
        assert server.wait() == 0
        assert server.stderr == ""
        assert not wal(server.db).exists()
        with closing(sqlite3.connect(server.db)) as connection:
            assert connection.execute("select count(*) from agent_spans").fetchone() == (20,)
            assert connection.execute("pragma integrity_check").fetchone() == ("ok",)


def _established(port: int) -> int:
    """How many connections a server has (Linux)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


def _is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    except TimeoutError:  # it does not accept them any more, and still listens
        return False
    return False


@pytest.mark.full
def test_clients_that_are_slow_keep_nobody_waiting_and_do_not_keep_the_server_alive(tmp_path: Path) -> None:
    with serving(tmp_path / "runs.db") as server, server.client() as client:
        api = Api(client)
        run = api.instance("a")
        for n in range(20):
            api.span(run, payload={"n": n, "text": "x" * 500_000})
        never_reads = send(
            server, f"GET /api/v1/agent_instance/{run}/agent_context HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        half = [send(server, head("/agent_spans", 1000) + '{"details":') for _ in range(30)]
        unfinished_head = send(server, "POST /api/v1/agent_spans HTTP/1.1\r\nHost: loc")
        assert details(api.finish(api.span(run)))["status"] == "complete"
        assert server.end() == 0
        assert not wal(server.db).exists()
        for connection in (never_reads, unfinished_head, *half):
            connection.close()
    with agentspan.open(server.db) as db:
        assert db.agent_spans.list(run).pagination.item_count == 21


@pytest.mark.full
def test_a_client_that_goes_away_before_its_answer_costs_nothing_but_its_answer(tmp_path: Path) -> None:
    with serving(tmp_path / "runs.db") as server, server.client() as client:
        api = Api(client)
        run = api.instance("a")
        body = json.dumps({"details": {"agent_instance_id": run, "schema_name": "left", "status": "active"}})
        with locked(server.db):
            for _ in range(5):
                send(server, head("/agent_spans", len(body)) + body).close()
            send(server, head("/agent_spans", 1000) + body).close()
        until(lambda: len(api.get("/agent_spans", agent_instance_id=run).json()["summaries"]) == 5)
        assert details(api.finish(api.span(run)))["status"] == "complete"
        assert server.stderr == ""


@pytest.mark.full
def test_two_servers_on_one_file_see_each_others_work(tmp_path: Path) -> None:
    db = tmp_path / "runs.db"
    with serving(db) as one, serving(db) as two, one.client() as first, two.client() as second:
        apis = Api(first), Api(second)
        run = apis[0].instance("a")
        spans = [apis[0].span(run) for _ in range(100)]
        results: list[list[int]] = [[], []]

        def finish(number: int) -> None:
            results[number] = [apis[number].finish(span).status_code for span in spans]

        threads = [threading.Thread(target=finish, args=(number,)) for number in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        pairs = [sorted(pair) for pair in zip(*results, strict=True)]
        assert pairs == [[200, 409]] * 100
        assert one.end() == 0
        assert details(apis[1].get(f"/agent_instance/{run}"))["span_counts"]["complete"] == 100


def visit(app: Starlette, scene: Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]]) -> None:
    """Let a scene talk to an application in this process, from its start to its end."""

    async def main() -> None:
        transport = httpx.ASGITransport(app)
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url=HERE) as client:
            await scene(client)

    asyncio.run(main())


HERE = "http://localhost"
RIGHT = {"Authorization": "Bearer s3cret-token"}


def mounted(db: Path) -> FastAPI:
    outer = FastAPI()
    outer.mount("/flights", create_app(db, token="s3cret-token"))
    return outer


@pytest.mark.full
def test_an_application_can_be_mounted_in_another(tmp_path: Path) -> None:
    async def scene(client: httpx.AsyncClient) -> None:
        url = "/flights/api/v1"
        id = details(await client.post(f"{url}/agent_instance/register", json={"agent_id": "a"}, headers=RIGHT))["id"]
        assert details(await client.get(f"{url}/agent_instance/{id}", headers=RIGHT))["id"] == id
        assert (await client.get("/flights/openapi.json")).json()["openapi"].startswith("3.")
        assert refusal(await client.get(f"{url}/nothing", headers=RIGHT)) == (404, "not_found")
        assert (await client.get("/elsewhere")).json() == {"detail": "Not Found"}

    visit(mounted(tmp_path / "runs.db"), scene)


def test_a_mounted_application_wants_its_token_all_the_same(tmp_path: Path) -> None:
    async def scene(client: httpx.AsyncClient) -> None:
        assert refusal(await client.get("/flights/api/v1/ping")) == (401, "not_authenticated")
        wrong = {"Authorization": "Bearer wrong"}
        assert refusal(await client.get("/flights/api/v1/agent", headers=wrong)) == (401, "bad_authtoken")

    visit(mounted(tmp_path / "runs.db"), scene)


def test_an_application_closes_what_it_opened_and_nothing_else(tmp_path: Path) -> None:
    async def scene(client: httpx.AsyncClient) -> None:
        assert details(await client.post("/api/v1/agent", json={"details": {"name": "a"}}))["name"] == "a"

    with agentspan.open(tmp_path / "own.db") as db:
        visit(create_app(db), scene)
        assert db.agents.list().pagination.item_count == 1
    visit(create_app(tmp_path / "opened.db"), scene)
    assert not wal(tmp_path / "opened.db").exists()


@pytest.mark.full
def test_nothing_is_sent_elsewhere_whatever_the_environment_says(tmp_path: Path) -> None:
    env = {"FASTAPI_OTEL_AUTO_CONFIGURE": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    with serving(tmp_path / "runs.db", **env) as server, server.client() as client:
        assert client.get("/ping").status_code == 200
        assert server.stderr == ""


@pytest.mark.nightly  # 6 s
def test_a_connection_is_kept_for_longer_than_clients_keep_it(tmp_path: Path) -> None:
    server = Server(tmp_path / "runs.db")
    connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        for pause_s in (6, 0):  # httpx keeps a connection for 5 s
            connection.request("GET", "/ping")
            assert connection.getresponse().read()
            time.sleep(pause_s)
    finally:
        connection.close()
        server.kill()
