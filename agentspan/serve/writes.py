"""Queues the writes: committed on the event loop while the database is free, else in one waiting thread.

A commit costs as much as the operation in it, and under load a hop to a thread and back costs more than both. So the
writes that arrive in one turn of the loop are committed as one group, on the loop. All connections wait for a turn, so
it must be short: a group takes the writes that fit into a slice of time. The rest waits for the next turn, behind
events that arrived meanwhile. Waiting for other writers, or a write that takes long, would stall the loop: then a
thread commits the next group.

If the commits of a storage wait for a server, threads run the writes: several transactions at the same time. On the
event loop, one commit after the other would wait for the network: 73 requests a second at a round trip of 1 ms. Writes
of spans that wait at the same moment are carried out together: one read, one commit. With a transaction for each
operation, 64 clients got 300 answers a second at a round trip of 5 ms. Each other operation is a transaction of its
own, because operations in a shared one would hold each other's locks between their statements. After a failed or
refused group write, the operation is run again in a transaction of its own.
"""

import asyncio
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from agentspan.api import envelopes
from agentspan.api.context import Context, Done, Plan, attempted, carry_out_together
from agentspan.api.envelopes import Envelope
from agentspan.api.operation import Write
from agentspan.errors import DatabaseBusy, InDoubt, StorageError
from agentspan.storage.protocol import Storage
from agentspan.tuning import STANDARD, Tuning

Work = Callable[[Context], Any]
"""The work of a request: it returns an envelope, or the answers of a bulk request."""
WAIT_S = 2.0
"""How long a request may wait for other writers before it is answered with 503."""
THREAD_SLICE_S = 0.1
"""Seconds for which operations are added to a group in the thread, which does not block the event loop."""


class _Waiting(NamedTuple):
    operation: Work
    deadline: float
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"
    is_long: bool = False


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
        self._wait_s = wait_s
        self._queue: deque[_Waiting] = deque()
        self._busy = threading.Lock()  # held from before the thread starts until it is done
        self._next: asyncio.AbstractEventLoop | None = None  # the loop whose next turn commits a group

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
        waiting = _Waiting(operation, time.monotonic() + self._wait_s, loop, loop.create_future(), is_long)
        self._queue.append(waiting)
        # Checked after the append: a thread that ends reads the queue once more, so no write is missed.
        if self._next is not loop and not self._busy.locked():
            self._come_back(loop)
        return await waiting.future

    def _come_back(self, loop: asyncio.AbstractEventLoop) -> None:
        self._next = loop
        loop.call_soon(self._turn, loop)

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Commit a group on the event loop if that is possible at once, else start the thread."""
        self._next = None
        if not self._queue or self._busy.locked():  # when the thread is done, it schedules a turn
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
        """Commit a group once other writers release the lock. Then the event loop commits again."""
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
            slice_s: seconds after which no operation is added.
            here: the event loop that runs this, on which no long operation may run; None in the thread.
            alone: run only one operation, in a transaction of its own.

        Returns:
            Whether the database was free. If it was not, all operations are still in the queue.
        """
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
                if alone or time.perf_counter() >= until:
                    break

        try:
            if alone:
                work(self._context.storage)
            else:
                self._context.storage.group(work, wait_s)
        except DatabaseBusy:
            self._queue.extendleft(reversed(group))
            return False
        except Exception as error:
            # Nothing is stored. What broke it, or lets a file be read only, must cost nobody but itself.
            if not alone:
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
    result = attempted(operation, context)
    if isinstance(result, StorageError):
        raise result  # with the transaction, everybody's work is lost
    return result


def deliver(future: "asyncio.Future[Any]", result: Any) -> None:
    """Set the result, or the error, of a request's future. Call it on the event loop of the request."""
    if future.cancelled():  # the client has gone
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


STEP_S = 0.5
"""Lock timeouts are multiples of this, in seconds: changing the timeout of a connection takes a statement."""
GROUPS = 2
"""The most groups at a time. With three, groups had fewer writes, and a write took a quarter more processor time."""
MOST_TOGETHER = 100
"""The most writes in a group."""
GROUP_WAIT_S = 0.25
"""Seconds that a group may wait for a lock, before each of its writes waits alone."""


class ConcurrentWrites:
    """Runs the write operations of a storage that waits for a server: several at a time, begun in order of arrival.

    Args:
        context: the operations' context.
        wait_s: how long a request may wait for its turn, and then for other writers.
    """

    def __init__(self, context: Context, wait_s: float = WAIT_S, tuning: Tuning = STANDARD) -> None:
        self._most_waiting = tuning.waiting_requests
        self._context = context
        self._wait_s = wait_s
        self._most = context.storage.capabilities().concurrency
        self._alone: deque[_Waiting] = deque()
        self._sharing: deque[tuple[_Waiting, Write]] = deque()
        self._crew = Crew(self._most, self._run_one, tuning.idle_thread_s)
        self._groups = Crew(min(GROUPS, self._most), self._run_group, tuning.idle_thread_s)
        self._lock = threading.Lock()
        self._waiting = 0

    async def run(self, operation: Work, *, is_long: bool = False) -> Any:
        """Run an operation in a thread and return its answer, once it is committed.

        Raises:
            DatabaseBusy: its turn did not come in time, or other writers held a lock for too long; nothing is stored.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(operation, time.monotonic() + self._wait_s, loop, loop.create_future())
        with self._lock:
            if self._waiting >= self._most_waiting:
                raise DatabaseBusy("too many requests wait for the database")
            self._waiting += 1
        try:
            if isinstance(operation, Write) and operation.shares:
                self._sharing.append((waiting, operation))
                self._groups.call()
            else:
                self._run_alone(waiting)
            return await waiting.future
        except BaseException:  # it is not to be run any more
            waiting.future.cancel()
            raise
        finally:
            with self._lock:
                self._waiting -= 1

    def _run_alone(self, waiting: _Waiting) -> None:
        self._alone.append(waiting)
        self._crew.call()

    def _run_one(self) -> None:
        waiting = self._alone.popleft()
        context = self._context.within(self._context.storage)
        _answer_all([(waiting, attempted(self._answer_of, waiting, context))])

    def _answer_of(self, waiting: _Waiting, context: Context) -> Any:
        context.wait_s = math.ceil(self._left_s(waiting) / STEP_S) * STEP_S
        return waiting.operation(context)

    def _run_group(self) -> None:
        """Run waiting operations as a group. Refused ones, or all if the commit failed, run alone afterwards."""
        context = self._context.within(self._context.storage)
        context.wait_s = GROUP_WAIT_S
        group: list[_Waiting] = []
        plans: list[Plan] = []
        answers: list[tuple[_Waiting, Envelope | Exception]] = []
        for waiting, write in self._next_group():
            plan = attempted(self._plan_of, waiting, write, context)
            if isinstance(plan, Exception):
                answers.append((waiting, plan))
            else:
                group.append(waiting)
                plans.append(plan)
        for waiting, result in zip(group, _carried_out(context, plans), strict=True):
            answer = attempted(envelopes.of_done, context, result) if isinstance(result, Done) else result
            if answer is None:
                self._run_alone(waiting)
            else:
                answers.append((waiting, answer))
        _answer_all(answers)

    def _plan_of(self, waiting: _Waiting, write: Write, context: Context) -> Plan:
        self._left_s(waiting)
        return write.plan(context)

    def _next_group(self) -> Iterator[tuple[_Waiting, Write]]:
        for _ in range(MOST_TOGETHER):
            try:
                yield self._sharing.popleft()
            except IndexError:
                return

    def _left_s(self, waiting: _Waiting) -> float:
        """Return how long a request may wait now.

        Raises:
            DatabaseBusy: the request may wait no longer, or its client has gone.
        """
        left_s = waiting.deadline - time.monotonic()
        if left_s <= 0:
            raise DatabaseBusy(f"other requests were at work for {self._wait_s:g} s")
        if waiting.future.cancelled():
            raise DatabaseBusy("the client has gone")
        return left_s


def _carried_out(context: Context, plans: Sequence[Plan]) -> list[Done | Exception | None]:
    """Return the outcomes of plans that share a commit; None for a plan that has to run alone."""
    try:
        return carry_out_together(context, plans)
    except InDoubt as error:
        return [error] * len(plans)
    except Exception:  # such as a lock that one of them waits for
        return [None] * len(plans)


def _answer_all(answers: Sequence[tuple[_Waiting, Envelope | Exception]]) -> None:
    """Deliver the answers of requests, each on the event loop of its request."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Waiting, Envelope | Exception]]] = {}
    for waiting, answer in answers:
        by_loop.setdefault(waiting.loop, []).append((waiting, answer))
    for loop, some in by_loop.items():
        try:
            loop.call_soon_threadsafe(_deliver, some)
        except RuntimeError:  # that loop is closed, and with it the requests
            pass


def _deliver(answers: Sequence[tuple[_Waiting, Envelope | Exception]]) -> None:
    for waiting, answer in answers:
        deliver(waiting.future, answer)


class Crew:
    """Calls a function in several threads at the same time.

    No thread pool: an ending interpreter would wait for its threads, and they perhaps for the network.

    Args:
        most: how many threads there are at most.
        work: the function, which must not raise.
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
        """Let the next free thread call the function. If all are busy, start a thread, up to `most`.

        Raises:
            RuntimeError: there is no thread, and the system cannot start one.
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


Writes = WriteQueue | ConcurrentWrites
"""Runs the write operations of one storage; those that wait do so off the event loop."""
