"""The API's resources about an agent as pydantic models: the agent, its versions, its schema versions."""

from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from agentspan.model.status import AgentStatus


class Resource(BaseModel):
    """The base of all resources: they cannot be changed."""

    model_config = ConfigDict(frozen=True)


class InstanceCounts(Resource):
    """The number of an agent's instances in each status."""

    total: int = 0
    pending: int = 0
    active: int = 0
    complete: int = 0
    failed: int = 0
    cancelled: int = 0
    terminated: int = 0
    finished: int = 0


class AvailableActions(Resource):
    """The operations on an agent that would succeed now: update, retire, reinstate, delete."""

    update: bool
    retire: bool
    reinstate: bool
    delete: bool


class Agent(Resource):
    """An agent: its name, status, and the counts of its runs.

    Attributes:
        type: always "agent".
        id: PFID of the agent.
        account_id: PFID of the file's account.
        external_identifier: the client's own name for it, unique in the file, or None.
        name: for people.
        description: for people, or None.
        status: pending until its first instance starts, then active; retired by retire.
        available_actions: the operations that its state allows now; None in lists, and of a deleted agent.
        instance_counts: its instances by status; likewise.
        inserted_at: when it was created, UTC.
        updated_at: when it last changed, UTC.
        owner_person_id: its owner in the service, as a client said, or None.
        team_id: its team there, likewise.
        risk_profile_id: its risk profile there, likewise.
    """

    type: Literal["agent"] = "agent"
    id: str
    account_id: str
    external_identifier: str | None
    name: str
    description: str | None
    status: AgentStatus
    available_actions: AvailableActions | None = None
    instance_counts: InstanceCounts | None = None
    inserted_at: AwareDatetime
    updated_at: AwareDatetime
    owner_person_id: str | None = None
    team_id: str | None = None
    risk_profile_id: str | None = None


class AgentVersion(Resource):
    """A version of an agent, as instances were registered with it.

    Attributes:
        type: always "agent_version".
        id: PFID of the version.
        account_id: PFID of the file's account.
        agent_id: PFID of the agent.
        external_identifier: the client's name for it, unique among the agent's versions.
        name: for people, or None.
        description: for people, or None.
        runtime_environment: the frameworks and the system that it ran with, as the client said, or None.
        inserted_at: when it was created, UTC.
        updated_at: when it last changed, UTC.
    """

    type: Literal["agent_version"] = "agent_version"
    id: str
    account_id: str
    agent_id: str
    external_identifier: str
    name: str | None
    description: str | None
    runtime_environment: dict[str, Any] | None
    inserted_at: AwareDatetime
    updated_at: AwareDatetime


class AgentSchemaVersion(Resource):
    """A set of span types that instances of an agent are registered with.

    Attributes:
        type: always "agent_schema_version".
        id: PFID of the schema version.
        account_id: PFID of the file's account.
        agent_id: PFID of the agent.
        external_identifier: the name it was first registered under, or None.
        content_hash: SHA-256 of its content, as hex: equal content is one version.
        span_type_schemas: the span types, each with name, title, params_schema, result_schema and template.
        quality_schemas: the quality schemas, each with name, schema, title and template.
        quality_schema: the one without a name, which quality_payload of instances follows, or None.
        inserted_at: when it was created, UTC.
        updated_at: when it last changed, UTC.
    """

    type: Literal["agent_schema_version"] = "agent_schema_version"
    id: str
    account_id: str
    agent_id: str
    external_identifier: str | None
    content_hash: str
    span_type_schemas: list[dict[str, Any]]
    quality_schemas: list[dict[str, Any]]
    quality_schema: dict[str, Any] | None
    inserted_at: AwareDatetime
    updated_at: AwareDatetime
