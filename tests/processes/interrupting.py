"""An exception at each point where CPython may run a signal handler, or throw what another thread sends.

That is where a function starts, and where a call of a function in C has returned. There, in agentspan's own frames, a
profile function raises an exception, which the interpreter treats like that of a handler. Nothing is traced, so the
journal is the one that programs have (see Guarded).
"""

import contextlib
import itertools
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from types import FrameType
from typing import Any, NamedTuple

import agentspan
from agentspan import Tracer
from agentspan.journal.journal_folder import folder_of
from agentspan.journal.spool import segments, writer_of
from agentspan.recording.sinks.commit import CommitSink
from agentspan.recording.tracer import recorder_of
from agentspan.tuning import STANDARD

FOLDERS = (os.path.dirname(agentspan.__file__) + os.sep, contextlib.__file__)
BOUND_S = 60.0


class Interrupt(BaseException):
    """Like KeyboardInterrupt."""


class Points:
    """Counts the points within a block, and raises at one of them.

    Args:
        at: the number of the point, from 1 on; 0 to count only.
        error: what is raised there.
    """

    def __init__(self, at: int = 0, error: type[BaseException] = Interrupt) -> None:
        self.count = 0
        self.where = ""
        self._at = at
        self._error = error

    def __enter__(self) -> "Points":
        sys.setprofile(self._look)
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.setprofile(None)

    def _look(self, frame: FrameType, event: str, arg: Any) -> None:
        if event in ("call", "c_return") and frame.f_code.co_filename.startswith(FOLDERS):
            self.count += 1
            if self.count == self._at:
                self.where = f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_qualname} ({event} {arg})"
                raise self._error


class World:
    """One file, a tracer, and what was acknowledged.

    Args:
        folder: an empty one.
    """

    def __init__(self, folder: Path, durability: Any) -> None:
        self.folder = folder
        self.path = folder / "runs.db"
        self.durability = durability
        self.reopen()
        self.acknowledged: list[str] = []
        self.transitions = 0
        self.adopts = False
        self.span()

    def span(self) -> None:
        """Record a span, and note that it is acknowledged."""
        with self.tracer.span("tool", {"name": "x"}) as span:
            span.set_result({"output": "y"})
        self.acknowledged.append(span.id)
        self.transitions += 4  # of the run, too

    def fill(self) -> None:
        """Have something that waits: in the journal, or in memory because the file is locked."""
        if self.durability == "journal":
            self.span()
            self.span()
            return
        other = sqlite3.connect(self.path, isolation_level=None)
        own = recorder_of(self.tracer).sink
        assert isinstance(own, CommitSink)
        with self.tracer.run("a"):
            other.execute("begin immediate")
            with self.tracer.span("tool", {"name": "x"}) as span:
                pass
        self.acknowledged.append(span.id)
        self.transitions += 4
        other.execute("rollback")
        other.close()
        own.progress.retry_ns = 0

    def put_dead_journal(self) -> None:
        """Put what a killed process has left into this one's file: its runs and spans, and a journal with the rest."""
        self.close()
        self.path.unlink()
        shutil.rmtree(folder_of(self.path), ignore_errors=True)
        template, self.acknowledged = dead_journal()
        self.acknowledged = list(self.acknowledged)
        self.transitions = 0
        shutil.copy(template, self.path)
        shutil.copytree(folder_of(template), folder_of(self.path))
        self.reopen()

    def reopen(self) -> None:
        """Record with a tracer of its own from here on, whose thread does nothing by itself."""
        wait_s = 0.001 if self.durability == "commit" else STANDARD.recording_wait_s  # for the file that `fill` locks
        tuning = STANDARD._replace(drain_tick_s=60, recording_wait_s=wait_s)
        self.tracer = Tracer(self.path, durability=self.durability, tuning=tuning)
        self.transitions = 0

    def close(self) -> None:
        """Leave nothing open."""
        self.tracer.shutdown()

    def abandon(self) -> None:
        """Leave everything as it is, and in the way of nobody."""
        recorder_of(self.tracer).is_closed = True

    def problems(self) -> Iterator[str]:
        """Say what an interrupted operation has left."""
        other = sqlite3.connect(self.path, isolation_level=None, timeout=30)
        try:
            other.execute("begin immediate")
            other.execute("rollback")
        except sqlite3.OperationalError:
            yield "an open transaction"
        finally:
            other.close()
        thread = threading.Thread(target=self.span, daemon=True)
        known = len(self.acknowledged)
        thread.start()
        thread.join(BOUND_S)
        if thread.is_alive():
            yield "another thread waits for ever"
            return
        if len(self.acknowledged) == known:
            yield "another thread cannot record"
        if self.tracer.current_span() is not None or self.tracer.current_run() is not None:
            yield "what was active is so still"
            recorder_of(self.tracer).current.set(None)
        self.span()
        if not self.tracer.flush(30):
            yield "it does not flush"
        health = self.tracer.health()
        if health.failed or health.waiting:
            yield f"{health}"
        if health.recorded < self.transitions:
            yield "health() counts less than what was acknowledged"
        for _ in range(100 if self.adopts else 0):  # the tracer's own thread may be adopting it at this moment
            with agentspan.open(self.path) as db:
                db.agent_instances.list()
            if {writer_of(path) for path in segments(folder_of(self.path))} <= {recorder_of(self.tracer).writer_id}:
                break
            time.sleep(0.1)
        reader = sqlite3.connect(self.path)
        there = {id for (id,) in reader.execute("select id from agent_spans where status = 'complete'")}
        more = reader.execute("select count(*) from agent_spans").fetchone()[0]
        more += reader.execute("select count(*) from agent_instances").fetchone()[0]
        refused = reader.execute("select count(*) from refused_changes").fetchone()[0]
        reader.close()
        if refused:
            yield "a change was refused"
        if not there >= set(self.acknowledged):
            yield "an acknowledged span is not there"
        if health.recorded > 2 * more:
            yield "health() counts more than there can be"


@cache
def dead_journal() -> tuple[Path, list[str]]:
    """Make a file with the journal of a killed process beside it; return it, and the ids of finished spans."""
    path = Path(mkdtemp()) / "runs.db"
    code = """
import agentspan, os, sys
from dataclasses import replace
from agentspan.tuning import STANDARD
agentspan.configure(sys.argv[1], tuning=STANDARD._replace(drain_tick_s=60))
with agentspan.run("a"):
    for number in range(5):
        with agentspan.span("tool", {"name": "x"}) as span:
            pass
        print(span.id, flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True, check=False)
    connection = sqlite3.connect(path)
    connection.execute("pragma wal_checkpoint(truncate)")
    connection.close()
    return path, done.stdout.split()


def with_block(world: World) -> Callable[[], object]:
    """A with-block, with its run."""

    def operation() -> None:
        with world.tracer.span("tool", {"name": "x", "arguments": {"query": "q"}}) as span:
            span.set_result({"output": "y"})

    return operation


def decorated_call(world: World) -> Callable[[], object]:
    """A decorated call, within a run that began before."""

    @world.tracer.span
    def call(query: str) -> str:
        return query

    def operation() -> None:
        call("q")

    return operation


def run_block(world: World) -> Callable[[], object]:
    """A run with two spans."""

    def operation() -> None:
        with world.tracer.run("a", metadata={"x": 1}) as run:
            span = run.create_span("tool", {"name": "y"}, status="active")
            span.finish()
            with world.tracer.span("tool", {"name": "x"}):
                pass

    return operation


def finish_by_id(world: World) -> Callable[[], object]:
    """A span that is finished by its id."""
    db = agentspan.open(world.path)
    run = db.agent_instances.register("by-id")
    span = db.agent_spans.create(run.id, "tool", "active", {"name": "x"})

    def operation() -> None:
        db.agent_spans.finish(span.id, "complete", {"output": "y"})

    return operation


def bulk(world: World) -> Callable[[], object]:
    """Several operations by id in one commit."""
    db = agentspan.open(world.path)
    run = db.agent_instances.register("by-id")
    item = {"_type": "agent_spans/create", "agent_instance_id": run.id, "schema_name": "tool", "status": "active"}
    items = [{**item, "payload": {"name": "x"}, "idempotency_key": f"{run.id}-{number}"} for number in range(2)]

    def operation() -> None:
        db.bulk(items)

    return operation


def flush(world: World) -> Callable[[], object]:
    """Writing what waits: a drain, or a flush."""
    world.fill()
    return world.tracer.flush


def read(world: World) -> Callable[[], object]:
    """Opening the file, reading from it what the journal has, and closing it."""
    world.fill()

    def operation() -> None:
        with agentspan.open(world.path) as db:
            assert len(list(db.agent_instances.list())) > 0

    return operation


def shut_down(world: World) -> Callable[[], object]:
    """The end of a tracer, which is asked for again where it was interrupted; then a new one records."""
    world.fill()
    tracer = world.tracer

    def operation() -> None:
        try:
            tracer.shutdown()
        finally:
            sys.setprofile(None)
            tracer.shutdown()
            world.reopen()

    return operation


def adopt(world: World) -> Callable[[], object]:
    """Opening a file beside which a process that was killed has left its journal."""
    world.put_dead_journal()
    world.adopts = True

    def operation() -> None:
        with agentspan.open(world.path) as db:
            assert len(list(db.agent_instances.list())) > 0

    return operation


OPERATIONS = (with_block, decorated_call, run_block, finish_by_id, bulk, flush, read, shut_down, adopt)


class Result(NamedTuple):
    """What became of one operation.

    Attributes:
        points: how many there are.
        tried: at how many of them it was interrupted.
        swallowed: where the exception did not arrive.
        problems: what was left, by where the exception came.
    """

    points: int
    tried: int
    swallowed: list[str]
    problems: list[tuple[str, str]]


def interrupted(
    folder: Path,
    durability: str,
    prepare: Callable[[World], Callable[[], object]],
    numbers: Callable[[int], Iterable[int]],
    error: type[BaseException] = Interrupt,
    *,
    keep: bool = True,
) -> Result:
    """Interrupt an operation at some of its points.

    Args:
        numbers: which of so many points.
        keep: whether the exception is kept meanwhile, and so what only its traceback refers to.
    """
    world = new_world(folder, durability)
    prepare(world)()  # imports, and what is done once
    operation = prepare(world)
    with Points() as counted:
        operation()
    tried, swallowed, problems = 0, [], []
    for number in numbers(counted.count):
        operation = prepare(world)
        points = Points(number, error)
        arrived = False
        try:
            with points:
                operation()
        except error as interrupt:
            arrived = True
            if keep:
                sys.last_value = interrupt  # as a notebook does, with all the frames of its traceback
        if points.where:
            tried += 1
            if not arrived:
                swallowed.append(points.where)
        found = list(world.problems())
        problems += [(points.where, each) for each in found]
        if found:
            world.abandon()
            world = new_world(folder, durability)
    world.close()
    return Result(counted.count, tried, swallowed, problems)


_numbers = itertools.count()


def new_world(folder: Path, durability: str) -> World:
    """Make a world in a folder of its own."""
    own = folder / str(next(_numbers))
    own.mkdir(parents=True)
    return World(own, durability)
