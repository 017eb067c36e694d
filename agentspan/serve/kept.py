"""Results of slow reads, which are kept until the file changes."""

import asyncio
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, NamedTuple, TypeVar

from agentspan.storage.protocol import Storage

T = TypeVar("T")

MOST = 200
"""The most results that are kept. A result is a page of texts: some kilobytes."""
FRESH_NS = 50_000_000
"""Nanoseconds for which a file that was written may be written again without another time: file systems count ticks of
up to 10 ms."""
AGAIN = 10
"""A result is kept for so many times the seconds that it took, even if the file changes: else a page over a large file
that a program records into would be computed all the time."""
LONGEST_S = 60.0
"""The longest that a result is kept after the file has changed."""


class _Result(NamedTuple):
    stamp: Hashable
    began: float
    took_s: float
    value: Any


class Kept(Generic[T]):
    """Keeps the results of reads of one storage.

    The event loop calls all methods. Reads run in two threads, and of equal reads at the same time only one.
    """

    def __init__(self, storage: Storage) -> None:
        location = storage.capabilities().location
        self._path = None if location is None else location.path
        self._results: OrderedDict[Hashable, _Result] = OrderedDict()
        self._running: dict[Hashable, asyncio.Task[T]] = {}
        self._threads = ThreadPoolExecutor(2, "agentspan-pages")

    def has(self, key: Hashable) -> bool:
        """Return whether `get` would return a kept result."""
        found = self._results.get(key)
        return found is not None and self._is_current(found)

    async def get(self, key: Hashable, read: Callable[[], T]) -> T:
        """Return the kept result with this key, or else that of `read`, which runs to its end in any case."""
        found = self._results.get(key)
        if found is not None and self._is_current(found):
            self._results.move_to_end(key)
            value: T = found.value
            return value
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.create_task(self._read(key, read))
            task.add_done_callback(lambda done: (self._running.pop(key, None), done.cancelled() or done.exception()))
        return await asyncio.shield(task)

    async def _read(self, key: Hashable, read: Callable[[], T]) -> T:
        stamp, began = self.stamp(), time.monotonic()
        value = await asyncio.get_running_loop().run_in_executor(self._threads, read)
        self._results[key] = _Result(stamp, began, time.monotonic() - began, value)
        self._results.move_to_end(key)
        while len(self._results) > MOST:
            self._results.popitem(last=False)
        return value

    def _is_current(self, found: _Result) -> bool:
        age_s = time.monotonic() - found.began
        return (found.stamp is not None and found.stamp == self.stamp()) or age_s < min(AGAIN * found.took_s, LONGEST_S)

    def stamp(self) -> Hashable:
        """Return a value that is another one after each commit; None if that is unknown, as for a server's database."""
        if self._path is None:
            return None
        states: list[tuple[int, ...] | None] = []
        for path in (self._path, f"{self._path}-wal"):
            try:
                state = os.stat(path)
            except OSError:
                states.append(None)
                continue
            if time.time_ns() - state.st_mtime_ns < FRESH_NS:
                return None
            states.append((state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns))
        return tuple(states)
