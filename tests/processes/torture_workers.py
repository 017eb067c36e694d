"""The programs of the torture run: some record and write down what was acknowledged, others read, close and remove."""

import contextlib
import os
import random
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import agentspan
from agentspan import Run, Span, Tracer
from agentspan.model.changes import FinishStatus
from agentspan.storage.questions import Question, RemoveRuns

LINE = 110
"""Bytes of an acknowledgement: its kind, the ids of what was changed and of its run, a token, the time, a newline."""
ENDINGS = ("exit", "kill", "shutdown")
"""How a program ends by itself: with a backlog, right after an acknowledgement, or as it should."""


class Acknowledged:
    """The acknowledgements of one process and its forked children, which outlive it: a line each, written at once.

    A transition that waits in memory, because the storage is busy, is not durable yet, and `health` says so: its line
    is written once nothing waits any more.

    Args:
        path: the file of acknowledgements.
        quota: how many there are before the process ends, as `ending` says.
    """

    def __init__(self, path: Path, tracer: Tracer, quota: int, ending: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._tracer = tracer
        self._held = threading.local()
        self.quota = quota
        self.ending = ending
        self.count = 0

    def __call__(self, kind: str, id: str, run_id: str, token: int = 0) -> None:
        """Acknowledge a transition; perhaps end the process right after it."""
        if not id:
            return  # it could not be recorded, and `failed` counts that
        held = self._held.__dict__.setdefault("lines", [])
        held.append(f"{kind} {id:32} {run_id:32} {token:020d} {time.time_ns():020d}\n")
        self.count += 1
        if self._tracer.health().waiting == 0:
            for line in held:
                os.write(self._file, line.encode())
            held.clear()
        if self.is_over:
            if self.ending == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.ending == "exit":
                os._exit(0)

    def begin_again(self, quota: int, ending: str) -> None:
        """In a forked child: leave what waits in its parent's memory to its parent."""
        self._held = threading.local()
        self.count, self.quota, self.ending = 0, quota, ending

    @property
    def is_over(self) -> bool:
        """Whether the process has done its share."""
        return self.count >= self.quota


class Program:
    """A program that records at random.

    Args:
        forks: whether it forks now and then; its children record into the run that they were forked in.
    """

    def __init__(self, tracer: Tracer, said: Acknowledged, rng: random.Random, *, forks: bool) -> None:
        self._tracer = tracer
        self._said = said
        self._rng = rng
        self._forks = forks
        self._hurry = rng.random()
        self._numbers = iter(range(10**9))

    def record(self) -> None:
        """Record run after run until its share is done."""
        while not self._said.is_over:
            is_bad, token = self._rng.random() < 0.2, 0
            with contextlib.suppress(ZeroDivisionError), self._tracer.run("torture") as run:
                self._said("r", run.id, run.id)
                for _ in range(self._rng.randrange(2, 12)):
                    self._step(run, 0)
                    self._pause()
                    if self._forks and self._rng.random() < 0.02:
                        self._fork(run)
                token = self._token()
                run.set_result({"output": token})
                if is_bad:
                    raise ZeroDivisionError(token)
            self._said("x" if is_bad else "e", run.id, run.id, token)

    def _pause(self) -> None:
        """Let sixty programs live at once, and the journals be drained; at the end of its life, a program hurries."""
        if self._said.count < self._said.quota * self._hurry and self._rng.random() < 0.5:
            time.sleep(self._rng.uniform(0, 0.12))

    def _token(self) -> int:
        return time.time_ns()

    def _step(self, run: Run, depth: int) -> None:
        kinds: list[Callable[[Run, int], None]] = [self._block, self._block, self._call, self._by_hand, self._failing]
        self._rng.choice(kinds)(run, depth)
        while depth == 0 and self._rng.random() < 0.3:
            self._by_hand(run, depth)

    def _inside(self, run: Run, depth: int) -> None:
        while depth < 4 and self._rng.random() < 0.4:
            self._step(run, depth + 1)

    def _block(self, run: Run, depth: int) -> None:
        with self._tracer.span("tool", {"name": "block"}) as span:
            self._said("a", span.id, span.run.id)
            self._update(span)
            self._inside(run, depth)
            token = self._token()
            span.set_result({"output": token})
        self._said("c", span.id, span.run.id, token)

    def _failing(self, run: Run, depth: int) -> None:
        with contextlib.suppress(KeyError), self._tracer.span("tool", {"name": "failing"}) as span:
            self._said("a", span.id, span.run.id)
            self._inside(run, depth)
            token = self._token()
            raise KeyError(token)
        self._said("f", span.id, span.run.id, token)

    def _call(self, run: Run, depth: int) -> None:
        seen: list[Span] = []

        @self._tracer.span
        def called(text: str) -> int:
            span = self._tracer.current_span()
            assert span is not None
            seen.append(span)
            self._said("a", span.id, span.run.id)
            self._inside(run, depth)
            return self._token()

        token = called("x" * self._rng.choice((10, 200, 2000)))
        self._said("c", seen[0].id, seen[0].run.id, token)

    def _by_hand(self, run: Run, depth: int) -> None:
        span = run.create_span("tool", {"name": "by hand"}, status=self._rng.choice(("pending", "active")))
        self._said("p" if span.status == "pending" else "a", span.id, span.run.id)
        if span.status == "pending":
            self._update(span)
            self._inside(run, depth)
            if self._rng.random() < 0.2:
                token = self._token()
                span.cancel()
                self._said("k", span.id, span.run.id, token)
                return
            span.start()
            self._said("s", span.id, span.run.id)
        self._update(span)
        self._inside(run, depth)
        token = self._token()
        status: FinishStatus = self._rng.choice(("complete", "failed"))
        span.finish(status, {"output": token})
        self._said("c" if status == "complete" else "f", span.id, span.run.id, token)

    def _update(self, span: Span) -> None:
        if self._rng.random() < 0.2:
            number = next(self._numbers)
            span.update_payload({"arguments": {"update": number}})
            self._said("u", span.id, span.run.id, number)

    def _fork(self, run: Run) -> None:
        if os.fork() == 0:
            self._forks = False
            self._said.begin_again(self._rng.randrange(5, 40), self._rng.choice(("exit", "kill")))
            self._rng.seed(os.getpid())
            while True:
                self._step(run, 0)
                self._pause()


def record(db: Path, acknowledged: Path, quota: int, ending: str, rng: random.Random) -> None:
    """Record until the share is done, from one thread or several, with children or without, into journal or file."""
    warnings.simplefilter("ignore")  # Python 3.12 and later warn of forks among threads
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    tracer = Tracer(db, durability="commit" if rng.random() < 0.2 else "journal")
    said = Acknowledged(acknowledged, tracer, quota, ending)
    forks = rng.random() < 0.2
    programs = [
        Program(tracer, said, random.Random(rng.random()), forks=forks) for _ in range(rng.choice((1, 1, 1, 2, 4)))
    ]
    threads = [threading.Thread(target=each.record, daemon=True) for each in programs[1:]]
    for thread in threads:
        thread.start()
    programs[0].record()
    for thread in threads:
        thread.join()
    tracer.shutdown()
    note(db.with_name("helpers.log"), f"lost {tracer.health().failed}")


Step = Callable[[Path, Path, random.Random], Iterator[object]]
"""Does something again and again with one opened file, and yields after each time."""


def read(db: Path, said: Path, rng: random.Random) -> Iterator[object]:
    """Read runs and spans in three ways; that also adopts what dead processes left."""
    how = rng.randrange(3)
    if how == 2:
        with agentspan.open(db) as reading:
            yield reading.stats("-") if reading.runs(limit=20).runs else None
        return
    with agentspan.open(db, read_only=how == 1) as database:
        for _ in range(rng.choice((1, 10))):
            runs = database.agent_instances.list(sorting="-id", page_size=20)
            yield [database.agent_spans.list(run.id) for run in runs]


def examine(db: Path, said: Path, rng: random.Random) -> Iterator[object]:
    """Close what dead processes left open."""
    with agentspan.open(db) as database:
        while True:
            yield database.doctor()


def terminate(db: Path, said: Path, rng: random.Random) -> Iterator[object]:
    """Terminate runs that are active, one after the other, and write down which."""
    with agentspan.open(db) as database:
        while True:
            found = database.agent_instances.list(sorting="-id", page_size=100)
            active = [run.id for run in found if run.status == "active"]
            if active:
                id = rng.choice(active)
                note(said, f"terminating {id}")  # who is killed in between does not know
                database.agent_instances.terminate(id, "torture")
                note(said, f"terminated {id}")
            yield None


def prune(db: Path, said: Path, rng: random.Random) -> Iterator[object]:
    """Remove old runs without failures, and write down which, before they are removed."""
    with agentspan.open(db) as database:
        ask: Any = database.storage.ask

        def noted(question: Question[Any]) -> Any:
            for id in question.ids if isinstance(question, RemoveRuns) else ():
                note(said, f"pruned {id}")
            return ask(question)

        with patch.object(database.storage, "ask", noted):
            while True:
                yield database.prune(older_than=datetime.now(UTC) - timedelta(seconds=PRUNE_AFTER_S), keep_failed=True)


PRUNE_AFTER_S = 2.0
HELPERS: list[tuple[Step, float]] = [*[(read, 0.05)] * 3, *[(examine, 0.02)] * 2, (terminate, 0.05), (prune, 0.5)]
"""What goes on beside the programs that record, and how many seconds lie between two turns of it."""


def note(path: Path, line: str) -> None:
    """Write a line into a file, all of it, before the next step."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(file, f"{line}\n".encode())
    os.close(file)


def repeat(step: Step, pause_s: float, folder: Path, rng: random.Random) -> None:
    """Do something again and again, as long as nobody kills this process; note how it went."""
    said = folder / "helpers.log"
    while True:
        with noting_errors(said, step.__name__):
            for _ in step(folder / "runs.db", said, rng):
                note(said, f"turn {step.__name__}")
                time.sleep(pause_s)


@contextlib.contextmanager
def noting_errors(said: Path, who: str) -> Iterator[None]:
    """Go on after an error, and write down which one it was: its type if it is one of ours, else all of it."""
    try:
        yield
    except agentspan.AgentspanError as error:
        note(said, f"error {who}: {type(error).__name__}")
    except Exception:
        note(said, f"bug {who}: {' | '.join(traceback.format_exc().splitlines())}")
