"""`propagate`: what is called elsewhere is nested where it was propagated: in any thread, any time, unpickled too."""

import asyncio
import contextvars
import functools
import pickle
import threading
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan import Tracer
from agentspan.recording.blocks import RunBlock
from agentspan.recording.recorder import Recorder
from agentspan.recording.tracer import forget, recorder_of
from agentspan.testing import CapturedRuns
from tests.tiers import every


@agentspan.span
def step(name: str) -> str:
    return name


class Agent:
    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix

    def method(self, name: str) -> str:
        return step(self.prefix + name)

    @classmethod
    def made(cls, name: str) -> str:
        return step(name)

    __call__ = method

    async def later(self, name: str) -> str:
        await asyncio.sleep(0)
        return step(self.prefix + name)


async def later(name: str) -> str:
    await asyncio.sleep(0)
    return step(name)


def items(name: str) -> Generator[str, None, str]:
    yield step(name)
    return name


async def async_items(name: str) -> AsyncIterator[str]:
    await asyncio.sleep(0)
    yield step(name)


def result_of(made: Any) -> Any:
    """What a call gives in the end, whatever kind of function was called."""
    if hasattr(made, "__await__"):

        async def wait() -> Any:
            return await made

        return asyncio.run(wait())
    if hasattr(made, "__anext__"):

        async def consume() -> list[Any]:
            return [item async for item in made]

        return asyncio.run(consume())[0]
    return next(iter(list(made))) if hasattr(made, "__next__") else made


def in_a_thread(call: Callable[[], Any]) -> Any:
    """Call in a thread, which knows nothing of what is active here."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


CALLABLES: dict[str, Any] = {
    "decorated function": step,
    "function": Agent.made,
    "bound method": Agent().method,
    "callable object": Agent(),
    "partial": functools.partial(step),
    "coroutine function": later,
    "coroutine method": Agent().later,
    "partial of a coroutine function": functools.partial(later),
    "generator function": items,
    "async generator function": async_items,
}


@pytest.fixture
def default(tmp_path: Path) -> Tracer:
    """The tracer of the package's functions, on a file."""
    return agentspan.configure(tmp_path / "runs.db", raise_errors=True)


@pytest.mark.parametrize("how", every(2, ["as it is", "pickled", "twice"]))
@pytest.mark.parametrize("kind", CALLABLES)
def test_any_callable_nests_where_it_was_propagated(default: Tracer, kind: str, how: str) -> None:
    with agentspan.run("main"), agentspan.span("chain", {"name": "boss"}):
        carried = agentspan.propagate(CALLABLES[kind])
        if how == "pickled":
            carried = pickle.loads(pickle.dumps(carried))
        if how == "twice":
            carried = agentspan.propagate(carried)
    with agentspan.run("other"):
        assert in_a_thread(lambda: result_of(carried("x"))) == "x"
        assert result_of(carried(name="y")) == "y"
        assert agentspan.current_span() is None
    assert [(run.name, run.tree()) for run in CapturedRuns(default.storage)] == [
        ("main", "chain boss\n  tool step\n  tool step"),
        ("other", ""),
    ]
    assert default.health()[1:5] == (0, 0, 0, 0)


def test_many_threads_may_call_the_same_at_once(default: Tracer) -> None:
    gate = threading.Barrier(8)

    @agentspan.span("chain")
    def work(name: str) -> None:
        gate.wait()
        for _ in range(10):
            step(name)

    with agentspan.run("main"), agentspan.span("agent", {"name": "boss"}), ThreadPoolExecutor(8) as pool:
        list(pool.map(agentspan.propagate(work), "abcdefgh"))
    (boss,) = CapturedRuns(default.storage).one().roots
    assert sorted(child.payload["arguments"]["name"] for child in boss.children) == list("abcdefgh")
    for child in boss.children:
        assert [below.arguments for below in child.children] == [child.payload["arguments"]] * 10


def test_a_thread_may_be_given_to_a_method_of_asyncio(default: Tracer) -> None:
    async def main() -> None:
        with agentspan.run("main"), agentspan.span("chain", {"name": "boss"}):
            carried = agentspan.propagate(later)
            await asyncio.gather(carried("a"), asyncio.to_thread(asyncio.run, carried("b")))

    asyncio.run(main())
    CapturedRuns(default.storage).one().assert_tree("chain boss\n  tool step\n  tool step")


def test_a_thread_itself_may_be_given_it(default: Tracer) -> None:
    with agentspan.run("main"):
        threads = [threading.Thread(target=agentspan.propagate(step), args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        timer = threading.Timer(0, agentspan.propagate(step), ("c",))
        timer.start()
        timer.join()
    CapturedRuns(default.storage).one().assert_tree("tool step\n" * 3)


def test_what_is_called_after_the_run_ended_is_still_nested_in_it(default: Tracer) -> None:
    with agentspan.run("main"), agentspan.span("chain", {"name": "boss"}):
        carried = agentspan.propagate(step)
    carried("late")
    carried("later")
    CapturedRuns(default.storage).one().assert_tree("chain boss\n  tool step\n  tool step")


@pytest.mark.parametrize("pickled", [False, True])
def test_where_nothing_is_active_it_changes_nothing(default: Tracer, pickled: bool) -> None:
    carried = agentspan.propagate(step)
    if pickled:
        carried = pickle.loads(pickle.dumps(carried))
    with agentspan.run("main"):
        in_a_thread(lambda: carried("x"))
    assert {run.name: run.tree() for run in CapturedRuns(default.storage)} == {
        "main": "",
        CapturedRuns(default.storage).last.name: "tool step",
    }


def test_it_works_before_anything_is_configured() -> None:
    agentspan.shutdown()
    assert agentspan.propagate(step)("x") == "x"


def test_each_call_has_context_variables_of_its_own(default: Tracer) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    def call() -> str:
        before = variable.get()
        variable.set("changed by a call")
        return before

    variable.set("set by the caller")
    carried = agentspan.propagate(call)
    variable.set("set later")
    assert [in_a_thread(carried), carried(), carried()] == ["set by the caller"] * 3
    assert variable.get() == "set later"


def test_exceptions_come_through(default: Tracer) -> None:
    error = KeyError("x")

    def fail() -> None:
        raise error

    with pytest.raises(KeyError) as caught:
        in_a_thread(agentspan.propagate(fail))
    assert caught.value is error


def test_it_looks_like_what_it_calls() -> None:
    carried = agentspan.propagate(step)
    assert (carried.__name__, carried.__doc__) == ("step", step.__doc__)
    assert carried.__wrapped__ is step  # type: ignore[attr-defined]
    assert repr(carried).startswith("<propagated <function step")


def test_closing_a_coroutine_elsewhere_leaves_the_closers_context_alone(default: Tracer) -> None:
    class Forever:
        def __await__(self) -> Generator[None]:
            yield

    async def wait() -> None:
        await Forever()

    with agentspan.run("one"):
        carried = agentspan.propagate(wait)
    with agentspan.run("two"):
        coroutine = carried()
        contextvars.copy_context().run(coroutine.send, None)
    with agentspan.run("three") as run, agentspan.span("tool", {"name": "x"}) as span:
        coroutine.close()
        assert agentspan.current_span() is span
        assert agentspan.current_run() is run


def test_a_run_that_was_pickled_in_its_own_process_still_learns_of_its_termination(default: Tracer) -> None:
    told: list[str] = []
    with agentspan.run("main", on_terminate=lambda run: told.append(run.id)) as run:
        pickle.loads(pickle.dumps(agentspan.propagate(step)))("x")
        agentspan.open(default.storage).agent_instances.terminate(run.id, "enough")
        pickle.loads(pickle.dumps(agentspan.propagate(step)))("y")
        assert (run.terminated, told) == (True, [run.id])


def test_what_a_memory_storage_holds_stays_and_the_function_runs(default: Tracer) -> None:
    tracer = agentspan.configure(":memory:", raise_errors=True)
    with agentspan.run("main"), agentspan.span("chain", {"name": "boss"}):
        carried = pickle.dumps(agentspan.propagate(step))
    assert in_a_thread(lambda: pickle.loads(carried)("x")) == "x"
    main, other = CapturedRuns(tracer.storage)
    assert (main.tree(), other.tree()) == ("chain boss", "tool step")


def test_a_process_that_records_elsewhere_goes_on_doing_so(default: Tracer, tmp_path: Path) -> None:
    with agentspan.run("main"):
        carried = pickle.dumps(agentspan.propagate(step))
    other = agentspan.configure(tmp_path / "other.db", raise_errors=True)
    assert pickle.loads(carried)("x") == "x"
    assert [run.tree() for run in CapturedRuns(other.storage)] == ["tool step"]
    with agentspan.testing.load(tmp_path / "runs.db") as runs:
        assert runs.one().tree() == ""


def test_what_cannot_be_pickled_by_itself_cannot_be_pickled_with_a_run(default: Tracer) -> None:
    def local() -> None:
        pass

    with agentspan.run("main"), pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(agentspan.propagate(local))


def test_a_process_without_the_rule_for_secrets_records_no_value(tmp_path: Path) -> None:
    """As another process sees it: it is not configured, and what arrives has a rule that could not be pickled."""
    agentspan.configure(tmp_path / "runs.db", redact=lambda name, value: "***" if name == "name" else value)
    with agentspan.run("main"):
        carried = pickle.dumps(agentspan.propagate(step))
        assert pickle.loads(carried)("secret") == "secret"  # a process that has the rule
    agentspan.shutdown()
    forget()
    assert pickle.loads(carried)("secret") == "secret"
    agentspan.shutdown()
    with agentspan.testing.load(tmp_path / "runs.db") as runs:
        # Without the rule, nobody can say what is secret: there nothing is shown.
        assert [span.arguments for span in runs.one().spans] == [{"name": "***"}, {"name": "[redacted]"}]


def test_a_run_that_threads_enter_at_once_is_a_run_in_each(default: Tracer) -> None:
    gate = threading.Barrier(4)

    def together() -> Recorder:
        gate.wait()  # every thread is about to begin, none has
        return recorder_of(default)

    shared = RunBlock(together, "shared")

    def enter() -> None:
        with shared as run:
            gate.wait()
            step(run.id)

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(enter) for _ in range(4)]:
            future.result()
    runs = list(CapturedRuns(default.storage))
    assert [(run.status, len(run.spans)) for run in runs] == [("complete", 1)] * 4
    assert all(run.spans[0].arguments == {"name": run.id} for run in runs)


def test_a_run_that_was_finished_or_terminated_inside_its_block_is_not_entered_twice(tracer: Tracer) -> None:
    shared = tracer.run("shared")
    with shared as outer:
        outer.finish()
        with shared as inner:
            assert inner is not outer
    with shared as outer:
        agentspan.open(tracer.storage).agent_instances.terminate(outer.id, "enough")
        with tracer.span("tool", {"name": "late"}), shared as inner:
            assert inner is not outer
            assert not inner.terminated
    with shared as again:
        assert again.status == "active"
    assert [run.status for run in CapturedRuns(tracer.storage)] == [
        "complete",
        "complete",
        "terminated",
        "complete",
        "complete",
    ]


def test_the_run_that_is_active_is_no_block(tracer: Tracer) -> None:
    with tracer.span("tool", {"name": "outer"}):
        implicit = tracer.current_run()
        assert implicit is not None
        with pytest.raises(TypeError, match="context manager"), implicit:  # type: ignore[attr-defined]
            pass
        assert implicit.status == "active"
