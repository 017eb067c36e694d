"""Several servers over one schema of PostgreSQL: no client, and no browser, sees which of them answers."""

import asyncio
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

import agentspan
from agentspan.errors import NotPermitted
from agentspan.serve import create_app
from agentspan.serve.logins import SharedLogins
from agentspan.storage.location import Location
from agentspan.storage.questions import PutNote, Select, SpansOf
from agentspan.storage.registry import open_direct
from agentspan.tuning import Tuning
from tests.checkout import ROOT
from tests.serve.asgi import Client
from tests.serve.servers import Api, Server, details
from tests.tuned import tuned

pytest.importorskip("psycopg", reason="needs psycopg")

pytestmark = pytest.mark.full

TOKEN = "a-token-of-some-length"
OWN = {"sec-fetch-site": "same-origin", "content-type": "application/json"}


@pytest.fixture
def servers(postgres_location: Location, tmp_path: Path) -> Iterator[list[Server]]:
    """Three server processes on one schema."""
    open_direct(postgres_location).close()
    with ThreadPoolExecutor(3) as pool:
        logs = [tmp_path / f"{number}.log" for number in range(3)]
        made = list(pool.map(lambda log: Server.over(postgres_location.text, log), logs))
    yield made
    for server in made:
        server.kill()


async def raced(urls: list[str], spans: list[str], clients: int) -> list[Counter[int]]:
    """Let clients finish each span at the same moment, each at one of the servers; count the answers' statuses."""
    # A server closes a connection that is idle for 5 s, perhaps as a request is sent: none so old is used again.
    limits = httpx.Limits(max_connections=clients, keepalive_expiry=1.0)
    async with httpx.AsyncClient(timeout=60, limits=limits) as client:

        async def finish(span: str, number: int) -> int:
            url = f"{urls[number % len(urls)]}/api/v1/agent_spans/{span}/finish"
            for _ in range(5):
                # A server also closes a new one on which no request comes for 5 s, which a busy machine may not send.
                with suppress(httpx.TransportError):
                    return (await client.post(url, json={"result_payload": {"by": number}})).status_code
            return 0

        return [Counter(await asyncio.gather(*(finish(span, n) for n in range(clients)))) for span in spans]


def test_three_servers_are_one(servers: list[Server], postgres_location: Location) -> None:
    """One of 64 clients finishes a span. A live view at one server misses nothing of the others. One may be killed."""
    apis = [Api(server.client()) for server in servers]
    run = apis[0].instance("traveller")
    seen: dict[str, int] = {}
    done = threading.Event()

    def watch() -> None:
        """Read as the page of the run does, and never anything again that was committed before the cursor."""
        with httpx.Client(base_url=servers[2].url, timeout=30) as client:
            cursor, last = "", False
            while not last:
                last = done.is_set()
                chunk = client.get(f"/runs/{run}/spans", params={"cursor": cursor, "after": ""}).json()
                cursor = chunk["cursor"]
                columns = chunk["columns"]
                seen.update(zip(columns["id"], columns["status"], strict=True))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        spans = [apis[number % 3].span(run) for number in range(6)]
        urls = [server.url for server in servers]
        assert asyncio.run(raced(urls, spans[:4], 64)) == [Counter({409: 63, 200: 1})] * 4
        servers[0].kill()
        more = [apis[1 + number % 2].span(run) for number in range(4)]
        for number, span in enumerate([*spans[4:], *more]):
            details(apis[1 + number % 2].finish(span))
    finally:
        done.set()
        watching.join()
        for api in apis:
            api.client.close()
    storage = open_direct(postgres_location)
    stored = {span.id: span.status for span in storage.ask(SpansOf(run))}
    storage.close()
    assert len(stored) == 10
    assert set(stored.values()) == {"complete"}
    assert seen.keys() == stored.keys()
    assert set(seen.values()) == {2}, "the position of complete"
    for server in servers[1:]:
        assert server.end() == 0, server.stderr


class Browser:
    """A page's requests to two servers, with one jar of cookies."""

    def __init__(self, *apps: Any) -> None:
        self.clients = [Client(app) for app in apps]
        for client in self.clients[1:]:
            client._client._cookies = self.clients[0]._client._cookies
            client.cookies = self.clients[0].cookies

    def is_in(self, server: int) -> bool:
        return self.clients[server].get("/runs.json").status_code == 200

    def post(self, server: int, path: str, **said: str) -> int:
        return self.clients[server].post(path, content=json.dumps(said), headers=OWN).status_code

    def close(self) -> None:
        for client in self.clients:
            client.close()


@pytest.fixture
def browser(postgres_location: Location, tuning: Tuning) -> Iterator[Browser]:
    """A browser before two servers with the same token."""
    with agentspan.open(postgres_location) as one, agentspan.open(postgres_location) as two:
        made = Browser(*(create_app(each, token=TOKEN, tuning=tuning) for each in (one, two)))
        yield made
        made.close()


def test_a_login_and_a_logout_hold_at_all_servers_at_once(browser: Browser, postgres_location: Location) -> None:
    assert [browser.is_in(0), browser.is_in(1)] == [False, False]
    assert browser.post(0, "/login", token=TOKEN) == 200
    assert [browser.is_in(0), browser.is_in(1)] == [True, True]
    kept = dict(browser.clients[0].cookies)
    assert browser.post(1, "/logout") == 200
    for name, value in kept.items():  # somebody has copied the cookie
        browser.clients[0].cookies.set(name, value, domain="localhost")
    assert [browser.is_in(0), browser.is_in(1)] == [False, False]
    with agentspan.open(postgres_location) as third:
        restarted = Browser(create_app(third, token=TOKEN))
        restarted.clients[0].cookies.update(kept)
        assert not restarted.is_in(0)
        assert restarted.post(0, "/login", token=TOKEN) == 200
        assert restarted.is_in(0)
        restarted.close()


@tuned(kept_logouts=1)
def test_too_many_logouts_end_all_sessions_at_all_servers(browser: Browser) -> None:
    for _ in range(2):
        assert browser.post(0, "/login", token=TOKEN) == 200
        kept = dict(browser.clients[0].cookies)
        assert browser.post(0, "/logout") == 200
    browser.clients[0].cookies.update(kept)
    assert [browser.is_in(0), browser.is_in(1)] == [False, False]
    browser.clients[0].cookies.clear()
    assert browser.post(0, "/login", token=TOKEN) == 200
    assert [browser.is_in(1), browser.is_in(0)] == [True, True]


def test_a_server_that_may_not_write_keeps_logins_to_itself(
    postgres_location: Location, caplog: pytest.LogCaptureFixture
) -> None:
    class Refusing:
        def ask(self, question: Any) -> dict[str, str]:
            if isinstance(question, PutNote):
                raise NotPermitted("read only")
            return {}

    logins = SharedLogins(Refusing())  # type: ignore[arg-type]
    logins.end("a", 1)
    assert logins.has_ended("a", 1)
    assert not logins.has_ended("b", 1)
    assert "logins end with this process" in caplog.text


def test_what_the_page_watches_with_can_be_run(postgres_location: Location) -> None:
    page = (ROOT / "docs" / "postgresql.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sql\n(.*?)^```$", page.partition("\n## Watch\n")[2].partition("\n## ")[0], re.M | re.S)
    statements = [each for block in blocks for each in block.split(";") if each.strip()]
    assert len(statements) == 4
    storage = open_direct(postgres_location)
    for statement in statements:
        assert storage.ask(Select(statement)).columns
    storage.close()
