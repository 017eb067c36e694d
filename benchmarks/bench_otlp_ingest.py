"""Spans a second that a server takes over OTLP: until it has answered, and until they are all in its file.

The same requests in protobuf, from one connection that is kept alive, as an exporter sends them: traces of an agent
with calls of a model and of tools (OpenInference, 1.2 kB a span). `agentspan serve` commits before it answers. Phoenix
answers first and stores later, so its time ends when all rows are in its file; a request that it refuses because it is
busy is sent again. CPU is what the server's process used.

    python benchmarks/bench_otlp_ingest.py [--spans 20000] [--batch 512] [--rounds 3] [--folder DIR]
    python benchmarks/bench_otlp_ingest.py --phoenix /path/of/a/venv/bin/python     # with arize-phoenix in it
"""

import argparse
import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from measuring import machine, verdict

from agentspan.otel.otlp.requests import trace_request

STEPS = 20
"""Spans of a trace: its root, and calls of a model and of a tool by turns."""
TEXT = "The flight HAT136 leaves JFK at 09:40 for $305, and Seattle will be rainy. " * 4
BUSY = frozenset({429, 502, 503, 504})


class Figures(NamedTuple):
    """The times of a turn: seconds until all requests were answered, until all spans were stored, and of processors."""

    answered_s: float
    stored_s: float
    cpu_s: float


class Server(NamedTuple):
    """A server to measure: how it is started on a port and a folder, and how many spans its file has."""

    command: Sequence[str]
    file: Path
    table: str
    environment: dict[str, str]


def spans_of(trace: int) -> Iterator[dict[str, Any]]:
    """Yield the spans of a trace, the root last, as exporters send them."""
    began = 1_780_000_000_000_000_000 + trace * 1_000_000_000
    for number in [*range(2, STEPS + 1), 1]:
        is_root, is_call = number == 1, number % 2 == 0
        kind = "AGENT" if is_root else "LLM" if is_call else "TOOL"
        said: dict[str, Any] = {"openinference.span.kind": kind, "input.value": TEXT, "output.value": TEXT}
        if is_root:
            said |= {"agent.name": "travel_agent"}
        elif is_call:
            said |= {"llm.model_name": "gpt-4.1-mini", "llm.input_messages.0.message.role": "user"}
            said |= {"llm.input_messages.0.message.content": TEXT, "llm.output_messages.0.message.role": "assistant"}
            said |= {"llm.output_messages.0.message.content": TEXT}
            said |= {"llm.token_count.prompt": 330, "llm.token_count.completion": 36}
        else:
            said |= {"tool.name": "get_weather"}
        at = began + number * 10_000_000
        yield {
            "traceId": f"{trace + 1:032x}",
            "spanId": f"{(trace << 16) + number:016x}",
            **({} if is_root else {"parentSpanId": f"{(trace << 16) + 1:016x}"}),
            "name": "travel_agent" if is_root else "ChatCompletion" if is_call else "get_weather",
            "kind": 1,
            "startTimeUnixNano": str(began if is_root else at),
            "endTimeUnixNano": str(at + 500_000_000 if is_root else at + 5_000_000),
            "attributes": [_pair(name, value) for name, value in said.items()],
            "status": {"code": 1},
        }


def _pair(name: str, value: Any) -> dict[str, Any]:
    return {"key": name, "value": {"intValue": str(value)} if type(value) is int else {"stringValue": value}}


def bodies(spans: int, batch: int) -> list[bytes]:
    """Return requests with so many spans in all."""
    found = [span for trace in range(spans // STEPS) for span in spans_of(trace)]
    resource = {"attributes": [_pair("service.name", "bench")]}
    scope = {"name": "openinference.instrumentation.openai", "version": "0.1.66"}
    parts = [found[at : at + batch] for at in range(0, len(found), batch)]
    told = [{"scope": scope, "schemaUrl": "", "spans": part} for part in parts]
    return [trace_request({"resourceSpans": [{"resource": resource, "scopeSpans": [each]}]}) for each in told]


def agentspan_in(folder: Path, port: int) -> Server:
    """Return `agentspan serve`."""
    file = folder / "runs.db"
    command = [sys.executable, "-m", "agentspan", "--db", str(file), "serve", "--port", str(port), "--create"]
    return Server(command, file, "agent_spans", {})


def phoenix_in(folder: Path, port: int, python: str) -> Server:
    """Return Phoenix with its SQLite file, which sends nothing home."""
    said = {"PHOENIX_WORKING_DIR": str(folder), "PHOENIX_PORT": str(port), "PHOENIX_GRPC_PORT": str(free_port())}
    said |= {"PHOENIX_TELEMETRY_ENABLED": "false", "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false"}
    return Server([python, "-m", "phoenix.server.main", "serve"], folder / "phoenix.db", "spans", said)


def free_port() -> int:
    """Return a port of this machine that nothing uses."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@contextmanager
def running(server: Server, port: int, folder: Path) -> Iterator[int]:
    """Start a server; yield its process id; end it."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            server.command, env={**os.environ, **server.environment}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        for _ in range(1200):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None:
                break
            time.sleep(0.1)
        else:
            sys.exit("the server did not start")
        if process.poll() is not None:
            sys.exit((folder / "log").read_text())
        yield process.pid
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def measure(server: Server, port: int, folder: Path, requests: Sequence[bytes], spans: int) -> Figures:
    """Send requests one after the other, and wait until all spans are in the file."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    with running(server, port, folder) as pid, closing(client) as connection:
        cpu, began = cpu_of(pid), time.monotonic()
        for body in requests:
            while (status := post(connection, body)) in BUSY:
                time.sleep(0.05)
            if status != 200:
                sys.exit(f"answered with {status}")
        answered = time.monotonic() - began
        while stored_in(server) < spans:
            if time.monotonic() - began > 1800:
                sys.exit(f"only {stored_in(server)} of {spans} spans were stored")
            time.sleep(0.1)
        return Figures(answered, time.monotonic() - began, cpu_of(pid) - cpu)


def post(connection: http.client.HTTPConnection, body: bytes) -> int:
    """Send a request, and return the status of the answer."""
    connection.request("POST", "/v1/traces", body, {"Content-Type": "application/x-protobuf"})
    with connection.getresponse() as answer:
        answer.read()
        return answer.status


def stored_in(server: Server) -> int:
    """Return how many spans the file of a server has."""
    with closing(sqlite3.connect(f"file:{server.file}?mode=ro", uri=True, timeout=30)) as connection:
        return int(connection.execute(f"select count(*) from {server.table}").fetchone()[0])


def cpu_of(pid: int) -> float:
    """Return the seconds of processors that a process has used (Linux only; else 0)."""
    try:
        values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spans", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=512, help="spans of a request, as OpenTelemetry's exporters send")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--phoenix", help="a Python in whose environment arize-phoenix is installed")
    parser.add_argument("--json", action="store_true", help="print the figures of all turns as JSON, too")
    options = parser.parse_args()
    spans = options.spans // STEPS * STEPS
    requests = bodies(spans, options.batch)
    size = sum(map(len, requests)) / spans
    print(machine())
    print(f"{spans:,} spans of {size:,.0f} bytes in {len(requests)} requests, one connection")
    contestants = ["agentspan", *(["phoenix"] if options.phoenix else [])]
    turns: dict[str, list[Figures]] = {name: [] for name in contestants}
    for _ in range(options.rounds):
        for name in contestants:
            with tempfile.TemporaryDirectory(dir=options.folder) as made:
                folder, port = Path(made), free_port()
                ours = name == "agentspan"
                server = agentspan_in(folder, port) if ours else phoenix_in(folder, port, options.phoenix)
                turns[name].append(measure(server, port, folder, requests, spans))
    print(f"{'':<12}{'answered/s':>12}{'stored/s':>12}{'CPU µs/span':>14}")
    best: dict[str, float] = {}
    for name, found in turns.items():
        middle = sorted(found, key=lambda each: each.stored_s)[len(found) // 2]
        best[name] = spans / middle.stored_s
        rate, cpu = spans / middle.answered_s, middle.cpu_s * 1e6 / spans
        print(f"{name:<12}{rate:>12,.0f}{best[name]:>12,.0f}{cpu:>14,.0f}")
    print(verdict("agentspan serve, spans stored in a second", best["agentspan"], 10_000, "/s", at_least=True))
    if options.phoenix:
        ratio = best["agentspan"] / best["phoenix"]
        print(verdict("agentspan serve beside Phoenix", ratio, 5, at_least=True))
    if options.json:
        print(json.dumps({name: [each._asdict() for each in found] for name, found in turns.items()}))


if __name__ == "__main__":
    main()
