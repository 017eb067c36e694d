"""Makes partitions ahead while a server runs: in a thread, when it starts and once a day."""

import logging
import threading

from agentspan.errors import AgentspanError
from agentspan.maintenance.partition_upkeep import keep_partitions
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import MakePartitions

log = logging.getLogger("agentspan")

EVERY_S = 86_400.0
AGAIN_S = 3600.0
"""Seconds until the next attempt where others were in the way."""
WAIT_S = 5.0


class PartitionMaking:
    """A thread that makes the partitions of a storage, if it has any. Several servers may do so at once.

    Args:
        storage: one that writes.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._ending = threading.Event()
        self._said: str | None = None

    def start(self) -> None:
        """Start it. A daemon: an interpreter that ends does not wait for a lock on the server."""
        if MakePartitions in self._storage.capabilities().answers:
            threading.Thread(target=self._run, name="agentspan-partitions", daemon=True).start()

    def stop(self) -> None:
        """End it, after the partition that it makes now."""
        self._ending.set()

    def _run(self) -> None:
        wait_s = 0.0
        while not self._ending.wait(wait_s):
            wait_s = EVERY_S if self._make() else AGAIN_S

    def _make(self) -> bool:
        """Make what is missing; return whether nothing is missing then. What is wrong is logged once."""
        try:
            kept = keep_partitions(self._storage, WAIT_S)
            problem: AgentspanError | None = kept.problem if kept.missing else None
        except AgentspanError as error:  # the server is away
            problem = error
        if problem is not None and str(problem) != self._said:
            self._said = str(problem)
            log.warning("partitions are missing, and cannot be made now: %s", problem)
        return problem is None
