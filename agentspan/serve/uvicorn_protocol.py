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

    class LimitedProtocol(base):  # type: ignore[valid-type,misc]
        """One connection."""

        cycle: Any
        address = ""
        _head_bytes = 0
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
            super().data_received(data)
            if not self._waits:
                return
            cycle = self.cycle
            if cycle is not None and not cycle.more_body and not cycle.response_complete:
                self._waits = False
                self._head_bytes = 0
                self._connections.work(self)
            elif cycle is None or not cycle.more_body:  # h11 has a limit of its own for a head, httptools has none
                self._head_bytes += len(data)
                if self._head_bytes > limits.head_bytes:
                    self.abort()

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
