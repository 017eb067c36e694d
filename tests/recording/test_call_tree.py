"""Any program: the tree of spans that is recorded is the tree of calls that it made, with how each of them ended.

A generated program passes on by hand where each call belongs, so the expected tree knows nothing of contexts.
"""

import asyncio
import contextvars
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from agentspan import Tracer
from agentspan.testing import CapturedRun, CapturedRuns, CapturedSpan
from tests.tiers import examples

AS_SYNC = {
    "coroutine": "call",
    "task": "call",
    "async block": "block",
    "async generator": "generator",
    "gather": "pool",
    "to_thread": "thread",
    "wait_for": "context",
}
"""What stands for a kind of step where nothing can be awaited."""
KINDS = [*AS_SYNC, "call", "block", "generator", "pool", "thread", "context", "pending", "run", "lost thread"]
AT_ONCE = ("pool", "gather")
"""Kinds whose children run at the same time, so that their order says nothing."""


class Planned(Exception):
    """What a step of a program raises."""


class Step(NamedTuple):
    """A step of a program.

    Attributes:
        kind: how it is called.
        children: what it calls; a generator calls each before an item.
        raises: whether it raises at its end.
        catches: whether it survives what its children raise.
        items: after how many items the consumer of a generator stops.
        between: what that consumer calls after each item.
    """

    kind: str
    children: "tuple[Step, ...]" = ()
    raises: bool = False
    catches: bool = True
    items: int = 9
    between: "tuple[Step, ...]" = ()


@st.composite
def programs(draw: st.DrawFn) -> Step:
    """Up to thirty steps, up to six deep."""
    room = draw(st.integers(1, 30))

    def some(depth: int, most: int) -> tuple[Step, ...]:
        count = draw(st.integers(0, most)) if depth and room > 0 else 0
        return tuple(step(depth - 1) for _ in range(count))

    def step(depth: int) -> Step:
        nonlocal room
        room -= 1
        kind = draw(st.sampled_from(KINDS))
        children = () if kind == "pending" else some(depth, 4)
        raises, catches = draw(st.sampled_from([(False, True), (False, True), (True, True), (False, False)]))
        if "generator" in kind:
            return Step(kind, children, raises, catches, draw(st.integers(0, 4)), some(depth, 1))
        return Step(kind, children, raises, catches)

    return Step("coroutine", tuple(step(5) for _ in range(draw(st.integers(1, 4)))))


@dataclass
class Call:
    """A call that was made, and those that it made."""

    name: str
    at_once: bool = False
    status: str = "complete"
    children: "list[Call]" = field(default_factory=list)

    def tree(self) -> tuple[Any, ...]:
        children = [child.tree() for child in self.children]
        return self.name, self.status, sorted(children) if self.at_once else children


@dataclass
class Program:
    """Runs steps on a tracer, and keeps the calls that they made, by runs."""

    tracer: Tracer
    runs: list[Call] = field(default_factory=list)

    def step(self, step: Step, parent: Call, name: str) -> None:
        """Make a step in a function; `parent` is the call that makes it."""
        kind = AS_SYNC.get(step.kind, step.kind)
        before = self.tracer.current_span()
        call = Call(name, kind in AT_ONCE)
        decorate = self.tracer.span("tool", {"name": name})

        def body() -> None:
            parent.children.append(call)
            self.body(step, call)

        try:
            match kind:
                case "call":
                    decorate(body)()
                case "block":
                    with self.tracer.span("tool", {"name": name}):
                        body()
                case "context":
                    contextvars.copy_context().run(decorate(body))
                case "pool":
                    decorate(lambda: (parent.children.append(call), self.pool(step, call)))()
                case "thread":
                    in_a_thread(self.tracer.propagate(decorate(body)))
                case "lost thread":
                    parent = Call("")
                    self.runs.append(parent)
                    in_a_thread(decorate(body), parent)
                case "pending":
                    self.pending(parent, call)
                case "run":
                    self.runs.append(call)
                    with self.tracer.run(name):
                        self.body(step, call)
                case "generator":
                    self.consume(step, parent, call, decorate(self.items))
        finally:
            assert self.tracer.current_span() is before

    def body(self, step: Step, call: Call) -> None:
        with Ending(step, call) as ending:
            for number, child in enumerate(step.children):
                with ending.of_a_child():
                    self.step(child, call, f"{call.name}.{number}")

    def pool(self, step: Step, call: Call) -> None:
        with Ending(step, call) as ending, ThreadPoolExecutor(3) as pool:
            carried = self.tracer.propagate(self.step)
            futures = [
                pool.submit(carried, child, call, f"{call.name}.{number}") for number, child in enumerate(step.children)
            ]
            for future in futures:
                with ending.of_a_child():
                    future.result()

    def pending(self, parent: Call, call: Call) -> None:
        run = self.tracer.current_run()
        assert run is not None
        run.create_span("tool", {"name": call.name}).cancel()
        call.status = "cancelled"
        parent.children.append(call)

    def items(self, step: Step, parent: Call, call: Call) -> Iterator[int]:
        parent.children.append(call)
        with Ending(step, call) as ending:
            for number, child in enumerate(step.children):
                with ending.of_a_child():
                    self.step(child, call, f"{call.name}.{number}")
                yield number

    def consume(self, step: Step, parent: Call, call: Call, items: Callable[..., Any]) -> None:
        with closing(items(step, parent, call)) as stream:
            for number in range(step.items):
                if next(stream, None) is None:
                    break
                for child in step.between:
                    self.step(child, parent, f"{call.name}/{number}")

    async def async_step(self, step: Step, parent: Call, name: str) -> None:
        """Make a step in a coroutine."""
        if step.kind not in AS_SYNC:
            self.step(step, parent, name)
            return
        before = self.tracer.current_span()
        call = Call(name, step.kind in AT_ONCE)
        decorate = self.tracer.span("tool", {"name": name})

        async def body() -> None:
            parent.children.append(call)
            await asyncio.sleep(0)
            await (self.gather(step, call) if step.kind == "gather" else self.async_body(step, call))

        def thread() -> None:
            parent.children.append(call)
            self.body(step, call)

        try:
            match step.kind:
                case "coroutine" | "gather":
                    await decorate(body)()
                case "task":
                    await asyncio.create_task(decorate(body)())
                case "wait_for":
                    await asyncio.wait_for(decorate(body)(), 60)
                case "async block":
                    async with self.tracer.span("tool", {"name": name}):
                        await body()
                case "to_thread":
                    await asyncio.to_thread(decorate(thread))
                case "async generator":
                    await self.async_consume(step, parent, call, decorate(self.async_items))
        finally:
            assert self.tracer.current_span() is before

    async def async_body(self, step: Step, call: Call) -> None:
        with Ending(step, call) as ending:
            for number, child in enumerate(step.children):
                with ending.of_a_child():
                    await self.async_step(child, call, f"{call.name}.{number}")

    async def gather(self, step: Step, call: Call) -> None:
        with Ending(step, call) as ending:
            children = (
                self.async_step(child, call, f"{call.name}.{number}") for number, child in enumerate(step.children)
            )
            for result in await asyncio.gather(*children, return_exceptions=True):
                with ending.of_a_child():
                    if isinstance(result, BaseException):
                        raise result

    async def async_items(self, step: Step, parent: Call, call: Call) -> AsyncIterator[int]:
        parent.children.append(call)
        with Ending(step, call) as ending:
            for number, child in enumerate(step.children):
                await asyncio.sleep(0)
                with ending.of_a_child():
                    await self.async_step(child, call, f"{call.name}.{number}")
                yield number

    async def async_consume(self, step: Step, parent: Call, call: Call, items: Callable[..., Any]) -> None:
        async with aclosing(items(step, parent, call)) as stream:
            for number in range(step.items):
                if await anext(stream, None) is None:
                    break
                for child in step.between:
                    await self.async_step(child, parent, f"{call.name}/{number}")


class Ending:
    """How a call ends: raises at its end if it is to, and fails by what comes out of it, but for being closed."""

    def __init__(self, step: Step, call: Call) -> None:
        self.step = step
        self.call = call

    def __enter__(self) -> "Ending":
        return self

    def of_a_child(self) -> "Surviving":
        return Surviving(self.step.catches)

    def __exit__(self, type_: Any, exception: BaseException | None, traceback: Any) -> None:
        if isinstance(exception, Planned) or (exception is None and self.step.raises):
            self.call.status = "failed"
        if exception is None and self.step.raises:
            raise Planned


class Surviving:
    """Swallows what a step raises, or not."""

    def __init__(self, survives: bool) -> None:
        self.survives = survives

    def __enter__(self) -> None: ...

    def __exit__(self, type_: Any, exception: BaseException | None, traceback: Any) -> bool:
        return self.survives and isinstance(exception, Planned)


def in_a_thread(call: Callable[[], None], failing: Call | None = None) -> None:
    """Call in a thread of its own, and raise here what it raises there."""
    raised: list[BaseException] = []

    def target() -> None:
        try:
            call()
        except Planned as error:
            raised.append(error)
            if failing is not None:
                failing.status = "failed"

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def recorded(span: CapturedSpan, at_once: set[str]) -> tuple[Any, ...]:
    children = [recorded(child, at_once) for child in span.children]
    return span.payload["name"], span.status, sorted(children) if span.payload["name"] in at_once else children


def forest(run: CapturedRun, at_once: set[str]) -> tuple[str, str, list[Any]]:
    name = run.name if run.name.startswith("main") else ""
    roots = [recorded(root, at_once) for root in run.roots]
    return name, run.status, sorted(roots) if run.name in at_once else roots


def calls_at_once(calls: list[Call]) -> Iterator[str]:
    for call in calls:
        if call.at_once:
            yield call.name
        yield from calls_at_once(call.children)


def check(tracer: Tracer, step: Step) -> None:
    program, main = Program(tracer), Call("main")
    program.runs.append(main)

    async def begin() -> None:
        async with tracer.run("main"):
            try:
                await program.async_step(step, main, "main.0")
            except Planned:
                main.status = "failed"
                raise

    try:
        asyncio.run(begin())
    except Planned:
        pass
    assert tracer.current_run() is None
    at_once = set(calls_at_once(program.runs))
    found = sorted(forest(run, at_once) for run in CapturedRuns(tracer.storage))
    assert found == sorted(call.tree() for call in program.runs)
    assert tracer.health()[1:5] == (0, 0, 0, 0)


@given(programs())
@settings(max_examples=examples(200))
def test_the_recorded_tree_is_the_tree_of_calls(step: Step) -> None:
    tracer = Tracer(":memory:", raise_errors=True)
    check(tracer, step)
    tracer.shutdown()


@given(programs())
@settings(max_examples=examples(10))
def test_the_recorded_tree_is_the_tree_of_calls_in_a_file(step: Step) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tracer = Tracer(Path(folder) / "runs.db", raise_errors=True)
        check(tracer, step)
        tracer.shutdown()
