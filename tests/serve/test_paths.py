"""Paths and methods: what is not there, HEAD, OPTIONS, and a slash at the end."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

import agentspan
from agentspan import Database
from agentspan.serve.app import create_app
from tests.serve.asgi import Client
from tests.serve.servers import details, refusal

API = "/api/v1"
NOBODY = "013xrzp12g3nqk8n4evtrcj59k8dhn3t"
ALLOWED = {
    "/agent_spans": "GET, HEAD, OPTIONS, POST",
    f"/agent_spans/{NOBODY}": "GET, HEAD, OPTIONS",
    f"/agent_spans/{NOBODY}/finish": "OPTIONS, POST",
    "/agent": "GET, HEAD, OPTIONS, POST",
    "/agent/show": "GET, HEAD, OPTIONS",
    f"/agent/{NOBODY}": "DELETE, GET, HEAD, OPTIONS, PUT",
    "/agent_instance/register": "OPTIONS, POST",
    "/bulk": "OPTIONS, POST",
    "/ping": "GET, HEAD, OPTIONS",
}
METHODS = ("GET", "PUT", "DELETE", "PATCH", "POST", "TRACE")


@pytest.fixture(params=["", "/mounted"], scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Client]:
    """One application for all tests, which ask for paths and find nothing but what they make."""
    with agentspan.open(tmp_path_factory.mktemp("paths") / "runs.db") as db:
        app: Any = create_app(db)
        if request.param:
            outer = FastAPI()
            outer.mount(request.param, app)
            app = outer
        with Client(app, f"http://localhost{request.param}") as asking:
            yield asking


@pytest.mark.full
@pytest.mark.parametrize(("path", "allowed"), ALLOWED.items())
def test_a_wrong_method_is_answered_with_all_methods_of_its_path(client: Client, path: str, allowed: str) -> None:
    wrong = [method for method in METHODS if method not in allowed]
    for method in wrong:
        response = client.request(method, API + path)
        assert refusal(response) == (405, "bad_request")
        assert response.headers["allow"] == allowed
    assert len(wrong) >= 2


@pytest.mark.parametrize(("path", "allowed"), ALLOWED.items())
def test_options_are_the_methods_of_a_path(client: Client, path: str, allowed: str) -> None:
    response = client.request("OPTIONS", API + path)
    assert (response.status_code, response.headers["allow"], response.content) == (204, allowed, b"")


def test_head_is_get_without_the_body(client: Client) -> None:
    for path in ("/agent", "/ping", f"/agent/{NOBODY}", "/agent?pagination[page_size]=0", "/nothing"):
        get, head = client.get(API + path), client.request("HEAD", API + path)
        assert head.content == b""
        assert head.status_code == get.status_code
        assert head.headers["content-length"] == get.headers["content-length"]
        assert head.headers["content-type"] == "application/json"
    refused = client.request("HEAD", f"{API}/bulk")
    assert (refused.status_code, refused.headers["allow"], refused.content) == (405, "OPTIONS, POST", b"")


@pytest.mark.parametrize("method", [*METHODS, "OPTIONS"])
@pytest.mark.parametrize("path", ["/nothing", "/agent/no-pfid", f"/agent/{NOBODY.upper()}", "", "/", "/agent//show"])
def test_a_path_that_is_not_there_is_not_found_by_any_method(client: Client, method: str, path: str) -> None:
    assert refusal(client.request(method, API + path)) == (404, "not_found")


def test_a_slash_at_the_end_changes_nothing_and_redirects_nobody(client: Client) -> None:
    made = details(client.post(f"{API}/agent_instance/register/", json={"agent_id": "a"}))
    assert details(client.post(f"{API}/agent_instance/{made['id']}/start/"))["status"] == "active"
    assert details(client.get(f"{API}/agent_instance/{made['id']}/"))["id"] == made["id"]
    assert [
        run["id"] for run in client.get(f"{API}/agent_instance/?agent_id={made['agent_id']}").json()["summaries"]
    ] == [made["id"]]
    assert client.get(f"{API}/ping//").status_code == 200
    assert client.request("DELETE", f"{API}/ping/").headers["allow"] == "GET, HEAD, OPTIONS"
    assert refusal(client.get(f"{API}/nothing/")) == (404, "not_found")


def test_the_viewer_knows_its_methods_too(client: Client) -> None:
    root = client.request("OPTIONS", "/")
    assert (root.status_code, root.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
    assert client.request("OPTIONS", "/login").headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert client.request("HEAD", "/").content == b""


def test_without_a_token_no_path_is_told(tmp_path: Path) -> None:
    with Database(agentspan.MemoryStorage()) as db, Client(create_app(db, token="s3cret-token")) as client:
        for method in ("OPTIONS", "HEAD", "DELETE"):
            assert client.request(method, f"{API}/ping").status_code == 401
