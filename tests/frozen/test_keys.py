"""The hashes of requests that have an idempotency key: stored ones must match the same request of a later version."""

from collections.abc import Iterator, Sequence
from typing import Any

import agentspan
from agentspan.model.changes import Outcome, Unit
from agentspan.serve import create_app
from tests.frozen import frozen
from tests.serve.asgi import Client

AGENT, RUN, SPAN, OTHER = (f"013xrzp12g3nqk8n4evtrcj59k8dhn3{end}" for end in "abcd")
AT = "2026-01-01T00:00:00+02:00"
OWNERS = {"owner_person_id": "p", "team_id": "t", "risk_profile_id": "r"}
VERSION = {"external_identifier": "1", "name": "one", "description": "d", "runtime_environment": {"python": "3.12"}}
QUALITY = {"name": "helpfulness", "schema": {"type": "object"}, "template": "{{score}} of 1"}
SCHEMAS = {
    "external_identifier": "s",
    "span_type_schemas": [{"name": "app:charge", "params_schema": {"type": "object"}, "template": "{{n}}"}],
    "span_schemas": {"app:refund": {"type": "object"}},
    "span_result_schemas": {"app:refund": {"type": "object"}},
    "quality_schemas": [QUALITY],
    "quality_schema": {"schema": {"type": "object"}, "title": "Checks"},
}
ABOUT = {"session": "s", "user": "u", "task": "t", "tags": ["a", "b", "a"]}
TIMES = {"started_at": AT, "finished_at": "2026-01-01T00:00:01Z"}
MARKED = {"payload": {"a": 1.0, "b": [2, None]}, "result_payload": {"c": "é"}, "sensitive_encoding": True}
STEP = {"agent_instance_id": RUN, "schema_name": "tool"}
SCORE = {"name": "reward", "value": 1, "label": "good", "explanation": "why", "source": "human", "identifier": "mia"}

WRITES: tuple[tuple[str, str, Any], ...] = (
    ("POST", "/agent", {"details": {"name": "one", "id": AGENT}}),
    ("POST", "/agent", {"details": {"name": "two", "description": "d", "external_identifier": "e", **OWNERS}}),
    ("PUT", f"/agent/{AGENT}", {"details": {"name": "three"}}),
    ("PUT", f"/agent/{AGENT}", {"details": {"name": "four", "description": "d", **OWNERS}}),
    ("POST", f"/agent/{AGENT}/retire", {}),
    ("POST", f"/agent/{AGENT}/reinstate", {}),
    ("POST", "/agent_schema_version", {"details": {"agent_id": AGENT}}),
    ("POST", "/agent_schema_version", {"details": {"agent_id": AGENT, **SCHEMAS}}),
    ("POST", "/agent_instance/register", {"agent_id": AGENT, "id": RUN, "agent_schema_version": {}}),
    (
        "POST",
        "/agent_instance/register",
        {
            "agent_id": AGENT,
            "environment_id": "any",
            "agent_version": VERSION,
            "agent_schema_version": SCHEMAS,
            "external_identifier": "run",
            "update_current_version": True,
            "purpose": "eval",
            "metadata": {"session": "m", "n": 1.0},
            **ABOUT,
        },
    ),
    ("POST", "/agent_instance/register", {"agent_id": AGENT, "agent_schema_version": {}, "metadata": ABOUT}),
    ("POST", f"/agent_instance/{RUN}/start", {"timestamp": AT}),
    ("PUT", f"/agent_instance/{RUN}", {"details": {"quality_payload": {"n": 1}}}),
    ("PUT", f"/agent_instance/{RUN}", {"details": {"quality_payload": None}}),
    ("PUT", f"/agent_instance/{RUN}", {"details": {"metadata": {"task": "m"}, "session": None, "tags": None}}),
    ("PUT", f"/agent_instance/{RUN}", {"details": {"metadata": None, **ABOUT}}),
    ("POST", f"/agent_instance/{RUN}/scores", {"name": "reward", "value": True}),
    ("POST", f"/agent_instance/{RUN}/scores", {"name": "reward", "withdraw": True}),
    ("POST", "/agent_spans", {"details": {**STEP, "status": "pending", "id": SPAN}}),
    ("POST", "/agent_spans", {"details": {**STEP, "status": "complete", "id": OTHER, **TIMES, **MARKED}}),
    ("POST", "/agent_spans", {"details": {**STEP, "status": "active", "parent_span_id": SPAN}}),
    ("POST", "/agent_spans", {"details": {**STEP, "status": "active", "sensitive_encoding": False}}),
    ("POST", f"/agent_spans/{SPAN}/start", {}),
    ("POST", f"/agent_spans/{SPAN}/scores", SCORE),
    ("POST", f"/agent_spans/{SPAN}/finish", {"status": "failed", "timestamp": "2099-01-01T00:00:00Z", **MARKED}),
    ("POST", f"/agent_instance/{RUN}/finish", {}),
)
"""Requests that all succeed, in this order."""


class Noting(agentspan.MemoryStorage):
    """A storage in memory that notes the keys of what is applied."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[str] = []

    def apply(self, units: Sequence[Unit], **how: Any) -> list[Outcome]:
        self.noted += [f"{unit.key.operation} {unit.key.request_hash}" for unit in units if unit.key is not None]
        return super().apply(units, **how)


def test_the_hash_of_each_request_is_the_same() -> None:
    frozen.check("keys.txt", "\n".join(_lines()) + "\n")


def _lines() -> Iterator[str]:
    storage = Noting()
    with agentspan.open(storage) as db, Client(create_app(db)) as client:
        for number, (method, path, body) in enumerate(WRITES):
            keyed = {**body, "idempotency_key": f"number-{number}"}
            response = client.request(method, f"/api/v1{path}", json=keyed)
            assert response.status_code == 200, (path, response.text)
            yield f"{method} {path} {storage.noted[-1]}"
        for number, (name, fields) in enumerate(_by_id()):
            part, _, method = name.partition(".")
            getattr(getattr(db, part), method)(**fields, idempotency_key=f"by-id-{number}")
            yield f"{name} {storage.noted[-1]}"


def _by_id() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "agents.update", {"agent_id": AGENT, "name": "five"}
    yield "agent_instances.register", {"agent_id": AGENT, "agent_schema_version": {}, "tags": ["x"]}
    yield "agent_instances.record_quality", {"agent_instance_id": RUN, "name": "q", "payload": {"n": 1}}
    yield "agent_instances.record_quality", {"agent_instance_id": RUN, "name": "q"}
    yield "agent_spans.create", {"agent_instance_id": RUN, "schema_name": "tool", "status": "active"}
    yield "scores.record", {"target_id": RUN, "name": "reward", "value": 0.5, "by": "model"}
    registered = {"agent_id": AGENT, "id": "013xrzp12g3nqk8n4evtrcj59k8dhn3e", "agent_schema_version": {}}
    yield "agent_instances.register", registered
    yield "agent_instances.start", {"agent_instance_id": registered["id"]}
    yield "agent_instances.terminate", {"agent_instance_id": registered["id"], "reason": "too dear"}
