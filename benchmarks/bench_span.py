"""What a recorded call costs its caller, beside two bare sqlite3 transactions that do the same INSERT and UPDATE.

All contestants take turns of 100 spans, in rotating order, each on a file of its own in the same folder, so they
meet the same machine and the same disk. The bare ones are given finished rows: no ids, no JSON, no schema check, no
summary; WAL and synchronous=NORMAL, all else as SQLite has it (a checkpoint every 4 MB, where agentspan waits for 32).

    python benchmarks/bench_span.py [--spans 4000] [--rounds 5] [--folder DIR]
"""

import argparse
import platform
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import agentspan
from agentspan import ids
from agentspan.model.rows import AgentSpanRow

QUERY, OUTPUT = "x" * 250, "y" * 280
FINISHED = (
    "status",
    "result_payload",
    "summary",
    "finished_at",
    "duration_ms",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "updated_at",
)
TURN = 100
BARE = "two transactions, BEGIN … COMMIT"
BARE_AUTO = "two transactions, autocommit"


class Bare:
    """Writes rows like the ones that agentspan writes, with nothing around them."""

    def __init__(self, path: Path) -> None:
        tracer = agentspan.Tracer(path)  # makes the tables, and one span to write again and again
        with tracer.run("bench"), tracer.span("tool", {"name": "search", "arguments": {"query": QUERY}}) as span:
            span.set_result({"output": OUTPUT})
        tracer.shutdown()
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("pragma synchronous = normal")
        self.connection.execute("pragma foreign_keys = on")
        fields = ", ".join(AgentSpanRow._fields)
        self.row = AgentSpanRow(*self.connection.execute(f"select {fields} from agent_spans").fetchone())
        self.insert = f"insert into agent_spans ({fields}) values ({', '.join('?' * len(self.row))})"
        values = ", ".join(f"{column} = ?" for column in FINISHED)
        self.update = f"update agent_spans set {values} where id = ? and status in ('active')"
        self.ids = ids.IdSource(ids.decode(self.row.id)[1])

    def statements(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """The values of the next INSERT and UPDATE."""
        id = self.ids.new()
        active = self.row._replace(
            id=id, **{**dict.fromkeys(FINISHED), "status": "active", "updated_at": self.row.inserted_at}
        )
        return tuple(active), (*(getattr(self.row, column) for column in FINISHED), id)


def contestants(folder: Path) -> dict[str, Callable[[], float]]:
    """Each records one span and returns the seconds that its caller spent."""
    clock = time.perf_counter
    tracer = agentspan.Tracer(folder / "decorator.db", raise_errors=True)
    blocks = agentspan.Tracer(folder / "block.db", raise_errors=True)
    explicit, auto = Bare(folder / "bare.db"), Bare(folder / "auto.db")
    tracer.run("bench").__enter__()
    blocks.run("bench").__enter__()

    @tracer.span("tool")
    def search(query: str) -> str:
        return OUTPUT

    def decorated() -> float:
        began = clock()
        search(QUERY)
        return clock() - began

    def block() -> float:
        began = clock()
        with blocks.span("tool", {"name": "search", "arguments": {"query": QUERY}}) as span:
            span.set_result({"output": OUTPUT})
        return clock() - began

    def bare() -> float:
        row, values = explicit.statements()
        execute = explicit.connection.execute
        began = clock()
        execute("begin immediate")
        execute(explicit.insert, row)
        execute("commit")
        execute("begin immediate")
        execute(explicit.update, values)
        execute("commit")
        return clock() - began

    def bare_auto() -> float:
        row, values = auto.statements()
        execute = auto.connection.execute
        began = clock()
        execute(auto.insert, row)
        execute(auto.update, values)
        return clock() - began

    return {"agentspan, @span": decorated, "agentspan, with span": block, BARE: bare, BARE_AUTO: bare_auto}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spans", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where the files lie; a temporary folder when left out")
    options = parser.parse_args()
    print(
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        f"{options.spans} spans × {options.rounds} rounds"
    )
    means: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            runners = contestants(Path(folder))
            times: dict[str, list[float]] = {name: [] for name in runners}
            turns = list(runners.items())
            for _ in range(options.spans // TURN):
                for name, runner in turns:
                    times[name] += [runner() for _ in range(TURN)]
                turns.append(turns.pop(0))
            for name, values in times.items():
                means.setdefault(name, []).append(statistics.mean(values) * 1e6)
                last = times
    print(f"{'caller, per span':<36}{'mean':>9}{'median':>9}{'p99':>9}{'/ BEGIN':>9}{'/ auto':>9}")
    bare, auto = statistics.median(means[BARE]), statistics.median(means[BARE_AUTO])
    for name, values in means.items():
        mean = statistics.median(values)
        ordered = sorted(last[name])
        median, p99 = ordered[len(ordered) // 2] * 1e6, ordered[len(ordered) * 99 // 100] * 1e6
        print(f"{name:<36}{mean:6.1f} µs{median:6.1f} µs{p99:6.1f} µs{mean / bare:8.2f}×{mean / auto:8.2f}×")


if __name__ == "__main__":
    main()
