"""Decorated functions: what is recorded of a call, and that the call itself is as it was."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

import pytest

from agentspan import Tracer, jsontext
from tests.recording.stored import spans_of


def test_a_tool_gets_its_name_and_arguments(tracer: Tracer) -> None:
    @tracer.span("tool")
    def search(query: str, *, limit: int = 3) -> list[str]:
        return [query] * 2

    assert search("x") == ["x", "x"]
    (span,) = spans_of(tracer)
    assert span.payload == {"name": "search", "arguments": {"query": "x", "limit": 3}}
    assert span.result_payload == {"output": ["x", "x"]}
    assert (span.status, span.schema_name, span.label) == ("complete", "tool", "search")
    assert span.summary == 'Tool search(query=x, limit=3) → ["x","x"]'


def test_a_bare_decorator_records_a_tool(tracer: Tracer) -> None:
    @tracer.span
    def search(query: str) -> str:
        return query

    search("x")
    (span,) = spans_of(tracer)
    assert (span.schema_name, span.payload) == ("tool", {"name": "search", "arguments": {"query": "x"}})


def test_a_type_with_a_name_only_gets_the_name_beside_the_arguments(tracer: Tracer) -> None:
    @tracer.span("chain")
    def build_context(input: str) -> list[int]:
        return [1, 2, 3]

    build_context("x")
    (span,) = spans_of(tracer)
    assert span.payload == {"name": "build_context", "input": "x"}
    assert span.summary == "build_context → 3 parts"


def test_other_types_get_the_bound_arguments_as_the_payload(tracer: Tracer) -> None:
    @tracer.span("llm")
    def complete(model: str, messages: list[Any], temperature: float = 0.5) -> dict[str, Any]:
        return {"text": "hi", "input_tokens": 12, "output_tokens": 3}

    complete("m", [{"role": "user"}])
    (span,) = spans_of(tracer)
    assert span.payload == {"model": "m", "messages": [{"role": "user"}], "temperature": 0.5}
    assert span.result_payload == {"text": "hi", "input_tokens": 12, "output_tokens": 3}
    assert (span.input_tokens, span.output_tokens, span.label) == (12, 3, "m")
    assert span.summary == 'LLM m: 12→3 tok "hi"'


def test_a_payload_given_to_the_decorator_is_added(tracer: Tracer) -> None:
    @tracer.span("mcp", {"method": "tools/call", "server": "github"})
    def call(target: str) -> None: ...

    call("search")
    (span,) = spans_of(tracer)
    assert span.payload == {"arguments": {"target": "search"}, "method": "tools/call", "server": "github"}


@pytest.mark.parametrize(
    ("args", "kwargs", "bound"),
    [
        ((1,), {}, {"a": 1, "b": 2, "args": [], "c": 3}),
        ((1, 5, 6, 7), {"c": 8, "d": 9}, {"a": 1, "b": 5, "args": [6, 7], "c": 8, "d": 9}),
    ],
)
def test_variadic_arguments_are_bound_by_name(tracer: Tracer, args: Any, kwargs: Any, bound: Any) -> None:
    @tracer.span
    def call(a: int, b: int = 2, *args: int, c: int = 3, **rest: int) -> None: ...

    call(*args, **kwargs)
    (span,) = spans_of(tracer)
    assert span.payload["arguments"] == bound


def test_a_methods_own_object_is_left_out(tracer: Tracer) -> None:
    class Agent:
        @tracer.span
        def search(self, query: str) -> str:
            return query

        @classmethod
        @tracer.span
        def make(cls, name: str) -> str:
            return name

        @staticmethod
        @tracer.span
        def help(topic: str) -> str:
            return topic

    assert (Agent().search("q"), Agent.make("n"), Agent.help("t")) == ("q", "n", "t")
    assert [span.payload["arguments"] for span in spans_of(tracer)] == [{"query": "q"}, {"name": "n"}, {"topic": "t"}]


def test_a_wrong_call_raises_what_it_raised_before(tracer: Tracer) -> None:
    @tracer.span
    def search(query: str) -> str:
        return query

    with pytest.raises(TypeError, match=r"missing 1 required positional argument: 'query'"):
        search()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword"):
        search("x", nope=1)  # type: ignore[call-arg]
    assert [span.status for span in spans_of(tracer)] == ["failed", "failed"]


def test_an_exception_is_recorded_and_goes_on_as_the_same_object(tracer: Tracer) -> None:
    class Custom(Exception):
        pass

    error = Custom("read timed out")

    @tracer.span
    def fetch(url: str) -> None:
        raise error

    with pytest.raises(Custom) as caught:
        fetch("https://…")
    assert caught.value is error
    (span,) = spans_of(tracer)
    assert span.status == "failed"
    recorded = span.result_payload["error"]
    assert recorded["type"].endswith("Custom")
    assert recorded["message"] == "read timed out"
    assert "in fetch" in recorded["stacktrace"]
    assert span.summary == "Tool fetch(url=https://…) → Custom: read timed out"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit])
def test_exceptions_that_are_no_errors_fail_the_span_too(tracer: Tracer, kind: type[BaseException]) -> None:
    @tracer.span
    def stop() -> None:
        raise kind

    with pytest.raises(kind):
        stop()
    (span,) = spans_of(tracer)
    assert (span.status, span.result_payload["error"]["type"].split(".")[-1]) == ("failed", kind.__name__)


@pytest.mark.parametrize(
    ("value", "result"),
    [
        (None, {"output": None}),
        ("text", {"output": "text"}),
        ({}, {}),
        ({"a": 1}, {"a": 1}),
        ([1], {"output": [1]}),
        (0, {"output": 0}),
    ],
)
def test_a_dict_is_the_result_and_anything_else_its_output(tracer: Tracer, value: Any, result: Any) -> None:
    @tracer.span
    def give() -> Any:
        return value

    assert give() is value
    (span,) = spans_of(tracer)
    assert span.result_payload == result


def test_what_is_set_inside_is_merged_with_what_is_returned(tracer: Tracer) -> None:
    @tracer.span("llm")
    def complete(model: str) -> str:
        span = tracer.current_span()
        assert span is not None
        span.set_result({"input_tokens": 5})
        return "hi"

    complete("m")
    (span,) = spans_of(tracer)
    assert span.result_payload == {"input_tokens": 5, "output": "hi"}


def test_a_decorated_function_keeps_its_face(tracer: Tracer) -> None:
    def search(query: str, limit: int = 3) -> list[str]:
        """Find things."""
        return []

    async def fetch(url: str) -> str:
        return url

    def numbers() -> Iterator[int]:
        yield 1

    async def letters() -> AsyncIterator[str]:
        yield "a"

    for plain in (search, fetch, numbers, letters):
        wrapped = tracer.span("tool")(plain)
        assert wrapped.__wrapped__ is plain  # type: ignore[attr-defined]
        assert (wrapped.__name__, wrapped.__doc__) == (plain.__name__, plain.__doc__)
        assert inspect.signature(wrapped) == inspect.signature(plain)
        for kind in (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction):
            assert kind(wrapped) == kind(plain)


def test_a_coroutine_is_recorded_while_it_runs(tracer: Tracer) -> None:
    @tracer.span
    async def inner(number: int) -> int:
        await asyncio.sleep(0)
        return number

    @tracer.span
    async def outer() -> list[int]:
        return list(await asyncio.gather(*(inner(number) for number in range(3))))

    assert asyncio.run(outer()) == [0, 1, 2]
    top, *below = spans_of(tracer)
    assert {span.parent_span_id for span in below} == {top.id}
    assert [span.status for span in (top, *below)] == ["complete"] * 4


def test_a_cancelled_task_fails_its_span(tracer: Tracer) -> None:
    @tracer.span
    async def wait() -> None:
        await asyncio.sleep(60)

    async def main() -> None:
        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    (span,) = spans_of(tracer)
    assert (span.status, span.result_payload["error"]["type"]) == ("failed", "asyncio.exceptions.CancelledError")


def test_a_generators_own_calls_are_its_children_and_its_consumers_are_not(tracer: Tracer) -> None:
    @tracer.span
    def step(who: str) -> None: ...

    @tracer.span("chain")
    def numbers(count: int) -> Iterator[int]:
        for number in range(count):
            step("generator")
            yield number

    with tracer.run("a"):
        for _ in numbers(2):
            step("consumer")
        step("after")
    stream, *steps = spans_of(tracer)
    parents = {(s.payload["arguments"]["who"], s.parent_span_id) for s in steps}
    assert parents == {("generator", stream.id), ("consumer", None), ("after", None)}
    assert (stream.status, stream.result_payload) == ("complete", {"output": [0, 1]})


@pytest.mark.parametrize("end", ["break", "close", "drop", "throw", "raise", "return"])
def test_a_generators_span_ends_once_however_it_ends(tracer: Tracer, end: str) -> None:
    @tracer.span("chain")
    def numbers() -> Generator[int, None, int | None]:
        yield 1
        if end == "raise":
            raise ValueError("boom")
        if end == "return":
            return 7
        yield 2
        yield 3
        return None

    stream = numbers()
    assert next(stream) == 1
    match end:
        case "break":
            for _ in stream:
                break
            stream.close()
        case "close":
            stream.close()
        case "throw":
            with pytest.raises(KeyError):
                stream.throw(KeyError("x"))
        case "raise":
            with pytest.raises(ValueError, match="boom"):
                next(stream)
        case "return":
            with pytest.raises(StopIteration):
                next(stream)
    del stream
    (span,) = spans_of(tracer)
    expected = {
        "break": ("complete", {"output": [1, 2], "stopped": "closed"}),
        "close": ("complete", {"output": [1], "stopped": "closed"}),
        "drop": ("complete", {"output": [1], "stopped": "closed"}),
        "return": ("complete", {"output": [1], "returned": 7}),
    }
    if end in expected:
        assert (span.status, span.result_payload) == expected[end]
    else:
        assert span.status == "failed"
        assert span.result_payload["output"] == [1]
        assert span.result_payload["error"]["type"] == ("KeyError" if end == "throw" else "ValueError")
    assert tracer.current_span() is None


def test_what_is_sent_into_a_generator_arrives(tracer: Tracer) -> None:
    @tracer.span("chain")
    def echo() -> Any:
        received: list[Any] = []
        while len(received) < 2:
            received.append((yield len(received)))
        return received

    stream = echo()
    assert (next(stream), stream.send("a")) == (0, 1)
    with pytest.raises(StopIteration) as stop:
        stream.send("b")
    assert stop.value.value == ["a", "b"]


def test_an_async_generator_is_recorded_from_its_first_item_to_its_last(tracer: Tracer) -> None:
    @tracer.span
    def step() -> None: ...

    @tracer.span("chain")
    async def letters() -> AsyncIterator[str]:
        for letter in "abc":
            await asyncio.sleep(0)
            step()
            yield letter

    async def main(stop_at: str) -> None:
        stream = letters()
        async for letter in stream:
            if letter == stop_at:
                break
        await stream.aclose()  # type: ignore[attr-defined]

    asyncio.run(main("z"))
    asyncio.run(main("a"))
    chains = [span for span in spans_of(tracer) if span.schema_name == "chain"]
    assert [span.result_payload for span in chains] == [
        {"output": ["a", "b", "c"]},
        {"output": ["a"], "stopped": "closed"},
    ]
    steps = [span for span in spans_of(tracer) if span.schema_name == "tool"]
    assert [span.parent_span_id for span in steps] == [chains[0].id] * 3 + [chains[1].id]


def test_unusual_names_are_made_usable(tracer: Tracer) -> None:
    with tracer.span("a\nb" * 100), tracer.span(7):  # type: ignore[call-overload]
        pass
    names = [span.schema_name for span in spans_of(tracer)]
    assert names[1] == "7"
    assert len(names[0]) <= 200
    assert names[0].isprintable()


def test_a_value_without_a_json_form_is_recorded_as_what_it_says_of_itself(tracer: Tracer) -> None:
    class Thing:
        def __repr__(self) -> str:
            return "<a thing>"

    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    @tracer.span
    def use(thing: Any) -> Any:
        return thing

    circle: list[Any] = []
    circle.append(circle)
    values = [Thing(), Broken(), circle, {"x": "\ud800"}, float("nan"), b"\xff", {1, 2}, {(1, 2): 3}, 10**5000]
    for value in values:
        use(value)
    found = [span.payload["arguments"] for span in spans_of(tracer)]
    assert found[0] == {"thing": "<a thing>"}
    assert len(found) == len(values)
    for span in spans_of(tracer):
        jsontext.encode(span.payload)
        assert span.status == "complete"
