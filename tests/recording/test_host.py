"""The program that is recorded is not changed: its iterators, its exceptions, its blocks in any order, its forks."""

import asyncio
import functools
import io
import os
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import agentspan
from agentspan import Tracer
from agentspan.host import Thread, is_readable
from agentspan.model.changes import Unit
from agentspan.recording.span_and_run import state_of
from agentspan.recording.tracer import recorder_of
from agentspan.tuning import STANDARD
from tests.recording.stored import runs_of, spans_of
from tests.waiting import until


@dataclass
class Box:
    content: Any


class Model(BaseModel):
    content: Any


@pytest.mark.parametrize(
    "wrap",
    [lambda x: x, lambda x: [x], lambda x: {"a": (x,)}, Box, lambda x: Model(content=x), lambda x: deque([Box(x)])],
)
@pytest.mark.parametrize(
    "make",
    [
        lambda: (number for number in (1, 2, 3)),
        lambda: iter([1, 2, 3]),
        lambda: map(int, "123"),
        lambda: filter(None, (1, 2, 3)),
        lambda: zip((1, 2, 3), "abc", strict=True),
        lambda: reversed((1, 2, 3)),
        lambda: io.StringIO("1\n2\n3\n"),
        lambda: enumerate("abc"),
    ],
)
def test_iterators_are_not_used_up(tracer: Tracer, make: Any, wrap: Any) -> None:
    @tracer.span
    def through(value: Any) -> Any:
        return value

    stream = make()
    assert through(wrap(stream)) is not None
    with tracer.span("custom", {"stream": wrap(stream)}) as span:
        span.set_result({"stream": wrap(stream)})
    assert len(list(stream)) == 3
    assert tracer.health().failed == 0
    assert [span.status for span in spans_of(tracer)] == ["complete", "complete"]


def test_circles_of_any_width_are_cut(tracer: Tracer) -> None:
    circle: list[Any] = [object()]
    circle += [circle] * 5
    mapping: dict[str, Any] = {"x": object()}
    mapping.update(a=mapping, b=[mapping, mapping])
    plain: list[Any] = []
    plain += [plain] * 5
    for value in (circle, mapping, plain):
        with tracer.span("custom", {"value": value}):
            pass
    texts = [str(span.payload) for span in spans_of(tracer)]
    assert ["$not_json" in text for text in texts] == [True, True, True]


def test_blocks_that_end_in_another_order_leave_no_finished_parent(tracer: Tracer) -> None:
    def step(name: str) -> Iterator[None]:
        with tracer.span("chain", {"name": name}):
            yield

    with tracer.run("a") as run:
        first, second = step("1"), step("2")
        next(first)
        next(second)
        first.close()  # type: ignore[attr-defined]
        second.close()  # type: ignore[attr-defined]
        assert tracer.current_span() is None
        assert tracer.current_run() is run
    assert tracer.current_run() is None


def test_a_run_object_that_tasks_share_is_a_run_in_each_of_them(tracer: Tracer) -> None:
    shared = tracer.run("shared")

    async def job(number: int) -> None:
        async with shared as run:
            for _ in range(number):
                await asyncio.sleep(0)
            with tracer.span("tool", {"name": str(number)}):
                assert tracer.current_run() is run
            run.set_result({"number": number})

    async def main() -> None:
        await asyncio.gather(*(job(number) for number in (3, 1, 2)))

    asyncio.run(main())
    with shared, shared:
        pass
    found = runs_of(tracer)
    assert [run.status for run in found] == ["complete"] * 5
    assert [run.result for run in found[:3]] == [{"number": 3}, {"number": 1}, {"number": 2}]
    assert [run.span_counts.complete for run in found] == [1, 1, 1, 0, 0]


def test_methods_of_classes_are_recorded_whichever_decorator_stands_above(tracer: Tracer) -> None:
    class Agent:
        @tracer.span
        @staticmethod
        def one(number: int) -> int:
            return number

        @tracer.span("tool")
        @classmethod
        def two(cls, number: int) -> int:
            return number

    assert (Agent.one(1), Agent().one(1), Agent.two(2), Agent().two(2)) == (1, 1, 2, 2)
    assert [span.payload["arguments"] for span in spans_of(tracer)] == [{"number": 1}] * 2 + [{"number": 2}] * 2


def test_partials_callable_objects_and_builtins_are_recorded(tracer: Tracer) -> None:
    class Search:
        def __call__(self, query: str) -> str:
            return query

    class Fetch:
        async def __call__(self, url: str) -> str:
            return url

    def add(a: int, b: int) -> int:
        return a + b

    assert tracer.span(functools.partial(add, 1))(2) == 3
    assert tracer.span(Search())("q") == "q"
    assert asyncio.run(tracer.span(Fetch())("u")) == "u"
    assert tracer.span(len)([1, 2]) == 2
    assert [(span.label, span.result_payload["output"]) for span in spans_of(tracer)] == [
        ("add", 3),
        ("Search", "q"),
        ("Fetch", "u"),
        ("len", 2),
    ]


def test_what_cannot_be_decorated_says_so_at_once(tracer: Tracer) -> None:
    with pytest.raises(TypeError, match="only functions can be recorded"):
        tracer.span("tool")(7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a run has a name"):
        agentspan.run(lambda: None)  # type: ignore[arg-type]

    def numbers() -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match="generator function cannot be a run"):
        tracer.run("a")(numbers)


def test_a_dict_of_any_kind_is_the_result(tracer: Tracer) -> None:
    @tracer.span
    def give() -> dict[str, int]:
        return OrderedDict(a=1)

    give()
    assert spans_of(tracer)[0].result_payload == {"a": 1}


def test_a_parameter_called_name_does_not_take_the_functions(tracer: Tracer) -> None:
    @tracer.span("chain")
    def greet(name: str) -> None: ...

    greet("Ada")
    assert spans_of(tracer)[0].payload == {"name": "greet", "arguments": {"name": "Ada"}}


def test_the_truth_of_a_payload_is_not_asked(tmp_path: Path) -> None:
    class Frame(dict[str, int]):
        def __bool__(self) -> bool:
            raise ValueError("the truth of a frame is ambiguous")

    tracer = Tracer(tmp_path / "runs.db")
    with tracer.span("custom", Frame(a=1)):
        pass
    assert spans_of(tracer)[0].payload == {"a": 1}
    tracer.shutdown()


def test_spans_made_with_nonsense_are_recorded_as_what_can_be(tmp_path: Path) -> None:
    tracer = Tracer(tmp_path / "runs.db")
    nonsense: Any = "nonsense"
    with tracer.run("a") as run:
        run.create_span("tool\ud800\n" * 300, {"name": "x"}, status=nonsense, parent=nonsense).cancel()
        run.finish(nonsense)
    (span,) = spans_of(tracer)
    assert (span.status, span.parent_span_id) == ("cancelled", None)
    assert span.schema_name.isprintable()
    assert runs_of(tracer)[0].status == "complete"
    tracer.shutdown()


def test_a_strict_refusal_outside_a_run_closes_the_run_too(tmp_path: Path) -> None:
    tracer = Tracer(tmp_path / "runs.db", strict_schemas=True)
    with tracer.span("llm", {"temperature": "hot"}):
        pass
    assert [run.status for run in runs_of(tracer)] == ["complete"]
    tracer.shutdown()


def test_the_programs_exception_comes_first_even_when_faults_are_raised() -> None:
    class Closing(agentspan.MemoryStorage):
        broken = False

        def apply(self, units: Any, **options: Any) -> Any:
            if self.broken:
                raise ZeroDivisionError
            return super().apply(units, **options)

    storage = Closing()
    tracer = Tracer(storage, raise_errors=True)
    error = KeyError("theirs")

    @tracer.run("a")
    @tracer.span
    def work() -> None:
        storage.broken = True
        raise error

    with pytest.raises(KeyError) as caught:
        work()
    assert caught.value is error


def test_an_async_generator_that_is_closed_while_it_waits_ends(tracer: Tracer) -> None:
    class Forever:
        def __await__(self) -> Generator[None]:
            yield

    @tracer.span("chain")
    async def letters() -> AsyncIterator[str]:
        yield "a"
        await Forever()

    async def consume() -> None:
        async for _ in letters():
            pass

    coroutine = consume()
    coroutine.send(None)
    coroutine.close()
    (span,) = spans_of(tracer)
    assert (span.status, span.result_payload) == ("complete", {"output": ["a"], "stopped": "closed"})


def test_a_tracer_stays_with_its_file_after_a_change_of_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    tracer = Tracer("runs.db", raise_errors=True)
    monkeypatch.chdir(tmp_path / "sub")
    with tracer.run("a"):
        pass
    tracer.shutdown()
    assert not (tmp_path / "sub" / "runs.db").exists()
    assert agentspan.open(tmp_path / "runs.db").agent_instances.list().pagination.item_count == 1


def test_a_tracer_that_was_shut_down_by_hand_is_replaced(tmp_path: Path) -> None:
    agentspan.configure(tmp_path / "runs.db", raise_errors=True).shutdown()
    with agentspan.run("a") as run:
        assert run.id
    agentspan.get_tracer().shutdown()
    agentspan.configure(tmp_path / "runs.db", raise_errors=True)
    with agentspan.run("a") as run:
        assert run.id


def test_one_bad_unit_does_not_cost_what_waits_with_it(tmp_path: Path) -> None:
    tracer = Tracer(tmp_path / "runs.db", durability="commit")
    other = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
    with tracer.run("a") as run:
        other.execute("begin immediate")
        for number in range(5):
            run.create_span("tool", {"name": str(number)})
        bad = run.create_span("tool", {"name": "bad"})
        waiting: Any = recorder_of(tracer).sink.backlog.units  # type: ignore[union-attr]
        put = waiting.pop().changes[0]
        waiting.append(Unit((put._replace(row=put.row._replace(summary=object())),)))
        other.execute("rollback")
        assert tracer.flush()
    other.close()
    assert [span.label for span in spans_of(tracer)] == list("01234")
    assert bad.id not in {span.id for span in spans_of(tracer)}
    assert tracer.health()[1:5] == (1, 0, 0, 0)
    tracer.shutdown()


@pytest.mark.parametrize("durability", ["journal", "commit"])
def test_flushing_in_one_thread_does_not_hold_up_the_others(tmp_path: Path, durability: Any) -> None:
    tracer = Tracer(tmp_path / "runs.db", durability=durability)
    other = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
    with tracer.run("a"):
        other.execute("begin immediate")
        with tracer.span("tool", {"name": "waits"}):
            pass
        flusher = threading.Thread(target=tracer.flush, args=(60.0,))
        flusher.start()
        sink: Any = recorder_of(tracer).sink
        flushing = sink.work.drain.lock if recorder_of(tracer).destination.is_journaled else sink.backlog._flushing
        until(lambda: f"owner={flusher.ident} " in repr(flushing))
        with tracer.span("tool", {"name": "meanwhile"}):
            pass
        assert flusher.is_alive()
        other.execute("rollback")
        flusher.join()
    other.close()
    assert [span.status for span in spans_of(tracer)] == ["complete", "complete"]
    tracer.shutdown()


def test_a_fork_while_another_thread_configures_does_not_hang_the_child(tmp_path: Path) -> None:
    code = f"""
import os, signal, threading, time, agentspan
from agentspan.recording import tracer as tracing
is_held = threading.Event()
def hold():
    with tracing._lock:
        is_held.set()
        time.sleep(2)
threading.Thread(target=hold, daemon=True).start()
is_held.wait()
child = os.fork()
if child == 0:
    signal.alarm(60)
    agentspan.configure({str(tmp_path / "runs.db")!r})
    with agentspan.run("child") as run:
        os._exit(0 if run.id else 3)
print(os.waitpid(child, 0)[1])
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


def test_a_forked_child_does_not_write_what_its_parent_has_waiting(tmp_path: Path) -> None:
    tracer = Tracer(tmp_path / "runs.db", durability="commit")
    other = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
    with tracer.run("a"):
        other.execute("begin immediate")
        with tracer.span("tool", {"name": "x"}):
            pass
        child = os.fork()
        if child == 0:
            os._exit(0 if tracer.health().waiting == 0 else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert tracer.health().waiting == 2
        other.execute("rollback")
    other.close()
    tracer.shutdown()


def test_a_run_that_a_child_stored_for_its_killed_parent_has_a_program(tmp_path: Path) -> None:
    code = f"""
import os, signal
from agentspan import Tracer
tracer = Tracer({str(tmp_path / "runs.db")!r}, durability="commit")
with tracer.run("parent"):
    parent = os.getpid()
    if os.fork():
        os.kill(parent, signal.SIGKILL)
    input()
    with tracer.run("child"):
        pass
    tracer.flush()
    os._exit(0)
"""
    agentspan.SQLiteStorage(tmp_path / "runs.db").close()
    other = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
    other.execute("begin immediate")
    command = [sys.executable, "-W", "ignore", "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        parent.wait()
        other.execute("rollback")
        other.close()
        parent.communicate(b"\n")  # until the child has ended, too
    with agentspan.open(tmp_path / "runs.db") as db:
        db.doctor()
        ended = {db.agents.get(run.agent_id).name: (run.status, run.closed_by) for run in db.agent_instances.list()}
    assert ended == {"parent": ("failed", "abandoned"), "child": ("complete", None)}


WAITS_FOR_SIGNALS = """
import faulthandler, os, resource, signal, sqlite3, sys, threading, time
import agentspan

def thread():
    return next((each for each in threading.enumerate() if each.name == "agentspan-journal"), None)

agentspan.configure(sys.argv[1])
file = sqlite3.connect(sys.argv[1])
with agentspan.run("waits"):
    while file.execute("select count(*) from agent_spans").fetchone() == (0,):  # until the thread has drained some
        with agentspan.span("step"):
            time.sleep(0.001)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        assert thread() is not None
        os.kill(os.getpid(), number)
        assert signal.sigwait({signal.SIGTERM, signal.SIGINT}) == number
print("waited", flush=True)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
faulthandler.enable()
signal.pthread_kill(thread().ident, signal.SIGSEGV)  # as where it crashes
time.sleep(60)
"""


def test_a_program_that_waits_for_signals_gets_them(tmp_path: Path) -> None:
    agentspan.SQLiteStorage(
        tmp_path / "runs.db"
    ).close()  # sqlite-utils makes a file, and imports numpy, which starts threads
    command = [sys.executable, "-c", WAITS_FOR_SIGNALS, str(tmp_path / "runs.db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("waited\n", -signal.SIGSEGV)
    assert "Fatal Python error: Segmentation fault" in done.stderr


def test_a_finished_span_that_is_kept_does_not_keep_those_around_it(tracer: Tracer) -> None:
    with tracer.run("a"), tracer.span("agent", {"name": "x"}), tracer.span("tool", {"name": "y"}) as kept:
        pass
    assert state_of(kept).outer is None


def test_text_that_waits_is_bounded(tmp_path: Path) -> None:
    tracer = Tracer(tmp_path / "runs.db", durability="commit", tuning=STANDARD._replace(backlog_characters=5000))
    other = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
    with tracer.run("a") as run:
        other.execute("begin immediate")
        for _ in range(10):
            run.create_span("tool", {"name": "x" * 1000})
        assert 0 < tracer.health().waiting < 10
        assert tracer.health().failed == 10 - tracer.health().waiting
        other.execute("rollback")
    other.close()
    tracer.shutdown()


def test_errors_and_names_can_be_read_by_every_sqlite(tmp_path: Path) -> None:
    tracer = Tracer(tmp_path / "runs.db", raise_errors=True)
    with pytest.raises(ValueError, match=r"\ud800"), tracer.run("a"), tracer.span("tool", {"name": "\ud800"}):
        raise ValueError("\ud800")
    assert tracer.flush()
    connection = sqlite3.connect(tmp_path / "runs.db")
    assert connection.execute("select error from runs").fetchall() == [("ValueError: ?",)]
    assert connection.execute("select error from spans").fetchall() == [("ValueError: ?",)]
    connection.close()
    tracer.shutdown()


def test_a_flush_that_gets_nowhere_ends(tmp_path: Path) -> None:
    class Stubborn(agentspan.MemoryStorage):
        calls = 0
        broken = False

        def apply(self, units: Any, **options: Any) -> Any:
            if not self.broken:
                return super().apply(units, **options)
            self.calls += 1
            if self.calls > 20:
                raise SystemExit("it never ends")
            raise ZeroDivisionError if len(units) > 1 else agentspan.DatabaseBusy("busy")

    storage = Stubborn()
    tracer = Tracer(storage)
    with tracer.run("a") as run:
        storage.broken = True
        for _ in range(3):
            run.create_span("tool", {"name": "x"})
        assert tracer.flush() is False
        assert tracer.health().waiting == 3
        storage.broken = False
        assert tracer.flush() is True
    assert len(spans_of(tracer)) == 3


def test_two_threads_are_started_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, start = {*threading.enumerate()}, threading.Thread.start
    seen, most = set[tuple[str, bool]](), [0]

    def remember(thread: threading.Thread) -> None:
        start(thread)
        ours = {*threading.enumerate()} - before
        seen.update((each.name, isinstance(each, Thread)) for each in ours)  # such a thread blocks signals
        most.append(len(ours))

    monkeypatch.setattr(threading.Thread, "start", remember)
    for durability in ("journal", "commit"):
        storage = agentspan.SQLiteStorage(tmp_path / f"{durability}.db", tuning=STANDARD._replace(checkpoint_commits=2))
        tracer = Tracer(storage.path if durability == "journal" else storage, durability=durability)
        for number in range(8):
            with tracer.run("a"), tracer.span("tool", {"name": str(number)}):
                tracer.flush()
        other = sqlite3.connect(storage.path, isolation_level=None)
        other.execute("begin immediate")
        with tracer.run("a"), tracer.span("tool", {"name": "waits"}):
            pass
        other.close()
        tracer.shutdown()
        storage.close()
    assert seen == {(f"agentspan-{name}", True) for name in ("journal", "backlog", "checkpoint")}
    assert max(most) <= 2


@pytest.mark.parametrize("has_poll", [True, False])
def test_a_socket_is_readable_when_it_has_data_or_ended(monkeypatch: pytest.MonkeyPatch, *, has_poll: bool) -> None:
    if not has_poll:  # as on Windows
        monkeypatch.delattr(select, "poll")
    one, other = socket.socketpair()
    with one, other:
        found = [is_readable(one)]
        other.send(b"x")
        found.append(is_readable(one))
        one.recv(1)
        other.close()
        found.append(is_readable(one, 5))
        number = one.fileno()
    assert [*found, is_readable(number)] == [False, True, True, False]
