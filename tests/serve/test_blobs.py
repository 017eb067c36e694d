"""The bytes of images and the like over HTTP: in the viewer with types that cannot run, for programs as they were."""

import hashlib
from base64 import b64encode
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from agentspan.database import Database
from agentspan.serve import create_app
from tests.serve.asgi import Client

PNG = b"\x89PNG\r\n\x1a\n" + Random(1).randbytes(3000)
SVG = b"<svg onload='alert(1)'>" + Random(2).randbytes(1500)


@pytest.fixture
def client(db: Database) -> Iterator[Client]:
    client = Client(create_app(db), "http://localhost")
    yield client
    client.close()


def recorded(db: Database, payload: Any) -> str:
    """The address of a span in the viewer."""
    run = db.agent_instances.register("painter", agent_version={}, agent_schema_version={})
    db.agent_instances.start(run.id)
    return f"/runs/{run.id}/spans/{db.agent_spans.create(run.id, 'llm', 'complete', payload, {'text': 'so'}).id}"


def hash_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def part(media_type: str, data: bytes) -> dict[str, Any]:
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": b64encode(data).decode()}}


def test_an_image_has_an_address_and_the_span_names_it_only(client: Client, db: Database) -> None:
    payload = {"messages": [{"role": "user", "content": [part("image/png", PNG)]}]}
    address = recorded(db, payload)
    shown = client.get(address).text
    assert f"[image/png, 3.0 kB, {hash_of(PNG)}]" in shown
    assert b64encode(PNG).decode()[:40] not in shown
    found = client.get(f"{address}/blobs/{hash_of(PNG)}")
    assert (found.status_code, found.content, found.headers["content-type"]) == (200, PNG, "image/png")
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert found.headers["cross-origin-resource-policy"] == "same-origin"
    run = address.split("/")[2]
    turns = client.get(f"/runs/{run}/conversation").text
    assert hash_of(PNG) in turns
    assert b64encode(PNG).decode()[:40] not in turns
    id = address.rsplit("/", 1)[1]
    assert client.get(f"/api/v1/agent_spans/{id}").json()["details"]["payload"] == payload


def test_what_a_client_sends_is_what_clients_read(client: Client, db: Database) -> None:
    run = db.agent_instances.register("painter", agent_version={}, agent_schema_version={})
    db.agent_instances.start(run.id)
    payload = {"messages": [{"role": "user", "content": [part("image/png", PNG), part("image/gif", SVG)]}] * 2}
    sent = {"agent_instance_id": run.id, "schema_name": "llm", "status": "active", "payload": payload}
    made = client.post("/api/v1/agent_spans", json={"details": sent}).json()["details"]
    assert made["payload"] == payload
    result = {"result_payload": {"image": b64encode(PNG).decode()}, "status": "complete"}
    client.post(f"/api/v1/agent_spans/{made['id']}/finish", json=result)
    found = client.get(f"/api/v1/agent_spans/{made['id']}").json()["details"]
    assert (found["payload"], found["result_payload"]) == (payload, result["result_payload"])


@pytest.mark.full
@pytest.mark.parametrize(
    "media_type",
    ["image/svg+xml", "text/html", "application/xhtml+xml", "application/javascript", "image/png+xml", "text/x"],
)
def test_bytes_of_other_types_are_a_download(client: Client, db: Database, media_type: str) -> None:
    address = recorded(db, {"messages": [part(media_type, SVG)]})
    found = client.get(f"{address}/blobs/{hash_of(SVG)}")
    assert (found.status_code, found.content) == (200, SVG)
    assert found.headers["content-type"] == "application/octet-stream"
    ending = "svg" if media_type == "image/svg+xml" else "bin"
    assert found.headers["content-disposition"] == f'attachment; filename="{hash_of(SVG)[:16]}.{ending}"'
    assert found.headers["content-security-policy"] == "default-src 'none'; sandbox"


def test_a_span_has_no_bytes_of_another_one(client: Client, db: Database) -> None:
    recorded(db, {"output": b64encode(PNG).decode()})
    address = recorded(db, {"output": f"[image/png, 3.0 kB, {hash_of(PNG)}]"})
    for name in (hash_of(PNG), "", "x" * 64, "..%2f..%2fetc%2fpasswd"):
        assert client.get(f"{address}/blobs/{name}").status_code == 404


def test_the_bytes_need_the_login(db: Database) -> None:
    address = recorded(db, {"output": b64encode(PNG).decode()})
    client = Client(create_app(db, token="s3cret-token"), "http://localhost")
    assert client.get(f"{address}/blobs/{hash_of(PNG)}").status_code == 401
    client.close()
