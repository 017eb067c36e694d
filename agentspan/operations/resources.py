"""Resources of the API that operations by id do not return: they are only in answers over HTTP."""

from typing import Literal

from pydantic import AwareDatetime, BaseModel


class Violation(BaseModel):
    """A place where a payload does not match its schema.

    Attributes:
        side: in the payload, or in the result payload.
        path: where, as a JSON path.
        keyword: the keyword of the schema that it does not satisfy; `$unchecked` where the check was given up.
        message: what is wrong, without the value.
    """

    side: Literal["payload", "result_payload"]
    path: str
    keyword: str
    message: str


class Account(BaseModel):
    """The file itself.

    Attributes:
        type: always `account`.
        id: PFID of the account.
        name: always `local`.
        inserted_at: when the file was created, UTC.
        updated_at: the same.
    """

    type: Literal["account"]
    id: str
    name: str
    inserted_at: AwareDatetime
    updated_at: AwareDatetime


class Environment(BaseModel):
    """The one environment of a file.

    Attributes:
        type: always `environment`.
        id: PFID of the environment.
        account_id: PFID of the account.
        name: always `local`.
        inserted_at: when the file was created, UTC.
        updated_at: the same.
    """

    type: Literal["environment"]
    id: str
    account_id: str
    name: str
    inserted_at: AwareDatetime
    updated_at: AwareDatetime


class AgentDeployment(BaseModel):
    """The one deployment of a file, which all agents share.

    Attributes:
        type: always `agent_deployment`.
        id: PFID of the deployment.
        account_id: PFID of the account.
        agent_id: PFID of the agent that was asked for, or null.
        environment_id: PFID of the environment.
        current_version_id: always null: each run says its version.
        inserted_at: when the file was created, UTC.
        updated_at: the same.
    """

    type: Literal["agent_deployment"]
    id: str
    account_id: str
    agent_id: str | None
    environment_id: str
    current_version_id: str | None
    inserted_at: AwareDatetime
    updated_at: AwareDatetime


class Nothing(BaseModel):
    """A kind of resource that a file does not have; lists of it are empty.

    Attributes:
        id: PFID of the resource.
    """

    id: str


class Pfids(BaseModel):
    """Fresh ids.

    Attributes:
        pfids: the ids, in ascending order.
    """

    pfids: list[str]


class Pong(BaseModel):
    """The server is there, and the token is right.

    Attributes:
        account_id: PFID of the file's account.
    """

    account_id: str
