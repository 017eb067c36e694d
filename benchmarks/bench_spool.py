"""Records through a journal, with PostgreSQL behind it and with a file: what a call costs, and how fast it is drained.

A decorated function is called as fast as one thread can; then `flush` moves what the journal has. In one form all
spans are in one run, in the other each run has 20. Each turn has a process of its own and an empty file or schema, and
the contestants alternate. `drained` is measured from the first call until all is stored: where a file is behind, calls
that begin runs drain a part. The processor's time of that is the process's and its server processes' (Linux). Without
--url, a server is started on loopback, without fsync, as for the tests.

    python benchmarks/bench_spool.py [--spans 100000] [--rounds 5] [--url postgresql://…/DATABASE]
"""

import argparse
import itertools
import json
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from bench_postgres import Clock, server
from measuring import OUTPUT, QUERY, bar, machine, medians, turn, verdict

import agentspan

SHORT = 20
"""Spans of a run in the second form."""


def record(db: str, spans: int, of_a_run: int) -> dict[str, float]:
    """Record and drain in this process; return seconds."""
    tracer = agentspan.Tracer(db, raise_errors=True, enabled=True)

    @tracer.span("tool")
    def search(query: str) -> str:
        return OUTPUT

    def runs(number: int) -> None:
        for _ in range(number):
            with tracer.run("bench", version="1"):
                for _ in range(of_a_run):
                    search(QUERY)

    runs(max(1, 200 // of_a_run))
    while not tracer.flush(60.0):
        pass
    with ExitStack() as stack:
        clock = Clock(db) if db.startswith("postgres") else None
        if clock is not None:
            stack.callback(clock.close)
        figures: dict[str, float] = {}

        def all_of_it() -> None:
            cpu, began = time.thread_time(), time.perf_counter()
            runs(spans // of_a_run)
            figures["call"], figures["call_cpu"] = time.perf_counter() - began, time.thread_time() - cpu
            figures["spooled"] = tracer.health().spooled_bytes
            while not tracer.flush(60.0):
                pass

        if clock is not None:
            stored, stored_cpu = clock.of(all_of_it)
        else:
            cpu, began = time.process_time(), time.perf_counter()
            all_of_it()
            stored, stored_cpu = time.perf_counter() - began, time.process_time() - cpu
    health = tracer.health()
    assert (health.failed, health.waiting, health.refused, health.spooled_bytes) == (0, 0, 0, 0), health
    tracer.shutdown()
    return {**figures, "stored": stored, "stored_cpu": stored_cpu}


def measure(url: str, spans: int, rounds: int) -> None:
    """Measure both forms, and print them."""
    print(machine())
    base = url.partition("?")[0]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_STATE_HOME"] = folder
        for form, of_a_run in (("one run", spans), (f"runs of {SHORT}", SHORT)):
            turns: dict[str, list[dict[str, float]]] = {"PostgreSQL": [], "a file": []}
            with bar(itertools.product(range(rounds), turns), form) as steps:
                for number, name in steps:
                    file = str(Path(folder) / f"{of_a_run}-{number}.db")
                    schema = f"{base}?schema=turn_{of_a_run}_{number}"
                    db = schema if name == "PostgreSQL" else file
                    turns[name].append(turn(__file__, "--db", db, "--spans", spans, "--of-a-run", of_a_run))
            found = {name: medians(each) for name, each in turns.items()}
            for name, each in found.items():
                micros = {what: seconds / spans * 1e6 for what, seconds in each.items()}
                print(
                    f"{form}, {name}: a call {micros['call']:.1f} µs, processor {micros['call_cpu']:.1f}; recorded and "
                    f"drained in {micros['stored']:.0f} µs a span, processor {micros['stored_cpu']:.0f}; "
                    f"{each['spooled'] / 2**20:.0f} MiB were in the journal"
                )
            server_, file_ = found["PostgreSQL"], found["a file"]
            for what, name in (("call", "the clock"), ("call_cpu", "processor time")):
                print(verdict(f"{form}: a call / with a file, by {name}", server_[what] / file_[what], 1.05))
            for what, name in (("stored", "the clock"), ("stored_cpu", "processor time")):
                ratio = file_[what] / server_[what]
                print(verdict(f"{form}: drained / with a file, speed by {name}", ratio, 0.8, at_least=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="of a database in which schemas may be made")
    parser.add_argument("--spans", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--db", help=argparse.SUPPRESS)
    parser.add_argument("--of-a-run", type=int, default=SHORT, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.db:
        print(json.dumps(record(options.db, options.spans, options.of_a_run)))
        return
    with server(options.url) as url:
        measure(url, options.spans, options.rounds)


if __name__ == "__main__":
    main()
