"""Writers that are dead and whose journals are adopted. Only then is it known which of their spans did not finish."""

import logging
import time
from collections.abc import Collection

from agentspan.errors import StorageError
from agentspan.recovery.opening import adoption_beside
from agentspan.recovery.writers import Lives
from agentspan.storage.protocol import Storage
from agentspan.tuning import STANDARD, Tuning

log = logging.getLogger("agentspan")


class DeadWriters:
    """Checks whether a writer is dead, and then adopts its journal; once for each writer.

    A dead program records nothing more. So once its journal is adopted, the storage has everything that it did.

    Args:
        dead_hosts: hosts whose programs are known to be dead.
        wait_s: for how long to wait, in all, for other processes that adopt the journals of dead writers.
        tuning: sizes.

    Attributes:
        lives: which writers are alive.
    """

    def __init__(
        self,
        storage: Storage,
        dead_hosts: Collection[str] = (),
        *,
        wait_s: float = 0.0,
        tuning: Tuning = STANDARD,
    ) -> None:
        self.lives = Lives(storage, dead_hosts)
        self._until = time.monotonic() + wait_s
        self._adoption = adoption_beside(storage, tuning)
        self._adopted: dict[str, bool] = {}

    def has(self, writer_id: str | None) -> bool:
        """Return whether a writer is dead and all its records are in the storage."""
        if writer_id is None or self.lives.of(writer_id) != "dead":
            return False
        if self._adoption is None:
            return True
        if writer_id not in self._adopted:
            try:
                self._adoption.adopt(writer_id=writer_id, wait_s=max(0.0, self._until - time.monotonic()))
            except StorageError as error:
                log.warning("the journal of writer %s could not be read now: %s", writer_id, error)
            self._adopted[writer_id] = self._adoption.is_adopted(writer_id)
        return self._adopted[writer_id]
