"""What a request to `agentspan serve` costs in instructions of the processor, which other programs do not change.

Seconds of a busy machine differ by a third from one run to the next. Instructions differ by 1 to 2 % (of a bulk request
by up to 6 %: checkpoints, and ids of more milliseconds), so they show whether a change made a request dearer: run this
with the interpreters of two checkouts. `valgrind` counts them (Linux and macOS).

    python benchmarks/count_serve.py [--base /path/to/other/checkout/.venv/bin/python] [--rounds 7]

The whole server is counted, from the bytes of a request to those of its response: uvicorn's protocol, the application,
SQLite. Sockets and the kernel are not. One connection sends the requests one after the other, and each figure is the
median of the rounds. So a checkpoint or a collection of garbage, which happen in one round of several, do not count.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench_serve import BULK, PAGE, RESULT, creation, request
from counting import mark, slow_clocks, turns

REQUESTS = {"list": 4, "bulk": 2}
"""Requests of each kind in a round; of the others 10."""
WARM_ROUNDS = 2
INSTANCE = {"agent_id": "bench", "agent_version": {"name": "1"}, "agent_schema_version": {"span_type_schemas": []}}


class Transport:
    """The other end of a connection: it takes the response."""

    def __init__(self) -> None:
        self.received = b""
        self.answered = asyncio.Event()

    def write(self, data: bytes) -> None:
        self.received += data
        head, blank, body = self.received.partition(b"\r\n\r\n")
        if blank and len(body) == int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]):
            self.answered.set()

    def get_extra_info(self, name: str) -> Any:
        return {"peername": ("127.0.0.1", 50000), "sockname": ("127.0.0.1", 8000)}.get(name)

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """Part of the interface."""

    pause_reading = resume_reading = abort = close


class Client:
    """One kept-alive connection to a server in this process."""

    def __init__(self, server: Any) -> None:
        self.transport = Transport()
        make = server.config.http_protocol_class
        self.protocol = make(config=server.config, server_state=server.server_state, app_state={})
        self.protocol.connection_made(self.transport)

    async def ask(self, requests: list[bytes]) -> list[Any]:
        """Return the parsed bodies of the responses. Valgrind counts from the first request to the last response."""
        received: list[bytes] = []
        mark()
        for each in requests:
            self.transport.received = b""
            self.transport.answered.clear()
            self.protocol.data_received(each)
            await self.transport.answered.wait()
            received.append(self.transport.received)
        mark()
        heads_and_bodies = [each.partition(b"\r\n\r\n") for each in received]
        for head, _, body in heads_and_bodies:
            if not head.startswith(b"HTTP/1.1 200 "):
                raise SystemExit(f"{head!r} {body[:500]!r}")
        return [json.loads(body) for _, _, body in heads_and_bodies]


async def count(server: Any, rounds: int) -> None:
    """Send the requests of some rounds. Print the kind and the number of those between each two marks."""
    client = Client(server)
    registered = await client.ask([request("POST", "/agent_instance/register", INSTANCE)])
    instance = registered[0]["details"]["id"]
    await client.ask([request("POST", f"/agent_instance/{instance}/start", {})])
    windows = [("", 1), ("", 1)]
    for number in range(rounds + WARM_ROUNDS):
        spans: list[str] = []
        for kind, requests in kinds(instance, f"round-{number}", spans):
            answers = await client.ask(requests)
            spans[:] = [answer.get("details", {}).get("id", "") for answer in answers]
            windows.append((kind if number >= WARM_ROUNDS else "", len(requests)))
    client.protocol.connection_lost(None)  # else the server waits for it to end
    print(json.dumps(windows), flush=True)


def kinds(instance: str, mark: str, spans: list[str]) -> Iterator[tuple[str, list[bytes]]]:
    """Yield the requests of each kind.

    Args:
        spans: the ids in the answers to those before.
    """
    for name, key in (("", None), (", keyed", mark)):
        keys: list[dict[str, str]] = [{"idempotency_key": f"{key}-{n}"} if key else {} for n in range(10)]
        bodies = [{"details": creation(instance, **more)} for more in keys]
        yield f"create{name}", [request("POST", "/agent_spans", body) for body in bodies]
        finishes = zip(list(spans), keys, strict=True)
        results = [(id, {"result_payload": RESULT, **more}) for id, more in finishes]
        yield f"finish{name}", [request("POST", f"/agent_spans/{id}/finish", body) for id, body in results]
    yield "get", [request("GET", f"/agent_spans/{id}") for id in spans]
    listing = request("GET", f"/agent_spans?agent_instance_id={instance}&include_summaries=true")
    yield f"list of {PAGE}", [listing] * REQUESTS["list"]
    bulks = [
        [
            {"_type": "agent_spans/create", **creation(instance, idempotency_key=f"{mark}-bulk-{n}-{item}")}
            for item in range(BULK)
        ]
        for n in range(REQUESTS["bulk"])
    ]
    yield f"bulk of {BULK}", [request("POST", "/bulk", {"items": items}) for items in bulks]


def serve(path: str, rounds: int) -> None:
    """Run `agentspan serve` with a main loop that counts, and ends."""
    import uvicorn

    class Counting(uvicorn.Server):
        async def main_loop(self) -> None:
            await self.on_tick(0)  # sets the headers of all responses
            await count(self, rounds)
            self.should_exit = True

    uvicorn.Server = Counting  # type: ignore[misc]
    slow_clocks()
    import agentspan
    from agentspan.cli import main

    agentspan.open(path).storage.close()  # older ones have no --create
    main(["serve", "--db", path, "--port", "0"])


def counted(python: str, rounds: int) -> dict[str, list[float]]:
    """Return the instructions of one request of each kind, in each round, with the agentspan of an interpreter."""
    costs: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        command = (python, __file__, "--child", str(Path(folder, "agentspan.db")), "--rounds", str(rounds))
        for (kind, requests), instructions in turns(command, all_threads=True):
            if kind:
                costs.setdefault(kind, []).append(instructions / requests)
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", help="an interpreter with another agentspan, to compare with")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--child", metavar="FILE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        serve(options.child, options.rounds)
        return
    costs = counted(sys.executable, options.rounds)
    base = counted(options.base, options.rounds) if options.base else {}
    print(f"{'request':<16}{'instructions':>14}{'spread':>8}" + f"{'base':>14}{'spread':>8}{'ratio':>8}" * bool(base))
    for kind, values in costs.items():
        line = f"{kind:<16}{_median_and_spread(values)}"
        if base:
            ratio = statistics.median(values) / statistics.median(base[kind])
            line += f"{_median_and_spread(base[kind])}{ratio:>8.3f}"
        print(line)


def _median_and_spread(values: list[float]) -> str:
    median = statistics.median(values)
    return f"{median:>14,.0f}{(max(values) - min(values)) / median:>8.1%}"


if __name__ == "__main__":
    main()
