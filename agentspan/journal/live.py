"""The journals that this process writes, by file: what reads the file here sees what was recorded here."""

import weakref
from pathlib import Path
from typing import Protocol

from agentspan import forks
from agentspan.forks import page


class Journal(Protocol):
    """A journal that this process appends to."""

    folder: Path

    def catch_up(self) -> None:
        """Bring into the storage what is not there yet."""
        ...

    def types_changed(self) -> None:
        """Take note that a span type was registered."""
        ...

    def terminated(self, instance_id: str, reason: str) -> None:
        """Take note that a run was terminated, which may be one of this process."""
        ...


_journals: weakref.WeakSet[Journal] = weakref.WeakSet()


def register(journal: Journal) -> None:
    """Have a journal be caught up with before its file is read."""
    _journals.add(journal)


def forget(journal: Journal) -> None:
    """Leave a journal alone, which is another process's now."""
    _journals.discard(journal)


def catch_up(folder: Path) -> None:
    """Bring into a file what this process has recorded for it; its journals lie in this folder."""
    if not page[0]:
        forks.renew()
    for journal in list(_journals):
        if journal.folder == folder:
            journal.catch_up()


def types_changed() -> None:
    """Tell the journals that a span type was registered, which runs that began before do not have."""
    for journal in list(_journals):
        journal.types_changed()


def terminated(instance_id: str, reason: str) -> None:
    """Tell the journals that a run was terminated by somebody in this process."""
    for journal in list(_journals):
        journal.terminated(instance_id, reason)
