"""Threads that are there while there is work for them."""

import queue
import threading
from collections.abc import Callable

from agentspan.tuning import STANDARD


class Crew:
    """Calls a function in threads, in several of them at the same time.

    Not those of a pool: an interpreter that ends would wait for them, and they perhaps for the network.

    Args:
        most: how many threads there are at most.
        work: raises nothing.
        idle_s: seconds after which a thread without work ends.
    """

    def __init__(self, most: int, work: Callable[[], object], idle_s: float = STANDARD.idle_thread_s) -> None:
        self._most = most
        self._work = work
        self._idle_s = idle_s
        self._calls: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = self._waiting = 0

    def call(self) -> None:
        """Let a thread call the function, as soon as one is free.

        Raises:
            RuntimeError: the system lets no thread start, and none is there.
        """
        with self._lock:
            self._waiting += 1
            needs_thread = self._threads < min(self._most, self._waiting)
            self._threads += needs_thread
        self._calls.put(None)
        if needs_thread:
            self._start()

    def _start(self) -> None:
        try:
            threading.Thread(target=self._call, name="agentspan-writer", daemon=True).start()
        except RuntimeError:
            with self._lock:
                self._threads -= 1
                is_alone = not self._threads
            if is_alone:
                raise

    def _call(self) -> None:
        while True:
            try:
                self._calls.get(timeout=self._idle_s)
            except queue.Empty:
                with self._lock:
                    if self._waiting >= self._threads:  # one more has come just now
                        continue
                    self._threads -= 1
                    return
            self._work()
            with self._lock:
                self._waiting -= 1
