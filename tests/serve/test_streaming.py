"""Whole runs over HTTP: sent in pieces while they are made, whole or visibly cut."""

import asyncio
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.database import Database
from agentspan.errors import StorageError
from agentspan.model import resources
from agentspan.serve.app import create_app
from agentspan.serve.streaming import CHUNK
from agentspan.viewer import data
from tests.serve.asgi import Client
from tests.serve.servers import refusal

SPANS = 160
BYTES = 100_000


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with agentspan.open(tmp_path / "runs.db") as opened:
        yield opened


def filled(db: Database, spans: int = SPANS, size: int = BYTES) -> str:
    """A run with many large spans."""
    run = db.agent_instances.register("a", agent_version={}, agent_schema_version={}).id
    db.agent_instances.start(run)
    for number in range(spans):
        db.agent_spans.create(run, "step", "active", {"n": number, "text": "x" * size})
    return run


class Reader:
    """A client that keeps only the sizes of what it is sent.

    Attributes:
        sizes: bytes of each chunk.
        peak: the most bytes that were allocated meanwhile.
        is_whole: whether the end was sent.
    """

    def __init__(self, app: Any, path: str) -> None:
        self.sizes: list[int] = []
        self.status = 0
        self.is_whole = False
        self.headers: dict[bytes, bytes] = {}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"localhost")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        tracemalloc.start()
        try:
            asyncio.run(app(scope, self.receive, self.send))
            self.peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    async def receive(self) -> dict[str, Any]:
        await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        else:
            self.sizes.append(len(message.get("body", b"")))
            self.is_whole = not message.get("more_body")


@pytest.mark.full
@pytest.mark.parametrize("path", ["/api/v1/agent_instance/{run}/agent_context", "/runs/{run}/export"])
def test_a_run_is_never_whole_in_memory(db: Database, path: str) -> None:
    run = filled(db)
    app = create_app(db)
    Client(app).close()
    Reader(app, path.format(run=filled(db, 1, 10)))  # what is made once is no part of it: the page's script, templates
    reader = Reader(app, path.format(run=run))
    assert reader.status == 200
    assert sum(reader.sizes) > SPANS * BYTES
    assert reader.is_whole
    assert max(reader.sizes) < 4 * BYTES
    assert b"content-length" not in reader.headers
    assert reader.peak < SPANS * BYTES * 0.6


def test_a_run_is_sent_while_it_is_made(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    run, made = filled(db, 45, 2 * CHUNK), [0]
    original = data.details

    def counted(*given: Any) -> Iterator[Any]:
        for each in original(*given):
            made[0] += 1
            yield each

    monkeypatch.setattr(data, "details", counted)
    app = create_app(db)
    seen: list[int] = []

    class Watching(Reader):
        async def send(self, message: Any) -> None:
            await super().send(message)
            seen.append(made[0])

    Watching(app, f"/runs/{run}/export")
    assert made[0] == 45
    assert min(seen) <= 2
    assert len(set(seen)) > 35


def test_what_is_sent_is_what_python_returns(db: Database) -> None:
    run = filled(db, 45, 4000)
    db.agent_spans.create(run, "step", "active", {"half": "\ud800"})
    small = filled(db, 1, 10)
    with Client(create_app(db)) as client:
        for id in (run, small):
            response = client.get(f"/api/v1/agent_instance/{id}/agent_context")
            assert response.headers["content-type"] == "application/json"
            body = response.json()
            assert body == {
                "status": "success",
                "agent_context": {"body": json.loads(json.dumps(db.agent_instances.agent_context(id)))},
            }
            assert ("content-length" in response.headers) == (id == small)
        assert refusal(client.get(f"/api/v1/agent_instance/{'7' + 'z' * 31}/agent_context")) == (404, "not_found")


def test_a_run_that_cannot_be_read_to_its_end_is_not_taken_for_whole(
    db: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run, read = filled(db, 60, 20_000), [0]
    original = resources.span

    def span(*given: Any) -> Any:
        read[0] += 1
        if read[0] == 50:
            raise StorageError("what is stored is damaged")
        return original(*given)

    monkeypatch.setattr(resources, "span", span)
    reader = Reader(create_app(db), f"/api/v1/agent_instance/{run}/agent_context")
    assert (reader.status, reader.is_whole) == (200, False)
    assert sum(reader.sizes) > 40 * 20_000
    assert "failed" in caplog.text
