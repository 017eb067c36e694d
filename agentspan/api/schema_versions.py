"""Operations on schema versions: the sets of span types that instances are registered with."""

import logging
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from agentspan import jsontext
from agentspan.api import checks
from agentspan.api.checks import inside
from agentspan.api.context import Context, Plan
from agentspan.api.operation import Check, Fields, GetRow, Keyable, Listing, Route, Write
from agentspan.api.resources import AgentSchemaVersion
from agentspan.errors import InvalidValue
from agentspan.model import schema_versions
from agentspan.model.changes import Put, Unit
from agentspan.model.rows import AgentRow, AgentSchemaVersionRow
from agentspan.model.schema_versions import SchemaFields
from agentspan.model.status import check_text
from agentspan.schemas.span_types import REGISTRY, check_name, check_quality_schemas, check_span_type_schemas
from agentspan.schemas.unusable import TEMPLATES, Unusable
from agentspan.storage.access import expect, unique
from agentspan.storage.answers import Found
from agentspan.storage.questions import Query

MAX_TYPES = 500
LISTED = 20
"""The most span types that one line of the log names."""


def fields(ctx: Context, value: Any) -> SchemaFields:
    """Check an `agent_schema_version`, and return its fields.

    It has `span_type_schemas`, or the flat maps `span_schemas` and `span_result_schemas`. None means the span types of
    this process: the built-in ones and those of `agentspan.span_type`.
    """
    if value is None:
        return schema_versions.fields_of(REGISTRY.items())
    if not isinstance(value, Mapping):
        raise InvalidValue("agent_schema_version", "must be an object")
    external = checks.text("external_identifier", value.get("external_identifier"))
    checked, unusable = check_span_type_schemas(_items(value))
    quality, unusable_quality = check_quality_schemas(_list(value, "quality_schemas"))
    if value.get("quality_schema") is not None:
        unnamed, unusable_unnamed = _unnamed(value["quality_schema"])
        quality, unusable_quality = [*quality, unnamed], [*unusable_quality, *unusable_unnamed]
    external = external and ctx.admit_text(external)
    wanted = schema_versions.fields_of(ctx.admit_types(checked), ctx.admit_types(quality), external)
    _warn(unusable + unusable_quality, wanted.content_hash)
    return wanted


def _warn(unusable: list[Unusable], content_hash: str) -> None:
    """Log, once for a schema version, its templates and schemas that are stored but cannot be used."""
    if not unusable or content_hash in _warned:
        return
    _warned.add(content_hash)
    logger = logging.getLogger("agentspan")
    parts = [f"{each.name} (its {each.field} {each.reason})" for each in unusable]
    templates = [part for part, each in zip(parts, unusable, strict=True) if each.field in TEMPLATES]
    schemas = [part for part, each in zip(parts, unusable, strict=True) if each.field not in TEMPLATES]
    if templates:
        logger.warning("no summaries, the template is stored as it is, for %s", "; ".join(templates[:LISTED]))
    if schemas:
        logger.warning("payloads are not checked, the schema is stored as it is, for %s", "; ".join(schemas[:LISTED]))


_warned: set[str] = set()


def _unnamed(schema: Any) -> tuple[dict[str, Any], list[Unusable]]:
    """Check the one quality schema without a name. Return it with the name under which it is stored."""
    if not isinstance(schema, Mapping):
        raise InvalidValue("quality_schema", "must be an object with a schema")
    named = {**_plain([schema], "quality_schema")[0], "name": "quality_schema"}
    (checked,), unusable = check_quality_schemas([named])
    return {**checked, "name": schema_versions.UNNAMED}, unusable


def _items(value: Mapping[str, Any]) -> list[Any]:
    items = _list(value, "span_type_schemas")
    named = {item.get("name") for item in items if isinstance(item, Mapping)}
    payloads, results = _map(value, "span_schemas"), _map(value, "span_result_schemas")
    for name in {**payloads, **results}:
        if name not in named:
            items.append({"name": name, "params_schema": payloads.get(name), "result_schema": results.get(name)})
    if len(items) > MAX_TYPES:
        raise InvalidValue("span_type_schemas", f"at most {MAX_TYPES} span types are allowed")
    return _plain(items, "span_type_schemas")


def _list(value: Mapping[str, Any], field: str) -> list[Any]:
    found = value.get(field)
    if found is None:
        return []
    if not isinstance(found, (list, tuple)):
        raise InvalidValue(field, "must be a list")
    entries = _plain(list(found), field)
    for number, entry in enumerate(entries):
        if isinstance(entry, Mapping):
            with inside(f"{field}[{number}]"):
                _check_name("name", entry.get("name"))
                title = entry.get("title")
                check_text("title", title if isinstance(title, str) else "")
    return entries


def _check_name(field: str, name: Any) -> None:
    try:
        check_name(name)
    except InvalidValue as error:
        raise InvalidValue(field, str(error).removeprefix(f"{error.field}: ")) from None


def _plain(items: list[Any], field: str) -> list[Any]:
    try:
        encoded: list[Any] = jsontext.encode(items)[1]
    except ValueError as error:
        raise InvalidValue(field, str(error)) from None
    return encoded


def _map(value: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    found = value.get(field) or {}
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise InvalidValue(field, "must be an object of schemas by name")
    for name in found:
        _check_name(field, name)
    return found


class SpanTypeSchema(Fields):
    """A span type.

    Attributes:
        name: its schema_name.
        params_schema: JSON Schema (draft-04 to 2020-12) of payloads. One that cannot be used leaves payloads unchecked.
        result_schema: JSON Schema of result payloads.
        title: for people.
        description: for people.
        template: Mustache or Liquid for summaries; one that cannot be used is kept, and gives none.
        result_template: what the result adds to the summary.
        data_risk: kept as it is.
    """

    others: ClassVar[Literal["ignore", "allow", "forbid"]] = "allow"

    name: str
    params_schema: dict[str, Any] | bool | None = None
    result_schema: dict[str, Any] | bool | None = None
    title: str | None = None
    description: str | None = None
    template: str | None = None
    result_template: str | None = None
    data_risk: dict[str, Any] | None = None


class UnnamedQualitySchema(Fields):
    """The kind of evaluation that `quality_payload` of an instance is.

    Attributes:
        schema: JSON Schema (draft-04 to 2020-12) of the payloads. One that cannot be used leaves them unchecked.
        title: for people.
        description: for people.
        template: Mustache for summaries.
        data_risk: kept as it is.
    """

    others: ClassVar[Literal["ignore", "allow", "forbid"]] = "allow"

    schema: dict[str, Any] | bool
    title: str | None = None
    description: str | None = None
    template: str | None = None
    data_risk: dict[str, Any] | None = None


class QualitySchema(UnnamedQualitySchema):
    """A kind of evaluation of an instance.

    Attributes:
        name: what quality payloads are recorded under.
    """

    name: str


FIRST_ONLY = Check(None, {"fail_fast": True})
"""A check that reports only the first wrong item of a list. To report three million took 5 GB and 17 s."""


class SchemaVersion(Fields):
    """The span types and quality schemas of an instance: a list, or maps of JSON Schemas by name.

    Attributes:
        external_identifier: the client's name for it.
        span_type_schemas: the span types.
        span_schemas: JSON Schemas of payloads by schema_name.
        span_result_schemas: JSON Schemas of result payloads by schema_name.
        quality_schemas: the quality schemas.
        quality_schema: the quality schema without a name.
    """

    external_identifier: str | None = None
    span_type_schemas: Annotated[list[SpanTypeSchema] | None, FIRST_ONLY] = None
    span_schemas: dict[str, Any] | None = None
    span_result_schemas: dict[str, Any] | None = None
    quality_schemas: Annotated[list[QualitySchema] | None, FIRST_ONLY] = None
    quality_schema: UnnamedQualitySchema | None = None


class SchemaVersionForCreate(SchemaVersion, Keyable):
    """A schema version of an agent.

    Attributes:
        agent_id: PFID of the agent.
    """

    again: ClassVar[str] = "answers with the version as it is now"

    agent_id: str


class CreateSchemaVersion(SchemaVersionForCreate, Write):
    """Create a schema version, or get the one with the same content.

    Attributes:
        details: the schema version.
    """

    route = Route("POST", "/agent_schema_version", "versions", AgentSchemaVersion)
    summary = "Create a schema version"
    action = "agent_schema_versions/create"
    wraps = SchemaVersionForCreate

    def plan(self, ctx: Context) -> Plan:
        """Plan to create a schema version; the same content again is the same version."""
        sent = self.checked()
        agent_id = sent.pop("agent_id")
        wanted = fields(ctx, sent)
        request = {
            "agent_id": agent_id,
            "external_identifier": wanted.external_identifier,
            "content": wanted.content_hash,
        }
        key = self.key(request)
        new_id = ctx.ids.new()

        def decide(found: Found, now: str) -> Unit:
            agent = expect(found, AgentRow, agent_id)
            stored = unique(ctx.storage, AgentSchemaVersionRow, agent_id=agent.id, content_hash=wanted.content_hash)
            if stored is not None:
                return Unit((), stored.id, key)
            row = AgentSchemaVersionRow(new_id, agent.id, *wanted, now, now)
            return Unit((Put(row, minted=True),), new_id, key)

        return Plan((agent_id,), key, decide)


class GetSchemaVersion(GetRow):
    """Get a schema version."""

    route = Route("GET", "/agent_schema_version/{agent_schema_version_id}", "versions", AgentSchemaVersion)

    row_type = AgentSchemaVersionRow

    agent_schema_version_id: str


class ListSchemaVersions(Listing):
    """List schema versions."""

    route = Route("GET", "/agent_schema_version", "versions", AgentSchemaVersion)
    sortable = frozenset({"id", "inserted_at", "external_identifier"})

    agent_id: str | None = None

    def query(self, ctx: Context) -> Query:
        """Return a query for schema versions."""
        return Query("agent_schema_version", ctx.where_agent(self.agent_id))
