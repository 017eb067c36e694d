"""The torture run: `python -m tests.processes.torture FOLDER TRANSITIONS`. Prints what came of it, at last as JSON.

Sixty programs record into one file, most are killed, all are replaced; others read, examine, terminate and prune
meanwhile. Every program writes down which transitions were acknowledged. At the end these are compared with the file.
"""

import ctypes
import json
import logging
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import agentspan
from tests.processes import torture_workers as workers
from tests.processes.torture_check import check, table

PROGRAMS = 60
"""At once; fewer, where there are few transitions."""
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


class Life(NamedTuple):
    """A program that records.

    Attributes:
        acknowledged: its file of acknowledgements.
        kill_at: of how many of them it is killed, if that is not up to itself.
    """

    acknowledged: Path
    kill_at: int | None


class Torture:
    """One run; all processes are children of this one, orphans too, and are ended by it."""

    def __init__(self, folder: Path, transitions: int, seed: int) -> None:
        self._folder = folder
        self._db = folder / "runs.db"
        self._transitions = transitions
        self._rng = random.Random(seed)
        self._lives: dict[int, Life] = {}
        self._helpers: dict[int, int] = {}
        self._died: dict[int, float] = {}
        self._segments: dict[str, float] = {}
        self._settled = 0
        self.counts: Counter[str] = Counter()

    def run(self) -> dict[str, Any]:
        """Let everything happen, and return the figures."""
        began = time.monotonic()
        _libc().prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        agentspan.SQLiteStorage(self._db).close()
        try:
            for number in range(len(workers.HELPERS)):
                self._help(number)
            while self._settled + self._going_on() < self._transitions:
                self._turn()
        finally:
            _end_children(self._reap)
        recorded = time.monotonic()
        with agentspan.open(self._db) as database:
            problems = database.doctor().problems
        figures = check(self._folder)
        adopted = self._adopted()
        seconds = {"recording": round(recorded - began, 1), "in all": round(time.monotonic() - began, 1)}
        return {**figures, **self.counts, "segments adopted": adopted, "problems": problems, "seconds": seconds}

    def _turn(self) -> None:
        for _ in range(min(5, min(PROGRAMS, self._transitions // 100) - len(self._lives))):
            self._begin()
        time.sleep(0.01)
        now = time.monotonic()
        for name in _names(self._folder / "runs.db.spool"):
            self._segments[name] = now
        for pid, life in list(self._lives.items()):
            if life.kill_at is not None and _lines(life.acknowledged) >= life.kill_at:
                os.kill(pid, signal.SIGKILL)
        if self._rng.random() < 0.01:  # a helper in the middle of adopting, closing or removing
            os.kill(self._rng.choice(list(self._helpers)), signal.SIGKILL)
        while (reaped := _wait(os.WNOHANG)) is not None:
            self._reap(*reaped)
        for number in set(range(len(workers.HELPERS))) - set(self._helpers.values()):
            self._help(number)

    def _begin(self) -> None:
        self.counts["programs"] += 1
        acknowledged = self._folder / f"{self.counts['programs']:05d}.ack"
        acknowledged.touch()
        mean = min(3000, max(100, self._transitions // 150))
        quota, ending = self._rng.randrange(mean // 10, 2 * mean), self._rng.choice(workers.ENDINGS)
        kill_at = self._rng.randrange(quota) if self._rng.random() < 0.5 else None
        rng = random.Random(self._rng.random())
        pid = self._fork(lambda: workers.record(self._db, acknowledged, quota, ending, rng))
        self._lives[pid] = Life(acknowledged, kill_at)

    def _help(self, number: int) -> None:
        step, pause_s = workers.HELPERS[number]
        rng = random.Random(self._rng.random())
        self._helpers[self._fork(lambda: workers.repeat(step, pause_s, self._folder, rng))] = number

    def _fork(self, program: Callable[[], None]) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            with workers.noting_errors(self._folder / "helpers.log", "program"):
                program()
        finally:
            os._exit(0)

    def _reap(self, pid: int, status: int) -> None:
        self._died[pid] = time.monotonic()
        if self._helpers.pop(pid, None) is not None:
            self.counts["helpers killed"] += 1
            return
        self.counts["processes killed" if os.WIFSIGNALED(status) else "processes that ended by themselves"] += 1
        life = self._lives.pop(pid, None)
        if life is not None:
            self._settled += _lines(life.acknowledged)

    def _going_on(self) -> int:
        return sum(_lines(life.acknowledged) for life in self._lives.values())

    def _adopted(self) -> int:
        """Return how many segments were there still after the death of who wrote them."""
        import sqlite3

        pids = dict(sqlite3.connect(self._db).execute("select id, pid from writers"))
        last = {name.partition("-")[0]: seen for name, seen in self._segments.items()}
        return sum(seen > self._died.get(pids.get(writer, 0), float("inf")) for writer, seen in last.items())


def _end_children(reap: Callable[[int, int], None]) -> None:
    """Kill all children of this process, and theirs, which become its own, and wait for them."""
    while True:
        for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
            os.kill(int(pid), signal.SIGKILL)
        reaped = _wait(0)
        if reaped is None:
            return
        reap(*reaped)


def _wait(options: int) -> tuple[int, int] | None:
    try:
        pid, status = os.waitpid(-1, options)
    except ChildProcessError:
        return None
    return (pid, status) if pid else None


def _lines(path: Path) -> int:
    return path.stat().st_size // workers.LINE


def _names(folder: Path) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if ".segment" in name]
    except FileNotFoundError:
        return []


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


class _Said(logging.Handler):
    """Counts what the programs log, without a file that a fork would have to share."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        workers.note(self._path, record.getMessage())


def _warm_up() -> None:
    """Import what recording and reading need: each program is a fork of this one."""
    with tempfile.TemporaryDirectory() as folder:
        tracer = agentspan.Tracer(f"{folder}/runs.db")
        with tracer.run("warm"), tracer.span("tool", {"name": "x"}):
            pass
        tracer.shutdown()
        for step, _ in workers.HELPERS:
            next(step(Path(folder) / "runs.db", Path(folder) / "said", random.Random(0)))


def main(folder: Path, transitions: int) -> None:
    """Run, and print the figures."""
    logger = logging.getLogger("agentspan")
    logger.propagate = False
    _warm_up()
    logger.addHandler(_Said(folder / "log"))
    seed = int(os.environ.get("AGENTSPAN_TORTURE_SEED", time.time_ns() % 10**6))
    print(f"seed {seed}", flush=True)
    try:
        figures = Torture(folder, transitions, seed).run()
    except BaseException:
        traceback.print_exc()
        raise
    print(table(figures))
    print(json.dumps(figures))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
