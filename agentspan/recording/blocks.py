"""Blocks, which `agentspan.span(...)` and `agentspan.run(...)` return: with-blocks that also decorate functions.

Each entry of a block makes a new Span or Run, so several tasks or threads may share a block. A span begins under the
active span or run of the context, or in a run of its own.

While recording is disabled, spans and runs have a status and keep nothing else.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from functools import partial
from types import TracebackType
from typing import Any, Generic, Literal, ParamSpec, TypeVar, cast

from agentspan import host
from agentspan.errors import InvalidValue
from agentspan.host import guard, page
from agentspan.journal.records import Parts
from agentspan.journal.writers import program_name
from agentspan.recording.budgets import Budget
from agentspan.recording.capture.capture import Arguments, Kind, kind_of, wrapper_of
from agentspan.recording.recorder import Recorder
from agentspan.recording.run_state import RunState
from agentspan.recording.span_and_run import OnTerminate, Run, Span, face_of_span, run_face
from agentspan.recording.span_state import Reduce, SpanState, disabled_span
from agentspan.recording.spending import Paused
from agentspan.schemas.span_types import usable_name
from agentspan.text import is_near

DEFAULT_TYPE = "tool"
"""The span type of a bare `@span`: it records a function's name, arguments and output."""


def begin(
    recorder: Recorder,
    schema_name: str,
    payload: Mapping[str, Any] | None,
    captured: str | Parts = "{}",
    entered: list[SpanState] | None = None,
) -> SpanState:
    """Create an active span under the active node, and make it the active one.

    Args:
        payload: the payload as the program passed it; None if `captured` has it.
        captured: the captured payload, as JSON text or in parts.
        entered: the list of a block, to which the span is added; the span gets its face for the program.
    """
    if not page[0]:
        host.renew()
    node = recorder.innermost()
    kind = type(node)
    if kind is SpanState:
        span = SpanState(recorder, node.run, node.id or node.parent_span_id, schema_name)
    elif kind is RunState:
        span = SpanState(recorder, node, None, schema_name)
    else:
        make = outside.get()
        span = SpanState(recorder, _run_of_one_span(recorder) if make is None else make(recorder), None, schema_name)
        span.owns_run = make is None
    span.create(payload, captured, "active")
    span.outer = node
    try:
        recorder.current.set(span)
        if entered is not None:
            face_of_span(span)
            entered.append(span)
    except BaseException as error:  # from a signal handler, after the call: no block will end it
        if entered and span in entered:
            entered.remove(span)
        span.leave(error)
        raise
    return span


def begin_call(
    recorder: Recorder,
    schema_name: str,
    arguments: Arguments,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    payload: Mapping[str, Any] | None,
) -> SpanState:
    """Create the span of a decorated call. Its payload has the name and arguments if its type has fields for them."""
    fields = recorder.registry.resolve(schema_name).fields
    captured: str | Parts = "{}"
    try:
        bound = arguments.bind(args, kwargs)
        if payload is None and "arguments" in fields and "name" in fields:
            captured = recorder.capture.call(arguments.name, arguments.head, bound)
        else:
            if "arguments" in fields or ("name" in fields and "name" in bound):
                bound = {"name": arguments.name, "arguments": bound} if "name" in fields else {"arguments": bound}
            elif "name" in fields:
                bound = {"name": arguments.name, **bound}
            node = recorder.innermost()
            run = node.run if type(node) is SpanState else node
            repeats = None if run is None else run.repeats
            captured = recorder.capture.object(bound if payload is None else {**bound, **payload}, repeats)
    except Exception as error:
        recorder.faults.add(error)
    return begin(recorder, schema_name, None, captured)


outside: ContextVar[Callable[[Recorder], RunState] | None] = ContextVar("agentspan_outside", default=None)
"""Returns the run for spans that begin outside any run in this context. None: each of these spans gets its own run.

The end of a span does not end the returned run.
"""
_program: str | None = None


@contextmanager
def program_called(name: str) -> Iterator[None]:
    """Name runs of a single span `name`, instead of after the program, for the length of a with-block; for tests."""
    global _program
    before, _program = _program, name
    try:
        yield
    finally:
        _program = before


def _run_of_one_span(recorder: Recorder) -> RunState:
    """Begin a run for a span that is outside any run. It is named after the program, and ends with the span."""
    run = RunState(recorder, program_name() if _program is None else _program)
    run.begin()
    return run


P = ParamSpec("P")
R = TypeVar("R")
N = TypeVar("N", Span, Run)
S = TypeVar("S", SpanState, RunState)


class Block(Generic[N, S]):
    """A with-block (also `async with`). Each entry of a subclass begins a span or a run, and returns its face.

    Args:
        resolve: returns the recorder to use, at each entry.
    """

    __slots__ = ("_entered", "_resolve")

    def __init__(self, resolve: Callable[[], Recorder]) -> None:
        self._resolve = resolve
        self._entered: list[S] = []

    def __enter__(self) -> N:
        raise NotImplementedError

    def __exit__(
        self, type_: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        entered = self._entered
        if entered[1:]:
            node = _last_entered(entered)
        else:
            node = entered[0]
            del entered[0]  # no call up to here: exceptions from signal handlers come only at calls
        try:
            node.leave(exception)
        except BaseException as error:
            node.leave_interrupted(error)
            raise
        return False

    async def __aenter__(self) -> N:
        while True:
            try:
                return self.__enter__()
            except Paused as paused:
                await paused.wait()

    async def __aexit__(
        self, type_: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        return self.__exit__(type_, exception, traceback)


def _last_entered(entered: list[S]) -> S:
    """Remove and return the node to leave, of the nodes that several tasks or threads entered with one block."""
    if len(entered) > 1:
        for current in {cast(Any, each).recorder.current for each in entered}:
            node: Any = current.get()
            while node is not None:
                if node in entered:
                    entered.remove(node)
                    return node  # type: ignore[no-any-return]
                node = node.outer
    return entered.pop()


class SpanBlock(Block[Span, SpanState]):
    """A block that makes a span at each entry, and at each call of a function that it decorates."""

    __slots__ = ("_payload", "_reduce", "_schema_name")

    def __init__(
        self,
        resolve: Callable[[], Recorder],
        schema_name: str,
        payload: Mapping[str, Any] | None,
        reduce: Reduce | None = None,
    ) -> None:
        self._resolve = resolve  # no call of super: 0.05 µs
        self._entered = []
        self._reduce = reduce
        self._schema_name = schema_name
        self._payload = payload

    def __enter__(self) -> Span:
        recorder, name = self._resolve(), self._schema_name
        if recorder.enabled:
            return begin(recorder, name, self._payload, "{}", self._entered).face  # type: ignore[no-any-return]
        span = disabled_span(recorder, name)
        self._entered.append(span)
        return face_of_span(span)

    def __call__(self, fn: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function, coroutine function, generator function or async generator function.

        Raises:
            TypeError: `fn` cannot be called, or the block has `reduce` and `fn` is no generator function.
        """
        if issubclass(type(fn), classmethod | staticmethod):  # `__class__` may be anything, or raise
            method = cast(Any, fn)
            return cast(Callable[P, R], type(method)(self(method.__func__)))
        if not callable(fn):
            raise TypeError(f"only functions can be recorded, not {type(fn).__name__}")
        arguments = Arguments(fn)

        kind, reduce = kind_of(fn), self._reduce
        if kind in ("generator", "async generator"):
            return self._wrap_stream(fn, kind, arguments)
        if reduce is not None:
            raise TypeError(f"reduce= is for generator functions; {arguments.name} is none")
        if kind == "coroutine":
            return cast(Callable[P, R], self._wrap_coroutine(fn, arguments))
        return self._wrap_function(fn, arguments)

    def _wrap_stream(self, fn: Callable[P, R], kind: Kind, arguments: Arguments) -> Callable[P, R]:
        with host.importing:  # for generators only
            from agentspan.recording.steps import NOTHING, Steps, Stream, wrap_async_generator, wrap_generator
        resolve, schema_name, payload, reduce = self._resolve, self._schema_name, self._payload, self._reduce

        def stream(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Steps:
            recorder = resolve()
            if not recorder.enabled:
                return NOTHING
            return Stream(begin_call(recorder, schema_name, arguments, args, kwargs, payload), reduce)

        return (wrap_generator if kind == "generator" else wrap_async_generator)(fn, stream)

    def _wrap_function(self, fn: Callable[P, R], arguments: Arguments) -> Callable[P, R]:
        resolve, schema_name, payload = self._resolve, self._schema_name, self._payload

        @wrapper_of(fn)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            recorder = resolve()
            if not recorder.enabled:  # 0.2 µs in all
                return fn(*args, **kwargs)
            span = begin_call(recorder, schema_name, arguments, args, kwargs, payload)
            try:
                value = fn(*args, **kwargs)
                span.returned(value)
            except BaseException as exception:
                span.leave(exception)  # does what was not done, where a signal handler interrupted `returned`
                raise
            return value

        return cast(Callable[P, Any], call)

    def _wrap_coroutine(self, fn: Callable[P, Any], arguments: Arguments) -> Callable[P, Any]:
        resolve, schema_name, payload = self._resolve, self._schema_name, self._payload

        @wrapper_of(fn)
        async def call(*args: P.args, **kwargs: P.kwargs) -> Any:
            recorder = resolve()
            if not recorder.enabled:
                return await fn(*args, **kwargs)
            while True:
                try:
                    span = begin_call(recorder, schema_name, arguments, args, kwargs, payload)
                    break
                except Paused as paused:
                    await paused.wait()
            try:
                value = await fn(*args, **kwargs)
                span.returned(value)
            except BaseException as exception:
                span.leave(exception)
                raise
            return value

        return cast(Callable[P, Any], call)


class RunBlock(Block[Run, RunState]):
    """A block that makes a run at each entry, and at each call of a function that it decorates.

    Its arguments are those of agentspan.run.
    """

    __slots__ = ("_arguments", "_name")

    def __init__(
        self,
        resolve: Callable[[], Recorder],
        name: str,
        on_terminate: OnTerminate | None = None,
        budget: Budget | None = None,
        **arguments: Any,
    ) -> None:
        is_known = on_terminate is None or callable(on_terminate)
        if not is_known and not (issubclass(type(on_terminate), str) and str(on_terminate) == "raise"):
            raise InvalidValue("on_terminate", 'must be "raise", a function that takes the run, or None')
        if budget is not None and not issubclass(type(budget), Budget):
            raise InvalidValue("budget", "must be an agentspan.Budget, or None")
        if callable(name):
            raise TypeError('a run has a name: write @agentspan.run("name")')
        super().__init__(resolve)
        self._name = name
        told = partial(_with_face, on_terminate) if callable(on_terminate) else on_terminate
        self._arguments = {**arguments, "on_terminate": told, "budget": budget}

    def __repr__(self) -> str:
        return f"<RunBlock {self._name}>"

    def __enter__(self) -> Run:
        return self.begin().face  # type: ignore[no-any-return]

    def begin(self) -> RunState:
        """Begin a run, and make it the active one."""
        recorder = self._resolve()
        run = RunState(recorder, self._name, **self._arguments)
        run.begin()
        run.face = Run(run)  # before the run is active: an exception of a signal handler comes at any call
        recorder.enter(run, self._entered)
        return run

    def _again(self) -> "RunBlock":
        """Return a copy of the block for one call, so that no call can end the run of another call."""
        again = copy(self)
        again._entered = []
        return again

    def __call__(self, fn: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function or coroutine function: each call is a run; a dict that it returns is the run's result.

        Raises:
            TypeError: `fn` is a generator function.
        """
        kind = kind_of(fn)
        if kind in ("generator", "async generator"):
            raise TypeError("a generator function cannot be a run; use `with agentspan.run(…)` inside it")

        if kind == "coroutine":

            @functools.wraps(fn)
            async def call_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                if not self._resolve().enabled:
                    return await cast(Callable[P, Any], fn)(*args, **kwargs)
                with (block := self._again()):
                    value = await cast(Callable[P, Any], fn)(*args, **kwargs)
                    block._entered[0].returned(value)
                return value

            return cast(Callable[P, R], call_async)

        @functools.wraps(fn)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if not self._resolve().enabled:
                return fn(*args, **kwargs)
            with (block := self._again()):
                value = fn(*args, **kwargs)
                block._entered[0].returned(value)
            return value

        return call


def _with_face(on_terminate: Callable[[Run], object], run: RunState) -> None:
    on_terminate(run_face(run))


def span_block(
    resolve: Callable[[], Recorder],
    what: Any,
    payload: Mapping[str, Any] | None,
    reduce: Reduce | None,
    members: dict[str, Any],
) -> Any:
    """Return a SpanBlock; if `what` is a function (a bare `@span`), the decorated function.

    Args:
        what: the name of a span type, or a function to decorate.
        members: more members of the payload, which were passed as keywords.
    """
    if members:
        _check(tuple(members))
        payload = _with_members(payload, members)
    if type(what) is str and reduce is None:
        return SpanBlock(resolve, _usable(what), payload)
    # Not by isinstance: `__class__` may be anything, or raise. A property is refused below, with a message.
    if callable(what) or issubclass(type(what), classmethod | staticmethod | property):
        return SpanBlock(resolve, DEFAULT_TYPE, None)(what)
    if reduce is not None and not callable(reduce):
        raise TypeError("reduce must be a function of the list of items")
    return SpanBlock(resolve, usable_name(what, DEFAULT_TYPE), payload, reduce)


@functools.lru_cache(maxsize=1024)
def _check(members: tuple[str, ...]) -> None:
    for name in members:
        for meant in ("payload", "reduce", "schema_name"):
            if is_near(name, meant):
                raise TypeError(f"span() has no keyword {name!r}: did you mean {meant}? Else put it into the dict")


def _with_members(payload: Any, members: dict[str, Any]) -> dict[str, Any]:
    if payload is None:
        return members
    with guard():  # it is no mapping, or one that fails
        return {**payload, **members}
    return {"input": payload, **members}


@functools.lru_cache(maxsize=1024)
def _usable(name: str) -> str:
    return usable_name(name, DEFAULT_TYPE)
