"""A with-block that holds a lock, and releases it also after an exception of a signal handler; and a bell for a thread.

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

    An RLock, because its owner is known: an exception at any point of `__enter__` releases what this thread has. Only
    the lock itself knows: a field of ours would need a reset in Python at the block's end, where an exception from a
    signal handler can come first. `_is_owned` is what threading.Condition calls; the public way, `notify(0)` of a
    Condition, raises where the lock is free, which is nearly always (2 µs instead of 0.1).

    Args:
        lock: from threading.RLock.
        wait_s: 0 for one try.

    Raises:
        Occupied: another thread holds it; or this thread does, because a signal handler or finalizer interrupted it.
    """

    __slots__ = ("__exit__", "_lock", "wait_s")

    def __init__(self, lock: Any, wait_s: float) -> None:
        self._lock = lock
        self.wait_s = wait_s
        self.__exit__ = lock.__exit__  # a function in C: no signal handler runs before its first step

    def __enter__(self) -> None:
        lock = self._lock
        if lock._is_owned():  # is_mine, without the call: 0.1 µs
            raise self._refusal(True)
        try:
            # First without a timeout: that is enough when no other thread has the lock, and twice as fast.
            if lock.acquire(False) or (self.wait_s > 0 and lock.acquire(True, self.wait_s)):
                return
        except BaseException:
            try:
                lock.release()
            except RuntimeError:  # the exception came first
                pass
            raise
        raise self._refusal(False)

    def _refusal(self, is_mine: bool) -> Exception:
        """Return what to raise; a subclass says more."""
        return Occupied("this thread holds the lock already" if is_mine else "another thread kept the lock too long")


def is_mine(lock: Any) -> bool:
    """Return whether this thread holds an RLock."""
    return lock._is_owned()  # type: ignore[no-any-return]  # as threading.Condition asks it


class Bell:
    """Wakes one thread that waits for it.

    No Event: one that a signal handler sets while it is being set waits for ever.

    Attributes:
        is_last: whether the thread is to end.
    """

    def __init__(self) -> None:
        self.is_last = False
        self._silent = threading.Lock()
        self._silent.acquire()

    def ring(self) -> None:
        """Wake the thread, now or when it waits next."""
        try:
            self._silent.release()
        except RuntimeError:  # it rings
            pass

    def wait(self, wait_s: float) -> bool:
        """Wait for it; return whether it rang."""
        return self._silent.acquire(timeout=wait_s)
