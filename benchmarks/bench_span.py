"""What a recorded call costs its caller, in µs, beside OpenTelemetry's SDK and beside two bare sqlite3 transactions.

First, every contestant records the same spans (a query of 250 characters in, an output of 280 out) in a process of its
own, so that nobody's background threads disturb another, in rotating order, round by round. OpenTelemetry has its
BatchSpanProcessor with all defaults and an exporter that throws spans away. An attribute is a text or a number, so what
goes in and what comes out are set as JSON, as the instrumentation libraries for agents do: by a decorator, or in a
with-block. `two texts` are both texts as they are, without names and without JSON: less than the others record. The
floor is what cannot be saved: an id, two texts encoded as JSON, two records appended to mapped memory. How many spans
are kept says what each has at the end: the batch processor drops what its queue cannot take. `cpu` is what the calling
thread used of a processor, which says more than the mean does while other programs run.

Then `durability="commit"` and bare sqlite3 take turns of 500 spans in one process, each on a file of its own. The
bare ones are given finished rows: no ids, no JSON, no schema check, no summary; WAL and synchronous=NORMAL, all else as
SQLite has it (a checkpoint every 4 MB, where agentspan waits for 32). One has agentspan's checkpoints, in a thread; no
turn begins before those of the one before it are done.

    pip install "agentspan-sqlite[bench]"
    python benchmarks/bench_span.py [--spans 100000] [--rounds 5] [--folder DIR] [--only NAME] [--skip-commits]
"""

import argparse
import functools
import json
import mmap
import sqlite3
import statistics
import struct
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from measuring import OUTPUT, PAYLOAD, QUERY, RESULT, bar, machine, medians, turn, verdict
from pydantic_core import to_json

import agentspan
from agentspan import ids
from agentspan.model.rows import AgentSpanRow
from agentspan.model.spans import FINISHED
from agentspan.storage.sqlite.driver import MAX_FRAMES, Checkpoints
from agentspan.storage.sqlite.file_guard import FileGuard
from agentspan.tuning import STANDARD

OTEL = {"@span": "OpenTelemetry @span", "with span": "OpenTelemetry with span"}
OTEL_TEXTS = "OpenTelemetry, two texts"
FLOOR = "floor: id, encode, append"
COMMIT_SHARE = 5
"""Where each call commits, a round has so many times fewer spans."""
WARM_UP = 1000

TURN = 500
BARE = "two transactions, BEGIN … COMMIT"
BARE_AUTO = "two transactions, autocommit"
BARE_THREAD = "two, checkpoints in a thread"


class Contestant(NamedTuple):
    """Records a span at each call of `one`; `kept` says at the end how many are there."""

    one: Callable[[], object]
    kept: Callable[[], int]


def decorated(tracer: agentspan.Tracer) -> Contestant:
    @tracer.span("tool")
    def search(query: str) -> str:
        return OUTPUT

    def one() -> None:
        search(QUERY)

    return Contestant(one, lambda: _kept(tracer))


def block(tracer: agentspan.Tracer) -> Contestant:
    def one() -> None:
        with tracer.span("tool", {"name": "search", "arguments": {"query": QUERY}}) as span:
            span.set_result({"output": OUTPUT})

    return Contestant(one, lambda: _kept(tracer))


def _kept(tracer: agentspan.Tracer) -> int:
    """Return how many spans are in the file; a span is two transitions, and the run began with one."""
    if not tracer.enabled or not tracer.flush(600.0):
        return 0
    return (tracer.health().recorded - 1) // 2


def opentelemetry(shape: Callable[[Any], Callable[[], object]]) -> Callable[[Path], Contestant]:
    def start(path: Path) -> Contestant:
        try:
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
        except ImportError:
            sys.exit('OpenTelemetry is missing: pip install "agentspan-sqlite[bench]", or leave it out with --only')
        exported = []

        class Nowhere(SpanExporter):  # type: ignore[misc, unused-ignore]  # Any, without the extra
            def export(self, spans: Any) -> SpanExportResult:
                exported.append(len(spans))
                return SpanExportResult.SUCCESS

        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(Nowhere()))
        tracer = provider.get_tracer("bench")
        tracer.start_as_current_span("bench").__enter__()

        def kept() -> int:
            provider.shutdown()
            return sum(exported)

        return Contestant(shape(tracer), kept)

    return start


def otel_decorated(tracer: Any) -> Callable[[], object]:
    def traced(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def call(*args: Any, **kwargs: Any) -> Any:
            with tracer.start_as_current_span(fn.__name__) as span:
                span.set_attribute("input.value", json.dumps({"args": args, "kwargs": kwargs}))
                value = fn(*args, **kwargs)
                span.set_attribute("output.value", json.dumps(value))
                return value

        return call

    @traced
    def search(query: str) -> str:
        return OUTPUT

    return lambda: search(QUERY)


def otel_block(tracer: Any) -> Callable[[], object]:
    def one() -> None:
        with tracer.start_as_current_span("search") as span:
            span.set_attribute("input.value", json.dumps({"name": "search", "arguments": {"query": QUERY}}))
            span.set_attribute("output.value", json.dumps({"output": OUTPUT}))

    return one


def otel_texts(tracer: Any) -> Callable[[], object]:
    def one() -> None:
        with tracer.start_as_current_span("search") as span:
            span.set_attribute("input.value", QUERY)
            span.set_attribute("output.value", OUTPUT)

    return one


def floor(path: Path) -> Contestant:
    size, head = 8 * 2**20, struct.Struct("<4sIQI")
    with path.open("w+b") as file:
        file.write(bytes(size))
        file.flush()
        memory = mmap.mmap(file.fileno(), size)
    source, end, sequence = ids.IdSource(0), 0, 0

    def append(body: bytes) -> None:
        nonlocal end, sequence
        length = len(body) + head.size
        if end + length > size:
            end = 0
        sequence += 1
        memory[end : end + length] = head.pack(b"span", len(body), sequence, crc32(body)) + body
        end += length

    def one() -> None:
        id = source.new().encode()
        append(id + to_json(PAYLOAD))
        append(id + to_json(RESULT))

    return Contestant(one, lambda: sequence // 2)


def recorder(shape: Callable[[agentspan.Tracer], Contestant], **settings: Any) -> Callable[[Path], Contestant]:
    def start(path: Path) -> Contestant:
        tracer = agentspan.Tracer(path, **settings)  # not raise_errors: on a busy disk a commit may have to wait
        tracer.run("bench").__enter__()
        return shape(tracer)

    return start


CONTESTANTS: dict[str, Callable[[Path], Contestant]] = {
    OTEL["@span"]: opentelemetry(otel_decorated),
    OTEL["with span"]: opentelemetry(otel_block),
    OTEL_TEXTS: opentelemetry(otel_texts),
    "journal @span": recorder(decorated, enabled=True),
    "journal with span": recorder(block, enabled=True),
    "journal redact=None @span": recorder(decorated, enabled=True, redact=None),
    "journal redact=None with span": recorder(block, enabled=True, redact=None),
    "commit @span": recorder(decorated, enabled=True, durability="commit"),
    "commit with span": recorder(block, enabled=True, durability="commit"),
    "commit redact=None @span": recorder(decorated, enabled=True, durability="commit", redact=None),
    "disabled @span": recorder(decorated, enabled=False),
    "disabled with span": recorder(block, enabled=False),
    FLOOR: floor,
}


def measure(name: str, spans: int, folder: str) -> dict[str, float]:
    """Record with one contestant, in this process; the figures of a call, and what two looks at the clock cost."""
    clock = time.perf_counter_ns
    one, kept = CONTESTANTS[name](Path(folder) / "bench.db")
    for _ in range(WARM_UP):
        one()
    times = array("Q", bytes(8 * spans))
    processor = time.thread_time_ns()
    for i in range(spans):
        began = clock()
        one()
        times[i] = clock() - began
    processor = time.thread_time_ns() - processor
    in_order = sorted(times)
    return {
        "mean": sum(times) / spans / 1000,
        "median": in_order[spans // 2] / 1000,
        "p99": in_order[spans * 99 // 100] / 1000,
        "cpu": processor / spans / 1000,
        "kept": 100 * kept() / (spans + WARM_UP),
    }


def compare(names: list[str], spans: int, rounds: int, folder: str | None) -> dict[str, dict[str, float]]:
    """Let contestants take turns, and return the medians of their figures."""
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    order = [(round_, name) for round_ in range(rounds) for name in names[round_ % len(names) :] + names]
    order = list(dict.fromkeys(order))
    with bar(order, f"{spans} spans each") as steps:
        for _, name in steps:
            number = spans // COMMIT_SHARE if name.startswith("commit") else spans
            with tempfile.TemporaryDirectory(dir=folder) as own:
                turns[name].append(turn(__file__, "--one", name, "--spans", number, "--folder", own))
    return {name: medians(each) for name, each in turns.items()}


def report(figures: dict[str, dict[str, float]]) -> None:
    def ratio(each: dict[str, float], other: str) -> str:
        return f"{each['mean'] / figures[other]['mean']:8.2f}×" if other in figures else f"{'':>9}"

    print(
        f"\n{'caller, per span':<32}{'mean':>9}{'median':>9}{'p99':>9}{'cpu':>9}{'kept':>7}{'/ OTel':>9}{'/ texts':>9}"
    )
    for name, each in figures.items():
        times = "".join(f"{each[figure]:6.1f} µs" for figure in ("mean", "median", "p99", "cpu"))
        other = OTEL["with span" if name.endswith("with span") else "@span"]
        print(f"{name:<32}{times}{each['kept']:5.0f} %{ratio(each, other)}{ratio(each, OTEL_TEXTS)}")
    print()
    for name, bound in (("journal", 0.5), ("journal redact=None", 0.35)):
        for shape, other in OTEL.items():
            ours = figures.get(f"{name} {shape}")
            if ours and other in figures:
                print(verdict(f"{name} {shape} / {other}, mean", ours["mean"] / figures[other]["mean"], bound))
            if ours and name == "journal":
                print(verdict(f"{name} {shape}, p99", ours["p99"], 60, "µs"))
    if "disabled @span" in figures:
        print(verdict("disabled @span, median", figures["disabled @span"]["median"], 0.5, "µs"))


class Bare:
    """Writes rows like the ones that agentspan writes, with nothing around them."""

    def __init__(self, path: Path) -> None:
        tracer = agentspan.Tracer(path, durability="commit")  # makes the tables, and a span to write again and again
        with tracer.run("bench"), tracer.span("tool", PAYLOAD) as span:
            span.set_result(RESULT)
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
        unfinished: dict[str, Any] = dict.fromkeys(FINISHED)
        unfinished |= {"status": "active", "updated_at": self.row.inserted_at}
        active = self.row._replace(id=id, **unfinished)
        return tuple(active), (*(getattr(self.row, column) for column in FINISHED), id)


@contextmanager
def committing(folder: Path) -> Iterator[dict[str, Callable[[], float]]]:
    """Those that commit each transition: each records one span and returns the seconds that its caller spent."""
    clock = time.perf_counter
    explicit, auto, third = (Bare(folder / f"{name}.db") for name in ("bare", "auto", "thread"))
    third.connection.execute(f"pragma wal_autocheckpoint = {MAX_FRAMES}")
    lock = threading.Lock()
    path = folder / "thread.db"
    tuning = STANDARD._replace(sync_every_s=None)
    guard = FileGuard(
        path, read_only=False, connect=lambda _: sqlite3.connect(path, isolation_level=None), take_out=list
    )
    checkpoints = Checkpoints(guard, lock, tuning)
    shapes = {
        f"commit {name}": recorder(shape, enabled=True, durability="commit")(folder / f"{name}.db").one
        for name, shape in (("@span", decorated), ("with span", block))
    }

    def timed(one: Callable[[], object]) -> Callable[[], float]:
        def record() -> float:
            began = clock()
            one()
            return clock() - began

        return record

    def bare(one: Bare = explicit) -> float:
        row, values = one.statements()
        execute = one.connection.execute
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

    def bare_thread() -> float:
        with lock:
            elapsed = bare(third)
            began = clock()
            checkpoints.committed(1)
            checkpoints.committed(1)
            elapsed += clock() - began
        return elapsed

    with closing(explicit.connection), closing(auto.connection), closing(third.connection):
        yield {
            **{name: timed(one) for name, one in shapes.items()},
            BARE: bare,
            BARE_AUTO: bare_auto,
            BARE_THREAD: bare_thread,
        }
        checkpoints.wait()


def compare_commits(spans: int, rounds: int, folder: str | None) -> dict[str, dict[str, float]]:
    """Let those that commit take short turns in this process, and return the medians of their figures."""
    figures: dict[str, list[dict[str, float]]] = {}
    with bar(range(rounds), f"{spans} spans each, short turns") as steps:
        for _ in steps:
            with tempfile.TemporaryDirectory(dir=folder) as own, committing(Path(own)) as runners:
                turns = list(runners.items())
                times: dict[str, list[float]] = {name: [] for name, _ in turns}
                for _ in range(max(1, spans // TURN)):
                    for name, one in turns:
                        times[name] += [one() * 1e6 for _ in range(TURN)]
                        _rest()
                    turns.append(turns.pop(0))
            for name, values in times.items():
                values.sort()
                shares = {"median": 500, "p99": 990, "p99.9": 999}
                marks = {mark: values[len(values) * share // 1000] for mark, share in shares.items()}
                figures.setdefault(name, []).append({"mean": statistics.mean(values), **marks})
    return {name: medians(each) for name, each in figures.items()}


def _rest() -> None:
    """Wait for checkpoints: they would disturb the next one's turn."""
    for thread in threading.enumerate():
        if thread.name == "agentspan-checkpoint":
            thread.join()


def report_commits(figures: dict[str, dict[str, float]]) -> None:
    bare, auto = figures[BARE]["mean"], figures[BARE_AUTO]["mean"]
    marks = "".join(f"{mark:>9}" for mark in ("mean", "median", "p99", "p99.9", "/ BEGIN", "/ auto"))
    print(f"\n{'caller, per span, short turns':<34}{marks}")
    for name, each in figures.items():
        times = "".join(f"{each[figure]:6.1f} µs" for figure in ("mean", "median", "p99"))
        times += f"{each['p99.9']:6.0f} µs"
        print(f"{name:<34}{times}{each['mean'] / bare:8.2f}×{each['mean'] / auto:8.2f}×")
    print()
    for name in ("commit @span", "commit with span"):
        print(verdict(f"{name} / two transactions, mean", figures[name]["mean"] / bare, 1.4))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spans", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where the files lie; a temporary folder when left out")
    parser.add_argument("--only", action="append", help="contestants whose names begin so; may be given several times")
    parser.add_argument("--skip-commits", action="store_true", help="leave out the short turns of those that commit")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.spans, options.folder)))
        return
    print(f"{machine()}\nmedians of {options.rounds} rounds")
    names = [name for name in CONTESTANTS if name.startswith(tuple(options.only or [""]))]
    if names:
        report(compare(names, options.spans, options.rounds, options.folder))
    if not options.skip_commits:
        report_commits(compare_commits(max(TURN, options.spans // 10), options.rounds, options.folder))


if __name__ == "__main__":
    main()
