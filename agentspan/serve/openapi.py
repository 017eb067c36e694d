"""The OpenAPI document: FastAPI's document of the routes, with descriptions from docstrings, and examples."""

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from agentspan.model import pages, resources, status
from agentspan.operations import agent_instances, agent_schema_versions, agent_spans, agents
from agentspan.serve import examples, quality_models, request_models, response_models, score_models

_ATTRIBUTE = re.compile(r"    (\w+): (.*(?:\n        \s*.*)*)")
_REF = "#/components/schemas/"

PARAMETERS: Mapping[str, str] = {
    "account_id": "PFID of the account.",
    "agent_deployment_id": "PFID of the deployment.",
    "sorting": "Accepted, without effect: the list is empty.",
    "severity": "Accepted, without effect: a file has no alerts.",
    "agent_id": "PFID of the agent.",
    "agent_span_id": "PFID of the span.",
    "agent_instance_id": "PFID of the instance.",
    "agent_version_id": "PFID of the agent version.",
    "agent_schema_version_id": "PFID of the schema version.",
    "external_identifier": "The client's own name for the agent.",
    "start_time": "RFC 3339 with an offset: the earliest start (else creation) that counts.",
    "end_time": "RFC 3339 with an offset: the first start (else creation) that no longer counts.",
    "environment_id": "PFID of the environment. A file has one, so this selects everything.",
    "status": "Only those in this status.",
    "purpose": "Only those with this purpose.",
    "schema_name": "Only spans of this type.",
    "include_summaries": "Whether the items have their summaries.",
    "include_history": "Whether scores are listed, too, that a newer one replaced or withdrew.",
    "include_risk_level": "Accepted, without effect: a file has no risk levels, so they are null.",
    "include_risk_score": "Accepted, without effect: a file has no risk scores, so they are null.",
    "include_risk_rollup": "Accepted, without effect: a file has no risks.",
    "include_counts": "Accepted, without effect: counts are always there.",
    "include_costs": "Accepted, without effect: costs are always there.",
    "sorting[direction]": "The order of `sorting[field]`.",
    "pagination[offset]": "Items before the page.",
    "pagination[page_size]": "Items of the page.",
}
SORTABLE: Mapping[str, frozenset[str]] = {
    "list_agents": agents.SORTABLE,
    "list_agent_versions": agents.SORTABLE_VERSIONS,
    "list_schema_versions": agent_schema_versions.SORTABLE,
    "list_instances": agent_instances.SORTABLE,
    "list_spans": agent_spans.SORTABLE,
}
STATUSES: Mapping[str, tuple[str, ...]] = {
    "list_agents": status.AGENT_STATUSES,
    "list_instances": status.INSTANCE_STATUSES,
    "list_spans": status.SPAN_STATUSES,
}
ACTIONS: Mapping[str, str] = {
    name: f"Whether {name} would succeed now." for name in ("update", "retire", "reinstate", "delete")
}
TIMES = frozenset({"timestamp", "started_at", "finished_at", "start_time", "end_time"})
"""Fields whose form only operations check, so that requests describe it in words: RFC 3339."""
ONLY_WITH_BODY = ("409", "413", "415")
"""Statuses with which a request without a body is never answered."""


KEY: Mapping[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 64},
    "description": "Counts like `idempotency_key` in the body; if both are there, they must be equal.",
    "example": examples.FIELDS["idempotency_key"],
}

GENERATED: Mapping[str, Any] = {"boolean": True, "integer": 1, "number": 1.0, "string": "text"}
"""What stands for a field without an example, by its type. A test names such fields; the document is served anyway."""


def document(app: FastAPI, fields: Mapping[str, Any] = examples.FIELDS) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the application.

    Args:
        fields: examples of fields, by name.
    """
    found = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=app.description,
        routes=app.routes,
        openapi_version="3.1.0",
    )
    components: dict[str, Any] = found["components"]
    components["schemas"].update(_bulk())
    components["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "Where the server was given a token."}
    }
    described = {model.__name__: (_about(model), dict(_attributes(model))) for model in _models()}
    for name, schema in components["schemas"].items():
        _complete_schema(name.partition("_")[0], schema, described, fields)
    for path in found["paths"].values():
        for method, operation in path.items():
            _complete_operation(method, operation, components["schemas"], fields)
    return found


def _complete_schema(
    model: str,
    schema: dict[str, Any],
    described: Mapping[str, tuple[str, dict[str, str]]],
    fields: Mapping[str, Any],
) -> None:
    about, attributes = described[model]
    schema["description"] = about
    for field, property in schema.get("properties", {}).items():
        text = attributes.get(field)
        if text is None and model.endswith("Counts"):
            text = f"How many {'there are' if field == 'total' else f'are {field}'}."
        elif text is None and model == "AvailableActions":
            text = ACTIONS[field]
        if text is not None:
            property.setdefault("description", text)
        if field in TIMES:
            for option in property.get("anyOf", [property]):
                if option.get("type") == "string":
                    option["format"] = "date-time"
        if "const" in property:
            property["examples"] = [property["const"]]
            if field not in schema.setdefault("required", []):
                schema["required"].append(field)  # pydantic takes what has a default for optional
        elif (example := _example(model, field, property, fields)) is not None:
            property["examples"] = [example]


def _example(model: str, field: str, property: Mapping[str, Any], fields: Mapping[str, Any]) -> Any:
    example = examples.MODELS.get((model, field), fields.get(field))
    return example if example is not None and _fits(example, property) else None


def _complete_operation(
    method: str, operation: dict[str, Any], schemas: Mapping[str, Any], fields: Mapping[str, Any]
) -> None:
    name = operation["operationId"] = operation["operationId"].partition("_api_v1")[0]
    operation["security"] = [{"token": []}, {}]
    for parameter in operation.get("parameters", ()):
        _complete_parameter(name, parameter, fields)
    body = operation.get("requestBody")
    if body is not None and name not in ("run_bulk", "generate_pfids"):
        operation.setdefault("parameters", []).append(KEY)
    if body is not None:
        content = body["content"]["application/json"]
        if name == "run_bulk":
            content["schema"] = {"$ref": f"{_REF}Bulk"}
        content["schema"] = content["schema"].get("anyOf", [content["schema"]])[0]  # an empty body is no body, not null
        content["examples"] = {title: {"value": value} for title, value in examples.REQUESTS.get(name, {}).items()}
    responses = operation["responses"]
    if body is None and method != "delete":
        for status in ONLY_WITH_BODY:
            del responses[status]
    for status, response in responses.items():
        content = response["content"]["application/json"]
        if status == "200":
            response["description"] = "Success"
            content["example"] = sample(content["schema"], schemas, fields)
        else:
            content["example"] = {"status": "error", **examples.ERRORS[status]}
    responses["503"]["headers"] = {
        "Retry-After": {"description": "Seconds to wait before the next attempt.", "schema": {"type": "integer"}}
    }


def _complete_parameter(operation: str, parameter: dict[str, Any], fields: Mapping[str, Any]) -> None:
    name = parameter["name"]
    parameter["description"] = PARAMETERS.get(name, "")
    if name in ("sorting", "sorting[field]") and operation in SORTABLE:
        sortable = sorted(SORTABLE[operation])
        with_sign = [f"-{field}" for field in sortable] if name == "sorting" else []
        parameter["description"] = "The field to sort by; with - in front for descending."
        if not with_sign:
            parameter["description"] = "The field to sort by, in the form that has its direction beside it."
        parameter["schema"] = {"type": "string", "enum": [*sortable, *with_sign]}
    elif name == "sorting[direction]":
        parameter["schema"] = {"type": "string", "enum": ["asc", "desc"]}
    elif name == "status" and operation in STATUSES:
        parameter["schema"] = {"type": "string", "enum": [*STATUSES[operation]]}
    elif name == "purpose":
        parameter["schema"] = {"type": "string", "enum": [*status.PURPOSES]}
    if name in TIMES:
        parameter["schema"] = {"type": "string", "format": "date-time"}
    parameter["example"] = fields.get(name) or sample(parameter["schema"], {}, fields)
    if "enum" in parameter["schema"] and parameter["example"] not in parameter["schema"]["enum"]:
        parameter["example"] = parameter["schema"]["enum"][0]


def sample(schema: Mapping[str, Any], schemas: Mapping[str, Any], fields: Mapping[str, Any]) -> Any:
    """Return an example of a schema, made of those of its fields."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_REF)
        return {**sample(schemas[name], schemas, fields), **examples.WHOLE.get(name, {})}
    for key in ("examples", "enum"):
        if key in schema:
            return schema[key][0]
    if "default" in schema:
        return schema["default"]
    if "anyOf" in schema:
        return sample(schema["anyOf"][0], schemas, fields)
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            return {
                field: sample(property, schemas, fields) for field, property in properties.items() if field != "control"
            }
        case "array":
            return [sample(schema["items"], schemas, fields)]
        case "string" if schema.get("format") == "date-time":
            return fields["timestamp"]
        case kind:
            return GENERATED.get(str(kind))


def _bulk() -> dict[str, Any]:
    """Return the schemas of the bulk request, which the route reads by itself."""
    made = request_models.Bulk.model_json_schema(ref_template=_REF + "{model}")
    return {**made.pop("$defs"), "Bulk": made}


def _fits(example: Any, schema: Mapping[str, Any]) -> bool:
    """Return whether an example is of a type that the schema allows: a name can mean two things."""
    kinds = {str: "string", int: "integer", float: "number", bool: "boolean", dict: "object", list: "array"}
    options = schema.get("anyOf", [schema])
    kind = kinds[type(example)]
    return any(_type(option, kind) == kind and _in_enum(example, option) for option in options)


def _type(option: Mapping[str, Any], otherwise: str) -> Any:
    return None if "$ref" in option else option.get("type", otherwise)


def _in_enum(example: Any, option: Mapping[str, Any]) -> bool:
    return "enum" not in option or example in option["enum"]


def _models() -> Iterator[type[BaseModel]]:
    for module in (pages, resources, quality_models, request_models, response_models, score_models):
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, BaseModel):
                yield value


def _about(model: type[BaseModel]) -> str:
    """Return the text of a docstring before its Attributes."""
    text, _, _ = inspect.cleandoc(model.__doc__ or "").partition("Attributes:\n")
    return " ".join(text.split())


def _attributes(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Return the descriptions of fields, from the Attributes of a docstring."""
    _, _, text = inspect.cleandoc(model.__doc__ or "").partition("Attributes:\n")
    for name, description in _ATTRIBUTE.findall(text):
        field = model.model_fields.get(name) or model.model_fields.get(f"{name}_")
        alias = field.alias if field is not None and field.alias else name
        said = re.sub(r"\bNone\b", "null", " ".join(description.split()))
        yield alias, said[:1].upper() + said[1:]
