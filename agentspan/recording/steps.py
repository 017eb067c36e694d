"""Functions whose steps run under a span of their own: decorated generators, and propagated functions.

The span of a generator is active while the generator runs, and not while its consumer runs. No context token is held
across a `yield`. Around each step, the generator's active span is set and the consumer's is restored, so that spans of
the consumer between two items do not become children of the generator's span.

A propagated function records under the span that was active when it was wrapped, in any thread or process.
"""

import contextvars
import functools
import os
import pickle
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextvars import ContextVar, copy_context
from typing import Any, Generic, NamedTuple, ParamSpec, Self, TypeVar, cast

from agentspan import jsontext
from agentspan.host import guard
from agentspan.model.changes import Unit
from agentspan.model.rows import AgentInstanceRow
from agentspan.recording.capture.capture import kind_of
from agentspan.recording.recorder import Recorder
from agentspan.recording.run_state import RunState
from agentspan.recording.settings import Settings
from agentspan.recording.span_state import Reduce, SpanState
from agentspan.recording.spending import Paused
from agentspan.storage.location import Location


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
        with self._span.recorder.faults.adding(reraise=exception is None):  # the consumer may have stopped early
            value = self._reduce(self._items)
            return value if issubclass(type(value), dict) else {"output": value}
        return {"items": len(self._items)}


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


class _Ending:
    """A with-block around all steps of a generator. Its stream receives how the generator ended.

    Args:
        end: the exception with which this kind of generator ends.

    Attributes:
        thrown: the exception that the consumer threw into the generator before the current step, or None.
        value: the return value of the generator, after its end.
    """

    def __init__(self, stream: Steps, end: type[Exception]) -> None:
        self.thrown: BaseException | None = None
        self.value: Any = None
        self._stream = stream
        self._end = end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, type_: object, exception: BaseException | None, traceback: object) -> bool:
        is_closed = isinstance(self.thrown, GeneratorExit)
        self.thrown = None  # its traceback has the frame of the generator
        if isinstance(exception, self._end):
            self.value = getattr(exception, "value", None)
            self._stream.returned(self.value, closed=is_closed)
            return True
        if isinstance(exception, GeneratorExit):  # also where an async generator was awaiting, not yielding
            self._stream.returned(closed=True)
        elif exception is not None:
            self._stream.raised(exception)
        return False


def wrap_generator(fn: Callable[..., Any], start: Start) -> Callable[..., Any]:
    """Wrap a generator function: `start` begins its steps when the consumer requests the first item."""

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        stream = start(args, kwargs)
        if stream is NOTHING:
            return (yield from fn(*args, **kwargs))
        with _Ending(stream, StopIteration) as ending:
            with stream:
                generator = fn(*args, **kwargs)
                item = next(generator)
            while True:
                stream.keep(item)
                try:
                    sent, ending.thrown = (yield item), None
                except BaseException as exception:
                    sent, ending.thrown = None, exception
                # Outside the `except` block, so that an exception of the generator does not get this one as context.
                if isinstance(ending.thrown, GeneratorExit):
                    item = copy_context().run(_close, generator, stream, ending.thrown)
                    continue
                with stream:
                    item = generator.send(sent) if ending.thrown is None else generator.throw(ending.thrown)
        return ending.value

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
        while True:
            try:
                stream = start(args, kwargs)
                break
            except Paused as paused:
                await paused.wait()
        with _Ending(stream, StopAsyncIteration) as ending:
            with stream:
                generator = fn(*args, **kwargs)
                item = await _first(generator)
            while True:
                stream.keep(item)
                try:
                    sent, ending.thrown = (yield item), None
                except BaseException as exception:
                    sent, ending.thrown = None, exception
                with stream:
                    item = await (generator.asend(sent) if ending.thrown is None else generator.athrow(ending.thrown))

    return call


def _first(generator: AsyncGenerator[Any, Any]) -> Awaitable[Any]:
    """Request the first item of the inner generator, without registering the generator in the event loop.

    When the loop ends, it closes all registered generators at the same time. Only the decorated generator is
    registered; it closes the inner one.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, lambda generator: None)
    try:
        return anext(generator)
    finally:
        sys.set_asyncgen_hooks(*hooks)


P = ParamSpec("P")
R = TypeVar("R")


class Luggage(NamedTuple):
    """The facts that another process needs to record below a span of this process. All of them can be pickled.

    Attributes:
        location: the location of the storage, which the other process records into, too.
        settings: the settings of the recorder, pickled separately, because the other process may be unable to unpickle
            a redaction rule. None if they cannot be pickled.
        name: the agent's name.
        instance: the run's row.
        span: the active span's id and schema_name; None in a run without one.
        raises: whether the run raises when it is terminated.
        registration: the unit that registers the run, until the run is known to be stored. The other process journals
            it, too, because its journal may be drained first.
    """

    location: Location
    settings: bytes | None
    name: str
    instance: AgentInstanceRow
    span: tuple[str, str] | None
    raises: bool
    registration: Unit | None


class Arrival(NamedTuple):
    """The functions that configure the process in which a propagated function arrives. All of them can be pickled.

    Attributes:
        arrive: returns a recorder for the storage and the settings of the other process, or None.
        unreachable: records nothing from now on, for the reason that is passed.
        disabled: records nothing from now on, unless this process is configured.
    """

    arrive: Callable[[Location, Settings | None], Recorder | None]
    unreachable: Callable[[str], None]
    disabled: Callable[[], None]


class Propagated(Generic[P, R]):
    """A function, and the run and span under which its calls record, in any thread or process.

    Each call runs in its own copy of the context, so any number of calls may run at the same time.
    """

    def __init__(self, fn: Callable[P, R], recorder: Recorder, arrival: Arrival) -> None:
        functools.update_wrapper(self, fn)
        self._fn = fn
        self._recorder = recorder
        self._arrival = arrival
        self._node = recorder.innermost()
        self._context = contextvars.copy_context()
        self._kind = kind_of(fn)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function under its span. For a coroutine or generator function: return one that runs under it."""
        match self._kind:
            case "function":
                return self._context.copy().run(self._fn, *args, **kwargs)
            case "coroutine":
                return cast(R, self._await(*args, **kwargs))
            case "generator":
                return cast(R, wrap_generator(self._fn, self._start)(*args, **kwargs))
            case "async generator":
                return cast(R, wrap_async_generator(self._fn, self._start)(*args, **kwargs))

    def _start(self, *called_with: Any) -> Steps:
        return Steps(self._recorder.current, self._node)

    async def _await(self, *args: Any, **kwargs: Any) -> Any:
        with self._start():
            return await cast(Any, self._fn)(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<propagated {self._fn!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        recorder = self._recorder
        if not recorder.enabled:
            return _arrive_disabled, (self._fn, self._arrival)
        location = recorder.location
        if recorder.is_open and location is None:
            return _arrive_unreachable, (self._fn, self._arrival, os.getpid(), recorder.store.capabilities().backend)
        return _arrive, (self._fn, self._arrival, _pack(recorder, self._node, location))


def _pack(recorder: Recorder, node: SpanState | RunState | None, location: Location | None) -> Luggage | None:
    """Return the facts for another process; None if no span or run is active, or nothing is recorded."""
    run = node.run if isinstance(node, SpanState) else node
    if node is None or run is None or run.registered_row is None or location is None:
        return None
    parent = node if isinstance(node, SpanState) else None
    while parent is not None and not parent.id:  # a span without an id was not recorded
        parent = parent.outer if isinstance(parent.outer, SpanState) else None
    return Luggage(
        location,
        _pickled(recorder.settings),
        run.name,
        run.registered_row,
        None if parent is None else (parent.id, parent.schema_name),
        run.on_terminate == "raise",
        recorder.runs.unconfirmed.get(run.id),
    )


@guard()
def _pickled(settings: Settings) -> bytes:
    return pickle.dumps(settings)


@guard()  # the rule for redaction may be a function of a module that cannot be imported here
def _unpickled(settings: bytes | None) -> Settings | None:
    return None if settings is None else cast(Settings, pickle.loads(settings))


def _arrive_disabled(fn: Callable[..., Any], arrival: Arrival) -> Callable[..., Any]:
    """Unpickle a function from a process that records nothing; this process records nothing, too, unless configured."""
    arrival.disabled()
    return fn


def _arrive_unreachable(fn: Callable[..., Any], arrival: Arrival, pid: int, backend: str) -> Callable[..., Any]:
    """Unpickle a function from a process whose storage no other process can open."""
    if pid != os.getpid():
        arrival.unreachable(
            f"this process works for process {pid}, which records into a storage ({backend}) that no other process can "
            "open, so nothing is recorded here; use a file, or set AGENTSPAN_DB for the workers"
        )
    return fn


def _arrive(fn: Callable[..., Any], arrival: Arrival, luggage: Luggage | None) -> Callable[..., Any]:
    """Unpickle a function in another process, under a stand-in for the active span of the sending process."""
    recorder = None if luggage is None else arrival.arrive(luggage.location, _unpickled(luggage.settings))
    if recorder is None or luggage is None:
        return fn  # if this process records, the function's spans begin runs of their own
    run = recorder.runs.get(luggage.instance.id)  # a run of this process, or of the parent that forked it
    if not isinstance(run, RunState):
        run = RunState(recorder, luggage.name, on_terminate="raise" if luggage.raises else None)
        run.take_over(luggage.instance)
        if luggage.registration is not None:
            recorder.restate(luggage.registration)
    node: SpanState | RunState = run
    if luggage.span is not None:
        id, schema_name = luggage.span
        node = SpanState(recorder, run, None, schema_name)
        node.id, node.status, node.outer = id, "active", run
    context = contextvars.copy_context()
    context.run(recorder.current.set, node)
    return context.run(Propagated, fn, recorder, arrival)
