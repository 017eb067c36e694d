"""One call of a trial, or of a scorer: the first run that begins in it, its time limit, the loop of its coroutines."""

import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

from agentspan.ground import Recorder, RunState, clock, outside

T = TypeVar("T")


class TrialTimeout(BaseException):
    """A call took longer than `trial_timeout_s`. No Exception, so that no program tries again after it."""

    def __init__(self, text: str = "took longer than trial_timeout_s") -> None:
        super().__init__(text)


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise TrialTimeout in a with-block that takes longer.

    In the main thread a signal interrupts Python code, and calls that wait, such as those of sockets. In other threads,
    and on Windows, only Python code is interrupted: a call that waits ends first.
    """
    if seconds is None:
        yield
    elif threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer"):
        before = signal.signal(signal.SIGALRM, _raise)
        timer = signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            signal.setitimer(signal.ITIMER_REAL, *timer)
    else:
        id, lock, is_over = ctypes.c_ulong(threading.get_ident()), threading.Lock(), False

        def stop() -> None:
            with lock:
                if not is_over:
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(id, ctypes.py_object(TrialTimeout))

        waiting = threading.Timer(seconds, stop)
        waiting.daemon = True
        waiting.start()
        try:
            yield
        finally:
            with lock:  # an exception that `stop` has set is raised before this block ends
                is_over = True
            waiting.cancel()


def _raise(number: int, frame: object) -> None:
    raise TrialTimeout


class FirstRun:
    """The first run that begins in a call: the program's own, or one for its steps outside any run.

    Args:
        of_steps: the name of a run for steps outside any run.
        metadata: added to the metadata of the run.
        task, name, version: those of the run, instead of the program's; None leaves them.

    Attributes:
        run: the run; None while none has begun.
    """

    def __init__(
        self,
        of_steps: str,
        metadata: Mapping[str, Any],
        *,
        task: str | None = None,
        name: str | None = None,
        version: str | None = None,
    ) -> None:
        self._of_steps, self._metadata = of_steps, metadata
        self._task, self._name, self._version = task, name, version
        self._began = clock.now(), clock.monotonic_ns()
        self._lock, self._pid = threading.RLock(), os.getpid()
        self._own: RunState | None = None
        self.run: RunState | None = None

    def call(self, recorder: Recorder, work: Callable[[], T]) -> T:
        """Call a function outside any run. Its first run is found in its threads, too, if they have its context."""

        def call() -> T:
            recorder.current.set(None)
            outside.set(self.begin)
            _at_work.set(self)
            return work()

        return copy_context().run(call)

    def take(self, run: RunState) -> None:
        """Take a run that begins, if it is the first one. One of a forked child is another run."""
        with self._lock:
            if self.run is None and os.getpid() == self._pid:
                self.run = run
                run.become_trial(self._task, self._metadata, name=self._name, version=self._version)

    def begin(self, recorder: Recorder) -> RunState:
        """Return the run for steps outside any run. It began with the call."""
        with self._lock:
            if self._own is None:
                own = RunState(recorder, self._of_steps, purpose="eval")
                self.take(own)
                own.begin(since=self._began)
                self._own = own
            return self._own

    def end(self, error: BaseException | None, result: Mapping[str, Any] | None = None) -> None:
        """Finish the run for steps outside any run, if there is one."""
        if self._own is not None:
            if error is not None:
                self._own.keep_error(error)
            self._own.finish(None, result)


_at_work: ContextVar[FirstRun | None] = ContextVar("agentspan_first_run", default=None)


def take(run: RunState) -> None:
    """Offer a run that begins to the call that it begins in (see run_state.on_begin)."""
    first = _at_work.get()
    if first is not None:
        first.take(run)


class Loop:
    """One event loop for all coroutines, in a thread of its own: a client of the program belongs to one loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: Any = None
        self._thread: threading.Thread | None = None

    def result(self, value: Any, timeout_s: float | None) -> Any:
        """Return a value, or the result of an awaitable, which is cancelled after so many seconds."""
        if not hasattr(type(value), "__await__"):
            return value
        import asyncio

        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_run, args=(self._loop,), name="evaluate-loop", daemon=True)
                self._thread.start()
        waiting = asyncio.run_coroutine_threadsafe(_awaited(value, timeout_s), self._loop)
        try:
            return waiting.result()
        except KeyboardInterrupt:
            waiting.cancel()
            raise

    def close(self) -> None:
        """End the loop and its thread."""
        if self._thread is not None:
            import asyncio

            async def end() -> None:
                others = asyncio.all_tasks() - {asyncio.current_task()}
                for each in others:
                    each.cancel()
                await asyncio.gather(*others, return_exceptions=True)
                await self._loop.shutdown_asyncgens()

            asyncio.run_coroutine_threadsafe(end(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._thread = None


async def _awaited(value: Any, timeout_s: float | None) -> Any:
    import asyncio

    try:
        async with asyncio.timeout(timeout_s) as limit:
            return await value
    except TimeoutError:
        if limit.expired():
            raise TrialTimeout from None
        raise


def _run(loop: Any) -> None:
    """Run an event loop until somebody stops it. These exceptions of a task, which keeps them, would stop it, too."""
    while True:
        with suppress(KeyboardInterrupt, SystemExit):
            loop.run_forever()
            return
