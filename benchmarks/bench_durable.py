"""How fast spans come into the SQLite file: from the first call until `flush` returns, beside a bare `executemany`.

A span is recorded in journal mode by a decorated function, as fast as one thread can. Then the rows that came of it,
read back, are written by `executemany` in one transaction into a file with the same tables: no ids, no JSON, no
summary, nothing on disk before the end. Each turn has a process and a file of its own, and the contestants alternate.
The bare one is timed until COMMIT returns, once with SQLite's own checkpoint in that, once without any (agentspan's
happen in a thread, 32 MB apart).

    python benchmarks/bench_durable.py [--spans 200000] [--rounds 5] [--folder DIR]
    python benchmarks/bench_durable.py --memory [--spans 1000000]

The second form records in one process, and says what memory it has after 10,000 spans and at the end (Linux). Its
journal is mapped, which counts, too: `anonymous` leaves it out.
"""

import argparse
import json
import resource
import sqlite3
import tempfile
import time
from pathlib import Path

from measuring import OUTPUT, QUERY, anonymous_mib, bar, machine, medians, resident_mib, turn, verdict

import agentspan
from agentspan.model.rows import AgentSpanRow

FIRST = 10_000
LOOKS = 10


def size_of(file: Path) -> int:
    """Return how many bytes a file has; none if it is gone by now."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def record(path: Path, spans: int) -> dict[str, float]:
    """Record, in this process, and say how long it took the caller, and until everything was in the file."""
    tracer = agentspan.Tracer(path, raise_errors=True, enabled=True)

    @tracer.span("tool")
    def search(query: str) -> str:
        return OUTPUT

    with tracer.run("bench"):
        search(QUERY)
        tracer.flush(60.0)
        began = time.perf_counter()
        for _ in range(spans):
            search(QUERY)
        recorded = time.perf_counter() - began
        spool = sum(map(size_of, path.parent.glob("*.spool/*"))) / 2**20
        while not tracer.flush(60.0):
            pass
        durable = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    tracer.shutdown()
    return {"seconds": durable, "recorded": recorded, "peak": peak, "spool": spool}


def write_rows(source: Path, path: Path, *, checkpoint: bool) -> dict[str, float]:
    """Write the rows of a file into another one, in this process, in one transaction."""
    agentspan.Tracer(path, enabled=True).shutdown()  # makes the tables
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("pragma synchronous = normal")
    connection.execute("pragma foreign_keys = on")
    if not checkpoint:
        connection.execute("pragma wal_autocheckpoint = 0")
    connection.execute("attach ? as source", (str(source),))
    for table in ("agents", "agent_versions", "agent_schema_versions", "writers", "agent_instances"):
        connection.execute(f"insert into {table} select * from source.{table}")
    fields = ", ".join(AgentSpanRow._fields)
    rows = connection.execute(f"select {fields} from source.agent_spans").fetchall()
    connection.execute("detach source")
    began = time.perf_counter()
    connection.execute("begin immediate")
    connection.executemany(
        f"insert into agent_spans ({fields}) values ({', '.join('?' * len(AgentSpanRow._fields))})", rows
    )
    connection.execute("commit")
    took = time.perf_counter() - began
    connection.close()
    return {"seconds": took, "rows": len(rows)}


def remember(path: Path, spans: int) -> list[tuple[int, float, float]]:
    """Record in this process; how many spans, and the MiB that are resident, and anonymous, at several moments."""
    tracer = agentspan.Tracer(path, raise_errors=True, enabled=True)

    @tracer.span("tool")
    def search(query: str) -> str:
        return OUTPUT

    looks, done = [], 0
    moments = {min(FIRST, spans), *(spans * look // LOOKS for look in range(1, LOOKS + 1))}
    with tracer.run("bench"):
        for until in sorted(moment for moment in moments if moment >= min(FIRST, spans)):
            for _ in range(until - done):
                search(QUERY)
            done = until
            looks.append((done, resident_mib(), anonymous_mib()))
        tracer.flush(600.0)
        looks.append((done, resident_mib(), anonymous_mib()))
    tracer.shutdown()
    return looks


def compare(spans: int, rounds: int, folder: str | None) -> None:
    journal: list[dict[str, float]] = []
    bare: list[dict[str, float]] = []
    unchecked: list[dict[str, float]] = []
    with bar(range(rounds), f"{spans} spans") as steps:
        for _ in steps:
            with tempfile.TemporaryDirectory(dir=folder) as own:
                db = Path(own) / "journal.db"
                journal.append(turn(__file__, "--turn", "record", db, "--spans", spans))
                bare.append(turn(__file__, "--turn", "executemany", db, Path(own) / "bare.db"))
                unchecked.append(turn(__file__, "--turn", "unchecked", db, Path(own) / "unchecked.db"))
    ours, seconds, quick = medians(journal), medians(bare)["seconds"], medians(unchecked)["seconds"]
    print(f"\n{'':<44}{'spans/s':>10}{'/ executemany':>15}")
    for name, took in (
        ("journal, caller", ours["recorded"]),
        ("journal, until in the file", ours["seconds"]),
        ("executemany, one transaction", seconds),
        ("executemany, without a checkpoint", quick),
    ):
        print(f"{name:<44}{spans / took:10,.0f}{100 * seconds / took:13.0f} %")
    print(f"\npeak memory {ours['peak']:.0f} MiB; {ours['spool']:.0f} MiB of journal when the last call returned")
    ratios = medians(
        [{"with": 100 * b["seconds"] / j["seconds"], "without": 100 * u["seconds"] / j["seconds"]}
         for j, b, u in zip(journal, bare, unchecked, strict=True)]
    )  # fmt: skip
    print(verdict("durable throughput / executemany", ratios["with"], 40, "%", at_least=True))
    print(verdict("durable throughput / executemany without a checkpoint", ratios["without"], 40, "%", at_least=True))


def compare_memory(spans: int, folder: str | None) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as own:
        looks = turn(__file__, "--turn", "remember", Path(own) / "journal.db", "--spans", spans)
    print(f"\n{'spans':>10}{'resident':>12}{'anonymous':>12}")
    for done, resident, anonymous in looks:
        print(f"{done:10,}{resident:8.1f} MiB{anonymous:8.1f} MiB")
    first = looks[0]
    print()
    print(verdict("resident, largest - first", max(look[1] for look in looks) - first[1], 20, "MiB"))
    print(verdict("anonymous, largest - first", max(look[2] for look in looks) - first[2], 20, "MiB"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spans", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where the files lie; a temporary folder when left out")
    parser.add_argument("--memory", action="store_true", help="see above")
    parser.add_argument("--turn", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.turn:
        kind, *names = options.turn
        paths = [Path(name) for name in names]
        if kind == "record":
            print(json.dumps(record(paths[0], options.spans)))
        elif kind == "remember":
            print(json.dumps(remember(paths[0], options.spans)))
        else:
            print(json.dumps(write_rows(*paths, checkpoint=kind == "executemany")))
        return
    print(machine())
    if options.memory:
        compare_memory(options.spans or 1_000_000, options.folder)
    else:
        print(f"medians of {options.rounds} rounds")
        compare(options.spans or 200_000, options.rounds, options.folder)


if __name__ == "__main__":
    main()
