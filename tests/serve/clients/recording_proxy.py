"""An HTTP proxy in front of a server, that keeps each request and its response: what a client sent, byte for byte."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

API = "/api/v1"


class Exchange(NamedTuple):
    """One request and its response. Bodies are parsed JSON, or None if they are empty."""

    method: str
    path: str
    headers: dict[str, str]
    sent: Any
    status: int
    answer: Any


class RecordingProxy(ThreadingHTTPServer):
    """Passes requests on to a port of this machine.

    Attributes:
        url: the address that a client gets.
        exchanges: what it has passed on, in the order of the responses.
    """

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port = port
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.exchanges: list[Exchange] = []

    def to(self, method: str, path: str) -> list[Exchange]:
        """Return the exchanges of one route, such as `POST /agent_spans/*/finish`."""
        return [each for each in self.exchanges if each.method == method and _matches(path, each.path)]


def _matches(path: str, found: str) -> bool:
    wanted, parts = f"{API}{path}".split("/"), found.partition("?")[0].split("/")
    return len(wanted) == len(parts) and all(a in ("*", b) for a, b in zip(wanted, parts, strict=True))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RecordingProxy

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        try:
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        sent, answered = (json.loads(text) if text else None for text in (body, answer))
        self.server.exchanges.append(
            Exchange(self.command, self.path, dict(self.headers), sent, response.status, answered)
        )
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT = do_DELETE = _pass_on

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


@contextmanager
def recording(port: int) -> Iterator[RecordingProxy]:
    """Start a proxy in a thread of its own, and stop it at the end."""
    proxy = RecordingProxy(port)
    thread = threading.Thread(target=proxy.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()
