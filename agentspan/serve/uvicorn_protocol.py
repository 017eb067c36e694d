"""uvicorn's protocol with limits on connections.

A subclass of whichever of its two protocols uvicorn chooses. Of their state it reads `cycle`, which both have: the
request under way, with `more_body` and `response_complete`. The other way, a protocol around uvicorn's that sees only
bytes, would have to parse HTTP again to know when a request is whole.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from agentspan.serve.connections import Connections, Limits
from agentspan.serve.joined_writes import JoinedWrites


def limited(limits: Limits, base: type[asyncio.Protocol] = AutoHTTPProtocol) -> type[asyncio.Protocol]:
    """Return a class for `uvicorn.Config(http=…)` of a server that has these limits.

    Args:
        base: uvicorn's H11Protocol or HttpToolsProtocol.
    """
    connections: Connections | None = None
    is_httptools = hasattr(base, "on_body")

    class LimitedProtocol(base):  # type: ignore[valid-type,misc]
        """One connection."""

        cycle: Any
        address = ""
        _head_bytes = 0
        _had_body = False
        _waits = True

        def connection_made(self, transport: Any) -> None:
            nonlocal connections
            super().connection_made(JoinedWrites(transport, asyncio.get_running_loop().call_soon))
            if connections is None:
                connections = Connections(limits, asyncio.get_running_loop().call_later)
            peer = transport.get_extra_info("peername")
            self.address = str(peer[0]) if isinstance(peer, (tuple, list)) else ""
            self._connections = connections
            connections.open(self)

        def data_received(self, data: bytes) -> None:
            self._had_body = not is_httptools  # h11 has a limit of its own for all that is no body
            super().data_received(data)
            if not self._waits:
                return
            cycle = self.cycle
            if cycle is not None and not cycle.more_body and not cycle.response_complete:
                self._waits = False
                self._head_bytes = 0
                self._connections.work(self)
            elif self._had_body and cycle is not None and cycle.more_body:
                self._head_bytes = 0
            else:  # a head, the extension of a chunk, or trailers, which httptools would keep however many they are
                self._head_bytes += len(data)
                if self._head_bytes > limits.head_bytes:
                    self.abort()

        def on_header(self, name: bytes, value: bytes) -> None:
            """Take a header (httptools). One behind the body, a trailer, is none of the request's: it is dropped."""
            if self.cycle is None or self.cycle.scope is not self.scope:
                super().on_header(name, value)

        def on_body(self, body: bytes) -> None:
            """Take a part of a body (httptools)."""
            self._had_body = True
            super().on_body(body)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            cycle = self.cycle  # another one, if the client did not wait for the response
            if cycle.response_complete or cycle.more_body:
                self._waits = True
                self._connections.wait(self)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._connections.fill(self)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._connections.drain(self)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._connections.close(self)

        @property
        def has_head(self) -> bool:
            """See Connection."""
            cycle = self.cycle
            return cycle is not None and not cycle.response_complete

        def abort(self) -> None:
            """See Connection."""
            self.transport.abort()

    return LimitedProtocol
