"""The routes over the account of a file: what readers of the API ask for before they read runs."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Response

from agentspan.model.resources import AgentInstance
from agentspan.operations import account, json_operations
from agentspan.operations.context import Context
from agentspan.serve.direct_route import Id
from agentspan.serve.query_strings import Offset, PageSize
from agentspan.serve.response_models import (
    Account,
    AgentDeployment,
    AlertCount,
    Environment,
    Many,
    Nothing,
    One,
)
from agentspan.serve.responses import respond

Answer = Callable[..., Awaitable[Response]]


def add_to(api: APIRouter, ctx: Context) -> None:
    """Add the routes to the API's."""

    @api.get("/account", response_model=One[Account], summary="Get the account", tags=["account"])
    async def get_account() -> Response:
        return respond(account.account(ctx))

    @api.get("/account/{account_id}", response_model=One[Account], summary="Get an account", tags=["account"])
    async def get_account_by_id(account_id: Id) -> Response:
        return respond(account.account(ctx, account_id))

    @api.get("/environment", response_model=Many[Environment], summary="List environments", tags=["account"])
    async def list_environments(
        account_id: str | None = None, offset: Offset = 0, page_size: PageSize = 50
    ) -> Response:
        return respond(account.environments(ctx, account_id, offset, page_size))

    @api.get("/environment/show", response_model=One[Environment], summary="Show an environment", tags=["account"])
    async def show_environment(environment_id: str | None = None) -> Response:
        return respond(account.environment(ctx, environment_id))

    @api.get(
        "/environment/{environment_id}", response_model=One[Environment], summary="Get an environment", tags=["account"]
    )
    async def get_environment(environment_id: Id) -> Response:
        return respond(account.environment(ctx, environment_id))

    @api.get(
        "/agent_deployment",
        response_model=Many[AgentDeployment],
        summary="List deployments of agents",
        tags=["account"],
    )
    async def list_agent_deployments(
        agent_id: str | None = None, offset: Offset = 0, page_size: PageSize = 50
    ) -> Response:
        return respond(account.deployments(ctx, agent_id, offset, page_size))

    @api.get(
        "/agent_deployment/{agent_deployment_id}",
        response_model=One[AgentDeployment],
        summary="Get a deployment",
        tags=["account"],
    )
    async def get_agent_deployment(agent_deployment_id: Id) -> Response:
        return respond(account.deployment(ctx, agent_deployment_id))

    @api.get("/alerts/count", response_model=AlertCount, summary="Count alerts", tags=["account"])
    async def count_alerts(status: str | None = None, severity: str | None = None) -> Response:
        return respond({"status": "success", "count": 0})

    @api.get("/risk_profile", response_model=Many[Nothing], summary="List risk profiles", tags=["account"])
    async def list_risk_profiles(
        account_id: str | None = None, sorting: str | None = None, offset: Offset = 0, page_size: PageSize = 50
    ) -> Response:
        return respond(account.nothing(ctx, account_id, offset, page_size))

    @api.get("/api_token", response_model=Many[Nothing], summary="List tokens", tags=["account"])
    async def list_api_tokens(account_id: str | None = None, offset: Offset = 0, page_size: PageSize = 50) -> Response:
        return respond(account.nothing(ctx, account_id, offset, page_size))

    @api.get("/admin_user", response_model=Many[Nothing], summary="List users", tags=["account"])
    async def list_admin_users(account_id: str | None = None, offset: Offset = 0, page_size: PageSize = 50) -> Response:
        return respond(account.nothing(ctx, account_id, offset, page_size))


def add_show_to(api: APIRouter, read: Answer) -> None:
    """Add the route of an instance by a query parameter. It must come before the one of an instance by its path.

    Args:
        read: runs an operation that reads, and answers with its envelope.
    """

    @api.get(
        "/agent_instance/show",
        response_model=One[AgentInstance],
        summary="Show an instance",
        tags=["instances"],
    )
    async def show_instance(
        agent_instance_id: str | None = None, include_counts: bool = False, include_costs: bool = False
    ) -> Response:
        return await read(json_operations.show_agent_instance, agent_instance_id=agent_instance_id)
