"""The API by raw HTTP: every error, every limit, and what a request may leave out."""

import json
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

import agentspan
from agentspan import ids
from tests.serve.servers import Api, Server, details, refusal, serving

NOBODY = "013xrzp12g3nqk8n4evtrcj59k8dhn3t"
JSON = {"Content-Type": "application/json"}
MAX_BODY = 10 * 2**20
TOKEN = "s3cret-token"


def raw(server: Server, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes as they are; return status, headers and body."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(request)
        with connection.makefile("rb") as answer:
            status = int(answer.readline().split()[1])
            headers = {}
            while line := answer.readline().strip():
                name, _, value = line.decode().partition(":")
                headers[name.lower()] = value.strip()
            return status, headers, answer.read(int(headers.get("content-length", "0")))


@contextmanager
def locked(db: Path) -> Iterator[None]:
    """Hold the write lock, as another process would."""
    with closing(sqlite3.connect(db, isolation_level=None)) as other:
        other.execute("begin immediate")
        try:
            yield
        finally:
            other.execute("rollback")


# 400, 404, 405, 413, 415


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"text"', b"null", b"\xff\xfe", b"1" * 5000, b"{'a': 1}"])
@pytest.mark.parametrize("path", ["/agent_spans", "/bulk", "/agent"])
def test_a_body_that_is_no_json_object_is_a_bad_request(api: Api, path: str, content: bytes) -> None:
    assert refusal(api.client.post(path, content=content, headers=JSON)) == (400, "bad_request")


@pytest.mark.parametrize("opening", ["[", '{"a":'])
@pytest.mark.parametrize("levels", [501, 945, 20_000, 200_000])
def test_a_body_that_is_nested_too_deep_is_a_bad_request(api: Api, agent: str, opening: str, levels: int) -> None:
    deep = opening * levels + "1" + ("]" if opening == "[" else "}") * levels
    run = api.instance(agent)
    span = api.span(run)
    for path, content in (
        (f"/agent_spans/{span}/finish", f'{{"result_payload":{{"a":{deep}}}}}'),
        ("/bulk", f'{{"items":{deep}}}'),
        ("/agent_spans", deep),
    ):
        response = api.client.post(path, content=content, headers=JSON)
        assert refusal(response)[0] in (400, 413, 422), response.text
    assert details(api.finish(span))["result_payload"] is None


@pytest.mark.parametrize("levels", [501, 945])
def test_quality_nested_too_deep_is_refused_and_its_instance_stays_readable(api: Api, agent: str, levels: int) -> None:
    run = api.instance(agent, agent_schema_version={"quality_schemas": [{"name": "verdict", "schema": {}}]})
    deep = '{"a":' * levels + "1" + "}" * levels
    content = f'{{"name":"verdict","payload":{deep}}}'
    response = api.client.post(f"/agent_instance/{run}/record_quality", content=content, headers=JSON)
    assert refusal(response) == (422, "invalid_value")
    assert details(api.get(f"/agent_instance/{run}"))["quality_payloads"] == {}


def test_a_payload_nested_five_hundred_levels_deep_can_be_read_again(api: Api, agent: str) -> None:
    run = api.instance(agent)
    payload: dict[str, Any] = {}
    for _ in range(499):
        payload = {"a": payload}
    span = api.span(run, payload=payload)
    assert details(api.get(f"/agent_spans/{span}"))["payload"] == payload
    assert details(api.finish(span, result_payload=payload))["result_payload"] == payload
    assert api.get("/agent_spans", agent_instance_id=run).json()["summaries"][0]["payload"] == payload
    assert (
        api.get(f"/agent_instance/{run}/agent_context").json()["agent_context"]["body"]["spans"][0]["payload"]
        == payload
    )


@pytest.mark.parametrize(
    "query",
    [
        "pagination[page_size]=0", "pagination[page_size]=101", "pagination[page_size]=x", "pagination[offset]=-1",
        "pagination[offset]=99999999999999999999", "include_summaries=perhaps",
    ],
)  # fmt: skip
def test_a_query_parameter_without_the_right_form_is_a_bad_request(api: Api, agent: str, query: str) -> None:
    response = api.client.get(f"/agent_spans?agent_instance_id={api.instance(agent)}&{query}")
    assert refusal(response) == (400, "bad_request")
    assert query.partition("=")[0] in response.json()["message"]


def test_a_query_parameter_that_is_missing_is_required(api: Api) -> None:
    assert refusal(api.get("/agent_spans")) == (422, "required_value")
    assert refusal(api.get("/agent/show")) == (422, "required_value")


@pytest.mark.parametrize("path", ["/nothing", "/agent_spans/no-pfid", f"/agent_spans/{NOBODY.upper()}", "/agent/%00"])
def test_a_path_that_is_not_there_is_not_found(api: Api, path: str) -> None:
    assert refusal(api.get(path)) == (404, "not_found")


@pytest.mark.parametrize("kind", ["agent", "agent_instance", "agent_spans", "agent_version", "agent_schema_version"])
def test_an_id_that_names_nothing_is_not_found(api: Api, kind: str) -> None:
    assert refusal(api.get(f"/{kind}/{NOBODY}")) == (404, "not_found")


@pytest.mark.parametrize("action", ["start", "finish"])
@pytest.mark.parametrize("kind", ["agent_instance", "agent_spans"])
def test_nothing_that_is_not_there_starts_or_finishes(api: Api, kind: str, action: str) -> None:
    assert refusal(api.post(f"/{kind}/{NOBODY}/{action}")) == (404, "not_found")


@pytest.mark.parametrize("path", ["/ping", "/agent", "/nothing", f"/agent/{NOBODY}", "/bulk"])
@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
def test_head_and_options_leave_the_connection_as_they_found_it(api: Api, method: str, path: str) -> None:
    response = api.client.request(method, path)
    assert (response.status_code, response.content == b"") in (
        (200, True),
        (204, True),
        (404, method == "HEAD"),
        (405, True),
    )
    assert api.get("/ping").status_code == 200


def test_a_body_over_the_limit_is_refused_by_its_length_before_it_is_sent(server: Server) -> None:
    head = "POST /api/v1/agent_spans HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    status, _, body = raw(server, f"{head}Content-Length: {MAX_BODY + 1}\r\n\r\n".encode())
    assert (status, json.loads(body)["code"]) == (413, "bad_request")
    status, _, body = raw(
        server, f"{head}Content-Length: {'0' * 5000}2\r\n\r\n{{}}".encode()
    )  # Python reads no such number
    assert (status, json.loads(body)["code"]) == (422, "validation_errors")


def test_a_body_over_the_limit_is_refused_when_it_comes_in_chunks(api: Api) -> None:
    chunks = (b"x" * 2**20 for _ in range(11))
    response = api.client.post("/agent_spans", content=chunks, headers=JSON)
    assert refusal(response) == (413, "bad_request")
    assert api.get("/ping").status_code == 200


def test_a_body_just_under_the_limit_is_taken_whole(api: Api, agent: str) -> None:
    run = api.instance(agent)
    text = "x" * (MAX_BODY - 500)
    assert details(api.create(run, payload={"text": text}))["payload"]["text"] == text


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json"]
)
@pytest.mark.parametrize("path", ["/agent", "/pfid/generate", f"/agent_spans/{NOBODY}/finish"])
def test_what_a_form_of_a_foreign_page_can_post_is_refused(server: Server, path: str, kind: str | None) -> None:
    with server.client() as client:
        for content, page in ((b"", {"Origin": "https://evil.example"}), (b'{"details":{"name":"a"}}', {})):
            headers = page if kind is None else {"Content-Type": kind, **page}
            assert refusal(client.post(path, content=content, headers=headers)) == (415, "bad_request")


def test_the_type_of_a_body_may_name_its_charset(api: Api, agent: str) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert (
        api.client.post("/agent", content=json.dumps({"details": {"name": agent}}), headers=headers).status_code == 200
    )


# 401, 403


def test_without_a_token_nothing_below_api_is_answered(guarded: Server) -> None:
    with guarded.client() as client:
        for path in ("/ping", "/agent", "/nothing", f"/agent_spans/{NOBODY}"):
            assert refusal(client.get(path)) == (401, "not_authenticated")
        for value in ("Bearer", "Basic s3cret-token", TOKEN):
            assert refusal(client.get("/ping", headers={"Authorization": value})) == (401, "not_authenticated")
        assert refusal(client.post("/bulk", content=b"{", headers=JSON)) == (401, "not_authenticated")


@pytest.mark.parametrize("given", ["wrong", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "\u00e9\u00e9", "x" * 5000])
def test_a_wrong_token_is_refused(guarded: Server, given: str) -> None:
    with guarded.client() as client:
        response = client.get("/ping", headers={b"Authorization": b"Bearer " + given.encode()})
        assert refusal(response) == (401, "bad_authtoken")
        assert TOKEN not in response.text


def test_the_right_token_opens_and_its_scheme_is_read_in_any_case(guarded: Server) -> None:
    with guarded.client() as client:
        for scheme in ("Bearer", "bearer", "BEARER"):
            assert client.get("/ping", headers={"Authorization": f"{scheme} {TOKEN}"}).status_code == 200


def test_a_token_is_seen_nowhere(guarded: Server) -> None:
    assert "a token is required" in guarded.said
    shown = subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(guarded.process.pid)], capture_output=True, text=True)
    assert "agentspan serve" in shown.stdout
    assert TOKEN not in shown.stdout + guarded.said + guarded.stderr


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for other machines and one other origin, with a token that a file holds."""
    folder = tmp_path_factory.mktemp("public")
    (folder / "token").write_text("from-that-file\n")
    args = ("--token-file", str(folder / "token"), "--host", "0.0.0.0", "--cors-origin", "https://app.example")
    with serving(folder / "runs.db", *args, AGENTSPAN_TOKEN="from-elsewhere") as running:
        running.url = f"http://127.0.0.1:{running.port}"
        yield running


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with strict schemas and another name."""
    db = tmp_path_factory.mktemp("strict") / "runs.db"
    with serving(db, "--strict-schemas", "--allowed-host", "Recorder.example") as running:
        yield running


def test_a_token_can_come_from_a_file(public: Server) -> None:
    with public.client("from-that-file") as client:
        assert client.get("/ping").status_code == 200
        assert refusal(client.get("/ping", headers={"Authorization": "Bearer from-elsewhere"})) == (
            401,
            "bad_authtoken",
        )


def refused_to_start(tmp_path: Path, *args: str, **env: str) -> str:
    """What a server says that does not start."""
    with pytest.raises(AssertionError) as said, serving(tmp_path / "runs.db", *args, **env):
        pass
    assert "Traceback" not in str(said.value)
    assert not (tmp_path / "runs.db").exists()
    return str(said.value)


@pytest.mark.full
@pytest.mark.parametrize("content", ["", "\n", "two words", "x" * 5000])
def test_a_token_file_that_holds_no_token_starts_nothing(tmp_path: Path, content: str) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    said = refused_to_start(tmp_path, "--token-file", str(file))
    assert "must hold one token" in said
    assert content.strip() == "" or content not in said


@pytest.mark.full
def test_a_token_file_that_cannot_be_read_starts_nothing(tmp_path: Path) -> None:
    assert "missing cannot be read" in refused_to_start(tmp_path, "--token-file", str(tmp_path / "missing"))


@pytest.mark.full
def test_a_token_that_no_client_could_send_starts_nothing(tmp_path: Path) -> None:
    assert "AGENTSPAN_TOKEN" in refused_to_start(tmp_path, AGENTSPAN_TOKEN="two words")


@pytest.mark.full
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.invalid"])
def test_other_machines_are_not_let_in_without_a_token(tmp_path: Path, host: str) -> None:
    assert "a token is needed" in refused_to_start(tmp_path, "--host", host)


def test_other_machines_are_let_in_with_a_token_by_any_name(public: Server) -> None:
    with public.client() as client:
        headers = {"Host": "recorder.example:80", "Authorization": "Bearer from-that-file"}
        assert client.get("/ping", headers=headers).status_code == 200
        assert refusal(client.get("/ping")) == (401, "not_authenticated")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.", "", "[::2]", "[::1].evil",
        "[::1]evil", "[::1", "::1", "[::1]:80.evil", "localhost:80.evil", "localhost:80:80", "evil@localhost",
        "localhost@evil", "localhost/evil", "localhost:x", "[localhost]", "local host",
    ],
)  # fmt: skip
def test_a_foreign_host_is_not_permitted(api: Api, server: Server, host: str) -> None:
    status, _, body = raw(server, f"GET /api/v1/ping HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert (status, json.loads(body)["code"]) == (403, "not_permitted")


@pytest.mark.parametrize("hosts", [["localhost", "evil"], ["evil", "localhost"], ["localhost", "localhost"]])
@pytest.mark.parametrize("path", ["/api/v1/ping", "/", "/v1/traces"])
def test_two_hosts_are_refused(api: Api, server: Server, hosts: list[str], path: str) -> None:
    lines = "".join(f"Host: {host}\r\n" for host in hosts)
    assert raw(server, f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())[0] == 400


# From Python 3.12 on, what is nested 2,000 levels deep is read, and refused as a payload of more than 500.
@pytest.mark.parametrize("depth", [*([2_000] if sys.version_info < (3, 12) else []), 100_000])
@pytest.mark.parametrize("path", ["/agent_spans", "/bulk"])
def test_json_that_is_nested_too_deep_is_named_so(api: Api, path: str, depth: int) -> None:
    body = b'{"items": [], "details": ' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"
    answer = api.client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert refusal(answer) == (400, "bad_request")
    assert answer.json()["message"] == "the body is nested too deep"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8484", "[::1]:8484", "[::1]"])
def test_this_machine_is_known_by_its_own_names(server: Server, host: str) -> None:
    assert raw(server, f"GET /api/v1/ping HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())[0] == 200


def test_another_name_is_allowed_when_it_is_named(strict: Server) -> None:
    with strict.client() as client:
        assert client.get("/ping", headers={"Host": "recorder.example"}).status_code == 200
        assert client.get("/ping").status_code == 200
        assert refusal(client.get("/ping", headers={"Host": "other.example"})) == (403, "not_permitted")


def test_a_server_that_only_reads_permits_no_write(tmp_path: Path) -> None:
    db = tmp_path / "runs.db"
    with agentspan.open(db) as writable:
        run = writable.agent_instances.register("a").id
        writable.agent_instances.start(run)
        span = writable.agent_spans.create(run, "step", "active").id
    with serving(db, "--read-only") as server, server.client() as client:
        api = Api(client)
        assert details(api.get(f"/agent_spans/{span}"))["status"] == "active"
        for response in (
            api.create(run), api.finish(span), api.post("/agent", {"details": {"name": "a"}}),
            api.post("/agent_instance/register", {"agent_id": "b"}),
            api.post(f"/agent_instance/{run}/terminate", {"reason": "r"}),
            api.post("/bulk", {"items": [item("agent_spans/finish", agent_span_id=span)]}),
        ):  # fmt: skip
            assert refusal(response) == (403, "not_permitted")
        read = api.post("/bulk", {"items": [item("agents/list"), item("agent_spans/list", agent_instance_id=run)]})
        assert [output["status"] for output in read.json()["outputs"].values()] == ["success"] * 2
        assert details(api.post("/pfid/generate"))["pfids"]


def test_pages_of_other_origins_are_let_in_only_when_they_are_named(api: Api, public: Server) -> None:
    asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    for response in (api.client.options("/agent", headers=asked), api.client.get("/ping", headers=asked)):
        assert "access-control-allow-origin" not in response.headers
    with public.client() as client:
        wanted = {**asked, "Access-Control-Request-Headers": "authorization, content-type"}
        preflight = client.options("/agent", headers=wanted)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://app.example"
        assert "authorization" in preflight.headers["access-control-allow-headers"]
        refused = client.get("/ping", headers=asked)
        assert refusal(refused) == (401, "not_authenticated")
        assert refused.headers["access-control-allow-origin"] == "https://app.example"
        other = client.options("/agent", headers={**asked, "Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


def test_no_page_loads_anything_from_elsewhere(server: Server) -> None:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for path in ("/docs", "/redoc"):
            assert refusal(client.get(path)) == (404, "not_found")
        assert client.get("/openapi.json").json()["openapi"].startswith("3.")
        assert "server" not in client.get("/openapi.json").headers


# 409, 422


def test_the_state_machine_is_kept(api: Api, agent: str) -> None:
    run = api.instance(agent)
    pending, active = api.span(run, "pending"), api.span(run)
    assert refusal(api.finish(active, status="cancelled")) == (409, "invalid_action")
    assert refusal(api.finish(pending, status="complete")) == (409, "invalid_action")
    assert refusal(api.finish(pending)) == (409, "invalid_action")
    assert refusal(api.post(f"/agent_spans/{active}/start")) == (409, "invalid_action")
    assert details(api.get(f"/agent_spans/{pending}"))["status"] == "pending"
    assert details(api.post(f"/agent_spans/{pending}/start"))["status"] == "active"
    at = "2026-01-02T03:04:05Z"
    cancelled = details(api.finish(api.span(run, "pending"), status="cancelled", timestamp=at))
    assert (cancelled["started_at"], cancelled["finished_at"]) == ("2026-01-02T03:04:05.000000Z",) * 2
    done = details(api.finish(active))
    for status in ("complete", "failed", "cancelled"):
        assert refusal(api.finish(active, status=status)) == (409, "invalid_action")
    assert details(api.get(f"/agent_spans/{active}")) == done
    assert refusal(api.post(f"/agent_instance/{run}/start")) == (409, "invalid_action")
    assert refusal(api.post(f"/agent_instance/{run}/finish", {"status": "cancelled"})) == (409, "invalid_action")


def test_a_key_that_was_used_for_another_request_is_refused(api: Api, agent: str) -> None:
    span, other = api.span(run := api.instance(agent)), api.span(run)
    first = details(api.finish(span, result_payload={"n": 1}, idempotency_key=agent))
    assert details(api.finish(span, result_payload={"n": 1}, status="complete", idempotency_key=agent)) == first
    for fields in ({"result_payload": {"n": 2}}, {"status": "failed"}, {}):
        assert refusal(api.finish(span, **fields, idempotency_key=agent)) == (409, "idempotency_key_already_used")
    assert (
        refusal(api.finish(other, result_payload={"n": 1}, idempotency_key=agent))[1] == "idempotency_key_already_used"
    )
    assert details(api.create(run, idempotency_key=agent))["id"]  # another operation: the key is free there


def test_the_key_of_a_span_may_stand_in_its_details_or_on_top(api: Api, agent: str) -> None:
    run = api.instance(agent)
    span = {"agent_instance_id": run, "schema_name": "step", "status": "active"}
    inside = details(api.post("/agent_spans", {"details": {**span, "idempotency_key": agent}}))
    on_top = details(api.post("/agent_spans", {"details": span, "idempotency_key": agent}))
    both = details(api.post("/agent_spans", {"details": {**span, "idempotency_key": None}, "idempotency_key": agent}))
    assert inside == on_top == both
    assert details(api.get(f"/agent_instance/{run}"))["span_counts"]["total"] == 1


@pytest.mark.parametrize("key", ["", "x" * 65, 5, ["a"], "two\nlines", "\ud800"])
def test_a_key_that_is_none_is_refused(api: Api, agent: str, key: Any) -> None:
    run = api.instance(agent)
    assert refusal(api.create(run, idempotency_key=key))[0] == 422
    assert details(api.get(f"/agent_instance/{run}"))["span_counts"]["total"] == 0


def test_fields_that_do_not_parse_are_named_without_their_values(api: Api, agent: str) -> None:
    span = {
        "agent_instance_id": 5,
        "schema_name": "step",
        "status": "s3cret",
        "payload": ["s3cret"],
        "id": {"a": "s3cret"},
    }
    response = api.post("/agent_spans", {"details": span})
    assert refusal(response) == (422, "validation_errors")
    errors = response.json()["errors"]
    assert {name: error["code"] for name, error in errors.items()} == {
        f"details.{name}": "invalid_value" for name in ("agent_instance_id", "status", "payload", "id")
    }
    assert "s3cret" not in response.text
    missing = api.post("/agent_spans", {"details": {"status": "active"}}).json()["errors"]
    assert missing["details.schema_name"]["code"] == "required_value"
    assert missing["details.agent_instance_id"]["code"] == "required_value"
    assert api.post("/agent_spans", {}).json()["errors"]["details"]["code"] == "required_value"


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("invalid_value", {"schema_name": ""}),
    ("invalid_value", {"schema_name": "x" * 201}),
    ("invalid_value", {"id": "mine"}),
    ("invalid_value", {"started_at": "yesterday"}),
    ("invalid_value", {"started_at": "2026-01-01T00:00:00"}),
    ("invalid_value", {"started_at": "2026-02-30T00:00:00Z"}),
    ("invalid_value", {"started_at": "0001-01-01T00:00:00+23:59"}),
    ("invalid_value", {"started_at": "9999-12-31T23:59:59-23:59"}),
    ("invalid_value", {"finished_at": "2026-01-01T00:00:00Z"}),
    ("invalid_value", {"result_payload": {}}),
    ("invalid_value", {"payload": {"n": float("nan")}}),
    ("invalid_value", {"payload": {"n": [float("-inf")]}}),
    ("not_found", {"parent_span_id": NOBODY}),
    ("not_found", {"parent_span_id": "9b2f0c1e-7d1c-4c55-8a55-3b1a7c7f2f11"}),
    ("not_found", {"agent_instance_id": NOBODY}),
]


@pytest.mark.parametrize(("code", "fields"), WRONG)
def test_a_span_with_a_wrong_value_is_refused(api: Api, agent: str, code: str, fields: dict[str, Any]) -> None:
    run = api.instance(agent)
    assert refusal(api.create(run, **fields)) == (404 if code == "not_found" else 422, code)
    assert details(api.get(f"/agent_instance/{run}"))["span_counts"]["total"] == 0


def test_an_id_of_another_kind_and_one_that_is_used_are_refused(api: Api, agent: str) -> None:
    run = api.instance(agent)
    span = api.span(run)
    for response in (api.finish(run), api.create(span), api.create(run, parent_span_id=run), api.get(f"/agent/{run}")):
        assert refusal(response) == (422, "unexpected_ref_type")
    assert refusal(api.create(run, id=span)) == (422, "invalid_value")
    assert refusal(api.create(run, id=run)) == (422, "invalid_value")


def test_a_finish_long_before_the_start_is_refused_and_one_a_little_before_is_the_start(api: Api, agent: str) -> None:
    span = api.span(api.instance(agent), started_at="2026-01-01T12:00:00Z")
    assert refusal(api.finish(span, timestamp="2026-01-01T11:58:59Z")) == (422, "invalid_value")
    assert details(api.finish(span, timestamp="2026-01-01T11:59:30Z"))["finished_at"] == "2026-01-01T12:00:00.000000Z"


def test_values_that_must_be_there_are_missed(api: Api, agent: str) -> None:
    run = api.instance(agent)
    assert refusal(api.post(f"/agent_instance/{run}/terminate", {"reason": ""})) == (422, "required_value")
    assert refusal(api.post(f"/agent_instance/{run}/terminate", {})) == (422, "validation_errors")
    assert refusal(api.post("/agent", {"details": {"name": ""}})) == (422, "required_value")
    assert refusal(api.post("/bulk", {})) == (422, "invalid_value")


def test_strict_schemas_refuse_what_does_not_match(api: Api, agent: str, strict: Server) -> None:
    schema = {"span_schemas": {"step": {"type": "object", "required": ["n"]}}}
    assert api.create(api.instance(agent, agent_schema_version=schema)).status_code == 200
    with strict.client() as client:
        strictly = Api(client)
        run = strictly.instance(agent, agent_schema_version=schema)
        assert refusal(strictly.create(run)) == (422, "validation_errors")
        assert refusal(strictly.create(run, strict_schemas=False)) == (422, "validation_errors")  # the server decides
        assert details(strictly.create(run, payload={"n": 1}))["payload"] == {"n": 1}


# 500, 503


def test_a_busy_database_is_worth_another_try_and_reading_goes_on(api: Api, server: Server, agent: str) -> None:
    run = api.instance(agent)
    with locked(server.db):
        began = time.monotonic()
        response = api.create(run)
        assert refusal(response) == (503, "unknown")
        assert response.headers["retry-after"] == "1"
        assert time.monotonic() - began > 1.5  # it has waited; how long a busy machine takes more is not its fault
        assert str(server.db) not in response.text
        assert details(api.get(f"/agent_instance/{run}"))["span_counts"]["total"] == 0
    assert api.create(run).status_code == 200


@pytest.mark.full
def test_a_fault_of_the_server_says_nothing_of_its_inside(tmp_path: Path) -> None:
    with serving(tmp_path / "runs.db") as server, server.client() as client:
        api = Api(client)
        run = api.instance("a")
        with closing(sqlite3.connect(server.db)) as other:
            other.execute("drop table agent_spans")
            other.commit()
        response = api.create(run, payload={"text": "s3cret"})
        assert refusal(response) == (500, "unexpected")
        for inside in ("s3cret", "agent_spans", "Traceback", "sqlite", str(tmp_path), ".py"):
            assert inside not in response.text
        assert api.get("/ping").status_code == 200


# What is taken


def test_unknown_fields_are_ignored(api: Api, agent: str) -> None:
    run = api.instance(agent, surprise=[1], agent_version={"name": "1", "surprise": {}})
    assert "surprise" not in details(api.create(run, surprise=1))
    span = api.span(run)
    assert details(api.finish(span, surprise={"a": 1}))["status"] == "complete"


def test_bodies_may_be_empty_where_nothing_is_required(api: Api, agent: str) -> None:
    run = details(api.post("/agent_instance/register", {}))["id"]
    bodies: tuple[dict[str, Any] | None, ...] = (None, {})
    for body in bodies:
        span = api.span(run, "pending")
        assert details(api.post(f"/agent_spans/{span}/start", body))["status"] == "active"
        assert details(api.post(f"/agent_spans/{span}/finish", body))["status"] == "complete"
    assert details(api.post(f"/agent_instance/{run}/start"))["status"] == "active"
    assert details(api.post(f"/agent_instance/{run}/finish"))["status"] == "complete"
    made = details(api.post("/agent", {"details": {"name": agent}}))["id"]
    assert details(api.post(f"/agent/{made}/retire"))["status"] == "retired"
    assert details(api.post(f"/agent/{made}/reinstate"))["status"] == "pending"
    assert len(details(api.post("/pfid/generate"))["pfids"]) == 1


def test_a_lone_surrogate_is_kept(api: Api, agent: str) -> None:
    run = api.instance(agent)
    span = api.span(run, payload={"text": "a\ud800b"})
    assert details(api.get(f"/agent_spans/{span}"))["payload"] == {"text": "a\ud800b"}
    assert details(api.finish(span, result_payload={"text": "\udfff"}))["result_payload"] == {"text": "\udfff"}
    assert api.get("/agent_spans", agent_instance_id=run).json()["summaries"][0]["payload"] == {"text": "a\ud800b"}
    assert api.get(f"/agent_instance/{run}/agent_context").status_code == 200
    assert refusal(api.post("/agent", {"details": {"name": "\ud800"}}))[0] == 422


def test_a_nul_is_refused_but_in_payloads(api: Api, agent: str) -> None:
    bad = "a\x00b"
    run = api.instance(agent)
    for path, body in (
        ("/agent", {"details": {"name": bad}}),
        ("/agent_instance/register", {"agent_id": bad, "agent_version": {"name": "1"}}),
        ("/agent_instance/register", {"agent_id": "a", "agent_version": {"name": bad}}),
        (f"/agent_instance/{run}/terminate", {"reason": bad}),
        ("/agent_spans", {"details": {**SPAN, "agent_instance_id": run, "status": "active", "schema_name": bad}}),
        ("/agent_spans", {"details": {**SPAN, "agent_instance_id": run, "status": "active"}, "idempotency_key": bad}),
    ):
        assert refusal(api.post(path, body)) == (422, "invalid_value"), (path, body)
    answer = api.post("/bulk", {"items": [item("agents/create", name=bad)]}).json()
    (output,) = answer["outputs"].values()
    assert output["code"] == "invalid_value"
    assert details(api.get(f"/agent_spans/{api.span(run, payload={bad: bad})}"))["payload"] == {bad: bad}


@pytest.mark.parametrize("payload", [{"n": 10**30, "f": 1e300, "z": -0.0}, {"": {"": ""}}, {"\x00": "\x00\u2028"}])
def test_payloads_come_back_as_they_were(api: Api, agent: str, payload: dict[str, Any]) -> None:
    span = api.span(api.instance(agent), payload=payload)
    assert details(api.get(f"/agent_spans/{span}"))["payload"] == payload


def test_pfids_are_generated_in_order(api: Api) -> None:
    pfids = details(api.post("/pfid/generate", {"count": 1000}))["pfids"]
    assert len(pfids) == 1000
    assert all(ids.is_pfid(id) for id in pfids)
    assert all(earlier < later for earlier, later in pairwise(pfids))
    for count in (0, -1, 1001, "2", 1.5, True):
        assert refusal(api.post("/pfid/generate", {"count": count})) == (422, "validation_errors")


def test_lists_come_in_pages_and_sorted(api: Api, agent: str) -> None:
    run = api.instance(agent)
    spans = [api.span(run, schema_name=f"step-{9 - n}") for n in range(5)]

    def page(**params: Any) -> dict[str, Any]:
        answer: dict[str, Any] = api.get("/agent_spans", agent_instance_id=run, **params).json()
        assert answer["status"] == "success", answer
        return answer

    whole = page()
    assert [span["id"] for span in whole["summaries"]] == spans
    assert whole["sorting"] is None
    middle = page(**{"pagination[offset]": 2, "pagination[page_size]": 2})
    assert [span["id"] for span in middle["summaries"]] == spans[2:4]
    assert middle["pagination"] == {
        "item_count": 5, "item_start": 3, "item_end": 4, "page_count": 3, "page_index": 2, "page_offset": 2,
        "page_size": 2, "next_page_offset": 4, "previous_page_offset": 0,
    }  # fmt: skip
    by_name = page(sorting="schema_name")
    assert [span["id"] for span in by_name["summaries"]] == spans[::-1]
    assert by_name["sorting"] == {"field": "schema_name", "direction": "asc"}
    assert [span["id"] for span in page(sorting="-schema_name")["summaries"]] == spans
    assert page(**{"pagination[offset]": 99})["summaries"] == []
    for sorting in ("payload", "", "-", "id desc", "id;drop table agents"):
        assert refusal(api.get("/agent_spans", agent_instance_id=run, sorting=sorting)) == (422, "invalid_value")


def test_spans_are_listed_by_time_and_with_summaries_on_request(api: Api, agent: str) -> None:
    schema = {"span_type_schemas": [{"name": "step", "params_schema": {}, "template": "number {{n}}"}]}
    run = api.instance(agent, agent_schema_version=schema)
    for n in range(3):
        api.span(run, payload={"n": n}, started_at=f"2026-01-01T00:00:0{n}+00:00")
    some = {"start_time": "2026-01-01T00:00:01Z", "end_time": "2026-01-01T02:00:02+02:00"}
    found = api.get("/agent_spans", agent_instance_id=run, **some).json()["summaries"]
    assert [(span["payload"]["n"], span["summary"]) for span in found] == [(1, None)]
    found = api.get("/agent_spans", agent_instance_id=run, include_summaries="true").json()["summaries"]
    assert [span["summary"] for span in found] == ["number 0", "number 1", "number 2"]
    assert refusal(api.get("/agent_spans", agent_instance_id=run, start_time="noon")) == (422, "invalid_value")


def test_instances_and_versions_are_listed_by_agent(api: Api, agent: str) -> None:
    runs = [api.instance(agent) for _ in range(3)]
    first = details(api.get(f"/agent_instance/{runs[0]}"))
    listed = api.get("/agent_instance", agent_id=first["agent_id"]).json()
    assert [run["id"] for run in listed["summaries"]] == runs
    versions = api.get("/agent_version", agent_id=first["agent_id"]).json()["summaries"]
    assert [version["id"] for version in versions] == [first["agent_version_id"]]
    assert details(api.get(f"/agent_version/{first['agent_version_id']}"))["id"] == first["agent_version_id"]
    assert len(api.get("/agent_schema_version", agent_id=first["agent_id"]).json()["summaries"]) == 1


def test_agent_context_holds_an_instance_with_everything_that_belongs_to_it(api: Api, agent: str) -> None:
    run = api.instance(agent)
    spans = [api.span(run, payload={"n": n}) for n in range(3)]
    body = api.get(f"/agent_instance/{run}/agent_context").json()["agent_context"]["body"]
    assert body["instance"]["id"] == run
    assert body["agent"]["external_identifier"] == agent
    assert [span["id"] for span in body["spans"]] == spans
    assert body["schema"]["type"] == "agent_schema_version"
    assert refusal(api.get(f"/agent_instance/{NOBODY}/agent_context")) == (404, "not_found")


def test_an_agent_that_has_many_versions_can_be_deleted(api: Api, agent: str) -> None:
    made = details(api.post("/agent", {"details": {"name": agent}}))["id"]
    for n in range(120):
        fields = {"agent_id": made, "span_schemas": {f"step-{n}": {}}}
        assert api.post("/agent_schema_version", {"details": fields}).status_code == 200
    assert details(api.client.delete(f"/agent/{made}"))["id"] == made
    assert refusal(api.get(f"/agent/{made}")) == (404, "not_found")


# Bulk


def item(type_: str, key: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"_type": type_, "idempotency_key": ids.IdSource(3).new() if key is None else key, **fields}


def test_bulk_stops_at_the_first_error_and_keeps_what_came_before(api: Api, agent: str) -> None:
    run = api.instance(agent)
    span = {"agent_instance_id": run, "schema_name": "step", "status": "active"}
    items = [
        item("agent_spans/create", "first-key", **span),
        item("agent_spans/create", "second-key", details=span),
        item("agent_spans/finish", "third-key", agent_span_id=NOBODY),
        item("agent_spans/create", "fourth-key", **span),
    ]
    answer = api.post("/bulk", {"items": items})
    assert answer.status_code == 200
    outputs = answer.json()["outputs"]
    assert list(outputs) == ["first-key", "second-key", "third-key"]
    assert outputs["third-key"]["code"] == "not_found"
    assert details(api.get(f"/agent_instance/{run}"))["span_counts"]["total"] == 2
    again = api.post("/bulk", {"items": items[:2]}).json()["outputs"]
    assert [again[key]["details"]["id"] for key in again] == [outputs[key]["details"]["id"] for key in again]
    assert details(api.get(f"/agent_instance/{run}"))["span_counts"]["total"] == 2


@pytest.mark.parametrize("key", ["", "x" * 7, "x" * 65, None, 12345678, "eight\n\n\n"])
def test_bulk_wants_a_key_of_8_to_64_characters_from_each(api: Api, key: Any) -> None:
    assert refusal(api.post("/bulk", {"items": [{"_type": "agents/list", "idempotency_key": key}]})) == (
        422,
        "invalid_value",
    )


def test_bulk_takes_keys_of_8_and_of_64_characters_that_differ(api: Api) -> None:
    items = [item("agents/list", "x" * 8), item("agents/list", "x" * 64)]
    assert list(api.post("/bulk", {"items": items}).json()["outputs"]) == ["x" * 8, "x" * 64]
    assert refusal(api.post("/bulk", {"items": [items[0], items[0]]})) == (422, "invalid_value")


@pytest.mark.parametrize(
    ("code", "items"),
    [
        ("required_value", []), ("invalid_value", None), ("invalid_value", "text"), ("invalid_value", {"a": 1}),
        ("invalid_value", [1]), ("invalid_value", [item("nonsense")]), ("invalid_value", [item("agents/delete")]),
        ("invalid_value", [{**item("agents/list"), "_type": ["agents/list"]}]),
        ("invalid_value", [item("agents/list")] * 1001),
    ],
)  # fmt: skip
def test_bulk_without_items_that_it_knows_does_nothing(api: Api, code: str, items: Any) -> None:
    assert refusal(api.post("/bulk", {"items": items})) == (422, code)


def test_bulk_keeps_order_and_shares_one_commit(api: Api, server: Server, agent: str) -> None:
    run = api.instance(agent)
    own = ids.IdSource(3)
    items = []
    for n in range(500):
        id = own.new()
        span: dict[str, Any] = {"agent_instance_id": run, "schema_name": "step", "status": "active", "id": id}
        span["payload"] = {"n": n}
        items += [item("agent_spans/create", **span), item("agent_spans/finish", agent_span_id=id)]
    with closing(sqlite3.connect(server.db)) as watcher:
        before = watcher.execute("pragma data_version").fetchone()[0]
        answer = api.post("/bulk", {"items": items})
        assert watcher.execute("pragma data_version").fetchone()[0] > before
    outputs = answer.json()["outputs"]
    assert list(outputs) == [entry["idempotency_key"] for entry in items]
    assert {output["status"] for output in outputs.values()} == {"success"}
    counts = details(api.get(f"/agent_instance/{run}"))["span_counts"]
    assert (counts["complete"], counts["total"]) == (500, 500)


def test_bulk_is_busy_as_a_whole_and_then_nothing_of_it_is_stored(api: Api, server: Server, agent: str) -> None:
    run = api.instance(agent)
    span = {"agent_instance_id": run, "schema_name": "step", "status": "active"}
    with locked(server.db):
        assert refusal(api.post("/bulk", {"items": [item("agent_spans/create", **span)] * 1})) == (503, "unknown")
        assert api.post("/bulk", {"items": [item("agents/list")]}).status_code == 200  # it only reads
    assert details(api.get(f"/agent_instance/{run}"))["span_counts"]["total"] == 0


@pytest.mark.parametrize(
    ("type_", "missing"),
    [
        ("agents/create", "name"), ("agents/update", "agent_id"), ("agents/show", "agent_id"),
        ("agent_instances/start", "agent_instance_id"), ("agent_instances/finish", "agent_instance_id"),
        ("agent_instances/record_quality", "agent_instance_id"), ("agent_spans/create", "agent_instance_id"),
        ("agent_spans/finish", "agent_span_id"), ("agent_spans/list", "agent_instance_id"),
        ("agent_instances/score", "agent_instance_id"), ("agent_spans/score", "agent_span_id"),
    ],
)  # fmt: skip
def test_bulk_misses_what_an_action_needs(api: Api, type_: str, missing: str) -> None:
    (output,) = api.post("/bulk", {"items": [item(type_)]}).json()["outputs"].values()
    assert (output["status"], output["code"]) == ("error", "required_value")
    assert missing in output["message"]


def test_quality_without_a_payload_is_removed(api: Api, agent: str) -> None:
    run = api.instance(agent, agent_schema_version={"quality_schemas": [{"name": "verdict", "schema": {}}]})
    path = f"/agent_instance/{run}/record_quality"
    for nothing in ({}, {"payload": None}):
        judged = details(api.post(path, {"name": "verdict", "payload": {"score": 1}}))
        assert judged["quality_payloads"] == {"verdict": {"score": 1}}
        assert details(api.post(path, {"name": "verdict", **nothing}))["quality_payloads"] == {}
    assert refusal(api.post(path, {"name": "unheard-of", "payload": {}})) == (422, "invalid_value")
    (output,) = (
        api.post("/bulk", {"items": [item("agent_instances/record_quality", agent_instance_id=run)]})
        .json()["outputs"]
        .values()
    )
    assert output["code"] == "required_value"


ODD: list[Any] = [5, 1.5, True, [], {}, "", "x", "\ud800", "\x00", NOBODY, [1], {"a": 1}, 10**30, "a" * 20_000]
FIELDS = {
    "agents/list": ("pagination", "sorting"),
    "agents/show": ("agent_id", "external_identifier"),
    "agents/create": ("name", "description", "external_identifier", "id", "details"),
    "agents/update": ("agent_id", "name", "description"),
    "agent_instances/register": (
        "agent_id", "agent_version", "agent_schema_version", "id", "purpose", "metadata", "external_identifier",
    ),
    "agent_instances/start": ("agent_instance_id", "timestamp"),
    "agent_instances/finish": ("agent_instance_id", "status", "timestamp"),
    "agent_instances/record_quality": ("agent_instance_id", "name", "payload"),
    "agent_instances/score": ("agent_instance_id", "name", "value", "label", "explanation", "source", "identifier"),
    "agent_spans/create": (
        "agent_instance_id", "schema_name", "status", "payload", "result_payload", "id", "parent_span_id", "started_at",
        "finished_at",
    ),
    "agent_spans/finish": ("agent_span_id", "status", "result_payload", "timestamp"),
    "agent_spans/list": ("agent_instance_id", "start_time", "end_time", "sorting", "pagination"),
}  # fmt: skip


@pytest.mark.parametrize(("type_", "field"), [(type_, field) for type_, names in FIELDS.items() for field in names])
def test_bulk_refuses_odd_values_and_never_fails_over_them(api: Api, agent: str, type_: str, field: str) -> None:
    """Unlike the other bodies, no model stands before those of bulk."""
    run = api.instance(agent)
    for value in ODD:
        status = "active" if type_.endswith("create") else "complete"
        base: dict[str, Any] = {"schema_name": "step", "status": status, "name": "n", "agent_instance_id": run}
        if type_ == "agent_spans/finish":
            base["agent_span_id"] = api.span(run)
        if type_ == "agent_instances/record_quality":
            base["payload"] = {}
        if type_ in ("agents/list", "agents/show"):
            base = {}
        response = api.post("/bulk", {"items": [item(type_, **{**base, field: value})]})
        assert response.status_code == 200, (value, response.text)
        (output,) = response.json()["outputs"].values()
        assert output["status"] == "success" or output["code"] not in ("unexpected", "unknown"), (value, output)


# a termination in the middle


def test_an_end_that_comes_after_a_termination_is_kept_and_tells_of_it(api: Api) -> None:
    run = details(api.post("/agent_instance/register", {"agent_id": "late", "agent_version": {"name": "1"}}))["id"]
    assert api.post(f"/agent_instance/{run}/start", {}).status_code == 200
    active, planned = (
        details(api.post("/agent_spans", {"details": {**SPAN, "agent_instance_id": run, "status": status}}))["id"]
        for status in ("active", "pending")
    )
    assert api.post(f"/agent_instance/{run}/terminate", {"reason": "too dear"}).status_code == 200
    control = {"terminate": True, "reason": "too dear"}
    started = api.post(f"/agent_spans/{planned}/start", {})
    assert (started.status_code, started.json()["code"], started.json()["control"]) == (409, "invalid_action", control)
    ended = api.post(f"/agent_spans/{active}/finish", {"result_payload": {"output": "paid"}}).json()
    assert ended["control"] == control
    told = {"status": "complete", "result_payload": {"output": "paid"}, "closed_by": "terminated", "ended_late": True}
    assert {name: ended["details"][name] for name in told} == told
    again = api.post(f"/agent_spans/{active}/finish", {}).json()
    assert (again["code"], again["control"]) == ("invalid_action", control)
    item = {"_type": "agent_spans/finish", "idempotency_key": "k" * 8, "agent_span_id": planned, "status": "failed"}
    output = api.post("/bulk", {"items": [item]}).json()["outputs"]["k" * 8]
    assert (output["details"]["status"], output["control"]) == ("failed", control)
    end = api.post(f"/agent_instance/{run}/finish", {}).json()
    assert (end["details"]["status"], end["details"]["ended_late"], end["control"]) == ("terminated", True, control)


SPAN = {"schema_name": "tool", "payload": {"name": "x"}}


# The command line


def serve_fails(*args: str, code: int = 1) -> str:
    command = [sys.executable, "-m", "agentspan", "serve", *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.full
def test_a_file_that_does_not_exist_is_made_only_when_that_is_asked_for(tmp_path: Path) -> None:
    assert "does not exist; --create makes an empty file" in serve_fails("--db", str(tmp_path / "typo.db"))
    assert [*tmp_path.iterdir()] == []


@pytest.mark.full
def test_a_port_in_use_is_a_sentence(server: Server) -> None:
    said = serve_fails("--db", str(server.db), "--port", str(server.port))
    assert f"port {server.port} of 127.0.0.1 is in use; stop what listens there, or choose another" in said
    assert "port: must be a number from 0 to 65535" in serve_fails("--db", str(server.db), "--port", "70000", code=2)


def test_a_finish_changes_neither_type_nor_payload(api: Api, agent: str) -> None:
    id = api.span(api.instance(agent), payload={"a": 1})
    before = details(api.get(f"/agent_spans/{id}"))
    api.finish(id, payload={"a": 2}, schema_name="llm", schema_title="LLM", result_payload={"b": 1})
    after = details(api.get(f"/agent_spans/{id}"))
    changed = {name for name in after if after[name] != before.get(name)}
    assert not changed & {"payload", "schema_name", "schema_title"}
    assert after["payload"] == {"a": 1}
