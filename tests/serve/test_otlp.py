"""OTLP over HTTP: what exporters send becomes runs; each batch counts once, in any order; what is wrong is said."""

import asyncio
import base64
import gzip
import json
import random
import threading
import zlib
from typing import Any

import httpx
import pytest

import agentspan
from agentspan.api.context import Context
from agentspan.otel.receiving import Receiver, import_spans
from agentspan.recording.capture.plain import SentRedaction
from agentspan.serve import create_app
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Storage, new_account
from agentspan.storage.questions import Query, RemoveRuns, SpansOf
from tests.otel.recorded import NAMES, recorded
from tests.otel.requests import body_of, export_request, protobuf_of, requests_of
from tests.serve.asgi import Client
from tests.serve.otlp import JSON, PROTOBUF, post, runs, spans, status_of, string

TIMES = {"inserted_at", "updated_at", "closed_at"}
"""What depends on when a span was stored."""


def decoded(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: json.loads(value)
        if value and name in ("payload", "result_payload", "metadata", "result", "error")
        else value
        for name, value in values.items()
        if name not in TIMES
    }


def look(storage: Storage, *, by_run: bool = True) -> list[str]:
    """All spans, each with its run, by what must not depend on how they came."""
    agents = {agent.id: agent.name for agent in agentspan.open(storage).agents.list()}
    found = []
    for run in runs(storage):
        about = {**decoded(run._asdict()), "agent_id": agents[run.agent_id]}
        for name in ("agent_version_id", "agent_schema_version_id", "closed_by", "duration_ms"):
            del about[name]
        for row in storage.ask(SpansOf(run.id)):
            values = {**decoded(row._asdict()), "agent_id": agents[row.agent_id]}
            if not by_run:
                about = {}
                del values["agent_instance_id"], values["agent_id"]
            # The time in an id is that of the run's first known span.
            found.append(json.dumps([about, values], sort_keys=True).replace(run.id[:16], ""))
    return sorted(found)


def imported(name: str, account: Any) -> MemoryStorage:
    storage = MemoryStorage(account)
    import_spans(Context(storage, redacts=SentRedaction()), *recorded(name))
    return storage


@pytest.mark.full
@pytest.mark.parametrize("encoding", ["protobuf", "json"])
@pytest.mark.parametrize("name", NAMES)
def test_a_recording_makes_the_runs_that_an_import_makes(name: str, encoding: str) -> None:
    account = new_account()
    storage, expected = MemoryStorage(account), imported(name, account)
    with Client(create_app(storage)) as client:
        for _ in range(2):  # each batch is sent again
            for signal, request in requests_of(name):
                body = protobuf_of(request, signal) if encoding == "protobuf" else body_of(request)
                headers = PROTOBUF if encoding == "protobuf" else JSON
                answer = client.post(f"/v1/{signal}", content=body, headers=headers)
                assert (answer.status_code, answer.content) == (200, b"" if encoding == "protobuf" else b"{}")
                assert answer.headers["content-type"] == headers["Content-Type"]
    Receiver(Context(storage)).end_idle(-1.0)
    by_run = name != "smolagents"  # the root of a trace is missing: then it is a run of its own
    assert look(storage, by_run=by_run) == look(expected, by_run=by_run)


@pytest.mark.full
@pytest.mark.parametrize("name", NAMES)
def test_spans_that_come_one_by_one_in_any_order_make_the_same_tree(name: str) -> None:
    account = new_account()
    expected = imported(name, account)
    found, logs = recorded(name)
    for seed in range(2):
        storage, shuffle = MemoryStorage(account), random.Random(seed)
        receiver = Receiver(Context(storage, redacts=SentRedaction()))
        requests: list[tuple[Any, Any]] = [*(([span], ()) for span in found), *(((), [log]) for log in logs)]
        shuffle.shuffle(requests)
        for spans_of, logs_of in requests:
            receiver.store(spans_of, logs_of)
        receiver.end_idle(-1.0)
        assert look(storage, by_run=False) == look(expected, by_run=False)
        assert {run.status for run in runs(storage)} <= {"complete", "failed"}


AGENT, NAME = string("openinference.span.kind", "AGENT"), string("agent.name", "researcher")
CHILD = {"spanId": "00000000000000aa", "parentSpanId": "00000000000000bb", "name": "child"}
ROOT = {"spanId": "00000000000000bb", "name": "run", "attributes": [AGENT, NAME]}


def test_a_child_before_its_parent(client: Client, stored: MemoryStorage) -> None:
    assert post(client, export_request(CHILD)).status_code == 200
    (run,) = runs(stored)
    (child,) = spans(stored)
    assert (run.status, child.parent_span_id is None) == ("active", False)
    assert [agent.name for agent in agentspan.open(stored).agents.list()] == ["agent"], "the program's name, for now"
    assert post(client, export_request(ROOT)).status_code == 200
    (run,) = runs(stored)
    by_name = {row.schema_name: row for row in spans(stored)}
    assert run.status == "complete"
    assert by_name["child"].parent_span_id == by_name["agent"].id
    assert [agent.name for agent in agentspan.open(stored).agents.list()] == ["researcher"]
    assert {row.agent_id for row in by_name.values()} == {run.agent_id}


def test_the_run_of_a_trace_is_found_by_another_server(stored: MemoryStorage) -> None:
    for part in (CHILD, {**CHILD, "spanId": "00000000000000cc"}, ROOT):
        with Client(create_app(stored)) as client:
            assert post(client, export_request(part)).status_code == 200
    (run,) = runs(stored)
    assert (run.status, len(spans(stored))) == ("complete", 3)


def test_a_run_whose_root_never_comes_ends_and_its_late_root_counts(stored: MemoryStorage) -> None:
    receiver = Receiver(Context(stored))
    with Client(create_app(stored)) as client:
        post(client, export_request(CHILD))
        assert receiver.end_idle(60.0) == 0
        assert receiver.end_idle(-1.0) == 1
        (run,) = runs(stored)
        assert (run.status, run.closed_by) == ("complete", "abandoned")
        failed = {**ROOT, "status": {"code": 2, "message": "ValueError: no"}}
        post(client, export_request(failed))
    (run,) = runs(stored)
    assert (run.status, run.closed_by) == ("failed", None)


def test_bare_calls_of_a_process_are_one_run(client: Client, stored: MemoryStorage) -> None:
    chat = string("gen_ai.operation.name", "chat")
    for number in range(1, 21):
        call = {"traceId": f"{number:032x}", "spanId": f"{number:016x}", "name": "chat", "attributes": [chat]}
        assert post(client, export_request(call)).status_code == 200
    (run,) = runs(stored)
    assert len(spans(stored)) == 20
    assert len(stored.ask(Query("otel_trace", {"agent_instance_id": run.id})).rows) == 20


def test_spans_of_a_run_that_was_removed_begin_another(client: Client, stored: MemoryStorage) -> None:
    post(client, export_request(ROOT))
    assert stored.ask(RemoveRuns([run.id for run in runs(stored)], 1.0)) == (1, 1)
    assert post(client, export_request(CHILD)).status_code == 200
    assert [row.schema_name for row in spans(stored)] == ["child"]


@pytest.mark.parametrize("form", ["gzip", "deflate", "raw deflate", "identity", "chunked"])
def test_forms_of_a_body(form: str, client: Client, stored: MemoryStorage) -> None:
    body = protobuf_of(export_request(ROOT))
    raw = zlib.compressobj(wbits=-15)
    packed = {
        "gzip": gzip.compress(body),
        "deflate": zlib.compress(body),
        "raw deflate": raw.compress(body) + raw.flush(),
    }.get(form, body)
    encoding = {"Content-Encoding": form.rpartition(" ")[2]} if form != "chunked" else {}

    async def parts() -> Any:
        for at in range(0, len(packed), 7):
            yield packed[at : at + 7]

    content: Any = parts() if form == "chunked" else packed
    answer = client.post("/v1/traces", content=content, headers={**PROTOBUF, **encoding})
    assert (answer.status_code, answer.content) == (200, b"")
    assert len(spans(stored)) == 1


def test_what_cannot_be_used_is_counted_and_the_rest_is_stored(client: Client, stored: MemoryStorage) -> None:
    request = export_request(ROOT, {**CHILD, "spanId": "0000000000000000"}, CHILD)
    assert post(client, request).json()["partialSuccess"] == {
        "rejectedSpans": "1",
        "errorMessage": "spanId is not of 16 hexadecimal digits",
    }
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    answer = client.post("/v1/traces", content=protobuf_of(request), headers=PROTOBUF)
    partial = ExportTraceServiceResponse.FromString(answer.content).partial_success
    assert (partial.rejected_spans, partial.error_message) == (1, "span_id is not of 8 bytes")
    assert len(spans(stored)) == 2


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"\x0a\xff", {}, 400, 3),
        (b"hello", {}, 400, 3),
        (b"x", {"Content-Encoding": "gzip"}, 400, 3),
        (b"x", {"Content-Encoding": "br"}, 400, 3),
        (gzip.compress(b"\0" * (20 * 2**20 + 1)), {"Content-Encoding": "gzip"}, 413, 8),
        (b"\0" * (20 * 2**20 + 1), {}, 413, 8),
        (b"x", {"Content-Type": "application/grpc"}, 415, 3),
    ],
    ids=["cut", "text", "no gzip", "another coding", "a large one, compressed", "a large one", "grpc"],
)
def test_bad_bodies(
    body: bytes, headers: dict[str, str], status: int, code: int, client: Client, stored: MemoryStorage
) -> None:
    answer = client.post("/v1/traces", content=body, headers={**PROTOBUF, **headers})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/x-protobuf")
    assert status_of(answer.content)[0] == code
    as_json = client.post("/v1/logs", content=b"{", headers=JSON)
    assert (as_json.status_code, as_json.json()["code"]) == (400, 3)
    assert runs(stored) == []


def test_an_exporter_without_http_is_told_the_variable(client: Client) -> None:
    answer = client.post("/v1/traces", content=b"x", headers={"Content-Type": "application/grpc"})
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf" in status_of(answer.content)[1]


def test_an_empty_body_and_metrics_are_accepted(client: Client, stored: MemoryStorage) -> None:
    for path in ("traces", "logs", "metrics"):
        for headers, said in ((PROTOBUF, b""), (JSON, b"{}")):
            answer = client.post(f"/v1/{path}", content=b"", headers=headers)
            assert (answer.status_code, answer.content) == (200, said)
    assert client.post("/v1/metrics", content=b"\x0a\x00", headers=PROTOBUF).status_code == 200
    assert runs(stored) == []


def test_the_token_guards_it(stored: MemoryStorage) -> None:
    token = "s3cret-token-of-mia"
    basic = base64.b64encode(f"pk-lf-1:{token}".encode()).decode()
    with Client(create_app(stored, token=token)) as client:
        assert post(client, export_request(ROOT)).status_code == 401
        assert post(client, export_request(ROOT), Authorization="Basic x").status_code == 401
        wrong = client.post("/v1/traces", content=b"", headers={**PROTOBUF, "Authorization": "Bearer no"})
        assert (wrong.status_code, status_of(wrong.content)[0]) == (401, 16)
        assert runs(stored) == []
        assert post(client, export_request(ROOT), Authorization=f"Bearer {token}").status_code == 200
        assert post(client, export_request(CHILD), authorization=f"Basic {basic}").status_code == 200
        assert client.get("/api/v1/ping", headers={"Authorization": f"Basic {basic}"}).status_code == 401
    assert len(spans(stored)) == 2


def test_busy_and_read_only(tmp_path: Any) -> None:
    import sqlite3

    path = tmp_path / "runs.db"
    agentspan.SQLiteStorage(path).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("begin immediate")
    with Client(create_app(path, wait_s=0.05)) as client:
        answer = post(client, export_request(ROOT))
        assert (answer.status_code, answer.headers["retry-after"], answer.json()["code"]) == (503, "1", 14)
        other.execute("rollback")
        other.close()
        assert post(client, export_request(ROOT)).status_code == 200
    with Client(create_app(path, read_only=True)) as client:
        assert post(client, export_request(CHILD)).status_code == 403


def test_a_request_that_the_end_of_the_server_interrupts_is_sent_again(stored: MemoryStorage) -> None:
    """Exporters send again what is answered with 503, and lose what is answered with 500."""
    entered, ended = threading.Event(), threading.Event()

    def store(*args: Any) -> None:
        entered.set()
        ended.wait(60)

    async def interrupted(app: Any) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            asked = asyncio.create_task(client.post("/v1/traces", content=body_of(export_request(ROOT)), headers=JSON))
            await asyncio.to_thread(entered.wait, 60)
            asked.cancel()
            return await asked

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Receiver, "store", store)
        try:
            answer = asyncio.run(interrupted(create_app(stored)))
        finally:
            ended.set()
    assert (answer.status_code, answer.headers["retry-after"], answer.json()["code"]) == (503, "5", 14)


def test_credentials_are_not_stored(client: Client, stored: MemoryStorage) -> None:
    secret = "sk-ant-api03-" + "a1B2" * 20
    said = string("ANTHROPIC_API_KEY", secret)
    post(client, export_request({**ROOT, "name": f"run {secret}", "attributes": [AGENT, said]}))
    assert secret not in repr(spans(stored)) + repr(runs(stored))
