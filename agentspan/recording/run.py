"""A run (agent instance) as the recorded program holds it. Its methods never raise."""

import functools
import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, cast

from agentspan import clock, forks, jsontext
from agentspan.errors import InvalidValue
from agentspan.forks import page
from agentspan.model import instances
from agentspan.model.changes import Unit
from agentspan.model.rows import AgentInstanceRow
from agentspan.model.spans import Times, check_finish
from agentspan.model.status import OPEN, FinishStatus, InstanceStatus, Purpose
from agentspan.operations import agent_instances
from agentspan.operations.context import Context, Done
from agentspan.recording.capture.arguments import kind_of
from agentspan.recording.span import Span, last_entered
from agentspan.schemas.span_types import MAX_NAME, usable_name
from agentspan.text import one_line

if TYPE_CHECKING:
    from agentspan.recording.tracer import Tracer

OnTerminate = Literal["raise"] | Callable[["Run"], object]

P = ParamSpec("P")
R = TypeVar("R")


class Run:
    """One run of an agent: a with-block (also `async with`), or a decorator that makes each call a run of its own.

    It completes at the end of the block, and fails, keeping the error, on an exception.

    Attributes:
        id: the agent instance's PFID; "" before it is entered, or when it could not be recorded.
        name: the agent's name.
        status: pending, active, complete, failed, cancelled or terminated.
        termination_reason: why somebody terminated it, as far as it has learned; None if nobody has.
    """

    def __init__(
        self,
        resolve: "Callable[[], Tracer]",
        name: str,
        *,
        version: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        purpose: Purpose = "live",
        on_terminate: OnTerminate | None = None,
    ) -> None:
        is_known = on_terminate is None or callable(on_terminate)
        if not is_known and not (issubclass(type(on_terminate), str) and str(on_terminate) == "raise"):
            raise InvalidValue("on_terminate", 'must be "raise", a function that takes the run, or None')
        if callable(name):
            raise TypeError('a run has a name: write @agentspan.run("name")')
        self.name = name
        self._resolve = resolve
        self._bound: Tracer | None = None
        self._version = version
        self._metadata = metadata
        self._purpose: Purpose = purpose
        self._on_terminate = on_terminate
        self._entered: list[Run] = []
        self._unused = [True]  # taken by whoever enters it first: of two threads that do at once, one
        self._reset()

    def _reset(self) -> None:
        self.id = ""
        self.status: InstanceStatus = "pending"
        self.termination_reason: str | None = None
        self._told = False
        self._is_left = False
        self._writer_id = ""
        self._instance: AgentInstanceRow | None = None
        self._result: dict[str, Any] | None = None
        self._error: dict[str, Any] | None = None
        self._outer: Any = None
        self._began_ns = 0

    def __repr__(self) -> str:
        return f"<Run {self.name} {self.id or '(not recorded)'} {self.status}>"

    @property
    def terminated(self) -> bool:
        """Whether somebody terminated the run. It learns that when a span of it begins, or ends too late."""
        return self.termination_reason is not None

    @property
    def _tracer(self) -> "Tracer":
        if self._bound is None:
            self._bound = self._resolve()
        return self._bound

    def set_result(self, result: Mapping[str, Any]) -> None:
        """Merge into what the run returned, which is stored when it finishes."""
        try:
            self._result = {**(self._result or {}), **result}
        except Exception as error:
            self._tracer._lose(error)

    def record_error(self, exception: BaseException) -> None:
        """Note an exception that was caught: the run will finish as failed, with this error."""
        try:
            self._error = self._tracer._capture.error(exception) if self._tracer.enabled else {}
        except Exception as error:
            self._tracer._lose(error)

    def create_span(
        self,
        schema_name: str,
        payload: Mapping[str, Any] | None = None,
        *,
        status: Literal["pending", "active"] = "pending",
        parent: Span | None = None,
    ) -> Span:
        """Create a span that its methods finish; its parent is `parent`, else this run's span that is active here."""
        if not page[0]:
            forks.renew()
        tracer = self._tracer
        if not tracer.enabled:
            return tracer._unrecorded(usable_name(schema_name, "custom"), self, status)
        if parent is None:
            current = tracer.current_span()
            parent = current if current is not None and current.run is self else None
        parent_id = parent.id if issubclass(type(parent), Span) else None  # type: ignore[union-attr]
        span = Span(tracer, self, parent_id or None, usable_name(schema_name, "custom"))
        if type(status) is not str or status not in OPEN:
            tracer._lose(InvalidValue("status", "a span is created pending or active, and finished by its methods"))
            status = "pending"
        tracer._create(span, {} if payload is None else payload, status)
        return span

    def __enter__(self) -> "Run":
        run = self if self.status != "active" and self._take() else self._again()  # shared, it is a run in each task
        run._bound = self._resolve()
        run._reset()
        run._start()
        run._outer = run._tracer._enter(run)
        try:
            self._entered.append(run)
        except BaseException:  # from a signal handler, after the call: no block will end it
            self._entered.remove(run)
            run._tracer._exit(run)
            raise
        return run

    def __exit__(
        self, type_: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        entered = self._entered
        if entered[1:]:
            run = last_entered(entered)
        else:
            run = entered[0]
            del entered[0]  # no call up to here: an exception from a signal handler comes at calls
        try:
            run._leave(exception)
        except BaseException:
            run._tracer._exit(run)
            raise
        finally:
            if run is self:
                self._unused.append(True)
        return False

    def _take(self) -> bool:
        try:
            return self._unused.pop()
        except IndexError:
            return False

    def _goes_on(self) -> bool:
        """Tell whether what begins now may be in this run; in a terminated one, as long as its block lasts."""
        return self.status in OPEN or (self.status == "terminated" and not self._is_left)

    def _leave(self, exception: BaseException | None) -> None:
        if not page[0]:
            forks.renew()
        self._is_left = True
        self._tracer._exit(self)
        if self._writer_id != self._tracer._writer_id:
            return  # a forked child leaves a block of its parent's, which goes on
        if exception is not None:
            self.record_error(exception)
        if self.status in ("active", "terminated"):
            self._finish("complete" if self._error is None else "failed", self._error, reraise=exception is None)

    def _again(self) -> "Run":
        return Run(
            self._resolve,
            self.name,
            version=self._version,
            metadata=self._metadata,
            purpose=self._purpose,
            on_terminate=self._on_terminate,
        )

    async def __aenter__(self) -> "Run":
        return self.__enter__()

    async def __aexit__(
        self, type_: type[BaseException] | None, exception: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        return self.__exit__(type_, exception, traceback)

    def __call__(self, fn: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function or coroutine function: each call is a run; a dict that it returns is the run's result."""
        kind = kind_of(fn)
        if kind in ("generator", "async generator"):
            raise TypeError("a generator function cannot be a run; use `with agentspan.run(…)` inside it")

        if kind == "coroutine":

            @functools.wraps(fn)
            async def call_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                if not self._resolve().enabled:
                    return await cast(Callable[P, Any], fn)(*args, **kwargs)
                with self._again() as run:
                    value = await cast(Callable[P, Any], fn)(*args, **kwargs)
                    run._returned(value)
                return value

            return cast(Callable[P, R], call_async)

        @functools.wraps(fn)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if not self._resolve().enabled:
                return fn(*args, **kwargs)
            with self._again() as run:
                value = fn(*args, **kwargs)
                run._returned(value)
            return value

        return call

    def finish(self, status: FinishStatus | None = None, result: Mapping[str, Any] | None = None) -> None:
        """Finish the run before its block ends."""
        if not page[0]:
            forks.renew()
        if result is not None:
            self.set_result(result)
        wanted: FinishStatus = "failed" if self._error is not None else "complete"
        try:
            wanted = status or wanted
            if not self.terminated:
                check_finish("agent instance", self.id or "(not recorded)", self.status, wanted)
        except Exception as error:
            self._tracer._lose(error)
        else:
            self._finish(wanted, self._error)

    def _returned(self, value: Any) -> None:
        if value is not None:
            self.set_result(value if issubclass(type(value), dict) else {"output": value})

    def _start(self) -> None:
        if not page[0]:
            forks.renew()
        tracer = self._tracer
        self._writer_id = tracer._writer_id
        self.status = "active"
        if not tracer.enabled:
            return
        try:
            context = tracer._open_context()
            tracer._make_writer_known()
            done = self._register(context, None, clock.now())
            self._instance = cast(AgentInstanceRow, done.row)
            self.id = done.row.id
            tracer._runs[self.id] = self
            if done.committed:
                tracer._count_recorded()
            tracer._sink_of_all().watch()
        except Exception as error:
            tracer._lose(error)
        self._began_ns = clock.monotonic_ns()

    def _register(self, context: Context, id: str | None, started_at: str) -> Done:
        tracer = self._tracer
        capture = tracer._capture
        metadata = None if self._metadata is None else jsontext.decode(capture.object(self._metadata))
        version = None if self._version is None else self._text(self._version)
        return agent_instances.register(
            context,
            agent_id=self._text(self.name) or None,
            agent_version={"external_identifier": version},
            id=id,
            purpose=self._purpose if type(self._purpose) is str else "live",
            metadata=metadata,
            schema=tracer._schema_content(),
            started_at=started_at,
            writer_id=tracer._writer_id,
        )

    def _text(self, value: Any) -> str | None:
        """Return the text of a name or version, or None of an object that has none."""
        try:
            return one_line(self._tracer._capture.text(str(value)), MAX_NAME)
        except Exception as raised:
            self._tracer._fault(raised, reraise=False)
            return None

    def _take_over(self, instance: AgentInstanceRow) -> None:
        """Stand for a run that another process began, and will finish."""
        self._instance = instance
        self.id, self.status = instance.id, "active"
        self._tracer._runs[self.id] = self

    def _register_again(self) -> AgentInstanceRow | None:
        """Register in a file that took the place of the one that knew this run; None if it is known there."""
        instance, context = self._instance, self._tracer._open_context()
        if instance is None or self.id in context.storage.find(self.id, instance_id=self.id).rows:
            return None
        done = self._register(context, self.id, instance.started_at or clock.now())
        self._instance = cast(AgentInstanceRow, done.row)
        return self._instance

    def _finish(self, status: FinishStatus, error: dict[str, Any] | None, *, reraise: bool = True) -> None:
        ended_ns = clock.monotonic_ns()
        self._error = error
        if not self.terminated:
            self.status = status
        tracer = self._tracer
        if self._instance is None:
            tracer._count_unrecorded()
            return
        try:
            now = clock.now()
            started_at = self._instance.started_at or now
            move = instances.finished(
                self.id,
                status=status,
                times=Times(started_at, max(started_at, now), (ended_ns - self._began_ns) / 1_000_000),
                now=now,
                result=None if self._result is None else tracer._capture.object(self._result),
                error=None if error is None else tracer._capture.object(error),
            )
            tracer._out.write(Unit((move,)))
        except Exception as fault:
            tracer._lose(fault, reraise=reraise)

    def _learn(self, reason: str) -> None:
        """Take note that somebody terminated the run."""
        if self.termination_reason is None:
            self.termination_reason = reason
            self.status = "terminated"

    def _tell(self) -> None:
        """Call, once, what was to be called when the run is terminated."""
        on_terminate = self._on_terminate
        if not self._told and callable(on_terminate):
            self._told = True
            try:
                on_terminate(self)
            except Exception as error:
                self._tracer._fault(error)


class Runs:
    """The runs of one tracer that the program still has, by their ids.

    No WeakValueDictionary: it calls a function in Python whenever a run is gone, and what a signal handler raises in
    there is swallowed by the interpreter.
    """

    def __init__(self) -> None:
        self._runs: dict[str, weakref.ref[Run]] = {}
        self._most = 100

    def __setitem__(self, id: str, run: Run) -> None:
        self._runs[id] = weakref.ref(run)
        if len(self._runs) > self._most:
            for gone in [id for id, each in list(self._runs.items()) if each() is None]:
                self._runs.pop(gone, None)
            self._most = 2 * len(self._runs) + 100

    def get(self, id: str) -> Run | None:
        """Return a run, or None if it is gone, or of another process."""
        found = self._runs.get(id)
        return None if found is None else found()

    def all(self) -> list[Run]:
        """Return all of them."""
        return [run for each in list(self._runs.values()) if (run := each()) is not None]


def implicit(tracer: "Tracer", name: str) -> Run:
    """Start the run of a span that is outside any: named after the program, it ends with that span."""
    run = Run(lambda: tracer, name)
    run._start()
    return run
