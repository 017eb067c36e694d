"""Counts the requests that `agentspan serve` answers over PostgreSQL behind a slow network, on one or more servers.

Clients on kept-alive connections create a span and finish it, again and again; between servers and PostgreSQL lies a
proxy that delays each round trip. PostgreSQL is started here, without fsync. Then the spans are read: each that was
acknowledged must be there, finished. CPU is what the processes of the servers used for a request.

    python benchmarks/bench_serve_postgres.py [--clients 64] [--seconds 5] [--servers 1] [--round-trip-ms 1.0]
"""

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from bench_serve import PAYLOAD, RESULT, Connection, Server, Turn, connected, finished, request

import agentspan
from agentspan.storage.questions import Counts
from agentspan.storage.registry import open_direct

PROXY = Path(__file__).with_name("delaying_proxy.py")


def started() -> AbstractContextManager[str]:
    """Start PostgreSQL as the tests do; it yields the URL."""
    sys.path.append(str(Path(__file__).parents[1]))
    from tests import postgres

    return postgres.server()


@contextmanager
def proxied(url: str, round_trip_ms: float) -> Iterator[str]:
    """Start the proxy before a URL; yield the URL through it."""
    port = url.rpartition(":")[2].partition("/")[0]
    command = [sys.executable, str(PROXY), port, "--round-trip-ms", str(round_trip_ms)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout is not None
        assert proxy.stdin is not None
        yield url.replace(port, proxy.stdout.readline().strip())
        proxy.stdin.close()


@contextmanager
def serving(url: str) -> Iterator[Server]:
    """Start a server over a URL."""
    command = [sys.executable, "-m", "agentspan", "serve", "--db", url, "--port", "0"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("AGENTSPAN_")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().split(" on http://")[1].split(" ")[0].rpartition(":")[2])
        try:
            yield Server(port, process.pid)
        finally:
            process.terminate()


class Client(Connection):
    """Creates a span and finishes it until a time."""

    def __init__(self, run: str, until: float, turn: Turn) -> None:
        super().__init__(self._requests(run, until), turn)

    def _requests(self, run: str, until: float) -> Iterator[bytes]:
        while time.perf_counter() < until:
            span = {"agent_instance_id": run, "schema_name": "tool", "status": "active", "payload": PAYLOAD}
            yield request("POST", "/agent_spans", {"details": span})
            id = json.loads(self.turn.bodies[-1])["details"]["id"]
            yield request("POST", f"/agent_spans/{id}/finish", {"result_payload": RESULT})

    def answered(self, status: int, body: bytes) -> None:
        super().answered(status, body)
        self.turn.bodies[:-1] = []


async def load(servers: list[Server], run: str, clients: int, seconds: float) -> list[Turn]:
    """Let clients work for so many seconds, each at one of the servers."""
    until = time.perf_counter() + seconds
    turns = [Turn() for _ in range(clients)]
    some = []
    for turn, server in zip(turns, itertools.cycle(servers)):
        some += await connected(lambda turn=turn: Client(run, until, turn), server.port, 1)  # type: ignore[misc]
    await finished(some)
    return turns


def main() -> None:
    """Measure, and print one line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--servers", type=int, default=1)
    parser.add_argument("--round-trip-ms", type=float, default=1.0)
    asked = parser.parse_args()
    with ExitStack() as stack:
        url = stack.enter_context(started())
        storage = open_direct(url)
        stack.callback(storage.close)
        run = agentspan.open(storage).agent_instances.register("bench", agent_version={"external_identifier": "1"})
        far = stack.enter_context(proxied(url, asked.round_trip_ms))
        servers = [stack.enter_context(serving(far)) for _ in range(asked.servers)]
        cpu, began = sum(server.cpu() for server in servers), time.perf_counter()
        turns = asyncio.run(load(servers, run.id, asked.clients, asked.seconds))
        took = time.perf_counter() - began
        cpu = sum(server.cpu() for server in servers) - cpu
        times = sorted(each for turn in turns for each in turn.times)
        number = len(times)
        counts = storage.ask(Counts([run.id]))[run.id]
        print(
            f"{asked.clients} clients, {asked.servers} servers, {asked.round_trip_ms:g} ms: {number / took:,.0f} "
            f"requests/s, p50 {times[number // 2] * 1000:.1f} ms, p99 {times[number * 99 // 100] * 1000:.1f} ms, "
            f"CPU {cpu / number * 1000:.2f} ms each; {counts.complete} of {number // 2} spans finished"
        )


if __name__ == "__main__":
    main()
