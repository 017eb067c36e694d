"""A proxy in front of PostgreSQL that breaks a connection at a chosen moment, or passes nothing on, and that counts."""

import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Literal
from urllib.parse import urlsplit

from tests.waiting import readable

Breaks = Literal["after", "before", "silently"]
"""The moment at which a connection breaks: before the server gets the message, after it has answered, or never."""

_SYNC, _FLUSH = b"S\0\0\0\4", b"H\0\0\0\4"
"""Each asks for the answers to what was sent before. psycopg sends a Flush after a Sync, at times in a part of its own,
which may come when the answers are there: nobody waits for anything then."""


class Proxy:
    """Forwards connections to a server.

    Attributes:
        url: to connect to instead of the server.
        breaks: how the next connection breaks that sends `at`; None to forward everything.
        at: the pattern of what the message has in it.
        broken: how many connections were broken.
        accepted: how many connections there were, also those that were refused.
        round_trips: how many times a client waited for the server.
        refuses: end each new connection at once.
        is_silent: pass nothing on, in either direction, and accept connections all the same.
        lost: how many times all connections that were open were lost: what they send since then reaches nobody.
        delay_s: how long answers take on their way. Those that are on their way arrive when it becomes 0.
        held: what the next connection sends is held back until this is set, and so are all its answers; None for none.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = parts.hostname, parts.port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = url.replace(f":{parts.port}", f":{self._listening.getsockname()[1]}")
        self.breaks: Breaks | None = None
        self.at = rb"commit\0|put as \("
        self.broken = self.accepted = self.round_trips = 0
        self.refuses = self.is_silent = False
        self.lost = 0
        self.delay_s = 0.0
        self.held: threading.Event | None = None
        self._left: list[socket.socket] = []
        self._ends = threading.Event()
        self._counting = threading.Lock()
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def close(self) -> None:
        """End all connections."""
        self._ends.set()
        self._listening.shutdown(socket.SHUT_RDWR)  # ends `accept`, which would go on with the socket of another proxy
        self._accepting.join()
        self._listening.close()
        for each in self._left:
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self.accepted += 1
                if self.refuses:
                    client.close()
                    continue
                threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.create_connection(self._server) as server:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            lost = self.lost
            is_waiting = has_asked = False
            while not self._ends.is_set():
                if self.is_silent:
                    self._ends.wait(0.02)
                    continue
                for ready in readable((client, server), 0.02):
                    data = ready.recv(1 << 20)
                    if not data:
                        return
                    if lost != self.lost:
                        continue
                    if ready is client and self.breaks is not None:
                        data = _whole(client, data)
                    if ready is client and self.breaks is not None and re.search(self.at, data):
                        self._break(server, data)
                        return
                    if ready is client and self.held is not None:
                        self.held.wait(60)
                    if ready is server:
                        self._delay()
                        # Or its buffer for answers was full, and it was not asked for them yet.
                        is_waiting = is_waiting and not has_asked
                    elif is_waiting or data != _FLUSH:
                        if not is_waiting:
                            with self._counting:  # each connection has a thread of its own
                                self.round_trips += 1
                        is_waiting, has_asked = True, _asks(data)
                    (server if ready is client else client).sendall(data)

    def _delay(self) -> None:
        until = time.monotonic() + self.delay_s
        while self.delay_s and time.monotonic() < until and not self._ends.wait(min(self.delay_s, 0.02)):
            pass

    def _break(self, server: socket.socket, data: bytes) -> None:
        how, self.breaks = self.breaks, None
        self.broken += 1
        if how == "after":
            server.sendall(data)
            server.recv(1 << 20)
        elif how == "silently":
            self._left.append(server.dup())  # the server goes on to wait


def _asks(data: bytes) -> bool:
    """Return if what a client sent makes the server answer."""
    return data[:1] not in b"PBDEC" or data.endswith((_SYNC, _FLUSH))


def _whole(client: socket.socket, data: bytes) -> bytes:
    """Return what a client sends before it waits: a pipeline until Sync or Flush, which psycopg sends in parts."""
    while not _asks(data):
        more = client.recv(1 << 20)
        if not more:
            break
        data += more
    return data


@contextlib.contextmanager
def proxy(url: str) -> Iterator[Proxy]:
    """Start a proxy in front of the server of a URL."""
    made = Proxy(url)
    try:
        yield made
    finally:
        made.close()
