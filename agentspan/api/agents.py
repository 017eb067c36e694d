"""Operations on agents, their versions and their schema versions: the sets of span types of instances."""

import logging
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from agentspan import jsontext
from agentspan.api import checks, envelopes
from agentspan.api.checks import inside
from agentspan.api.context import ATTEMPTS, Context, Plan
from agentspan.api.envelopes import Envelope, instance_counts
from agentspan.api.operation import (
    CHANGES_NOTHING,
    ChangeRow,
    Check,
    Fields,
    GetRow,
    Keyable,
    Listing,
    Name,
    Operation,
    OwnId,
    Route,
    Text,
    Write,
    filters,
)
from agentspan.api.resources import Agent, AgentSchemaVersion, AgentVersion
from agentspan.errors import DatabaseBusy, InvalidAction, InvalidValue, NotFound, RequiredValue
from agentspan.model import registration
from agentspan.model.changes import AGENT_STATUSES, Applied, Change, Put, Remove, Unit, check_text
from agentspan.model.registration import SchemaFields
from agentspan.model.rows import AgentRow, AgentSchemaVersionRow, AgentVersionRow, ResourceType, Value
from agentspan.schemas.span_types import (
    REGISTRY,
    TEMPLATES,
    Unusable,
    check_name,
    check_quality_schemas,
    check_span_type_schemas,
)
from agentspan.storage.access import check_unused, expect, unique
from agentspan.storage.answers import Found
from agentspan.storage.questions import Query

OWNERS = ("owner_person_id", "team_id", "risk_profile_id")


class AgentForCreate(Keyable):
    """An agent to be.

    Attributes:
        name: for people.
        description: for people.
        external_identifier: the client's own name for it, unique in the file.
        id: a PFID of the client's own; minted when left out.
        owner_person_id: kept as it is, as `team_id` and `risk_profile_id`: a file has none of these.
        team_id: kept as it is.
        risk_profile_id: kept as it is.
    """

    again: ClassVar[str] = "answers with the agent as it is now"

    name: Name
    description: Text = None
    external_identifier: Text = None
    id: OwnId = None
    owner_person_id: Text = None
    team_id: Text = None
    risk_profile_id: Text = None


class CreateAgent(AgentForCreate, Write):
    """Create an agent.

    Attributes:
        details: the agent.
    """

    route = Route("POST", "/agent", "agents", Agent)
    action = "agents/create"
    wraps = AgentForCreate
    first = OWNERS

    def plan(self, ctx: Context) -> Plan:
        """Plan to create an agent."""
        sent = self.checked()
        key = self.key(sent)
        id = self.id
        agent_id = id or ctx.ids.new()
        external = sent.get("external_identifier")
        if external:
            external = ctx.admit_text(external)

        def decide(found: Found, now: str) -> Unit:
            check_unused(found, id)
            if external is not None:
                other = unique(ctx.storage, AgentRow, external_identifier=external)
                if other is not None:
                    raise InvalidValue("external_identifier", f"already names the agent {other.id}")
            name, description, *owners = (_admitted(ctx, sent.get(each)) for each in ("name", "description", *OWNERS))
            row = AgentRow(agent_id, external, name, description, "pending", now, now, *owners)
            return Unit((Put(row, minted=id is None),), agent_id, key)

        return Plan((id,), key, decide)


def _admitted(ctx: Context, text: Any) -> Any:
    return text and ctx.admit_text(text)


class AgentForUpdate(Fields):
    """Changes of an agent. Fields that are left out stay as they are.

    Attributes:
        name: for people.
        description: for people.
        owner_person_id: kept as it is, as `team_id` and `risk_profile_id`.
        team_id: kept as it is.
        risk_profile_id: kept as it is.
    """

    name: Annotated[str | None, Check(checks.required_text)] = None
    description: Text = None
    owner_person_id: Text = None
    team_id: Text = None
    risk_profile_id: Text = None


class UpdateAgent(AgentForUpdate, ChangeRow):
    """Change an agent.

    Attributes:
        details: the fields to change, with their new values.
    """

    route = Route("PUT", "/agent/{agent_id}", "agents", Agent)
    action = "agents/update"
    row_type = AgentRow
    wraps = AgentForUpdate
    again = CHANGES_NOTHING

    agent_id: str

    def decide(self, ctx: Context, row: AgentRow, sent: Mapping[str, Any], now: str) -> Sequence[Change]:
        """Change an agent."""
        values = {name: _admitted(ctx, text) for name, text in sent.items() if name != "agent_id"}
        return [registration.updated(row, values, now)]


class Keyed(ChangeRow):
    """A request that says nothing but its key."""

    body_name = "Keyed"
    row_type = AgentRow
    may_be_empty = True
    again = CHANGES_NOTHING


class RetireAgent(Keyed):
    """Retire an agent."""

    route = Route("POST", "/agent/{agent_id}/retire", "agents", Agent)
    action = "agents/retire"

    agent_id: str

    def decide(self, ctx: Context, row: AgentRow, sent: Mapping[str, Any], now: str) -> Sequence[Change]:
        """Retire an agent."""
        return [registration.retire(row, now)]


class ReinstateAgent(Keyed):
    """Reinstate an agent."""

    route = Route("POST", "/agent/{agent_id}/reinstate", "agents", Agent)
    action = "agents/reinstate"

    agent_id: str

    def decide(self, ctx: Context, row: AgentRow, sent: Mapping[str, Any], now: str) -> Sequence[Change]:
        """Undo a retirement."""
        counts = instance_counts(ctx.storage, row.id)
        return [registration.reinstate(row, was_used=counts["total"] > counts["pending"], now=now)]


class DeleteAgent(Operation):
    """Delete an agent."""

    route = Route("DELETE", "/agent/{agent_id}", "agents", Agent)
    writes = True

    agent_id: str

    def deleted(self, ctx: Context) -> AgentRow:
        """Delete the agent, and return its last row.

        Raises:
            InvalidAction: the agent has instances.
        """
        ctx.check_writable()
        for _ in range(ATTEMPTS):
            agent = ctx.row(AgentRow, self.agent_id)
            where: dict[str, Value] = {"agent_id": agent.id}
            if ctx.storage.ask(Query("agent_instance", where, limit=1)).rows:
                raise InvalidAction(f"agent {agent.id} has instances; retire it instead")
            removes = [
                Remove(type_, row.id) for type_ in _VERSIONS for row in ctx.storage.ask(Query(type_, where)).rows
            ]
            unit = Unit((*removes, Remove("agent", agent.id)))
            if isinstance(ctx.storage.apply([unit], wait_s=ctx.wait_s)[0], Applied):
                return agent
        raise DatabaseBusy(f"other writers used agent {self.agent_id} in between; try again")

    def __call__(self, ctx: Context) -> Envelope:
        """Delete the agent, and return the envelope of its last row."""
        return envelopes.of_one(envelopes.plain(envelopes.agent(self.deleted(ctx), ctx.account)))


_VERSIONS: tuple[ResourceType, ...] = ("agent_version", "agent_schema_version")


class GetAgent(GetRow):
    """Get an agent."""

    route = Route("GET", "/agent/{agent_id}", "agents", Agent)

    row_type = AgentRow

    agent_id: str


class ShowAgent(Operation):
    """Show an agent by one of its names."""

    route = Route("GET", "/agent/show", "agents", Agent)

    agent_id: str | None = None
    external_identifier: str | None = None
    environment_id: str | None = None
    include_counts: bool = False
    include_risk_rollup: bool = False

    def row(self, ctx: Context) -> AgentRow:
        """Return the row of the agent.

        Raises:
            RequiredValue: neither the id nor the external_identifier is passed, or both are.
            NotFound: no agent has the id or the external_identifier.
        """
        ctx.check_environment(self.environment_id)
        if (self.agent_id is None) == (self.external_identifier is None):
            raise RequiredValue("agent_id", "give either agent_id or external_identifier")
        if self.agent_id is not None:
            return ctx.row(AgentRow, self.agent_id)
        name = ctx.admit_text(checks.required_text("external_identifier", self.external_identifier))
        found = unique(ctx.storage, AgentRow, external_identifier=name)
        if found is None:
            raise NotFound("no agent has this external_identifier")
        return found

    def __call__(self, ctx: Context) -> Envelope:
        """Return the envelope of the agent."""
        return envelopes.of_row(ctx, self.row(ctx))


class ListAgents(Listing):
    """List agents."""

    route = Route("GET", "/agent", "agents", Agent)
    sortable = frozenset({"id", "name", "inserted_at", "updated_at", "status"})
    statuses = AGENT_STATUSES

    status: str | None = None
    environment_id: str | None = None

    def query(self, ctx: Context) -> Query:
        """Return a query for agents."""
        ctx.check_environment(self.environment_id)
        return Query("agent", filters(status=checks.one_of("status", self.status, AGENT_STATUSES)))


class GetAgentVersion(GetRow):
    """Get an agent version."""

    route = Route("GET", "/agent_version/{agent_version_id}", "versions", AgentVersion)

    row_type = AgentVersionRow

    agent_version_id: str


class ListAgentVersions(Listing):
    """List agent versions."""

    route = Route("GET", "/agent_version", "versions", AgentVersion)
    sortable = frozenset({"id", "external_identifier", "inserted_at", "updated_at"})

    agent_id: str | None = None

    def query(self, ctx: Context) -> Query:
        """Return a query for versions."""
        return Query("agent_version", ctx.where_agent(self.agent_id))


MAX_TYPES = 500
"""The most span types of a schema version by id."""
LISTED = 20
"""The most span types that one line of the log names."""


def fields(ctx: Context, value: Any) -> SchemaFields:
    """Check an `agent_schema_version`, and return its fields.

    It has `span_type_schemas`, or the flat maps `span_schemas` and `span_result_schemas`. None means the span types of
    this process: the built-in ones and those of `agentspan.span_type`.
    """
    if value is None:
        return registration.fields_of(REGISTRY.items())
    if not isinstance(value, Mapping):
        raise InvalidValue("agent_schema_version", "must be an object")
    external = checks.text("external_identifier", value.get("external_identifier"))
    checked, unusable = check_span_type_schemas(_items(value))
    quality, unusable_quality = check_quality_schemas(_list(value, "quality_schemas"))
    if value.get("quality_schema") is not None:
        unnamed, unusable_unnamed = _unnamed(value["quality_schema"])
        quality, unusable_quality = [*quality, unnamed], [*unusable_quality, *unusable_unnamed]
    external = external and ctx.admit_text(external)
    wanted = registration.fields_of(ctx.admit_types(checked), ctx.admit_types(quality), external)
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
    return {**checked, "name": registration.UNNAMED}, unusable


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
        result_template: template of the text that the result adds to the summary.
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
    """The schema of the evaluation in `quality_payload` of an instance, which has no name.

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
        name: the name under which quality payloads of this kind are recorded.
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
