"""Opens a storage whose reads see what journals hold: what this process recorded, and what dead programs left."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from agentspan import forks
from agentspan import storage as storages
from agentspan.journal import live
from agentspan.journal.place import folder_of, is_possible
from agentspan.storage.protocol import HasJournal, Storage

if TYPE_CHECKING:
    from agentspan.recovery.adopting import Adoption


def open_storage(
    db: str | os.PathLike[str] | Storage | None, *, read_only: bool = False, wait_s: float = 10.0
) -> Storage:
    """Return the storage that `db` names (see open), as one whose reads see what journals hold."""
    storage = storages.open_storage(db, read_only=read_only, wait_s=wait_s)
    return see_journals(storage, read_only=read_only) if isinstance(storage, HasJournal) else storage


def see_journals(storage: HasJournal, *, read_only: bool) -> Storage:
    """Return a storage whose reads see what journals hold.

    One that only reads adopts the journals of dead programs, too, where its file may be written to: they are a part of
    the recording that is not in its place yet.
    """
    return storage.seeing(_seen(storage, read_only=read_only))


def adoption_beside(storage: Storage) -> "Adoption | None":
    """Return what adopts the journals beside a storage; None where there can be none."""
    if not isinstance(storage, HasJournal) or not is_possible():
        return None
    with forks.importing:
        from agentspan.recovery.adopting import Adoption

    return Adoption(partial(_writable, storage.path), storage.path)


@contextmanager
def _writable(path: Path) -> Iterator[Storage]:
    storage = storages.open_storage(path)
    try:
        yield storage
    finally:
        storage.close()


def _seen(storage: HasJournal, *, read_only: bool) -> Callable[[], None]:
    folder = folder_of(storage.path)
    if not is_possible():
        return lambda: live.catch_up(folder)
    with forks.importing:
        from agentspan.recovery.adopting import Adoption

    lend: Callable[[], AbstractContextManager[Storage]] = partial(_writable, storage.path)
    adoption = Adoption(lend if read_only else lambda: nullcontext(storage.direct), storage.path)

    def see() -> None:
        live.catch_up(folder)
        adoption.look()

    return see
