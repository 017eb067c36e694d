"""The OpenAPI document: complete, valid, and kept by the server, whatever it is asked."""

import json
import os
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from jsonschema import Draft202012Validator

import agentspan
from agentspan import ids
from agentspan.api.bulk import BULK
from agentspan.database import Database
from agentspan.serve import openapi
from agentspan.serve.app import Application, create_app
from tests.tiers import longer

API = "/api/v1"
EXAMPLES = longer("AGENTSPAN_TEST_REQUESTS", 4, 4, 200)
"""Requests of each operation, right ones and as many wrong ones."""
SEED = int(os.environ["AGENTSPAN_TEST_SEED"]) if "AGENTSPAN_TEST_SEED" in os.environ else None
"""A seed for other requests than those of each run."""
PATHS = {
    "/agent_spans/{agent_span_id}/finish": {"post"},
    "/agent_spans": {"get", "post"},
    "/agent_spans/{agent_span_id}": {"get"},
    "/agent_spans/{agent_span_id}/start": {"post"},
    "/agent_spans/{agent_span_id}/violations": {"get"},
    "/agent_instance/register": {"post"},
    "/agent_instance/{agent_instance_id}/start": {"post"},
    "/agent_instance/{agent_instance_id}/finish": {"post"},
    "/agent_instance/{agent_instance_id}/terminate": {"post"},
    "/agent_instance/{agent_instance_id}/record_quality": {"post"},
    "/agent_instance/{agent_instance_id}/scores": {"get", "post"},
    "/agent_spans/{agent_span_id}/scores": {"get", "post"},
    "/agent_instance/{agent_instance_id}/agent_context": {"get"},
    "/agent_instance": {"get"},
    "/agent_instance/{agent_instance_id}": {"get", "put"},
    "/agent": {"get", "post"},
    "/agent/show": {"get"},
    "/agent/{agent_id}": {"get", "put", "delete"},
    "/agent/{agent_id}/retire": {"post"},
    "/agent/{agent_id}/reinstate": {"post"},
    "/agent_schema_version": {"get", "post"},
    "/agent_schema_version/{agent_schema_version_id}": {"get"},
    "/agent_version": {"get"},
    "/agent_version/{agent_version_id}": {"get"},
    "/bulk": {"post"},
    "/agent_instance/show": {"get"},
    "/account": {"get"},
    "/account/{account_id}": {"get"},
    "/environment": {"get"},
    "/environment/show": {"get"},
    "/environment/{environment_id}": {"get"},
    "/agent_deployment": {"get"},
    "/agent_deployment/{agent_deployment_id}": {"get"},
    "/alerts/count": {"get"},
    "/risk_profile": {"get"},
    "/api_token": {"get"},
    "/admin_user": {"get"},
    "/ping": {"get"},
    "/pfid/generate": {"post"},
}
"""The API's paths, as its contract names them."""

SPAN_EXAMPLES = {
    "account_id": "013xrzp12g3nqk8ngskn1wtxgka5b0nf",
    "agent_id": "013xrzp12g3nqk8nx0y2vfkg4s3jp2qr",
    "agent_instance_id": "013xrzp12g3nqk8n4evtrcj59k8dhn3t",
    "finished_at": "2024-01-01T00:00:00Z",
    "id": "013xrzp12g3nqk8ndr93q068mw7y0nv0",
    "parent_span_id": "013xrzp12g3nqk8ndr93q068mw7y0nv0",
    "schema_name": "llm",
    "schema_title": "LLM",
    "started_at": "2024-01-01T00:00:00Z",
    "status": "active",
    "type": "agent_span",
}
CODES = [
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
]


QUALITY: dict[str, Any] = {"name": "helpfulness", "schema": {"type": "object"}, "template": "{{score}} of 1"}


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A file that has what the document's examples name, and spans to start and to finish."""
    with agentspan.open(tmp_path_factory.mktemp("openapi") / "runs.db") as opened:
        opened.agents.create("researcher", external_identifier="researcher-1", id=openapi.AGENT)
        version = {"span_type_schemas": [], "quality_schemas": [QUALITY]}
        opened.agent_instances.register(openapi.AGENT, id=openapi.INSTANCE, agent_schema_version=version)
        opened.agent_instances.start(openapi.INSTANCE)
        opened.agent_spans.create(openapi.INSTANCE, "llm", "active", {}, id=openapi.SPAN)
        yield opened


@pytest.fixture(scope="module")
def app(db: Database) -> Application:
    """The application over that file."""
    return create_app(db, allowed_hosts=["testserver"])


@pytest.fixture(scope="module")
def document(app: Application) -> dict[str, Any]:
    """The document, as the server sends it."""
    found: dict[str, Any] = json.loads(json.dumps(app.openapi()))
    return found


@pytest.fixture(scope="module")
def schemathesis() -> Iterator[Any]:
    """The package, which asks whatever a document allows, and more.

    It would let the application run until the process ends, where its looks for old runs read the clock of other tests.
    """
    yield pytest.importorskip("schemathesis", reason="needs schemathesis")
    from schemathesis.python.asgi import shutdown_lifespans

    shutdown_lifespans()


@pytest.fixture(scope="module")
def api_schema(schemathesis: Any, app: Application, db: Database) -> Any:
    """The document, as schemathesis reads it; two thirds of the ids name something: what is generated never does."""
    loaded = schemathesis.openapi.from_asgi("/openapi.json", app)
    instance = db.agent_instances.get(openapi.INSTANCE)
    spans = [db.agent_spans.create(instance.id, "llm", status, {}).id for status in ("pending", "active") * 100]
    known: dict[str, list[str]] = {
        "agent_id": [openapi.AGENT],
        "agent_instance_id": [instance.id] * 9 + [db.agent_instances.register(openapi.AGENT).id for _ in range(50)],
        "agent_version_id": [instance.agent_version_id],
        "agent_schema_version_id": [instance.agent_schema_version_id],
        "agent_span_id": spans,
        "parent_span_id": spans,
        "name": [QUALITY["name"]],
    }

    def named(fields: Any) -> Any:
        for name in known.keys() & fields.keys() if isinstance(fields, dict) else ():
            number = zlib.crc32(str(fields[name]).encode(errors="replace"))
            if isinstance(fields[name], str) and number % 3:
                fields[name] = known[name][number % len(known[name])]
        return fields

    def map_path_parameters(context: Any, path_parameters: Any) -> Any:
        return named(path_parameters)

    def map_query(context: Any, query: Any) -> Any:
        return named(query)

    def map_body(context: Any, body: Any) -> Any:
        for part in (body, body.get("details"), *_items(body)) if isinstance(body, dict) else ():
            named(part)
        return body

    for hook in (map_path_parameters, map_query, map_body):
        loaded.hook(hook)
    return loaded


def _items(body: dict[str, Any]) -> list[Any]:
    """The items of a bulk request, with keys of their own."""
    items = body.get("items")
    found = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    for number, item in enumerate(found):
        key = item.get("idempotency_key")
        if isinstance(key, str) and len(key) >= 8:
            item["idempotency_key"] = f"bulk-{zlib.crc32(key.encode(errors='replace'))}-{number}"
    return found


@pytest.mark.full
@pytest.mark.parametrize("mode", ["positive", "negative"])
@pytest.mark.parametrize(
    ("method", "path"), [(method, path) for path, methods in PATHS.items() for method in sorted(methods)]
)
def test_whatever_is_asked_the_answer_is_one_that_the_document_describes(
    schemathesis: Any, api_schema: Any, method: str, path: str, mode: str
) -> None:
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    operation = api_schema[API + path][method.upper()]
    if mode == "negative" and not (operation.body or operation.path_parameters or operation.query):
        pytest.skip("there is nothing to say wrongly")

    @settings(
        max_examples=EXAMPLES,
        derandomize=SEED is None,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
    def ask(case: Any) -> None:
        case.call_and_validate(
            checks=[
                not_a_server_error,
                checks.status_code_conformance,
                checks.content_type_conformance,
                checks.response_headers_conformance,
                checks.response_schema_conformance,
            ]
        )

    (ask if SEED is None else seed(SEED)(ask))()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def resolved(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """A schema that stands by itself, to validate with."""
    return {**schema, "components": document["components"]}


@pytest.mark.full
def test_the_document_is_valid_openapi_3_1(schemathesis: Any, document: dict[str, Any]) -> None:
    schemathesis.openapi.from_dict(document).validate()


@pytest.mark.full
def test_every_schema_is_a_valid_json_schema(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_the_paths_are_those_of_the_contract(document: dict[str, Any]) -> None:
    there = {path: set(methods) for path, methods in document["paths"].items()}
    assert there == {API + path: methods for path, methods in PATHS.items()}


def test_every_schema_and_property_is_described_in_words_of_json(document: dict[str, Any]) -> None:
    for name, schema in document["components"]["schemas"].items():
        described = {name: schema, **{f"{name}.{field}": about for field, about in schema["properties"].items()}}
        for where, about in described.items():
            text = about.get("description", "")
            assert text[:1].isupper() or text[:1] in "`0123456789", f"{where}: {text!r}"
            assert "Attributes:" not in text, where
            assert "None" not in text, where


def test_every_parameter_has_a_description_and_an_example_that_it_takes(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        for parameter in operation.get("parameters", ()):
            assert parameter["description"], (method, path, parameter["name"])
            Draft202012Validator(parameter["schema"]).validate(parameter["example"])


def without_example(document: dict[str, Any]) -> list[str]:
    """The fields, as SCHEMA.FIELD, whose values in examples are made from their type alone."""
    told = {"examples", "enum", "const", "default", "$ref"}
    found = []
    for name, schema in document["components"]["schemas"].items():
        for field, about in schema["properties"].items():
            first = about.get("anyOf", [about])[0]
            is_told = told & {*about, *first} or first.get("type") in ("array", "boolean", "integer", "object")
            if not is_told:
                found.append(f"{name}.{field}")
    return found


def test_every_field_has_an_example(document: dict[str, Any]) -> None:
    assert without_example(document) == [], "add them to FIELDS or OF_MODELS in agentspan/serve/openapi.py"


def test_a_field_without_an_example_is_named_and_the_document_is_served_all_the_same() -> None:
    fewer = {name: value for name, value in openapi.FIELDS.items() if name not in ("label", "cost_usd", "agent_id")}
    document = openapi.document(fewer)
    assert {"AgentSpan.label", "AgentSpan.cost_usd", "AgentInstance.agent_id"} <= set(without_example(document))
    success = document["paths"][f"{API}/agent_spans/{{agent_span_id}}"]["get"]["responses"]["200"]
    assert success["content"]["application/json"]["example"]["details"]["label"] == "text"


def test_every_operation_has_a_summary_a_name_of_its_own_examples_and_its_errors(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names)
    for path, method, operation in operations(document):
        where = f"{method} {path}"
        assert operation["summary"], where
        assert {"200", "400", "401", "403", "500", "503"} <= set(operation["responses"]), where
        if method in ("post", "put"):
            assert {"409", "413", "415", "422"} <= set(operation["responses"]), where
        if "{" in path:
            assert "404" in operation["responses"], where
        if method in ("post", "put"):
            assert operation["requestBody"]["content"]["application/json"]["examples"], where
        for status, response in operation["responses"].items():
            assert response["description"], (where, status)
            assert "example" in response["content"]["application/json"], (where, status)


def test_every_example_matches_its_schema(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        contents = [response["content"]["application/json"] for response in operation["responses"].values()]
        if "requestBody" in operation:
            contents.append(operation["requestBody"]["content"]["application/json"])
        for content in contents:
            given = [example["value"] for example in content.get("examples", {}).values()]
            given += [content["example"]] if "example" in content else []
            for example in given:
                errors = list(Draft202012Validator(resolved(content["schema"], document)).iter_errors(example))
                assert not errors, (method, path, errors)
    for name, schema in document["components"]["schemas"].items():
        for field, about in schema["properties"].items():
            for example in about.get("examples", ()):
                assert Draft202012Validator(resolved(about, document)).is_valid(example), (name, field)
                if "id" in field.split("_")[-1:] and field not in ("external_id", "response_id"):
                    assert ids.is_pfid(example), (name, field)


def test_a_span_has_the_examples_and_allowed_values_of_the_api(document: dict[str, Any]) -> None:
    span = document["components"]["schemas"]["AgentSpan"]["properties"]
    assert {field: span[field]["examples"][0] for field in SPAN_EXAMPLES} == SPAN_EXAMPLES
    assert span["status"]["enum"] == ["pending", "active", "complete", "failed", "cancelled"]
    assert span["type"]["const"] == "agent_span"
    assert "date-time" in {option.get("format") for option in span["finished_at"]["anyOf"]}


def test_finishing_a_span_has_the_examples_and_allowed_values_of_the_api(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    operation = document["paths"][f"{API}/agent_spans/{{agent_span_id}}/finish"]["post"]
    assert operation["parameters"][0]["example"] == "013xrzp12g3nqk8ndr93q068mw7y0nv0"
    status = schemas["FinishSpan"]["properties"]["status"]
    assert (status["anyOf"][0]["enum"], status["examples"]) == (["complete", "failed", "cancelled"], ["complete"])
    success, error = schemas["Controlled_AgentSpan_"]["properties"], schemas["Error"]["properties"]
    assert (success["status"]["const"], success["status"]["examples"]) == ("success", ["success"])
    assert (error["status"]["const"], error["status"]["examples"]) == ("error", ["error"])
    assert (error["code"]["enum"], error["code"]["examples"]) == ([*CODES, "validation_errors"], ["bad_request"])


def test_the_actions_of_a_bulk_request_are_those_that_there_are(document: dict[str, Any]) -> None:
    assert set(document["components"]["schemas"]["BulkItem"]["properties"]["_type"]["enum"]) == set(BULK)
