"""A route that calls its handler without FastAPI's parsing, which takes longer than creating a span.

It is for routes that take ids in the path, a JSON body and a query string, and only for requests that are right: any
other goes FastAPI's way, which says what is wrong. So errors are made in one place, and the OpenAPI document knows
these routes as any others.
"""

import inspect
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Annotated, Any

from fastapi import Path
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from pydantic_core import from_json
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from agentspan import ids
from agentspan.errors import InvalidValue
from agentspan.serve import large_bodies
from agentspan.serve.middleware import replay
from agentspan.serve.query_strings import QueryParser, is_of_query

KEY_HEADER = b"idempotency-key"
keys: ContextVar[Sequence[bytes]] = ContextVar("keys", default=())
"""The headers Idempotency-Key of the request. A parameter of the handlers would need FastAPI's parsing."""
Id = Annotated[str, Path(pattern="^[0-7][0-9abcdefghjkmnpqrstvwxyz]{31}$")]


class DirectRoute(APIRoute):
    """A route whose handler is called directly. Its parameters are Ids, a `body`, and those of the query string."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        parameters = dict(inspect.signature(endpoint).parameters)
        body = parameters.pop("body", None)
        self._ids = [name for name, parameter in parameters.items() if parameter.annotation == Id]
        of_query = {name: parameter for name, parameter in parameters.items() if name not in self._ids}
        self._is_direct = all(map(is_of_query, of_query.values()))
        self._query = QueryParser(of_query) if of_query and self._is_direct else None
        self._body = None if body is None else TypeAdapter(body.annotation)
        self._may_be_empty = body is not None and body.default is None

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match the paths whose ids are PFIDs: `/agent/show` is no agent's path, whatever the method."""
        match, found = super().matches(scope)
        if self._ids and match is not Match.NONE:
            values = found["path_params"]
            if not all(ids.is_pfid(values[name]) for name in self._ids):
                return Match.NONE, {}
        return match, found

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request whose path is this route's.

        Raises:
            InvalidValue: the route has query parameters, but not all of those in the request.
            RequestValidationError: a large body is not what the route takes.
        """
        keys.set([value for name, value in scope["headers"] if name == KEY_HEADER])
        if self._is_direct and scope["method"] in (self.methods or ()):
            values: dict[str, Any] = {name: scope["path_params"][name] for name in self._ids}
            is_right = True
            if self._query is not None:
                try:
                    values |= self._query.arguments(scope["query_string"])
                except InvalidValue:
                    raise
                except ValueError:  # FastAPI says which
                    is_right = False
            if self._body is not None:
                message = await receive()
                receive = replay(message, receive)
                is_right = is_right and message["type"] == "http.request" and not message.get("more_body")
                is_large = is_right and len(message["body"]) > large_bodies.LARGE
                large_bodies.is_large.set(is_large)
                if is_large:
                    values["body"] = await large_bodies.in_thread(large_bodies.parsed, self._body, message["body"])
                else:
                    try:
                        values["body"] = self._parsed(self._body, message["body"]) if is_right else None
                    except ValueError:  # no JSON, or not what the route takes
                        is_right = False
            if is_right:
                response = await self.endpoint(**values)
                await response(scope, receive, send)
                return
        await super().handle(scope, receive, send)

    def _parsed(self, adapter: TypeAdapter[Any], body: bytes) -> Any:
        return None if not body and self._may_be_empty else adapter.validate_python(from_json(body))
