"""Brings up a Citus cluster on this machine, a coordinator and two workers, and runs agentspan on it.

In turn: the contract of storages; recording, with the journal in front; a copy of a file there and back, compared; the
statistics and a search over what was copied; the share of the workers. The servers are on loopback, in a temporary
folder, without fsync, and end with the script.

    python benchmarks/citus.py --bin FOLDER [--spans 20000] [--shards 8] [--no-contract]

FOLDER has `postgres` and `initdb` of a PostgreSQL 16 or newer with Citus (`make install` of its source).
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

import agentspan
from agentspan.maintenance.copying import copy
from agentspan.storage.questions import SpansOf
from agentspan.storage.registry import open_direct

ROOT = Path(__file__).parent.parent
WORKERS = 2
SETTINGS = {
    "shared_preload_libraries": "citus",
    "citus.node_conninfo": "sslmode=prefer",
    "wal_level": "logical",
    "max_prepared_transactions": "200",
    "max_connections": "200",
}
SIZES = """
select nodeport, count(*), sum(shard_size) from citus_shards
where table_name::text like %s group by nodeport order by nodeport
"""


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """Yield the URL of a coordinator with two workers."""
    os.environ["AGENTSPAN_TEST_POSTGRES"] = str(folder)
    sys.path.insert(0, str(ROOT))
    from tests.postgres import Server

    with contextlib.ExitStack() as stack:
        servers = []
        for _ in range(1 + WORKERS):
            server = Server(**SETTINGS)
            stack.callback(server.remove)
            server.start()
            servers.append(server)
            with psycopg.connect(server.url, autocommit=True) as connection:
                connection.execute("create extension citus")
        coordinator, *workers = servers
        with psycopg.connect(coordinator.url, autocommit=True) as connection:
            connection.execute("select citus_set_coordinator_host('127.0.0.1', %s)", (coordinator.port,))
            for worker in workers:
                connection.execute("select citus_add_node('127.0.0.1', %s)", (worker.port,))
            row = connection.execute("select citus_version()").fetchone()
            print(f"{row[0] if row else ''}, {WORKERS} workers", flush=True)
        yield coordinator.url


def timed(what: str, work: Callable[[], Any]) -> Any:
    """Call a function, and print how long it took."""
    before, cpu = time.perf_counter(), time.process_time()
    done = work()
    took, used = time.perf_counter() - before, time.process_time() - cpu
    print(f"{what}: {took:.2f} s ({used:.2f} s of this process)", flush=True)
    return done


def contract(url: str) -> None:
    """Run the contract on the cluster."""
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/storage/test_citus.py"]
    done = subprocess.run(tests, cwd=ROOT, env={**os.environ, "AGENTSPAN_TEST_CITUS": url}, check=False)
    if done.returncode:
        raise SystemExit("the contract is not kept")


def record(db: str, spans: int) -> None:
    """Record runs of 100 spans each, with the journal in front; wait until all is committed."""
    tracer = agentspan.Tracer(db, raise_errors=True)
    for start in range(0, spans, 100):
        with tracer.run("bench"):
            for number in range(start, min(spans, start + 100)):
                with tracer.span("tool", {"name": "search", "arguments": {"number": number}}) as span:
                    span.set_result({"output": f"flight {number} " + "to Roma " * 60})
    tracer.shutdown(120.0)


def compared(one: str, other: str) -> int:
    """Return how many spans two storages have in common; raise where a run has others."""
    both = open_direct(one), open_direct(other)
    total = 0
    with contextlib.closing(both[0]), contextlib.closing(both[1]):
        for run in agentspan.open(both[0]).runs(limit=None).runs:
            # The agent of that name may be another row there: what was recorded before has made it.
            spans, others = ([span._replace(agent_id="") for span in each.ask(SpansOf(run.run.id))] for each in both)
            assert spans == others, run.run.id
            total += len(spans)
    return total


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=Path, required=True)
    parser.add_argument("--spans", type=int, default=20_000)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--no-contract", action="store_true")
    given = parser.parse_args()
    with cluster(given.bin) as url, tempfile.TemporaryDirectory() as folder:
        if not given.no_contract:
            timed("contract", partial(contract, url))
        file, back = f"{folder}/runs.db", f"{folder}/back.db"
        timed(f"{given.spans} spans recorded into a file", partial(record, file, given.spans))
        for name, extra in (("plain", []), ("distributed", ["--citus", "--shards", str(given.shards)])):
            db = f"{url}?schema={name}"
            init = [sys.executable, "-m", "agentspan", "init", db, *extra]
            timed(f"{name}: init", partial(subprocess.run, init, check=True, stdout=subprocess.DEVNULL))
            timed(f"{name}: {given.spans} spans recorded", partial(record, db, given.spans))
            timed(f"{name}: copied there", partial(copied, file, db))
            reading = agentspan.open(db)
            timed(f"{name}: runs", reading.runs)
            timed(f"{name}: stats", reading.stats)
            timed(f"{name}: a search", partial(reading.search, '"flight 7"'))
        timed("distributed: copied back", partial(copied, db, back))
        print(f"spans of the file that are equal there: {compared(file, db)}; in the copy back: {compared(db, back)}")
        with psycopg.connect(url) as connection:
            for port, shards, size in connection.execute(SIZES, ("%distributed.finished_spans%",)):
                print(f"server {port}: {shards} shards, {int(size) / 1e6:.1f} MB")


def copied(src: str, dst: str) -> None:
    """Copy all runs of one storage to another."""
    source, target = open_direct(src), open_direct(dst)
    with contextlib.closing(source), contextlib.closing(target):
        copy(source, target)


if __name__ == "__main__":
    main()
