"""Requests with large bodies run in threads: one of 10 MB took the event loop for 0.6 s, and nobody else was answered.
So does a request for a large span: its payloads are decoded and encoded there.

Parsing, redaction and deriving are work in this process, so they still share its interpreter lock. A thread gives it up
every 5 ms, except in one call into C: parsing 10 MB, or encoding it, takes 50 to 100 ms.
"""

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import cache, partial
from typing import Any, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json
from starlette.exceptions import HTTPException

from agentspan.jsontext import structure
from agentspan.operations.bulk import Plan

LARGE = 128 * 2**10
"""Bytes of a body, or characters of a span's payloads, above which a request runs in a thread. With fewer it takes the
event loop at most 5 ms."""
PART = 256 * 2**10
"""Bytes of the items of a large bulk request that share a commit: others write in between, after 20 ms."""
MAX_PARTS = 300_000
"""Texts (names of members, too), objects and lists of a body. Each takes some microseconds until it is stored, and 50
bytes or more of memory, however short it is; the parser is one call, in which no other thread runs."""
THREADS = 2
"""More would wait for the interpreter lock only."""

is_large: ContextVar[bool] = ContextVar("is_large", default=False)
"""True while a request with a large body is under way."""
T = TypeVar("T")


async def in_thread(work: Callable[..., T], *args: Any) -> T:
    """Run the work of a large request, and return its result."""
    return await asyncio.get_running_loop().run_in_executor(_threads(), partial(work, *args))


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, "agentspan-large")


def parsed(adapter: TypeAdapter[Any], body: bytes) -> Any:
    """Return a body as the model of its route. It makes the errors that FastAPI makes, but not on the event loop.

    Raises:
        RequestValidationError, HTTPException: the body is no JSON, has too many parts, or does not match.
    """
    if _has_too_many_parts(body):
        raise HTTPException(413, f"the body has more than {MAX_PARTS:,} texts, objects and lists; send fewer at once")
    try:
        value = from_json(body)
    except ValueError:  # half a character, which JSON can escape
        try:
            value = json.loads(body)
        except json.JSONDecodeError:
            problem = {"type": "json_invalid", "loc": ("body", 0), "msg": "JSON decode error", "input": {}}
            raise RequestValidationError([problem], body=None) from None
        except (ValueError, RecursionError) as error:  # no UTF-8, or too deep
            raise HTTPException(400) from error
    try:
        return adapter.validate_python(value, from_attributes=True)  # as FastAPI does: it is in the messages
    except ValidationError as error:
        problems = [{**each, "loc": ("body", *each["loc"])} for each in error.errors(include_url=False)]
        raise RequestValidationError(problems, body=value) from None


def _has_too_many_parts(body: bytes) -> bool:
    """Return whether there are more than MAX_PARTS. It never counts more of them, a few milliseconds at a time."""
    if body.count(b'"') // 2 + body.count(b"{") + body.count(b"[") <= MAX_PARTS:  # with those within texts
        return False
    count = 0
    for texts, outside in structure(body):
        count += texts + outside.count(b"{") + outside.count(b"[")
        if count > MAX_PARTS:
            return True
    return False


def parts_of(plan: Plan) -> Iterator[Plan]:
    """Yield the items of a bulk request in parts of at most PART bytes; a larger item is a part of its own."""
    items: list[Any] = []
    size = 0
    for item in plan.items:
        more = _size(item[1])
        if items and size + more > PART:
            yield Plan(items)
            items, size = [], 0
        items.append(item)
        size += more
    yield Plan(items)


def _size(fields: dict[str, Any]) -> int:
    try:
        return len(to_json(fields))
    except ValueError:  # half a character, or too deep: the operation handles it
        return PART
