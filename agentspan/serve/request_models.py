"""Models of requests: for parsing, and for the OpenAPI document. Unknown fields are ignored."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from agentspan.model.status import FinishStatus, Purpose, SpanStatus
from agentspan.operations.json_operations import BULK
from agentspan.operations.request import whole
from agentspan.serve.bodies import Body
from agentspan.serve.quality_models import QualitySchema, UnnamedQualitySchema


class _Flat(Body):
    """A body whose fields are plain JSON already, so that payloads need not be copied."""

    def said(self) -> dict[str, Any]:
        """See Body."""
        return {name: self.__dict__[name] for name in self.model_fields_set}


class AgentForCreate(Body):
    """An agent to be.

    Attributes:
        name: for people.
        description: for people.
        external_identifier: the client's own name for it, unique in the file.
        id: a PFID of the client's own; minted when left out.
        owner_person_id: kept as it is, as `team_id` and `risk_profile_id`: a file has none of these.
        team_id: kept as it is.
        risk_profile_id: kept as it is.
        idempotency_key: the same request with the same key again answers with the agent as it is now.
    """

    name: str
    description: str | None = None
    external_identifier: str | None = None
    id: str | None = None
    owner_person_id: str | None = None
    team_id: str | None = None
    risk_profile_id: str | None = None
    idempotency_key: str | None = Field(None, max_length=64)


class CreateAgent(Body):
    """Create an agent.

    Attributes:
        details: the agent.
        idempotency_key: as in `details`; either place will do.
    """

    details: AgentForCreate
    idempotency_key: str | None = Field(None, max_length=64)


class AgentForUpdate(Body):
    """Changes of an agent. Fields that are left out stay as they are.

    Attributes:
        name: for people.
        description: for people.
        owner_person_id: kept as it is, as `team_id` and `risk_profile_id`.
        team_id: kept as it is.
        risk_profile_id: kept as it is.
    """

    name: str | None = None
    description: str | None = None
    owner_person_id: str | None = None
    team_id: str | None = None
    risk_profile_id: str | None = None


class UpdateAgent(Body):
    """Change an agent.

    Attributes:
        details: what to change.
        idempotency_key: the same request with the same key again changes nothing.
    """

    details: AgentForUpdate
    idempotency_key: str | None = Field(None, max_length=64)


class Keyed(Body):
    """A request that says nothing but its key.

    Attributes:
        idempotency_key: the same request with the same key again changes nothing.
    """

    idempotency_key: str | None = Field(None, max_length=64)


class SpanTypeSchema(Body):
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

    model_config = ConfigDict(extra="allow")

    name: str
    params_schema: dict[str, Any] | bool | None = None
    result_schema: dict[str, Any] | bool | None = None
    title: str | None = None
    description: str | None = None
    template: str | None = None
    result_template: str | None = None
    data_risk: dict[str, Any] | None = None


class SchemaVersion(Body):
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
    span_type_schemas: list[SpanTypeSchema] | None = Field(None, fail_fast=True)
    span_schemas: dict[str, Any] | None = None
    span_result_schemas: dict[str, Any] | None = None
    quality_schemas: list[QualitySchema] | None = Field(None, fail_fast=True)
    quality_schema: UnnamedQualitySchema | None = None


class SchemaVersionForCreate(SchemaVersion):
    """A schema version of an agent.

    Attributes:
        agent_id: PFID of the agent.
        external_identifier: the client's name for it.
        span_type_schemas: the span types.
        span_schemas: JSON Schemas of payloads by schema_name.
        span_result_schemas: JSON Schemas of result payloads by schema_name.
        quality_schemas: the quality schemas.
        quality_schema: the quality schema without a name.
        idempotency_key: the same request with the same key again answers with the version as it is now.
    """

    agent_id: str
    idempotency_key: str | None = Field(None, max_length=64)


class CreateSchemaVersion(Body):
    """Create a schema version, or get the one with the same content.

    Attributes:
        details: the schema version.
        idempotency_key: as in `details`; either place will do.
    """

    details: SchemaVersionForCreate
    idempotency_key: str | None = Field(None, max_length=64)


class VersionForRegister(Body):
    """The version of an agent that an instance is of.

    Attributes:
        external_identifier: the client's name for it; `name`, else "default", when left out.
        name: for people.
        description: for people.
        runtime_environment: the frameworks and the system that it runs with; kept as it is.
    """

    external_identifier: str | None = None
    name: str | None = None
    description: str | None = None
    runtime_environment: dict[str, Any] | None = None


class RegisterInstance(Body):
    """Register an instance; its agent, version and schema version are made when they are new.

    Attributes:
        agent_id: PFID of an agent, or a name (external_identifier), made when missing; "default" when left out.
        environment_id: taken, and not looked at: a file has one environment.
        agent_version: the version of the agent.
        agent_schema_version: the span types and quality schemas.
        id: a PFID of the client's own; minted when left out.
        external_identifier: the client's own name for the instance, unique among its agent's.
        idempotency_key: the same request with the same key again answers with the instance as it is now.
        update_current_version: give a known version its new name and description.
        purpose: why the instance runs.
        metadata: what the run is given.
        session: the conversation that the run belongs to.
        user: the person that it runs for.
        task: what it has to do. Session, user, task and tags that are left out are taken from members of metadata.
        tags: words by which runs are found.
    """

    agent_id: str | None = None
    environment_id: str | None = None
    agent_version: VersionForRegister | None = None
    agent_schema_version: SchemaVersion | None = None
    id: str | None = None
    external_identifier: str | None = None
    idempotency_key: str | None = Field(None, max_length=64)
    update_current_version: bool | None = None
    purpose: Purpose | None = None
    metadata: dict[str, Any] | None = None
    session: str | None = None
    user: str | None = None
    task: str | None = None
    tags: list[str] | None = Field(None, max_length=100, fail_fast=True)


class Start(Body):
    """Start what is pending.

    Attributes:
        details: these fields, as a creation has them; either place will do.
        timestamp: when it started, RFC 3339 with an offset; now when left out.
        idempotency_key: the same request with the same key again succeeds again.
    """

    details: dict[str, Any] | None = None
    timestamp: str | None = None
    idempotency_key: str | None = Field(None, max_length=64)


class FinishInstance(Body):
    """Finish an instance. Its spans are left alone.

    Attributes:
        details: these fields, as a creation has them; either place will do.
        status: `complete` (when left out) or `failed`, of an active one; `cancelled`, of a pending one.
        timestamp: when it finished, RFC 3339 with an offset; now when left out.
        idempotency_key: the same request with the same key again succeeds again.
    """

    details: dict[str, Any] | None = None
    status: FinishStatus | None = None
    timestamp: str | None = None
    idempotency_key: str | None = Field(None, max_length=64)


class Terminate(Body):
    """Terminate an instance, for good.

    Attributes:
        reason: why, for people; the instance's program receives it.
        idempotency_key: the same request with the same key again succeeds again.
    """

    reason: str
    idempotency_key: str | None = Field(None, max_length=64)


class SpanForCreate(_Flat):
    """A span to be.

    Attributes:
        agent_instance_id: PFID of the instance that it belongs to.
        schema_name: the span type.
        status: the status to begin in.
        payload: what went in.
        result_payload: what came out, any JSON; only with a terminal status.
        id: a PFID of the client's own; minted when left out.
        parent_span_id: PFID of the span in which it happens.
        started_at: RFC 3339 with an offset; now when left out, not kept of a pending span.
        finished_at: RFC 3339 with an offset; only with a terminal status, now when left out.
        sensitive_encoding: whether values are marked as sensitive, as `{"$sensitive": "string", "labels": ["email"],
            "value": …}`; such values are not stored, with this or without, unless the server keeps them.
        idempotency_key: the same request with the same key again answers with the span as it is now.
    """

    agent_instance_id: str
    schema_name: str
    status: SpanStatus
    payload: dict[str, Any] = Field(default_factory=dict)
    result_payload: Any = None
    id: str | None = None
    parent_span_id: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    sensitive_encoding: bool | None = None
    idempotency_key: str | None = Field(None, max_length=64)


class CreateSpan(Body):
    """Create a span in any status.

    Attributes:
        details: the span.
        idempotency_key: as in `details`; either place will do.
    """

    details: SpanForCreate
    idempotency_key: str | None = Field(None, max_length=64)

    def said(self) -> dict[str, Any]:
        """See Body."""
        return {"details": self.details.said(), "idempotency_key": self.idempotency_key}


class FinishSpan(_Flat):
    """Finish a span.

    Attributes:
        details: these fields, as a creation has them; either place will do.
        status: terminal status: `complete` (when left out) or `failed`, of an active span; `cancelled`, of a pending
            one, whose times are then both set to the timestamp.
        result_payload: what came out, any JSON.
        timestamp: when it finished, RFC 3339 with an offset; now when left out.
        sensitive_encoding: whether values of the result are marked as sensitive (see the creation of a span).
        idempotency_key: the same request with the same key again succeeds again.
    """

    details: dict[str, Any] | None = None
    status: FinishStatus | None = None
    result_payload: Any = None
    timestamp: str | None = None
    sensitive_encoding: bool | None = None
    idempotency_key: str | None = Field(None, max_length=64)


class BulkItem(BaseModel):
    """One action of a bulk request, with its own fields beside these, or in `details`.

    Attributes:
        type: which action.
        idempotency_key: unique in the request; it labels the output too.
    """

    model_config = ConfigDict(extra="allow")

    type: str = Field(alias="_type", json_schema_extra={"enum": [*BULK]})
    idempotency_key: str = Field(min_length=8, max_length=64)


class Bulk(BaseModel):
    """Several operations, in order; the first that is refused is the last.

    Attributes:
        items: the operations.
    """

    items: list[BulkItem] = Field(min_length=1, max_length=1000, fail_fast=True)


class GeneratePfids(Body):
    """Ask for ids.

    Attributes:
        count: how many.
    """

    count: Annotated[int, BeforeValidator(whole), Field(ge=1, le=1000)] = 1


Sorted = Literal["asc", "desc"]
