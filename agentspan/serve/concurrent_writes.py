"""Runs writes in threads, for a storage whose commits wait for a server: several transactions at the same time.

On the event loop one commit after the other would wait for the network: 73 requests a second at a round trip of 1 ms.
Each operation is a transaction of its own, since operations that share one would hold each other's locks.
"""

import asyncio
import math
import queue
import threading
import time
from typing import NamedTuple

from agentspan.errors import DatabaseBusy
from agentspan.operations.context import Context
from agentspan.operations.envelopes import Envelope
from agentspan.serve.write_queue import MAX_WAITING, WAIT_S, Operation, deliver

IDLE_S = 10.0
"""Seconds after which a thread without work ends."""


STEP_S = 0.5
"""Waits are a multiple of this: a connection that is to wait for another time has to say so to the server."""


class _Waiting(NamedTuple):
    operation: Operation
    deadline: float
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Envelope]"


class ConcurrentWrites:
    """Runs the write operations of one storage, begun in the order in which they came (see Writes).

    Args:
        context: the operations' context.
        wait_s: how long a request may wait for its turn, and then for other writers.
    """

    def __init__(self, context: Context, wait_s: float = WAIT_S) -> None:
        self._context = context
        self._wait_s = wait_s
        self._most = context.storage.capabilities().concurrency
        self._queue: queue.SimpleQueue[_Waiting] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = self._waiting = 0

    async def run(self, operation: Operation, *, is_long: bool = False) -> Envelope:
        """Run an operation in a thread and return its answer, once it is committed.

        Raises:
            DatabaseBusy: its turn did not come in time, or other writers held a lock for too long; nothing is stored.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(operation, time.monotonic() + self._wait_s, loop, loop.create_future())
        with self._lock:
            if self._waiting >= MAX_WAITING:
                raise DatabaseBusy("too many requests wait for the database")
            self._waiting += 1
            needs_thread = self._threads < min(self._most, self._waiting)
            self._threads += needs_thread
        self._queue.put(waiting)
        if needs_thread:
            self._start(waiting)
        return await waiting.future

    def _start(self, waiting: _Waiting) -> None:
        try:
            # Not of a pool: an interpreter that ends would wait for those, and they perhaps for the network.
            threading.Thread(target=self._work, name="agentspan-writer", daemon=True).start()
        except RuntimeError as error:  # the system is at its limit
            with self._lock:
                self._threads -= 1
                is_alone = not self._threads
            if is_alone and not waiting.future.done():
                waiting.future.set_exception(error)

    def _work(self) -> None:
        while True:
            try:
                waiting = self._queue.get(timeout=IDLE_S)
            except queue.Empty:
                with self._lock:
                    if self._waiting >= self._threads:  # one more has come just now
                        continue
                    self._threads -= 1
                    return
            result = self._result(waiting)
            with self._lock:
                self._waiting -= 1
            try:
                waiting.loop.call_soon_threadsafe(deliver, waiting.future, result)
            except RuntimeError:  # that loop is closed, and with it the request
                pass

    def _result(self, waiting: _Waiting) -> Envelope | Exception:
        left_s = waiting.deadline - time.monotonic()
        if left_s <= 0:
            return DatabaseBusy(f"{self._most} other requests were at work for {self._wait_s:g} s")
        if waiting.future.cancelled():  # the client has gone
            return DatabaseBusy("the client has gone")
        context = self._context.within(self._context.storage)
        context.wait_s = math.ceil(left_s / STEP_S) * STEP_S
        try:
            return waiting.operation(context)
        except Exception as error:  # it must cost this request only
            return error
