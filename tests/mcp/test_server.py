"""The protocol, with the SDK's own client: in memory, on stdio and over HTTP with a token."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.installing import needs_extra
from agentspan.mcp import tools
from agentspan.mcp.answers import tokens_of
from agentspan.serve import create_app
from agentspan.storage.memory import MemoryStorage
from tests.cli.calling import call as command
from tests.serve.asgi import Client as Http
from tests.serve.servers import serving
from tests.tiers import longer

TOKEN = "a-token-of-this-test"
POST = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
HEADERS = {"Accept": "application/json, text/event-stream"}


def asked(server: Any, work: Callable[[Any], Awaitable[Any]], **how: Any) -> Any:
    """Connect the SDK's client, and return what a coroutine returns that uses it."""
    client = pytest.importorskip("mcp.client.client", reason="needs mcp")

    async def run() -> Any:
        async with client.Client(server, **how) as connected:
            return await work(connected)

    return asyncio.run(run())


def server_of(db: Any) -> Any:
    pytest.importorskip("mcp", reason="needs mcp")
    from agentspan.mcp import server

    return server.server_of(db)


async def listing_and_calls(client: Any) -> tuple[str, Any, Any, Any]:
    listed = await client.list_tools()
    text = json.dumps(
        [each.model_dump(by_alias=True, exclude_none=True) for each in listed.tools],
        ensure_ascii=False,
        separators=(",", ":"),
    )
    found, refused, unknown = await asyncio.gather(
        client.call_tool("why", {}), client.call_tool("show", {"id": "nothing"}), client.call_tool("nothing", {})
    )
    return text, found, refused, unknown


def check(answers: tuple[str, Any, Any, Any]) -> None:
    """Check what `listing_and_calls` got of the planted file."""
    listed, found, refused, unknown = answers
    assert tokens_of(listed) <= 1500
    assert len(json.loads(listed)) == len(tools.TOOLS)
    assert not found.is_error
    assert "amount must be a number, not None" in found.content[0].text
    assert refused.is_error
    assert "runs() lists" in refused.content[0].text
    assert unknown.is_error


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_client_of_the_sdk_in_memory(planted: Path, mode: str) -> None:
    check(asked(server_of(planted), listing_and_calls, mode=mode))


def test_a_process_on_stdio(planted: Path) -> None:
    stdio = pytest.importorskip("mcp.client.stdio", reason="needs mcp")
    words = ["-W", "error", "-m", "agentspan", "mcp", "--db", str(planted)]
    started = stdio.stdio_client(stdio.StdioServerParameters(command=sys.executable, args=words))
    check(asked(started, listing_and_calls))


def test_a_process_over_http_with_its_token(planted: Path) -> None:
    http = pytest.importorskip("mcp.client.streamable_http", reason="needs mcp")
    with serving(planted, AGENTSPAN_TOKEN=TOKEN) as server:

        async def run() -> Any:
            from mcp.client.client import Client

            headers = {"Authorization": f"Bearer {TOKEN}"}
            sending = http.create_mcp_http_client(headers=headers)
            to = http.streamable_http_client(f"{server.url}/mcp", http_client=sending)
            async with sending, Client(to) as client:
                return await listing_and_calls(client)

        check(asyncio.run(run()))
        with server.client() as client:
            assert client.post("/mcp", json=POST, headers=HEADERS).status_code == 401
            wrong = {**HEADERS, "Authorization": "Bearer a-wrong-token"}
            assert client.post("/mcp", json=POST, headers=wrong).status_code == 401
            assert client.get("/mcp").status_code == 401


def test_over_http_a_request_stands_for_itself(planted: Path) -> None:
    pytest.importorskip("mcp", reason="needs mcp")
    with Http(create_app(planted)) as client:
        body = {**POST, "params": {"name": "sql", "arguments": {"query": "delete from agents"}}}
        answered = client.post("/mcp", json=body, headers=HEADERS)
        assert answered.status_code == 200
        assert answered.json()["result"]["isError"] is True
        for method in ("GET", "DELETE", "PUT"):
            refused = client.request(method, "/mcp", headers={**HEADERS, "Content-Type": "application/json"})
            assert refused.status_code == 405
            assert refused.headers["allow"] == "POST"
        assert (
            client.post("/mcp", content=b"{", headers={**HEADERS, "Content-Type": "application/json"}).status_code
            == 400
        )
        text = {**HEADERS, "Content-Type": "text/plain"}
        assert client.post("/mcp", content=json.dumps(body).encode(), headers=text).status_code == 415
        elsewhere = {**HEADERS, "Host": "evil.example"}
        assert client.post("/mcp", json=body, headers=elsewhere).status_code == 403


def test_over_http_a_storage_in_memory_is_read(planted: Path) -> None:
    pytest.importorskip("mcp", reason="needs mcp")
    storage = MemoryStorage()
    run = agentspan.open(storage).agent_instances.register("one")
    with Http(create_app(storage)) as client:
        body = {**POST, "params": {"name": "runs", "arguments": {}}}
        assert run.id[:10] in client.post("/mcp", json=body, headers=HEADERS).text


def test_calls_at_once_answer_while_the_file_grows(tmp_path: Path) -> None:
    number = longer("AGENTSPAN_TEST_MCP_CALLS", 12, 60, 600)
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    with tracer.run("a"):
        pass
    tracer.flush()

    async def work(client: Any) -> list[Any]:
        calls = []
        for each in range(number):
            with tracer.run("a"):
                pass
            name = ("runs", "overview", "why", "sql")[each % 4]
            calls.append(client.call_tool(name, {"query": "select count(*) from runs"} if name == "sql" else {}))
        return await asyncio.gather(*calls)

    answers = asked(server_of(path), work)
    assert [each.content[0].text for each in answers if each.is_error] == []
    tracer.shutdown()


def without_the_sdk(*words: str) -> "subprocess.CompletedProcess[str]":
    """Call the command in a process that cannot import the SDK."""
    code = "import sys; sys.modules['mcp'] = None; from agentspan.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


def test_without_the_extra_one_line_says_how_to_install_it(planted: Path) -> None:
    done = without_the_sdk("mcp", "--db", str(planted))
    advice = needs_extra("answering over MCP", "mcp")
    assert (done.returncode, done.stderr) == (1, f"Error: {advice}\n")


def test_without_the_extra_the_server_says_so_too(planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    monkeypatch.setitem(sys.modules, "mcp.server.lowlevel", None)
    with Http(create_app(planted)) as client:
        answered = client.post("/mcp", json=POST, headers=HEADERS)
    assert answered.status_code == 501
    assert "agentspan-sqlite[mcp]" in answered.json()["message"]


def test_a_missing_file_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    async def work(client: Any) -> Any:
        return await client.call_tool("overview", {})

    answer = asked(server_of(tmp_path / "none.db"), work)
    assert answer.is_error
    assert "none.db" in answer.content[0].text
    assert not (tmp_path / "none.db").exists()


def test_the_tools_import_nothing_of_the_sdk() -> None:
    code = (
        "import sys; from agentspan.mcp import tools, setup, skill; print('mcp' in sys.modules, 'anyio' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_the_overview_has_filters_and_json(planted: Path) -> None:
    found = json.loads(command(planted, "overview", "--version", "2.0", "--json").output)
    assert (found["runs"], found["verdicts"]["failed"]) == (20, 5)
    assert "5 failed" in command(planted, "overview", "--since", "1h").output
    assert "no run matches task=none" in command(planted, "overview", "--task", "none").output
