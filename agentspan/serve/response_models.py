"""Models of responses: for the OpenAPI document only; answers are made in operations.envelopes."""

from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel
from pydantic.json_schema import SkipJsonSchema

from agentspan.model.agent_resources import AgentSchemaVersion
from agentspan.model.pages import Pagination
from agentspan.model.resources import Control

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
