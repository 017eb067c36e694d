"""A with-block whose lock is released even if a signal handler raises an exception; and a bell that wakes a thread.

CPython runs signal handlers at the start of a function, after a call, and at a jump back. A handler's exception (Ctrl-C
raises one) is raised there. So `lock.acquire(timeout=1)` before a `try` leaks the lock if the exception arrives after
the call. An `__exit__` in Python leaks it if the exception arrives at its start. `with lock:` is safe, because its two
functions are in C, but it has no timeout.
"""

import threading
from typing import Any


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
