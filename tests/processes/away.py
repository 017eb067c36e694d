"""Recording while the storage is away: `python -m tests.processes.away FOLDER HOW SECONDS`. Prints figures as JSON.

Four threads record a few hundred spans a second into a journal. Meanwhile another process locks the file against
writers (`locked`), or against readers as well (`shut`), or fills the disk (`full`), and undoes that after some seconds.
"""

import contextlib
import fcntl
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import agentspan
from agentspan import Tracer
from tests.waiting import until

SPANS_A_SECOND = 100
SPANS_A_RUN = (10**9, 10**9, 50, 50)
"""Of each thread: two go on with their run, two begin one twice a second."""
_WAL_LOCKS, _WAL_LOCK_COUNT = 120, 8  # bytes of the -shm file; see SQLite's wal.c


class Watch:
    """Measures calls, and counts the statements that SQLite executes meanwhile in the calling thread."""

    def __init__(self) -> None:
        self.is_away = False
        self.micros: dict[str, list[float]] = {"span": [], "run": []}
        self.statements: Counter[str] = Counter()
        self._here = threading.local()
        connect = sqlite3.connect

        def traced(*args: Any, **options: Any) -> sqlite3.Connection:
            connection = connect(*args, **options)
            connection.set_trace_callback(self._see)
            return connection

        sqlite3.connect = traced  # type: ignore[assignment]

    @contextlib.contextmanager
    def call(self, what: str) -> Any:
        """Measure what is recorded in this block."""
        self._here.what, was_away, began = what, self.is_away, time.perf_counter()
        yield
        elapsed = (time.perf_counter() - began) * 1e6
        self._here.what = None
        if was_away:
            self.micros[what].append(elapsed)

    def figures(self) -> dict[str, Any]:
        """Return how long calls took while the storage was away, in µs, and how many statements they executed."""
        return {
            what: {**_quantiles(values), "statements": self.statements[what]} for what, values in self.micros.items()
        }

    def _see(self, statement: str) -> None:
        what = getattr(self._here, "what", None)
        if what is not None and self.is_away:
            self.statements[what] += 1


def _quantiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values) or [0.0]
    marks = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
    chosen = {name: round(ordered[min(len(ordered) - 1, int(len(ordered) * mark))], 1) for name, mark in marks.items()}
    return {"calls": len(values), **chosen}


def record(tracer: Tracer, watch: Watch, stop: threading.Event, spans: list[str], most: int) -> None:
    """Record run after run, with so many spans at most, with pauses, each call on its own clock."""
    due = time.monotonic()
    while not stop.is_set():
        run = tracer.run("away")
        with watch.call("run"):
            run.__enter__()
        for number in range(most):
            if stop.is_set():
                break
            block = tracer.span("tool", {"name": "x", "arguments": {"text": "y" * 300}})
            with watch.call("span"):
                span = block.__enter__()
            if number % 5 == 0:
                with watch.call("span"):
                    span.update_payload({"arguments": {"n": number}})
            span.set_result({"output": "z" * 300})
            with watch.call("span"):
                block.__exit__(None, None, None)
            spans.append(span.id)  # "" where it could not be recorded
            due += 1 / SPANS_A_SECOND
            time.sleep(max(0.0, due - time.monotonic()))
        with watch.call("run"):
            run.__exit__(None, None, None)


def lock(db: str, how: str) -> None:
    """Lock a file, say so, and hold the lock until stdin ends."""
    connection = sqlite3.connect(db, isolation_level=None, timeout=30)
    connection.execute("begin exclusive" if how == "locked" else "select 1 from sqlite_master")
    if how == "shut":  # as while another process recovers the log, or resets it
        file = os.open(f"{db}-shm", os.O_RDWR)
        fcntl.lockf(file, fcntl.LOCK_EX, _WAL_LOCK_COUNT, _WAL_LOCKS)
    print("locked", flush=True)
    sys.stdin.read()


@contextlib.contextmanager
def away(path: Path, how: str) -> Any:
    """Take the storage away for as long as the block lasts."""
    if how == "full":
        filler = path.with_name("filler")
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        yield
        filler.unlink()
        return
    command = [sys.executable, "-m", "tests.processes.away", str(path), "lock", how]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "locked\n"
        yield
        holder.stdin.close()
        holder.wait()


def main(folder: Path, how: str, seconds: float) -> None:
    """Record, take the storage away, give it back, and print what that was like for those who record."""
    watch = Watch()
    path = folder / "runs.db"
    tracer = Tracer(path)
    stop = threading.Event()
    spans: list[str] = []
    threads = [threading.Thread(target=record, args=(tracer, watch, stop, spans, most)) for most in SPANS_A_RUN]
    for thread in threads:
        thread.start()
    until(lambda: len(spans) > 50)
    with away(path, how):
        watch.is_away = True
        time.sleep(seconds)
        watch.is_away = False
    before = len(spans)
    until(lambda: len(spans) > before + 50)
    stop.set()
    for thread in threads:
        thread.join()
    is_flushed = tracer.flush(60)
    health = tracer.health()
    tracer.shutdown()
    agentspan.open(path).close()
    stored = {id for (id,) in sqlite3.connect(path).execute("select id from agent_spans where status = 'complete'")}
    missing = sum(id not in stored for id in spans if id)
    kept = {"spans": len(spans), "missing": missing, "unrecorded": spans.count(""), "flushed": is_flushed}
    print(json.dumps({**watch.figures(), **kept, **_of(health)}))


def _of(health: agentspan.Health) -> dict[str, int]:
    return {name: getattr(health, name) for name in ("recorded", "failed", "waiting", "refused")}


if __name__ == "__main__":
    if sys.argv[2] == "lock":
        lock(sys.argv[1], sys.argv[3])
    else:
        main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
