"""Decorated generators: one span each, that ends once, and a generator that does what it did before."""

import asyncio
import contextvars
import gc
import sqlite3
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from agentspan import Limits, Tracer
from agentspan.testing import CapturedRuns
from tests.checkout import ROOT
from tests.recording.stored import only_span

pytestmark = pytest.mark.usefixtures("small_heap")

Stream = Generator[Any, Any, Any]
Journal = list[Any]


def deaf() -> Stream:
    try:
        yield 1
    except GeneratorExit:
        yield 2


def plain() -> Stream:
    yield 1
    yield 2
    return "end"


def test_a_generator_that_will_not_be_closed_goes_on_and_so_does_its_span(tracer: Tracer) -> None:
    stream = tracer.span("chain")(deaf)()
    next(stream)
    with pytest.raises(RuntimeError, match="generator ignored GeneratorExit"):
        stream.close()
    assert CapturedRuns(tracer.storage).one().spans[0].status == "active"
    assert next(stream, None) is None
    assert only_span(tracer).result == {"output": [1, 2]}


def test_a_generator_that_is_never_iterated_is_not_recorded(tracer: Tracer) -> None:
    for stream in (tracer.span(plain)(), tracer.span(plain)()):
        stream.close()
    assert len(CapturedRuns(tracer.storage)) == 0


def test_a_generator_delegates_to_decorated_generators(tracer: Tracer) -> None:
    step = tracer.span("tool")(lambda name: name)

    @tracer.span("chain")
    def inner(count: int) -> Stream:
        received = []
        for number in range(count):
            step(number)
            received.append((yield number))
        return received

    @tracer.span("chain")
    def outer() -> Stream:
        first = yield from inner(2)
        step("between")
        second = yield from inner(1)
        return first + second

    stream = outer()
    sent = [next(stream), stream.send("a"), stream.send("b")]
    with pytest.raises(StopIteration) as stop:
        stream.send("c")
    assert (sent, stop.value.value) == ([0, 1, 0], ["a", "b", "c"])
    run = CapturedRuns(tracer.storage).one()
    run.assert_tree("""
        chain outer
          chain inner
            tool <lambda>
            tool <lambda>
          tool <lambda>
          chain inner
            tool <lambda>
    """)
    assert [span.result for span in run.find("inner")] == [
        {"output": [0, 1], "returned": ["a", "b"]},
        {"output": [0], "returned": ["c"]},
    ]


def test_closing_the_outer_generator_ends_the_inner_one_first(tracer: Tracer) -> None:
    @tracer.span("chain")
    def outer() -> Stream:
        yield from tracer.span("chain")(plain)()

    for _ in outer():
        break
    run = CapturedRuns(tracer.storage).one()
    run.assert_tree("chain outer\n  chain plain")
    assert [span.result for span in run.spans] == [{"output": [1], "stopped": "closed"}] * 2


def test_interleaved_generators_keep_their_own_children(tracer: Tracer) -> None:
    def step(name: str) -> None:
        with tracer.span("tool", {"name": name}):
            pass

    @tracer.span("chain")
    def source(name: str) -> Stream:
        for _ in range(2):
            step(name)
            with tracer.span("agent", {"name": name}):
                step(name)
                yield name
                step(name)

    with tracer.run("a"):
        for _ in zip(source("one"), source("two"), strict=True):
            step("consumer")
    one, two = (
        f"""
        chain source
          tool {name}
          agent {name}
            tool {name}
            tool {name}
          tool {name}
          agent {name}
            tool {name}
            tool {name}"""
        for name in ("one", "two")
    )
    CapturedRuns(tracer.storage).one().assert_tree(f"""{one}{two}
        tool consumer
        tool consumer
    """)


def test_a_collected_generator_leaves_no_open_span_and_no_trace_in_the_context(tracer: Tracer) -> None:
    @tracer.span("chain")
    def cyclic() -> Stream:
        me = yield 1
        yield me

    with tracer.run("a"):
        stream = cyclic()
        next(stream)
        stream.send(stream)
        del stream
        with tracer.span("tool", {"name": "now"}) as now:
            gc.collect()
            assert tracer.current_span() is now
        with tracer.span("tool", {"name": "after"}):
            pass
    run = CapturedRuns(tracer.storage).one()
    run.assert_tree("chain cyclic\ntool now\ntool after")
    assert run.find("cyclic")[0].result is not None
    assert run.find("cyclic")[0].result["stopped"] == "closed"


def test_a_generator_can_be_consumed_by_a_thread(tracer: Tracer) -> None:
    step = tracer.span("tool")(lambda name: name)

    @tracer.span("chain")
    def source() -> Stream:
        for number in range(3):
            step("generator")
            yield number

    def consume(stream: Stream) -> None:
        for _ in stream:
            step("thread")

    with tracer.run("main"):
        stream = source()
        next(stream)
        thread = threading.Thread(target=consume, args=(stream,))
        thread.start()
        thread.join()
        assert tracer.current_span() is None
    main, *others = CapturedRuns(tracer.storage)
    assert main.name == "main"
    main.assert_tree("chain source\n  tool <lambda>\n  tool <lambda>\n  tool <lambda>")
    assert [other.tree() for other in others] == ["tool <lambda>"] * 2  # a thread of its own has no parent


def test_a_generator_can_be_closed_in_another_context_than_it_was_begun_in(tracer: Tracer) -> None:
    stream = tracer.span("chain")(plain)()
    with tracer.run("one"):
        contextvars.copy_context().run(next, stream)
    with tracer.run("two"), tracer.span("tool", {"name": "x"}) as span:
        stream.close()
        assert tracer.current_span() is span
    assert [run.tree() for run in CapturedRuns(tracer.storage)] == ["chain plain", "tool x"]


def test_a_block_around_a_yield_never_raises_and_never_leaks(tracer: Tracer) -> None:
    @contextmanager
    def transaction(name: str) -> Iterator[None]:
        with tracer.span("chain", {"name": name}):
            yield

    def undecorated() -> Stream:
        with tracer.span("chain", {"name": "undecorated"}):
            yield 1

    with tracer.run("a"):
        with transaction("outer"), tracer.span("tool", {"name": "inside"}):
            pass
        with pytest.raises(KeyError), transaction("failing"):
            raise KeyError
        one, two = undecorated(), undecorated()
        next(one)
        next(two)
        context = contextvars.copy_context()
        context.run(one.close)
        del two
        assert tracer.current_span() is None or tracer.current_span().status == "active"  # type: ignore[union-attr]
    assert tracer.current_run() is None
    run = CapturedRuns(tracer.storage).one()
    run.assert_no_open_spans()
    assert [root.title for root in run.roots][:2] == ["chain outer", "chain failing"]
    assert [span.status for span in run.find("failing")] == ["failed"]


def test_the_payloads_of_items_are_those_they_had_when_they_were_yielded(tracer: Tracer) -> None:
    @tracer.span("chain")
    def growing() -> Stream:
        items: list[int] = []
        for number in range(3):
            items.append(number)
            yield items

    for items in growing():
        items.append(-1)
    assert only_span(tracer).result == {"output": [[0], [0, -1, 1], [0, -1, 1, -1, 2]]}


@pytest.mark.parametrize(("limits", "kept"), [(Limits(items=3), 3), (Limits(payload=2000), 4), (Limits(), 10)])
def test_items_beyond_the_limits_are_counted(limits: Limits, kept: int) -> None:
    tracer = Tracer(":memory:", raise_errors=True, limits=limits)

    @tracer.span("chain")
    def many() -> Stream:
        yield from ("x" * 500 for _ in range(10))

    assert len(list(many())) == 10
    result = only_span(tracer).result
    assert result is not None
    assert (len(result["output"]), result.get("more_items", 0)) == (kept, 10 - kept)


def test_what_a_generator_says_of_itself_is_kept_beside_its_items(tracer: Tracer) -> None:
    @tracer.span("llm", {"model": "m"})
    def stream() -> Stream:
        yield "a"
        span = tracer.current_span()
        assert span is not None
        span.set_result({"input_tokens": 3})
        yield "b"

    list(stream())
    span = only_span(tracer)
    assert (span.result, span.input_tokens) == ({"output": ["a", "b"], "input_tokens": 3}, 3)


def test_a_finished_generators_span_that_is_kept_does_not_keep_those_around_it(tracer: Tracer) -> None:
    kept = []

    @tracer.span("chain")
    def stream() -> Stream:
        kept.append(tracer.current_span())
        yield 1

    class Load(dict[str, Any]):
        pass

    def program() -> "weakref.ref[Load]":
        with tracer.run("a"), tracer.span("agent", {"name": "x"}) as span:
            list(stream())
            span.load = load = Load()  # type: ignore[attr-defined]
            return weakref.ref(load)

    load = program()
    gc.collect()
    assert kept[0] is not None
    assert load() is None


def test_a_frame_that_has_failed_is_free_of_cycles(tracer: Tracer) -> None:
    """What a consumer throws in would else be kept until the collector comes by, with all frames of its traceback."""

    class Thrown(Exception):
        pass

    def consume() -> None:
        stream = tracer.span("chain")(plain)()
        next(stream)
        with pytest.raises(Thrown):
            stream.throw(Thrown())

    gc.collect()
    gc.disable()
    try:
        consume()
        assert [found for found in gc.get_objects() if type(found) is Thrown] == []
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("reduce", "result"),
    [
        ("".join, {"output": "ab"}),
        (len, {"output": 2}),
        (lambda items: {"text": items[0], "input_tokens": len(items)}, {"text": "a", "input_tokens": 2}),
        (lambda items: None, {"output": None}),
        (lambda items: 1 / 0, {"items": 2}),
    ],
)
def test_the_items_of_a_generator_are_reduced_to_its_result(reduce: Any, result: dict[str, Any]) -> None:
    tracer = Tracer(":memory:")

    @tracer.span("llm", {"model": "m"}, reduce=reduce)
    def stream() -> Stream:
        yield from "ab"

    @tracer.span("llm", {"model": "m"}, reduce=reduce)
    async def async_stream() -> AsyncGenerator[str, None]:
        yield "a"
        yield "b"

    async def consume() -> list[str]:
        return [item async for item in async_stream()]

    assert list(stream()) == asyncio.run(consume()) == ["a", "b"]
    spans = [span for run in CapturedRuns(tracer.storage) for span in run.spans]
    assert [(span.status, span.result) for span in spans] == [("complete", result)] * 2
    assert tracer.health().failed == 0


def test_what_came_until_the_consumer_stopped_is_reduced_too(tracer: Tracer) -> None:
    @tracer.span("chain", reduce="".join)
    def stream() -> Stream:
        yield from "abc"
        return "end"

    with tracer.run("a"):
        for item in stream():
            if item == "b":
                break
        list(stream())
    first, second = CapturedRuns(tracer.storage).one().spans
    assert first.result == {"output": "ab", "stopped": "closed"}
    assert second.result == {"output": "abc", "returned": "end"}


def test_what_came_until_a_generator_failed_is_reduced_too(tracer: Tracer) -> None:
    @tracer.span("chain", reduce="".join)
    def stream() -> Stream:
        yield "a"
        raise KeyError("theirs")

    with pytest.raises(KeyError, match="theirs"):
        list(stream())
    span = only_span(tracer)
    assert span.result is not None
    assert (span.status, span.result["output"], span.error["type"]) == ("failed", "a", "KeyError")


def test_a_reduction_that_fails_never_hides_the_generators_own_error(tracer: Tracer) -> None:
    def fail(items: list[Any]) -> None:
        raise ZeroDivisionError

    @tracer.span("chain", reduce=fail)
    def stream(*, broken: bool) -> Stream:
        yield 1
        if broken:
            raise KeyError("theirs")

    with pytest.raises(KeyError, match="theirs"):
        list(stream(broken=True))
    with pytest.raises(ZeroDivisionError):  # only because this tracer raises agentspan's own faults
        list(stream(broken=False))
    runs = list(CapturedRuns(tracer.storage))
    assert [run.spans[0].status for run in runs] == ["failed", "complete"]
    assert [run.status for run in runs] == ["failed", "complete"]
    assert tracer.current_run() is None


@pytest.mark.full
def test_generators_that_garbage_collection_closes_do_not_crash_the_program(tmp_path: Path) -> None:
    """In the middle of a `ContextVar.set`, where Python 3.11 collects as well, and does not expect another one."""
    program = """
import gc, sys, agentspan
tracer = agentspan.configure(sys.argv[1])
gc.set_threshold(20)

@agentspan.span("chain")
def items():
    try:
        yield 1
        yield 2
    finally:
        step()

@agentspan.span
def step():
    pass

with agentspan.run("a"):
    for _ in range(1500):
        step()
        cycle = [items()]
        next(cycle[0])
        cycle.append(cycle)
        del cycle
    gc.collect()
agentspan.flush()  # while the drain thread moves records, they are counted a moment later
print(*agentspan.health()[:5])
"""
    command = [sys.executable, "-c", program, str(tmp_path / "runs.db")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [str(2 + 3 * 1500 * 2), "0", "0", "0", "0"]
    with closing(sqlite3.connect(tmp_path / "runs.db")) as connection:
        nested = "select count(*) from agent_spans s join agent_spans p on p.id = s.parent_span_id"
        # What a generator does when it is closed is its own, unless the collection comes to it first, not to ours.
        assert 1450 <= connection.execute(nested).fetchone()[0] <= 1500
