"""The one router: finds the operation of a request, reads its fields, runs it, and answers with its envelope.

A request for anything else, such as a page of the viewer, goes on to a router of Starlette.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property, partial
from itertools import chain
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match, Router
from starlette.types import Message, Receive, Scope, Send

from agentspan.api import account, agents, bulk, envelopes, runs, spans
from agentspan.api.checks import as_sent
from agentspan.api.context import Context
from agentspan.api.envelopes import Envelope, InPieces
from agentspan.api.operation import Operation, Route
from agentspan.errors import AgentspanError
from agentspan.ids import FORM
from agentspan.model.rows import AgentSpanRow
from agentspan.serve.bodies import BodyReader, Invalid, QueryReader, query_model, refuse_invalid
from agentspan.serve.responses import (
    LARGE,
    BulkAnswers,
    encoded,
    in_thread,
    is_api,
    parts_of,
    pieces_of,
    refuse,
    refuse_error,
    respond,
    response_of,
    route_path,
    streamed,
)
from agentspan.serve.writes import WriteQueue
from agentspan.tuning import STANDARD, Tuning

PREFIX = "/api/v1"
OPERATIONS: tuple[type[Operation], ...] = (
    # Spans come first: operations are tried in this order, and at the end those on spans took 90 of 380 µs.
    *(spans.FinishSpan, spans.CreateSpan, spans.StartSpan, spans.GetSpan, spans.ListViolations, spans.ListSpans),
    *(account.Ping, account.GeneratePfids),
    bulk.RunBulk,
    *(agents.ListAgents, agents.CreateAgent, agents.ShowAgent, agents.GetAgent, agents.UpdateAgent, agents.DeleteAgent),
    *(agents.RetireAgent, agents.ReinstateAgent, agents.ListAgentVersions, agents.GetAgentVersion),
    *(agents.ListSchemaVersions, agents.CreateSchemaVersion, agents.GetSchemaVersion),
    *(runs.ShowInstance, runs.ListInstances, runs.RegisterInstance, runs.GetInstance, runs.UpdateInstance),
    *(runs.GetAgentContext, runs.StartInstance, runs.FinishInstance, runs.TerminateInstance, runs.RecordQuality),
    *(spans.ScoreInstance, spans.ListInstanceScores, spans.ScoreSpan, spans.ListSpanScores),
    *(account.GetAccount, account.GetAccountById, account.ListEnvironments, account.ShowEnvironment),
    *(account.GetEnvironment, account.ListAgentDeployments, account.GetAgentDeployment, account.CountAlerts),
    *(account.ListRiskProfiles, account.ListApiTokens, account.ListAdminUsers),
)
"""The operations of the API, in the order of the OpenAPI document."""
KEY_HEADER = b"idempotency-key"
AT_ONCE = 100
"""The most items of a bulk request that run on the event loop (6 ms); more would delay all other requests."""
READERS = 2
"""Threads for lists. With six threads, a list took twice the processor time, most of it for the GIL."""
LARGE_S = 1.0
"""Seconds after a large span in which spans are read in threads: 50 large spans in a row took 0.6 s."""
READERS_THAT_WAIT = 8
"""Threads for all reads of a storage whose reads wait for a server."""


class Endpoint:
    """An operation at its path, with the readers of its requests.

    The readers are made for the first request: all of them together take 60 ms, and most servers get requests for few.

    Attributes:
        operation: the operation.
        path: its path, with the names of ids in braces.
        absence: the reason if a file has no use for the operation.
    """

    def __init__(self, operation: type[Operation], absence: str = "") -> None:
        self.operation = operation
        self.absence = absence
        self.path = PREFIX + operation.route.path
        pattern = re.sub(r"\{(\w+)\}", rf"(?P<\1>{FORM})", self.path.replace("{action}", "[^/]+"))
        self._path = re.compile(pattern)

    @cached_property
    def body(self) -> BodyReader | None:
        """The reader of bodies; None where the operation has none."""
        return BodyReader(self.operation) if self.operation.has_body else None

    @cached_property
    def query(self) -> QueryReader | None:
        """The reader of query strings; None for an operation without parameters, which ignores any query string."""
        model = None if self.operation.has_body else query_model(self.operation)
        return None if model is None else QueryReader(self.operation, model)

    def ids_in(self, path: str) -> dict[str, str] | None:
        """Return the ids in a path by name; None if the path does not match. The `show` in `/agent/show` is no id."""
        match = self._path.fullmatch(path)
        return None if match is None else match.groupdict()


@cache
def _endpoints() -> Sequence[Endpoint]:
    """Return all endpoints: the same for each application of a process."""
    absent = [
        Endpoint(type("Absent", (Operation,), {"route": Route(method, path, "")}), reason)
        for path, methods in account.NOT_IMPLEMENTED.items()
        for method, reason in methods.items()
    ]
    return [*map(Endpoint, OPERATIONS), *absent]


class OperationRouter:
    """An ASGI application that answers requests for operations, and passes other requests to another router.

    It answers HEAD as GET without the body, OPTIONS with the methods of a path, and ignores a slash at a path's end.

    Args:
        ctx: the operations' context.
        write_queue: runs the operations that write.
        rest: the router for all other requests.
    """

    def __init__(self, ctx: Context, write_queue: WriteQueue, rest: Router, tuning: Tuning = STANDARD) -> None:
        self._ctx = ctx
        self._write_queue = write_queue
        self._rest = rest
        self._room = tuning.bulk_answer_bytes
        self._waits = ctx.storage.capabilities().concurrency > 1
        self._readers = ThreadPoolExecutor(READERS_THAT_WAIT if self._waits else READERS, "agentspan-reader")
        self._large_until_s = 0.0
        self._at: dict[tuple[str, str], Endpoint] = {}
        self._with_ids: dict[str, list[Endpoint]] = {}
        for endpoint in _endpoints():
            method = endpoint.operation.route.method
            if "{" in endpoint.path:
                self._with_ids.setdefault(method, []).append(endpoint)
            else:
                self._at[method, endpoint.path] = endpoint
        self._special: Mapping[type[Operation], Callable[..., Awaitable[Response]]] = {
            spans.GetSpan: self._get_span,
            runs.GetAgentContext: self._get_agent_context,
            bulk.RunBulk: self._run_bulk,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._rest(scope, receive, send)
            return
        if scope["path"].endswith("/") and is_api(scope):
            # Starlette would redirect, and few clients repeat a POST after a redirect.
            scope = {**scope, "path": scope["path"].rstrip("/")}
        method, path = scope["method"], route_path(scope)
        if method == "HEAD":
            scope, method, send = {**scope, "method": "GET"}, "GET", _without_body(send)
        try:
            endpoint, ids = self._found(method, path)
            if endpoint is not None:
                response = await self._answer(endpoint, ids, scope, receive)
            elif method == "OPTIONS" and (allowed := self._allowed(scope)):
                response = Response(status_code=204, headers={"Allow": allowed})
            else:
                await self._rest(scope, receive, send)
                return
        except (AgentspanError, Invalid, HTTPException) as error:
            response = self._refusal(scope, error)
        await response(scope, receive, send)

    def _found(self, method: str, path: str) -> tuple[Endpoint | None, dict[str, str]]:
        endpoint = self._at.get((method, path))
        if endpoint is not None:
            return endpoint, {}
        for endpoint in self._with_ids.get(method, ()):
            ids = endpoint.ids_in(path)
            if ids is not None:
                return endpoint, ids
        return None, {}

    def _allowed(self, scope: Scope) -> str:
        """Return the methods of a path, as the header Allow has them; empty if there is no such path."""
        path = route_path(scope)
        methods = {method for method in ("GET", "POST", "PUT", "DELETE") if self._found(method, path)[0] is not None}
        for route in self._rest.routes:
            if route.matches(scope)[0] is not Match.NONE:
                methods |= getattr(route, "methods", None) or set()
        if methods:
            methods |= {"OPTIONS", "HEAD"} if "GET" in methods else {"OPTIONS"}
        return ", ".join(sorted(methods))

    def _refusal(self, scope: Scope, error: AgentspanError | Invalid | HTTPException) -> Response:
        """Return the response to a request that was refused."""
        if isinstance(error, AgentspanError):
            return refuse_error(error, scope)
        if isinstance(error, Invalid):
            return refuse_invalid(error)
        if error.status_code in (404, 405):
            methods = self._allowed(scope)
            if methods:
                return refuse("bad_request", f"this path has only {methods}", status=405, headers={"Allow": methods})
            return refuse("not_found", "there is no such path, or an id in it is no PFID")
        code = "bad_request" if error.status_code < 500 else "unexpected"
        sentence = str(error.detail)
        if error.status_code == 400:
            is_deep = isinstance(error.__cause__, RecursionError)
            sentence = "the body is nested too deep" if is_deep else "the body is no JSON"
        return refuse(code, sentence, status=error.status_code)

    async def _answer(self, endpoint: Endpoint, ids: dict[str, str], scope: Scope, receive: Receive) -> Response:
        operation = endpoint.operation
        if endpoint.absence:
            sentence = f"{endpoint.absence}; the service has this operation, a local file has not"
            return refuse("not_implemented", sentence)
        if endpoint.body is None:
            fields: dict[str, Any] = ids
            if endpoint.query is not None:
                fields = {**ids, **endpoint.query.fields(scope["query_string"])}
            return await self._run(operation(fields), is_large=False)
        body = await _body(receive)
        is_large = len(body) > LARGE
        value = await in_thread(endpoint.body.explained, body) if is_large else endpoint.body.checked(body)
        keys = [value for name, value in scope["headers"] if name == KEY_HEADER]
        sent = endpoint.body.fields(value, ids, keys)
        try:
            return await self._run(operation.of_json(sent.fields), is_large=is_large)
        except AgentspanError as error:
            raise as_sent(error, sent.details) from None

    async def _run(self, operation: Operation, *, is_large: bool) -> Response:
        special = self._special.get(type(operation))
        if special is not None:
            return await special(operation, is_large=is_large)
        ctx = self._ctx
        if operation.writes:
            if is_large:  # not in the queue: only its last step needs the write lock, for a few ms
                return await in_thread(lambda: respond(operation(ctx)))
            return respond(await self._write_queue.run(operation))
        if not operation.scans and not (self._waits and operation.reads):
            return respond(operation(ctx))
        made = await asyncio.get_running_loop().run_in_executor(self._readers, partial(_read, ctx, operation))
        return await streamed(pieces_of(made), "application/json") if isinstance(made, InPieces) else made

    async def _get_span(self, operation: spans.GetSpan, **_: Any) -> Response:
        """Answer with a span. A large span, and all spans soon after it, are read and encoded in a thread."""
        ctx, now_s = self._ctx, asyncio.get_running_loop().time()
        pieces = _span(ctx, operation)
        if self._waits or now_s < self._large_until_s:
            return await streamed(pieces, "application/json")
        row: AgentSpanRow = operation.row(ctx)
        if len(row.payload) + len(row.result_payload or "") > LARGE:
            self._large_until_s = now_s + LARGE_S
            del row  # read again when it is sent: many requests may wait for that
            return await streamed(pieces, "application/json")
        return respond(envelopes.of_row(ctx, row))

    async def _get_agent_context(self, operation: runs.GetAgentContext, **_: Any) -> Response:
        """Answer with a whole run, whose spans are never in memory at once."""
        context, spans_of_run = await asyncio.to_thread(operation.parts, self._ctx)
        before = b'{"status":"success","agent_context":{"body":' + encoded(context)[:-1] + b',"spans":'
        return await streamed(chain([before], pieces_of(spans_of_run), [b"}}}"]), "application/json")

    async def _run_bulk(self, operation: bulk.RunBulk, *, is_large: bool) -> Response:
        items = bulk.plan(operation.items)
        writes = bulk.writes(items)
        if writes and is_large:
            return await self._run_in_parts(items)
        if writes:
            run = partial(_run_part, part=items, room=self._room)
            return await response_of([await self._write_queue.run(run, is_long=len(items) > AT_ONCE)])
        return await streamed(_bulk(bulk.answers(self._ctx, items)), "application/json")

    async def _run_in_parts(self, items: Sequence[bulk.Item]) -> Response:
        """Run a large bulk request in several commits, so that other writes wait for a part of it only."""
        done: list[BulkAnswers] = []
        for part in await in_thread(lambda: list(parts_of(items))):
            run = partial(_run_part, part=part, room=self._room - sum(each.size for each in done))
            if len(part) == 1:
                done.append(await in_thread(run, self._ctx))
            else:
                done.append(await self._write_queue.run(run, is_long=True))
            if done[-1].has_error:
                break
        return await response_of(done)


def _read(ctx: Context, operation: Operation) -> Response | InPieces:
    answer = operation(ctx)
    return answer if isinstance(answer, InPieces) else respond(answer)


def _run_part(context: Context, part: Sequence[bulk.Item], room: int) -> BulkAnswers:
    answers = BulkAnswers(room)
    bulk.run_into(context, part, answers.add)
    return answers


def _bulk(answers: Iterator[tuple[str, Envelope]]) -> Iterator[bytes]:
    """Yield the envelope of a bulk request in pieces, each item's answer when it is made."""
    before = b'{"status":"success","outputs":{'
    for key, answer in answers:
        yield before + encoded(key) + b":"
        yield from pieces_of(answer)
        before = b","
    yield b"}}"


def _span(ctx: Context, operation: spans.GetSpan) -> Iterator[bytes]:
    """Yield the envelope of a span as one piece, made when it is sent."""
    yield encoded(operation(ctx))


async def _body(receive: Receive) -> bytes:
    """Return the body of a request."""
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise HTTPException(400)  # the client has gone
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


def _without_body(send: Send) -> Send:
    async def sent(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return sent
