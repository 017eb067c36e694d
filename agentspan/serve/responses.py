"""Makes HTTP responses: envelopes as JSON, and errors with the HTTP status of their code.

Large responses are sent while they are made, and large requests run in threads, so that no whole run is in memory. Many
clients may read slowly at the same time. So nothing large waits in memory for a client: a large part is written to a
file without a name, and sent from that file.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import cache, partial
from itertools import islice
from tempfile import SpooledTemporaryFile, TemporaryFile
from typing import IO, Any, Generic, Literal, TypeVar

from pydantic import BaseModel
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import to_json
from starlette.responses import Response, StreamingResponse
from starlette.types import Scope

from agentspan import jsontext
from agentspan.api import envelopes
from agentspan.api.bulk import Item
from agentspan.api.envelopes import Envelope, InPieces, JsonText
from agentspan.api.resources import AgentSchemaVersion, Control, Pagination
from agentspan.errors import AgentspanError, DatabaseBusy, DatabaseUnusable, NotPermitted, StorageError

log = logging.getLogger("agentspan")

STATUS: Mapping[str, int] = {
    "bad_request": 400,
    "bad_authtoken": 401,
    "not_authenticated": 401,
    "not_permitted": 403,
    "not_implemented": 422,
    "unknown": 503,
    "not_found": 404,
    "unexpected_ref_type": 422,
    "unexpected": 500,
    "invalid_action": 409,
    "invalid_value": 422,
    "required_value": 422,
    "idempotency_key_already_used": 409,
    "validation_errors": 422,
}
"""The HTTP status of each of the API's codes. A permanent fault is never a 5xx: the official clients would retry it."""


def respond(answer: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return an envelope as a response."""
    return Response(encoded(answer), status, headers, media_type="application/json")


def encoded(answer: Any) -> bytes:
    """Return a value as JSON."""
    if isinstance(answer, InPieces):
        return b"".join(pieces_of(answer))
    try:
        return to_json(answer)
    except ValueError:  # a lone surrogate in a payload, which JSON can escape but UTF-8 cannot say
        return json.dumps(answer).encode()


def pieces_of(answer: Any) -> Iterator[bytes]:
    """Yield a value as JSON in pieces. Items of an iterator are encoded one by one, and not kept in memory."""
    if isinstance(answer, InPieces):
        before = b"{"
        for name, value in answer.items():
            yield before + encoded(name) + b":"
            yield from pieces_of(value)
            before = b","
        yield b"}"
    elif isinstance(answer, JsonText):
        yield _utf8(answer)
    elif isinstance(answer, Iterator):
        yield b"["
        before, made = b"", [encoded(item) for item in islice(answer, 1)]
        while made:
            yield before + made.pop()
            before = b","
            made += [encoded(item) for item in islice(answer, 1)]
        yield b"]"
    else:
        yield encoded(answer)


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # half a character, which only a storage in memory can hold
        return json.dumps(jsontext.decode(text)).encode()


def refuse(
    code: str,
    message: str,
    *,
    status: int | None = None,
    errors: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return an error as a response."""
    answer: dict[str, Any] = {"status": "error", "code": code, "message": message}
    if errors is not None:
        answer["errors"] = errors
    return respond(answer, STATUS[code] if status is None else status, headers)


def refuse_error(error: AgentspanError, scope: Scope) -> Response:
    """Return an AgentspanError as a response, without its message if that could name the file's path: then log it."""
    response = _refused(error)
    if response.status_code >= 500:
        log.warning("%s %s: %s", scope["method"], scope["path"], error)
    return response


def _refused(error: AgentspanError) -> Response:
    if isinstance(error, DatabaseBusy):
        return refuse("unknown", "the database is busy; try again", headers={"Retry-After": "1"})
    if isinstance(error, DatabaseUnusable):
        sentence = "the database cannot be used now; the server's log has more"
        return refuse("unknown", sentence, headers={"Retry-After": "5"})
    if isinstance(error, StorageError):
        return refuse("unexpected", "the database cannot be used now; the server's log has more")
    if isinstance(error, NotPermitted):
        return refuse("not_permitted", "this server only reads")
    return respond(envelopes.of_error(error), STATUS[error.code])


def refuse_guess(wait_s: int) -> Response:
    """Return the response to a client that sent a wrong token after too many others."""
    sentence = f"too many wrong tokens; try again after {wait_s} s"
    return refuse("not_permitted", sentence, status=429, headers={"Retry-After": str(wait_s)})


def route_path(scope: Scope) -> str:
    """Return a request's path as Starlette matches it with routes: without the prefix of the mount.

    A proxy may have removed the prefix already. Only whole parts are removed: `/recorded` is not below `/record`.
    The token's check depends on it, so it must never differ from Starlette's own rule, which has no public name.
    """
    path: str = scope["path"]
    prefix: str = scope.get("root_path", "")
    if not prefix or not path.startswith(prefix):
        return path
    rest = path[len(prefix) :]
    return rest if not rest or rest.startswith("/") else path


def is_api(scope: Scope) -> bool:
    """Return whether a path is the API's, which requires the token: `/api`, or below it."""
    path = route_path(scope)
    return path == "/api" or path.startswith("/api/")


MCP = "/mcp"
"""The path at which coding agents are answered."""


def needs_token(scope: Scope) -> bool:
    """Return whether a request must send the token as a bearer: the API's, exporters', and coding agents'."""
    path = route_path(scope)
    return is_api(scope) or is_otlp_path(scope) or path == MCP or path.startswith(f"{MCP}/")


OTLP = frozenset({"/v1/traces", "/v1/logs", "/v1/metrics"})


def is_otlp_path(scope: Scope) -> bool:
    """Return whether a path is one of those that exporters of OpenTelemetry send to."""
    return route_path(scope) in OTLP


READ_AT_ONCE = 256 * 2**10
"""Bytes that one read of the file returns."""


CHUNK = 64 * 2**10
"""The least bytes that are sent at once. Each chunk costs a hop to a thread and back (0.1 ms)."""
LARGE_PART = 256 * 2**10
"""The size in bytes above which a part goes through a file."""
THREADS = 2
"""Threads that make parts. Each may hold several copies of a 20 MB span; more threads would not be faster."""


async def streamed(
    parts: Iterator[bytes], media_type: str, headers: Mapping[str, str] | None = None, executor: Executor | None = None
) -> Response:
    """Return a response with pieces that a thread makes one after the other, as fast as the client reads.

    If all parts fit into one chunk, the response has a length. A fault before the second chunk is raised here. After
    that, the connection is closed before the end of the response, so no client takes a part for the whole.

    Args:
        executor: makes the parts, instead of THREADS threads.
    """
    chunks = _chunks(parts)
    run = partial(asyncio.get_running_loop().run_in_executor, executor or _threads())
    first, second = await run(lambda: (next(chunks, b""), next(chunks, None)))
    if second is None:
        return Response(first, 200, headers, media_type=media_type)
    return StreamingResponse(_sent([second, first], chunks, run), 200, headers, media_type=media_type)


async def _sent(made: list[bytes], chunks: Iterator[bytes], run: Callable[..., Any]) -> AsyncIterator[bytes]:
    while made:
        yield made.pop()
        if not made:
            made += await run(lambda: [chunk for chunk in (next(chunks, None),) if chunk is not None])


def _chunks(parts: Iterator[bytes]) -> Iterator[bytes]:
    gathered: list[bytes] = []
    size = 0
    for part in parts:
        if len(part) > LARGE_PART:
            with TemporaryFile() as file:
                file.write(b"".join(gathered))
                file.write(part)
                gathered.clear()
                size = 0
                del part  # it is in the file
                yield from _chunks_in(file)
            continue
        gathered.append(part)
        size += len(part)
        if size >= CHUNK:
            yield b"".join(gathered)
            gathered.clear()
            size = 0
    if gathered:
        yield b"".join(gathered)


def _chunks_in(file: IO[bytes]) -> Iterator[bytes]:
    """Yield all bytes of a file."""
    file.seek(0)
    while chunk := file.read(READ_AT_ONCE):
        yield chunk


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, "agentspan-sending")


LARGE = 128 * 2**10
"""Bytes of a body, or characters of a span's payloads, above which a request runs in a thread. With fewer it takes the
event loop at most 5 ms."""
PART = 256 * 2**10
"""Bytes of the items of a large bulk request that share a commit (20 ms). Other writers commit in between."""
LARGE_THREADS = 2
"""Threads for large requests. More threads would only wait for the interpreter lock."""

T = TypeVar("T")


async def in_thread(work: Callable[..., T], *args: Any) -> T:
    """Run the work of a large request, and return its result."""
    return await asyncio.get_running_loop().run_in_executor(_large_threads(), partial(work, *args))


@cache
def _large_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(LARGE_THREADS, "agentspan-large")


def parts_of(planned: Sequence[Item]) -> Iterator[list[Item]]:
    """Yield the items of a bulk request in parts of at most PART bytes; a larger item is a part of its own."""
    items: list[Item] = []
    size = 0
    for item in planned:
        more = _size(item.fields)
        if items and size + more > PART:
            yield items
            items, size = [], 0
        items.append(item)
        size += more
    yield items


def _size(fields: dict[str, Any]) -> int:
    try:
        return len(to_json(fields))
    except ValueError:  # half a character, or too deep: the operation handles it
        return PART


IN_MEMORY = 2**20
"""The most bytes of a bulk request's answers that stay in memory."""
TOO_LARGE: Envelope = {
    "status": "error",
    "code": "bad_request",
    "message": "the answers of this request are too large together; send this item, and those behind it, in another "
    "request, and lists with a smaller page_size, or in a request that only reads",
}
"""The answer to an item that did not run, or whose list is not sent, because of the size of the answers."""


class BulkAnswers:
    """Collects the answers to the items of a bulk request that writes. Keeps them encoded until the commit.

    An answer shows the state at the moment when its item ran, so it cannot be read later. Most answers are small; more
    than IN_MEMORY are in a file without a name.

    Args:
        room: bytes of answers after which no further item runs.

    Attributes:
        has_error: whether an item was refused.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._encoded = SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115
        self.has_error = False

    def __del__(self) -> None:
        """Close the file: a client may go before it has read everything."""
        self._encoded.close()

    @property
    def size(self) -> int:
        """Bytes of the answers."""
        return self._encoded.tell()

    def add(self, key: str, run: Callable[[], Envelope]) -> bool:
        """Run an item if there is room, and encode its answer; return whether the next item may run."""
        answer = run() if self.size < self._room else TOO_LARGE
        if not self._write(key, answer):
            answer = TOO_LARGE
            self._write(key, answer)
        self.has_error = answer["status"] == "error"
        return not self.has_error

    def _write(self, key: str, answer: Envelope) -> bool:
        """Write an answer; return False, and write nothing, if it is a list that has more bytes than there is room."""
        start, is_list = self.size, "summaries" in answer
        self._encoded.write((b"," if start else b"") + encoded(key) + b":")
        for piece in pieces_of(answer):
            self._encoded.write(piece)
            if is_list and self.size > self._room:
                self._encoded.seek(start)
                self._encoded.truncate()
                return False
        return True

    def chunks(self) -> Iterator[bytes]:
        """Yield the members of `outputs` as JSON, without the braces; once."""
        return _chunks_in(self._encoded)


async def response_of(parts: Sequence[BulkAnswers]) -> Response:
    """Return the response to a bulk request whose items ran in parts."""
    pieces = _pieces(parts)
    if sum(part.size for part in parts) <= IN_MEMORY:
        return Response(b"".join(pieces), media_type="application/json")
    return await streamed(pieces, "application/json")


def _pieces(parts: Sequence[BulkAnswers]) -> Iterator[bytes]:
    yield b'{"status":"success","outputs":{'
    for number, part in enumerate(parts):
        if number:
            yield b","
        yield from part.chunks()
    yield b"}}"


# Models of answers, for the OpenAPI document. Answers are made without them.


class One(BaseModel, Generic[T]):
    """One resource.

    Attributes:
        status: always `success`.
        details: the resource.
    """

    status: Literal["success"]
    details: T


class Controlled(One[T], Generic[T]):
    """One span, or an instance that has finished.

    Attributes:
        status: always `success`.
        details: the resource.
        control: there only if the instance was terminated.
    """

    control: Control | SkipJsonSchema[None] = None


class Registered(One[T], Generic[T]):
    """A registered instance.

    Attributes:
        status: always `success`.
        details: the instance.
        agent_schema_version: the schema version that it was registered with.
    """

    agent_schema_version: AgentSchemaVersion


class Sorting(BaseModel):
    """The order of a list.

    Attributes:
        field: by which field.
        direction: upwards or downwards.
    """

    field: str
    direction: Literal["asc", "desc"]


class Many(BaseModel, Generic[T]):
    """A page of a list.

    Attributes:
        status: always `success`.
        summaries: the items.
        pagination: where they lie in the whole list.
        sorting: how they are sorted; null where the request did not say.
    """

    status: Literal["success"]
    summaries: list[T]
    pagination: Pagination | None
    sorting: Sorting | None


class ContextBody(BaseModel):
    """All that is known of an instance.

    Attributes:
        body: `instance`, `agent`, `schema` (the schema version), and `spans` in the order of their creation.
    """

    body: dict[str, Any]


class AgentContext(BaseModel):
    """An instance with everything that belongs to it.

    Attributes:
        status: always `success`.
        agent_context: all of it.
    """

    status: Literal["success"]
    agent_context: ContextBody


class BulkOutputs(BaseModel):
    """The answers to the operations of a bulk request.

    Attributes:
        status: always `success`, also where an operation was refused.
        outputs: each operation's envelope by its idempotency key; those after a refused one are absent.
    """

    status: Literal["success"]
    outputs: dict[str, dict[str, Any]]


class AlertCount(BaseModel):
    """The number of alerts.

    Attributes:
        status: always `success`.
        count: always 0: a file has no alerts.
    """

    status: Literal["success"]
    count: int


class FieldError(BaseModel):
    """The error of a field.

    Attributes:
        code: `required_value` or `invalid_value`.
        message: the problem with the value, and the values that are allowed.
    """

    code: Literal["required_value", "invalid_value"]
    message: str


class Error(BaseModel):
    """A request that was refused, or failed.

    Attributes:
        status: always `error`.
        code: the kind of the error.
        message: what happened, to which id, and what to do.
        errors: with `validation_errors`: what is wrong, by field.
        control: with `invalid_action`: there only if the instance was terminated.
    """

    status: Literal["error"]
    code: Literal[tuple(STATUS)]  # type: ignore[valid-type]
    message: str
    errors: dict[str, FieldError] | SkipJsonSchema[None] = None
    control: Control | SkipJsonSchema[None] = None


ENVELOPES: Mapping[str, Any] = {
    model.__name__: model for model in (One, Controlled, Registered, Many, AgentContext, AlertCount, BulkOutputs)
}
"""The models of answers, by the `envelope` of an operation."""
