"""The runs of one recorder that the program still holds, by their ids."""

import weakref
from typing import Protocol

from agentspan.model.changes import Unit
from agentspan.model.rows import AgentInstanceRow
from agentspan.model.status import InstanceStatus
from agentspan.storage.identity import Identity


class LiveRun(Protocol):
    """A run that may be terminated from outside, or registered again."""

    @property
    def id(self) -> str:
        """The agent instance's PFID."""
        ...

    @property
    def status(self) -> InstanceStatus:
        """The status, as far as this process knows."""
        ...

    registered_row: AgentInstanceRow | None
    stored_in: Identity | None

    def learn(self, reason: str) -> None:
        """Note that the run was terminated, and why."""

    def tell(self) -> None:
        """Call the program's `on_terminate`, once."""

    def confirm(self, stored: AgentInstanceRow) -> None:
        """Take the row with which it is stored."""
        ...

    def register_again(self) -> None:
        """Register in a file that replaced the one that knew this run, unless the run is known there."""
        ...


class LiveRuns:
    """Weak references to runs.

    No WeakValueDictionary: it calls a function in Python whenever a run is gone, and the interpreter drops what a
    signal handler raises in there.

    Attributes:
        unconfirmed: the units that register runs which may not be stored yet, by the id of the run.
    """

    def __init__(self) -> None:
        self.unconfirmed: dict[str, Unit] = {}
        self._runs: dict[str, weakref.ref[LiveRun]] = {}
        self._most = 100

    def add(self, run: LiveRun) -> None:
        """Add a run."""
        self._runs[run.id] = weakref.ref(run)
        if len(self._runs) > self._most:
            for gone in [id for id, each in list(self._runs.items()) if each() is None]:
                self._runs.pop(gone, None)
                self.unconfirmed.pop(gone, None)  # a storage that is away for long confirms none
            self._most = 2 * len(self._runs) + 100

    def get(self, id: str) -> LiveRun | None:
        """Return a run, or None if it is gone, or of another process."""
        found = self._runs.get(id)
        return None if found is None else found()

    def inherited(self) -> list[Unit]:
        """In a forked child: return the units that register the parent's runs which the program still holds."""
        self.unconfirmed = {id: unit for id, unit in self.unconfirmed.items() if self.get(id) is not None}
        return [*self.unconfirmed.values()]

    def active(self) -> list[LiveRun]:
        """Return the runs that are active."""
        return [run for each in list(self._runs.values()) if (run := each()) is not None and run.status == "active"]
