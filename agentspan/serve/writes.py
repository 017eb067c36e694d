"""Queues the writes: committed on the event loop while the database is free, else in threads.

Writes of spans that wait at the same moment are carried out together: one read, one commit. Each other operation is a
transaction of its own, because it reads while it decides: in a shared transaction, it would hold the locks of others
meanwhile. After a failed or refused group, each of its operations is run again, alone. A group that meets a busy file
on the event loop is run again in a thread, which may wait for the file.

A commit to a file costs as much as the operation in it, and under load a hop to a thread and back costs more than both.
So the writes that arrive in one turn of the loop are committed on the loop. All connections wait for a turn, so it must
be short: a group accepts writes for a slice of time. The rest waits for the next turn, behind events that arrived
meanwhile. Waiting for other writers, or a write that takes long, would stall the loop: then a thread does it, with all
that arrives meanwhile.

If the commits of a storage wait for a server, threads run all writes: several transactions at the same time. On the
event loop, one commit after the other would wait for the network: 73 requests a second at a round trip of 1 ms. With a
transaction for each operation, 64 clients got 300 answers a second at a round trip of 5 ms.
"""

import asyncio
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeGuard

from agentspan.api import envelopes
from agentspan.api.context import Context, Done, Plan, attempted, carry_out_together
from agentspan.api.operation import Write
from agentspan.errors import DatabaseBusy, InDoubt
from agentspan.host import undoing
from agentspan.tuning import STANDARD, Tuning

Work = Callable[[Context], Any]
"""The work of a request: it returns an envelope, or the answers of a bulk request."""
WAIT_S = 2.0
"""How long a request may wait for other writers before it is answered with 503."""
STEP_S = 0.5
"""Lock timeouts of a server are multiples of this, in seconds: to change the timeout of a connection is a statement."""
GROUPS = 2
"""The most groups at a time. With three, groups had fewer writes, and a write took a quarter more processor time."""
MOST_TOGETHER = 100
"""The most writes in a group."""
GROUP_WAIT_S = 0.25
"""Seconds that a group in a thread may wait for a lock, before each of its writes waits alone."""
THREAD_SLICE_S = 0.1
"""Seconds for which a group in a thread accepts operations. It does not block the event loop."""


class _Waiting(NamedTuple):
    operation: Work
    deadline: float
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"
    is_long: bool = False


Answers = Sequence[tuple[_Waiting, Any]]


class WriteQueue:
    """Runs the write operations of one storage, begun in the order in which they came.

    Args:
        context: the operations' context.
        wait_s: how long a request may wait for other writers; and before that, if they are at a server, for its turn.
        tuning: sizes and times, for tests; see agentspan/tuning.py.
    """

    def __init__(self, context: Context, wait_s: float = WAIT_S, tuning: Tuning = STANDARD) -> None:
        self._most_waiting = tuning.waiting_requests
        self._slice_s = tuning.loop_slice_s
        self._context = context
        self._wait_s = wait_s
        most, idle_s = context.storage.capabilities().concurrency, tuning.idle_thread_s
        self._queue: deque[_Waiting] = deque()
        self._alone: deque[_Waiting] = deque()
        self._groups = Crew(min(GROUPS, most), self._run_group, idle_s) if most > 1 else None  # None: on the event loop
        self._crew = Crew(most, self._run_one, idle_s, None if self._groups else self._hand_back)
        self._next: asyncio.AbstractEventLoop | None = None  # the loop whose next turn runs a group

    async def run(self, operation: Work, *, is_long: bool = False) -> Any:
        """Run an operation and return its answer, once it is committed.

        Args:
            is_long: whether the operation takes too long for the event loop. A thread runs it then.

        Raises:
            DatabaseBusy: its turn did not come in time, too many requests wait, or other writers held a lock for too
                long; nothing is stored.
        """
        if self._is_full():
            raise DatabaseBusy("too many requests wait for the database")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(operation, time.monotonic() + self._wait_s, loop, loop.create_future(), is_long)
        with undoing(waiting.future.cancel):  # it is not to be run any more
            if self._groups is None:
                self._queue.append(waiting)
                self._come_back(loop)
            elif _shares(operation):
                self._queue.append(waiting)
                self._groups.call()
            else:
                self._run_alone(waiting)
            return await waiting.future

    def _is_full(self) -> bool:
        at_work = self._crew.waiting
        if self._groups is None:
            return at_work > 0 and at_work + len(self._queue) >= self._most_waiting
        return at_work + self._groups.waiting >= self._most_waiting

    def _come_back(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run a group in the loop's next turn.

        While a thread is at work, do nothing: the thread runs arriving operations.
        """
        if self._next is not loop and not self._crew.waiting:
            self._next = loop
            loop.call_soon(self._turn, loop)

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._next = None
        if self._queue and not self._crew.waiting:
            self._run_group(loop)
            if self._queue:
                self._come_back(loop)

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

    def _run_group(self, here: asyncio.AbstractEventLoop | None = None) -> None:
        """Run the operations at the head of the queue, and answer them. Those that cannot be done now run alone.

        Args:
            here: the event loop that runs this, on which nothing may wait or take long; None in a thread.
        """
        context = self._context.within(self._context.storage)
        context.wait_s = GROUP_WAIT_S if here is None else 0.0
        until = time.monotonic() + (THREAD_SLICE_S if here is None else self._slice_s)
        answers: list[tuple[_Waiting, Any]] = []
        group: list[_Waiting] = []
        plans: list[Plan] = []
        for number in range(MOST_TOGETHER):
            if number and time.monotonic() >= until:
                break
            try:
                waiting = self._queue.popleft()
            except IndexError:
                break
            operation = waiting.operation
            if here and waiting.is_long:
                answers.append((waiting, None))
                break
            if not _shares(operation) or not (group or self._queue):
                answers.append((waiting, attempted(self._timely, waiting, operation, context)))
                continue
            plan = attempted(self._timely, waiting, operation.plan, context)
            if isinstance(plan, Exception):
                answers.append((waiting, plan))
            else:
                group.append(waiting)
                plans.append(plan)
        if plans:
            answers += zip(group, _carried_out(context, plans), strict=True)
        self._settle(answers, here)

    def _settle(self, answers: Answers, here: asyncio.AbstractEventLoop | None) -> None:
        """Answer the operations that have an answer. Those that were refused run again, alone.

        Those that met a busy file on the event loop run again together, in a thread, which may wait for the file.
        """
        done: list[tuple[_Waiting, Any]] = []
        again: list[_Waiting] = []
        for waiting, answer in answers:
            if answer is not None and not isinstance(answer, DatabaseBusy):
                done.append((waiting, answer))
            elif answer is None or here is None:
                self._run_alone(waiting)
            else:
                again.append(waiting)
        if again:
            self._queue.extendleft(reversed(again))
            try:
                self._crew.call()
            except RuntimeError as error:  # the system is at its limit
                done += [(self._queue.popleft(), error) for _ in again]
        _answer(done, here)

    def _timely(self, waiting: _Waiting, step: Callable[[Context], Any], context: Context) -> Any:
        """Run a step of an operation, unless a server's writers made its request wait too long, or its client has gone.

        Raises:
            DatabaseBusy: the step was not run.
        """
        if self._groups:
            if waiting.deadline <= time.monotonic():
                raise DatabaseBusy(f"other requests were at work for {self._wait_s:g} s")
            if waiting.future.done():
                raise DatabaseBusy("the client has gone")
        return step(context)

    def _run_alone(self, waiting: _Waiting) -> None:
        self._alone.append(waiting)
        try:
            self._crew.call()
        except RuntimeError as error:  # the system is at its limit
            self._alone.remove(waiting)
            _answer([(waiting, error)], None)

    def _run_one(self) -> None:
        """Run an operation that may wait for other writers until its deadline. On a file, then run the queue."""
        if self._alone:
            waiting = self._alone.popleft()
            context = self._context.within(self._context.storage)
            left_s = max(0.0, waiting.deadline - time.monotonic())
            context.wait_s = math.ceil(left_s / STEP_S) * STEP_S if self._groups else left_s
            _answer([(waiting, attempted(self._timely, waiting, waiting.operation, context))], None)
        if self._groups is None:
            self._run_group()


def _shares(operation: Work) -> TypeGuard[Write]:
    return isinstance(operation, Write) and operation.shares


def _carried_out(context: Context, plans: Sequence[Plan]) -> list[Any]:
    """Return the answers of plans that share a commit, or their errors; None for a plan that has to run alone."""
    try:
        results = carry_out_together(context, plans)
    except (DatabaseBusy, InDoubt) as error:
        return [error] * len(plans)
    except Exception:
        return [None] * len(plans)
    return [attempted(envelopes.of_done, context, each) if isinstance(each, Done) else each for each in results]


def _answer(answers: Answers, here: asyncio.AbstractEventLoop | None) -> None:
    """Deliver the answers of requests, each on the event loop of its request."""
    elsewhere: dict[asyncio.AbstractEventLoop, list[tuple[_Waiting, Any]]] = {}
    for waiting, answer in answers:
        if waiting.loop is here:
            _deliver([(waiting, answer)])
        else:
            elsewhere.setdefault(waiting.loop, []).append((waiting, answer))
    for loop, some in elsewhere.items():
        try:
            loop.call_soon_threadsafe(_deliver, some)
        except RuntimeError:  # that loop is closed, and with it the requests
            pass


def _deliver(answers: Answers) -> None:
    for waiting, answer in answers:
        if waiting.future.done():  # the client has gone
            continue
        if isinstance(answer, Exception):
            waiting.future.set_exception(answer)
        else:
            waiting.future.set_result(answer)


class Crew:
    """Calls a function in several threads at the same time.

    No thread pool: an ending interpreter would wait for its threads, and they perhaps for the network.

    Args:
        most: how many threads there are at most.
        work: the function, which must not raise.
        idle_s: seconds after which a thread without work ends.
        rest: called when all work is done; None for nothing.

    Attributes:
        waiting: the number of calls that are not done.
    """

    def __init__(
        self, most: int, work: Callable[[], object], idle_s: float, rest: Callable[[], object] | None = None
    ) -> None:
        self._most = most
        self._work = work
        self._idle_s = idle_s
        self._rest = rest
        self._calls: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = self.waiting = 0

    def call(self) -> None:
        """Let the next free thread call the function. If all are busy, start a thread, up to `most`.

        Raises:
            RuntimeError: there is no thread, and the system cannot start one.
        """
        with self._lock:
            self.waiting += 1
            needs_thread = self._threads < min(self._most, self.waiting)
            self._threads += needs_thread
        if needs_thread:
            try:
                threading.Thread(target=self._call, name="agentspan-writer", daemon=True).start()
            except RuntimeError:
                with self._lock:
                    self._threads -= 1
                    if not self._threads:
                        self.waiting -= 1
                        raise
        self._calls.put(None)

    def _call(self) -> None:
        while True:
            try:
                self._calls.get(timeout=self._idle_s)
            except queue.Empty:
                with self._lock:
                    if self.waiting >= self._threads:  # one more has come just now
                        continue
                    self._threads -= 1
                    return
            self._work()
            with self._lock:
                self.waiting -= 1
                is_done = not self.waiting
            if is_done and self._rest is not None:
                self._rest()
