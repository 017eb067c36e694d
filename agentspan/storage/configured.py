"""The database that `agentspan.configure` was given in this process, for readers that name none."""

import os
from collections.abc import Callable
from typing import Any

from agentspan.storage.location import Location
from agentspan.storage.protocol import Storage

_tell: list[Callable[[], Location | Storage | None]] = []


def set_configured(tell: Callable[[], Location | Storage | None]) -> None:
    """Set what tells it; the module `recording.default` does so, which `import agentspan` imports."""
    _tell[:] = [tell]


def configured() -> Location | Storage | None:
    """Return the location to open; the storage itself where only this process has it; None if nothing was given."""
    return _tell[0]() if _tell else None


def chosen(db: str | os.PathLike[str] | Location | Storage | None) -> tuple[Any, bool]:
    """Return what a reader opens, and whether it closes that: not a storage that this process records into."""
    if db is not None:
        return db, True
    own = configured()
    return own, own is None or isinstance(own, Location)
