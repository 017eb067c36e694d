"""Queues the writes: committed on the event loop while the database is free, else in one waiting thread.

A commit costs as much as the operation in it, and a hop to a thread and back more than both under load. So what came in
one turn of the loop is committed as one group there; and since a turn must not be long, or every connection waits for
it, a group takes what a slice of time lets it take and leaves the rest to the next turn, after whoever came meanwhile.
Waiting for other writers, and what takes long by itself, would stall the loop: then a thread commits the next group.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

from agentspan.errors import DatabaseBusy, StorageError
from agentspan.operations.context import Context
from agentspan.storage.protocol import Storage
from agentspan.tuning import STANDARD, Tuning

Work = Callable[[Context], Any]
"""What a request does: it returns an envelope, or the answers of a bulk request."""
WAIT_S = 2.0
"""How long a request may wait for other writers before it is answered with 503."""
THREAD_SLICE_S = 0.1
"""How long a group in the thread may grow, which does not block the event loop."""


class _Waiting(NamedTuple):
    operation: Work
    is_long: bool
    deadline: float
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"


class Writes(Protocol):
    """Runs the write operations of one storage, off the event loop where they wait."""

    async def run(self, operation: Work, *, is_long: bool = False) -> Any:
        """Run an operation and return its answer, once it is committed."""
        ...


class WriteQueue:
    """Runs the write operations of one storage, in the order in which they came.

    Args:
        context: the operations' context.
        wait_s: how long a request may wait for other writers.
    """

    def __init__(self, context: Context, wait_s: float = WAIT_S, tuning: Tuning = STANDARD) -> None:
        self._most_waiting = tuning.waiting_requests
        self._slice_s = tuning.loop_slice_s
        self._context = context
        self._groups = context.storage.capabilities().groups  # once: it takes as long as a tenth of a commit
        self._wait_s = wait_s
        self._queue: deque[_Waiting] = deque()
        self._busy = threading.Lock()  # from before the thread starts until it is done
        self._next: asyncio.AbstractEventLoop | None = None  # the one whose next turn commits a group

    async def run(self, operation: Work, *, is_long: bool = False) -> Any:
        """Run an operation and return its answer, once it is committed.

        Args:
            is_long: whether it takes too long for the event loop.

        Raises:
            DatabaseBusy: other writers held the write lock for too long; nothing is stored.
        """
        if len(self._queue) >= self._most_waiting and self._busy.locked():
            raise DatabaseBusy("too many requests wait for the database")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(operation, is_long, time.monotonic() + self._wait_s, loop, loop.create_future())
        self._queue.append(waiting)
        # Only now, behind the append: a thread that is done looks at the queue again.
        if self._next is not loop and not self._busy.locked():
            self._come_back(loop)
        return await waiting.future

    def _come_back(self, loop: asyncio.AbstractEventLoop) -> None:
        self._next = loop
        loop.call_soon(self._turn, loop)

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Commit a group on the event loop if that is possible at once, else start the thread."""
        self._next = None
        if not self._queue or self._busy.locked():  # the thread comes back when it is done
            return
        if self._queue[0].is_long or not self._commit(0.0, self._slice_s, loop):
            self._start()
        elif self._queue:
            self._come_back(loop)

    def _start(self) -> None:
        if not self._busy.acquire(blocking=False):
            return
        try:
            threading.Thread(target=self._in_thread, name="agentspan-writer", daemon=True).start()
        except RuntimeError as error:  # the system is at its limit
            self._busy.release()
            self._refuse(len(self._queue), error)

    def _in_thread(self) -> None:
        """Commit a group once other writers release the lock; later writes are the event loop's again."""
        try:
            wait_s = max(0.0, self._queue[0].deadline - time.monotonic())
            if not self._commit(wait_s, THREAD_SLICE_S, None):
                now = time.monotonic()
                late = sum(waiting.deadline <= now for waiting in list(self._queue))
                self._refuse(max(late, 1), DatabaseBusy(f"other writers held the write lock for {self._wait_s:g} s"))
        finally:
            self._busy.release()
            self._hand_back()

    def _hand_back(self) -> None:
        while True:
            try:
                loop = self._queue[0].loop
                loop.call_soon_threadsafe(self._come_back, loop)
            except IndexError:  # nothing waits, or the loop was faster
                return
            except RuntimeError:  # that loop is closed, and with it the requests
                self._queue.popleft()
            else:
                return

    def _commit(
        self, wait_s: float, slice_s: float, here: asyncio.AbstractEventLoop | None, *, alone: bool = False
    ) -> bool:
        """Run operations from the head of the queue in one commit, and answer them.

        Args:
            slice_s: after this time none is added.
            here: the loop in which this runs, which takes no long ones; None in the thread.
            alone: run one only, in a transaction of its own.

        Returns:
            Whether the database was free; else all of them wait in the queue still.
        """
        groups = None if alone else self._groups
        group: list[_Waiting] = []
        results: list[Any] = []

        def work(lent: Storage) -> None:
            context = self._context.within(lent)
            context.wait_s = wait_s
            until = time.perf_counter() + slice_s
            while self._queue and not (here and self._queue[0].is_long):
                waiting = self._queue.popleft()
                group.append(waiting)
                results.append(_result(waiting.operation, context))
                if groups is None or time.perf_counter() >= until:
                    break

        try:
            if groups is not None:
                groups.group(work, wait_s)
            else:
                work(self._context.storage)
        except DatabaseBusy:
            self._queue.extendleft(reversed(group))
            return False
        except Exception as error:
            # Nothing is stored. What broke it, or lets a file be read only, must cost nobody but itself.
            if groups is not None:
                self._queue.extendleft(reversed(group))
                return all(self._commit(wait_s, slice_s, here, alone=True) for _ in range(max(len(group), 1)))
            results = [error]
        self._answer(zip(group, results, strict=True), here)
        return True

    def _refuse(self, number: int, error: Exception) -> None:
        self._answer([(self._queue.popleft(), error) for _ in range(number)], None)

    def _answer(self, results: Iterable[tuple[_Waiting, Any]], here: asyncio.AbstractEventLoop | None) -> None:
        for waiting, result in results:
            if waiting.loop is here:
                deliver(waiting.future, result)
                continue
            try:
                waiting.loop.call_soon_threadsafe(deliver, waiting.future, result)
            except RuntimeError:  # that loop is closed, and with it the requests
                pass


def _result(operation: Work, context: Context) -> Any:
    try:
        return operation(context)
    except StorageError:
        raise  # with the transaction, everybody's work is lost
    except Exception as error:  # a refusal, or a bug: it must cost this request only
        return error


def deliver(future: "asyncio.Future[Any]", result: Any) -> None:
    """Give a request its answer, on its event loop."""
    if future.cancelled():  # the client has gone
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
