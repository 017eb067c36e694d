"""The journals that this process writes. They are drained before their file is read, so that a read includes them."""

import weakref
from pathlib import Path
from typing import Protocol

from agentspan import forks
from agentspan.forks import page


class Journal(Protocol):
    """A journal that this process appends to."""

    folder: Path

    def drain_now(self) -> None:
        """Move its records to the storage."""
        ...

    def types_changed(self) -> None:
        """Note that a span type was registered."""
        ...

    def terminated(self, instance_id: str, reason: str) -> None:
        """Note that a run was terminated. The run may be one of another process."""
        ...


_journals: weakref.WeakSet[Journal] = weakref.WeakSet()


def register(journal: Journal) -> None:
    """Add a journal. From now on it is drained before its file is read."""
    _journals.add(journal)


def forget(journal: Journal) -> None:
    """Remove a journal: in a forked child it belongs to the parent."""
    _journals.discard(journal)


def drain(folder: Path) -> None:
    """Drain the journals of this process that are in a folder."""
    if not page[0]:
        forks.renew()
    for journal in forks.members(_journals):
        if journal.folder == folder:
            journal.drain_now()


def types_changed() -> None:
    """Notify all journals that a span type was registered: runs that began before do not have it."""
    for journal in forks.members(_journals):
        journal.types_changed()


def terminated(instance_id: str, reason: str) -> None:
    """Notify all journals that this process terminated a run."""
    for journal in forks.members(_journals):
        journal.terminated(instance_id, reason)
