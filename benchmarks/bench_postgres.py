"""Measures PostgreSQL beside bare psycopg and beside a file, and readings among many spans.

One run measures, by turns: a finish of one span in a commit of its own, beside the same statement by psycopg alone;
spans in batches of 500, beside a COPY of the same rows in the same batches; a run of 10,000 spans, read from PostgreSQL
and from a file; then, among N spans, the list of runs, statistics with percentiles, and searches, the first of which
fill the index. Times are medians; the processor's time is that of this process and of its server processes (Linux, a
server on this machine). Without --url, a server is started on loopback, without fsync, as for the tests.

    python benchmarks/bench_postgres.py [--spans 1000000] [--rounds 5] [--large 10000] [--url postgresql://…?schema=NAME]
"""

import argparse
import contextlib
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import psycopg
from make_runs import LARGE, Maker
from measuring import bar, machine, verdict

from agentspan.analysis.runs import find_runs, stats
from agentspan.analysis.search import search
from agentspan.model.changes import OPEN, Move, Put, PutSpans, Unit
from agentspan.model.rows import AgentSpanRow
from agentspan.storage.postgres import statements
from agentspan.storage.postgres.connection import register
from agentspan.storage.postgres.writes import moving
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import RunFilter, SpansOf
from agentspan.storage.registry import open_direct

BATCH = 500
FINISHES = 10
"""Finishes for each batch that is stored."""
SEARCHES = {
    "a code that one span has": "r0000017",
    "a word of most spans": "flight",
    "two adjacent words": '"seat upgrade"',
    "three adjacent words": '"flight booking reservation"',
}


@contextlib.contextmanager
def server(url: str | None) -> Iterator[str]:
    """Yield a URL with a schema of its own."""
    if url is not None:
        yield url
        return
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from tests import postgres

    postgres.SETTINGS |= {"shared_buffers": "512MB", "max_wal_size": "4GB"}
    del postgres.SETTINGS["max_parallel_workers_per_gather"]  # as PostgreSQL is by default
    with postgres.server() as started:
        yield f"{started}?schema=bench"


class Clock:
    """Measures wall-clock time, and the processor's time of this process and of the server's processes for it."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url.partition("?schema")[0], autocommit=True)

    def _cpu(self) -> float:
        pids = "select pid from pg_stat_activity where application_name in ('agentspan', 'bare')"
        ticks = 0
        for (pid,) in self._connection.execute(pids):
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / 100 + time.process_time()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def of(self, work: Callable[[], object]) -> tuple[float, float]:
        """Return the seconds that a function takes: by the wall's clock, and of the processor."""
        before, began = self._cpu(), time.perf_counter()
        work()
        took = time.perf_counter() - began
        return took, self._cpu() - before


def fill(storage: Storage, spans: int, *, large: int) -> str:
    """Store a run of `large` spans among others of some; return its id."""
    maker = Maker(storage, 1)
    sizes = [large]
    while sum(sizes) < spans:
        sizes.append(maker.random.randrange(10, 60))
    maker.random.shuffle(sizes)
    found = ""
    with bar(sizes, f"{sum(sizes):,} spans") as steps:
        waiting: list[Unit] = []
        for size in steps:
            run, *rows = cast(Any, maker.run(size))
            waiting += (Unit((Put(run, minted=True),)), Unit((PutSpans(rows),)))
            found = run.id if size == large else found
            if len(waiting) >= 400 or size == large:
                storage.apply(waiting, wait_s=60)
                waiting.clear()
        storage.apply(waiting, wait_s=60)
    return found


class Writes:
    """Finishes and batches: agentspan's, and those of psycopg alone, in the same run."""

    def __init__(self, url: str, storage: Storage, number: int) -> None:
        self.batches_of_a_turn = number
        base, _, schema = url.partition("?schema=")
        self._storage = storage
        options = f"-csearch_path={schema} -ctimezone=UTC"
        self._bare = psycopg.connect(base, autocommit=True, options=options, application_name="bare")
        register(self._bare.adapters)
        self._maker = Maker(storage, 2)
        self._run, self._span = cast(Any, self._maker.run(1))
        storage.apply([Unit((Put(self._run),))])

    def close(self) -> None:
        """Close the connection."""
        self._bare.close()

    def rows(self, number: int, status: str) -> list[AgentSpanRow]:
        """Make spans with new ids."""
        return [self._span._replace(id=self._maker.ids.new(), status=status) for _ in range(number)]

    def finishes(self) -> tuple[float, float]:
        """Return the median of a finish in seconds, of agentspan and of psycopg, by turns."""
        rows = self.rows(2 * FINISHES * self.batches_of_a_turn, "active")
        self._storage.apply([Unit((PutSpans(rows),))])
        took: tuple[list[float], list[float]] = [], []
        for number, row in enumerate(rows):
            values = {"status": "complete", "result_payload": self._span.result_payload, "duration_ms": 3.5}
            move = Move("agent_span", row.id, OPEN, values, instance_id=row.agent_instance_id)
            unit, statement = Unit((move,)), moving(move)
            assert statement is not None
            began = time.perf_counter()
            if number % 2:
                self._bare.execute(*statement, binary=True).fetchall()
            else:
                self._storage.apply([unit])
            took[number % 2].append(time.perf_counter() - began)
        return statistics.median(took[0]), statistics.median(took[1])

    def batches(self) -> None:
        """Store batches of finished spans by agentspan."""
        for _ in range(self.batches_of_a_turn):
            self._storage.apply([Unit((PutSpans(self.rows(BATCH, "complete")),))])

    def copies(self) -> None:
        """Store as many by COPY."""
        for _ in range(self.batches_of_a_turn):
            rows = self.rows(BATCH, "complete")
            with self._bare.transaction(), self._bare.cursor().copy(statements.copy("finished_spans")) as copy:
                for row in rows:
                    copy.write_row(row)


def median(turns: list[tuple[float, float]]) -> tuple[float, float]:
    walls, processors = zip(*turns, strict=True)
    return statistics.median(walls), statistics.median(processors)


def measure(url: str, spans: int, rounds: int, large: int, batches: int) -> None:
    """Measure everything, and print it."""
    print(machine())
    storage, clock = open_direct(url), Clock(url)
    writes = Writes(url, storage, batches)
    stored = batches * BATCH
    finishes = [writes.finishes() for _ in range(rounds)]
    own, bare = (statistics.median(each) * 1000 for each in zip(*finishes, strict=True))
    print(f"a finish: {own:.2f} ms, psycopg alone {bare:.2f} ms")
    print(verdict("a finish, median / psycopg alone", own / bare, 1.5))
    of = {"batches": writes.batches, "copies": writes.copies}
    turns: dict[str, list[tuple[float, float]]] = {name: [] for name in of}
    for _, name in itertools.product(range(rounds), of):
        turns[name].append(clock.of(of[name]))
    for name in of:
        wall, cpu = median(turns[name])
        each = cpu / stored * 1e6
        print(f"{name} of {BATCH}: {stored / wall:,.0f} spans/s, {each:.0f} µs of the processor a span")
    for number, what in enumerate(("wall", "cpu")):
        ratio = median(turns["copies"])[number] / median(turns["batches"])[number]
        print(verdict(f"batches / a bare COPY, speed by {what}", ratio, 0.8, at_least=True))

    with tempfile.TemporaryDirectory() as folder:
        file = open_direct(Path(folder) / "runs.db")
        runs = {
            "a file": (file, fill(file, large, large=large)),
            "PostgreSQL": (storage, fill(storage, spans, large=large)),
        }
        read: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
        for _, name in itertools.product(range(rounds), runs):
            whole = partial(_read, *runs[name])
            read[name].append(clock.of(whole))
        for name, took in read.items():
            print(f"a run of {large:,} spans from {name}: {median(took)[0]:.2f} s, cpu {median(took)[1]:.2f} s")
        for number, what in enumerate(("wall", "cpu")):
            ratio = median(read["PostgreSQL"])[number] / max(median(read["a file"])[number], 1e-3)
            print(verdict(f"a run of {large:,} spans / from a file, by {what}", ratio, 2))
        file.close()
    readings(storage, clock, rounds)
    for opened in (storage, clock, writes):
        opened.close()


def _read(storage: Storage, run: str) -> int:
    return sum(1 for _ in storage.ask(SpansOf(run)))


def readings(storage: Storage, clock: Clock, rounds: int) -> None:
    """Measure what is answered from the index."""
    asked: dict[str, Callable[[], object]] = {
        "runs": lambda: find_runs(storage),
        "runs by cost": lambda: find_runs(storage, sort="cost"),
        "failed runs": lambda: find_runs(storage, RunFilter(failed=True)),
        "stats with percentiles": lambda: stats(storage),
    }
    for what, words in SEARCHES.items():
        asked[f"search: {what}"] = partial(search, storage, words)
    for name in ("runs", next(name for name in asked if name.startswith("search"))):
        wall, cpu = clock.of(asked[name])
        print(f"the first {name.partition(':')[0]} fills the index: {wall:.0f} s, cpu {cpu:.0f} s")
    found = find_runs(storage, limit=0)
    print(f"{found.totals.spans:,} spans in {found.total:,} runs")
    for name, ask in asked.items():
        wall, cpu = median([clock.of(ask) for _ in range(rounds)])
        print(verdict(f"{name} (cpu {cpu:.2f} s)", wall, 1, "s"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="of an empty schema, as postgresql://HOST/DATABASE?schema=NAME")
    parser.add_argument("--spans", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large", type=int, default=LARGE, help="spans of the run that is read whole")
    parser.add_argument("--batches", type=int, default=60, help="that are stored in a turn")
    options = parser.parse_args()
    with server(options.url) as url:
        measure(url, options.spans, options.rounds, options.large, options.batches)


if __name__ == "__main__":
    main()
