"""The OpenAPI document: what FastAPI makes of the routes, with the descriptions of our docstrings and examples."""

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from agentspan.model import resources
from agentspan.serve import bodies, envelopes

_ATTRIBUTE = re.compile(r"    (\w+): (.*(?:\n        \s*.*)*)")

EXAMPLES: Mapping[str, Any] = {
    "id": "013xrzp12g3nqk8ndr93q068mw7y0nv0",
    "account_id": "013xrzp12g3nqk8ngskn1wtxgka5b0nf",
    "agent_id": "013xrzp12g3nqk8nx0y2vfkg4s3jp2qr",
    "agent_instance_id": "013xrzp12g3nqk8n4evtrcj59k8dhn3t",
    "agent_span_id": "013xrzp12g3nqk8ndr93q068mw7y0nv0",
    "parent_span_id": "013xrzp12g3nqk8ndr93q068mw7y0nv0",
    "agent_version_id": "013xrzp12g3nqk8n6kdc7z1q0v3m8y2a",
    "agent_schema_version_id": "013xrzp12g3nqk8n2f9w5c8t7r1d4e6b",
    "environment_id": "013xrzp12g3nqk8nq4p7v0s2x5z8b1c3",
    "agent_deployment_id": "013xrzp12g3nqk8nd6f9h2k5m8q1t4w7",
    "writer_id": None,
    "closed_by": None,
    "schema_name": "llm",
    "schema_title": "LLM",
    "payload": {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hi"}]},
    "result_payload": {"text": "Hello!", "input_tokens": 8, "output_tokens": 3},
    "summary": 'LLM gpt-4.1: 8→3 tok "Hello!"',
    "label": "gpt-4.1",
    "input_tokens": 8,
    "output_tokens": 3,
    "cost_usd": 0.00004,
    "duration_ms": 812.5,
    "started_at": "2024-01-01T00:00:00Z",
    "finished_at": "2024-01-01T00:00:01Z",
    "inserted_at": "2024-01-01T00:00:00Z",
    "updated_at": "2024-01-01T00:00:01Z",
    "timestamp": "2024-01-01T00:00:01Z",
    "start_time": "2024-01-01T00:00:00Z",
    "end_time": "2024-01-02T00:00:00Z",
    "idempotency_key": "finish-013xrzp12g3nqk8n",
    "reason": "costs more than it may",
    "termination_reason": None,
    "name": "researcher",
    "title": "Researcher",
    "description": "Finds things out",
    "external_identifier": "researcher-1",
    "template": "Charge {{amount}}",
    "purpose": "live",
    "metadata": {"ticket": "A-17"},
    "result": {"output": "done"},
    "error": None,
    "sorting": "-started_at",
    "content_hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "message": "agent span 013xrzp12g3nqk8ndr93q068mw7y0nv0 is complete: only an active one can become complete",
    "code": "invalid_action",
    "_type": "agent_spans/finish",
    "count": 1,
    "pfids": ["013xrzp12g3nqk8ndr93q068mw7y0nv0"],
    "terminate": True,
    "type": None,
}


def document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the application."""
    found = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=app.description,
        routes=app.routes,
        openapi_version="3.1.0",
    )
    described = _descriptions()
    for name, schema in found.get("components", {}).get("schemas", {}).items():
        model = name.partition("_")[0]
        for field, about in schema.get("properties", {}).items():
            text = described.get(model, {}).get(field)
            if text and "description" not in about:
                about["description"] = text
            example = EXAMPLES.get(field)
            if example is not None and "examples" not in about and "const" not in about and _fits(example, about):
                about["examples"] = [example]
    for path in found["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", ()):
                _describe_parameter(parameter)
            operation["security"] = [{"token": []}, {}]
    found.setdefault("components", {})["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return found


PARAMETERS: Mapping[str, str] = {
    "agent_id": "PFID of the agent",
    "agent_span_id": "PFID of the span",
    "agent_instance_id": "PFID of the instance",
    "agent_version_id": "PFID of the agent version",
    "agent_schema_version_id": "PFID of the schema version",
    "external_identifier": "The client's own name for the agent",
    "start_time": "RFC 3339 with an offset: the earliest start (else creation) that counts",
    "end_time": "RFC 3339 with an offset: the first time that no longer counts",
    "include_summaries": "Whether the items have their summaries",
    "sorting": "A field, with - in front for descending",
    "pagination[offset]": "Items before the page",
    "pagination[page_size]": "Items of the page",
}


def _describe_parameter(parameter: dict[str, Any]) -> None:
    name = parameter["name"]
    parameter.setdefault("description", PARAMETERS[name])
    example = EXAMPLES.get(name)
    if example is not None:
        parameter.setdefault("example", example)


def _fits(example: Any, schema: Mapping[str, Any]) -> bool:
    """Tell whether an example is of a type that the schema allows: a name can mean two things."""
    kinds = {str: "string", int: "integer", float: "number", bool: "boolean", dict: "object", list: "array"}
    options = schema.get("anyOf", [schema])
    return any(option.get("type") == kinds[type(example)] and _in_enum(example, option) for option in options)


def _in_enum(example: Any, option: Mapping[str, Any]) -> bool:
    return "enum" not in option or example in option["enum"]


def _descriptions() -> dict[str, dict[str, str]]:
    """Return the descriptions of fields by model and field, from the Attributes of docstrings."""
    return {model.__name__: dict(_attributes(model)) for model in _models()}


def _models() -> Iterator[type[BaseModel]]:
    for module in (resources, bodies, envelopes):
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, BaseModel):
                yield value


def _attributes(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    _, _, text = inspect.cleandoc(model.__doc__ or "").partition("Attributes:\n")
    for name, description in _ATTRIBUTE.findall(text):
        field = model.model_fields.get(name) or model.model_fields.get(f"{name}_")
        alias = field.alias if field is not None and field.alias else name
        said = " ".join(description.split())
        yield alias, said[:1].upper() + said[1:]
