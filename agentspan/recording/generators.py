"""Decorated generators: the span is active while the generator runs, and not while its consumer does.

No context token is held across a `yield`: around each step the generator's own context is set and the consumer's
restored, so that what happens between two items is not recorded as the generator's child.
"""

import functools
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from typing import Any

from agentspan import jsontext
from agentspan.recording.span import Span

Begin = Callable[[tuple[Any, ...], Mapping[str, Any]], Span]

Reduce = Callable[[list[Any]], Any]
"""Turns the items of a generator into the result of its span."""


class _Stream:
    """The span of one generator: steps in and out of its context, keeps the items, ends once.

    Without `reduce` an item is captured when it is yielded, since its consumer may change it: as text, up to the limits
    of one payload. With it, the items themselves are kept.
    """

    __slots__ = ("_ended", "_inner", "_items", "_more", "_outer", "_reduce", "_room", "_span", "_var")

    def __init__(self, span: Span, reduce: Reduce | None) -> None:
        self._ended = False
        self._span = span
        self._reduce = reduce
        self._room = span._tracer._capture.limits.payload
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
        if self._reduce is not None:
            self._items.append(item)
            return
        tracer = self._span._tracer
        try:
            if self._room > 0 and len(self._items) < tracer._capture.limits.items:
                text = tracer._capture.object({"": item})[0]
                self._room -= len(text)
                self._items.append(text)
            else:
                self._more += 1
        except Exception as error:
            tracer._lose(error)

    def __del__(self) -> None:
        # An async generator that is dropped outside any event loop is not told. Whatever happens to be going on now,
        # the span must not stay open.
        if not self._ended:
            self.closed()

    def returned(self, value: Any = None) -> None:
        self._end(None, {} if value is None else {"returned": value})

    def closed(self) -> None:
        self._end(None, {"stopped": "closed"})

    def raised(self, exception: BaseException) -> None:
        self._end(exception, {})

    def _end(self, exception: BaseException | None, result: dict[str, Any]) -> None:
        if self._ended:
            return
        self._ended = True
        self._span.set_result({**self._result(), **result})
        self._span._leave(exception)

    def _result(self) -> dict[str, Any]:
        if self._reduce is None:
            output = {"output": [jsontext.decode(text)[""] for text in self._items]}
            return {**output, "more_items": self._more} if self._more else output
        try:
            value = self._reduce(self._items)
        except Exception as error:  # also on half of the items, where the consumer stopped early
            self._span._tracer._fault(error)
            return {"items": len(self._items)}
        return value if isinstance(value, dict) else {"output": value}


def wrap_generator(fn: Callable[..., Any], begin: Begin, reduce: Reduce | None) -> Callable[..., Any]:
    """Decorate a generator function; the span begins with the first item that is asked for."""

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        stream = _Stream(begin(args, kwargs), reduce)
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


def wrap_async_generator(fn: Callable[..., Any], begin: Begin, reduce: Reduce | None) -> Callable[..., Any]:
    """Decorate an async generator function; the span begins with the first item that is asked for."""

    @functools.wraps(fn)
    async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        stream = _Stream(begin(args, kwargs), reduce)
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
