"""What comes over HTTP is redacted before it is stored, by the rules of recording; and compared as it was sent."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentspan
from agentspan.recording.capture.capture import Capture
from agentspan.recording.capture.plain import SentRedaction
from agentspan.recording.capture.redaction import Redaction
from agentspan.recording.capture.values import Limits
from agentspan.serve import create_app
from tests.serve.asgi import Client

KEY = "sk-proj-a1b2c3d4e5f6g7h8i9j0"
R = "[redacted]"
SECRETS = {
    "api_key": KEY,
    "said": f"use {KEY} please",
    "headers": [["Authorization", f"Bearer {KEY}"], ["Accept", "text/html"]],
    "auth": ["mia", "hunter2!"],
    "env": {"name": "DB_PASSWORD", "value": "hunter2!"},
    "credentials": {"user": "mia", "pin": [1234]},
    "input_tokens": 3,
}
CLEAN = {
    "api_key": R,
    "said": f"use {R} please",
    "headers": [["Authorization", R], ["Accept", "text/html"]],
    "auth": ["mia", R],
    "env": {"name": "DB_PASSWORD", "value": R},
    "credentials": {"user": R, "pin": [R]},
    "input_tokens": 3,
}


@contextmanager
def serving(path: Path, **options: Any) -> Iterator["Served"]:
    """An application over a file, and a client of it."""
    with Client(create_app(path, **options)) as client:
        yield Served(path, client)


class Served:
    def __init__(self, path: Path, client: Client) -> None:
        self.path = path
        self.client = client

    def post(self, path: str, **body: Any) -> Any:
        answer = self.client.post(f"/api/v1{path}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json().get("details", answer.json())

    def run(self, **body: Any) -> Any:
        run = self.post("/agent_instance/register", agent_id="a", **body)
        return self.post(f"/agent_instance/{run['id']}/start")

    def files(self) -> bytes:
        return b"".join(path.read_bytes() for path in self.path.parent.iterdir())


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path / "runs.db") as served:
        yield served


def test_payloads_results_metadata_evaluations_and_reasons(served: Served) -> None:
    quality = {"quality_schemas": [{"name": "tone", "schema": True, "template": "{{said}}"}]}
    version = {"name": "1", "runtime_environment": SECRETS}
    run = served.run(metadata=SECRETS, agent_schema_version=quality, agent_version=version)
    assert run["metadata"] == CLEAN
    span = served.post(
        "/agent_spans",
        details={"agent_instance_id": run["id"], "schema_name": "llm", "status": "active", "payload": SECRETS},
    )
    assert span["payload"] == CLEAN
    span = served.post(f"/agent_spans/{span['id']}/finish", result_payload=SECRETS)
    assert (span["result_payload"], span["input_tokens"]) == (CLEAN, 3)
    scored = served.post(f"/agent_instance/{run['id']}/record_quality", name="tone", payload=SECRETS)
    assert (scored["quality_payloads"], scored["quality_summaries"]) == ({"tone": CLEAN}, {"tone": CLEAN["said"]})
    create = {
        "_type": "agent_spans/create",
        "idempotency_key": "create-1",
        "agent_instance_id": run["id"],
        "schema_name": "tool",
        "status": "complete",
        "payload": SECRETS,
        "result_payload": SECRETS,
    }
    made = served.post("/bulk", items=[create])["outputs"]["create-1"]["details"]
    assert (made["payload"], made["result_payload"]) == (CLEAN, CLEAN)
    ended = served.post(f"/agent_instance/{run['id']}/terminate", reason=f"it said {KEY}")
    assert ended["termination_reason"] == f"it said {R}"
    stored = served.files()
    assert KEY.encode() not in stored
    assert b"hunter2!" not in stored


def test_names_and_descriptions(served: Served) -> None:
    said, shown = f"it is {KEY}", f"it is {R}"
    agent = served.post("/agent", details={"name": said, "description": said})
    assert (agent["name"], agent["description"]) == (shown, shown)
    version = {"name": said, "description": said, "external_identifier": "1"}
    run = served.run(agent_version=version)
    details = {"agent_instance_id": run["id"], "schema_name": said, "status": "active"}
    assert served.post("/agent_spans", details=details)["schema_name"] == shown
    assert KEY.encode() not in served.files()


def test_identifiers_of_agents_and_versions(served: Served) -> None:
    said, shown = f"it is {KEY}", f"it is {R}"
    runs = [served.post("/agent_instance/register", agent_id=said, agent_version={"name": said}) for _ in range(2)]
    (agent,) = {run["agent_id"] for run in runs}  # the same agent
    assert served.client.get(f"/api/v1/agent/{agent}").json()["details"]["external_identifier"] == shown
    version = served.client.get(f"/api/v1/agent_version/{runs[0]['agent_version_id']}").json()["details"]
    assert (version["name"], version["external_identifier"]) == (shown, shown)
    found = served.client.get("/api/v1/agent/show", params={"external_identifier": said}).json()
    assert found["details"]["id"] == agent
    served.post("/agent", details={"name": "other", "external_identifier": f"other {KEY}"})
    assert KEY.encode() not in served.files()


def test_descriptions_of_types(served: Served) -> None:
    schema = {
        "type": "object",
        "title": f"with {KEY}",
        "properties": {
            "password": {"type": "string", "description": f"such as {KEY}", "default": KEY, "examples": [KEY, "x"]},
            "kind": {"const": "api_key: 'hunter2!'"},
        },
    }
    span_type = {"name": "find", "title": f"find {KEY}", "description": f"uses {KEY}", "params_schema": schema}
    quality = {"name": "tone", "description": f"uses {KEY}", "schema": True}
    run = served.run(agent_schema_version={"span_type_schemas": [span_type], "quality_schemas": [quality]})
    path = f"/api/v1/agent_schema_version/{run['agent_schema_version_id']}"
    (stored,) = served.client.get(path).json()["details"]["span_type_schemas"]
    assert (stored["title"], stored["description"]) == (f"find {R}", f"uses {R}")
    password = stored["params_schema"]["properties"]["password"]
    assert password == {"type": "string", "description": f"such as {R}", "default": R, "examples": [R, "x"]}
    assert stored["params_schema"]["properties"]["kind"] == schema["properties"]["kind"]  # type: ignore[index]
    assert KEY.encode() not in served.files()


def test_a_request_is_compared_as_it_was_sent(served: Served) -> None:
    run = served.run()
    body = {"agent_instance_id": run["id"], "schema_name": "llm", "status": "active", "idempotency_key": "k-1"}
    first = served.post("/agent_spans", details={**body, "payload": {"password": "one"}})
    assert served.post("/agent_spans", details={**body, "payload": {"password": "one"}})["id"] == first["id"]
    other = served.client.post("/api/v1/agent_spans", json={"details": {**body, "payload": {"password": "two"}}})
    assert other.json()["code"] == "idempotency_key_already_used"


@pytest.mark.parametrize("redact", [None, lambda name, value: "[own]" if name == "said" else value])
def test_redaction_can_be_turned_off_or_have_a_rule_of_ones_own(tmp_path: Path, redact: Any) -> None:
    with serving(tmp_path / "runs.db", redact=redact) as served:
        run = served.run(metadata=SECRETS)
    assert run["metadata"] == (SECRETS if redact is None else {**CLEAN, "said": "[own]"})
    with pytest.raises(agentspan.errors.InvalidValue, match="redact"):
        create_app(tmp_path / "runs.db", redact="some")


def test_sensitive_values_are_kept_where_that_was_asked_for(tmp_path: Path) -> None:
    wrapper = {"$sensitive": "string", "labels": ["email"], "value": "mia@example.com"}
    for name, sensitive in (("a", "redact"), ("b", "keep")):
        with serving(tmp_path / f"{name}.db", sensitive=sensitive) as served:
            details = {"agent_instance_id": served.run()["id"], "schema_name": "x", "status": "active"}
            span = served.post(
                "/agent_spans", details={**details, "payload": {"to": wrapper}, "sensitive_encoding": True}
            )
        kept = wrapper if sensitive == "keep" else {**wrapper, "value": R}
        assert (span["payload"], span["sensitive_encoding"]) == ({"to": kept}, True)


def test_nothing_is_cut_and_every_level_is_looked_at(served: Served) -> None:
    run = served.run()
    deep: Any = {"password": "hunter2!", "text": "x" * 300_000, "list": [*range(20_000)]}
    for _ in range(480):
        deep = [deep]
    details = {"agent_instance_id": run["id"], "schema_name": "x", "status": "active", "payload": {"deep": deep}}
    span: Any = served.post("/agent_spans", details=details)["payload"]["deep"]
    while type(span) is list:
        (span,) = span
    assert span == {"password": R, "text": "x" * 300_000, "list": [*range(20_000)]}


def test_keys_of_which_the_same_is_left_are_numbered() -> None:
    sent = {f"sk-proj-a1b2c3d4e5f6g7h8{number:05}": number for number in range(3000)}
    text, cleaned = SentRedaction().cleaned(sent)
    assert json.loads(text) == cleaned
    assert [*cleaned.values()] == [*sent.values()]
    assert [*cleaned][:3] == [R, f"{R}'2", f"{R}'3"]
    assert max(map(len, cleaned)) < 20  # one more quote for each would take the square of them


NAMES = st.sampled_from(["password", "said", "headers", "auth", "name", "value", "credentials", "type", "token", KEY])
TEXTS = st.sampled_from(["Authorization", KEY, "mia", f"key={KEY}", "password: 'hunter2!'", "", "\ud800", "ß"])
VALUES = st.recursive(
    st.one_of(TEXTS, st.integers(-5, 5), st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=12,
)


@given(value=st.dictionaries(NAMES, VALUES, max_size=4))
def test_it_redacts_as_recording_does(value: dict[str, Any]) -> None:
    """Lists under `auth` are left out: recording takes a tuple for a login, and JSON has none."""
    if '"auth"' in json.dumps(value):
        return
    recorded = json.loads(Capture(Limits(), Redaction()).object(value))
    text, plain = SentRedaction().cleaned(value)
    assert plain == json.loads(text)
    assert plain == recorded or "\\ud800" in json.dumps(value)
