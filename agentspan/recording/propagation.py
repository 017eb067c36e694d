"""Propagation: wraps a function so that its calls in another thread or process record under the current span."""

import contextvars
import functools
import os
import pickle
from collections.abc import Callable
from importlib import import_module
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar, cast

from agentspan import host
from agentspan.host import guard
from agentspan.model.changes import Unit
from agentspan.model.rows import AgentInstanceRow
from agentspan.recording.capture.arguments import kind_of
from agentspan.recording.generators import Steps, wrap_async_generator, wrap_generator
from agentspan.recording.recorder import Recorder
from agentspan.recording.run_state import RunState
from agentspan.recording.settings import Settings
from agentspan.recording.span_state import SpanState
from agentspan.storage.location import Location

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


def _of_process() -> Any:
    """Return the module `default`, which configures this process. Imported late, because it imports this module."""
    with host.importing:
        return import_module("agentspan.recording.default")


class Propagated(Generic[P, R]):
    """A function, and the run and span under which its calls record, in any thread or process.

    Each call runs in its own copy of the context, so any number of calls may run at the same time.
    """

    def __init__(self, fn: Callable[P, R], recorder: Recorder) -> None:
        functools.update_wrapper(self, fn)
        self._fn = fn
        self._recorder = recorder
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
            return _arrive_disabled, (self._fn,)
        location = recorder.location
        if recorder.is_open and location is None:
            return _arrive_unreachable, (self._fn, os.getpid(), recorder.store.capabilities().backend)
        return _arrive, (self._fn, _pack(recorder, self._node, location))


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


def _arrive_disabled(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Unpickle a function from a process that records nothing; this process records nothing, too, unless configured."""
    _of_process().arrive_disabled()
    return fn


def _arrive_unreachable(fn: Callable[..., Any], pid: int, backend: str) -> Callable[..., Any]:
    """Unpickle a function from a process whose storage no other process can open."""
    if pid != os.getpid():
        _of_process().arrive_unreachable(
            f"this process works for process {pid}, which records into a storage ({backend}) that no other process can "
            "open, so nothing is recorded here; use a file, or set AGENTSPAN_DB for the workers"
        )
    return fn


def _arrive(fn: Callable[..., Any], luggage: Luggage | None) -> "Callable[..., Any]":
    """Unpickle a function in another process, under a stand-in for the active span of the sending process."""
    recorder = None if luggage is None else _of_process().arrive(luggage.location, _unpickled(luggage.settings))
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
    return context.run(Propagated, fn, recorder)
