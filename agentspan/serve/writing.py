"""Where writes happen: at once on the event loop while the database is free, in one waiting thread while it is not.

An operation takes 0.1 ms, a hop to a thread and back as much again and more under load; what would stall every
connection is waiting for other writers, so nothing waits on the loop. While anything waits, later writes queue
behind it, and the thread commits what is there as one group.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from agentspan.errors import AgentspanError, DatabaseBusy, StorageError
from agentspan.operations.answers import Answer
from agentspan.operations.context import Context
from agentspan.storage.protocol import HasGroups

Operation = Callable[[Context], Answer]

WAIT_S = 2.0
"""How long a request may wait for other writers before it is answered with 503."""
MAX_WAITING = 1000
"""Requests that may wait at once; further ones are answered with 503 right away."""


class _Waiting(NamedTuple):
    operation: Operation
    deadline: float
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Answer]"


class Writer:
    """Runs the write operations of one storage.

    Args:
        context: the operations' context.
        wait_s: how long a request may wait for other writers.
    """

    def __init__(self, context: Context, wait_s: float = WAIT_S) -> None:
        self._now = context.within(context.storage)
        self._now.wait_s = 0.0
        self._later = context.within(context.storage)
        self._wait_s = wait_s
        self._queue: deque[_Waiting] = deque()
        self._busy = threading.Lock()  # held by the thread that empties the queue
        self._thread: threading.Thread | None = None

    async def run(self, operation: Operation, *, at_once: bool = True) -> Answer:
        """Run an operation and return its answer.

        Args:
            at_once: whether it may run on the event loop; not one that takes long.

        Raises:
            DatabaseBusy: other writers did not let go in time; nothing is stored.
        """
        if at_once and not self._queue and not self._busy.locked():
            try:
                return operation(self._now)
            except DatabaseBusy:
                pass
        if len(self._queue) >= MAX_WAITING:
            raise DatabaseBusy("too many requests wait for the database")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(operation, time.monotonic() + self._wait_s, loop, loop.create_future())
        self._queue.append(waiting)
        if not self._busy.locked():
            self._thread = threading.Thread(target=self._empty, name="agentspan-writer", daemon=True)
            self._thread.start()
        return await waiting.future

    def _empty(self) -> None:
        """Work until nothing waits; another thread that comes meanwhile leaves it to this one."""
        while self._queue and self._busy.acquire(blocking=False):
            try:
                while self._queue:
                    self._run_group([self._queue.popleft() for _ in range(len(self._queue))])
            finally:
                self._busy.release()

    def _run_group(self, group: list[_Waiting]) -> None:
        """Run operations in one commit; where that is refused, none of them is stored."""
        wait_s = max(0.0, min(waiting.deadline for waiting in group) - time.monotonic())
        results: Sequence[Answer | Exception] = []
        try:
            storage = self._later.storage
            if isinstance(storage, HasGroups):
                with storage.group(wait_s) as grouped:
                    results = [_result(waiting.operation, self._later.within(grouped)) for waiting in group]
            else:
                self._later.wait_s = wait_s
                results = [_result(waiting.operation, self._later) for waiting in group]
        except DatabaseBusy as error:
            late = [waiting for waiting in group if waiting.deadline <= time.monotonic()] or group[:1]
            self._queue.extendleft(reversed([waiting for waiting in group if waiting not in late]))
            group, results = late, [error] * len(late)
        except Exception as error:
            results = [error] * len(group)
        for waiting, result in zip(group, results, strict=True):
            waiting.loop.call_soon_threadsafe(_deliver, waiting.future, result)


def _result(operation: Operation, context: Context) -> Answer | Exception:
    try:
        return operation(context)
    except StorageError:
        raise  # with the transaction, everybody's work is lost
    except AgentspanError as error:
        return error
    except Exception as error:  # a bug: it must cost this request only
        return error


def _deliver(future: "asyncio.Future[Answer]", result: Answer | Exception) -> None:
    if future.cancelled():  # the client has gone
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
