"""The runs that a writer has begun and not ended, as far as its records are committed.

Where the file was deleted or replaced, they are registered again in the one that has the path now. The program may not
hold them any more: it has ended them, and the records of that are committed after those of their begin.
"""

from collections.abc import Sequence

from agentspan.model.changes import Move, Unit
from agentspan.model.status import OPEN
from agentspan.recovery.names import run_of
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
        self._newest: Sequence[Unit] = ()
        self._account = ""

    def begin(self, registrations: Sequence[Unit]) -> None:
        """Note the units of a batch that are committed first: those that register runs have the run as their subject.

        Raises:
            StorageError: the storage cannot be read.
        """
        self._newest = registrations
        if registrations and not self._account:
            self._account = self._storage.account().id

    def end(self, units: Sequence[Unit]) -> None:
        """Note the others of the batch, which are committed, too: some rename and end runs."""
        # Most runs begin and end in one batch. They cost nothing but this look at them.
        moves: list[tuple[Move, Unit]] = []
        for unit in units:
            change = unit.changes[-1]
            if type(change) is Move and change.type == "agent_instance":
                moves.append((change, unit))
        ended = {move.id for move, _ in moves if move.set.get("status", "active") not in OPEN}
        for unit in self._newest:
            if unit.subject is not None and unit.subject not in ended:
                self.keep([unit])
        self._newest = ()
        for move, unit in moves:
            if move.id in ended:
                self._units.pop(move.id, None)
            elif move.id in self._units:
                self._units[move.id].append(unit)

    def take(self, unit: Unit) -> list[Unit] | None:
        """Return what registers the run that a unit needs, for another file than the one that had it.

        It is forgotten until it is kept again. None of a run that is unknown here, or that somebody has removed.

        Raises:
            StorageError: the storage cannot be read.
        """
        id = run_of(unit)
        found = self._units.get(id or "") or [each for each in self._newest if id and each.subject == id]
        if not found or self._storage.account().id == self._account:
            return None
        self._units.pop(id or "", None)
        return found

    def keep(self, units: list[Unit]) -> None:
        """Remember the units that register and rename one run."""
        if len(self._units) >= MAX_RUNS:
            del self._units[next(iter(self._units))]
        self._units[units[0].subject or ""] = units
