"""The OpenAPI document, made from the declarations of the operations and the models of resources, with examples.

The API publishes some operations that a file has no use for: each is answered with `not_implemented`, never 404.
Source: the clients of the official command line (`@prefactor/cli`).
"""

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, SkipJsonSchema, models_json_schema
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from agentspan import __version__, ids
from agentspan.api import resources
from agentspan.api.bulk import RunBulk
from agentspan.api.operation import Listing, Operation, Write
from agentspan.api.resources import AgentSchemaVersion, Control, Pagination
from agentspan.model import changes
from agentspan.serve import examples
from agentspan.serve.bodies import MODELS, about, attributes, body_model, query_model
from agentspan.serve.responses import refuse
from agentspan.serve.router import OPERATIONS, PREFIX

NO_PEOPLE = "a file has no people and teams"
NO_TOKENS = "a file has no tokens; the server's own one is set in AGENTSPAN_TOKEN"
NO_ALERTS = "a file has no alerts"
NO_RISKS = "a file has no risk profiles"
ONE_PLACE = "a file has one account, one environment and one deployment, which never change"
PLAYGROUND = "only the service itself makes up runs; `agentspan demo` records some"
ELSEWHERE = "a file sends nothing anywhere"

NOT_IMPLEMENTED: Mapping[str, Mapping[str, str]] = {
    "/account/{id}": {"PUT": ONE_PLACE},
    "/account_integration": dict.fromkeys(("GET", "POST"), ELSEWHERE),
    "/account_integration/{id}": dict.fromkeys(("GET", "PUT", "DELETE"), ELSEWHERE),
    "/account_integration/{id}/test": {"POST": ELSEWHERE},
    "/admin_user/{id}": dict.fromkeys(("GET", "PUT"), NO_PEOPLE),
    "/admin_user_invite": dict.fromkeys(("GET", "POST"), NO_PEOPLE),
    "/admin_user_invite/{id}": {"GET": NO_PEOPLE},
    "/admin_user_invite/{id}/revoke": {"POST": NO_PEOPLE},
    "/agent_deployment": {"POST": ONE_PLACE},
    "/agent_deployment/{id}": dict.fromkeys(("PUT", "DELETE"), ONE_PLACE),
    "/agent_instance/{id}/{action}": {"POST": "a file has no such action of a run"},
    "/agent_spans/create_test_spans": {"POST": PLAYGROUND},
    "/agent_spans/{id}/discard_sensitive": {"POST": "values that are marked as sensitive are not stored"},
    "/agent_version": {"POST": "a version is created when a run registers with a new one"},
    "/alerts": {"GET": NO_ALERTS},
    "/alerts/clear": {"POST": NO_ALERTS},
    "/alerts/raise": {"POST": NO_ALERTS},
    "/alerts/{id}": {"GET": NO_ALERTS},
    "/api_token": {"POST": NO_TOKENS},
    "/api_token/{id}": dict.fromkeys(("GET", "DELETE"), NO_TOKENS),
    "/api_token/{id}/{action}": {"POST": NO_TOKENS},
    "/environment": {"POST": ONE_PLACE},
    "/environment/{id}": dict.fromkeys(("PUT", "DELETE"), ONE_PLACE),
    "/person": dict.fromkeys(("GET", "POST"), NO_PEOPLE),
    "/person/{id}": dict.fromkeys(("GET", "PUT", "DELETE"), NO_PEOPLE),
    "/playground/{action}": {"POST": PLAYGROUND},
    "/risk_profile": {"POST": NO_RISKS},
    "/risk_profile/template": {"GET": NO_RISKS},
    "/risk_profile/{id}": dict.fromkeys(("GET", "PUT", "DELETE"), NO_RISKS),
    "/team": dict.fromkeys(("GET", "POST"), NO_PEOPLE),
    "/team/{id}": dict.fromkeys(("GET", "PUT", "DELETE"), NO_PEOPLE),
}
"""The operations that a file has no use for, by path and method, each with the reason in its answer."""


def routes(prefix: str) -> list[Route]:
    """Return a route for each operation in NOT_IMPLEMENTED. They come last, so that implemented operations match first.

    They are routes of Starlette: FastAPI takes 3 ms to make a route.
    """
    return [
        _Route(prefix + path, _refusing(reason), methods=[method])
        for path, methods in NOT_IMPLEMENTED.items()
        for method, reason in methods.items()
    ]


class _Route(Route):
    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match a path if its id is a PFID."""
        match, found = super().matches(scope)
        id = None if match is Match.NONE else found["path_params"].get("id")
        return (match, found) if id is None or ids.is_pfid(id) else (Match.NONE, {})


def _refusing(reason: str) -> Callable[[Request], Awaitable[Response]]:
    async def refuse_it(request: Request) -> Response:
        return refuse("not_implemented", f"{reason}; the service has this operation, a local file has not")

    return refuse_it


T = TypeVar("T")

Code = Literal[
    "bad_request",
    "bad_authtoken",
    "not_authenticated",
    "not_permitted",
    "not_implemented",
    "unknown",
    "not_found",
    "unexpected_ref_type",
    "unexpected",
    "invalid_action",
    "invalid_value",
    "required_value",
    "idempotency_key_already_used",
    "validation_errors",
]


class One(BaseModel, Generic[T]):
    """One resource.

    Attributes:
        status: always `success`.
        details: the resource.
    """

    status: Literal["success"]
    details: T


class Controlled(One[T], Generic[T]):
    """One span, or an instance that has finished.

    Attributes:
        status: always `success`.
        details: the resource.
        control: there only if the instance was terminated.
    """

    control: Control | SkipJsonSchema[None] = None


class Registered(One[T], Generic[T]):
    """A registered instance.

    Attributes:
        status: always `success`.
        details: the instance.
        agent_schema_version: the schema version that it was registered with.
    """

    agent_schema_version: AgentSchemaVersion


class Sorting(BaseModel):
    """The order of a list.

    Attributes:
        field: by which field.
        direction: upwards or downwards.
    """

    field: str
    direction: Literal["asc", "desc"]


class Many(BaseModel, Generic[T]):
    """A page of a list.

    Attributes:
        status: always `success`.
        summaries: the items.
        pagination: where they lie in the whole list.
        sorting: how they are sorted; null where the request did not say.
    """

    status: Literal["success"]
    summaries: list[T]
    pagination: Pagination | None
    sorting: Sorting | None


class ContextBody(BaseModel):
    """All that is known of an instance.

    Attributes:
        body: `instance`, `agent`, `schema` (the schema version), and `spans` in the order of their creation.
    """

    body: dict[str, Any]


class AgentContext(BaseModel):
    """An instance with everything that belongs to it.

    Attributes:
        status: always `success`.
        agent_context: all of it.
    """

    status: Literal["success"]
    agent_context: ContextBody


class BulkOutputs(BaseModel):
    """The answers to the operations of a bulk request.

    Attributes:
        status: always `success`, also where an operation was refused.
        outputs: each operation's envelope by its idempotency key; those after a refused one are absent.
    """

    status: Literal["success"]
    outputs: dict[str, dict[str, Any]]


class AlertCount(BaseModel):
    """The number of alerts.

    Attributes:
        status: always `success`.
        count: always 0: a file has no alerts.
    """

    status: Literal["success"]
    count: int


class FieldError(BaseModel):
    """The error of a field.

    Attributes:
        code: `required_value` or `invalid_value`.
        message: what is wrong, and what would be right.
    """

    code: Literal["required_value", "invalid_value"]
    message: str


class Error(BaseModel):
    """A request that was refused, or failed.

    Attributes:
        status: always `error`.
        code: what kind of error.
        message: what happened, to which id, and what to do.
        errors: with `validation_errors`: what is wrong, by field.
        control: with `invalid_action`: there only if the instance was terminated.
    """

    status: Literal["error"]
    code: Code
    message: str
    errors: dict[str, FieldError] | SkipJsonSchema[None] = None
    control: Control | SkipJsonSchema[None] = None


ENVELOPES: Mapping[str, Any] = {
    model.__name__: model for model in (One, Controlled, Registered, Many, AgentContext, AlertCount, BulkOutputs)
}
"""The models of answers, by the `envelope` of an operation."""

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
    "example": examples.FIELDS["idempotency_key"],
}

PATTERN = "^[0-7][0-9abcdefghjkmnpqrstvwxyz]{31}$"
"""The form of a PFID."""
_OF_PARAMETERS = ("type", "anyOf", "maximum", "minimum", "default", "title")
"""The order of the members of a parameter's schema."""
_OF_SCHEMAS = (
    "$ref",
    "anyOf",
    "items",
    "properties",
    "additionalProperties",
    "type",
    "const",
    "enum",
    "format",
    "maximum",
    "minimum",
    "maxItems",
    "maxLength",
    "required",
    "title",
    "default",
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


def document(fields: Mapping[str, Any] = examples.FIELDS) -> dict[str, Any]:
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
    model: str,
    schema: dict[str, Any],
    described: Mapping[str, type[BaseModel]],
    fields: Mapping[str, Any],
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
    example = examples.MODELS.get((model, field), fields.get(field))
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
        requests = {title: {"value": value} for title, value in examples.REQUESTS.get(name, {}).items()}
        body = _REF + (operation.body_name or operation.__name__)
        content = {"application/json": {"schema": {"$ref": body}, "examples": requests}}
        made["requestBody"] = {**({} if operation.may_be_empty else {"required": True}), "content": content}
    schema = {"$ref": _REF + schema_name(answer)}
    content = {"application/json": {"schema": schema, "example": sample(schema, schemas, fields)}}
    responses: dict[str, Any] = {"200": {"description": "Success", "content": content}}
    for code, description in REFUSALS.items():
        if operation.has_body or operation.writes or code not in ONLY_WITH_BODY:
            example = {"status": "error", **examples.ERRORS[code]}
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
        yield "path", name, {"type": "string", "pattern": PATTERN, "title": title}
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
    """Return the schemas of the bulk request, whose form the operation checks."""
    made = body_model(RunBulk).model_json_schema(ref_template=_REF + "{model}")
    return {**made.pop("$defs"), "Bulk": made}


def _fits(example: Any, schema: Mapping[str, Any]) -> bool:
    """Return whether a schema allows the type of an example: fields of one name can have different types."""
    kinds = {str: "string", int: "integer", float: "number", bool: "boolean", dict: "object", list: "array"}
    options = schema.get("anyOf", [schema])
    kind = kinds[type(example)]
    return any(_type(option, kind) == kind and _in_enum(example, option) for option in options)


def _type(option: Mapping[str, Any], otherwise: str) -> Any:
    return None if "$ref" in option else option.get("type", otherwise)


def _in_enum(example: Any, option: Mapping[str, Any]) -> bool:
    return "enum" not in option or example in option["enum"]


def _of_resources() -> Iterator[type[BaseModel]]:
    yield from (*ENVELOPES.values(), Sorting, ContextBody, FieldError, Error)
    for value in vars(resources).values():
        if isinstance(value, type) and issubclass(value, BaseModel):
            yield value
