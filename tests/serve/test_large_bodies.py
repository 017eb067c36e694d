"""Large bodies: others are answered meanwhile, and the answers are those of small ones. Nothing here counts time."""

import asyncio
import json
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import agentspan
from agentspan.api import bulk
from agentspan.database import Database
from agentspan.serve import responses, router
from agentspan.serve.app import create_app
from agentspan.serve.bodies import MAX_PARTS
from agentspan.serve.responses import LARGE, PART, in_thread, parts_of
from tests.serve.asgi import Client
from tests.serve.servers import details

MUCH = "much " * (LARGE // 5)
WAIT_S = 10


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with agentspan.open(tmp_path / "runs.db") as opened:
        yield opened


@pytest.fixture
def run(db: Database) -> str:
    made = db.agent_instances.register("a", agent_version={}, agent_schema_version={})
    db.agent_instances.start(made.id)
    return made.id


def span(run: str, payload: Any, **fields: Any) -> dict[str, Any]:
    return {"agent_instance_id": run, "schema_name": "step", "status": "active", "payload": payload, **fields}


class Stop:
    """A rule of redaction that waits, at each text `stop`, until the others have been answered."""

    def __init__(self) -> None:
        self.reached, self.go_on = threading.Semaphore(0), threading.Event()
        self.waited = False

    def __call__(self, name: str, value: Any) -> Any:
        if value == "stop":
            self.reached.release()
            self.waited = self.go_on.wait(WAIT_S)
        return value


def beside(
    db: Database, rule: Stop, path: str, body: Any, others: Callable[[httpx.AsyncClient], Awaitable[None]]
) -> Any:
    """Send a large request, and others while it is in the middle of its work; return its answer."""

    async def main() -> Any:
        transport = httpx.ASGITransport(create_app(db, redact=rule))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            large = asyncio.create_task(client.post(path, json=body))
            assert await asyncio.to_thread(rule.reached.acquire, timeout=WAIT_S)
            await others(client)
            assert not large.done()
            rule.go_on.set()
            return await large

    return asyncio.run(main())


def test_others_read_and_write_while_a_large_span_is_created(db: Database, run: str) -> None:
    rule = Stop()

    async def others(client: httpx.AsyncClient) -> None:
        assert (await client.get("/api/v1/ping")).status_code == 200
        made = details(await client.post("/api/v1/agent_spans", json={"details": span(run, {"n": 1})}))
        assert details(await client.post(f"/api/v1/agent_spans/{made['id']}/finish", json={}))["status"] == "complete"

    body = {"details": span(run, {"a": MUCH, "b": "stop"})}
    made = details(beside(db, rule, "/api/v1/agent_spans", body, others))
    assert rule.waited
    assert made["payload"] == {"a": MUCH, "b": "stop"}
    assert sorted(each.status for each in db.agent_spans.list(run)) == ["active", "complete"]


def test_others_read_and_write_while_a_large_bulk_runs(db: Database, run: str) -> None:
    rule = Stop()
    items = [
        {
            "_type": "agent_spans/create",
            "idempotency_key": f"key-{number:05}",
            "details": span(run, {"a": MUCH * 3, "b": "stop" if number == 3 else "", "n": number}),
        }
        for number in range(6)
    ]

    async def others(client: httpx.AsyncClient) -> None:
        assert (await client.get("/api/v1/ping")).status_code == 200
        details(await client.post("/api/v1/agent_spans", json={"details": span(run, {"n": "other"})}))

    outputs = beside(db, rule, "/api/v1/bulk", {"items": items}, others).json()["outputs"]
    assert rule.waited
    assert [answer["status"] for answer in outputs.values()] == ["success"] * 6
    assert [each.payload["n"] for each in db.agent_spans.list(run)] == [0, 1, 2, "other", 3, 4, 5]


@pytest.mark.full
def test_a_large_bulk_ends_at_the_first_refusal_and_is_sent_again_without_harm(db: Database, run: str) -> None:
    def item(number: int) -> dict[str, Any]:
        payload = {"a": "x" * 1000, "n": number} if number != 700 else "no object"
        return {
            "_type": "agent_spans/create",
            "idempotency_key": f"key-{number:05}",
            "details": span(run, payload, schema_name="step"),
        }

    with Client(create_app(db)) as client:
        answers = [client.post("/api/v1/bulk", json={"items": [item(n) for n in range(900)]}).json() for _ in range(2)]
        outputs = answers[0]["outputs"]
        assert [answer["status"] for answer in outputs.values()] == ["success"] * 700 + ["error"]
        assert answers[1] == answers[0]
    assert db.agent_spans.list(run).pagination.item_count == 700


@pytest.mark.full
def test_a_large_bulk_that_finds_the_file_busy_in_its_middle_is_sent_again(
    db: Database, run: str, tmp_path: Path
) -> None:
    other = sqlite3.connect(tmp_path / "runs.db", isolation_level=None, check_same_thread=False)

    def lock(name: str, value: Any) -> Any:
        if value == "lock" and not tried:
            tried.append(value)
            other.execute("begin immediate")
        return value

    tried: list[str] = []
    items = [
        {
            "_type": "agent_spans/create",
            "idempotency_key": f"key-{number:05}",
            "details": span(run, {"a": MUCH * 3, "b": "lock" if number == 3 else ""}),
        }
        for number in range(6)
    ]
    with Client(create_app(db, redact=lock)) as client:
        busy = client.post("/api/v1/bulk", json={"items": items})
        assert (busy.status_code, "retry-after" in busy.headers) == (503, True)
        assert db.agent_spans.list(run).pagination.item_count == 3
        other.execute("rollback")
        again = client.post("/api/v1/bulk", json={"items": items}).json()["outputs"]
        assert [answer["status"] for answer in again.values()] == ["success"] * 6
    assert db.agent_spans.list(run).pagination.item_count == 6
    other.close()


def test_the_parts_of_a_large_bulk_have_few_bytes_and_the_same_order() -> None:
    sizes = [10, PART * 3, 20, PART - 200, 300, 10, PART // 2, PART // 2, 5]
    plan = bulk.plan(
        [
            {"_type": "agent_spans/create", "idempotency_key": f"key-{n:05}", "details": {"payload": {"a": "x" * size}}}
            for n, size in enumerate(sizes)
        ]
    )
    parts = [*parts_of(plan)]
    assert [item for part in parts for item in part] == plan
    for part in parts:
        size = sum(len(json.dumps(each.fields, separators=(",", ":"))) for each in part)
        assert size <= PART or len(part) == 1
    assert len(parts) < len(sizes)


SPAN = b'"agent_instance_id": "RUN", "schema_name": "s", "status": "active"'
WRONG: list[bytes] = [
    b'{"details": {"schema_name": 7, "status": "active"}, "pad": PAD}',
    b'{"details": {"agent_instance_id": "RUN", "schema_name": "s", "status": "nonsense", "payload": {}}, "pad": PAD}',
    b'{"details": {' + SPAN + b', "payload": []}, "pad": PAD}',
    b'{"details": {"agent_instance_id": "no", "schema_name": "s", "status": "active", "payload": {}}, "pad": PAD}',
    b'{"details": {"agent_instance_id": "RUN", "status": "active", "schema_name": "\\ud800"}, "pad": PAD}',
    b'{"details": {' + SPAN + b', "payload": {"n": NaN}}, "pad": PAD}',
    b'{"pad": PAD}',
    b"[PAD]",
    b"PAD",
    b'{"details": PAD',
    b'{"details": PAD}\xff',
    b'{"pad": PAD, "details": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
]


def test_a_large_body_that_is_wrong_is_answered_as_a_small_one(db: Database, run: str) -> None:
    with Client(create_app(db)) as client:

        def send(path: str, body: bytes, pad: str) -> tuple[int, Any]:
            content = body.replace(b"RUN", run.encode()).replace(b"PAD", json.dumps(pad).encode())
            response = client.post(f"/api/v1{path}", content=content, headers={"Content-Type": "application/json"})
            return response.status_code, response.json()

        for path in ("/agent_spans", "/bulk"):
            for body in WRONG:
                small, large = send(path, body, "x"), send(path, body, MUCH + MUCH)
                assert small == large, body[:200]
                assert small[0] in (400, 404, 422), body[:200]


def test_half_a_character_and_an_empty_route_are_taken(db: Database, run: str) -> None:
    with Client(create_app(db)) as client:
        body = json.dumps({"details": span(run, {"a": MUCH, "b": "\ud800"})}).encode()
        response = client.post("/api/v1/agent_spans", content=body, headers={"Content-Type": "application/json"})
        made = details(response)
        finished = client.post(f"/api/v1/agent_spans/{made['id']}/finish", json={"pad": MUCH})
        assert details(finished)["status"] == "complete"


def test_a_large_span_is_read_in_a_few_threads_and_a_small_one_is_not(db: Database, run: str) -> None:
    spans = [db.agent_spans.create(run, "step", "active", {"a": text}) for text in (MUCH, MUCH[: LARGE - 1000])]
    large, small = (f"/api/v1/agent_spans/{each.id}" for each in spans)
    go_on = threading.Event()

    async def main() -> None:
        transport = httpx.ASGITransport(create_app(db))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            for _ in range(responses.THREADS):
                responses._threads().submit(go_on.wait, WAIT_S)
            waits = asyncio.create_task(client.get(large))
            await asyncio.sleep(0)  # it begins before the other
            assert details(await client.get(small))["payload"] == {"a": MUCH[: LARGE - 1000]}
            assert not waits.done()
            go_on.set()
            assert details(await waits)["payload"] == {"a": MUCH}

    asyncio.run(main())


def test_only_large_bodies_take_a_thread(db: Database, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Any] = []
    original = in_thread

    async def counted(work: Any, *args: Any) -> Any:
        taken.append(work)
        return await original(work, *args)

    monkeypatch.setattr(router, "in_thread", counted)
    with Client(create_app(db)) as client:
        details(client.post("/api/v1/agent_spans", json={"details": span(run, {"a": MUCH})}))
        assert len(taken) == 2  # to be read, and to be carried out
        details(client.post("/api/v1/agent_spans", json={"details": span(run, {"a": MUCH[: LARGE - 1000]})}))
        assert len(taken) == 2


def with_details(run: str, payload: bytes) -> bytes:
    return b'{"details": {%s, "payload": %s}}' % (SPAN.replace(b"RUN", run.encode()), payload)


@pytest.mark.full
@pytest.mark.parametrize(
    ("payload", "status"),
    [
        (b'{"a": 1%s}' % b"".join(b',"k%d":1' % number for number in range(MAX_PARTS)), 413),
        (b'{"a": [%s0]}' % (b'"x",' * MAX_PARTS), 413),
        (b'{"a": [%s0]}' % (b"{}," * MAX_PARTS), 413),
        (b'{"a": [%s0]}' % (b"[]," * MAX_PARTS), 413),
        (b'{"a": "\\\\", "b": [%s0]}' % (b'"\\"",' * MAX_PARTS), 413),
        (b'{"a": [%s0]}' % (b"0," * MAX_PARTS * 3), 200),
        (b'{"a": "%s"}' % (b'\\"{[' * MAX_PARTS), 200),
        (b'{"a": "%s"}' % (b"\\\\{[" * MAX_PARTS), 200),
        (
            b'{"a": "%s"%s}' % (b"{[" * MAX_PARTS, b"".join(b',"k%d":1' % number for number in range(MAX_PARTS - 100))),
            200,
        ),
    ],
    ids=["members", "texts", "objects", "lists", "texts with quotes", "numbers", "quotes", "backslashes", "nearly"],
)
def test_a_body_has_a_bounded_number_of_parts(db: Database, run: str, payload: bytes, status: int) -> None:
    with Client(create_app(db)) as client:
        headers = {"Content-Type": "application/json"}
        answer = client.post("/api/v1/agent_spans", content=with_details(run, payload), headers=headers)
    assert answer.status_code == status
    if status == 413:
        assert answer.json()["code"] == "bad_request"
        assert "300,000 texts, objects and lists" in answer.json()["message"]


def test_a_large_body_that_is_nested_too_deep_is_named_so(db: Database, run: str) -> None:
    body = with_details(run, b'{"pad": "%s", "a": %s}' % (b"x" * LARGE, b"[" * 100_000 + b"]" * 100_000))
    with Client(create_app(db)) as client:
        answer = client.post("/api/v1/agent_spans", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["message"]) == (400, "the body is nested too deep")
