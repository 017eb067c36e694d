"""The time to read the view `spans` with nothing but sqlite3, beside the same payloads stored whole.

Each file has one run of 10,000 spans with 2 kB or more of payloads that no other span has: what costs most to put
together, and saves nothing. A second file has the same rows with their payloads in them. Both are read by turns, in
the order of the table; each figure is the processor time of the shortest turn, with that of the system.

With `--conversations` the run has the steps of real conversations instead, whose calls send all messages so far (see
replay.py for the form of the file).

    python benchmarks/bench_view.py [--spans 10000] [--turns 7] [--folder DIR] [--conversations FILE]
"""

import argparse
import itertools
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from measuring import machine, verdict
from replay import conversations, steps

import agentspan

WANTED = 1.5
COLUMNS = {"all columns": "*", "payloads": "payload, result_payload", "without payloads": "span, summary, error"}
WORDS = ["flight", "invoice", "refund", "customer", "please", "check", "order", "date", "policy", "agent", "number"]


def text(number: int, size: int) -> str:
    """Return about so many characters; they depend on the number only."""
    return f"{number}: {' '.join(random.Random(number).choices(WORDS, k=size // 7))}"


def messages(first: int, count: int, size: int) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[n % 2], "content": text(n, size)} for n in range(first, first + count)]


SHAPES: dict[str, Callable[[int], tuple[dict[str, Any], dict[str, Any]]]] = {
    "four messages": lambda n: ({"model": "m", "messages": messages(4 * n, 4, 480), "temperature": 0}, {"text": "a"}),
    "one message": lambda n: ({"model": "m", "messages": messages(n, 1, 2000)}, {"text": "a"}),
    "a long prompt": lambda n: ({"model": "m", "prompt": text(n, 2000)}, {"text": "a"}),
    "a long result": lambda n: ({"name": "search", "arguments": {"n": n}}, {"output": text(n, 2000)}),
    "a growing history": lambda n: ({"model": "m", "messages": messages(n - n % 20, n % 20 + 1, 200)}, {"text": "a"}),
    "messages and tools": lambda n: (
        {"model": "m", "messages": messages(4 * n, 4, 480), "tools": messages(-3, 3, 300)},
        {"text": "a"},
    ),
}


def made(tracer: agentspan.Tracer, spans: int, shape: Callable[[int], tuple[dict[str, Any], dict[str, Any]]]) -> None:
    """Record a run of one shape."""
    with tracer.run("bench"):
        for number in range(spans):
            payload, result = shape(number)
            with tracer.span("llm", payload) as span:
                span.set_result(result)


def real(tracer: agentspan.Tracer, spans: int, found: list[dict[str, Any]]) -> None:
    """Record conversations in one run, again and again; when they come again, each message says something else."""
    count = 0
    with tracer.run("bench"):
        for number in itertools.count():
            conversation = found[number % len(found)]
            again = f"{number // len(found)} " if number >= len(found) else ""
            messages = [{**each, "content": f"{again}{each['content'] or ''}"} for each in conversation["messages"]]
            count += steps(tracer, messages, whole=True)
            if count >= spans:
                return


def make(path: Path, record: Callable[[agentspan.Tracer], None]) -> Path:
    """Record a run; return the path of another file, with the same payloads whole."""
    tracer = agentspan.Tracer(path, raise_errors=True, enabled=True)
    record(tracer)
    while not tracer.flush(60.0):
        pass
    tracer.shutdown()
    other = path.with_name(f"whole-{path.name}")
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("vacuum into ?", (str(other),))
    connection.close()
    connection = sqlite3.connect(other, isolation_level=None)
    rows = connection.execute("select payload, result_payload, span from spans").fetchall()
    connection.execute("begin")
    connection.executemany("update agent_spans set payload = ?, result_payload = ?, contents = 0 where id = ?", rows)
    connection.execute("delete from contents")
    connection.execute("commit")
    connection.execute("vacuum")
    connection.close()
    return other


def read(connection: sqlite3.Connection, columns: str) -> float:
    """Return the processor time, in s, of reading all spans of the only run."""
    (run,) = connection.execute("select id from agent_instances").fetchone()
    began = time.process_time()
    for _ in connection.execute(f"select {columns} from spans where run = ?", (run,)):
        pass
    return time.process_time() - began


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spans", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where files lie (default: a temporary folder)")
    parser.add_argument("--conversations", type=Path, help="recorded runs, as for replay.py")
    options = parser.parse_args()
    print(machine())
    runs = {name: partial(made, spans=options.spans, shape=shape) for name, shape in SHAPES.items()}
    if options.conversations is not None:
        runs = {"conversations": partial(real, spans=options.spans, found=[*conversations(options.conversations)])}
    for name, record in runs.items():
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            path = Path(folder, "runs.db")
            files = [sqlite3.connect(each) for each in (path, make(path, record))]
            for label, columns in COLUMNS.items():
                turns = [[read(file, columns) for file in files] for _ in range(options.turns)]
                once, whole = (min(turn[file] for turn in turns) * 1000 for file in (0, 1))
                row = f"{name:<20}{label:<18}{once:>7.0f} ms{whole:>7.0f} ms"
                print(verdict(row, once / whole, WANTED))
            for file in files:
                file.close()


if __name__ == "__main__":
    main()
