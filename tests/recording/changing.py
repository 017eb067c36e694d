"""A file that is changed underneath the programs that have it open, in the ways that people and scripts do."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import agentspan
from agentspan import Tracer
from agentspan.storage.questions import BackUp

RECORDER = """
import sys, time, agentspan
agentspan.configure(sys.argv[1], durability=sys.argv[2])
with agentspan.run("killed"):
    for number in range(int(sys.argv[3])):
        with agentspan.span("tool", {"name": "before", "text": "y" * 300}):
            pass
    agentspan.flush()
    print("ready", flush=True)
    time.sleep(60)
"""


def spans(tracer: Tracer, count: int, name: str) -> None:
    for _ in range(count):
        with tracer.span("tool", {"name": name, "text": "y" * 300}):
            pass


def stored(tracer: Tracer, count: int, name: str) -> None:
    spans(tracer, count, name)
    assert tracer.flush()


def back_up(path: Path, to: Path) -> None:
    with agentspan.open(path) as db:
        db.storage.ask(BackUp(to))


def beside(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)


def names(path: Path) -> dict[str, int]:
    """How many spans of each name are in a file, which must be sound."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        query = "select payload ->> '$.name', count(*) from agent_spans where status = 'complete' group by 1"
        return dict(connection.execute(query).fetchall())


@contextlib.contextmanager
def recorder(path: Path, durability: str, count: int = 50) -> Iterator[subprocess.Popen[str]]:
    """A program that has recorded, and holds the file open until it is killed."""
    arguments = [sys.executable, "-c", RECORDER, str(path), durability, str(count)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def renamed_over(path: Path, backup: Path) -> None:
    """As `mv backup runs.db`: the log of the file of before stays."""
    os.replace(backup, path)


def restored(path: Path, backup: Path) -> None:
    """As it is done properly."""
    for end in ("-wal", "-shm", ""):
        beside(path, end).unlink(missing_ok=True)
    os.replace(backup, path)


def copied_over(path: Path, backup: Path) -> None:
    """As `cp backup runs.db`, after a checkpoint: so most of what a reader sees is from the file itself."""
    checkpoint(path)
    shutil.copyfile(backup, path)


def emptied(path: Path, backup: Path) -> None:
    """As `: > runs.db`."""
    checkpoint(path)
    os.truncate(path, 0)


def deleted(path: Path, backup: Path) -> None:
    """As `rm runs.db`."""
    path.unlink()


def without_log(path: Path, backup: Path) -> None:
    """As `rm runs.db-wal`."""
    beside(path, "-wal").unlink()


def without_index(path: Path, backup: Path) -> None:
    """As `rm runs.db-shm`."""
    beside(path, "-shm").unlink()


CHANGES: list[Callable[[Path, Path], Any]] = [renamed_over, restored, copied_over, emptied, without_log, without_index]


def checkpoint(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("pragma wal_checkpoint(restart)").fetchall()


def flushed_within(tracer: Tracer, seconds: float) -> bool:
    """Flush until that succeeds."""
    until = time.monotonic() + seconds
    while not tracer.flush():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True
