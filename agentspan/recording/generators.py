"""Decorated generators: the span is active while the generator runs, and not while its consumer does.

No context token is held across a `yield`: around each step the generator's own context is set and the consumer's
restored, so that what happens between two items is not recorded as the generator's child.
"""

import functools
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from typing import Any

from agentspan.recording.span import Span

Begin = Callable[[tuple[Any, ...], Mapping[str, Any]], Span]

MAX_ITEMS = 1000
"""Yielded items that are kept for the result; the rest are counted."""


class _Stream:
    """The span of one generator: steps in and out of its context, keeps the items, ends once."""

    __slots__ = ("_inner", "_items", "_more", "_outer", "_span", "_var")

    def __init__(self, span: Span) -> None:
        self._span = span
        self._var = span._tracer._current
        self._inner: Any = span
        self._outer = span._outer
        self._items: list[Any] = []
        self._more = 0
        self._var.set(self._outer)

    def __enter__(self) -> None:
        self._outer = self._var.get()
        self._var.set(self._inner)

    def __exit__(self, *exc_info: object) -> None:
        self._inner = self._var.get()
        self._var.set(self._outer)

    def keep(self, item: Any) -> None:
        if len(self._items) < MAX_ITEMS:
            self._items.append(item)
        else:
            self._more += 1

    def returned(self, value: Any = None) -> None:
        self._end(None, {} if value is None else {"returned": value})

    def closed(self) -> None:
        self._end(None, {"stopped": "closed"})

    def raised(self, exception: BaseException) -> None:
        self._end(exception, {})

    def _end(self, exception: BaseException | None, result: dict[str, Any]) -> None:
        output = {"output": self._items, **result}
        if self._more:
            output["more_items"] = self._more
        self._span.set_result(output)
        self._span._leave(exception)


def wrap_generator(fn: Callable[..., Any], begin: Begin) -> Callable[..., Any]:
    """Decorate a generator function; the span begins with the first item that is asked for."""

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        stream = _Stream(begin(args, kwargs))
        generator = None
        try:
            with stream:
                generator = fn(*args, **kwargs)
                item = next(generator)
            while True:
                stream.keep(item)
                try:
                    sent = yield item
                except GeneratorExit:
                    with stream:
                        generator.close()
                    raise
                except BaseException as thrown:
                    with stream:
                        item = generator.throw(thrown)
                else:
                    with stream:
                        item = generator.send(sent)
        except StopIteration as stop:
            stream.returned(stop.value)
            return stop.value
        except GeneratorExit:
            stream.closed()  # also where it was awaiting, not yielding
            raise
        except BaseException as exception:
            stream.raised(exception)
            raise

    return call


def wrap_async_generator(fn: Callable[..., Any], begin: Begin) -> Callable[..., Any]:
    """Decorate an async generator function; the span begins with the first item that is asked for."""

    @functools.wraps(fn)
    async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        stream = _Stream(begin(args, kwargs))
        try:
            with stream:
                generator = fn(*args, **kwargs)
                item = await anext(generator)
            while True:
                stream.keep(item)
                try:
                    sent = yield item
                except GeneratorExit:
                    with stream:
                        await generator.aclose()
                    raise
                except BaseException as thrown:
                    with stream:
                        item = await generator.athrow(thrown)
                else:
                    with stream:
                        item = await generator.asend(sent)
        except StopAsyncIteration:
            stream.returned()
        except GeneratorExit:
            stream.closed()  # also where it was awaiting, not yielding
            raise
        except BaseException as exception:
            stream.raised(exception)
            raise

    return call
