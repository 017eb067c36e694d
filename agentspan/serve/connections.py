"""Limits on a server's connections: how many may be open, and how long one may take to send a request.

A client that sends nothing, or one byte a second, takes an open file as long as it likes: 260 of them once took all
files that a server may open, and no other client was served. uvicorn has no limit for that: `timeout_keep_alive` begins
after a response, and `limit_concurrency` counts silent connections too, so it refuses all clients. In this module, a
connection *waits* until it has sent a whole request, and *works* until it is answered. A new connection above a limit
ends the connection that waits longest, and never one that works; if all work, the new connection is refused.

uvicorn chooses one of its two protocols, and the limits are in a subclass of that one. The subclass reads the attribute
`cycle`, which both protocols have: the current request, with `more_body` and `response_complete`. The alternative, a
protocol around uvicorn's that receives only bytes, would have to parse HTTP again to find the end of a request.
"""

import asyncio
import errno
import socket
import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, ClassVar, NamedTuple

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from agentspan.errors import InvalidValue

MOST_FILES = 4096
"""The number of open files that a server requests from the operating system."""
OTHER_FILES = 100
"""Open files reserved for anything but connections: SQLite's for each thread, the journal's, the program's."""


class Limits(NamedTuple):
    """The limits of connections.

    Attributes:
        open: the most connections at once.
        of_peer: the most connections of one address. No limit for this machine: a proxy on it has the connections of
            all its clients, and another local program has better ways to do harm.
        head_s: seconds for the head of a request, from the opening of the connection or the previous response.
        body_s: further seconds for the body. The application itself answers late bodies with 408 before that.
        read_s: seconds for a client to read the data that waits for it in a full buffer.
        head_bytes: the most bytes of a head.
        idle_s: seconds for the next request to begin. Clients close an idle connection earlier (httpx after 5 s): else
            a client could send a request while the server closes the connection, and lose the request.
    """

    open: int = 1000
    of_peer: int = 100
    head_s: float = 10.0
    body_s: float = 60.0
    read_s: float = 30.0
    head_bytes: int = 64 * 2**10
    idle_s: int = 9

    @property
    def sweep_s(self) -> float:
        """Seconds between two searches for late connections."""
        return self.head_s / 10

    @property
    def backlog(self) -> int:
        """Connections that the system may accept in one turn of the event loop, before the first is counted."""
        return self.open


class Connections:
    """The open connections of one server. Only the thread of the event loop may use it.

    Args:
        later: calls a function after seconds, as `loop.call_later` does.
    """

    def __init__(self, limits: Limits, later: Callable[[float, Callable[[], None]], object]) -> None:
        self.limits = limits
        self._later = later
        self._of_peer: dict[str, int] = {}
        self._peers: dict[LimitedProtocol, str] = {}
        self._waiting: dict[LimitedProtocol, float] = {}  # since when each waits; the longest first
        self._full: dict[LimitedProtocol, float] = {}
        self._sweeps = False

    def __len__(self) -> int:
        return len(self._peers)

    def open(self, connection: "LimitedProtocol") -> None:
        """Add a connection. If there are too many, end the connection that waits longest."""
        peer = _peer(connection.address)
        self._peers[connection] = peer
        self._of_peer[peer] = self._of_peer.get(peer, 0) + 1
        self._waiting[connection] = time.monotonic()
        if not self._sweeps:
            self._sweeps = True
            self._later(self.limits.sweep_s, self._sweep)
        if peer and self._of_peer[peer] > self.limits.of_peer:
            self._end(next(each for each in self._waiting if self._peers[each] == peer))
        elif len(self._peers) > self.limits.open:
            self._end(next(iter(self._waiting)))

    def close(self, connection: "LimitedProtocol") -> None:
        """Remove a connection, if it is not removed already."""
        peer = self._peers.pop(connection, None)
        if peer is None:
            return
        self._waiting.pop(connection, None)
        self._full.pop(connection, None)
        left = self._of_peer[peer] - 1
        if left:
            self._of_peer[peer] = left
        else:
            del self._of_peer[peer]

    def wait(self, connection: "LimitedProtocol") -> None:
        """Note that a connection's request was answered, and that its next request is not complete."""
        if connection in self._peers:
            self._waiting[connection] = time.monotonic()

    def work(self, connection: "LimitedProtocol") -> None:
        """Note that a connection has sent a whole request."""
        self._waiting.pop(connection, None)

    def fill(self, connection: "LimitedProtocol") -> None:
        """Note that a client does not read: the buffer of its response is full."""
        if connection in self._peers:
            self._full[connection] = time.monotonic()

    def drain(self, connection: "LimitedProtocol") -> None:
        """Note that a client has read enough that more can be sent."""
        self._full.pop(connection, None)

    def _sweep(self) -> None:
        """End the connections that take too long, and schedule the next sweep."""
        limits, now = self.limits, time.monotonic()
        late = [each for each, since in self._full.items() if now - since > limits.read_s]
        for each, since in self._waiting.items():
            waits_s = now - since
            if waits_s <= limits.head_s:
                break
            if not each.has_head or waits_s > limits.head_s + limits.body_s:
                late.append(each)
        for each in late:
            self._end(each)
        self._sweeps = bool(self._peers)
        if self._sweeps:
            self._later(self.limits.sweep_s, self._sweep)

    def _end(self, connection: "LimitedProtocol") -> None:
        self.close(connection)  # now: the event loop reports the end in its next turn only
        connection.abort()


def limits_of_process() -> Limits:
    """Raise this process's limit of open files, and return the limits of connections that fit it."""
    return limits_for(_open_files())


def limits_for(files: int) -> Limits:
    """Return limits for a number of open files: half of them, since one turn of the loop may accept as many again."""
    return Limits(open=max(16, min(Limits().open, (files - OTHER_FILES) // 2)))


def _open_files() -> int:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return MOST_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = MOST_FILES if hard == unlimited else min(hard, MOST_FILES)
    if soft == unlimited or soft >= wanted:
        return MOST_FILES if soft == unlimited else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # macOS has a lower limit for the whole system
        return soft
    return wanted


def _peer(address: str) -> str:
    """Return the address under which a connection counts; empty for this machine, which has no limit."""
    try:
        return "" if not address or ip_address(address.partition("%")[0]).is_loopback else address
    except ValueError:
        return address


class JoinedWrites:
    """A transport that joins a write with the next one, or sends it at the end of the event loop's turn.

    uvicorn writes the head of a response and the first part of its body one after the other, and each write is a system
    call that wakes the client: 7 µs of the 230 µs that finishing a span takes.

    At most one write waits, so a producer that writes a lot is still paused when the client does not read.

    Args:
        transport: the transport that the bytes are written to; everything but writing and closing is its own.
        at_end_of_turn: calls a function in the loop's next turn, as `loop.call_soon` does.
    """

    def __init__(self, transport: Any, at_end_of_turn: Callable[[Callable[[], None]], object]) -> None:
        self._transport = transport
        self._at_end_of_turn = at_end_of_turn
        self._waiting = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send bytes together with waiting ones; if none wait, keep them for the next write or the end of the turn."""
        if self._waiting:
            waiting, self._waiting = self._waiting, b""
            self._transport.write(waiting + data)
        elif data:
            self._waiting = bytes(data)
            self._at_end_of_turn(self._flush)

    def is_closing(self) -> bool:
        """Return whether the connection is closed, or is being closed."""
        closing: bool = self._transport.is_closing()
        return closing

    def close(self) -> None:
        """Send the waiting bytes, then close the connection."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, b""
            self._transport.write(waiting)


class LimitedProtocol(asyncio.Protocol):
    """The protocol of one connection, with limits. `limited` makes a class of it and of a protocol of uvicorn's.

    Attributes:
        limits: the limits.
        connections: the open connections of the server; None before the first.
        is_httptools: whether the protocol is HttpToolsProtocol, not H11Protocol.
        cycle: uvicorn's current request.
        address: the address of the client, empty for a local socket.
    """

    limits: ClassVar[Limits]
    connections: ClassVar[Connections | None] = None
    is_httptools: ClassVar[bool]
    scope: Any
    transport: Any
    cycle: Any
    address = ""
    _head_bytes = 0
    _had_body = False
    _waits = True

    def connection_made(self, transport: Any) -> None:
        """Count the connection."""
        loop = asyncio.get_running_loop()
        super().connection_made(JoinedWrites(transport, loop.call_soon))  # type: ignore[arg-type]
        found = type(self).connections
        if found is None:
            found = type(self).connections = Connections(self.limits, loop.call_later)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, (tuple, list)) else ""
        self._connections = found
        found.open(self)

    def data_received(self, data: bytes) -> None:
        """Receive bytes of requests. Close the connection if a head is too large."""
        self._had_body = not self.is_httptools  # h11 has a limit of its own for all that is no body
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
            if self._head_bytes > self.limits.head_bytes:
                self.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Receive a header (httptools). A header after the body, a trailer, is dropped."""
        if self.cycle is None or self.cycle.scope is not self.scope:
            super().on_header(name, value)  # type: ignore[misc]

    def on_body(self, body: bytes) -> None:
        """Receive a part of a body (httptools)."""
        self._had_body = True
        super().on_body(body)  # type: ignore[misc]

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()  # type: ignore[misc]
        cycle = self.cycle  # the next request, if the client did not wait for the response
        if cycle.response_complete or cycle.more_body:
            self._waits = True
            self._connections.wait(self)

    def pause_writing(self) -> None:
        """Note that the client does not read."""
        super().pause_writing()
        self._connections.fill(self)

    def resume_writing(self) -> None:
        """Note that the client reads again."""
        super().resume_writing()
        self._connections.drain(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the connection."""
        super().connection_lost(exc)
        self._connections.close(self)

    @property
    def has_head(self) -> bool:
        """True once the head of a request has arrived that is not answered yet."""
        cycle = self.cycle
        return cycle is not None and not cycle.response_complete

    def abort(self) -> None:
        """Close the connection at once."""
        self.transport.abort()


def limited(limits: Limits, base: type[asyncio.Protocol] = AutoHTTPProtocol) -> type[asyncio.Protocol]:
    """Return a protocol class for `uvicorn.Config(http=…)` that enforces limits.

    Args:
        base: uvicorn's H11Protocol or HttpToolsProtocol.
    """
    return type("Limited", (LimitedProtocol, base), {"limits": limits, "is_httptools": hasattr(base, "on_body")})


def listening(host: str, port: int, backlog: int) -> socket.socket:
    """Return a socket that listens already: a client may connect as soon as its address is printed.

    Raises:
        InvalidValue: no port has this number.
        OSError: the port is in use, or cannot be listened on; its `strerror` says so.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=backlog)
    except OverflowError:
        raise InvalidValue("port", "must be a number from 0 to 65535") from None
    except OSError as error:
        why = f"cannot be listened on: {error.strerror}"
        if error.errno == errno.EADDRINUSE:
            why = "is in use; stop what listens there, or choose another"
        raise OSError(error.errno, f"port {port} of {host} {why}") from None
