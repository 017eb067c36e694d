"""Makes HTTP responses: envelopes as JSON, and errors with the HTTP status of their code."""

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response
from starlette.types import Scope

from agentspan import jsontext
from agentspan.api import envelopes
from agentspan.api.envelopes import InPieces, JsonText
from agentspan.errors import AgentspanError, DatabaseBusy, DatabaseUnusable, NotPermitted, StorageError

STATUS: Mapping[str, int] = {
    "bad_request": 400,
    "not_authenticated": 401,
    "bad_authtoken": 401,
    "not_permitted": 403,
    "not_found": 404,
    "invalid_action": 409,
    "idempotency_key_already_used": 409,
    "validation_errors": 422,
    "required_value": 422,
    "invalid_value": 422,
    "unexpected_ref_type": 422,
    "not_implemented": 422,
    "unexpected": 500,
    "unknown": 503,
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


def refuse_error(error: AgentspanError) -> Response:
    """Return an AgentspanError as a response, without its message if that could name the file's path."""
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
    """Return the response to a client after too many wrong tokens. Its new token was not checked."""
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


OTLP = frozenset({"/v1/traces", "/v1/logs", "/v1/metrics"})


def is_otlp_path(scope: Scope) -> bool:
    """Return whether a path is one of those that exporters of OpenTelemetry send to."""
    return route_path(scope) in OTLP
