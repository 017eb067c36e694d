"""Hides faults of agentspan from the program, but no exceptions of its signal handlers.

Threads of agentspan block all signals, so that a thread of the program handles them.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import wraps
from types import CodeType
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

_get = getattr(signal, "_signal", signal).getsignal  # `_signal` makes no enums: 5 µs for all signals instead of 30
_NUMBERS = tuple(sorted(map(int, signal.valid_signals()))) if hasattr(signal, "valid_signals") else ()
_FAULTS = {signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, getattr(signal, "SIGBUS", signal.SIGSEGV)}
"""Signals that a crashing thread sends to itself; `faulthandler` has handlers for them."""
_BLOCKED = {*_NUMBERS} - _FAULTS


P = ParamSpec("P")
T = TypeVar("T")
D = TypeVar("D")
Report = Callable[[Exception], object]


class Thread(threading.Thread):
    """A thread that blocks all signals, so that each signal reaches a thread of the program.

    A program may block a signal in its own threads, and wait for the signal with `sigwait`. In a thread that does not
    block the signal, the signal would end the program. With gevent or eventlet, a Thread is a greenlet in the thread
    that starts it, and blocks no signal.
    """

    def start(self) -> None:
        """Start the thread."""
        self._started_by = threading.get_native_id()
        super().start()

    def run(self) -> None:
        """Block the signals, and call the target."""
        if threading.get_native_id() != self._started_by:
            with suppress(AttributeError, MemoryError):  # Windows has no masks; without memory, go on
                signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
        super().run()


class guard(Generic[D]):  # reads as a statement, as `suppress` does
    """Hide the faults of a with-block, or of a function that it decorates, so that the program goes on.

        with guard(OSError):
            ...

        @guard(report=faults.add, otherwise=0)
        def count() -> int: ...

    An exception of a signal handler, and one that is no `Exception`, such as KeyboardInterrupt, is never hidden: it
    goes on as the same object. Threads may share a guard, and enter it again while they are in it. A with-block costs
    0.2 µs: where each call of a program passes, an `except` that calls `let_through` costs nothing.

    Args:
        *hidden: the types of the faults that it hides; all exceptions where none is given.
        report: is called with each hidden exception; what it raises reaches the caller. None where nobody wants it.
        otherwise: what a decorated function returns where a fault was hidden.
    """

    __slots__ = ("_hidden", "_otherwise", "_report")

    @overload
    def __init__(self: "guard[None]", *hidden: type[Exception], report: Report | None = None) -> None: ...
    @overload
    def __init__(self, *hidden: type[Exception], report: Report | None = None, otherwise: D) -> None: ...
    def __init__(self, *hidden: type[Exception], report: Report | None = None, otherwise: Any = None) -> None:
        self._hidden = hidden or (Exception,)
        self._report = report
        self._otherwise = otherwise

    def __enter__(self) -> None:
        pass

    def __exit__(self, type_: object, error: BaseException | None, traceback: object) -> bool:
        if error is None or not isinstance(error, self._hidden) or is_interrupt(error):
            return False
        if self._report is not None:
            self._report(error)
        return True

    def __call__(self, function: Callable[P, T]) -> Callable[P, T | D]:
        """Return the function with a guard around each call."""

        @wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> T | D:
            with self:
                return function(*args, **kwargs)
            return cast(D, self._otherwise)

        return guarded


def let_through(error: BaseException) -> None:
    """Raise an exception again if a signal handler raised it: for an `except` that does more than a `guard` can.

    Where such an exception ends in a function that counts or keeps it, that function calls this first.
    """
    if isinstance(error, Exception) and is_interrupt(error):
        raise error


def is_interrupt(error: BaseException) -> bool:
    """Return whether an exception must not be hidden: it is no `Exception`, or a signal handler raised it.

    The traceback of a handler's exception contains the handler's code. A traceback of one frame cannot: a function in C
    raised that exception. This is the common case, and costs nothing.
    """
    if not isinstance(error, Exception):
        return True
    trace = error.__traceback__
    if trace is None or trace.tb_next is None:
        return False
    try:
        if threading.get_ident() != threading.main_thread().ident:
            return False  # handlers run in the main thread only
        codes = set(_codes())
    except RecursionError:
        return False
    while trace is not None:
        if trace.tb_frame.f_code in codes:
            return True
        trace = trace.tb_next
    return False


def start(thread: Thread) -> None:
    """Start a thread. If threading's bookkeeping turns a signal handler's exception into a KeyError, raise the former.

    Raises:
        RuntimeError: no thread can be started now.
    """
    try:
        thread.start()
    except KeyError as error:
        raise (error.__context__ or error) from None


def _codes() -> Iterator[CodeType]:
    """Yield the code of each registered signal handler that is a function in Python."""
    for number in _NUMBERS:
        handler: Any = _get(number)
        if callable(handler):
            for one in (handler, getattr(handler, "func", None), getattr(type(handler), "__call__", None)):  # noqa: B004
                code = getattr(getattr(one, "__func__", one), "__code__", None)
                if type(code) is CodeType:
                    yield code
