"""Requests for each operation of an OpenAPI document: its examples, and each of them with one fault.

What a request changes is made anew for the next one, so that no answer depends on another request, but those of lists.
"""

import copy
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from agentspan.database import Database
from agentspan.model.changes import SpanStatus
from agentspan.serve import openapi

API = "/api/v1"
UNKNOWN = "013xrzp12g3nqk8nzzzzzzzzzzzzzzzz"
WRONG: tuple[Any, ...] = (None, 7, "x", [], {})
"""Values of which a field refuses some."""
QUALITY = {"name": "helpfulness", "schema": {"type": "object"}, "template": "{{score}} of 1"}
NO_JSON = (b"", b"{", b"[]", b'"text"', b'{"a":NaN}')


class Request(NamedTuple):
    """A request of an operation, and what is wrong with it."""

    operation: str
    method: str
    path: str
    what: str
    query: Mapping[str, Any] = {}
    body: Any = None


def requests(document: dict[str, Any]) -> Iterator[Request]:
    """Yield requests for all operations, in the document's order."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield from _of(document, method.upper(), path, operation)


def _of(document: dict[str, Any], method: str, path: str, operation: dict[str, Any]) -> Iterator[Request]:
    parameters = operation.get("parameters", ())
    query = {each["name"]: each["example"] for each in parameters if each["in"] == "query" and each.get("required")}
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    bodies = {name: example["value"] for name, example in content.get("examples", {}).items()}
    right = Request(f"{method} {path}", method, path, "", query, next(iter(bodies.values()), None))
    for name, body in bodies.items() or [("", None)]:
        yield right._replace(what=f"example {name}".strip(), body=body)
    yield from _with_other_parameters(right, parameters)
    for body in NO_JSON if bodies else ():
        yield right._replace(what="no JSON object", body=body)
    for what, body in _changed(right.body, _schema(document, content.get("schema", {})), document):
        yield right._replace(what=what, body=body)


def _with_other_parameters(right: Request, parameters: Any) -> Iterator[Request]:
    for parameter in parameters:
        name, of_path = parameter["name"], parameter["in"] == "path"
        for value in ("x", UNKNOWN, openapi.AGENT) if of_path else (parameter["example"], "x", "-1", ""):
            if of_path:
                yield right._replace(what=f"{name}={value}", path=right.path.replace(f"{{{name}}}", value))
            elif parameter["in"] == "query":
                yield right._replace(what=f"{name}={value}", query={**right.query, name: value})
    without = {name: value for name, value in right.query.items() if name != next(iter(right.query), None)}
    if right.query:
        yield right._replace(what="without its first parameter", query=without)
    yield right._replace(what="an unknown parameter", query={**right.query, "colour": "red"})


def _changed(body: Any, schema: dict[str, Any], document: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield an example with one change each: a member more or less, of another type, or unknown; also in `details`."""
    if not isinstance(body, dict):
        return
    for name, about in schema.get("properties", {}).items():
        values = (..., *WRONG) if name in body else (*about.get("examples", ())[:1], *WRONG)
        for value in values:
            changed = copy.deepcopy(body)
            if value is ...:
                del changed[name]
            else:
                changed[name] = value
            yield f"without {name}" if value is ... else f"{name}={value!r}", changed
        if name == "details":
            inner = _schema(document, about)
            for what, details in _changed(body.get(name, {}), inner, document):
                yield f"details: {what}", {**body, name: details}
    yield "an unknown member", {**body, "colour": "red"}


def _schema(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema, or the one that it names; of several the first."""
    while "$ref" in schema or "anyOf" in schema:
        schema = schema["anyOf"][0] if "anyOf" in schema else document["components"]["schemas"][schema["$ref"][21:]]
    return schema


class World:
    """A file with what requests name: an agent, a run that is active, and a span. New ones when they were changed."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._number = 0
        self._of = ""
        self._known: dict[str, str] = {}
        self._named: Mapping[str, str | None] = {}

    def fitted(self, request: Request) -> tuple[str, Any]:
        """Return the path and the body of a request, with the ids of rows that are there."""
        if self._of != request.operation:
            self._of = request.operation
            self._make(request)
        path = re.sub(r"\{(\w+)\}", lambda match: str(self._named.get(match[1], "x")), request.path)
        return path, _replaced(request.body, self._known)

    def renew(self) -> None:
        """Note that a request has changed what is there."""
        self._of = ""

    def _make(self, request: Request) -> None:
        self._number += 1
        agent = self._db.agents.create(f"agent {self._number}", external_identifier=f"agent-{self._number}")
        version = {"span_type_schemas": [], "quality_schemas": [QUALITY]}
        run = self._db.agent_instances.register(agent.id, agent_schema_version=version)
        if not re.search(r"instance_id\}/start$", request.path):
            self._db.agent_instances.start(run.id)
        status: SpanStatus = "pending" if request.path.endswith("span_id}/start") else "active"
        span = self._db.agent_spans.create(run.id, "llm", status, {})
        if request.path.endswith("/reinstate"):
            self._db.agents.retire(agent.id)
        known = {openapi.AGENT: agent.id, openapi.INSTANCE: run.id, openapi.SPAN: span.id}
        of_versions = {"agent_version_id": run.agent_version_id, "agent_schema_version_id": run.agent_schema_version_id}
        known |= {openapi.FIELDS[name]: id or "" for name, id in of_versions.items()}
        named = {"agent_id": agent.id, "agent_instance_id": run.id, "agent_span_id": span.id, **of_versions}
        named |= {name: openapi.FIELDS[name] for name in ("account_id", "environment_id", "agent_deployment_id")}
        self._known, self._named = known, named
        time.sleep(0.002)  # ids of a later millisecond come later, whoever makes them


def _replaced(value: Any, known: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(item, known) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, known) for item in value]
    return known.get(value, value) if isinstance(value, str) else value
