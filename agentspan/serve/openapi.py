"""The OpenAPI document, made from the declarations of the operations and the models of resources, with examples.

There are examples of each field by its name, of requests by their route, of errors by their status. A field of a single
resource may have its example in `api/resources.py` instead. Fields on the page "Finish an agent span" have the examples
of that page.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from agentspan import __version__
from agentspan.api import resources
from agentspan.api.bulk import RunBulk
from agentspan.api.operation import Listing, Operation, Write
from agentspan.ids import FORM
from agentspan.model import changes
from agentspan.serve.bodies import MODELS, about, attributes, body_model, query_model
from agentspan.serve.responses import ENVELOPES, ContextBody, Error, FieldError, Sorting
from agentspan.serve.router import OPERATIONS, PREFIX

AGENT = "013xrzp12g3nqk8nx0y2vfkg4s3jp2qr"
INSTANCE = "013xrzp12g3nqk8n4evtrcj59k8dhn3t"
SPAN = "013xrzp12g3nqk8ndr93q068mw7y0nv0"

FIELDS: Mapping[str, Any] = {
    "id": SPAN,
    "account_id": "013xrzp12g3nqk8ngskn1wtxgka5b0nf",
    "agent_id": AGENT,
    "agent_instance_id": INSTANCE,
    "agent_span_id": SPAN,
    "parent_span_id": SPAN,
    "agent_version_id": "013xrzp12g3nqk8n6kdc7z1q0v3m8y2a",
    "current_version_id": "013xrzp12g3nqk8n6kdc7z1q0v3m8y2a",
    "agent_schema_version_id": "013xrzp12g3nqk8n2f9w5c8t7r1d4e6b",
    "environment_id": "013xrzp12g3nqk8nq4p7v0s2x5z8b1c3",
    "agent_deployment_id": "013xrzp12g3nqk8nd6f9h2k5m8q1t4w7",
    "writer_id": "013xrzp12g3nqk8nv3r8w1x6y9z2a5b7",
    "closed_by": "abandoned",
    "closed_at": "2026-01-01T00:00:00.000000Z",
    "ended_late": False,
    "git_commit": "9fceb02d0ae598e95dc970b74767f19372d61af8",
    "session": "trip-7",
    "value": 0.9,
    "source": "model",
    "identifier": "judge-2",
    "explanation": "all constraints of the trip are met",
    "withdraw": False,
    "target_type": "agent_instance",
    "target_id": INSTANCE,
    "scores": [],
    "task": "book-a-trip",
    "tags": ["nightly"],
    "git_dirty": False,
    "user": "mia",
    "payload_byte_size_estimate": 151,
    "total_cost": 0.00004,
    "by_model": {"gpt-4.1": 0.00004},
    "span_schema_counts": {"llm": 1, "tool": 1},
    "risk_level": "low",
    "risk_score": 0.1,
    "sensitive_encoding": False,
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
    "finished_at": "2024-01-01T00:00:00Z",
    "inserted_at": "2024-01-01T00:00:00Z",
    "updated_at": "2024-01-01T00:00:00Z",
    "timestamp": "2024-01-01T00:00:00Z",
    "start_time": "2024-01-01T00:00:00Z",
    "end_time": "2024-01-02T00:00:00Z",
    "idempotency_key": "finish-013xrzp12g3nqk8n",
    "reason": "costs more than it may",
    "path": "$.messages[0].role",
    "keyword": "type",
    "termination_reason": "costs more than it may",
    "name": "researcher",
    "title": "Researcher",
    "description": "Finds things out",
    "external_identifier": "researcher-1",
    "owner_person_id": "013xrzp12g3nqk8n2v7q4c9x5m1t8b3k",
    "team_id": "013xrzp12g3nqk8n7h4z1w6s9p2r5d8f",
    "risk_profile_id": "013xrzp12g3nqk8n5j8m3y6k1v4x9q2c",
    "template": "Charge {{amount}}",
    "result_template": "{% if approved %}approved{% else %}declined{% endif %}",
    "purpose": "live",
    "metadata": {"ticket": "A-17"},
    "result": {"output": "done"},
    "error": {"type": "TimeoutError", "message": "no answer within 30 s", "stacktrace": ""},
    "sorting": "-inserted_at",
    "content_hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "message": "the body must be a JSON object",
    "_type": "agent_spans/finish",
    "count": 1,
    "pfids": [SPAN],
    "params_schema": {"type": "object", "properties": {"amount": {"type": "number"}}, "required": ["amount"]},
    "result_schema": {"type": "object"},
    "schema": {"type": "object", "properties": {"score": {"type": "number"}}},
    "span_schemas": {"app:charge": {"type": "object", "properties": {"amount": {"type": "number"}}}},
    "span_result_schemas": {"app:charge": {"type": "object"}},
    "data_risk": {"level": "low"},
    "runtime_environment": {"python": "3.12"},
    "quality_payloads": {"helpfulness": {"score": 0.9}},
    "quality_summaries": {"helpfulness": "0.9 of 1"},
    "quality_payload": {"report": "9 of 10 checks passed"},
    "quality_summary": "9 of 10 checks passed",
    "quality_schema": {"schema": {"type": "object"}, "template": "{{report}}"},
    "include_summaries": True,
    "include_history": True,
    "pagination[offset]": 0,
    "pagination[page_size]": 50,
    "external_id": "researcher-1",
    "field": "inserted_at",
}
"""Examples by field name, for every schema and parameter with a field of that name that takes such a value."""

OF_MODELS: Mapping[tuple[str, str], Any] = {
    ("AgentSpan", "status"): "active",
    ("FinishSpan", "status"): "complete",
    ("SpanForCreate", "status"): "active",
    ("Error", "code"): "bad_request",
    ("Account", "id"): "013xrzp12g3nqk8ngskn1wtxgka5b0nf",
    ("Account", "name"): "local",
    ("Environment", "id"): "013xrzp12g3nqk8nq4p7v0s2x5z8b1c3",
    ("Environment", "name"): "local",
    ("AgentDeployment", "id"): "013xrzp12g3nqk8nd6f9h2k5m8q1t4w7",
    ("SpanTypeSchema", "name"): "app:charge",
    ("SpanTypeSchema", "title"): "Charge",
    ("SpanTypeSchema", "description"): "Charges a card",
    ("QualitySchema", "name"): "helpfulness",
    ("QualitySchema", "title"): "Helpfulness",
    ("QualitySchema", "template"): "{{score}} of 1",
    ("UnnamedQualitySchema", "title"): "Checks",
    ("UnnamedQualitySchema", "template"): "{{report}}",
    ("RecordQuality", "name"): "helpfulness",
    ("Score", "name"): "reward",
    ("Score", "label"): "good",
    ("RecordScore", "name"): "reward",
    ("RecordScore", "label"): "good",
    ("RecordQuality", "payload"): {"score": 0.9},
    ("Agent", "id"): AGENT,
    ("AgentForCreate", "id"): AGENT,
    ("AgentInstance", "id"): INSTANCE,
    ("RegisterInstance", "id"): INSTANCE,
    ("AgentVersion", "id"): FIELDS["agent_version_id"],
    ("AgentSchemaVersion", "id"): FIELDS["agent_schema_version_id"],
    ("AgentSchemaVersion", "span_type_schemas"): [{"name": "app:charge", "title": "Charge"}],
    ("AgentSchemaVersion", "quality_schemas"): [{"name": "helpfulness", "schema": {"type": "object"}}],
    ("AgentInstance", "status"): "active",
    ("Agent", "status"): "active",
    ("ContextBody", "body"): {"instance": {"id": INSTANCE}, "agent": {"id": AGENT}, "schema": {}, "spans": []},
    ("BulkOutputs", "outputs"): {"finish-1": {"status": "success", "details": {"type": "agent_span", "id": SPAN}}},
}
"""Examples by schema and field, for fields whose name alone does not determine the example."""

_BY_ID = {"writer_id": None, "closed_by": None, "closed_at": None, "ended_late": False, "risk_score": None}
WHOLE: Mapping[str, Mapping[str, Any]] = {
    "AgentSpan": _BY_ID
    | {
        "status": "complete",
        "parent_span_id": None,
        "finished_at": "2024-01-01T00:00:00.812500Z",
        "updated_at": "2024-01-01T00:00:00.812500Z",
        "risk_level": None,
    },
    "AgentInstance": _BY_ID
    | dict.fromkeys(("finished_at", "termination_reason", "duration_ms", "result", "error", "git_commit"))
    | {"session": None, "task": None, "tags": [], "git_dirty": None, "user": None},
    "AgentDeployment": {"agent_id": None, "current_version_id": None},
    "SpanCounts": {"total": 2, "active": 1, "complete": 1, "finished": 1},
    "InstanceCounts": {"total": 2, "active": 1, "complete": 1, "finished": 1},
    "Pagination": {"item_end": 1, "page_offset": 0, "page_size": 50, "next_page_offset": None}
    | {"previous_page_offset": None},
}
"""The fields that an example of a whole resource has besides the examples of its fields, so that it makes sense."""

_CREATE = {"agent_instance_id": INSTANCE, "schema_name": "llm", "status": "active", "payload": FIELDS["payload"]}
_RESULT = {"result_payload": FIELDS["result_payload"]}

REQUESTS: Mapping[str, Mapping[str, Any]] = {
    "finish_span": {"complete": _RESULT, "cancel a pending span": {"status": "cancelled"}},
    "create_span": {
        "active": {"details": _CREATE},
        "as the TypeScript client": {"details": _CREATE, "idempotency_key": "create-013xrzp12g3nqk8n"},
    },
    "start_span": {"now": {}, "earlier": {"timestamp": FIELDS["timestamp"]}},
    "run_bulk": {
        "create and list": {
            "items": [
                {"_type": "agent_spans/create", "idempotency_key": "create-1", **_CREATE},
                {"_type": "agent_spans/list", "idempotency_key": "list-of-1", "agent_instance_id": INSTANCE},
            ]
        }
    },
    "create_agent": {"agent": {"details": {"name": "researcher", "external_identifier": "researcher-1"}}},
    "update_agent": {"description": {"details": {"description": "Finds things out"}}},
    "retire_agent": {"plain": {}},
    "reinstate_agent": {"plain": {}},
    "create_schema_version": {
        "span types": {
            "details": {
                "agent_id": AGENT,
                "span_type_schemas": [{"name": "app:charge", "params_schema": FIELDS["params_schema"]}],
            }
        }
    },
    "register_instance": {
        "by name": {
            "agent_id": "researcher",
            "agent_version": {"name": "1.2", "external_identifier": "1.2"},
            "agent_schema_version": {"span_schemas": FIELDS["span_schemas"]},
        }
    },
    "start_instance": {"now": {}},
    "finish_instance": {"complete": {}, "failed": {"status": "failed"}},
    "terminate_instance": {"reason": {"reason": FIELDS["reason"]}},
    "update_instance": {"evaluation": {"details": {"quality_payload": {"report": "9 of 10 checks passed"}}}},
    "score_instance": {"reward": {"name": "reward", "value": 1, "source": "code"}},
    "score_span": {"label": {"name": "correct", "label": "good", "source": "human", "identifier": "mia"}},
    "record_quality": {"evaluation": {"name": "helpfulness", "payload": {"score": 0.9}}},
    "generate_pfids": {"two": {"count": 2}},
}
"""Examples of requests, by the name of the operation."""

ERRORS: Mapping[str, Mapping[str, Any]] = {
    "400": {"code": "bad_request", "message": "the body must be a JSON object"},
    "401": {"code": "not_authenticated", "message": "send Authorization: Bearer TOKEN"},
    "403": {"code": "not_permitted", "message": "this server only reads"},
    "404": {"code": "not_found", "message": f"no agent span has the id '{SPAN}'"},
    "409": {
        "code": "invalid_action",
        "message": f"agent span {SPAN} is complete: only an active one can become complete",
    },
    "413": {"code": "bad_request", "message": "the body has more than 10485760 bytes"},
    "415": {"code": "bad_request", "message": "send Content-Type: application/json"},
    "422": {
        "code": "validation_errors",
        "message": "these fields are missing or wrong: status",
        "errors": {
            "status": {"code": "invalid_value", "message": "Input should be 'complete', 'failed' or 'cancelled'"}
        },
    },
    "429": {"code": "not_permitted", "message": "too many wrong tokens; try again after 3 s"},
    "500": {"code": "unexpected", "message": "an unexpected fault; the server's log has more under request 5a1f03c2"},
    "503": {"code": "unknown", "message": "the database is busy; try again"},
}
"""Examples of errors, by HTTP status."""

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
ACTIONS: Mapping[str, str] = {
    name: f"Whether {name} would succeed now." for name in ("update", "retire", "reinstate", "delete")
}
TIMES = frozenset({"timestamp", "started_at", "finished_at", "start_time", "end_time"})
"""Fields with times. Operations check their form, so the document names it in words: RFC 3339."""
ONLY_WITH_BODY = ("409", "413", "415")
"""Statuses with which a request without a body is never answered."""


IDEMPOTENCY_KEY: Mapping[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 64},
    "description": "Counts like `idempotency_key` in the body; if both are there, they must be equal.",
    "example": FIELDS["idempotency_key"],
}

_OF_PARAMETERS = ("type", "anyOf", "maximum", "minimum", "default", "title")
"""The order of the members of a parameter's schema."""
_OF_SCHEMAS = (
    *("$ref", "anyOf", "items", "properties", "additionalProperties", "type", "const", "enum", "format"),
    *("maximum", "minimum", "maxItems", "maxLength", "required", "title", "default"),
)
"""The order of the members of a schema, to which its description and its examples are added."""
GENERATED: Mapping[str, Any] = {"boolean": True, "integer": 1, "number": 1.0, "string": "text"}
"""The value of a field without an example, by its type. A test names such fields; the document is served anyway."""


REFUSALS = {
    "400": "The body is no JSON object, or a query parameter has not the right form",
    "401": "No token, or a wrong one",
    "403": "A server that only reads, or a foreign Host",
    "404": "No such id",
    "409": "The state machine forbids it, or the idempotency key was used before",
    "413": "The body is too large",
    "415": "The body is not application/json",
    "422": "A value is missing or wrong",
    "429": "Too many wrong tokens; try again later",
    "500": "A fault of the server",
    "503": "The database is busy, or cannot be used now; try again",
}
"""The meaning of each status that is no success."""
ABOUT: Mapping[str, str] = {
    "title": "agentspan",
    "summary": "A flight recorder for AI agents",
    "description": "The operations of the Prefactor API on agents, instances and spans, over one SQLite file.\n\n"
    "Ids are PFIDs, times RFC 3339 in UTC. Every write can be sent again with the same `idempotency_key`.",
    "version": __version__,
}


def document(fields: Mapping[str, Any] = FIELDS) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the API.

    Args:
        fields: examples of fields, by name.
    """
    bodies = {each: body_model(each) for each in OPERATIONS if each.has_body and not each.checks_body}
    answers = {each: _answer(each) for each in OPERATIONS}
    models: list[tuple[Any, JsonSchemaMode]] = [(model, "validation") for model in {*bodies.values()}]
    models += [(model, "serialization") for model in [*answers.values(), Error]]
    _, made = models_json_schema(models, ref_template=_REF + "{model}")
    schemas = {name: _ordered(made["$defs"][name]) for name in sorted(made["$defs"])} | _bulk()
    described = {model.__name__: model for model in (*_of_resources(), *MODELS.values())}
    for name, schema in schemas.items():
        _complete_schema(name.partition("_")[0], schema, described, fields)
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        route = operation.route
        described_operation = _operation(operation, answers[operation], schemas, fields)
        paths.setdefault(PREFIX + route.path, {})[route.method.lower()] = described_operation
    token = {"type": "http", "scheme": "bearer", "description": "Where the server was given a token."}
    components = {"schemas": schemas, "securitySchemes": {"token": token}}
    return {"openapi": "3.1.0", "info": dict(ABOUT), "paths": paths, "components": components}


def _ordered(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema of pydantic's with its members in their order, and without defaults of null."""
    made = {name: schema[name] for name in (*_OF_SCHEMAS, *schema) if schema.get(name) is not None}
    for name, value in made.items():
        if name == "properties":
            made[name] = {field: _ordered(each) for field, each in value.items()}
        elif name == "anyOf":
            made[name] = [_ordered(each) for each in value]
        elif isinstance(value, dict) and name in ("items", "additionalProperties"):
            made[name] = _ordered(value)
    return made


def _answer(operation: type[Operation]) -> type[BaseModel]:
    """Return the model of an operation's answer."""
    envelope = ENVELOPES[operation.envelope]
    answers = operation.route.answers
    model: type[BaseModel] = envelope if answers is None else envelope[answers]
    return model


def _complete_schema(
    model: str, schema: dict[str, Any], described: Mapping[str, type[BaseModel]], fields: Mapping[str, Any]
) -> None:
    schema["description"] = about(described[model])
    texts = attributes(described[model])
    for field, property in schema.get("properties", {}).items():
        text: str | None = re.sub(r"\bNone\b", "null", texts[field]) if field in texts else None
        if text is None and model.endswith("Counts"):
            text = f"How many {'there are' if field == 'total' else f'are {field}'}."
        elif text is None and model == "AvailableActions":
            text = ACTIONS[field]
        if text is not None:
            property.setdefault("description", text[:1].upper() + text[1:])
        if field in TIMES:
            for option in property.get("anyOf", [property]):
                if option.get("type") == "string":
                    option["format"] = "date-time"
        if "const" in property:
            property["examples"] = [property["const"]]
            if field not in schema.setdefault("required", []):
                schema["required"].append(field)  # pydantic treats a field with a default as optional
        elif (example := _example(model, field, property, fields)) is not None:
            property["examples"] = [example]


def _example(model: str, field: str, property: dict[str, Any], fields: Mapping[str, Any]) -> Any:
    if "examples" in property:  # from the declaration of the field
        return property.pop("examples")[0]
    example = OF_MODELS.get((model, field), fields.get(field))
    return example if example is not None and _fits(example, property) else None


def _operation(
    operation: type[Operation], answer: type[BaseModel], schemas: Mapping[str, Any], fields: Mapping[str, Any]
) -> dict[str, Any]:
    route, name = operation.route, re.sub(r"(?<!^)([A-Z])", r"_\1", operation.__name__).lower()
    summary = operation.summary or about(operation).partition(".")[0]
    made: dict[str, Any] = {"tags": [route.tag], "summary": summary, "operationId": name}
    parameters = [_parameter(operation, *each, fields) for each in _parameters(operation)]
    if parameters:
        made["parameters"] = parameters
    if operation.has_body:
        requests = {title: {"value": value} for title, value in REQUESTS.get(name, {}).items()}
        body = _REF + (operation.body_name or operation.__name__)
        content = {"application/json": {"schema": {"$ref": body}, "examples": requests}}
        made["requestBody"] = {**({} if operation.may_be_empty else {"required": True}), "content": content}
    schema = {"$ref": _REF + schema_name(answer)}
    content = {"application/json": {"schema": schema, "example": sample(schema, schemas, fields)}}
    responses: dict[str, Any] = {"200": {"description": "Success", "content": content}}
    for code, description in REFUSALS.items():
        if operation.has_body or operation.writes or code not in ONLY_WITH_BODY:
            example = {"status": "error", **ERRORS[code]}
            refusal = {"schema": {"$ref": f"{_REF}Error"}, "example": example}
            responses[code] = {"description": description, "content": {"application/json": refusal}}
    responses["503"]["headers"] = {
        "Retry-After": {"description": "Seconds to wait before the next attempt.", "schema": {"type": "integer"}}
    }
    made["responses"] = responses
    made["security"] = [{"token": []}, {}]
    if issubclass(operation, Write):
        made.setdefault("parameters", []).append(IDEMPOTENCY_KEY)
    return made


def schema_name(model: type[BaseModel]) -> str:
    """Return the name of a model's schema."""
    return re.sub(r"\W", "_", model.__name__)


def _parameters(operation: type[Operation]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the place, the name and the schema of each parameter."""
    for name in operation.ids:
        title = name.replace("_", " ").title()
        yield "path", name, {"type": "string", "pattern": f"^{FORM}$", "title": title}
    model = None if operation.has_body else query_model(operation)
    if model is not None:
        for name, schema in model.model_json_schema()["properties"].items():
            yield "query", name, {each: schema[each] for each in _OF_PARAMETERS if schema.get(each) is not None}


def _parameter(
    operation: type[Operation], where: str, name: str, schema: dict[str, Any], fields: Mapping[str, Any]
) -> dict[str, Any]:
    description = PARAMETERS.get(name, "")
    if issubclass(operation, Listing):
        sortable = sorted(operation.sortable)
        if name == "sorting":
            description = "The field to sort by; with - in front for descending."
            schema = {"type": "string", "enum": [*sortable, *(f"-{field}" for field in sortable)]}
        elif name == "sorting[field]":
            description = "The field to sort by, in the form that has its direction beside it."
            schema = {"type": "string", "enum": sortable}
        elif name == "sorting[direction]":
            schema = {"type": "string", "enum": ["asc", "desc"]}
        elif name == "status":
            schema = {"type": "string", "enum": [*operation.statuses]}
        elif name == "purpose":
            schema = {"type": "string", "enum": [*changes.PURPOSES]}
        elif name in TIMES:
            schema = {"type": "string", "format": "date-time"}
    example = fields.get(name) or sample(schema, {}, fields)
    if "enum" in schema and example not in schema["enum"]:
        example = schema["enum"][0]
    made = {"name": name, "in": where, "required": where == "path", "schema": schema}
    return {**made, "description": description, "example": example}


def sample(schema: Mapping[str, Any], schemas: Mapping[str, Any], fields: Mapping[str, Any]) -> Any:
    """Return an example of a schema, made of the examples of its fields."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_REF)
        return {**sample(schemas[name], schemas, fields), **WHOLE.get(name, {})}
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
    """Return the schemas of the bulk request, whose form the operation checks."""
    made = body_model(RunBulk).model_json_schema(ref_template=_REF + "{model}")
    return {**made.pop("$defs"), "Bulk": made}


def _fits(example: Any, schema: Mapping[str, Any]) -> bool:
    """Return whether a schema allows the type of an example: fields of one name can have different types."""
    kinds = {str: "string", int: "integer", float: "number", bool: "boolean", dict: "object", list: "array"}
    kind = kinds[type(example)]
    return any(
        "$ref" not in option and option.get("type", kind) == kind and example in option.get("enum", [example])
        for option in schema.get("anyOf", [schema])
    )


def _of_resources() -> Iterator[type[BaseModel]]:
    yield from (*ENVELOPES.values(), Sorting, ContextBody, FieldError, Error)
    for value in vars(resources).values():
        if isinstance(value, type) and issubclass(value, BaseModel):
            yield value
