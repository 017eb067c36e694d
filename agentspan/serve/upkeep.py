"""The background work of a server: adopts the journals of dead programs, and makes partitions ahead of time."""

import asyncio
import logging
import threading
import time

from agentspan.errors import AgentspanError
from agentspan.journal.adopting import LOOK_EVERY_S, Adoption
from agentspan.maintenance.prune import keep_partitions
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import MakePartitions
from agentspan.tuning import STANDARD

END_S = 1.0


class Adopting:
    """Looks for journals, at most once a second, before a request is answered, and adopts them in a thread.

    Adopting 87 MB on the event loop delayed all answers by 1.7 s.

    Args:
        adoption: adopts the journals beside the file; None if the storage has no journals.
        answer_s: how long the request that found a journal waits for it.
    """

    def __init__(self, adoption: Adoption | None, answer_s: float = STANDARD.adoption_answer_s) -> None:
        self._adoption = adoption
        self._answer_s = answer_s
        self._next_s = 0.0 if adoption is not None else float("inf")
        self._thread: threading.Thread | None = None

    def is_due(self) -> bool:
        """Return whether to look for journals before this request."""
        return time.monotonic() >= self._next_s

    async def look(self) -> None:
        """Look for journals in a thread; wait at most `answer_s` seconds while they are adopted."""
        self._next_s = time.monotonic() + LOOK_EVERY_S
        if self._adoption is None or (self._thread is not None and self._thread.is_alive()):
            return
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        # Not a thread of a pool, for which an ending interpreter waits. The next program adopts the rest.
        self._thread = threading.Thread(target=self._adopt, args=(loop, done), name="agentspan-adopting", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the system is at its limit
            self._thread = None
            return
        try:
            await asyncio.wait_for(done.wait(), self._answer_s)
        except TimeoutError:
            pass

    def _adopt(self, loop: asyncio.AbstractEventLoop, done: asyncio.Event) -> None:
        assert self._adoption is not None
        try:
            self._adoption.look(at_once=True)  # it logs its faults
        finally:
            try:
                loop.call_soon_threadsafe(done.set)
            except RuntimeError:  # the loop is closed
                pass

    async def stop(self) -> None:
        """Stop looking, and wait until a look under way has ended, for a moment."""
        if self._adoption is not None:
            self._adoption.stop()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, END_S)


log = logging.getLogger("agentspan")

PARTITIONS_EVERY_S = 86_400.0
PARTITIONS_AGAIN_S = 3600.0
"""Seconds until the next attempt if partitions are still missing."""
PARTITION_WAIT_S = 5.0


class PartitionMaking:
    """A thread that makes partitions ahead, when a server starts and once a day. Several servers may share a storage.

    Args:
        storage: a storage that is not opened to be read only.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._ending = threading.Event()
        self._said: str | None = None

    def start(self) -> None:
        """Start the thread. It is a daemon: an ending interpreter does not wait until it gets a lock on the server."""
        if MakePartitions in self._storage.capabilities().answers:
            threading.Thread(target=self._run, name="agentspan-partitions", daemon=True).start()

    def stop(self) -> None:
        """Make the thread end after its current work."""
        self._ending.set()

    def _run(self) -> None:
        wait_s = 0.0
        while not self._ending.wait(wait_s):
            wait_s = PARTITIONS_EVERY_S if self._make() else PARTITIONS_AGAIN_S

    def _make(self) -> bool:
        """Make the missing partitions; return whether none is missing afterwards. A problem is logged once."""
        try:
            kept = keep_partitions(self._storage, PARTITION_WAIT_S)
            problem: AgentspanError | None = kept.problem if kept.missing else None
        except AgentspanError as error:  # the server is away
            problem = error
        if problem is not None and str(problem) != self._said:
            self._said = str(problem)
            log.warning("partitions are missing, and cannot be made now: %s", problem)
        return problem is None
