"""Opens a storage whose reads see what journals hold: what this process recorded, and what dead programs left."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from agentspan import forks
from agentspan.journal import own_journals
from agentspan.journal.journal_folder import folder_of, is_possible
from agentspan.storage.location import Location, file
from agentspan.storage.protocol import BesideJournals, Storage
from agentspan.storage.registry import open_direct

if TYPE_CHECKING:
    from agentspan.recovery.adopting import Adoption


class Opened(NamedTuple):
    """One opened storage, as its two kinds of users need it.

    Attributes:
        seeing: its reads see what journals hold; for everybody who reads.
        direct: its reads see what is committed only; for the recorder, whose journal is committed to it. The same
            object as `seeing` where there can be no journals.
        file: the file beside which journals may lie; None where there can be none.
    """

    seeing: Storage
    direct: Storage
    file: Path | None


def open_storage(
    db: str | os.PathLike[str] | Location | Storage | None, *, read_only: bool = False, wait_s: float = 10.0
) -> Opened:
    """Open the storage that `db` names (see open); closing either of what is returned closes both."""
    storage = open_direct(db, read_only=read_only, wait_s=wait_s)
    journals = storage.capabilities().journals
    if journals is None:
        return Opened(storage, storage, None)
    return Opened(see_journals(journals, read_only=read_only), journals.direct, journals.path)


def see_journals(storage: BesideJournals, *, read_only: bool) -> Storage:
    """Return a storage whose reads see what journals hold.

    One that only reads adopts the journals of dead programs, too, where its file may be written to: they are a part of
    the recording that is not in its place yet.
    """
    return storage.seeing(_seen(storage, read_only=read_only))


def adoption_beside(storage: Storage) -> "Adoption | None":
    """Return what adopts the journals beside a storage; None where there can be none."""
    journals = storage.capabilities().journals
    if journals is None or not is_possible():
        return None
    with forks.importing:
        from agentspan.recovery.adopting import Adoption

    return Adoption(partial(_writable, journals.path), journals.path)


@contextmanager
def _writable(path: Path) -> Iterator[Storage]:
    storage = open_direct(file(path))
    try:
        yield storage
    finally:
        storage.close()


def _seen(storage: BesideJournals, *, read_only: bool) -> Callable[[], None]:
    folder = folder_of(storage.path)
    if not is_possible():
        return lambda: own_journals.drain(folder)
    with forks.importing:
        from agentspan.recovery.adopting import Adoption

    lend: Callable[[], AbstractContextManager[Storage]] = partial(_writable, storage.path)
    adoption = Adoption(lend if read_only else lambda: nullcontext(storage.direct), storage.path)

    def see() -> None:
        own_journals.drain(folder)
        adoption.look()

    return see
