"""Models of requests that declare a kind of evaluation, or record one."""

from typing import Any

from pydantic import ConfigDict, Field

from agentspan.serve.bodies import Body


class UnnamedQualitySchema(Body):
    """The kind of evaluation that `quality_payload` of an instance is.

    Attributes:
        schema: JSON Schema (draft-04 to 2020-12) of the payloads. One that cannot be used leaves them unchecked.
        title: for people.
        description: for people.
        template: Mustache for summaries.
        data_risk: kept as it is.
    """

    model_config = ConfigDict(extra="allow", serialize_by_alias=True)

    schema_: dict[str, Any] | bool = Field(alias="schema")
    title: str | None = None
    description: str | None = None
    template: str | None = None
    data_risk: dict[str, Any] | None = None


class QualitySchema(UnnamedQualitySchema):
    """A kind of evaluation of an instance.

    Attributes:
        name: what quality payloads are recorded under.
        schema: JSON Schema (draft-04 to 2020-12) of the payloads. One that cannot be used leaves them unchecked.
        title: for people.
        description: for people.
        template: Mustache for summaries.
        data_risk: kept as it is.
    """

    name: str


class RecordQuality(Body):
    """Record an evaluation of an instance.

    Attributes:
        name: the quality schema's name.
        payload: the evaluation; null removes it.
        idempotency_key: the same request with the same key again changes nothing.
    """

    name: str
    payload: dict[str, Any] | None = None
    idempotency_key: str | None = Field(None, max_length=64)


class InstanceForUpdate(Body):
    """Changes of an instance: what is left out stays, null removes it. One of them is required.

    Attributes:
        quality_payload: the evaluation without a name, as a whole.
        metadata: what the run is given, as a whole. Members named session, user, task and tags are those fields, where
            they are left out.
        session: the conversation that the run belongs to.
        user: the person that it runs for.
        task: what it has to do.
        tags: words by which runs are found, all of them.
    """

    quality_payload: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    session: str | None = None
    user: str | None = None
    task: str | None = None
    tags: list[str] | None = Field(None, max_length=100, fail_fast=True)


class UpdateInstance(Body):
    """Change an instance, in any status.

    Attributes:
        details: what to change.
        idempotency_key: the same request with the same key again changes nothing.
    """

    details: InstanceForUpdate
    idempotency_key: str | None = Field(None, max_length=64)
