"""The journals that this process writes, by file: what reads the file here sees what was recorded here."""

import os
import weakref
from pathlib import Path
from typing import Protocol


class Journal(Protocol):
    """A journal that this process appends to."""

    path: Path

    def catch_up(self) -> None:
        """Bring into the storage what is not there yet."""
        ...


_journals: weakref.WeakSet[Journal] = weakref.WeakSet()


def register(journal: Journal) -> None:
    """Have a journal be caught up with before its file is read."""
    _journals.add(journal)


def forget(journal: Journal) -> None:
    """Leave a journal alone, which is another process's now."""
    _journals.discard(journal)


def catch_up(path: Path) -> None:
    """Bring into a file, by whichever link to it, what this process has recorded for it."""
    for journal in list(_journals):
        if journal.path == path or os.path.realpath(journal.path) == os.path.realpath(path):
            journal.catch_up()
