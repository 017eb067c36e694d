"""The ASGI application: the routes, the guard before them, and one form for every error."""

import inspect
import os
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from agentspan import __version__
from agentspan.database import Database
from agentspan.errors import AgentspanError
from agentspan.operations.context import Context
from agentspan.recording.capture.redaction import Rule
from agentspan.recording.settings import Settings
from agentspan.recovery.opening import adoption_beside, open_storage, without_adoption
from agentspan.serve.access_token import AccessToken
from agentspan.serve.adopting import Adopting
from agentspan.serve.concurrent_writes import ConcurrentWrites
from agentspan.serve.direct_route import DirectRoutes
from agentspan.serve.invalid_requests import refuse_invalid
from agentspan.serve.methods import MethodsMiddleware, allow
from agentspan.serve.middleware import LOOPBACK, GuardMiddleware, log
from agentspan.serve.openapi import document
from agentspan.serve.otlp_routes import OtlpRoutes
from agentspan.serve.partition_making import PartitionMaking
from agentspan.serve.responses import refuse, refuse_error
from agentspan.serve.routes import router
from agentspan.serve.viewer_routes import routes as viewer_routes
from agentspan.serve.write_queue import WAIT_S, WriteQueue, Writes
from agentspan.storage.location import Location
from agentspan.storage.protocol import Storage
from agentspan.tuning import STANDARD, Tuning

MAX_BODY = 10 * 2**20

# Else environment variables could make the server send elsewhere what it sees. Older versions have none.
_WITHOUT_TELEMETRY: dict[str, Any] = (
    {"telemetry": dict.fromkeys(("tracing", "metrics", "logs", "operation_spans", "auto_configure"), False)}
    if "telemetry" in inspect.signature(FastAPI).parameters
    else {}
)

DESCRIPTION = """The operations of the Prefactor API on agents, instances and spans, over one SQLite file.

Ids are PFIDs, times RFC 3339 in UTC. Every write can be sent again with the same `idempotency_key`."""


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
) -> FastAPI:
    """Return an ASGI application that serves the API from one storage; mount it in one of your own, or run it.

    Args:
        db: a file, `NAME://…`, a Storage or an opened Database; AGENTSPAN_DB, else ./agentspan.db, when left out. What
            is opened here is closed with the application.
        token: what clients must send as `Authorization: Bearer TOKEN`, at least 12 characters; None for nothing.
        read_only: refuse every write with `not_permitted`.
        strict_schemas: refuse payloads that do not match their schema.
        redact: what is kept out of the storage of what clients send, as in `configure`: "credentials", a function that
            adds a rule to that, or None.
        sensitive: whether to "redact" or "keep" values that are marked as `{"$sensitive": …, "value": …}`.
        allowed_hosts: names that the Host header may have; when left out those of this machine without a token, and any
            with one.
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
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with otlp.ending_idle():
            if not read_only:
                making.start()
            yield
        making.stop()
        await adopting.stop()
        if is_ours:
            storage.close()

    settings = Settings(redact=redact, sensitive=sensitive)
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
    app = FastAPI(
        title="agentspan",
        version=__version__,
        summary="A flight recorder for AI agents",
        description=DESCRIPTION,
        docs_url=None,  # those pages load their scripts from other servers
        redoc_url=None,
        **_WITHOUT_TELEMETRY,
        lifespan=lifespan,
        routes=router(ctx, write_queue, tuning).routes,  # a router that is included is searched twice for each request
    )
    app.router.routes += otlp.routes()
    app.router.routes += viewer_routes(ctx, write_queue, token=access, read_only=read_only, tuning=tuning)
    app.add_exception_handler(AgentspanError, _on_error)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    if allowed_hosts is None and token is None:
        allowed_hosts = LOOPBACK
    app.add_middleware(DirectRoutes, routes=app.router.routes, handlers=app.exception_handlers)
    app.add_middleware(MethodsMiddleware, routes=app.router.routes)
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

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    return app


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AgentspanError)
    response = refuse_error(error)
    if response.status_code >= 500:
        log.warning("%s %s: %s", request.method, request.url.path, error)
    return response


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return refuse("not_found", "there is no such path, or an id in it is no PFID")
    if error.status_code == 405:
        methods = allow(request.app.router.routes, request.scope)
        return refuse("bad_request", f"this path has only {methods}", status=405, headers={"Allow": methods})
    code = "bad_request" if error.status_code < 500 else "unexpected"
    said = str(error.detail)
    if error.status_code == 400:
        said = "the body is nested too deep" if isinstance(error.__cause__, RecursionError) else "the body is no JSON"
    return refuse(code, said, status=error.status_code)


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return refuse_invalid(error)
