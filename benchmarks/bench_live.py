"""The memory of `agentspan serve` while many people watch a run that goes on, and what that costs the recording one.

A program records a run into a file; `agentspan serve` reads it; clients poll as the page of an active run does: every
second its changes since the cursor of the answer before. By turns nobody and everybody watches. Printed are the memory
of the server's process at the beginning and at the end, and the processor time of a recorded span in both kinds of
turns: wall time would say how busy the machine is.

    python benchmarks/bench_live.py [--clients 50] [--seconds 180] [--turns 4] [--folder DIR]
"""

import argparse
import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from measuring import machine

import agentspan

STEPS_PER_S = 20
POLL_S = 1.0
OVERLAP = timedelta(seconds=3)  # as in run.js


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process in MiB (Linux only)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


class Watchers:
    """Clients that poll a run while `is_on`, in a thread of their own."""

    def __init__(self, address: str, clients: int) -> None:
        self.address, self.clients = address, clients
        self.is_on, self.is_over = False, False
        self.answers, self.problems = 0, 0
        self.thread = threading.Thread(target=lambda: asyncio.run(self._watch()))
        self.thread.start()

    async def _watch(self) -> None:
        limits = httpx.Limits(max_connections=self.clients)
        async with httpx.AsyncClient(base_url=self.address, timeout=30, limits=limits) as client:
            await asyncio.gather(*(self._poll(client, number) for number in range(self.clients)))

    async def _poll(self, client: httpx.AsyncClient, number: int) -> None:
        await asyncio.sleep(POLL_S * number / self.clients)
        query: dict[str, str] = {}  # at first the whole run
        while not self.is_over:
            if self.is_on:
                try:
                    answer = (await client.get("/spans", params=query)).json()
                    query = following(answer)
                    self.answers += 1
                except (httpx.HTTPError, ValueError, KeyError):
                    self.problems += 1
            await asyncio.sleep(POLL_S)


def following(answer: dict[str, Any]) -> dict[str, str]:
    """Return what a page asks for next: what was committed since a cursor, else what changed in the last seconds."""
    if answer["cursor"]:
        return {"cursor": answer["cursor"], "after": ""}
    latest = datetime.fromisoformat(answer["latest"].replace("Z", "+00:00")) - OVERLAP
    return {"since": latest.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "after": ""}


def record(tracer: agentspan.Tracer, until: float) -> float:
    """Record steps until a time; return the processor time of this thread for one in µs, the median."""
    costs = []
    number = 0
    while time.monotonic() < until:
        began = time.thread_time_ns()
        with tracer.span("tool", {"name": "fetch", "arguments": {"page": number}}) as span:
            span.set_result({"output": "y" * 280})
        costs.append((time.thread_time_ns() - began) / 1000)
        number += 1
        time.sleep(1 / STEPS_PER_S)
    return statistics.median(costs)


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--turns", type=int, default=4, help="an even number; every second one has watchers")
    parser.add_argument("--folder", type=Path, help="where files lie (default: a temporary folder)")
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path, port = Path(folder) / "runs.db", free_port()
        tracer = agentspan.Tracer(path, raise_errors=True)
        with tracer.run("watched") as run:
            record(tracer, time.monotonic() + 1)
            tracer.flush(10)
            command = [sys.executable, "-m", "agentspan", "serve", "--db", str(path), "--port", str(port)]
            environment = {**os.environ, "NO_COLOR": "1"}
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment) as server:
                wait_for(port)
                watchers = Watchers(f"http://127.0.0.1:{port}/runs/{run.id}", options.clients)
                try:
                    measure(tracer, server.pid, watchers, options.seconds / options.turns, options.turns)
                finally:
                    watchers.is_over = True
                    watchers.thread.join()
                    server.terminate()
        tracer.shutdown()


def wait_for(port: int) -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return


def measure(tracer: agentspan.Tracer, server: int, watchers: Watchers, seconds: float, turns: int) -> None:
    for turn in range(turns):
        watchers.is_on = bool(turn % 2)
        before = watchers.answers
        cost = record(tracer, time.monotonic() + seconds)
        who = f"{watchers.clients} watch" if watchers.is_on else "nobody watches"
        answers = watchers.answers - before
        memory = resident_mib(server)
        print(f"{who:16} {cost:6.1f} µs a span   server {memory:6.1f} MiB   {answers:6,} answers", flush=True)
    print(f"{watchers.problems} requests failed")


if __name__ == "__main__":
    main()
