"""What a span over OTLP costs `agentspan serve` in instructions of the processor, from a request's bytes to the commit.

Beside the least that any store must do: google.protobuf decodes the same bytes, and `executemany` inserts the ids,
name, times, status and attributes (as JSON) of the spans into one plain SQLite table, in one commit a request. The JSON
is pydantic's, which takes a third of what `json.dumps` takes; with `json.dumps`, this least is half as much again. The
spans are those of `bench_otlp_ingest.py`. Sockets and HTTP are not counted, nor is the kernel.

    python benchmarks/count_otlp.py [--base /path/to/other/checkout/.venv/bin/python] [--rounds 3] [--batch 512]

Instructions do not depend on what else runs. The first requests warm up and do not count. `valgrind` counts (Linux and
macOS).
"""

import argparse
import gc
import json
import sqlite3
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from counting import mark, slow_clocks, turns
from measuring import verdict

Take = Callable[[bytes], None]
WARM, REQUESTS = 3, 4
"""Requests that warm up, and those of a round. A round has several, so that each has its share of the checkpoints."""
TABLE = (
    "create table spans (id text primary key, trace_id text, parent_id text, name text, started_ns integer, "
    "ended_ns integer, status integer, attributes text)"
)


@contextmanager
def agentspans(folder: str) -> Iterator[Take]:
    """Yield a function that handles a request as `agentspan serve` does, without HTTP."""
    import agentspan
    from agentspan.api.context import Context
    from agentspan.otel.otlp.requests import MAX_BODY, PROTOBUF, decode, done
    from agentspan.otel.receiving import Receiver
    from agentspan.recording.capture.plain import SentRedaction

    with agentspan.open(Path(folder, "agentspan.db")) as database:
        receiver = Receiver(Context(database.storage, redacts=SentRedaction()))

        def take(body: bytes) -> None:
            decoded = decode("traces", body, PROTOBUF, None, MAX_BODY)
            receiver.store(decoded.spans, decoded.logs)
            assert done("traces", decoded, PROTOBUF) == b""

        yield take


@contextmanager
def plain(folder: str) -> Iterator[Take]:
    """Yield a function that only decodes a request and inserts its spans into one table."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from pydantic_core import to_json

    connection = sqlite3.connect(Path(folder, "plain.db"))
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = normal")
    connection.execute(TABLE)

    def row(span: Any) -> tuple[Any, ...]:
        attributes = {each.key: each.value.string_value or each.value.int_value for each in span.attributes}
        ids = span.span_id.hex(), span.trace_id.hex(), span.parent_span_id.hex()
        times = span.start_time_unix_nano, span.end_time_unix_nano
        return *ids, span.name, *times, span.status.code, to_json(attributes).decode()

    def take(body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        spans = [span for group in request.resource_spans for scope in group.scope_spans for span in scope.spans]
        with connection:
            connection.executemany("insert into spans values (?, ?, ?, ?, ?, ?, ?, ?)", map(row, spans))

    yield take
    connection.close()


def child(rounds: int, batch: int) -> None:
    """Handle requests between marks. Print what was handled between each two of them."""
    slow_clocks()
    from bench_otlp_ingest import bodies

    requests = bodies((WARM + rounds * REQUESTS + 1) * batch, batch)
    told: list[str] = []
    for name, source in (("plain", plain), ("agentspan", agentspans)):
        with tempfile.TemporaryDirectory() as folder, source(folder) as take:
            gc.collect()  # as `agentspan serve` does
            gc.freeze()
            gc.set_threshold(20_000, 10, 10)
            for body in requests[:WARM]:
                take(body)
            for number in range(rounds):
                start = WARM + number * REQUESTS
                mark()
                for body in requests[start : start + REQUESTS]:
                    take(body)
                mark()
                told.append(name)
    print(json.dumps(told), flush=True)


def counted(python: str, rounds: int, batch: int) -> dict[str, float]:
    """Return the instructions of a span, by what handled it, with the agentspan of an interpreter: medians."""
    found: dict[str, list[float]] = {}
    command = (python, __file__, "--child", "--rounds", str(rounds), "--batch", str(batch))
    for name, instructions in turns(command, all_threads=True):
        found.setdefault(name, []).append(instructions / (REQUESTS * batch))
    return {name: statistics.median(values) for name, values in found.items()}


def main() -> None:
    """Count, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", help="an interpreter with another agentspan, to compare with")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=512, help="spans of a request, as OpenTelemetry's exporters send")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.rounds, options.batch)
        return
    found = counted(sys.executable, options.rounds, options.batch)
    base = counted(options.base, options.rounds, options.batch) if options.base else {}
    print(f"{'instructions of a span':<24}{'':>12}" + f"{'base':>12}{'ratio':>8}" * bool(base))
    for name, value in found.items():
        print(f"{name:<24}{value:>12,.0f}" + (f"{base[name]:>12,.0f}{value / base[name]:>8.3f}" if base else ""))
    print(verdict("a span over OTLP beside decoding and executemany", found["agentspan"] / found["plain"], 5))


if __name__ == "__main__":
    main()
