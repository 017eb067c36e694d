"""Carrying what is active to another thread or process: a callable that records where it was made."""

import contextvars
import functools
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, ParamSpec, TypeVar, cast

from agentspan.model.rows import AgentInstanceRow
from agentspan.recording.arguments import is_coroutine_function
from agentspan.recording.run import Run
from agentspan.recording.span import Span

if TYPE_CHECKING:
    from agentspan.recording.tracer import Tracer

P = ParamSpec("P")
R = TypeVar("R")


class Luggage(NamedTuple):
    """What another process needs to record below a span of this one: all of it can be pickled.

    Attributes:
        path: the file; the other process records there too.
        settings: how the tracer was configured.
        name: the agent's name.
        instance: the run's row.
        span: the active span's id and schema_name; None in a run without one.
        raises: whether the run raises when it is terminated.
    """

    path: str
    settings: dict[str, Any]
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
        self._is_async = is_coroutine_function(fn)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function where it belongs; a coroutine function gives a coroutine that runs there."""
        if self._is_async:
            return cast(R, self._call_async(*args, **kwargs))
        return self._context.copy().run(self._fn, *args, **kwargs)

    async def _call_async(self, *args: Any, **kwargs: Any) -> Any:
        current = self._tracer._current
        outer = current.get()
        current.set(self._node)
        try:
            return await cast(Any, self._fn)(*args, **kwargs)
        finally:
            current.set(outer)

    def __repr__(self) -> str:
        return f"<propagated {self._fn!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (self._fn, _pack(self._tracer, self._node))


def _pack(tracer: "Tracer", node: Span | Run | None) -> Luggage | None:
    """Return what to carry; None where nothing is active, or the storage is of this process only."""
    run = node.run if isinstance(node, Span) else node
    path = getattr(getattr(tracer, "storage", None), "path", None)
    if node is None or run is None or run._instance is None or not isinstance(path, Path):
        return None
    parent = node if isinstance(node, Span) else None
    while parent is not None and not parent.id:  # one that could not be recorded
        parent = parent._outer if isinstance(parent._outer, Span) else None
    return Luggage(
        os.fspath(path),
        {name: value for name, value in tracer._settings.items() if _can_travel(value)},
        run.name,
        run._instance,
        None if parent is None else (parent.id, parent.schema_name),
        run._on_terminate == "raise",
    )


def _can_travel(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except Exception:
        return False
    return True


def _arrive(fn: Callable[..., Any], luggage: Luggage | None) -> "Callable[..., Any]":
    """Unpack in another process: the function under a span that stands for the one that is active over there."""
    from agentspan.recording import default

    tracer = default.arrive(luggage.path, luggage.settings) if luggage is not None else None
    if tracer is None or luggage is None:
        return fn  # it opens runs of its own, if it records
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
