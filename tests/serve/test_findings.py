"""Findings over HTTP: what `agentspan why`, `diff`, `search`, `versions` and `cost` print with `--json`."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import agentspan
from agentspan.serve import create_app
from tests.cli.calling import call
from tests.serve.asgi import Client
from tests.serve.servers import refusal

TOKEN = "a-token-of-this-test"


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("findings") / "runs.db"
    tracer = agentspan.Tracer(path)
    for number in range(12):
        try:
            with tracer.run("a", version=f"{1 + number // 6}.0"), tracer.span("tool", {"name": "fetch"}) as span:
                span.set_result({"output": f"book {number}"})
                if number % 3 == 0:
                    raise KeyError("nope")
        except KeyError:
            pass
    tracer.shutdown()
    return path


@pytest.fixture(scope="module")
def client(db: Path) -> Iterator[Client]:
    with Client(create_app(db)) as client:
        yield client


def runs_of(db: Path) -> list[str]:
    return [each["id"] for each in json.loads(call(db, "runs", "--json").output)["runs"]]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("why", ["why"]),
        ("why?agent=a&failed=true", ["why", "--agent", "a", "--failed"]),
        ("why?outcome=status&limit=1", ["why", "--outcome", "status", "-n", "1"]),
        ("why?run=FIRST", ["why", "FIRST"]),
        ("diff?a=FIRST&b=SECOND&full=true", ["diff", "FIRST", "SECOND", "--full"]),
        ("diff?base=a@1.0&head=a@2.0", ["diff", "--base", "a@1.0", "--head", "a@2.0"]),
        ("search?words=book*&limit=3&agent=a", ["search", "book*", "-n", "3", "--agent", "a"]),
        ("search?words=%22book%204%22&by_run=true", ["search", "book 4", "--by-run"]),
        ("versions?name=a", ["versions", "a"]),
        ("versions?name=a&cases=true", ["versions", "a", "--cases"]),
        ("cost", ["cost"]),
        ("cost?by=tool&agent=a&limit=1", ["cost", "--by", "tool", "--agent", "a", "-n", "1"]),
    ],
)
def test_a_finding_is_what_the_command_prints_as_json(db: Path, client: Client, address: str, words: list[str]) -> None:
    first, second, *_ = runs_of(db)
    named = {"FIRST": first, "SECOND": second}
    answer = client.get("/api/findings/" + address.replace("FIRST", first).replace("SECOND", second))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == json.loads(call(db, *[named.get(word, word) for word in words], "--json").output)


@pytest.mark.parametrize(
    ("address", "status", "code"),
    [
        ("nothing", 404, "not_found"),
        ("sql?query=select+1", 404, "not_found"),
        ("why?run=none", 404, "not_found"),
        ("why?db=/etc/passwd", 422, "invalid_value"),
        ("why?as_json=true", 422, "invalid_value"),
        ("diff?markdown=true", 422, "invalid_value"),
        ("why?since=never", 422, "invalid_value"),
        ("why?limit=x", 422, "invalid_value"),
        ("search", 422, "invalid_value"),
        ("diff?a=-", 422, "invalid_value"),
    ],
)
def test_a_finding_that_is_refused_says_why(client: Client, address: str, status: int, code: str) -> None:
    answer = client.get(f"/api/findings/{address}")
    assert refusal(answer) == (status, code), answer.content
    assert answer.json()["message"]


def test_findings_need_the_token_and_are_only_read(db: Path) -> None:
    with Client(create_app(db, token=TOKEN, read_only=True)) as client:
        assert refusal(client.get("/api/findings/why")) == (401, "not_authenticated")
        assert client.get("/api/findings/why", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
        answer = client.post("/api/findings/why", json={}, headers={"Authorization": f"Bearer {TOKEN}"})
        assert answer.status_code == 405


def test_a_storage_in_memory_answers_too() -> None:
    storage = agentspan.MemoryStorage()
    tracer = agentspan.Tracer(storage)
    with tracer.run("a"), tracer.span("tool", {"name": "fetch", "arguments": {"q": "books"}}):
        pass
    tracer.flush()
    with Client(create_app(storage)) as client:
        assert client.get("/api/findings/search?words=books").json()["total"] == 1
