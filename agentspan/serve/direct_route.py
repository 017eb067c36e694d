"""A route that calls its handler without FastAPI's parsing, which takes longer than creating a span.

It is for routes that take nothing but ids in the path and a JSON body, and only for requests that are right: any other
goes FastAPI's way, which says what is wrong. So errors are made in one place, and the OpenAPI document knows these
routes as any others.
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
from agentspan.serve import query_strings
from agentspan.serve.middleware import replay

KEY_HEADER = b"idempotency-key"
keys: ContextVar[Sequence[bytes]] = ContextVar("keys", default=())
"""The headers Idempotency-Key of the request. A parameter of the handlers would need FastAPI's parsing."""
Id = Annotated[str, Path(pattern="^[0-7][0-9abcdefghjkmnpqrstvwxyz]{31}$")]


class DirectRoute(APIRoute):
    """A route whose handler is called directly if its parameters are all Ids, but for a `body`."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        parameters = dict(inspect.signature(endpoint).parameters)
        body = parameters.pop("body", None)
        self._ids = [name for name, parameter in parameters.items() if parameter.annotation == Id]
        self._is_direct = len(self._ids) == len(parameters)
        self._body = None if body is None else TypeAdapter(body.annotation)
        self._may_be_empty = body is not None and body.default is None
        self._query_names = query_strings.names_of(self.dependant)

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
        """
        keys.set([value for name, value in scope["headers"] if name == KEY_HEADER])
        if self._query_names and scope["method"] in (self.methods or ()):
            query_strings.check(scope["query_string"], self._query_names)
        if self._is_direct and scope["method"] in (self.methods or ()):
            values: dict[str, Any] = dict(scope["path_params"])
            is_right = all(map(ids.is_pfid, values.values()))
            if self._body is not None:
                message = await receive()
                receive = replay(message, receive)
                is_right = is_right and message["type"] == "http.request" and not message.get("more_body")
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
