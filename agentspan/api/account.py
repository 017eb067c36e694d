"""Operations on the account of a file: the file itself, one environment, one deployment; no alerts, tokens or users.

Clients that read runs call these operations first. NOT_IMPLEMENTED lists the operations that a file has no use for.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from agentspan.api import checks, envelopes, resources
from agentspan.api.context import Context
from agentspan.api.envelopes import Envelope
from agentspan.api.operation import PAGE_SIZE, Check, Operation, Route
from agentspan.api.resources import pagination
from agentspan.errors import NotFound, RequiredValue
from agentspan.model.rows import AgentRow

LOCAL = "local"
"""The name of the account and of its environment: a file has one of each."""


class OfAccount(Operation):
    """An operation that returns one resource, made from the account of the context. It reads no storage."""

    reads = False

    def details(self, ctx: Context) -> Envelope:
        """Return the resource that the operation answers with, as a dict of its fields."""
        raise NotImplementedError

    def __call__(self, ctx: Context) -> Envelope:
        """Return the envelope of the resource."""
        return envelopes.of_one(self.details(ctx))


class Ping(OfAccount):
    """Check the token."""

    route = Route("GET", "/ping", "service", resources.Pong)

    def details(self, ctx: Context) -> Envelope:
        """Return the account's id."""
        return {"account_id": ctx.account.id}


class GeneratePfids(OfAccount):
    """Ask for ids.

    Attributes:
        count: the number of ids.
    """

    route = Route("POST", "/pfid/generate", "service", resources.Pfids)
    summary = "Generate ids"
    has_body = may_be_empty = True

    count: Annotated[int, Check(None, {"ge": 1, "le": checks.MAX_PFIDS})] = 1

    def details(self, ctx: Context) -> Envelope:
        """Return fresh ids."""
        return {"pfids": [ctx.ids.new() for _ in range(int(self.count))]}


class GetAccount(OfAccount):
    """Get the account."""

    route = Route("GET", "/account", "account", resources.Account)

    def details(self, ctx: Context) -> Envelope:
        """Return the account."""
        return {"type": "account", "id": ctx.account.id, "name": LOCAL, **_times(ctx)}


class GetAccountById(GetAccount):
    """Get an account."""

    route = Route("GET", "/account/{account_id}", "account", resources.Account)

    account_id: str

    def details(self, ctx: Context) -> Envelope:
        """Return the account."""
        _check_account(ctx, self.account_id)
        return super().details(ctx)


class GetEnvironment(OfAccount):
    """Get an environment."""

    route = Route("GET", "/environment/{environment_id}", "account", resources.Environment)

    environment_id: str

    def details(self, ctx: Context) -> Envelope:
        """Return the environment."""
        ctx.check_environment(self.environment_id)
        return _environment(ctx)


class ShowEnvironment(OfAccount):
    """Show an environment."""

    route = Route("GET", "/environment/show", "account", resources.Environment)

    environment_id: str | None = None

    def details(self, ctx: Context) -> Envelope:
        """Return the environment."""
        if self.environment_id is None:
            raise RequiredValue("environment_id", "is required")
        ctx.check_environment(self.environment_id)
        return _environment(ctx)


class GetAgentDeployment(OfAccount):
    """Get a deployment."""

    route = Route("GET", "/agent_deployment/{agent_deployment_id}", "account", resources.AgentDeployment)

    agent_deployment_id: str

    def details(self, ctx: Context) -> Envelope:
        """Return the deployment."""
        if self.agent_deployment_id != ctx.account.agent_deployment_id:
            raise NotFound("no agent deployment has this id")
        return _deployment(ctx, None)


class CountAlerts(Operation):
    """Count alerts."""

    reads = False
    route = Route("GET", "/alerts/count", "account")
    envelope = "AlertCount"

    status: str | None = None
    severity: str | None = None

    def __call__(self, ctx: Context) -> Envelope:
        """Return the envelope of a count of 0: a file has no alerts."""
        return {"status": "success", "count": 0}


class ShortList(Operation):
    """A list of at most one item. Its order has no effect."""

    envelope = "Many"

    offset: int = 0
    page_size: int = PAGE_SIZE

    @classmethod
    def of_json(cls, sent: Mapping[str, Any]) -> Self:
        """Return the operation of a request. The page of the list comes in `pagination`."""
        return super().of_json({**sent, **sent.get("pagination", {})})

    def items(self, ctx: Context) -> list[Envelope]:
        """Return the whole list, which is empty unless a subclass overrides this method."""
        _check_account(ctx, getattr(self, "account_id", None))
        return []

    def __call__(self, ctx: Context) -> Envelope:
        """Return the envelope of the page."""
        items, offset, size = self.items(ctx), self.offset, self.page_size
        return {
            "status": "success",
            "summaries": items[offset : offset + size],
            "pagination": pagination(len(items), offset, size).model_dump(),
            "sorting": None,
        }


class ListEnvironments(ShortList):
    """List environments."""

    route = Route("GET", "/environment", "account", resources.Environment)

    account_id: str | None = None

    def items(self, ctx: Context) -> list[Envelope]:
        """Return the one environment."""
        return [*super().items(ctx), _environment(ctx)]


class ListAgentDeployments(ShortList):
    """List deployments of agents."""

    route = Route("GET", "/agent_deployment", "account", resources.AgentDeployment)

    agent_id: str | None = None

    def items(self, ctx: Context) -> list[Envelope]:
        """Return the one deployment."""
        agent = None if self.agent_id is None else ctx.row(AgentRow, self.agent_id).id
        return [_deployment(ctx, agent)]


class ListRiskProfiles(ShortList):
    """List risk profiles."""

    route = Route("GET", "/risk_profile", "account", resources.Nothing)

    account_id: str | None = None
    sorting: str | None = None


class ListApiTokens(ShortList):
    """List tokens."""

    route = Route("GET", "/api_token", "account", resources.Nothing)

    account_id: str | None = None


class ListAdminUsers(ShortList):
    """List users."""

    route = Route("GET", "/admin_user", "account", resources.Nothing)

    account_id: str | None = None


def _check_account(ctx: Context, account_id: Any) -> None:
    if account_id not in (None, ctx.account.id):
        raise NotFound("no account has this id")


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


NO_PEOPLE = "a file has no people and teams"
NO_TOKENS = "a file has no tokens; the server's own one is set in AGENTSPAN_TOKEN"
NO_ALERTS = "a file has no alerts"
NO_RISKS = "a file has no risk profiles"
ONE_PLACE = "a file has one account, one environment and one deployment, which never change"
PLAYGROUND = "only the service itself makes up runs; `agentspan demo` records some"
ELSEWHERE = "a file sends nothing anywhere"

NOT_IMPLEMENTED: Mapping[str, Mapping[str, str]] = {
    "/account/{id}": {"PUT": ONE_PLACE},
    "/account_integration": dict.fromkeys(("GET", "POST"), ELSEWHERE),
    "/account_integration/{id}": dict.fromkeys(("GET", "PUT", "DELETE"), ELSEWHERE),
    "/account_integration/{id}/test": {"POST": ELSEWHERE},
    "/admin_user/{id}": dict.fromkeys(("GET", "PUT"), NO_PEOPLE),
    "/admin_user_invite": dict.fromkeys(("GET", "POST"), NO_PEOPLE),
    "/admin_user_invite/{id}": {"GET": NO_PEOPLE},
    "/admin_user_invite/{id}/revoke": {"POST": NO_PEOPLE},
    "/agent_deployment": {"POST": ONE_PLACE},
    "/agent_deployment/{id}": dict.fromkeys(("PUT", "DELETE"), ONE_PLACE),
    "/agent_instance/{id}/{action}": {"POST": "a file has no such action of a run"},
    "/agent_spans/create_test_spans": {"POST": PLAYGROUND},
    "/agent_spans/{id}/discard_sensitive": {"POST": "values that are marked as sensitive are not stored"},
    "/agent_version": {"POST": "a version is created when a run registers with a new one"},
    "/alerts": {"GET": NO_ALERTS},
    "/alerts/clear": {"POST": NO_ALERTS},
    "/alerts/raise": {"POST": NO_ALERTS},
    "/alerts/{id}": {"GET": NO_ALERTS},
    "/api_token": {"POST": NO_TOKENS},
    "/api_token/{id}": dict.fromkeys(("GET", "DELETE"), NO_TOKENS),
    "/api_token/{id}/{action}": {"POST": NO_TOKENS},
    "/environment": {"POST": ONE_PLACE},
    "/environment/{id}": dict.fromkeys(("PUT", "DELETE"), ONE_PLACE),
    "/person": dict.fromkeys(("GET", "POST"), NO_PEOPLE),
    "/person/{id}": dict.fromkeys(("GET", "PUT", "DELETE"), NO_PEOPLE),
    "/playground/{action}": {"POST": PLAYGROUND},
    "/risk_profile": {"POST": NO_RISKS},
    "/risk_profile/template": {"GET": NO_RISKS},
    "/risk_profile/{id}": dict.fromkeys(("GET", "PUT", "DELETE"), NO_RISKS),
    "/team": dict.fromkeys(("GET", "POST"), NO_PEOPLE),
    "/team/{id}": dict.fromkeys(("GET", "PUT", "DELETE"), NO_PEOPLE),
}
"""The operations of the API that a file has no use for, by path and method, each with the reason in its answer.

They are answered with `not_implemented`, never 404. Source: the clients of the official command line
(`@prefactor/cli`).
"""
