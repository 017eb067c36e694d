"""Recording into a server that comes and goes: `python -m tests.processes.server_away URL SECONDS SPANS_A_SECOND`.

Writes figures as JSON: what calls took, and what of them touched the server. Ends when stdin ends.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from typing import Any

import agentspan
from tests.processes.away import _quantiles
from tests.waiting import readable


class Touches:
    """Counts what the recording thread asks of the driver."""

    def __init__(self) -> None:
        from agentspan.storage.postgres.connection import Connection

        self.count = 0
        here = threading.get_ident()
        connect, execute = Connection.connect.__func__, Connection.execute  # type: ignore[attr-defined]

        def counting(call: Any) -> Any:
            def counted(*args: Any, **options: Any) -> Any:
                self.count += threading.get_ident() == here
                return call(*args, **options)

            return counted

        Connection.connect = classmethod(counting(connect))  # type: ignore[method-assign, assignment]
        Connection.execute = counting(execute)  # type: ignore[method-assign]


def main(url: str, seconds: float, rate: float) -> None:
    """Record for some seconds, a run after every 20 spans."""
    touches = Touches()
    agentspan.configure(url)
    micros: list[float] = []
    spans: list[str] = []
    began = due = time.monotonic()
    cpu = time.thread_time()
    while time.monotonic() < began + seconds:
        with agentspan.run(f"agent {os.getpid() % 2}", version="1"):
            for _ in range(20):
                start = time.perf_counter()
                with agentspan.span("tool", {"name": "x", "arguments": {"text": "y" * 300}}) as span:
                    pass
                micros.append((time.perf_counter() - start) * 1e6)
                spans.append(span.id)
                due += 1 / rate
                time.sleep(max(0.0, due - time.monotonic()))
    cpu = (time.thread_time() - cpu) / len(spans) * 1e6
    touched = touches.count
    health = agentspan.health()
    sys.stdin.read()
    is_flushed = agentspan.flush(300)
    figures = {**_quantiles(micros), "cpu_us": round(cpu, 1), "touches": touched, "ids": spans, "flushed": is_flushed}
    sys.stdout.write(json.dumps({**figures, "lost": health.failed, "waiting": health.waiting}))


class Hole:
    """A proxy that passes everything on or, while `is_open` is False, nothing: a network that swallows packets."""

    def __init__(self, port: int) -> None:
        self.is_open = True
        self.accepted = 0
        self._to = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._is_over = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._is_over = True
        self._thread.join()
        for each in (self._listening, *[end for pair in self._pairs for end in pair]):
            each.close()

    def _run(self) -> None:
        while not self._is_over:
            if not self.is_open:
                time.sleep(0.01)
                continue
            other = {one: two for pair in self._pairs for one, two in (pair, pair[::-1])}
            for ready in readable([self._listening, *other], 0.01):
                if ready is self._listening:
                    self.accepted += 1
                    self._pairs.append((ready.accept()[0], socket.create_connection(("127.0.0.1", self._to))))
                    continue
                with contextlib.suppress(OSError):
                    data = ready.recv(65536)
                    if data:
                        other[ready].sendall(data)
                        continue
                self._pairs = [pair for pair in self._pairs if ready not in pair]
                ready.close()
                other[ready].close()
                break


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]))
