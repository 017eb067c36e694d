"""Requests with large bodies run in threads: one of 10 MB took the event loop for 0.6 s, and nobody else was answered.
So does a request for a large span: its payloads are decoded and encoded there.

Parsing, redaction and deriving are work in this process, so they still share its interpreter lock. A thread gives it up
every 5 ms, except in one call into C: parsing 10 MB, or encoding it, takes 50 to 100 ms.
"""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, TypeVar

from pydantic_core import to_json

from agentspan.operations.bulk import Item, Plan

LARGE = 128 * 2**10
"""Bytes of a body, or characters of a span's payloads, above which a request runs in a thread. With fewer it takes the
event loop at most 5 ms."""
PART = 256 * 2**10
"""Bytes of the items of a large bulk request that share a commit: others write in between, after 20 ms."""
THREADS = 2
"""More would wait for the interpreter lock only."""

T = TypeVar("T")


async def in_thread(work: Callable[..., T], *args: Any) -> T:
    """Run the work of a large request, and return its result."""
    return await asyncio.get_running_loop().run_in_executor(_threads(), partial(work, *args))


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, "agentspan-large")


def parts_of(plan: Plan) -> Iterator[Plan]:
    """Yield the items of a bulk request in parts of at most PART bytes; a larger item is a part of its own."""
    items: list[Item] = []
    size = 0
    for item in plan.items:
        more = _size(item.fields)
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
