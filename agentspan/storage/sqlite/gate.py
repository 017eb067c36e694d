"""Who reads from a file now: a fork must not happen while another thread is inside SQLite."""

import threading
import time


class Gate:
    """Counts the threads that read, so that a fork can wait until none does, and let none in meanwhile."""

    def __init__(self) -> None:
        # Both reentrant: a signal handler may read while its own thread is in here.
        self._entrance = threading.RLock()
        self._counting = threading.RLock()
        self._inside: dict[int, int] = {}
        self._shut = False

    def __enter__(self) -> None:
        with self._entrance:
            self._count(1)

    def __exit__(self, *exc_info: object) -> None:
        self._count(-1)

    def _count(self, change: int) -> None:
        thread = threading.get_ident()
        with self._counting:
            number = self._inside.get(thread, 0) + change
            if number > 0:
                self._inside[thread] = number
            else:
                self._inside.pop(thread, None)

    def shut(self, wait_s: float) -> None:
        """Let nobody in, and wait for those that are inside, but for this thread's own."""
        self._shut = self._entrance.acquire(timeout=wait_s)
        own, slept = threading.get_ident(), 0.0
        while slept < wait_s and any(thread != own for thread in list(self._inside)):
            time.sleep(0.0005)
            slept += 0.0005

    def open(self) -> None:
        """Let them in again."""
        if self._shut:
            self._entrance.release()
