"""The ASGI application: the router, the guard middleware around it, and the background work of a server."""

import os
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any, Literal

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from agentspan.api.context import Context
from agentspan.database import Database
from agentspan.journal.opening import adoption_beside, open_storage, without_adoption
from agentspan.recording.capture.redaction import Rule
from agentspan.recording.settings import settings_from
from agentspan.serve import openapi
from agentspan.serve.logins import AccessToken
from agentspan.serve.middleware import LOOPBACK, GuardMiddleware
from agentspan.serve.openapi import document
from agentspan.serve.otlp_routes import OtlpRoutes
from agentspan.serve.router import PREFIX, OperationRouter
from agentspan.serve.upkeep import Adopting, PartitionMaking
from agentspan.serve.viewer_routes import routes as viewer_routes
from agentspan.serve.writes import WAIT_S, ConcurrentWrites, WriteQueue, Writes
from agentspan.storage.location import Location
from agentspan.storage.protocol import Storage
from agentspan.tuning import STANDARD, Tuning

MAX_BODY = 10 * 2**20


class Application(Starlette):
    """The application that `create_app` returns. Its middleware wraps the router directly.

    Starlette's own middleware is left out: the guard answers failures, and the router gives all errors one form.
    """

    def __init__(self, routes: list[BaseRoute], lifespan: Any) -> None:
        super().__init__(routes=[Route("/openapi.json", self._send_document), *routes], lifespan=lifespan)
        self.operations: ASGIApp = self.router
        self._document: dict[str, Any] | None = None

    def build_middleware_stack(self) -> ASGIApp:
        """Return the router with the middleware around it."""
        app = self.operations
        for middleware, args, kwargs in reversed(self.user_middleware):
            app = middleware(app, *args, **kwargs)
        return app

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document."""
        if self._document is None:
            self._document = document()
        return self._document

    async def _send_document(self, request: Request) -> Response:
        """Answer with the OpenAPI document, which includes the prefix of a mounted application."""
        prefix = request.scope.get("root_path", "").rstrip("/")
        found = self.openapi()
        return JSONResponse({**found, "servers": [{"url": prefix}]} if prefix else found)


def create_app(
    db: "str | os.PathLike[str] | Location | Storage | Database | None" = None,
    *,
    token: str | None = None,
    read_only: bool = False,
    strict_schemas: bool = False,
    redact: Rule | Literal["credentials"] | None = "credentials",
    sensitive: Literal["redact", "keep"] = "redact",
    allowed_hosts: Collection[str] | None = None,
    cors_origins: Collection[str] = (),
    max_body: int = MAX_BODY,
    wait_s: float = WAIT_S,
    tuning: Tuning = STANDARD,
) -> Application:
    """Return an ASGI application that serves the API from one storage; mount it in one of your own, or run it.

    Args:
        db: a file, `NAME://…`, a Storage or an opened Database; AGENTSPAN_DB, else ./agentspan.db, when left out. A
            storage that `create_app` opens is closed with the application.
        token: clients must send it as `Authorization: Bearer TOKEN`; at least 12 characters. None requires no token.
        read_only: refuse every write with `not_permitted`.
        strict_schemas: refuse payloads that do not match their schema.
        redact: the values of clients that are not stored, as in `configure`: "credentials", a function that adds a rule
            to that, or None.
        sensitive: whether to "redact" or "keep" values that are marked as `{"$sensitive": …, "value": …}`.
        allowed_hosts: names that the Host header may have. When left out: any name if there is a token, else only names
            of this machine.
        cors_origins: origins whose pages may use the API from a browser.
        max_body: bytes of a request's body; more is answered with 413.
        wait_s: how long a request may wait for other writers before it is answered with 503.
        tuning: sizes and times, for tests; see agentspan/tuning.py.

    Raises:
        InvalidValue: the token can be guessed easily.
        DatabaseUnusable: the file cannot be used; the message says what to do.
    """
    access = None if token is None else AccessToken(token)
    opened = db.storage if isinstance(db, Database) else open_storage(db, read_only=read_only, tuning=tuning)
    adopting = Adopting(adoption_beside(opened, tuning), tuning.adoption_answer_s)
    storage = without_adoption(opened)
    making = PartitionMaking(storage)
    is_ours = db is None or isinstance(db, (str, os.PathLike, Location))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with otlp.ending_idle():
            if not read_only:
                making.start()
            yield
        making.stop()
        await adopting.stop()
        if is_ours:
            storage.close()

    settings = settings_from("create_app", {"redact": redact, "sensitive": sensitive})
    ctx = Context(
        storage,
        strict_schemas=strict_schemas,
        wait_s=wait_s,
        read_only=read_only,
        redacts=settings.new_sent_redaction(),
        keep_sensitive=sensitive == "keep",
        piece_bytes=tuning.piece_bytes,
    )
    waits = storage.capabilities().concurrency > 1
    write_queue: Writes = ConcurrentWrites(ctx, wait_s, tuning) if waits else WriteQueue(ctx, wait_s, tuning)
    otlp = OtlpRoutes(ctx, tuning)
    pages = viewer_routes(ctx, write_queue, token=access, read_only=read_only, tuning=tuning)
    app = Application([*openapi.routes(PREFIX), *otlp.routes(), *pages], lifespan)
    app.operations = OperationRouter(ctx, write_queue, app.router, tuning)
    if allowed_hosts is None and token is None:
        allowed_hosts = LOOPBACK
    app.add_middleware(
        GuardMiddleware,
        token=access,
        allowed_hosts=allowed_hosts,
        max_body=max_body,
        adopting=adopting,
        body_pause_s=tuning.body_pause_s,
    )
    if cors_origins:
        app.add_middleware(CORSMiddleware, allow_origins=list(cors_origins), allow_methods=["*"], allow_headers=["*"])
    return app
