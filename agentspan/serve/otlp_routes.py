"""The routes of OTLP: stores the traces and logs of OpenTelemetry exporters as runs (see agentspan.otel.receiving).

One thread decodes and stores one request after the other, so that the event loop can answer other requests meanwhile.
"""

import asyncio
import base64
import binascii
import json
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from time import monotonic

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from agentspan.api.context import Context
from agentspan.errors import AgentspanError, DatabaseBusy, InvalidValue, NotPermitted, StorageError
from agentspan.otel.otlp import requests
from agentspan.otel.otlp.json_bodies import BodyTooLarge, Decoded
from agentspan.otel.otlp.requests import JSON, PROTOBUF, Signal, decode
from agentspan.otel.receiving import Receiver
from agentspan.tuning import STANDARD, Tuning

log = logging.getLogger("agentspan")

MAX_BODY = 20 * 2**20
"""The most bytes of a body, both as it is sent and decompressed."""
TYPES = frozenset({PROTOBUF.encode(), JSON.encode(), b"application/protobuf"})
"""The content types that exporters send over HTTP."""
MAX_WAITING = 64
"""The most requests that may wait for the thread; further ones get 503. Each may hold a body of MAX_BODY."""
MAX_WAITING_BYTES = 128 * 2**20
"""The most bytes of the bodies of waiting requests, as they were sent."""
IDLE_S = 60.0
"""Seconds after its last span until a run is ended that no root span has ended."""
LOOK_S = 5.0
"""Seconds between two searches for idle runs."""
LOOK_RUNS = 100
"""Idle runs that are ended at once, in about 0.1 s: a request may leave 3,000, and other requests wait."""


def basic_password(authorization: bytes) -> bytes:
    """Return the password of a header `Authorization: Basic …`, in which some exporters send the token; else b""."""
    scheme, _, encoded_pair = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        return b""
    try:
        return base64.b64decode(encoded_pair.strip(), validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return b""


def as_status(scope: Scope, response: Response) -> Response:
    """Convert an error from the form of the API to the form that exporters read, an OTLP Status."""
    sentence = str(json.loads(bytes(response.body)).get("message", ""))
    headers = {name: response.headers[name] for name in ("retry-after", "connection") if name in response.headers}
    return refuse(scope, response.status_code, sentence, headers)


def refuse(scope: Scope, status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """Return an error in the form that exporters read: an OTLP Status in the content type of the request."""
    header = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"content-type"), None)
    form = requests.content_type(header)
    return Response(requests.refused(status, message, form), status, headers, media_type=form)


class OtlpRoutes:
    """The OTLP routes over one storage. Also ends runs that have been idle for a while.

    Args:
        tuning: sizes and times, for tests; see agentspan/tuning.py.

    Attributes:
        metrics: the number of requests with metrics, which were dropped.
    """

    def __init__(self, ctx: Context, tuning: Tuning = STANDARD) -> None:
        self._ctx = ctx
        self._receiver = Receiver(ctx, tuning=tuning)
        self._thread = ThreadPoolExecutor(1, "agentspan-otlp")
        self._waiting = self._waiting_bytes = 0
        self._looked_s = 0.0
        self.metrics = 0

    def routes(self) -> list[Route]:
        """Return the routes for traces, logs and metrics."""
        return [
            Route("/v1/traces", self._receives("traces"), methods=["POST"]),
            Route("/v1/logs", self._receives("logs"), methods=["POST"]),
            Route("/v1/metrics", self._drop_metrics, methods=["POST"]),
        ]

    @asynccontextmanager
    async def ending_idle(self) -> AsyncIterator[None]:
        """End idle runs in the background while a with-block runs; stop receiving after the block."""
        task = asyncio.create_task(self._end_idle())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            self._receiver.stop()
            self._thread.shutdown(wait=True, cancel_futures=True)

    def _look(self) -> bool:
        """End idle runs, at most every LOOK_S seconds. Requests call it, too: a mounted application has no lifespan.

        Returns:
            Whether there may be more idle runs.
        """
        now_s = monotonic()
        if now_s - self._looked_s < LOOK_S:
            return False
        has_more = False
        try:
            has_more = self._receiver.end_idle(IDLE_S, LOOK_RUNS) == LOOK_RUNS
        finally:
            if not has_more:
                self._looked_s = now_s
        return has_more

    async def _end_idle(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_S)
            with suppress(AgentspanError):  # the next look may do better
                while await loop.run_in_executor(self._thread, self._look):
                    pass  # waiting requests run in between

    def _receives(self, signal: Signal) -> Callable[[Request], "asyncio.Future[Response]"]:
        async def receive(request: Request) -> Response:
            body = await request.body()
            if self._waiting >= MAX_WAITING or self._waiting_bytes + len(body) > MAX_WAITING_BYTES:
                return refuse(request.scope, 503, "too many requests wait; try again", {"Retry-After": "1"})
            self._waiting += 1
            self._waiting_bytes += len(body)
            try:
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._thread, self._received, signal, request, body)
            except asyncio.CancelledError:  # the server ends: exporters send again after 503, but not after 500
                return refuse(request.scope, 503, "the server ends; send it again", {"Retry-After": "5"})
            finally:
                self._waiting -= 1
                self._waiting_bytes -= len(body)

        return receive  # type: ignore[return-value]

    def _received(self, signal: Signal, request: Request, body: bytes) -> Response:
        header, scope = request.headers.get("content-type"), request.scope
        try:
            decoded: Decoded = decode(signal, body, header, request.headers.get("content-encoding"), MAX_BODY)
            if decoded.spans or decoded.logs:
                self._ctx.check_writable()
                self._receiver.store(decoded.spans, decoded.logs)
                self._look()
        except BodyTooLarge as error:
            return refuse(scope, 413, str(error))
        except DatabaseBusy:
            return refuse(scope, 503, "the database is busy; try again", {"Retry-After": "1"})
        except NotPermitted:
            return refuse(scope, 403, "this server only reads")
        except InvalidValue as error:
            return refuse(scope, 400, str(error))
        except StorageError as error:
            log.warning("%s %s: %s", request.method, request.url.path, error)
            return refuse(scope, 503, "the database cannot be used now; try again", {"Retry-After": "5"})
        form = requests.content_type(header)
        return Response(requests.done(signal, decoded, form), media_type=form)

    async def _drop_metrics(self, request: Request) -> Response:
        """Accept metrics and drop them: exporters with one endpoint for all signals send them, too."""
        if not self.metrics:
            log.info("metrics are accepted at /v1/metrics and dropped; OTEL_METRICS_EXPORTER=none saves sending them")
        self.metrics += 1
        form = requests.content_type(request.headers.get("content-type"))
        return Response(requests.done("traces", Decoded(), form), media_type=form)
