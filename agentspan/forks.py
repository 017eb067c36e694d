"""Fork handlers: modules register functions that run before and after a fork. No other module registers with `os`.

1. Before a fork: the thread that forks acquires all registered holds, in the order of `Hold`. One thread at a time.
2. In the parent, after the fork: the thread releases the holds, in the reverse order.
3. In the child, at once: the child drops the parent's files and connections without closing them.
4. In the child, at its first use of agentspan (`renew`): the child makes new locks, ids, sinks and threads, in the
   order of `Renewal`. Not earlier, because a worker of gevent replaces Python's locks and threads after it was forked.

`page[0]` is 0 until step 4 is done. The kernel clears `page` in every child, also if a C library forks and Python does
not notice (as uWSGI does). After such a fork, step 1 did not run, and step 3 runs with step 4. So every function that
records, reads or writes begins with

    if not page[0]:
        forks.renew()

which costs 20 ns. If a signal handler raises an exception in step 4, the exception reaches the caller, and the next use
repeats all of step 4. In steps 1 to 3 the interpreter would print and drop the exception, so `_surely` repeats the
interrupted function.

If the kernel cannot clear a page (Linux before 4.14, other systems), `SEES_ALL` is False. Then agentspan does not
notice a fork that Python does not notice.
"""

import logging
import mmap
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from enum import IntEnum
from functools import partial
from typing import TypeVar

from agentspan.interrupts import is_interrupt, let_through
from agentspan.locks import is_mine

TURN_WAIT_S = 30.0
"""How long a fork waits for a fork of another thread, in seconds: longer than all waits within one fork."""
IMPORT_WAIT_S = 5.0
"""How long a fork waits for a late import of another thread, and a late import for a fork, in seconds."""
RENEW_WAIT_S = 5.0
_PAUSE_S = 0.0005
_WIPE_ON_FORK = 18  # MADV_WIPEONFORK of Linux, for which Python has no name

log = logging.getLogger("agentspan")

Step = Callable[[], None]
T = TypeVar("T")


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
            time.sleep(_PAUSE_S)
            slept += _PAUSE_S
            _importing.append(thread)

    def __exit__(self, *exc_info: object) -> None:
        if (thread := threading.get_ident()) in _importing:  # it is missing in a child that was forked inside the block
            _importing.remove(thread)


importing = _Importing()
"""The with-block of late imports. Write `with forks.importing:` around each import inside a function that a recording
program may call, and around each call that makes a library initialise itself under a lock of its own."""


def _hold_imports() -> None:
    global _importing_is_for
    own, slept = threading.get_ident(), 0.0
    _importing_is_for = own
    while slept < IMPORT_WAIT_S and any(thread != own for thread in list(_importing)):
        time.sleep(_PAUSE_S)
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
