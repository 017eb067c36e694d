"""Opens a storage whose reads drain and recover journals first: those of this process, and those of dead programs."""

import os
from collections.abc import Callable, Iterator, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, cast

from agentspan import disk, files, host
from agentspan.journal import spool
from agentspan.journal.journal_folder import folder_of, is_possible, spool_of
from agentspan.storage.access import Look, Looking
from agentspan.storage.location import Location, file
from agentspan.storage.protocol import BesideJournals, Capabilities, Storage
from agentspan.storage.registry import OpenedLater, location_of, open_direct
from agentspan.tuning import STANDARD, Tuning

if TYPE_CHECKING:
    from agentspan.journal.adopting import Adoption


class Spooled(Looking[Storage]):
    """A storage on a server whose reads include the journals on this host in front of it.

    Args:
        location: opens the storage in any process.
        folder: the folder of the journals.
    """

    def __init__(
        self, direct: Storage, location: Location, folder: Path, look: Look, journals: Sized | None = None
    ) -> None:
        super().__init__(direct, look, journals)
        self.location = location
        self.folder = folder

    def seeing(self, look: Look, journals: Sized | None = None) -> "Spooled":
        """Return this storage with another `look`, the function that runs before each read."""
        return Spooled(self.direct, self.location, self.folder, look, journals)

    def capabilities(self) -> Capabilities:
        """Return the capabilities of the plain storage, with this object as `spool`: journals on this host."""
        return self.direct.capabilities()._replace(spool=self)


class SeesJournals(Storage, Protocol):
    """A storage whose reads include records in journals; any storage if there can be no journals.

    All readers use it. Recording and recovery write the records of journals, so they use the plain storage,
    `capabilities().journals.direct`. A separate type, so that a type checker finds a mix-up of the two.
    """

    if TYPE_CHECKING:

        @property
        def sees_journals(self) -> Literal[True]:
            """Always absent at run time: only this module returns this type, by a cast (NewType takes no protocol)."""


def open_storage(
    db: str | os.PathLike[str] | Location | Storage | None,
    *,
    read_only: bool = False,
    wait_s: float = 10.0,
    later: bool = False,
    tuning: Tuning = STANDARD,
) -> SeesJournals:
    """Open a storage for readers: its reads include the records in journals, if it can have journals.

    Closing it also closes the plain storage below it, whose reads do not include them.

    Args:
        db, read_only, wait_s, later, tuning: as in storage.registry.open_direct.
    """
    if db is None or isinstance(db, (str, os.PathLike)):
        db = location_of(db)
    folder = spool_of(db) if isinstance(db, Location) and db.path is None else None
    if folder is not None and isinstance(db, Location):
        return _open_server(db, folder, read_only=read_only, wait_s=wait_s, later=later, tuning=tuning)
    storage = open_direct(db, read_only=read_only, wait_s=wait_s, later=later, tuning=tuning)
    journals = storage.capabilities().journals
    if journals is None:
        return cast(SeesJournals, storage)
    return see_journals(journals, read_only=read_only, tuning=tuning)


def is_missing(location: Location) -> bool:
    """Return whether a location is a file that does not exist and could be created: no file and no journal folder."""
    path = location.path
    if path is None or disk.exists(path) or disk.exists(folder_of(path)):
        return False
    # If the file cannot be created, opening raises an error with the reason.
    return disk.access(path.parent.parent if path.parent.name == files.OWN_FOLDER else path.parent, os.W_OK)


def _open_server(
    location: Location, folder: Path, *, read_only: bool, wait_s: float, later: bool, tuning: Tuning
) -> SeesJournals:
    """Return the storage of a server whose reads include the journals on this host."""
    if read_only:
        look = _seen(folder, partial(_writable, location, tuning), tuning)
        look()  # first: opening read-only would fail on a storage whose first rows are still in the journals
        storage = open_direct(location, read_only=True, wait_s=wait_s, tuning=tuning)
    else:
        storage = open_direct(location, wait_s=wait_s, later=later, tuning=tuning)
        look = _seen(folder, lambda: nullcontext(storage), tuning)
    if not isinstance(storage, OpenedLater) and storage.capabilities().location is None:
        return cast(SeesJournals, storage)  # no other process could recover the journals of this one
    return cast(SeesJournals, Spooled(storage, location, folder, look))


def see_journals(storage: BesideJournals, *, read_only: bool, tuning: Tuning = STANDARD) -> SeesJournals:
    """Return a storage whose reads include records in journals.

    A read-only storage also adopts the journals of dead programs if its file is writable: their records are a part of
    the recording that is not in the file yet.
    """
    lend: Callable[[], AbstractContextManager[Storage]] = partial(_writable, file(storage.path), tuning)
    look = _seen(folder_of(storage.path), lend if read_only else lambda: nullcontext(storage.direct), tuning)
    return cast(SeesJournals, storage.seeing(look))


def without_adoption(storage: Storage) -> Storage:
    """Return a storage whose reads drain the journals of this process only.

    For a program that adopts the journals of dead programs in a thread (see adoption_beside), because adopting may take
    seconds.
    """
    can = storage.capabilities()
    if can.spool is not None:
        return can.spool.seeing(partial(spool.drain, can.spool.folder), spool.journals)
    journals = can.journals
    plain = None if journals is None else journals.direct.capabilities().journals
    return storage if plain is None else plain.seeing(partial(spool.drain, folder_of(plain.path)), spool.journals)


def adoption_beside(storage: Storage, tuning: Tuning = STANDARD) -> "Adoption | None":
    """Return the Adoption for the journals in front of a storage; None if it can have no journals."""
    can = storage.capabilities()
    if can.spool is not None:
        folder, location = can.spool.folder, can.spool.location
    elif can.journals is not None:
        folder, location = folder_of(can.journals.path), file(can.journals.path)
    else:
        return None
    if not is_possible():
        return None
    with host.importing:
        from agentspan.journal.adopting import Adoption

    return Adoption(partial(_writable, location, tuning), folder, tuning=tuning)


@contextmanager
def _writable(location: Location, tuning: Tuning) -> Iterator[Storage]:
    storage = open_direct(location, tuning=tuning)
    try:
        yield storage
    finally:
        storage.close()


def _seen(folder: Path, lend: Callable[[], AbstractContextManager[Storage]], tuning: Tuning) -> Callable[[], None]:
    if not is_possible():
        return lambda: spool.drain(folder)
    adoption: Adoption | None = None
    next_s = 0.0

    def see() -> None:
        nonlocal adoption, next_s
        if spool.journals:
            spool.drain(folder)
        if adoption is None and (now := disk.monotonic()) >= next_s:
            next_s = now + spool.LOOK_EVERY_S
            adoption = made() if disk.lexists(folder) else None
        if adoption is not None:
            adoption.see()

    def made() -> "Adoption":
        with host.importing:
            from agentspan.journal.adopting import Adoption

        return Adoption(lend, folder, tuning=tuning)

    return see
