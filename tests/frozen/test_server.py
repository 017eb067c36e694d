"""The OpenAPI document, and what the server answers to requests of each operation, right and wrong ones."""

import json
import re
from collections.abc import Iterator
from typing import Any
from zlib import crc32

import pytest

import agentspan
from agentspan.serve import create_app
from tests.frozen import frozen
from tests.frozen.requests import API, Request, World, requests
from tests.serve.asgi import Client

LONGEST = 2000
ID = re.compile(r"\b[0-7][0-9abcdefghjkmnpqrstvwxyz]{31}\b")
TIME = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")
NUMBERS = re.compile(r'("(?:duration_ms|payload_byte_size_estimate)":)\d[\d.e-]*')

CREATE = {"agent_instance_id": "{run}", "schema_name": "llm", "status": "pending", "payload": {"model": "m"}}
STORY: tuple[tuple[str, str, Any], ...] = (
    ("POST", "/agent_spans", {"details": CREATE, "idempotency_key": "one"}),
    ("POST", "/agent_spans", {"details": CREATE, "idempotency_key": "one"}),
    ("POST", "/agent_spans", {"details": {**CREATE, "status": "active"}, "idempotency_key": "one"}),
    ("POST", "/agent_spans/{last}/finish", {"status": "complete"}),
    ("POST", "/agent_spans/{last}/start", {"idempotency_key": "start"}),
    ("POST", "/agent_spans/{last}/start", {"idempotency_key": "start"}),
    ("POST", "/agent_spans/{last}/start", {}),
    ("POST", "/agent_spans/{last}/finish", {"status": "cancelled"}),
    ("POST", "/agent_spans/{last}/finish", {"result_payload": {"text": "hi"}, "idempotency_key": "end"}),
    ("POST", "/agent_spans/{last}/finish", {"result_payload": {"text": "hi"}, "idempotency_key": "end"}),
    ("POST", "/agent_spans/{last}/finish", {"result_payload": {"text": "ho"}, "idempotency_key": "end"}),
    ("POST", "/agent_spans/{last}/finish", {}),
    ("POST", "/agent_spans/{last}/finish", {"details": {"status": "failed"}}),
    ("POST", "/agent_spans", {"details": CREATE}),
    ("POST", "/agent_spans/{last}/finish", {"status": "cancelled"}),
    ("GET", "/agent_spans/{last}", None),
    ("GET", "/agent_spans?agent_instance_id={run}&include_summaries=true&pagination[page_size]=1", None),
    ("GET", "/agent_instance/{run}/agent_context", None),
    ("GET", "/agent_instance/{run}/agent_context?include_history=true", None),
    ("POST", "/agent_instance/{run}/terminate", {"reason": "too dear"}),
    ("POST", "/agent_spans", {"details": CREATE}),
    ("POST", "/agent_instance/{run}/finish", {}),
    ("POST", "/agent_instance/{run}/start", {}),
    ("POST", "/agent_instance/{run}/terminate", {"reason": "too dear"}),
    ("GET", "/nowhere", None),
    ("DELETE", "/agent_spans", None),
)
"""Requests about one run, each after those before it."""


@pytest.fixture
def db() -> Iterator[agentspan.Database]:
    """A storage in memory."""
    with agentspan.open(agentspan.MemoryStorage()) as opened:
        yield opened


@pytest.fixture
def client(db: agentspan.Database) -> Iterator[Client]:
    """A client of an application over that storage."""
    with Client(create_app(db)) as client:
        yield client


def document(client: Client) -> dict[str, Any]:
    """Return the OpenAPI document without the version of this package."""
    found: dict[str, Any] = client.get("/openapi.json").json()
    found["info"]["version"] = "*"
    return found


def test_the_openapi_document_is_the_same_byte_for_byte(client: Client) -> None:
    frozen.check("openapi.json", json.dumps(document(client), indent=1, ensure_ascii=False) + "\n")


@pytest.mark.full
def test_each_operation_answers_as_before_to_right_and_wrong_requests(client: Client, db: agentspan.Database) -> None:
    world = World(db)
    lines: list[str] = []
    known: dict[str, str] = {}
    of = ""
    for each in requests(document(client)):
        if each.operation != of:
            of, known = each.operation, {}
            lines.append(f"\n{of}")
        path, body = world.fitted(each)
        response = sent(client, each, path, body)
        if response.is_success and each.method != "GET":
            world.renew()
        answer, what = cut(normal(shown(response))), each.what or "plain"
        lines.append(f"{what} → {known.setdefault(answer, answer)}")
        known[answer] = f"as to {what}" if known[answer] == answer else known[answer]
    frozen.check("answers.txt", "\n".join(lines).lstrip() + "\n")


def test_a_story_of_one_run_is_answered_as_before(client: Client, db: agentspan.Database) -> None:
    agent = db.agents.create("storied", external_identifier="storied")
    ids = {"{run}": db.agent_instances.register(agent.id).id, "{last}": ""}
    db.agent_instances.start(ids["{run}"])
    lines = []
    for method, path, body in STORY:
        text = json.dumps(body)
        for name, id in ids.items():
            path, text = path.replace(name, id), text.replace(name, id)
        response = client.request(method, API + path, content=None if body is None else text)
        lines.append(f"{method} {path} {text} → {shown(response)}")
        if method == "POST" and path == "/agent_spans" and response.is_success:
            ids["{last}"] = response.json()["details"]["id"]
    frozen.check("story.txt", normal("\n".join(lines)) + "\n")


def sent(client: Client, request: Request, path: str, body: Any) -> Any:
    """Send a request; return its response."""
    content = body if isinstance(body, bytes) or body is None else json.dumps(body)
    headers = {"content-type": "application/json"} if content is not None else {}
    return client.request(request.method, path, params=request.query, content=content, headers=headers)


def shown(response: Any) -> str:
    """Return the status and the body of a response."""
    return f"{response.status_code} {frozen.body(response.text)}"


def cut(text: str) -> str:
    """Return the start of a long text, and its length and checksum."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text)} characters, {crc32(text.encode()):08x})"


def normal(text: str) -> str:
    """Number the ids of a text by their first appearance; take out times, sizes and durations."""
    ids: dict[str, str] = {}
    text = ID.sub(lambda match: ids.setdefault(match[0], f"id{len(ids) + 1}"), text)
    return re.sub(r"\bagent[- ]\d+\b", "agent-n", NUMBERS.sub(r"\1*", TIME.sub("*", text)))
