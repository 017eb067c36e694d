"""The operations that the API publishes and a file has no use for: each is answered with `not_implemented`, never 404.

Source: the clients of the official command line (`@prefactor/cli`).
"""

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from agentspan import ids
from agentspan.serve.responses import refuse

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
"""By path and method, with the reason that the answer gives."""


def routes(prefix: str) -> list[Route]:
    """Return a route for each of these operations. They come last: what is implemented is matched before.

    They are no routes of FastAPI, which takes 3 ms to make one.
    """
    return [
        _Route(prefix + path, _refusing(reason), methods=[method])
        for path, methods in NOT_IMPLEMENTED.items()
        for method, reason in methods.items()
    ]


class _Route(Route):
    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match a path if its id is a PFID."""
        match, found = super().matches(scope)
        id = None if match is Match.NONE else found["path_params"].get("id")
        return (match, found) if id is None or ids.is_pfid(id) else (Match.NONE, {})


def _refusing(reason: str) -> Callable[[Request], Awaitable[Response]]:
    async def refuse_it(request: Request) -> Response:
        return refuse("not_implemented", f"{reason}; the service has this operation, a local file has not")

    return refuse_it
