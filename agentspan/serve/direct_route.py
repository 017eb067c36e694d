"""Routes whose handlers are called without FastAPI's router, middleware and parsing, which take longer than creating a
span.

They take ids in the path, a JSON body and a query string, and are called directly only for requests that are right: any
other goes FastAPI's way, which says what is wrong. So errors are made in one place, and the OpenAPI document knows
these routes as any others.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Annotated, Any

from fastapi import Path, Request, Response
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from pydantic_core import from_json
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentspan import ids
from agentspan.errors import InvalidValue
from agentspan.interrupts import let_through
from agentspan.serve import large_bodies
from agentspan.serve.middleware import replay
from agentspan.serve.paths import route_path
from agentspan.serve.query_strings import QueryParser, is_of_query

KEY_HEADER = b"idempotency-key"
keys: ContextVar[Sequence[bytes]] = ContextVar("keys", default=())
"""The headers Idempotency-Key of the request. A parameter of the handlers would need FastAPI's parsing."""
Id = Annotated[str, Path(pattern="^[0-7][0-9abcdefghjkmnpqrstvwxyz]{31}$")]


class DirectRoute(APIRoute):
    """A route whose handler can be called directly. Its parameters are Ids, a `body`, and those of the query string.

    Attributes:
        takes_body: True if the handler has a `body`.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        parameters = dict(inspect.signature(endpoint).parameters)
        body = parameters.pop("body", None)
        self._ids = [name for name, parameter in parameters.items() if parameter.annotation == Id]
        of_query = {name: parameter for name, parameter in parameters.items() if name not in self._ids}
        self.is_direct = all(map(is_of_query, of_query.values()))
        self._query = QueryParser(of_query) if of_query and self.is_direct else None
        self._body = None if body is None else TypeAdapter(body.annotation)
        self._may_be_empty = body is not None and body.default is None
        self.takes_body = body is not None

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match the paths whose ids are PFIDs: `/agent/show` is no agent's path, whatever the method."""
        match, found = super().matches(scope)
        if match is not Match.NONE and not self._are_ids(found["path_params"]):
            return Match.NONE, {}
        return match, found

    def ids_in(self, path: str) -> dict[str, str] | None:
        """Return the ids in a path by their names; None if it is not this route's."""
        match = self.path_regex.match(path)
        if match is None:
            return None
        found = match.groupdict()
        return found if self._are_ids(found) else None

    async def respond(self, ids: dict[str, str], query: bytes, message: Message | None) -> Response | None:
        """Call the handler, and return its response; None if FastAPI has to say what is wrong with the request.

        Args:
            message: the ASGI message with the body; None if the handler takes no body.

        Raises:
            InvalidValue: the route has query parameters, but not all of those in the request.
            RequestValidationError: a large body is not what the route takes.
        """
        values: dict[str, Any] = dict(ids)
        if self._query is not None:
            try:
                values |= self._query.arguments(query)
            except InvalidValue:
                raise
            except ValueError:  # FastAPI says which
                return None
        if self._body is not None:
            if message is None or message["type"] != "http.request" or message.get("more_body"):
                return None
            body = message["body"]
            is_large = len(body) > large_bodies.LARGE
            large_bodies.is_large.set(is_large)
            if is_large:
                values["body"] = await large_bodies.in_thread(large_bodies.parsed, self._body, body)
            else:
                try:
                    values["body"] = self._parsed(self._body, body)
                except ValueError:  # no JSON, or not what the route takes
                    return None
        response: Response = await self.endpoint(**values)
        return response

    def _parsed(self, adapter: TypeAdapter[Any], body: bytes) -> Any:
        return None if not body and self._may_be_empty else adapter.validate_python(from_json(body))

    def _are_ids(self, values: Mapping[str, Any]) -> bool:
        return all(ids.is_pfid(values[name]) for name in self._ids)


class DirectRoutes:
    """An ASGI middleware before FastAPI's own: answers requests to direct routes.

    Args:
        routes: all routes of the application; the first one that matches is taken, as in the router.
        handlers: makes the responses to exceptions, by their class, as in `FastAPI.exception_handlers`.
    """

    def __init__(self, app: ASGIApp, *, routes: Iterable[BaseRoute], handlers: Mapping[Any, Any]) -> None:
        self._app = app
        self._handlers = handlers
        self._routes: dict[str, list[DirectRoute]] = {}
        for route in routes:
            if isinstance(route, DirectRoute) and route.is_direct:
                for method in route.methods or ():
                    self._routes.setdefault(method, []).append(route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] == "http":
            keys.set([value for name, value in scope["headers"] if name == KEY_HEADER])
            path = route_path(scope)
            for route in self._routes.get(scope["method"], ()):
                found = route.ids_in(path)
                if found is None:
                    continue
                message = None
                if route.takes_body:
                    message = await receive()
                    receive = replay(message, receive)
                try:
                    response = await route.respond(found, scope["query_string"], message)
                except Exception as error:
                    let_through(error)
                    response = await self._handled(scope, error)
                if response is not None:
                    await response(scope, receive, send)
                    return
                break
        await self._app(scope, receive, send)

    async def _handled(self, scope: Scope, error: Exception) -> Response:
        for kind in type(error).__mro__:
            if kind in self._handlers:
                response: Response = await self._handlers[kind](Request(scope), error)
                return response
        raise error
