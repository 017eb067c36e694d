"""Decorated generators: the span is active while the generator runs, and not while its consumer runs.

No context token is held across a `yield`. Around each step, the generator's active span is set and the consumer's is
restored, so that spans of the consumer between two items do not become children of the generator's span.
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
    """A with-block around each step of a generator or coroutine, in which its own span or run is active.

    Args:
        var: the recorder's variable of the active span or run.
        inner: the span or run that is active in the first step.
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
        """Receive an item before it is yielded. Does nothing in this class."""

    def returned(self, value: Any = None, *, closed: bool = False) -> None:
        """Receive the return value at the end of the generator. Does nothing in this class.

        Args:
            closed: whether the consumer closed the generator before its end.
        """

    def raised(self, exception: BaseException) -> None:
        """Receive the exception that ended the generator. Does nothing in this class."""


class Stream(Steps):
    """The span of one generator, with its items. It ends once.

    Without `reduce`, each item is captured as text before it is yielded, because the consumer may change it; up to the
    limits of one payload. With `reduce`, the items themselves are kept.
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
        """Keep an item before it is yielded: as captured text, or itself for `reduce`."""
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
        # An async generator that is dropped outside an event loop is never closed. Its span must not stay open.
        if not self._ended:
            self.returned(closed=True)

    def returned(self, value: Any = None, *, closed: bool = False) -> None:
        """End the span after the last item, or because the consumer closed the generator."""
        self._end(None, {**({} if value is None else {"returned": value}), **({"stopped": "closed"} if closed else {})})

    def raised(self, exception: BaseException) -> None:
        """End the span as failed with this exception."""
        self._end(exception, {})

    def _end(self, exception: BaseException | None, result: dict[str, Any]) -> None:
        self._ended = True
        try:
            self._span.merge({**self._result(exception), **result})
        finally:
            self._span.leave(exception)
            self._span.outer = None  # a span that the program keeps must not keep its outer spans alive

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
    """The steps of a generator that is not recorded: without effect."""

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
    """Wrap a generator function: `start` begins its steps when the consumer requests the first item."""

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
                # Outside the `except` block, so that an exception of the generator does not get this one as context.
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
    """Run the last step of a closed generator, in a copy of the context.

    The garbage collector may close a generator in the middle of a `ContextVar.set`. If the same context changes
    meanwhile, Python 3.11 frees memory that this call still uses, and crashes.
    """
    with stream:
        return generator.throw(thrown)


def wrap_async_generator(fn: Callable[..., Any], start: Start) -> Callable[..., Any]:
    """Wrap an async generator function: `start` begins its steps when the consumer requests the first item."""

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
    """Request the first item of the inner generator, without registering the generator in the event loop.

    At its end, the loop would close the inner and the decorated generator at the same time. It knows the decorated one,
    which closes the inner one.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, lambda generator: None)
    try:
        return anext(generator)
    finally:
        sys.set_asyncgen_hooks(*hooks)
