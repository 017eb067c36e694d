"""The path of a request below where the application is mounted. Routing, the token's check and cookies use the same."""

from starlette.types import Scope


def route_path(scope: Scope) -> str:
    """Return a request's path as Starlette matches it with routes: without the prefix of the mount.

    A proxy may have removed the prefix already. Only whole parts are removed: `/recorded` is not below `/record`.
    The token's check depends on it, so it must never differ from Starlette's own rule, which has no public name.
    """
    path: str = scope["path"]
    prefix: str = scope.get("root_path", "")
    if not prefix or not path.startswith(prefix):
        return path
    rest = path[len(prefix) :]
    return rest if not rest or rest.startswith("/") else path


def is_api(scope: Scope) -> bool:
    """Return whether a path is the API's, which requires the token: `/api`, or below it."""
    path = route_path(scope)
    return path == "/api" or path.startswith("/api/")


OTLP = frozenset({"/v1/traces", "/v1/logs", "/v1/metrics"})


def is_otlp_path(scope: Scope) -> bool:
    """Return whether a path is one of those that exporters of OpenTelemetry send to."""
    return route_path(scope) in OTLP
