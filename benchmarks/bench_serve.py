"""What a request to `agentspan serve` costs, beside a bare FastAPI application that does the same SQLite write.

Both run under uvicorn with the same settings, each in a process of its own, and take short turns: only one is asked at
a time, and both meet the same machine. The bare one parses the same bodies, writes the same row in a transaction of its
own and answers with the same fields; it makes ids, but no summary, no schema check, no search for what is there, no
state machine. The requests come from raw sockets that are kept alive; what the generator itself costs is in the table's
last line. CPU is what the server's process used for a request, which says more than the rate does while other programs
run (Linux only).

    python benchmarks/bench_serve.py [--requests 200] [--rounds 15] [--connections 16] [--folder DIR]
    python benchmarks/bench_serve.py --clients 64 --seconds 10

The second form is a load test: every client creates a span and finishes it, again and again. Then the file is read:
every span that was acknowledged must be there, finished once. Meanwhile one more connection asks for /ping.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

API = "/api/v1"
PAYLOAD = {"name": "search", "arguments": {"query": "x" * 250}}
RESULT = {"output": "y" * 280}
BULK = 100
PAGE = 50
BARE = Path(__file__).with_name("bare_app.py")


@dataclass
class Turn:
    """What a number of requests took: seconds in all, and of each, of processors; and what was answered."""

    seconds: float = 0.0
    times: list[float] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    generator_cpu: float = 0.0
    server_cpu: float = 0.0


@dataclass
class Server:
    port: int
    pid: int

    def cpu(self) -> float:
        """Seconds of processors that it has used."""
        try:
            values = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")


class Connection(asyncio.Protocol):
    """One kept-alive connection that sends a request as soon as the last one is answered (10 µs each).

    The first, a ping, is not counted: uvloop accepts one connection in each turn of its loop, so that of 64 that come
    at once to a busy server the last waits for a second.
    """

    def __init__(self, requests: Iterator[bytes], turn: Turn) -> None:
        self.requests, self.turn = requests, turn
        self.ready = asyncio.get_running_loop().create_future()
        self.done = asyncio.get_running_loop().create_future()
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        transport.write(PING)  # type: ignore[attr-defined]

    def send(self) -> None:
        request = next(self.requests, None)
        if request is None:
            self.transport.close()
            self.done.set_result(None)
            return
        self.began = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, blank, body = self.received.partition(b"\r\n\r\n")
        if not blank or len(body) < int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]):
            return
        self.received = b""
        if not self.ready.done():
            self.ready.set_result(None)
            return
        self.turn.times.append(time.perf_counter() - self.began)
        self.answered(int(head[9:12]), body)
        self.send()

    def answered(self, status: int, body: bytes) -> None:
        if status != 200:
            raise SystemExit(f"{status} {body[:500]!r}")
        self.turn.bodies.append(body)

    def connection_lost(self, error: Exception | None) -> None:
        for future in (self.ready, self.done):
            if not future.done():
                future.set_exception(error or ConnectionError("the server closed the connection"))


async def connected(make: Callable[[], Connection], port: int, number: int) -> list[Connection]:
    """So many connections, each accepted."""
    loop = asyncio.get_running_loop()
    made = [(await loop.create_connection(make, "127.0.0.1", port))[1] for _ in range(number)]
    await asyncio.gather(*(connection.ready for connection in made))
    return made


async def finished(connections: list[Connection]) -> None:
    """Let connections work until they are done."""
    for connection in connections:
        connection.send()
    await asyncio.gather(*(connection.done for connection in connections))


def request(method: str, path: str, body: Any = None) -> bytes:
    data = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {API}{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


PING = request("GET", "/ping")


def ask(server: Server, requests: Sequence[bytes], connections: int) -> Turn:
    """Send requests over so many connections."""
    turn = Turn()

    async def run() -> None:
        rest = iter(requests)
        made = await connected(lambda: Connection(rest, turn), server.port, connections)
        began, cpu, server_cpu = time.perf_counter(), time.process_time(), server.cpu()
        await finished(made)
        turn.seconds = time.perf_counter() - began
        turn.generator_cpu, turn.server_cpu = time.process_time() - cpu, server.cpu() - server_cpu

    asyncio.run(run())
    return turn


@contextmanager
def started(*command: str) -> Iterator[Server]:
    """A server in a process of its own, that says its address in its first line."""
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield Server(int(line.partition("http://127.0.0.1:")[2].split()[0]), process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)


def agentspan_serve(path: Path) -> AbstractContextManager[Server]:
    return started("-m", "agentspan", "serve", "--db", str(path), "--port", "0", "--create")


def register(server: Server) -> str:
    """Register and start an instance; its id."""
    body = {"agent_id": "bench", "agent_version": {"name": "1"}, "agent_schema_version": {"span_type_schemas": []}}
    answer = ask(server, [request("POST", "/agent_instance/register", body)], 1).bodies[0]
    id = str(json.loads(answer)["details"]["id"])
    ask(server, [request("POST", f"/agent_instance/{id}/start", {})], 1)
    return id


def creation(instance: str, **more: Any) -> dict[str, Any]:
    return {"agent_instance_id": instance, "schema_name": "tool", "status": "active", "payload": PAYLOAD, **more}


def turns(server: Server, instance: str, number: int, connections: int, mark: str) -> Iterator[tuple[str, Turn]]:
    """One turn of each kind of request to one server."""
    for name, key in (("", None), (", keyed", mark)):
        bodies = [
            {"details": creation(instance, **({"idempotency_key": f"{key}-create-{n}"} if key else {}))}
            for n in range(number)
        ]
        created = ask(server, [request("POST", "/agent_spans", body) for body in bodies], connections)
        yield f"create{name}", created
        ids = [json.loads(body)["details"]["id"] for body in created.bodies]
        more = ({"idempotency_key": f"{key}-finish-{n}"} if key else {} for n in range(number))
        finishes = [
            request("POST", f"/agent_spans/{id}/finish", {"result_payload": RESULT, **keyed})
            for id, keyed in zip(ids, more, strict=True)
        ]
        yield f"finish{name}", ask(server, finishes, connections)
    listing = request("GET", f"/agent_spans?agent_instance_id={instance}&include_summaries=true")
    yield f"list of {PAGE}", ask(server, [listing] * max(number // 4, 1), connections)
    bulks = [
        [
            {"_type": "agent_spans/create", **creation(instance, idempotency_key=f"{mark}-bulk-{n}-{item}")}
            for item in range(BULK)
        ]
        for n in range(max(number // 10, 1))
    ]
    yield (
        f"bulk of {BULK}",
        ask(server, [request("POST", "/bulk", {"items": items}) for items in bulks], min(connections, 4)),
    )


def benchmark(options: argparse.Namespace) -> None:
    print(
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {options.requests} requests × "
        f"{options.rounds} rounds, {options.connections} connections"
    )
    taken: dict[str, tuple[list[Turn], list[Turn]]] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        paths = Path(folder, "agentspan.db"), Path(folder, "bare.db")
        with agentspan_serve(paths[1]) as server:
            instance = register(server)
        with agentspan_serve(paths[0]) as ours, started(str(BARE), str(paths[1])) as bare:
            contestants = [(0, ours, register(ours)), (1, bare, instance)]
            for _, server, id in contestants:
                for _ in turns(server, id, 300, options.connections, "warm"):
                    pass
            for number in range(options.rounds):
                rounds = [
                    (which, turns(server, id, options.requests, options.connections, f"round-{number}"))
                    for which, server, id in contestants
                ]
                for _ in range(6):
                    for which, kinds in rounds:
                        kind, turn = next(kinds)
                        taken.setdefault(kind, ([], []))[which].append(turn)
                contestants.reverse()
    print_table(taken)


def print_table(taken: dict[str, tuple[list[Turn], list[Turn]]]) -> None:
    print(f"{'':<14}{'agentspan':^37}{'bare':^19}{'ratio':^10}")
    print(f"{'request':<14}{'per s':>7}{'p50':>10}{'p99':>10}{'CPU':>10}{'per s':>9}{'CPU':>10}{'per s':>6} {'CPU':>3}")
    for kind, (ours, bare) in taken.items():
        mine, other = Figures(ours), Figures(bare)
        # Of pairs that ran one after the other, so that they met the same load by others.
        ratio = statistics.median(o.seconds / m.seconds for m, o in zip(ours, bare, strict=True))
        cpu = other.cpu / mine.cpu if mine.cpu else float("nan")
        print(
            f"{kind:<14}{mine.rate:>7,.0f}{mine.p50:>7.2f} ms{mine.p99:>7.2f} ms{mine.cpu:>7.2f} ms"
            f"{other.rate:>9,.0f}{other.cpu:>7.2f} ms{ratio:>6.2f}{cpu:>6.2f}"
        )
    print(f"bulk of {BULK}: {Figures(taken[f'bulk of {BULK}'][0]).rate * BULK:,.0f} spans/s")
    shares = [turn.generator_cpu / turn.seconds for pair in taken.values() for turns in pair for turn in turns]
    print(f"the generator was busy for {statistics.mean(shares):.0%} of the time, {max(shares):.0%} at most")


class Figures:
    """Requests per second (the median of the turns), percentiles of all times in ms, milliseconds of processor each."""

    def __init__(self, turns: list[Turn]) -> None:
        times = sorted(time for turn in turns for time in turn.times)
        self.rate = statistics.median(len(turn.times) / turn.seconds for turn in turns)
        self.p50, self.p99 = times[len(times) // 2] * 1e3, times[len(times) * 99 // 100] * 1e3
        self.cpu = sum(turn.server_cpu for turn in turns) / len(times) * 1e3


class Client(Connection):
    """Creates a span, finishes it, and so on until the time is over; notes what was acknowledged."""

    def __init__(self, instance: str, seconds: float, turn: Turn, acknowledged: dict[str, list[str]]) -> None:
        super().__init__(iter(()), turn)
        self.create = request("POST", "/agent_spans", {"details": creation(instance)})
        self.seconds, self.acknowledged, self.open = seconds, acknowledged, ""
        self.until: float | None = None

    def send(self) -> None:
        self.until = self.until or time.perf_counter() + self.seconds
        if self.open:
            body = {"result_payload": RESULT}
            self.requests = iter([request("POST", f"/agent_spans/{self.open}/finish", body)])
        elif time.perf_counter() < self.until:
            self.requests = iter([self.create])
        super().send()

    def answered(self, status: int, body: bytes) -> None:
        if status == 503:  # the same request once more
            self.acknowledged["busy"].append(self.open)
        elif status != 200:
            self.acknowledged["wrong"].append(f"{status} {body[:200]!r}")
            self.open = ""
        elif self.open:
            self.acknowledged["finished"].append(self.open)
            self.open = ""
        else:
            self.open = json.loads(body)["details"]["id"]
            self.acknowledged["created"].append(self.open)


def ping(port: int, send: Callable[[Any], None], stop: Any) -> None:
    """Ask for /ping every 5 ms, in a process of its own, until it is told to stop."""
    turn = Turn()

    class Pinging(Connection):
        def send(self) -> None:
            asyncio.get_running_loop().call_later(0.005, super().send)

    async def run() -> None:
        requests = iter(lambda: None if stop.is_set() else PING, None)
        made = await connected(lambda: Pinging(requests, turn), port, 1)
        send("connected")
        await finished(made)

    asyncio.run(run())
    send(turn.times)


def load(clients: int, seconds: float, folder: str | None) -> None:
    turn = Turn()
    acknowledged: dict[str, list[str]] = {"created": [], "finished": [], "busy": [], "wrong": []}
    with tempfile.TemporaryDirectory(dir=folder) as made:
        path = Path(made, "agentspan.db")
        with agentspan_serve(path) as server:
            instance, port = register(server), server.port
            context = multiprocessing.get_context("spawn")
            reader, writer = context.Pipe(duplex=False)
            stop = context.Event()
            pinging = context.Process(target=ping, args=(port, writer.send, stop))
            pinging.start()
            writer.close()  # else nobody would be told that the process has died
            reader.recv()

            async def run() -> None:
                made = await connected(lambda: Client(instance, seconds, turn, acknowledged), port, clients)
                began, cpu, server_cpu = time.perf_counter(), time.process_time(), server.cpu()
                await finished(made)
                turn.seconds = time.perf_counter() - began
                turn.generator_cpu, turn.server_cpu = time.process_time() - cpu, server.cpu() - server_cpu

            asyncio.run(run())
            stop.set()
            pings = sorted(reader.recv())
            pinging.join()
        connection = sqlite3.connect(path)
        statuses = dict(connection.execute("select id, status from agent_spans"))
        refused = connection.execute("select count(*) from refused_changes").fetchone()[0]
    times = sorted(turn.times)
    lost = [id for id in acknowledged["created"] if id not in statuses]
    unfinished = [id for id in acknowledged["finished"] if statuses.get(id) != "complete"]
    twice = len(acknowledged["finished"]) - len(set(acknowledged["finished"]))
    print(f"{clients} clients for {seconds:g} s: {len(times) / turn.seconds:,.0f} requests/s")
    for name, values in (("requests", times), ("pings", pings)):
        p50, p99, most = (values[min(len(values) * part // 100, len(values) - 1)] * 1e3 for part in (50, 99, 100))
        print(f"  {name + ':':<10}p50 {p50:.1f} ms, p99 {p99:.1f} ms, most {most:.1f} ms, of {len(values):,}")
    print(f"  created {len(acknowledged['created']):,}, finished {len(acknowledged['finished']):,}")
    print(f"  in the file {len(statuses):,}; lost {len(lost)}, not finished {len(unfinished)}, finished twice {twice}")
    failed = sum(wrong.startswith("5") for wrong in acknowledged["wrong"])
    others = len(acknowledged["wrong"]) - failed + refused
    print(f"  503: {len(acknowledged['busy'])}, other 5xx: {failed}, other refusals: {others}")
    print(
        f"  server {turn.server_cpu / len(times) * 1e3:.2f} ms of processor a request; "
        f"the generator was busy for {turn.generator_cpu / turn.seconds:.0%} of the time"
    )
    for wrong in acknowledged["wrong"][:5]:
        print(f"    {wrong}")
    if lost or unfinished or twice or acknowledged["wrong"]:
        raise SystemExit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200, help="of each kind, in each round")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--clients", type=int, help="load test: so many connections")
    parser.add_argument("--seconds", type=float, default=10.0, help="load test: so long")
    parser.add_argument("--folder", help="where the files lie; a temporary folder when left out")
    options = parser.parse_args()
    if options.clients:
        load(options.clients, options.seconds, options.folder)
    else:
        benchmark(options)


if __name__ == "__main__":
    main()
