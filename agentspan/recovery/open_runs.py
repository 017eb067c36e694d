"""The runs that a writer has begun and not ended, as far as its records are committed.

Where the file was deleted or replaced, they are registered again in the one that has the path now. The program may not
hold them any more: it has ended them, and the records of that are committed after those of their begin.
"""

from collections.abc import Iterable

from agentspan.model.changes import Move, Unit
from agentspan.model.status import OPEN
from agentspan.recovery.names import instance_in, run_of
from agentspan.storage.protocol import Storage

MAX_RUNS = 1000
"""Runs that are remembered. An older one goes on in another file only as long as the program holds it."""


class OpenRuns:
    """Remembers the units that register and rename runs, until the runs end.

    Args:
        storage: into which they are committed.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._units: dict[str, list[Unit]] = {}
        self._account = ""

    def note(self, units: Iterable[Unit]) -> None:
        """Note which runs these units, which are committed, begin, rename and end.

        Raises:
            StorageError: the storage cannot be read.
        """
        for unit in units:
            instance, change = instance_in(unit), unit.changes[-1]
            if instance is not None:
                self._begin(instance.id, unit)
            elif isinstance(change, Move) and change.type == "agent_instance":
                if change.set.get("status", "active") not in OPEN:
                    self._units.pop(change.id, None)
                elif change.id in self._units:
                    self._units[change.id].append(unit)

    def _begin(self, id: str, unit: Unit) -> None:
        self._account = self._account or self._storage.account().id
        if len(self._units) >= MAX_RUNS:
            del self._units[next(iter(self._units))]
        self._units[id] = [unit]

    def take(self, unit: Unit) -> list[Unit] | None:
        """Return what registers the run that a unit needs, for another file than the one that had it.

        It is forgotten until it is noted again. None of a run that is unknown here, or that somebody has removed.

        Raises:
            StorageError: the storage cannot be read.
        """
        id = run_of(unit) or ""
        if id not in self._units or self._storage.account().id == self._account:
            return None
        return self._units.pop(id)
