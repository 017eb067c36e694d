"""The runs that a writer has begun and not ended, as far as its records are committed.

Where the file was deleted or replaced, they are registered again in the one that has the path now, also where that is a
backup of the same: what tells is whether the run is there. A run that is missing in the file that it was registered in
was removed, and stays removed. The program may not hold a run any more: it has ended it, and the records of that are
committed after those of its begin.
"""

from collections.abc import Sequence

from agentspan.model.changes import Move, Unit
from agentspan.model.status import OPEN
from agentspan.recovery.names import run_of
from agentspan.storage.identity import Identities, Identity
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find

MAX_RUNS = 1000
"""Runs that are remembered. An older one goes on in another file only as long as the program holds it."""


_Runs = dict[str, tuple[Identity | None, list[Unit]]]
"""By the id of a run: the storage that has the run, and the units that register and rename it."""


class OpenRuns:
    """Remembers the units that register and rename runs: of those that are open, and of the last ones that ended.

    Args:
        storage: into which they are committed.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._identities = Identities(storage)
        self._place: Identity | None = None
        self._units: _Runs = {}
        self._ended: _Runs = {}
        self._newest: Sequence[Unit] = ()

    def begin(self, registrations: Sequence[Unit]) -> None:
        """Note the units of a batch that are to be committed first: those that register runs have the run as subject.

        Called before they are committed: where the file is replaced in the middle, they count as of the one before, and
        are looked for in the other one.

        Raises:
            StorageError: the storage cannot be read.
        """
        self._newest = registrations
        if self._units or self._ended or registrations:
            place = self._identities.known()
            if place != self._place:
                self._look_for_them(place)
            self._place = place

    def _look_for_them(self, place: Identity) -> None:
        """Note which of the runs another file has, too: one that is missing there later was removed."""
        ids = {*self._units, *self._ended}
        for id in self._storage.ask(Find(*ids)).rows if ids else ():
            for runs in (self._units, self._ended):
                if id in runs:
                    runs[id] = place, runs[id][1]

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
                kept = self._units.pop(move.id, None)
                if kept is not None:  # its records may be committed again, without that of its begin
                    _add(self._ended, move.id, kept)
            elif move.id in self._units:
                self._units[move.id][1].append(unit)

    def take(self, unit: Unit) -> list[Unit] | None:
        """Return what registers the run that a unit needs, for another file than the one that had it.

        It is forgotten until it is kept again. None of a run that is unknown here; empty of one that was there.

        Raises:
            StorageError: the storage cannot be read.
        """
        id = run_of(unit) or ""
        kept = self._units.pop(id, None) or self._ended.pop(id, None)
        return kept and ([] if kept[0] == self._identities.now() else kept[1])

    def keep(self, units: list[Unit]) -> None:
        """Remember the units that register and rename one run, which were committed after `begin`."""
        _add(self._units, units[0].subject or "", (self._place, units))


def _add(runs: _Runs, id: str, kept: tuple[Identity | None, list[Unit]]) -> None:
    if len(runs) >= MAX_RUNS:
        del runs[next(iter(runs))]
    runs[id] = kept
