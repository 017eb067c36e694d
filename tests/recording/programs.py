"""Programs that record in ways that need a process of their own: `python -m tests.recording.programs NAME FILE ARGS…`.

What they find wrong themselves they raise; what they recorded is for their tests to look at.
"""

import asyncio
import atexit
import functools
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import agentspan
from agentspan.storage.questions import SpansOf


@agentspan.span
def step(name: str) -> str:
    return name


class Agent:
    def method(self, name: str) -> str:
        return step(name)


async def later(name: str) -> str:
    await asyncio.sleep(0)
    return step(name)


def run_later(call: Callable[[str], Any], name: str) -> Any:
    return asyncio.run(call(name))


def fail(name: str) -> None:
    with agentspan.span("tool", {"name": name}):
        raise ValueError(name)


def pool(db: str, method: str) -> None:
    """Everything that can be propagated, and one that is not, in a pool of processes."""
    agentspan.configure(db)
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        pool.submit(step, "without").result()
        with agentspan.run("main") as run, agentspan.span("agent", {"name": "boss"}):
            calls: list[Callable[[str], str]] = [
                step,
                Agent().method,
                functools.partial(Agent().method),
                functools.partial(step),
            ]
            futures = [pool.submit(agentspan.propagate(call), str(number)) for number, call in enumerate(calls)]
            futures.append(pool.submit(run_later, agentspan.propagate(later), "4"))
            assert [future.result() for future in futures] == list("01234")
            error = pool.submit(agentspan.propagate(fail), "failing").exception()
            assert repr(error) == "ValueError('failing')"
            carried = agentspan.propagate(step)
        pool.submit(carried, "late").result()
        assert run.status == "complete"
        with agentspan.run("second"):
            assert list(pool.map(agentspan.propagate(step), map(str, range(50)))) == list(map(str, range(50)))


def old_pool(db: str, method: str) -> None:
    """The same with multiprocessing's own pool and processes."""
    agentspan.configure(db)
    context: Any = multiprocessing.get_context(method)
    with agentspan.run("main"):
        with context.Pool(2) as pool:
            pool.map(agentspan.propagate(step), ["map"] * 20)
            pool.apply(agentspan.propagate(Agent().method), ("apply",))
            assert pool.apply_async(agentspan.propagate(step), ("async",)).get() == "async"
            pool.close()
            pool.join()
        process = context.Process(target=agentspan.propagate(step), args=("process",))
        process.start()
        process.join()
        assert process.exitcode == 0


def elsewhere(db: str, other: str) -> None:
    agentspan.configure(other)


def configured_otherwise(db: str, other: str) -> None:
    """The workers record into a file of their own."""
    agentspan.configure(db)
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(1, mp_context=context, initializer=elsewhere, initargs=(db, other))
    with pool, agentspan.run("main"):
        assert pool.submit(agentspan.propagate(step), "x").result() == "x"


def in_memory(db: str) -> None:
    """What is in memory cannot be recorded into from elsewhere; the function runs all the same."""
    os.environ["AGENTSPAN_DB"] = db  # where a worker records by itself
    tracer = agentspan.configure(":memory:")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool, agentspan.run("main") as run:
        assert pool.submit(agentspan.propagate(step), "x").result() == "x"
        assert list(tracer.storage.ask(SpansOf(run.id))) == []


def forks(db: str) -> None:
    """Fork in the middle of blocks, a coroutine and a generator: each child leaves them in a way of its own."""
    agentspan.configure(db)

    def wait_for(child: int) -> None:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    @agentspan.span("chain")
    def items() -> Iterator[str]:
        yield step("of the generator")
        yield step("of the generator")

    async def work() -> None:
        async with agentspan.span("chain", {"name": "coroutine"}):
            await asyncio.sleep(0)
            if (child := os.fork()) == 0:
                step("child of the coroutine")
                os._exit(0)
            wait_for(child)

    with agentspan.run("main"):
        with agentspan.span("agent", {"name": "outer"}), agentspan.span("agent", {"name": "inner"}):
            if (child := os.fork()) == 0:
                try:
                    step("child")
                    with agentspan.run("run of the child"):
                        step("its own")
                    raise ValueError  # through the blocks of the parent
                except ValueError:
                    sys.exit(0)  # once more
            wait_for(child)
            step("parent")
        asyncio.run(work())
        for _ in items():
            if (child := os.fork()) == 0:
                step("child of a consumer")
                sys.exit(0)  # which closes the generator
            wait_for(child)
    assert agentspan.flush()
    assert agentspan.health()[1:5] == (0, 0, 0, 0)


def preload(db: str) -> None:
    """Configure, then fork workers, each of which serves in threads, as gunicorn does with `preload_app`."""
    agentspan.configure(db)
    with agentspan.run("loading"):
        step("preload")
    workers = []
    for number in range(3):
        if (worker := os.fork()) == 0:
            serve(str(number))
            sys.exit(0)  # with the exit handlers, as a worker does
        workers.append(worker)
    for worker in workers:
        assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == 0


def serve(worker: str) -> None:
    gate = threading.Barrier(4)

    def thread(number: int) -> None:
        gate.wait()
        for request in range(5):
            with agentspan.run("request"):
                step(f"{worker}.{number}.{request}")

    threads = [threading.Thread(target=thread, args=(number,)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert agentspan.flush()
    assert agentspan.health()[1:5] == (0, 0, 0, 0)


def daemons(db: str, acknowledged: str) -> None:
    """Threads that still record when the interpreter ends; each transition is acknowledged when it is recorded."""
    agentspan.configure(db)
    said = os.open(acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    begun = threading.Barrier(5)

    def work() -> None:
        turns = 0
        with agentspan.run("daemon"):
            while True:
                with agentspan.span("tool", {"name": "x"}) as span:
                    os.write(said, f"active {span.id}\n".encode())
                os.write(said, f"complete {span.id}\n".encode())
                turns += 1
                if turns == 10:
                    begun.wait()

    for _ in range(4):
        threading.Thread(target=work, daemon=True).start()
    begun.wait()


class Late:
    """Records when it is collected, which is at the end of the interpreter."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.circle = self

    def __del__(self) -> None:
        with agentspan.span("tool", {"name": self.name}):
            pass


kept: list[Any] = []


def at_the_end(db: str) -> None:
    """Record in exit handlers, in finalizers when modules are torn down, and leave generators for that."""
    agentspan.configure(db)

    def bye() -> None:
        with agentspan.run("exit handler"):
            step("in it")

    @agentspan.span("chain")
    def items() -> Iterator[int]:
        yield from range(3)

    @agentspan.span("chain")
    async def async_items() -> Any:
        yield 1

    atexit.register(bye)
    generator, async_generator = items(), async_items()
    next(generator)
    try:
        anext(async_generator).send(None)
    except StopIteration:
        pass
    kept.extend([generator, async_generator, Late("in this module")])
    sys.modules["agentspan"].kept = Late("in agentspan")  # type: ignore[attr-defined]
    sys.modules["builtins"].kept = Late("in builtins")  # type: ignore[attr-defined]


def signals(db: str, durability: Any) -> None:
    """Handle signals that come in the middle of recording by recording."""
    logging.disable()  # a signal that comes while a row is written finds the file busy, and says so
    agentspan.configure(db, durability=durability)
    handled = recorded = 0

    def handle(*_: Any) -> None:
        nonlocal handled
        handled += 1
        step("handler")
        signal.setitimer(signal.ITIMER_REAL, 0.0007)

    signal.signal(signal.SIGALRM, handle)
    with agentspan.run("main"):
        step("first")  # what the first call has to import is there
        signal.setitimer(signal.ITIMER_REAL, 0.0007)
        while handled < 10:
            step("main")
            recorded += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert agentspan.flush()
    assert agentspan.health()[:5] == (4 + 2 * (recorded + handled), 0, 0, 0, 0)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
