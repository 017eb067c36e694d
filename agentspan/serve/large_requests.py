"""Large requests: work in threads, bulk requests in parts, and answers that are kept outside of memory.

One body of 10 MB took the event loop for 0.6 s, and nobody else was answered. Parsing, redaction and deriving are work
in this process, so they still share its interpreter lock. A thread gives it up every 5 ms, except in one call into C:
parsing 10 MB, or encoding it, takes 50 to 100 ms.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, TypeVar

from pydantic_core import to_json
from starlette.responses import Response

from agentspan.api.bulk import Item, Plan
from agentspan.api.envelopes import Envelope, InPieces
from agentspan.serve.responses import encoded, pieces_of
from agentspan.serve.streaming import WaitingBytes, streamed

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


IN_MEMORY = 2**20
"""Bytes of answers that stay in memory."""
TOO_LARGE: Envelope = {
    "status": "error",
    "code": "bad_request",
    "message": "the answers of this request are too large together; send this item, and those behind it, in another "
    "request, and lists with a smaller page_size, or in a request that only reads",
}
"""The answer to an item that did not run, or whose list is not sent, because of the size of the answers."""


class BulkAnswers:
    """Takes the answers to the items of a bulk request that writes: encoded as they run, kept until their commit.

    Each is what its item answered at that moment, so it cannot be read again. Most are small; more than IN_MEMORY is in
    a file without a name.

    Args:
        room: bytes of answers after which no further item runs.

    Attributes:
        has_error: whether an item was refused.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._encoded = WaitingBytes(IN_MEMORY)
        self.has_error = False

    def add(self, key: str, answer: Envelope | None) -> bool:
        """Encode an answer; return whether the next item may run."""
        if answer is None or not self._write(key, answer):
            answer = TOO_LARGE
            self._write(key, answer, is_limited=False)
        self.has_error = answer["status"] == "error"
        return not self.has_error

    @property
    def size(self) -> int:
        """Bytes of the answers."""
        return self._encoded.size

    def is_full(self) -> bool:
        """Return whether the answers have no room for a further one."""
        return self._encoded.size >= self._room

    def _write(self, key: str, answer: Envelope, *, is_limited: bool = True) -> bool:
        """Write an answer; return False, and write nothing, if it is a list that has more bytes than there is room."""
        into, start = self._encoded, self._encoded.size
        before = (b"," if start else b"") + encoded(key) + b":"
        is_limited = is_limited and "summaries" in answer
        if not isinstance(answer, InPieces):
            into.write(before + encoded(answer))
        else:
            into.write(before)
            for piece in pieces_of(answer):
                into.write(piece)
                if is_limited and into.size > self._room:
                    break
        if is_limited and into.size > self._room:
            into.cut(start)
            return False
        return True

    def chunks(self) -> Iterator[bytes]:
        """Yield the members of `outputs` as JSON, without the braces; once."""
        return self._encoded.chunks()


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
