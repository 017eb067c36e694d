"""The one place for all that a fork concerns. Only this module calls `os.register_at_fork`.

1. Before a fork, one fork at a time: the thread that forks holds everything, in the order of `Hold`.
2. In the parent: it lets go of everything, in the reverse order.
3. In the child, at once: what is the parent's is forgotten, so that the child keeps none of its parent's files.
4. In the child, at its first use of agentspan (`renew`): locks, ids, sinks and threads are made anew, in the order of
   `Renewal`. No earlier, because a worker of gevent replaces the locks and threads of Python after it was forked.

`page[0]` is 0 where step 4 is due. The kernel wipes that page in every child, also where a C library forks and Python
does not notice (uWSGI does that); then step 3 comes with step 4, and there was no step 1. What records, reads or writes
therefore begins with

    if not page[0]:
        forks.renew()

which costs 20 ns. What a signal handler raises in a step that is made anew goes through, and the steps are taken again
at the next use. In the steps around a fork the interpreter prints and drops it, so they go on: see `_surely`.

Where the kernel cannot wipe a page (before Linux 4.14, and elsewhere), `SEES_ALL` is False: a fork
that Python does not notice is not noticed here either.
"""

import logging
import mmap
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from enum import IntEnum
from functools import partial

from agentspan.interrupts import is_interrupt, let_through
from agentspan.locks import is_mine

TURN_WAIT_S = 30.0
"""How long a fork waits for one of another thread: longer than all that such a fork may wait for."""
IMPORT_WAIT_S = 5.0
"""How long a fork waits for an import of another thread, and such an import for a fork."""
RENEW_WAIT_S = 5.0
_PAUSE_S = 0.0005
_WIPE_ON_FORK = 18  # of madvise, Linux; Python has no name for it

log = logging.getLogger("agentspan")

Step = Callable[[], None]


class Hold(IntEnum):
    """The stages before a fork, in this order: a thread that is waited for may still need what comes later."""

    THREADS = 0
    """Our threads have ended; a sink is drained, and its locks are taken."""
    SQLITE = 1
    """No other thread is inside SQLite, and no connection is open."""
    DESCRIPTORS = 2
    """No other thread opens or closes a segment."""
    IMPORTS = 3
    """No other thread is in one of our late imports: the child would wait for its module for ever."""


class Renewal(IntEnum):
    """The stages in which a child makes things anew, in this order."""

    LOCKS = 0
    """Locks and ids: whatever needs nothing else."""
    RECORDERS = 1
    """What mints ids, and has a sink."""


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
"""Whether this is a child that must not use a database: it was forked while a thread was inside one."""

_holds: list[tuple[Hold, Step, Step]] = []
_forgets: list[Step] = []
_renewals: list[tuple[Renewal, Step]] = []

_turn = threading.RLock()  # its owner is known, also where an exception comes right after it was acquired
_turn_of = 0  # the thread that has it
_depths: dict[int, int] = {}  # of the threads that fork: a signal handler may fork while its thread does
_to_let_go: list[Step] = []
_TRIES = 3

_importing: list[int] = []
_importing_is_for = 0  # the thread that forks: no other one begins an import

_forgot_in = 0  # the process
_renews_in = 0
_renewing: dict[int, threading.RLock] = {}  # by process: a lock of the parent's may be held


def hold(stage: Hold, hold: Step, let_go: Step) -> None:
    """Enrol what is held before each fork. No wait in it may last for ever.

    Both may be called again where an exception of a signal handler has ended them.

    Args:
        stage: when.
        hold: is called before the fork, in the thread that forks.
        let_go: is called in the parent after the fork, also if `hold` raised.
    """
    _holds.append((stage, hold, let_go))
    _holds.sort(key=lambda each: each[0])


def forget(step: Step) -> None:
    """Enrol what a child does at once: it lets its parent's files and connections be."""
    _forgets.append(step)


def renewal(stage: Renewal, step: Step) -> None:
    """Enrol what a child does at its first use of agentspan."""
    _renewals.append((stage, step))
    _renewals.sort(key=lambda each: each[0])


def cut_off() -> None:
    """Take note that databases must not be used here, nor in what this process forks: mutexes of theirs are held."""
    global is_cut_off
    is_cut_off = True


def renew() -> None:
    """Make anew, in a child, what its parent had; of several threads that come here, one does it, the others wait."""
    global _renews_in
    process = os.getpid()
    lock = _renewing.setdefault(process, threading.RLock())
    is_acquired = lock.acquire(timeout=RENEW_WAIT_S)
    try:
        if page[0] or _renews_in == process:  # a signal handler, or a step, in the middle of it
            return
        try:
            _renews_in = process
            if _forgot_in != process:  # Python did not notice the fork
                _forget()
            _take(step for _, step in _renewals)
            page[0] = 1
        finally:
            _renews_in = 0  # also after an exception from a signal handler: then the next use does all of it
    finally:
        if is_acquired:
            lock.release()


class _Importing:
    """A block in which a module is imported late; other threads' forks wait for its end."""

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
        if (thread := threading.get_ident()) in _importing:  # else this is a child that was forked in the middle
            _importing.remove(thread)


importing = _Importing()
"""`with forks.importing:` is around each import in a function that a recording program may come to."""


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
    if depth or not page[0]:  # in the middle of a fork of this thread; or nothing of ours is in use here
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
    # Nobody's: this is a child, forked by a signal handler in the middle of what it goes on with.
    if is_mine(_turn) or not _turn_of:
        while _to_let_go:
            _surely(_to_let_go[-1])
            _to_let_go.pop()
        if is_mine(_turn):
            _turn_of = 0
            _turn.release()


def _after_in_child() -> None:
    page[0] = 0  # the kernel may not have done it
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
        except Exception as error:  # the others are due all the same, and the program has nothing to do with it
            let_through(error)
            log.warning("a fork: %s failed", step.__qualname__, exc_info=True)


def _surely(step: Step) -> None:
    """Take a step around a fork. Where an exception of a signal handler ends it, take it again.

    What leaves such a step, the interpreter prints and drops. The rest would be left undone: a thread that waits for
    what is still held would wait for ever.
    """
    for _ in range(_TRIES):
        try:
            _take((step,))
            return
        except BaseException as error:
            if is_interrupt(error):
                log.warning("a fork: %s was interrupted by %s", step.__qualname__, type(error).__name__)


def _heard() -> None:
    """Do nothing. What a handler raises for a signal that came during the fork is raised at the start of this."""


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_parent=_heard)
    os.register_at_fork(before=_before, after_in_parent=partial(_surely, _let_go), after_in_child=_after_in_child)
    os.register_at_fork(before=_heard)  # the last one is called first
