"""Responses that are sent while they are made, so that a whole run is never in memory.

A client may read slowly, and many may do so at once. So nothing large waits in memory for them: a large part is written
to a file without a name, and sent from there.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import cache, partial
from tempfile import SpooledTemporaryFile
from typing import Any

from starlette.responses import Response, StreamingResponse

READ_AT_ONCE = 256 * 2**10
"""Bytes that are read at once."""


class WaitingBytes:
    """Bytes that are written once, and read once.

    Args:
        in_memory: bytes that stay in memory, at least 1; with one more, all of them are in a file.

    Attributes:
        size: how many bytes there are.
    """

    def __init__(self, in_memory: int) -> None:
        self._file = SpooledTemporaryFile(in_memory)  # noqa: SIM115
        self.size = 0

    def __del__(self) -> None:
        """Close the file: a client may go before it has read everything."""
        self._file.close()

    def write(self, piece: bytes) -> None:
        """Add bytes."""
        self._file.write(piece)
        self.size += len(piece)

    def cut(self, size: int) -> None:
        """Remove all bytes behind the first."""
        self._file.seek(size)
        self._file.truncate()
        self.size = size

    def chunks(self) -> Iterator[bytes]:
        """Yield all bytes."""
        self._file.seek(0)
        while chunk := self._file.read(READ_AT_ONCE):
            yield chunk


CHUNK = 64 * 2**10
"""Bytes that are sent at once, at least. Each costs a hop to a thread and back (0.1 ms)."""
LARGE_PART = 256 * 2**10
"""Bytes from which a part goes through a file."""
THREADS = 2
"""Threads that make parts. Each has a span of at most 20 MB in memory, some times over; more would not be faster."""


async def streamed(
    parts: Iterator[bytes],
    media_type: str,
    headers: Mapping[str, str] | None = None,
    executor: Executor | None = None,
) -> Response:
    """Return a response with pieces that a thread makes one after the other, as fast as the client reads.

    What fits into one chunk is a response with its length. A fault before the second chunk is raised here. After that,
    the connection is closed before the end of the response, so no client takes a part for the whole.

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
            waiting = WaitingBytes(in_memory=1)
            waiting.write(b"".join(gathered))
            waiting.write(part)
            gathered.clear()
            size = 0
            del part  # it is in the file
            yield from waiting.chunks()
            del waiting
            continue
        gathered.append(part)
        size += len(part)
        if size >= CHUNK:
            yield b"".join(gathered)
            gathered.clear()
            size = 0
    if gathered:
        yield b"".join(gathered)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, "agentspan-sending")
