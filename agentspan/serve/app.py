"""The ASGI application: the router, the middleware around it, and the background work of a server.

The middleware checks Host, token and body size, and answers 500 where a handler raises. The background work adopts the
journals of dead programs, and makes partitions ahead of time.
"""

import asyncio
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Generator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any, Generic, Literal, TypeVar

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentspan.api.context import Context
from agentspan.database import Database
from agentspan.errors import AgentspanError
from agentspan.installing import needs_extra
from agentspan.journal.adopting import Adoption
from agentspan.journal.opening import adoption_beside, open_storage, without_adoption
from agentspan.journal.spool import LOOK_EVERY_S
from agentspan.maintenance.prune import keep_partitions
from agentspan.recording.capture.redaction import Rule
from agentspan.recording.settings import Settings
from agentspan.serve import otlp_routes
from agentspan.serve.logins import AccessToken
from agentspan.serve.openapi import document
from agentspan.serve.otlp_routes import OtlpRoutes
from agentspan.serve.responses import MCP, is_otlp_path, needs_token, refuse, refuse_error, refuse_guess
from agentspan.serve.router import OperationRouter
from agentspan.serve.viewer_routes import routes as viewer_routes
from agentspan.serve.writes import WAIT_S, WriteQueue
from agentspan.storage.location import Location
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import MakePartitions
from agentspan.tuning import STANDARD, Tuning

log = logging.getLogger("agentspan")

T = TypeVar("T")
MAX_BODY = 10 * 2**20
WRITING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
JSON = frozenset({b"application/json"})
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\s:\[\]/?#@]+))(?::[0-9]{0,5})?")
BODY_S = 30.0
"""Seconds that a client may take to send a body."""


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

    settings = Settings(redact=redact, sensitive=sensitive).checked()
    ctx = Context(
        storage,
        strict_schemas=strict_schemas,
        wait_s=wait_s,
        read_only=read_only,
        redacts=settings.new_sent_redaction(),
        keep_sensitive=sensitive == "keep",
        piece_bytes=tuning.piece_bytes,
    )
    write_queue = WriteQueue(ctx, wait_s, tuning)
    otlp = OtlpRoutes(ctx, tuning)
    pages = viewer_routes(ctx, write_queue, token=access, read_only=read_only, tuning=tuning)
    # Each call of a tool opens the storage to read; only one that cannot be opened again is shared.
    location = opened.capabilities().location if is_ours else None
    shared = Database(storage, read_only=True, closes=False) if location is None else location.path or location.text
    own = [Route(MCP, Agents(shared)), Route("/api/findings/{name}", Findings(shared).answer)]
    app = Application([*otlp.routes(), *own, *pages], lifespan)
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


class Agents:
    """Answers coding agents over MCP. The tools are a later layer, which the first request imports by its name.

    Args:
        db: the storage: an opened Database, or its location.
    """

    def __init__(self, db: "Database | str | os.PathLike[str]") -> None:
        self._db = db
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request. Only POST is answered: there is neither a session to delete nor a stream to open."""
        if scope["method"] != "POST":
            methods = {"Allow": "POST"}
            answer = refuse("bad_request", f"{MCP} has only POST", status=405, headers=methods)
            await answer(scope, receive, send)
            return
        try:
            if self._app is None:
                server = await asyncio.to_thread(import_module, "agentspan.mcp.server")  # takes a second
                self._app = server.OverHttp(self._db)
        except ImportError:
            await refuse("not_implemented", needs_extra("answering over MCP", "mcp"), status=501)(scope, receive, send)
            return
        await self._app(scope, receive, send)


class Findings:
    """Answers `/api/findings/NAME` with the JSON of a command: why, diff, search, versions. Runs a few at a time.

    Args:
        db: as of Agents.
    """

    def __init__(self, db: "Database | str | os.PathLike[str]") -> None:
        self._db = db
        self._turns = asyncio.Semaphore(4)

    async def answer(self, request: Request) -> Response:
        """Answer a request, whose query has the arguments and options of the command."""
        tools = await asyncio.to_thread(import_module, "agentspan.mcp.tools")  # a later layer
        name = request.path_params["name"]
        if name not in tools.FINDINGS:
            return refuse("not_found", f"there is no such finding; there are {', '.join(tools.FINDINGS)}")
        try:
            async with self._turns:
                text = await asyncio.to_thread(tools.finding, name, request.query_params.multi_items(), self._db)
        except AgentspanError as error:
            return refuse_error(error, request.scope)
        return Response(text, media_type="application/json")


class GuardMiddleware:
    """An ASGI middleware around the whole application.

    Args:
        token: the token that requests of programs must send as `Authorization: Bearer` (see responses.needs_token);
            None requires none.
        allowed_hosts: names that the Host header may have; None for any. Without this check a page in a browser could
            reach a server on this machine by a name of its own (DNS rebinding).
        max_body: the most bytes of a request's body.
        adopting: adopts journals of dead programs, from time to time before a request.
        body_pause_s: the most seconds that a client may pause while it sends a body.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: AccessToken | None,
        allowed_hosts: Collection[str] | None,
        max_body: int,
        adopting: "Adopting",
        body_pause_s: float = STANDARD.body_pause_s,
    ) -> None:
        self._app = app
        self._token = token
        self._hosts = None if allowed_hosts is None else frozenset(host.lower() for host in allowed_hosts)
        self._max_body = max_body
        self._adopting = adopting
        self._body_pause_s = body_pause_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if [name for name, _ in scope["headers"]].count(b"host") > 1:  # a proxy may have checked the other header
            await _in_form(scope, refuse("bad_request", "there is more than one Host header"))(scope, receive, send)
            return
        headers = dict(scope["headers"])
        is_otlp = is_otlp_path(scope)
        sent = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        is_wrong_type = scope["method"] in WRITING and sent not in (otlp_routes.TYPES if is_otlp else JSON)
        max_body = otlp_routes.MAX_BODY if is_otlp else self._max_body
        refused = self._refusal(scope, headers, max_body, is_wrong_type=is_wrong_type, is_otlp=is_otlp)
        if refused is not None:
            await _in_form(scope, refused)(scope, receive, send)
            return
        if b"content-length" in headers or b"transfer-encoding" in headers:
            body = await self._body(receive, max_body)
            if is_wrong_type and body and not isinstance(body, Response):
                body = _wrong_type(is_otlp=is_otlp)  # only now it is known that a chunked body is not empty
            if isinstance(body, Response):
                await _in_form(scope, body)(scope, receive, send)
                return
            receive = replay({"type": "http.request", "body": body, "more_body": False}, receive)
        if self._adopting.is_due():
            await self._adopting.look()
        await self._guarded(scope, receive, send)

    def _refusal(
        self, scope: Scope, headers: dict[bytes, bytes], max_body: int, *, is_wrong_type: bool, is_otlp: bool
    ) -> Response | None:
        if self._hosts is not None and _host(headers.get(b"host", b"")) not in self._hosts:
            return refuse("not_permitted", "this server is not known by that Host; see --allowed-host")
        if self._token is not None and needs_token(scope):
            authorization = headers.get(b"authorization", b"")
            scheme, _, token = authorization.partition(b" ")
            if is_otlp and scheme.lower() == b"basic":
                scheme, token = b"bearer", otlp_routes.basic_password(authorization)
            if scheme.lower() != b"bearer" or not token:
                return refuse("not_authenticated", "send Authorization: Bearer TOKEN")
            wait_s = self._token.wait_s(token.strip(), scope.get("client"))
            if wait_s:
                return refuse_guess(wait_s)
            if wait_s is not None:
                return refuse("bad_authtoken", "the token is not this server's")
        length = headers.get(b"content-length", b"0")
        digits = length.lstrip(b"0") or b"0"  # Python reads no number of more than 4,300 digits
        if not digits.isdigit() or len(digits) > 18 or int(digits) > max_body:
            return _too_large(max_body)
        if is_wrong_type and (digits != b"0" or _is_of_a_page(scope, headers)):
            return _wrong_type(is_otlp=is_otlp)
        return None

    async def _body(self, receive: Receive, max_body: int) -> bytes | Response:
        """Return the body, or the refusal of one that is too large or too slow."""
        parts: list[bytes] = []
        size, pause_s = 0, self._body_pause_s
        first = Eager(receive())
        if first.is_done:
            message = await first
            if message["type"] == "http.request" and not message.get("more_body"):
                body: bytes = message.get("body", b"")
                return _too_large(max_body) if len(body) > max_body else body
        try:
            async with asyncio.timeout(pause_s) as pause:
                end_s = asyncio.get_running_loop().time() + BODY_S
                message = await first
                while True:
                    if message["type"] != "http.request":  # the client has gone
                        return refuse("bad_request", "the body ended too early")
                    part: bytes = message.get("body", b"")
                    size += len(part)
                    if size > max_body:
                        return _too_large(max_body)
                    parts.append(part)
                    if not message.get("more_body"):
                        return b"".join(parts)
                    pause.reschedule(min(asyncio.get_running_loop().time() + pause_s, end_s))
                    message = await receive()
        except TimeoutError:
            sentence = f"the body did not arrive within {BODY_S:g} s, or paused for {pause_s:g} s"
            return refuse("bad_request", sentence, status=408, headers={"Connection": "close"})

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception:
            number = secrets.token_hex(4)
            log.exception("request %s: %s %s failed", number, scope["method"], scope["path"])
            if not started:
                message = f"an unexpected fault; the server's log has more under request {number}"
                await _in_form(scope, refuse("unexpected", message))(scope, receive, send)


class Eager(Generic[T]):
    """Runs an awaitable at once, until it has to wait. Await the rest in the same task.

    A server has the whole body of a small request when it calls the application. Then `asyncio.timeout` around the
    first `receive` costs 5 µs for nothing.

    Attributes:
        is_done: True if it did not have to wait; `await` returns its result without waiting.
    """

    def __init__(self, awaitable: Awaitable[T]) -> None:
        self._steps = awaitable.__await__()
        self._result: Any = None
        self._waits_for: Any = None
        self.is_done = False
        self._step(next, self._steps)

    def __await__(self) -> Generator[Any, Any, T]:
        while not self.is_done:
            try:
                sent = yield self._waits_for
            except BaseException as error:
                self._step(self._steps.throw, error)
            else:
                self._step(self._steps.send, sent)
        result: T = self._result
        return result

    def _step(self, go_on: Callable[[Any], Any], with_what: Any) -> None:
        try:
            self._waits_for = go_on(with_what)
        except StopIteration as end:
            self._result, self.is_done = end.value, True


def replay(message: Message, receive: Receive) -> Receive:
    """Return a `receive` that first returns a message that was already received, then the following messages."""
    sent = False

    async def replayed() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return message

    return replayed


def _is_of_a_page(scope: Scope, headers: dict[bytes, bytes]) -> bool:
    """Return whether a browser may have sent a request for a foreign page without a preflight: a POST with no type.

    Browsers name the page's origin in every POST.
    """
    return scope["method"] == "POST" and (b"origin" in headers or b"sec-fetch-site" in headers)


def _in_form(scope: Scope, refused: Response) -> Response:
    """Return an error in the form of its path: an OTLP Status on paths of OTLP, else the envelope of the API."""
    return otlp_routes.as_status(scope, refused) if is_otlp_path(scope) else refused


def _wrong_type(*, is_otlp: bool) -> Response:
    sentence = "send OTLP over HTTP: OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or http/json"
    return refuse("bad_request", sentence if is_otlp else "send Content-Type: application/json", status=415)


def _too_large(max_body: int) -> Response:
    return refuse("bad_request", f"the body has more than {max_body} bytes", status=413)


def _host(header: bytes) -> str | None:
    """Return the name in a Host header, without its port and the brackets of an IPv6 address; None if it is none."""
    found = _HOST.fullmatch(header.decode("latin-1").lower())
    return None if found is None else found[1] or found[2]


END_S = 1.0


class Adopting:
    """Looks for journals, at most once a second, before a request is answered, and adopts them in a thread.

    Adopting 87 MB on the event loop delayed all answers by 1.7 s.

    Args:
        adoption: adopts the journals beside the file; None if the storage has no journals.
        answer_s: how long the request that found a journal waits for it.
    """

    def __init__(self, adoption: Adoption | None, answer_s: float = STANDARD.adoption_answer_s) -> None:
        self._adoption = adoption
        self._answer_s = answer_s
        self._next_s = 0.0 if adoption is not None else float("inf")
        self._thread: threading.Thread | None = None

    def is_due(self) -> bool:
        """Return whether to look for journals before this request."""
        return time.monotonic() >= self._next_s

    async def look(self) -> None:
        """Look for journals in a thread; wait at most `answer_s` seconds while they are adopted."""
        self._next_s = time.monotonic() + LOOK_EVERY_S
        if self._adoption is None or (self._thread is not None and self._thread.is_alive()):
            return
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        # Not a thread of a pool, for which an ending interpreter waits. The next program adopts the rest.
        self._thread = threading.Thread(target=self._adopt, args=(loop, done), name="agentspan-adopting", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the system is at its limit
            self._thread = None
            return
        try:
            await asyncio.wait_for(done.wait(), self._answer_s)
        except TimeoutError:
            pass

    def _adopt(self, loop: asyncio.AbstractEventLoop, done: asyncio.Event) -> None:
        assert self._adoption is not None
        try:
            self._adoption.look(at_once=True)  # it logs its faults
        finally:
            try:
                loop.call_soon_threadsafe(done.set)
            except RuntimeError:  # the loop is closed
                pass

    async def stop(self) -> None:
        """Stop looking for journals. Wait at most END_S seconds for the thread that is adopting one."""
        if self._adoption is not None:
            self._adoption.stop()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, END_S)


PARTITIONS_EVERY_S = 86_400.0
PARTITIONS_AGAIN_S = 3600.0
"""Seconds until the next attempt if partitions are still missing."""
PARTITION_WAIT_S = 5.0


class PartitionMaking:
    """A thread that makes partitions ahead, when a server starts and once a day. Several servers may share a storage.

    Args:
        storage: a storage that is not opened to be read only.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._ending = threading.Event()
        self._said: str | None = None

    def start(self) -> None:
        """Start the thread. It is a daemon: an ending interpreter does not wait until it gets a lock on the server."""
        if MakePartitions in self._storage.capabilities().answers:
            threading.Thread(target=self._run, name="agentspan-partitions", daemon=True).start()

    def stop(self) -> None:
        """Make the thread end after its current work."""
        self._ending.set()

    def _run(self) -> None:
        wait_s = 0.0
        while not self._ending.wait(wait_s):
            wait_s = PARTITIONS_EVERY_S if self._make() else PARTITIONS_AGAIN_S

    def _make(self) -> bool:
        """Make the missing partitions; return whether none is missing afterwards. A problem is logged once."""
        try:
            kept = keep_partitions(self._storage, PARTITION_WAIT_S)
            problem: AgentspanError | None = kept.problem if kept.missing else None
        except AgentspanError as error:  # the server is away
            problem = error
        if problem is not None and str(problem) != self._said:
            self._said = str(problem)
            log.warning("partitions are missing, and cannot be made now: %s", problem)
        return problem is None
