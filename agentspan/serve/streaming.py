"""Responses that are sent while they are made, so that a whole run is never in memory."""

import asyncio
from collections.abc import Iterator, Mapping
from itertools import chain

from starlette.responses import Response, StreamingResponse

CHUNK = 64 * 2**10
"""Bytes that are sent at once, or one piece with more. Each costs a hop to a thread and back (0.1 ms)."""


async def streamed(parts: Iterator[bytes], media_type: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response with pieces that a thread makes one after the other, as fast as the client reads.

    What fits into one chunk is a response with its length. A fault before the second chunk is raised here. After that,
    the connection is closed before the end of the response, so no client takes a part for the whole.
    """
    chunks = _chunks(parts)
    first, second = await asyncio.to_thread(lambda: (next(chunks, b""), next(chunks, None)))
    if second is None:
        return Response(first, 200, headers, media_type=media_type)
    return StreamingResponse(chain((first, second), chunks), 200, headers, media_type=media_type)


def _chunks(parts: Iterator[bytes]) -> Iterator[bytes]:
    gathered: list[bytes] = []
    size = 0
    for part in parts:
        gathered.append(part)
        size += len(part)
        if size >= CHUNK:
            yield b"".join(gathered)
            gathered.clear()
            size = 0
    if gathered:
        yield b"".join(gathered)
