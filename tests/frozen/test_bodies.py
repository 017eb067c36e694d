"""What a server answers to each of many bodies at each of some paths, most of them wrong."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import httpx

import agentspan
from agentspan.serve.app import create_app
from tests.frozen import frozen

OWN = "013xrzp12g3nqk8n4evtrcj59k8dhn3t"
OTHER = "013xrzp12g3nqk8n4evtrcj59k8dhn3v"
SPAN: dict[str, Any] = {"agent_instance_id": OWN, "schema_name": "tool", "status": "active"}


def created(**fields: Any) -> bytes:
    return json.dumps({"details": {**SPAN, **fields}}).encode()


BODIES: list[bytes] = [
    b"",
    b"null",
    b"{}",
    b"[]",
    b"5",
    b'"text"',
    b"{",
    b'{"details": 5}',
    b'{"details": {}} x',
    b"\xff\xfe",
    b"\xef\xbb\xbf{}",
    "{}".encode("utf-16"),
    created(),
    created(payload={"a": [1, None, True, 1.5, -0.0, "\u00e9\U0001f600"]}),
    created(payload={"lone": "\ud800"}),
    created(payload={"big": 10**30}),
    created(payload={"not": float("nan")}),
    created(payload={"not": float("inf")}),
    created().replace(b'"tool"', b'"tool", "payload": {"a": 1e999}'),
    created().replace(b'"tool"', b'"tool", "payload": {"a": ' + b"9" * 5000 + b"}"),
    created().replace(b'"tool"', b'"tool", "payload": {"a": 1, "a": 2}'),
    created().replace(b'"tool"', b'"tool", "payload": ' + b'{"a":' * 199 + b"1" + b"}" * 199),
    created().replace(b'"tool"', b'"tool", "payload": ' + b'{"a":' * 400 + b"1" + b"}" * 400),
    created().replace(b'"tool"', b'"to\nol"'),
    created(payload=[1]),
    created(status=1),
    created(status="done"),
    created(result_payload=None, id=None, unknown=1),
    created(idempotency_key="x" * 65),
    created(idempotency_key="k", parent_span_id=OTHER),
    b'{"result_payload": {"a": 1}}',
    b'{"status": "failed", "timestamp": "yesterday"}',
    b'{"idempotency_key": 5}',
    b'{"items": []}',
    b'{"items": [{"_type": "agents/list", "idempotency_key": "long-enough"}]}',
]
PATHS = (
    "/agent_spans",
    f"/agent_spans/{OTHER}/finish",
    f"/agent_spans/{OTHER}/start",
    "/agent_spans/no-id/finish",
    f"/agent_instance/{OWN}/finish",
    "/bulk",
    "/pfid/generate",
)


def answers(folder: Path) -> list[tuple[int, str]]:
    """What a new file's server answers to each body at each path, without what is never twice the same."""

    async def ask() -> list[tuple[int, str]]:
        with agentspan.open(folder / "runs.db") as db:
            db.agent_instances.register("an-agent", id=OWN)
            transport = httpx.ASGITransport(create_app(db))
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost/api/v1") as client:
                found = []
                for path in PATHS:
                    for body in BODIES:
                        response = await client.post(path, content=body, headers={"Content-Type": "application/json"})
                        found.append((response.status_code, plain(frozen.body(response.text))))
                for path in ("/ping", f"/agent_spans/{OTHER}", "/agent_spans/no-id", "/nowhere"):
                    for method in ("GET", "HEAD", "PUT", "DELETE"):
                        response = await client.request(method, path, json={} if method == "PUT" else None)
                        found.append((response.status_code, plain(frozen.body(response.text))))
                return found

    folder.mkdir()
    return asyncio.run(ask())


def plain(text: str) -> str:
    text = re.sub(r"20\d\d-\d\d-\d\dT[\d:.]+Z", "TIME", text)
    return re.sub(r"[0-7][0-9a-hjkmnp-tv-z]{31}", "ID", re.sub(f"{OWN}|{OTHER}", "KNOWN", text))


def test_the_answers_to_any_body_are_the_same(tmp_path: Path) -> None:
    asked = [*(f"{path} {body[:80]!r}" for path in PATHS for body in BODIES), *[""] * 16]
    found = zip(asked, answers(tmp_path / "a"), strict=True)
    lines = [f"{question} {status} {text}" for question, (status, text) in found]
    frozen.check("bodies.txt", "\n".join(lines) + "\n")
