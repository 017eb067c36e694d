"""Middleware for methods and paths: HEAD as GET without the body, OPTIONS, and a slash at the end of an API path."""

from collections.abc import Iterable

from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentspan.serve.paths import is_api


class MethodsMiddleware:
    """An ASGI middleware before the routes.

    Args:
        routes: all routes of the application, without nested routers.
    """

    def __init__(self, app: ASGIApp, *, routes: list[BaseRoute]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] == "http":
            if scope["path"].endswith("/") and is_api(scope):
                # The router would redirect, and few clients send a POST again.
                scope = {**scope, "path": scope["path"].rstrip("/")}
            method = scope["method"]
            if method == "OPTIONS" and (allowed := allow(self._routes, scope)):
                await Response(status_code=204, headers={"Allow": allowed})(scope, receive, send)
                return
            if method == "HEAD":
                scope, send = {**scope, "method": "GET"}, _without_body(send)
        await self._app(scope, receive, send)


def allow(routes: Iterable[BaseRoute], scope: Scope) -> str:
    """Return the methods of a path, as the header Allow has them; empty if there is no such path."""
    methods: set[str] = set()
    for route in routes:
        if route.matches(scope)[0] is not Match.NONE:
            methods |= getattr(route, "methods", None) or set()
    if methods:
        methods |= {"OPTIONS", "HEAD"} if "GET" in methods else {"OPTIONS"}
    return ", ".join(sorted(methods))


def _without_body(send: Send) -> Send:
    async def sent(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return sent
