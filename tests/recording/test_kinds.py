"""Everything that can be called can be recorded, whatever kind of function it is, and stays what it was."""

import asyncio
import functools
import inspect
import math
import sys
import types
import typing
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from agentspan import Tracer
from agentspan.testing import CapturedRuns
from tests.recording.stored import only_span, spans_of


def add(a: int, b: int = 2) -> int:
    """Add."""
    return a + b


class Adder:
    """Adds to what it has."""

    def __init__(self, a: int) -> None:
        self.a = a

    def method(self, b: int) -> int:
        return self.a + b

    @classmethod
    def made(cls, b: int) -> int:
        return cls(1).a + b

    @staticmethod
    def static(b: int) -> int:
        return 1 + b

    def __call__(self, b: int) -> int:
        return self.a + b

    def __eq__(self, other: object) -> bool:
        return other == self.a

    def __hash__(self) -> int:
        return self.a


def adding(a: int) -> Callable[[int], int]:
    def nested(b: int) -> int:
        return a + b

    return nested


CALLS: dict[str, tuple[Any, tuple[Any, ...], str, dict[str, Any]]] = {
    "function": (add, (1,), "add", {"a": 1, "b": 2}),
    "bound method": (Adder(1).method, (2,), "method", {"b": 2}),
    "bound class method": (Adder.made, (2,), "made", {"b": 2}),
    "static method": (Adder.static, (2,), "static", {"b": 2}),
    "lambda": (lambda a: a + 2, (1,), "<lambda>", {"a": 1}),
    "function of no arguments": (lambda: 3, (), "<lambda>", {}),
    "nested function": (adding(2), (1,), "nested", {"b": 1}),
    "partial": (functools.partial(add, b=2), (1,), "add", {"a": 1, "b": 2}),
    "partial of a partial": (functools.partial(functools.partial(add, 1), 2), (), "add", {"a": 1, "b": 2}),
    "partial of a method": (functools.partial(Adder.method, Adder(2)), (1,), "method", {"b": 1}),
    "callable object": (Adder(2), (1,), "Adder", {"b": 1}),
    "bound __call__": (Adder(2).__call__, (1,), "__call__", {"b": 1}),
    "cached function": (functools.lru_cache(add), (1,), "add", {"a": 1, "b": 2}),
    "builtin": (math.floor, (3.5,), "floor", {"x": 3.5}),
    "builtin without a signature": (max, (1, 3), "max", {"args": [1, 3]}),
    "method of a builtin": ({"x": 3}.get, ("x",), "get", {"key": "x", "default": None}),
    "class": (Adder, (3,), "Adder", {"a": 3}),
}


@pytest.mark.parametrize("kind", CALLS)
def test_every_kind_of_callable_is_recorded_with_its_name_and_arguments(tracer: Tracer, kind: str) -> None:
    call, given, name, arguments = CALLS[kind]
    value = tracer.span("tool")(call)(*given)
    assert value == 3
    span = only_span(tracer)
    assert (span.schema_name, span.status, span.name, span.arguments) == ("tool", "complete", name, arguments)
    assert span.result is not None
    assert set(span.result) == {"output"}


def test_decorators_of_methods_may_stand_above_and_below(tracer: Tracer) -> None:
    class Agent:
        @tracer.span
        def method(self, x: int) -> int:
            return x

        @tracer.span
        @classmethod
        def class_above(cls, x: int) -> int:
            assert cls is Agent
            return x

        @classmethod
        @tracer.span
        def class_below(cls, x: int) -> int:
            assert cls is Agent
            return x

        @tracer.span
        @staticmethod
        def static_above(x: int) -> int:
            return x

        @staticmethod
        @tracer.span
        def static_below(x: int) -> int:
            return x

        @property
        @tracer.span
        def getter(self) -> int:
            return 7

        @functools.cached_property
        @tracer.span("chain")
        def cached(self) -> int:
            return 7

    agent = Agent()
    with tracer.run("a"):
        assert [agent.method(1), agent.class_above(1), Agent.class_below(1), Agent.static_above(1)] == [1] * 4
        assert [agent.static_below(1), agent.getter, agent.cached, agent.cached] == [1, 7, 7, 7]
    run = CapturedRuns(tracer.storage).one()
    run.assert_tree("""
        tool method
        tool class_above
        tool class_below
        tool static_above
        tool static_below
        tool getter
        chain cached
    """)
    assert [span.arguments for span in run.spans] == [{"x": 1}] * 5 + [{}] * 2


def test_a_property_itself_is_no_function(tracer: Tracer) -> None:
    with pytest.raises(TypeError, match="only functions can be recorded, not property"):
        tracer.span("tool")(property(lambda self: 1))  # type: ignore[arg-type]


def test_arguments_that_share_a_name_are_all_recorded(tracer: Tracer) -> None:
    @tracer.span
    def call(a: int, /, *args: int, **kwargs: int) -> None: ...

    call(1, 2, a=3, args=4, other=5)
    assert only_span(tracer).arguments == {"a": 1, "args": [2], "**a": 3, "**args": 4, "other": 5}


async def fetch(url: str) -> str:
    """Fetch."""
    await asyncio.sleep(0)
    return url


class Fetcher:
    async def __call__(self, url: str) -> str:
        return await fetch(url)

    async def method(self, url: str) -> str:
        return await fetch(url)

    async def letters(self, count: int) -> AsyncIterator[str]:
        for letter in "abc"[:count]:
            yield letter


@types.coroutine
def old_style(url: str) -> Any:
    yield
    return url


COROUTINES: dict[str, tuple[Any, str]] = {
    "coroutine function": (fetch, "fetch"),
    "bound method": (Fetcher().method, "method"),
    "object with an async __call__": (Fetcher(), "Fetcher"),
    "partial": (functools.partial(fetch, url="u"), "fetch"),
    "partial of such an object": (functools.partial(Fetcher(), url="u"), "Fetcher"),
    "generator made a coroutine": (old_style, "old_style"),
}


@pytest.mark.parametrize("kind", COROUTINES)
def test_every_kind_of_coroutine_function_is_recorded_until_it_returns(tracer: Tracer, kind: str) -> None:
    call, name = COROUTINES[kind]
    recorded = tracer.span(call)

    async def main() -> Any:
        awaitable = recorded(url="u")
        assert len(CapturedRuns(tracer.storage)) == 0  # as little as a coroutine itself, it has not begun yet
        return await awaitable

    assert asyncio.run(main()) == "u"
    span = only_span(tracer)
    assert (span.name, span.arguments, span.result) == (name, {"url": "u"}, {"output": "u"})


class Counter:
    def __call__(self, count: int) -> Iterator[int]:
        yield from range(count)


def numbers(count: int) -> Iterator[int]:
    yield from range(count)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (numbers, "numbers"),
        (Counter(), "Counter"),
        (Counter().__call__, "__call__"),
        (functools.partial(numbers), "numbers"),
    ],
)
def test_every_kind_of_generator_function_is_recorded_as_one(tracer: Tracer, make: Any, name: str) -> None:
    assert list(tracer.span(make)(3)) == [0, 1, 2]
    span = only_span(tracer)
    assert (span.name, span.arguments, span.result) == (name, {"count": 3}, {"output": [0, 1, 2]})


@pytest.mark.parametrize("make", [Fetcher().letters, functools.partial(Fetcher.letters, Fetcher())])
def test_every_kind_of_async_generator_function_is_recorded_as_one(tracer: Tracer, make: Any) -> None:
    async def main() -> list[str]:
        return [letter async for letter in tracer.span(make)(2)]

    assert asyncio.run(main()) == ["a", "b"]
    span = only_span(tracer)
    assert (span.name, span.arguments, span.result) == ("letters", {"count": 2}, {"output": ["a", "b"]})


async def letters(count: int) -> AsyncIterator[str]:
    """Letters."""
    for letter in "abc"[:count]:
        yield letter


@pytest.mark.parametrize("plain", [add, fetch, numbers, letters, Adder.method, Adder.made, Adder.static])
def test_a_decorated_function_tells_of_itself_what_it_told_before(tracer: Tracer, plain: Any) -> None:
    recorded: Any = tracer.span("chain")(plain)
    assert recorded.__wrapped__ is plain
    assert inspect.signature(recorded) == inspect.signature(plain)
    assert typing.get_type_hints(recorded) == typing.get_type_hints(plain)
    for told in ("__name__", "__qualname__", "__module__", "__doc__", "__annotations__"):
        assert getattr(recorded, told) == getattr(plain, told)
    for kind in (
        inspect.iscoroutinefunction,
        inspect.isgeneratorfunction,
        inspect.isasyncgenfunction,
    ):
        assert kind(recorded) == kind(plain)
    if sys.version_info < (3, 14):  # deprecated there
        assert asyncio.iscoroutinefunction(recorded) == asyncio.iscoroutinefunction(plain)


def test_attributes_of_a_function_are_there_after_decoration(tracer: Tracer) -> None:
    def plain() -> None: ...

    plain.tags = ["a"]  # type: ignore[attr-defined]
    assert tracer.span(plain).tags is plain.tags  # type: ignore[attr-defined]


@pytest.mark.parametrize("plain", [lambda: 1, fetch, numbers, letters])
def test_only_generators_can_be_reduced(tracer: Tracer, plain: Any) -> None:
    block = tracer.span("llm", reduce="".join)
    if plain in (numbers, letters):
        block(plain)
    else:
        with pytest.raises(TypeError, match=r"reduce= is for generator functions; .* is none"):
            block(plain)


def test_a_generator_function_of_any_kind_cannot_be_a_run(tracer: Tracer) -> None:
    for plain in (numbers, letters, Counter(), functools.partial(numbers, 3)):
        with pytest.raises(TypeError, match="a generator function cannot be a run"):
            tracer.run("a")(plain)


def test_a_run_decorates_objects_with_an_async_call(tracer: Tracer) -> None:
    async def main() -> None:
        assert await tracer.run("a")(functools.partial(Fetcher(), url="u"))() == "u"

    asyncio.run(main())
    run = CapturedRuns(tracer.storage).one()
    assert (run.status, run.result) == ("complete", {"output": "u"})


def test_a_function_decorated_twice_is_two_spans(tracer: Tracer) -> None:
    tracer.span("chain")(tracer.span(add))(1)
    CapturedRuns(tracer.storage).one().assert_tree("""
        chain add
          tool add
    """)


def test_a_recursive_function_nests_in_itself(tracer: Tracer) -> None:
    @tracer.span
    def factorial(n: int) -> int:
        return n * factorial(n - 1) if n else 1

    assert factorial(3) == 6
    CapturedRuns(tracer.storage).one().assert_tree("""
        tool factorial
          tool factorial
            tool factorial
              tool factorial
    """)
    assert [span.result_payload["output"] for span in spans_of(tracer)] == [6, 2, 1, 1]
