"""The storage of a child that must not use its parent's; imported by the few that need it."""

from collections.abc import Sequence

from agentspan.errors import StorageError
from agentspan.model.changes import Outcome, Unit
from agentspan.storage.memory import MemoryStorage


class CutOff(MemoryStorage):
    """A storage of a child that must not use the real one (see forks.is_cut_off): finds nothing, and takes nothing."""

    def apply(self, units: Sequence[Unit], *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> list[Outcome]:
        """Take nothing."""
        raise StorageError(
            "this process was forked while a thread was using SQLite, which could hang here; what it records stays in "
            "its journal until it has ended"
        )
