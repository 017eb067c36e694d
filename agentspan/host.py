"""Protects agentspan from the program that it records: from its forks, signal handlers and their exceptions.

`guard` hides faults of agentspan from the program, but no exceptions of its signal handlers. Threads of agentspan block
all signals, so that a thread of the program handles them. `within` is a with-block whose lock is released even if a
signal handler raises. `Bell` wakes a thread. The rest handles forks: modules register functions that run before and
after a fork. No other module registers with `os`.

1. Before a fork: the thread that forks acquires all registered holds, in the order of `Hold`. One thread at a time.
2. In the parent, after the fork: the thread releases the holds, in the reverse order.
3. In the child, at once: the child drops the parent's files and connections without closing them.
4. In the child, at its first use of agentspan (`renew`): the child makes new locks, ids, sinks and threads, in the
   order of `Renewal`. Not earlier, because a worker of gevent replaces Python's locks and threads after it was forked.

`page[0]` is 0 until step 4 is done. The kernel clears `page` in every child, also if a C library forks and Python does
not notice (as uWSGI does). After such a fork, step 1 did not run, and step 3 runs with step 4. So every function that
records, reads or writes begins with

    if not page[0]:
        host.renew()

which costs 20 ns. If a signal handler raises an exception in step 4, the exception reaches the caller, and the next use
repeats all of step 4. In steps 1 to 3 the interpreter would print and drop the exception, so `_surely` repeats the
interrupted function.

If the kernel cannot clear a page (Linux before 4.14, other systems), `SEES_ALL` is False. Then agentspan does not
notice a fork that Python does not notice.
"""

import mmap
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from enum import IntEnum
from functools import partial, wraps
from types import CodeType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast, overload

from agentspan import disk

if TYPE_CHECKING:
    import logging

    from _typeshed import FileDescriptorLike

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
        *hidden: the types of the exceptions to hide; every `Exception` if none is passed.
        report: called with each hidden exception; an exception of `report` reaches the caller. None for no report.
        otherwise: the return value of a decorated function after a hidden exception.
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


class undoing:
    """Call a function if the with-block raises an exception, also one of a signal handler. The exception goes on.

        with undoing(connection.close):
            ...

    Args:
        undo: undoes the part of the block that ran.
    """

    __slots__ = ("_undo",)

    def __init__(self, undo: Callable[[], object]) -> None:
        self._undo = undo

    def __enter__(self) -> None:
        pass

    def __exit__(self, type_: object, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            self._undo()


def let_through(error: BaseException) -> None:
    """Raise an exception again if a signal handler raised it: for an `except` that does more than a `guard` can.

    A function that counts or keeps an exception instead of raising it calls `let_through` first.
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


class Occupied(Exception):
    """The lock cannot be acquired now: another thread held it for too long, or this thread holds it already."""


class within:
    """A with-block that holds an RLock. It waits for the lock for at most `wait_s` seconds. It does not nest.

    The lock is an RLock, because an RLock knows its owner: after an exception at any point of `__enter__`, a thread
    releases the lock only if it holds it. A field for the owner would have to be reset in Python at the block's end,
    where an exception of a signal handler can come first. threading.Condition calls `_is_owned`, too. The public way,
    `notify(0)` of a Condition, raises if the lock is free, which it nearly always is (2 µs instead of 0.1).

    Args:
        lock: from threading.RLock.
        wait_s: how long to wait, in seconds; 0 for one try.

    Raises:
        Occupied: another thread holds the lock; or this thread does, and a signal handler or finalizer interrupted it.
    """

    __slots__ = ("__exit__", "_lock", "wait_s")

    def __init__(self, lock: Any, wait_s: float) -> None:
        self._lock = lock
        self.wait_s = wait_s
        self.__exit__ = lock.__exit__  # a function in C: no signal handler runs before its first step

    def __enter__(self) -> None:
        lock = self._lock
        if lock._is_owned():  # `is_mine` without its call, which costs 0.1 µs
            raise self._refusal(True)
        try:
            # First without a timeout: this is enough if no other thread has the lock, and twice as fast.
            if lock.acquire(False) or (self.wait_s > 0 and lock.acquire(True, self.wait_s)):
                return
        except BaseException:
            try:
                lock.release()
            except RuntimeError:  # the exception came before the lock was acquired
                pass
            raise
        raise self._refusal(False)

    def _refusal(self, is_mine: bool) -> Exception:
        """Return the exception to raise. A subclass returns one with a longer message."""
        return Occupied("this thread holds the lock already" if is_mine else "another thread kept the lock too long")


def is_mine(lock: Any) -> bool:
    """Return whether this thread holds an RLock."""
    return lock._is_owned()  # type: ignore[no-any-return]  # threading.Condition calls it, too


class Bell:
    """Wakes one thread that waits for it.

    It is no Event, because `Event.set` waits for ever if a signal handler calls it during another `set` of its thread.

    Attributes:
        is_last: True if the thread shall end.
    """

    def __init__(self) -> None:
        self.is_last = False
        self._silent = threading.Lock()
        self._silent.acquire()

    def ring(self) -> None:
        """Wake the waiting thread. If no thread waits, its next wait ends at once."""
        try:
            self._silent.release()
        except RuntimeError:  # the bell was rung already
            pass

    def wait(self, wait_s: float) -> bool:
        """Wait until the bell rings, for at most `wait_s` seconds. Return whether it rang."""
        return self._silent.acquire(timeout=wait_s)


TURN_WAIT_S = 30.0
"""How long a fork waits for a fork of another thread, in seconds: longer than all waits within one fork."""
IMPORT_WAIT_S = 5.0
"""How long a fork waits for a late import of another thread, and a late import for a fork, in seconds."""
RENEW_WAIT_S = 5.0
_PAUSE_S = 0.0005
_WIPE_ON_FORK = 18  # MADV_WIPEONFORK of Linux, for which Python has no name

Step = Callable[[], None]


class Hold(IntEnum):
    """The stages before a fork, in order: a thread that one stage waits for may need a resource of a later stage."""

    THREADS = 0
    """Agentspan's threads have ended; each sink is drained, and its locks are held."""
    SQLITE = 1
    """No other thread is inside SQLite, and no connection is open."""
    DESCRIPTORS = 2
    """No other thread opens or closes a segment."""
    IMPORTS = 3
    """No other thread is inside a late import of agentspan: the child would wait for the module's lock for ever."""


class Renewal(IntEnum):
    """The stages in which a child makes new resources at its first use of agentspan, in order."""

    LOCKS = 0
    """Locks and sources of ids, which need no other resource."""
    RECORDERS = 1
    """Recorders, which mint ids and have a sink."""


def _new_page() -> tuple[mmap.mmap | bytearray, bool]:
    if sys.platform == "linux":
        try:
            page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            page.madvise(_WIPE_ON_FORK)
            return page, True
        except (OSError, ValueError):  # an older kernel, or one that only pretends to be Linux
            pass
    return bytearray(1), False


page, SEES_ALL = _new_page()
page[0] = 1

is_cut_off = False
"""True in a child that must not use a database, because it was forked while a thread was inside SQLite."""

_holds: list[tuple[Hold, Step, Step]] = []
_forgets: list[Step] = []
_renewals: list[tuple[Renewal, Step]] = []

_turn = threading.RLock()  # an RLock knows its owner, even if an exception comes right after `acquire`
_turn_of = 0  # the thread that holds `_turn`, or 0
_depths: dict[int, int] = {}  # nested forks by thread: a signal handler may fork while its thread forks
_to_let_go: list[Step] = []
_TRIES = 3

_importing: list[int] = []
_importing_is_for = 0  # the thread that forks, or 0: meanwhile no other thread begins a late import

_forgot_in = 0  # the process in which `_forget` ran last
_renews_in = 0
_renewing: dict[int, threading.RLock] = {}  # by process, because the parent's lock may be held at the fork


def hold(stage: Hold, hold: Step, let_go: Step) -> None:
    """Register a function that runs before each fork, and one that runs after it. Neither may wait for ever.

    If an exception of a signal handler interrupts one of the two functions, the function is called again.

    Args:
        stage: when `hold` is called, relative to the holds of other modules.
        hold: called before the fork, in the thread that forks.
        let_go: called in the parent after the fork, also if `hold` raised.
    """
    _holds.append((stage, hold, let_go))
    _holds.sort(key=lambda each: each[0])


def forget(step: Step) -> None:
    """Register a function with which a new child drops files and connections of its parent without closing them."""
    _forgets.append(step)


def renewal(stage: Renewal, step: Step) -> None:
    """Register a function that makes new resources in a child, at the child's first use of agentspan."""
    _renewals.append((stage, step))
    _renewals.sort(key=lambda each: each[0])


def members(enrolled: "weakref.WeakSet[T]") -> list[T]:
    """Return the members of a WeakSet. Retry on RuntimeError, which means that another thread has changed the set."""
    while True:
        try:
            return list(enrolled)
        except RuntimeError:
            pass


def for_each(enrolled: "weakref.WeakSet[T]", step: Callable[[T], object]) -> Step:
    """Return a function that calls `step` with each member of a WeakSet: to register it here, or with `atexit`."""

    def steps() -> None:
        for member in members(enrolled):
            step(member)

    steps.__qualname__ = step.__qualname__  # a log says what failed
    return steps


def hold_each(
    stage: Hold, enrolled: "weakref.WeakSet[T]", take: Callable[[T], object], let_go: Callable[[T], object]
) -> None:
    """Register two functions that are called with each member of a WeakSet: before a fork, and after it (see hold).

    Another thread may add members meanwhile. If an interrupt came, `take` is called again for all that are held.
    """
    held: list[T] = []

    def hold_all() -> None:
        for interrupted in list(held):
            take(interrupted)
        while fresh := [each for each in members(enrolled) if each not in held]:
            for member in fresh:
                held.append(member)
                take(member)

    def let_go_of_all() -> None:
        while held:
            let_go(held[-1])
            held.pop()

    hold_all.__qualname__, let_go_of_all.__qualname__ = take.__qualname__, let_go.__qualname__  # a log says what failed
    hold(stage, hold_all, let_go_of_all)
    forget(held.clear)


def is_readable(file: "FileDescriptorLike", wait_s: float = 0.0) -> bool:
    """Return whether a file has data, an end or an error to read within `wait_s`; False for one that is not open.

    A program may have thousands of open files. On Windows only a socket can have data.
    """
    import select

    if not hasattr(select, "poll"):
        try:
            return any(select.select([file], [], [], wait_s))
        except (OSError, ValueError):  # closed, or no socket
            return False
    poll = select.poll()  # `select` takes no descriptor above 1,023
    poll.register(file, select.POLLIN)
    return any(event != select.POLLNVAL for _, event in poll.poll(wait_s * 1000))


def cut_off() -> None:
    """Forbid the use of databases in this process and its children: mutexes of SQLite were held when it was forked."""
    global is_cut_off
    is_cut_off = True


def renew() -> None:
    """Make new locks, ids, sinks and threads in a child (step 4). One thread does it, and other threads wait."""
    global _renews_in
    process = os.getpid()
    lock = _renewing.setdefault(process, threading.RLock())
    is_acquired = lock.acquire(timeout=RENEW_WAIT_S)
    try:
        if page[0] or _renews_in == process:  # another thread did it; or a step or signal handler calls this
            return
        try:
            _renews_in = process
            if _forgot_in != process:  # Python did not notice the fork
                _forget()
            _take(step for _, step in _renewals)
            page[0] = 1
        finally:
            _renews_in = 0  # after an exception of a signal handler, the next use repeats all of step 4
    finally:
        if is_acquired:
            lock.release()


class _Importing:
    """A with-block around a late import; forks of other threads wait for its end."""

    def __enter__(self) -> None:
        thread, slept = threading.get_ident(), 0.0
        is_inside = thread in _importing
        _importing.append(thread)
        while _importing_is_for not in (0, thread) and not is_inside and slept < IMPORT_WAIT_S:
            _importing.remove(thread)
            disk.sleep(_PAUSE_S)
            slept += _PAUSE_S
            _importing.append(thread)

    def __exit__(self, *exc_info: object) -> None:
        if (thread := threading.get_ident()) in _importing:  # it is missing in a child that was forked inside the block
            _importing.remove(thread)


importing = _Importing()
"""The with-block of late imports. Write `with host.importing:` around each import inside a function that a recording
program may call, and around each call that makes a library initialise itself under a lock of its own."""


def lazily(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a module whose names are imported at their first use.

    Args:
        module: the name of the module.
        names: the names, in one text, by the module that has them; modules, by their package.
    """
    found_in = {name: source for source, each in names.items() for name in each.split()}

    def found(name: str) -> Any:
        if name not in found_in:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        with importing:
            value = getattr(__import__(found_in[name], fromlist=[name]), name)
        setattr(sys.modules[module], name, value)
        return value

    return found


class _Log:
    def __getattr__(self, name: str) -> Any:
        with importing:
            import logging
        return getattr(logging.getLogger("agentspan"), name)


log = cast("logging.Logger", _Log())
"""The logger `agentspan`, for all modules. `logging` is imported with the first message, which most programs never get:
it takes 4 % of the instructions of a program with one call."""


def _hold_imports() -> None:
    global _importing_is_for
    own, slept = threading.get_ident(), 0.0
    _importing_is_for = own
    while slept < IMPORT_WAIT_S and any(thread != own for thread in list(_importing)):
        disk.sleep(_PAUSE_S)
        slept += _PAUSE_S


def _let_go_of_imports() -> None:
    global _importing_is_for
    _importing_is_for = 0


hold(Hold.IMPORTS, _hold_imports, _let_go_of_imports)


def _before() -> None:
    global _turn_of
    thread = threading.get_ident()
    depth = _depths.get(thread, 0)
    _depths[thread] = depth + 1
    if depth or not page[0]:  # a nested fork of this thread; or a child that has not used agentspan yet
        return
    if not _turn.acquire(timeout=TURN_WAIT_S):
        return
    _turn_of = thread
    for _, hold, let_go in _holds:
        _to_let_go.append(let_go)
        _surely(hold)


def _let_go() -> None:
    global _turn_of
    thread = threading.get_ident()
    depth = _depths.pop(thread, 1) - 1
    if depth:
        _depths[thread] = depth
        return
    # `_turn_of` is 0 in a child that a signal handler forked during this function: the child holds no turn.
    if is_mine(_turn) or not _turn_of:
        while _to_let_go:
            _surely(_to_let_go[-1])
            _to_let_go.pop()
        if is_mine(_turn):
            _turn_of = 0
            _turn.release()


def _after_in_child() -> None:
    page[0] = 0  # some kernels cannot clear the page
    _forget()


def _forget() -> None:
    global _turn, _turn_of, _importing_is_for, _forgot_in
    _turn, _turn_of = threading.RLock(), 0
    _depths.clear()
    _to_let_go.clear()
    _importing.clear()
    _importing_is_for = 0
    _take(_forgets)
    _forgot_in = os.getpid()


def _renew_turn() -> None:
    global _turn
    _turn = threading.RLock()


renewal(Renewal.LOCKS, _renew_turn)


def _take(steps: Iterable[Step]) -> None:
    for step in steps:
        try:
            step()
        except Exception as error:  # the remaining steps must run, and the fault is not the program's
            let_through(error)
            log.warning("a fork: %s failed", step.__qualname__, exc_info=True)


def _surely(step: Step) -> None:
    """Run a step around a fork. Run it again if an exception of a signal handler interrupts it.

    The interpreter would print and drop the exception. The rest of the step would not run, and a thread that waits for
    a hold would wait for ever.
    """
    for _ in range(_TRIES):
        try:
            _take((step,))
            return
        except BaseException as error:
            if is_interrupt(error):
                log.warning("a fork: %s was interrupted by %s", step.__qualname__, type(error).__name__)


def _heard() -> None:
    """Do nothing. Python calls the handler of a signal that arrived during the fork here, not inside a step."""


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_parent=_heard)
    os.register_at_fork(before=_before, after_in_parent=partial(_surely, _let_go), after_in_child=_after_in_child)
    os.register_at_fork(before=_heard)  # `before` functions run in the reverse order of registration
