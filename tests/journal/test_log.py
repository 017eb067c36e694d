"""The segments of one process: whoever appends, drains, rotates and lets go meanwhile, each record comes out once."""

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentspan.journal.log import Log
from agentspan.journal.records import bodies
from agentspan.journal.spool import segments

SIZE = 16 * 1024


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "runs.db.spool", lambda: "writer", SIZE)


@pytest.fixture
def impatient() -> Iterator[None]:
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def drained(log: Log, size: int = 4096) -> list[bytes]:
    """Take out what is there."""
    found: list[bytes] = []
    while (portion := log.take(size)) is not None:
        read = bodies(portion.data)
        found += read.bodies
        log.trim(portion.segment, portion.start + read.end, read.last)
    return found


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "meanwhile", [lambda log: None, Log.release, Log.prepare, Log.look_after_files], ids=lambda each: each.__name__
)
def test_each_record_comes_out_once_in_its_threads_order(log: Log, meanwhile: Callable[[Log], object]) -> None:
    number, threads = 1500, 3
    found: list[bytes] = []

    def append(name: int) -> None:
        for count in range(number):
            assert log.append(f"{name}:{count}:".encode() + b"x" * (count % 300))

    appending = [threading.Thread(target=append, args=(name,)) for name in range(threads)]
    for thread in appending:
        thread.start()
    while any(thread.is_alive() for thread in appending):
        found += drained(log)
        meanwhile(log)
    found += drained(log)
    assert log.sequence == len(found) == number * threads
    for name in range(threads):
        assert [int(body.split(b":")[1]) for body in found if body.startswith(b"%d:" % name)] == [*range(number)]
    log.release(for_good=True)
    assert segments(Path(log._folder)) == []


@pytest.mark.parametrize("threshold", range(1, 9))
def test_a_finalizer_that_garbage_collection_calls_may_append(log: Log, threshold: int) -> None:
    class Garbage:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            log.append(b"collected")

    kept: list[slice] = []
    before = gc.get_threshold()
    gc.set_threshold(threshold, 1, 1)
    try:
        for number in range(300):
            in_use = slice(number)  # the interpreter keeps one that is not, and makes no other one then
            Garbage()
            log.append(b"%d" % number)
            kept.append(in_use)
    finally:
        gc.set_threshold(*before)
        gc.collect()
    found = drained(log)
    assert len(found) == log.sequence == 600
    assert [body for body in found if body != b"collected"] == [b"%d" % number for number in range(300)]
    log.release(for_good=True)
