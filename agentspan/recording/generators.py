"""Decorated generators: the span is active while the generator runs, and not while its consumer does.

No context token is held across a `yield`: around each step the generator's own context is set and the consumer's
restored, so that what happens between two items is not recorded as the generator's child.
"""

import functools
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextvars import ContextVar, copy_context
from typing import Any

from agentspan import jsontext
from agentspan.recording.span_state import SpanState

Reduce = Callable[[list[Any]], Any]
"""Turns the items of a generator into the result of its span."""


class Steps:
    """Steps into what is active within a generator or coroutine, and out of it again; does nothing else by itself.

    Args:
        var: where the recorder keeps what is active.
        inner: what is active within at first.
    """

    __slots__ = ("_inner", "_token", "_var")

    def __init__(self, var: ContextVar[Any], inner: Any) -> None:
        self._var = var
        self._inner = inner
        self._token: Any = None

    def __enter__(self) -> None:
        self._token = self._var.set(self._inner)

    def __exit__(self, *exc_info: object) -> None:
        inner, token, self._token = self._var.get(), self._token, None
        try:
            self._var.reset(token)
        except ValueError:  # closed while it was awaiting, from another context, which is not ours to change
            return
        self._inner = inner

    def keep(self, item: Any) -> None:
        """Take an item that is yielded next."""

    def returned(self, value: Any = None, *, closed: bool = False) -> None:
        """Take note that there are no more; closed: because the consumer wants none."""

    def raised(self, exception: BaseException) -> None:
        """Take note that it failed."""


class Stream(Steps):
    """The span of one generator: keeps the items, ends once.

    Without `reduce` an item is captured when it is yielded, since its consumer may change it: as text, up to the limits
    of one payload. With it, the items themselves are kept.
    """

    __slots__ = ("_ended", "_items", "_more", "_reduce", "_room", "_span")

    def __init__(self, span: SpanState, reduce: Reduce | None) -> None:
        self._ended = False
        super().__init__(span.recorder.current, span)
        self._span = span
        self._reduce = reduce
        self._room = span.recorder.capture.limits.payload
        self._items: list[Any] = []
        self._more = 0
        self._var.set(span.outer)

    def keep(self, item: Any) -> None:
        """Capture an item that is yielded next."""
        if self._reduce is not None:
            self._items.append(item)
            return
        recorder = self._span.recorder
        try:
            if self._room > 0 and len(self._items) < recorder.capture.limits.items:
                text = recorder.capture.object({"": item})
                self._room -= len(text)
                self._items.append(text)
            else:
                self._more += 1
        except Exception as error:
            recorder.faults.lose(error)

    def __del__(self) -> None:
        # An async generator that is dropped outside any event loop is not told. Whatever happens to be going on now,
        # the span must not stay open.
        if not self._ended:
            self.returned(closed=True)

    def returned(self, value: Any = None, *, closed: bool = False) -> None:
        """End the span: there are no more items."""
        self._end(None, {**({} if value is None else {"returned": value}), **({"stopped": "closed"} if closed else {})})

    def raised(self, exception: BaseException) -> None:
        """End the span as failed."""
        self._end(exception, {})

    def _end(self, exception: BaseException | None, result: dict[str, Any]) -> None:
        self._ended = True
        try:
            self._span.merge({**self._result(exception), **result})
        finally:
            self._span.leave(exception)
            self._span.outer = None  # a span that is kept must not keep those around it

    def _result(self, exception: BaseException | None) -> dict[str, Any]:
        if self._reduce is None:
            output = {"output": [jsontext.decode(text)[""] for text in self._items]}
            return {**output, "more_items": self._more} if self._more else output
        try:
            value = self._reduce(self._items)
        except Exception as error:  # also on half of the items, where the consumer stopped early
            self._span.recorder.faults.add(error, reraise=exception is None)
            return {"items": len(self._items)}
        return value if issubclass(type(value), dict) else {"output": value}


class _NoSteps(Steps):
    """Those of a generator that is not recorded."""

    __slots__ = ()

    def __init__(self) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc_info: object) -> None:
        pass


NOTHING = _NoSteps()

Start = Callable[[tuple[Any, ...], Mapping[str, Any]], Steps]


def wrap_generator(fn: Callable[..., Any], start: Start) -> Callable[..., Any]:
    """Return a generator function that takes these steps; it starts with the first item that is asked for."""

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        stream = start(args, kwargs)
        if stream is NOTHING:
            return (yield from fn(*args, **kwargs))
        thrown: BaseException | None = None
        try:
            with stream:
                generator = fn(*args, **kwargs)
                item = next(generator)
            while True:
                stream.keep(item)
                try:
                    sent, thrown = (yield item), None
                except BaseException as exception:
                    sent, thrown = None, exception
                # No longer in the handler: what is raised in here has not happened while handling that.
                if isinstance(thrown, GeneratorExit):
                    item = copy_context().run(_close, generator, stream, thrown)
                    continue
                with stream:
                    item = generator.send(sent) if thrown is None else generator.throw(thrown)
        except StopIteration as stop:
            stream.returned(stop.value, closed=isinstance(thrown, GeneratorExit))
            return stop.value
        except GeneratorExit:
            stream.returned(closed=True)
            raise
        except BaseException as exception:
            stream.raised(exception)
            raise
        finally:
            thrown = None  # its traceback has this frame

    return call


def _close(generator: Generator[Any, Any, Any], stream: Steps, thrown: BaseException) -> Any:
    """Take the last step, in a context of its own.

    It may be the collection of garbage that closes a generator, in the middle of a `ContextVar.set`. Python 3.11 frees
    what that works on if the same context is changed meanwhile, and crashes.
    """
    with stream:
        return generator.throw(thrown)


def wrap_async_generator(fn: Callable[..., Any], start: Start) -> Callable[..., Any]:
    """Return an async generator function that does the same."""

    @functools.wraps(fn)
    async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        stream = start(args, kwargs)
        thrown: BaseException | None = None
        try:
            with stream:
                generator = fn(*args, **kwargs)
                item = await _first(generator)
            while True:
                stream.keep(item)
                try:
                    sent, thrown = (yield item), None
                except BaseException as exception:
                    sent, thrown = None, exception
                with stream:
                    item = await (generator.asend(sent) if thrown is None else generator.athrow(thrown))
        except StopAsyncIteration:
            stream.returned(closed=isinstance(thrown, GeneratorExit))
        except GeneratorExit:
            stream.returned(closed=True)  # also where it was awaiting, not yielding
            raise
        except BaseException as exception:
            stream.raised(exception)
            raise
        finally:
            thrown = None

    return call


def _first(generator: AsyncGenerator[Any, Any]) -> Awaitable[Any]:
    """Ask for the first item, without the event loop's notice, which would close both generators at once at its end.

    It knows of the decorated one, which closes this one.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, lambda generator: None)
    try:
        return anext(generator)
    finally:
        sys.set_asyncgen_hooks(*hooks)
