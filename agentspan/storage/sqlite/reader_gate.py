"""The threads that read from a file now: a fork must not happen while another thread is inside SQLite."""

import threading
import time
import weakref

from agentspan.locks import is_mine


class Gate:
    """Tracks the threads that read. A fork shuts it: it waits until none reads, and no thread enters meanwhile."""

    def __init__(self) -> None:
        self._entrance = threading.RLock()  # reentrant: a signal handler may read while its own thread is in here
        self._inside: dict[int, tuple[weakref.ref[Inside], int]] = {}
        """Each block and its thread. An exception at the start of its __exit__ leaves it here: dead, it does not count.
        A counter would stay too high; a __del__ would swallow what signal handlers raise in it."""
        self._shut = False

    def inside(self) -> "Inside":
        """Return a with-block that a fork waits for."""
        return Inside(self)

    def shut(self, wait_s: float) -> None:
        """Block new readers, and wait for those of other threads to leave."""
        if not is_mine(self._entrance):
            self._shut = True  # first: a thread interrupted right after acquiring it still opens it
            self._entrance.acquire(timeout=wait_s)
        slept = 0.0
        while slept < wait_s and self.has_others():
            time.sleep(0.0005)
            slept += 0.0005

    def has_others(self) -> bool:
        """Return whether other threads are inside."""
        own = threading.get_ident()
        return any(thread != own and block() is not None for block, thread in list(self._inside.values()))

    def open(self) -> None:
        """Let readers in again."""
        if self._shut:
            if is_mine(self._entrance):
                self._entrance.release()
            self._shut = False


class Inside:
    """One block of one thread."""

    __slots__ = ("__weakref__", "_gate")

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def __enter__(self) -> None:
        try:
            with self._gate._entrance:
                self._gate._inside[id(self)] = weakref.ref(self), threading.get_ident()
        except BaseException:
            self.leave()
            raise

    def __exit__(self, *exc_info: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Let forks go on. Twice is fine."""
        self._gate._inside.pop(id(self), None)
