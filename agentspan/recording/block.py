"""What `agentspan.span(...)` returns: a with-block, and a decorator for each kind of function."""

import functools
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, cast

from agentspan.recording.capture.arguments import Arguments, kind_of, wrapper_of
from agentspan.recording.generators import NOTHING, Reduce, Steps, Stream, wrap_async_generator, wrap_generator
from agentspan.recording.span import Span, last_entered
from agentspan.schemas.span_types import usable_name

if TYPE_CHECKING:
    from agentspan.recording.tracer import Tracer

DEFAULT_TYPE = "tool"
"""What a bare `@span` records a function as: its name, its arguments, its output."""

P = ParamSpec("P")
R = TypeVar("R")


class SpanBlock:
    """A span to be: `with` and `async with` make one, and so does each call of a function that it decorates."""

    __slots__ = ("_entered", "_payload", "_reduce", "_resolve", "_schema_name")

    def __init__(
        self,
        resolve: "Callable[[], Tracer]",
        schema_name: str,
        payload: Mapping[str, Any] | None,
        reduce: Reduce | None = None,
    ) -> None:
        self._reduce = reduce
        self._resolve = resolve
        self._schema_name = schema_name
        self._payload = payload
        self._entered: list[Span] = []

    def __enter__(self) -> Span:
        tracer, name = self._resolve(), self._schema_name
        span = tracer._begin(name, self._payload) if tracer.enabled else tracer._unrecorded(name)
        try:
            self._entered.append(span)
        except BaseException as error:  # from a signal handler, after the call: no block will end it
            self._entered.remove(span)
            span._leave(error)
            raise
        return span

    def __exit__(
        self, type_: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        entered = self._entered
        if entered[1:]:
            span = last_entered(entered)
        else:
            span = entered[0]
            del entered[0]  # no call up to here: an exception from a signal handler comes at calls
        try:
            span._leave(exception)
        except BaseException as error:
            span._leave(error)  # at the second time it does what was not done
            raise
        return False

    async def __aenter__(self) -> Span:
        return self.__enter__()

    async def __aexit__(
        self, type_: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        return self.__exit__(type_, exception, traceback)

    def __call__(self, fn: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function, coroutine function, generator function or async generator function.

        Raises:
            TypeError: it is nothing that can be called, or has `reduce` and is no generator function.
        """
        if issubclass(type(fn), classmethod | staticmethod):  # `__class__` may be anything, or raise
            method = cast(Any, fn)
            return cast(Callable[P, R], type(method)(self(method.__func__)))
        if not callable(fn):
            raise TypeError(f"only functions can be recorded, not {type(fn).__name__}")
        arguments = Arguments(fn)

        resolve, schema_name, payload = self._resolve, self._schema_name, self._payload

        def stream(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Steps:
            tracer = resolve()
            if not tracer.enabled:
                return NOTHING
            return Stream(tracer._begin_call(schema_name, arguments, args, kwargs, payload), reduce)

        kind = kind_of(fn)
        reduce = self._reduce
        if kind == "async generator":
            return wrap_async_generator(fn, stream)
        if kind == "generator":
            return wrap_generator(fn, stream)
        if reduce is not None:
            raise TypeError(f"reduce= is for generator functions; {arguments.name} is none")
        if kind == "coroutine":
            return cast(Callable[P, R], self._wrap_coroutine(fn, arguments))
        return self._wrap_function(fn, arguments)

    def _wrap_function(self, fn: Callable[P, R], arguments: Arguments) -> Callable[P, R]:
        resolve, schema_name, payload = self._resolve, self._schema_name, self._payload

        @wrapper_of(fn)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            tracer = resolve()
            if not tracer.enabled:  # 0.2 µs in all
                return fn(*args, **kwargs)
            span = tracer._begin_call(schema_name, arguments, args, kwargs, payload)
            try:
                value = fn(*args, **kwargs)
                span._returned(value)
            except BaseException as exception:
                span._leave(exception)  # does what was not done, where a signal handler interrupted _returned
                raise
            return value

        return cast(Callable[P, Any], call)

    def _wrap_coroutine(self, fn: Callable[P, Any], arguments: Arguments) -> Callable[P, Any]:
        resolve, schema_name, payload = self._resolve, self._schema_name, self._payload

        @wrapper_of(fn)
        async def call(*args: P.args, **kwargs: P.kwargs) -> Any:
            tracer = resolve()
            if not tracer.enabled:
                return await fn(*args, **kwargs)
            span = tracer._begin_call(schema_name, arguments, args, kwargs, payload)
            try:
                value = await fn(*args, **kwargs)
                span._returned(value)
            except BaseException as exception:
                span._leave(exception)
                raise
            return value

        return cast(Callable[P, Any], call)


def block(
    resolve: "Callable[[], Tracer]", what: Any, payload: Mapping[str, Any] | None, reduce: Reduce | None = None
) -> Any:
    """Return a SpanBlock, or the decorated function when `what` is one (a bare `@span`)."""
    if type(what) is str and reduce is None:
        return SpanBlock(resolve, _usable(what), payload)
    # Not by isinstance: `__class__` may be anything, or raise. A property is told to go below.
    if callable(what) or issubclass(type(what), classmethod | staticmethod | property):
        return SpanBlock(resolve, DEFAULT_TYPE, None)(what)
    if reduce is not None and not callable(reduce):
        raise TypeError("reduce must be a function of the list of items")
    return SpanBlock(resolve, usable_name(what, DEFAULT_TYPE), payload, reduce)


@functools.lru_cache(maxsize=1024)
def _usable(name: str) -> str:
    return usable_name(name, DEFAULT_TYPE)
