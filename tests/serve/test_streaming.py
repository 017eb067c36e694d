"""Whole runs over HTTP: sent in pieces while they are made, whole or visibly cut."""

import asyncio
import json
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from starlette.responses import StreamingResponse

import agentspan
from agentspan.api import envelopes
from agentspan.api.context import Context
from agentspan.api.spans import ListSpans
from agentspan.database import Database
from agentspan.errors import StorageError
from agentspan.serve.app import create_app
from agentspan.serve.responses import CHUNK, streamed
from agentspan.tuning import STANDARD
from agentspan.viewer import conversation, data
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

    def __init__(self, app: Any, path: str, query: str = "", body: Any = None) -> None:
        self._body = None if body is None else json.dumps(body).encode()
        self.sizes: list[int] = []
        self.status = 0
        self.is_whole = False
        self.headers: dict[bytes, bytes] = {}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET" if body is None else "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(b"host", b"localhost")]
            if self._body is None
            else [
                (b"host", b"localhost"),
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(self._body)),
            ],
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
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
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
    original = envelopes.span

    def span(*given: Any, **named: Any) -> Any:
        read[0] += 1
        if read[0] == 50:
            raise StorageError("what is stored is damaged")
        return original(*given, **named)

    monkeypatch.setattr(envelopes, "span", span)
    reader = Reader(create_app(db), f"/api/v1/agent_instance/{run}/agent_context")
    assert (reader.status, reader.is_whole) == (200, False)
    assert sum(reader.sizes) > 40 * 20_000
    assert "failed" in caplog.text


def many_lists(run: str, number: int) -> list[dict[str, Any]]:
    """Items of a bulk request that list the spans of a run."""
    return [
        {"_type": "agent_spans/list", "idempotency_key": f"list-{n:06}", "agent_instance_id": run,
         "pagination": {"page_size": 100}}
        for n in range(number)
    ]  # fmt: skip


def test_a_page_of_large_spans_is_never_whole_in_memory(db: Database) -> None:
    app, run = create_app(db, tuning=STANDARD._replace(piece_bytes=BYTES)), filled(db, 100)
    Reader(app, "/api/v1/agent_spans", f"agent_instance_id={run}&pagination%5Bpage_size%5D=1")
    for query in (
        f"agent_instance_id={run}",
        f"agent_id={db.agents.list()[0].id}",
        f"agent_instance_id={run}&sorting=-started_at",
    ):
        reader = Reader(app, "/api/v1/agent_spans", f"{query}&pagination%5Bpage_size%5D=100")
        assert (reader.status, reader.is_whole) == (200, True)
        assert sum(reader.sizes) > 100 * BYTES
        assert reader.peak < 20 * BYTES


def test_the_answers_to_many_lists_in_one_request_are_never_together_in_memory(db: Database) -> None:
    app, run = create_app(db), filled(db, 20)
    Reader(app, "/api/v1/bulk", body={"items": many_lists(run, 1)})
    reader = Reader(app, "/api/v1/bulk", body={"items": many_lists(run, 20)})
    assert (reader.status, reader.is_whole) == (200, True)
    assert sum(reader.sizes) > 20 * 20 * BYTES
    assert reader.peak < 100 * BYTES


def test_a_page_has_the_items_that_it_had_at_its_start(db: Database) -> None:
    run = filled(db, 4, 10)
    context = Context(db.storage, piece_bytes=1)
    page = ListSpans({"agent_instance_id": run, "sorting": "-id"})(context)
    first = next(page["summaries"])
    third = db.agent_spans.list(run)[1].id
    db.agent_spans.create(run, "step", "active", {"n": 4})
    db.agent_spans.finish(third)
    rest = [*page["summaries"]]
    assert [one["payload"] for one in (first, *rest)] == [f'{{"n":{n},"text":"{"x" * 10}"}}' for n in (3, 2, 1, 0)]
    assert [one["status"] for one in rest] == ["active", "complete", "active"]
    assert page["pagination"]["item_count"] == 4


@pytest.mark.parametrize("piece_bytes", [1, 5000, 2**20])
def test_a_list_in_pieces_is_the_list(db: Database, piece_bytes: int) -> None:
    run = filled(db, 30, 1000)
    db.agent_spans.create(run, "step", "complete", {"half": "\ud800", "n": 1.0e5, "é": [1, {}]}, {"large": "x" * 5000})
    with (
        Client(create_app(db)) as whole,
        Client(create_app(db, tuning=STANDARD._replace(piece_bytes=piece_bytes))) as pieces,
    ):
        paths = [
            f"/agent_spans?agent_instance_id={run}{more}" for more in ("", "&sorting=-id", "&include_summaries=true")
        ]
        paths += ["/agent", "/agent_instance", "/agent_version", "/agent_schema_version"]
        paths += [f"/agent_spans/{span.id}" for span in db.agent_spans.list(run, page_size=40)]
        for path in paths:
            assert pieces.get(f"/api/v1{path}").json() == whole.get(f"/api/v1{path}").json()
        wrong = {"_type": "agents/show", "idempotency_key": "wrong-000001", "agent_id": "7" + "z" * 31}
        items = [*many_lists(run, 3), wrong, *many_lists(run, 5)[4:]]
        answers = [client.post("/api/v1/bulk", json={"items": items}).json() for client in (whole, pieces)]
        assert answers[0] == answers[1]
        assert [answer["status"] for answer in answers[1]["outputs"].values()] == [*["success"] * 3, "error"]


def test_a_bulk_request_that_writes_answers_with_what_it_saw(db: Database) -> None:
    run = filled(db, 3, 10)
    app = create_app(db, tuning=STANDARD._replace(piece_bytes=1))
    span = db.agent_spans.list(run)[0].id
    finish = {"_type": "agent_spans/finish", "idempotency_key": "finish-01", "agent_span_id": span, "result_payload": 1}
    before, after = many_lists(run, 2)
    with Client(app) as client:
        outputs = client.post("/api/v1/bulk", json={"items": [before, finish, after]}).json()["outputs"]
    lists = [[one["status"] for one in outputs[item["idempotency_key"]]["summaries"]] for item in (before, after)]
    assert lists == [["active"] * 3, ["complete", "active", "active"]]


def test_items_behind_too_large_answers_are_refused_and_those_before_are_stored(db: Database) -> None:
    run = filled(db, 10, 1000)
    items = [
        {"_type": "agent_spans/create", "idempotency_key": f"create-{n:04}", "agent_instance_id": run,
         "schema_name": "s", "status": "active", "payload": {"text": "x" * 1000}}
        for n in range(10)
    ]  # fmt: skip
    with Client(create_app(db, tuning=STANDARD._replace(bulk_answer_bytes=8000))) as client:
        outputs = client.post("/api/v1/bulk", json={"items": items}).json()["outputs"]
        assert [output["status"] for output in outputs.values()] == [*["success"] * (len(outputs) - 1), "error"]
        refused = outputs[items[len(outputs) - 1]["idempotency_key"]]
        assert refused["code"] == "bad_request"
        assert "in another request" in refused["message"]
        stored = {one.id for one in db.agent_spans.list(run, page_size=100)}
        assert len(stored) == 10 + len(outputs) - 1
        again = client.post("/api/v1/bulk", json={"items": items[len(outputs) - 1 :][:4]}).json()["outputs"]
        assert [output["status"] for output in again.values()] == ["success"] * 4
        listed = client.post("/api/v1/bulk", json={"items": [items[0], *many_lists(run, 1)]}).json()["outputs"]
        assert [output["status"] for output in listed.values()] == ["success", "error"]


def test_what_waits_for_slow_clients_is_not_in_memory() -> None:
    async def read(number: int, size: int) -> int:
        """Read the first two chunks of so many responses, and keep them."""
        responses = [await streamed((b"x" * size for _ in range(3)), "text/plain") for _ in range(number)]
        assert all(isinstance(response, StreamingResponse) for response in responses)
        iterators = [response.body_iterator for response in responses if isinstance(response, StreamingResponse)]
        for iterator in iterators:
            assert len(cast(bytes, await anext(aiter(iterator)))) < 10 * CHUNK
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        assert asyncio.run(read(10, 2**22)) < 10 * 20 * CHUNK
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("path", ["/runs/{run}/conversation", "/runs/{run}/spans/{span}", "/runs/{run}/search?q=x"])
def test_what_takes_much_memory_in_the_viewer_is_made_one_at_a_time(
    db: Database, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    run = filled(db, 1, 10)
    under_way, most = [0], [0]

    def noting(original: Any) -> Any:
        def noted(*given: Any, **named: Any) -> Any:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
            time.sleep(0.01)
            try:
                return original(*given, **named)
            finally:
                under_way[0] -= 1

        return noted

    monkeypatch.setattr(data, "detail", noting(data.detail))
    monkeypatch.setattr(data, "matches", noting(data.matches))
    monkeypatch.setattr(conversation, "of_run", noting(conversation.of_run))

    async def ask() -> list[int]:
        transport = httpx.ASGITransport(create_app(db))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            asked = path.format(run=run, span=db.agent_spans.list(run)[0].id)
            return [one.status_code for one in await asyncio.gather(*(client.get(asked) for _ in range(8)))]

    assert asyncio.run(ask()) == [200] * 8
    assert most == [1]
