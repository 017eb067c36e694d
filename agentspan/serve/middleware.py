"""Middleware around all routes: checks Host, token and body size, and answers 500 where a handler raises."""

import asyncio
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Collection, Generator
from typing import Any, Generic, TypeVar

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentspan.serve import otlp_routes
from agentspan.serve.logins import AccessToken
from agentspan.serve.responses import is_api, is_otlp_path, refuse, refuse_guess
from agentspan.serve.upkeep import Adopting
from agentspan.tuning import STANDARD

T = TypeVar("T")


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


log = logging.getLogger("agentspan")

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\s:\[\]/?#@]+))(?::[0-9]{0,5})?")
BODY_S = 30.0
"""Seconds that a client may take to send a body."""


class GuardMiddleware:
    """An ASGI middleware around the whole application.

    Args:
        token: the token that requests below /api must send as `Authorization: Bearer`; None requires none.
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
        adopting: Adopting,
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
        is_wrong_type = _writes(scope) and not (_is_otlp_type(headers) if is_otlp else _is_json(headers))
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
        if self._token is not None and (is_otlp or is_api(scope)):
            authorization = headers.get(b"authorization", b"")
            scheme, _, token = authorization.partition(b" ")
            if is_otlp and scheme.lower() == b"basic":
                scheme, token = b"bearer", otlp_routes.basic_password(authorization)
            if scheme.lower() != b"bearer" or not token:
                return refuse("not_authenticated", "send Authorization: Bearer TOKEN")
            client = scope.get("client")
            wait_s = self._token.wait_s(client)
            if wait_s:
                return refuse_guess(wait_s)
            if not self._token.is_right(token.strip(), client):
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


def _writes(scope: Scope) -> bool:
    return scope["method"] in ("POST", "PUT", "PATCH", "DELETE")


def _is_json(headers: dict[bytes, bytes]) -> bool:
    return headers.get(b"content-type", b"").partition(b";")[0].strip().lower() == b"application/json"


def _is_of_a_page(scope: Scope, headers: dict[bytes, bytes]) -> bool:
    """Return whether a browser may have sent a request for a foreign page without a preflight: a POST with no type.

    Browsers name the page's origin in every POST.
    """
    return scope["method"] == "POST" and (b"origin" in headers or b"sec-fetch-site" in headers)


def _in_form(scope: Scope, refused: Response) -> Response:
    """Return an error in the form of its path: an OTLP Status on paths of OTLP, else the envelope of the API."""
    return otlp_routes.as_status(scope, refused) if is_otlp_path(scope) else refused


def _is_otlp_type(headers: dict[bytes, bytes]) -> bool:
    return otlp_routes.is_known_type(headers.get(b"content-type", b"").decode("latin-1"))


def _wrong_type(*, is_otlp: bool) -> Response:
    sentence = "send OTLP over HTTP: OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or http/json"
    return refuse("bad_request", sentence if is_otlp else "send Content-Type: application/json", status=415)


def _too_large(max_body: int) -> Response:
    return refuse("bad_request", f"the body has more than {max_body} bytes", status=413)


def _host(header: bytes) -> str | None:
    """Return the name in a Host header, without its port and the brackets of an IPv6 address; None if it is none."""
    found = _HOST.fullmatch(header.decode("latin-1").lower())
    return None if found is None else found[1] or found[2]
