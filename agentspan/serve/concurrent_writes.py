"""Runs writes in threads, for a storage whose commits wait for a server: several transactions at the same time.

On the event loop one commit after the other would wait for the network: 73 requests a second at a round trip of 1 ms.

The writes of spans that wait at the same moment are carried out together: one reading, one commit. At a round trip of
5 ms, 64 clients had 300 answers a second where each operation was a transaction of its own. Any other operation is one,
since those that share one would hold each other's locks between their statements; so is each of a group that failed,
and one that was refused.
"""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from agentspan.errors import DatabaseBusy, InDoubt
from agentspan.operations import envelopes
from agentspan.operations.context import Context, Done, Plan, carry_out_together
from agentspan.operations.envelopes import Envelope
from agentspan.operations.operation import Write
from agentspan.serve.crew import Crew
from agentspan.serve.write_queue import WAIT_S, Work, deliver
from agentspan.tuning import STANDARD, Tuning

STEP_S = 0.5
"""Waits are a multiple of this: a connection that is to wait for another time has to say so to the server."""
GROUPS = 2
"""Groups at the same time. With three, a group has fewer writes, and each took a quarter more of the processor."""
MOST_TOGETHER = 100
"""Writes of a group."""
GROUP_WAIT_S = 0.25
"""Seconds that a group may wait for a lock, before each of its writes waits alone."""


class _Waiting(NamedTuple):
    operation: Work
    deadline: float
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"


class ConcurrentWrites:
    """Runs the write operations of one storage, begun in the order in which they came (see Writes).

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
        try:
            context.wait_s = math.ceil(self._left_s(waiting) / STEP_S) * STEP_S
            result: Envelope | Exception = waiting.operation(context)
        except Exception as error:  # it must cost this request only
            result = error
        _answer([(waiting, result)])

    def _run_group(self) -> None:
        """Run the operations that wait; those that were refused, or all of them where the commit failed, run alone."""
        context = self._context.within(self._context.storage)
        context.wait_s = GROUP_WAIT_S
        group: list[_Waiting] = []
        plans: list[Plan] = []
        answers: list[tuple[_Waiting, Envelope | Exception]] = []
        for waiting, write in self._next_group():
            try:
                self._left_s(waiting)
                plan = write.plan(context)
            except Exception as error:
                answers.append((waiting, error))
            else:
                group.append(waiting)
                plans.append(plan)
        for waiting, result in zip(group, _carried_out(context, plans), strict=True):
            try:
                answer = envelopes.of_done(context, result) if isinstance(result, Done) else result
            except Exception as error:
                answer = error
            if answer is None:
                self._run_alone(waiting)
            else:
                answers.append((waiting, answer))
        _answer(answers)

    def _next_group(self) -> Iterator[tuple[_Waiting, Write]]:
        for _ in range(MOST_TOGETHER):
            try:
                yield self._sharing.popleft()
            except IndexError:
                return

    def _left_s(self, waiting: _Waiting) -> float:
        """Return how long a request may wait now.

        Raises:
            DatabaseBusy: no longer, or its client has gone.
        """
        left_s = waiting.deadline - time.monotonic()
        if left_s <= 0:
            raise DatabaseBusy(f"other requests were at work for {self._wait_s:g} s")
        if waiting.future.cancelled():
            raise DatabaseBusy("the client has gone")
        return left_s


def _carried_out(context: Context, plans: Sequence[Plan]) -> list[Done | Exception | None]:
    """Return what became of plans that share a commit; None for those that have to run alone."""
    try:
        return carry_out_together(context, plans)
    except InDoubt as error:
        return [error] * len(plans)
    except Exception:  # such as a lock that one of them waits for
        return [None] * len(plans)


def _answer(answers: Sequence[tuple[_Waiting, Envelope | Exception]]) -> None:
    """Give requests their answers, on the event loop of each."""
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
