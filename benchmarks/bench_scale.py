"""What recording and reading cost when the file has many spans already.

Makes a file for each size, by `executemany` into agentspan's own tables: one run with a tree of 10,000 spans, then as
many spans as the size says, in runs of 1,000. Then the files take turns, each in a process of its own: spans are
recorded until they are in the file, in journal mode and in commit mode; pages of 100 spans of random runs, and of
the tree's run, are read by `Database.agent_spans.list`, with and without a time range; so are pages of all spans of the
agent, at any offset; the whole tree is read and built. What is recorded stays: the smaller files grow by it. A file of
5,000,000 spans takes 7.5 GB, and is in the page cache if there is room for it.

    python benchmarks/bench_scale.py [--sizes 10000,100000,1000000,5000000] [--spans 10000] [--rounds 5] [--folder DIR]
"""

import argparse
import json
import os
import random
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from measuring import OUTPUT, PAYLOAD, QUERY, RESULT, bar, machine, medians, turn, verdict

import agentspan
from agentspan import clock, ids
from agentspan.analysis import tree
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.storage.questions import SpansOf

SIZES = "10000,100000,1000000,5000000"
TREE = 10_000
FAN = 10
RUN = 1000
PORTION = 50_000
PAGE = 100
PAGES = 50
WARM_UP = 200
COMMIT_SHARE = 5
FIRST_NS = 1_700_000_000 * 10**9
STEP_NS = 10**9
"""The first span of the runs starts at that time; they start one after the other at this distance."""
BOUNDS = ("start_time", "end_time")
MILLISECONDS = (
    "page", "slowest page", "page in time", "first of agent", "agent's page", "agent's newest", "first in time",
    "agent in time",
    "tree's page", "tree",
)  # fmt: skip
BASE, MILLION = 100_000, 1_000_000


class Maker:
    """Fills a file with copies of one run and one span that agentspan wrote."""

    def __init__(self, path: Path) -> None:
        tracer = agentspan.Tracer(path, durability="commit", enabled=True)
        with tracer.run("bench"), tracer.span("tool", PAYLOAD) as span:
            span.set_result(RESULT)
        tracer.shutdown()
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("pragma synchronous = off")
        self._connection.execute("pragma journal_mode = wal")
        self._instance = AgentInstanceRow(*self._first(AgentInstanceRow, "agent_instances"))
        self._span = AgentSpanRow(*self._first(AgentSpanRow, "agent_spans"))
        self._ids = ids.IdSource(ids.decode(self._span.id)[1])
        self._left = 0
        self.run = ""
        self.spans = 0

    def _first(self, row: Any, table: str) -> Any:
        return self._connection.execute(f"select {', '.join(row._fields)} from {table}").fetchone()

    def _put(self, row: Any, table: str, rows: Iterator[Any]) -> None:
        marks = ", ".join("?" * len(row._fields))
        self._connection.executemany(f"insert into {table} ({', '.join(row._fields)}) values ({marks})", rows)

    def begin_run(self) -> None:
        self.run = self._ids.new()
        self._put(AgentInstanceRow, "agent_instances", iter([self._instance._replace(id=self.run)]))

    def tree(self) -> str:
        """Write the run with the tree; every span has ten children, as far as they go."""
        self.begin_run()
        names = [self._ids.new() for _ in range(TREE)]
        rows = (
            self._span._replace(
                id=name, agent_instance_id=self.run, parent_span_id=names[(i - 1) // FAN] if i else None
            )
            for i, name in enumerate(names)
        )
        self._connection.execute("begin")
        self._put(AgentSpanRow, "agent_spans", rows)
        self._connection.execute("commit")
        return self.run

    def fill(self, number: int) -> None:
        """Write spans, a new run for every so many of them."""
        self._connection.execute("begin")
        while number:
            if not self._left:
                self.begin_run()
                self._left = RUN
            now = min(number, self._left)
            span = self._span._replace(agent_instance_id=self.run)
            times = (clock.to_text(FIRST_NS + (self.spans + n) * STEP_NS) for n in range(now))
            rows = (span._replace(id=self._ids.new(), started_at=time) for time in times)
            self._put(AgentSpanRow, "agent_spans", rows)
            number -= now
            self.spans += now
            self._left -= now
        self._connection.execute("commit")

    def checkpoint(self) -> None:
        self._connection.execute("pragma wal_checkpoint(truncate)")

    def close(self) -> None:
        self._connection.close()


def make(folder: Path, sizes: list[int]) -> tuple[dict[int, Path], str]:
    """Make the files, each a longer copy of the one before; return them, and the run of the tree."""
    growing = folder / "growing.db"
    maker, files, done = Maker(growing), {}, 0
    tree_run = maker.tree()
    hidden = not sys.stderr.isatty()
    with click.progressbar(length=sizes[-1], label="spans made", file=sys.stderr, hidden=hidden) as progress:
        for size in sizes:
            while done < size:
                portion = min(PORTION, size - done)
                maker.fill(portion)
                done += portion
                progress.update(portion)
            maker.checkpoint()
            files[size] = folder / f"{size}.db"
            if size < sizes[-1]:
                shutil.copy(growing, files[size])
    maker.close()
    growing.rename(files[sizes[-1]])
    os.sync()  # else the first turns wait for gigabytes to be written: 116 µs a span, where it is 50
    return files, tree_run


def per_span(path: Path, spans: int, **settings: Any) -> float:
    """Return the µs of a span until it is in the file."""
    tracer = agentspan.Tracer(path, raise_errors=True, enabled=True, **settings)

    @tracer.span("tool")
    def search(query: str) -> str:
        return OUTPUT

    with tracer.run("bench"):
        for _ in range(WARM_UP):
            search(QUERY)
        tracer.flush(60.0)
        began = time.perf_counter()
        for _ in range(spans):
            search(QUERY)
        tracer.flush(60.0)
        took = time.perf_counter() - began
    tracer.shutdown()
    return took / spans * 1e6


def milliseconds(fn: Callable[[], object]) -> float:
    began = time.perf_counter()
    fn()
    return (time.perf_counter() - began) * 1000


def measure(path: Path, tree_run: str, spans: int, seed: int) -> dict[str, float]:
    """Take the figures of one file, in this process."""
    figures = {"journal": per_span(path, spans), "commit": per_span(path, spans // COMMIT_SHARE, durability="commit")}
    chosen = random.Random(seed)
    with sqlite3.connect(path) as connection:
        runs = [id for (id,) in connection.execute("select id from agent_instances order by id")][2:-2]
    connection.close()
    with agentspan.open(path) as db:

        def page(run: str, offset: int, **options: Any) -> float:
            return milliseconds(lambda: db.agent_spans.list(run, offset=offset, page_size=PAGE, **options))

        page(tree_run, 0)
        pages = [page(chosen.choice(runs), chosen.randrange(RUN - PAGE)) for _ in range(PAGES)] if runs else [0.0]
        figures["page"] = statistics.median(pages)
        figures["slowest page"] = max(pages)
        agent = db.agents.list()[0].id
        figures["first of agent"] = milliseconds(lambda: db.agent_spans.list(agent_id=agent, page_size=PAGE))
        total = db.agent_spans.list(agent_id=agent, page_size=1).pagination.item_count

        def of_agent(**options: Any) -> float:
            return milliseconds(lambda: db.agent_spans.list(agent_id=agent, page_size=PAGE, **options))

        figures["agent's page"] = statistics.median(of_agent(offset=chosen.randrange(total)) for _ in range(PAGES))
        newest = (of_agent(sorting="-id", offset=i * PAGE) for i in range(PAGES))
        figures["agent's newest"] = statistics.median(newest)
        half = {"start_time": clock.to_text(FIRST_NS)}
        figures["page in time"] = statistics.median(
            page(chosen.choice(runs or [tree_run]), 0, **half) for _ in range(PAGES)
        )
        figures["first in time"] = of_agent(start_time=clock.to_text(FIRST_NS))
        ranges = [sorted(chosen.choices(range(total), k=2)) for _ in range(PAGES)]
        in_time = (
            of_agent(**{n: clock.to_text(FIRST_NS + at * STEP_NS) for n, at in zip(BOUNDS, each, strict=True)})
            for each in ranges
        )
        figures["agent in time"] = statistics.median(in_time)
        figures["tree's page"] = statistics.median(page(tree_run, i * TREE // PAGES) for i in range(PAGES))
        figures["tree"] = milliseconds(lambda: tree.build(db.storage.ask(SpansOf(tree_run))))
    return figures


def report(figures: dict[int, dict[str, float]]) -> None:
    columns = {"journal": "µs", "commit": "µs"} | dict.fromkeys(MILLISECONDS, "ms")
    print(f"\n{'spans':>10}" + "".join(f"{name:>16}" for name in columns))
    for size, each in figures.items():
        print(f"{size:>10,}" + "".join(f"{each[name]:13.2f} {unit}" for name, unit in columns.items()))
    print()
    largest = max(figures)
    if BASE in figures and largest > BASE:
        for name in ("journal", "commit"):
            what = f"{name}: a span at {largest:,} / at {BASE:,}"
            print(verdict(what, figures[largest][name] / figures[BASE][name], 1.2))
    if MILLION in figures:
        at = figures[MILLION]
        print(verdict(f"page of {PAGE} spans at {MILLION:,}", at["page"], 5, "ms"))
        for name in ("agent's page", "agent's newest"):
            print(verdict(f"{name} / page of a run, at {MILLION:,}", at[name] / at["page"], 1.5))
        print(verdict(f"agent in time / page in time, at {MILLION:,}", at["agent in time"] / at["page in time"], 1.5))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default=SIZES, help="with commas between them")
    parser.add_argument("--spans", type=int, default=10_000, help="how many are recorded in a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where the files lie meanwhile; a temporary folder when left out")
    parser.add_argument("--turn", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.turn:
        path, tree_run, seed = options.turn
        print(json.dumps(measure(Path(path), tree_run, options.spans, int(seed))))
        return
    sizes = sorted(int(size) for size in options.sizes.split(","))
    print(f"{machine()}\nmedians of {options.rounds} rounds")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        began = time.perf_counter()
        files, tree_run = make(Path(folder), sizes)
        print(f"{sizes[-1]:,} spans made in {time.perf_counter() - began:.0f} s")
        turns: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
        with bar([(round_, size) for round_ in range(options.rounds) for size in sizes], "turns") as steps:
            for round_, size in steps:
                arguments = ("--turn", files[size], tree_run, round_, "--spans", options.spans)
                turns[size].append(turn(__file__, *arguments))
        report({size: medians(each) for size, each in turns.items()})


if __name__ == "__main__":
    main()
