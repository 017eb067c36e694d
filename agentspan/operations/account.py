"""Operations on the account of a file: the file itself, one environment, one deployment; no alerts, tokens or users."""

from collections.abc import Sequence
from typing import Any

from agentspan.errors import NotFound, RequiredValue
from agentspan.model.pages import pagination
from agentspan.model.rows import AgentRow
from agentspan.operations.context import Context
from agentspan.operations.envelopes import Envelope

LOCAL = "local"
"""The name of the account and of its environment: a file has no other."""


def account(ctx: Context, account_id: Any = None) -> Envelope:
    """Return the account: the file itself."""
    if account_id not in (None, ctx.account.id):
        raise NotFound("no account has this id")
    return _one({"type": "account", "id": ctx.account.id, "name": LOCAL, **_times(ctx)})


def environment(ctx: Context, environment_id: Any) -> Envelope:
    """Return the environment.

    Raises:
        RequiredValue: no id is given.
        NotFound: it is another one's.
    """
    if environment_id is None:
        raise RequiredValue("environment_id", "is required")
    ctx.check_environment(environment_id)
    return _one(_environment(ctx))


def environments(ctx: Context, account_id: Any, offset: int, page_size: int) -> Envelope:
    """Return the page of environments: there is one."""
    account(ctx, account_id)
    return _page([_environment(ctx)], offset, page_size)


def deployment(ctx: Context, agent_deployment_id: Any) -> Envelope:
    """Return the deployment.

    Raises:
        NotFound: no deployment has this id.
    """
    if agent_deployment_id != ctx.account.agent_deployment_id:
        raise NotFound("no agent deployment has this id")
    return _one(_deployment(ctx, None))


def deployments(ctx: Context, agent_id: Any, offset: int, page_size: int) -> Envelope:
    """Return the page of deployments: there is one, of every agent."""
    agent = None if agent_id is None else ctx.row(AgentRow, agent_id).id
    return _page([_deployment(ctx, agent)], offset, page_size)


def nothing(ctx: Context, account_id: Any, offset: int, page_size: int) -> Envelope:
    """Return the page of a list of what a file does not have."""
    account(ctx, account_id)
    return _page([], offset, page_size)


def _environment(ctx: Context) -> Envelope:
    id = ctx.account.environment_id
    return {"type": "environment", "id": id, "account_id": ctx.account.id, "name": LOCAL, **_times(ctx)}


def _deployment(ctx: Context, agent_id: str | None) -> Envelope:
    return {
        "type": "agent_deployment",
        "id": ctx.account.agent_deployment_id,
        "account_id": ctx.account.id,
        "agent_id": agent_id,
        "environment_id": ctx.account.environment_id,
        "current_version_id": None,
        **_times(ctx),
    }


def _times(ctx: Context) -> Envelope:
    return {"inserted_at": ctx.account.inserted_at, "updated_at": ctx.account.inserted_at}


def _one(details: Envelope) -> Envelope:
    return {"status": "success", "details": details}


def _page(items: Sequence[Envelope], offset: int, page_size: int) -> Envelope:
    return {
        "status": "success",
        "summaries": [*items[offset : offset + page_size]],
        "pagination": pagination(len(items), offset, page_size).model_dump(),
        "sorting": None,
    }
