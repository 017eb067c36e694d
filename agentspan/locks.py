"""Holding a lock for a block, so that an exception from a signal handler cannot leave it held.

CPython runs signal handlers at the start of a function, after a call, and at a jump back; what a handler raises (Ctrl-C
does) is raised there. So `lock.acquire(timeout=1)` before a `try` leaks the lock when the exception comes after the
call, and an `__exit__` in Python leaks it when the exception comes at its start. `with lock:` is safe, because its two
functions are in C, but it has no timeout.
"""

from typing import Any


class Occupied(Exception):
    """The lock cannot be had now: another thread kept it for too long, or this one holds it already."""


class within:
    """A with-block that holds an RLock, after waiting for it for `wait_s` seconds at most. It does not nest.

    An RLock, because its owner is known: an exception at any point of `__enter__` releases what this thread has. Only
    the lock itself knows: a field of ours would need a reset in Python at the block's end, where an exception from a
    signal handler can come first. `_is_owned` is what threading.Condition calls; the public way, `notify(0)` of a
    Condition, raises where the lock is free, which is nearly always (2 µs instead of 0.1).

    Args:
        lock: from threading.RLock.
        wait_s: 0 for one try.

    Raises:
        Occupied: another thread holds it, or this thread: a signal handler, or a finalizer, interrupts the block.
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
            # Without a timeout first: that is all it takes when no other thread has it, and twice as fast.
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
    """Tell whether this thread holds an RLock (see within)."""
    return lock._is_owned()  # type: ignore[no-any-return]  # as threading.Condition asks it
