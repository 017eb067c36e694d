"""Opening a storage so that what lies in journals before it is seen, too."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from agentspan import storage as storages
from agentspan.journal import live
from agentspan.journal.place import folder_of, is_possible
from agentspan.storage.protocol import HasJournal, Storage


def open_storage(
    db: str | os.PathLike[str] | Storage | None, *, read_only: bool = False, wait_s: float = 10.0
) -> Storage:
    """Return the storage that `db` names (see open), whose reads see what journals hold.

    That is what this process has recorded; and, but for one that only reads, what processes left that are dead.
    """
    storage = storages.open_storage(db, read_only=read_only, wait_s=wait_s)
    if isinstance(storage, HasJournal):
        see_journals(storage, read_only=read_only)
    return storage


def see_journals(storage: HasJournal, *, read_only: bool) -> None:
    """Have a storage's reads see what journals hold.

    Also for one that only reads, what dead processes left is brought in, where the file may be written to: it is a part
    of the recording that is not in its place yet.
    """
    if storage.before_reading is None:
        view = None if read_only else storage.for_recording()
        storage.before_reading = _before_reading(storage.path, partial(_writable, storage.path, view))


@contextmanager
def _writable(path: Path, view: Storage | None) -> Iterator[Storage]:
    if view is not None:
        yield view
        return
    storage = storages.open_storage(path)
    try:
        yield storage
    finally:
        storage.close()


def _before_reading(path: Path, lend: Callable[[], AbstractContextManager[Storage]]) -> Callable[[], None]:
    folder = folder_of(path)
    if not is_possible():
        return lambda: live.catch_up(folder)
    from agentspan.operations.adopting import Adoption

    adoption = Adoption(lend, path)

    def before_reading() -> None:
        live.catch_up(folder)
        adoption.look()

    return before_reading
