"""Carrying what is active to another thread or process: a callable that records where it was made."""

import contextvars
import functools
import os
import pickle
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, ParamSpec, TypeVar, cast

from agentspan.interrupts import let_through
from agentspan.model.rows import AgentInstanceRow
from agentspan.recording.capture.arguments import kind_of
from agentspan.recording.generators import Steps, wrap_async_generator, wrap_generator
from agentspan.recording.run import Run
from agentspan.recording.span import Span
from agentspan.storage.location import Location

if TYPE_CHECKING:
    from agentspan.recording.tracer import Tracer

P = ParamSpec("P")
R = TypeVar("R")


class Luggage(NamedTuple):
    """What another process needs to record below a span of this one: all of it can be pickled.

    Attributes:
        location: by what the storage can be opened; the other process records there too.
        settings: how the tracer was configured, pickled by itself, since a rule for redaction may not arrive. Without
            it another process must not be configured to record there.
        name: the agent's name.
        instance: the run's row.
        span: the active span's id and schema_name; None in a run without one.
        raises: whether the run raises when it is terminated.
    """

    location: Location
    settings: bytes | None
    name: str
    instance: AgentInstanceRow
    span: tuple[str, str] | None
    raises: bool


class Propagated(Generic[P, R]):
    """A function, and the run and span in which it is to be called, from any thread or process.

    Each call has a copy of the context of its own, so any number of them may run at once.
    """

    def __init__(self, fn: Callable[P, R], tracer: "Tracer") -> None:
        functools.update_wrapper(self, fn)
        self._fn = fn
        self._tracer = tracer
        self._node = tracer._current.get()
        self._context = contextvars.copy_context()
        self._kind = kind_of(fn)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function where it belongs; a coroutine or generator function gives one that runs there."""
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
        return Steps(self._tracer._current, self._node)

    async def _await(self, *args: Any, **kwargs: Any) -> Any:
        with self._start():
            return await cast(Any, self._fn)(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<propagated {self._fn!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        if not self._tracer.enabled:
            return _arrive_disabled, (self._fn,)
        storage = getattr(self._tracer, "storage", None)
        location = None if storage is None else storage.capabilities().location
        if storage is not None and location is None:
            return _arrive_unreachable, (self._fn, os.getpid(), storage.capabilities().backend)
        return _arrive, (self._fn, _pack(self._tracer, self._node, location))


def _pack(tracer: "Tracer", node: Span | Run | None, location: Location | None) -> Luggage | None:
    """Return what to carry; None where nothing is active, or nothing is recorded."""
    run = node.run if isinstance(node, Span) else node
    if node is None or run is None or run._instance is None or location is None:
        return None
    parent = node if isinstance(node, Span) else None
    while parent is not None and not parent.id:  # one that could not be recorded
        parent = parent._outer if isinstance(parent._outer, Span) else None
    return Luggage(
        location,
        _pickled(tracer._settings),
        run.name,
        run._instance,
        None if parent is None else (parent.id, parent.schema_name),
        run._on_terminate == "raise",
    )


def _pickled(settings: dict[str, Any]) -> bytes | None:
    try:
        return pickle.dumps(settings)
    except Exception as raised:
        let_through(raised)
        return None


def _unpickled(settings: bytes | None) -> dict[str, Any] | None:
    try:
        return None if settings is None else cast(dict[str, Any], pickle.loads(settings))
    except Exception as raised:  # the rule is a function of a module that cannot be imported here
        let_through(raised)
        return None


def _arrive_disabled(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Unpack what comes from a process that records nothing."""
    from agentspan.recording import default

    default.arrive_disabled()
    return fn


def _arrive_unreachable(fn: Callable[..., Any], pid: int, backend: str) -> Callable[..., Any]:
    """Unpack what comes from a process whose storage no other can open."""
    from agentspan.recording import default

    if pid != os.getpid():
        default.arrive_unreachable(
            f"this process works for process {pid}, which records into a storage ({backend}) that no other process can "
            "open, so nothing is recorded here; use a file, or set AGENTSPAN_DB for the workers"
        )
    return fn


def _arrive(fn: Callable[..., Any], luggage: Luggage | None) -> "Callable[..., Any]":
    """Unpack in another process: the function under a span that stands for the one that is active over there."""
    from agentspan.recording import default

    tracer = default.arrive(luggage.location, _unpickled(luggage.settings)) if luggage is not None else None
    if tracer is None or luggage is None:
        return fn  # it opens runs of its own, if it records
    run = tracer._runs.get(luggage.instance.id)  # one of this process, or of the parent that it was forked from
    if run is None:
        run = Run(lambda: tracer, luggage.name, on_terminate="raise" if luggage.raises else None)
        run._take_over(luggage.instance)
    node: Span | Run = run
    if luggage.span is not None:
        id, schema_name = luggage.span
        node = Span(tracer, run, None, schema_name)
        node.id, node.status, node._outer = id, "active", run
    context = contextvars.copy_context()
    context.run(tracer._current.set, node)
    return context.run(Propagated, fn, tracer)
