"""Opens a storage whose reads drain and recover journals first: those of this process, and those of dead programs."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, cast

from agentspan import forks
from agentspan.journal import own_journals
from agentspan.journal.journal_folder import folder_of, is_possible
from agentspan.storage.location import Location, file
from agentspan.storage.protocol import BesideJournals, Storage
from agentspan.storage.registry import open_direct

if TYPE_CHECKING:
    from agentspan.recovery.adopting import Adoption


class SeesJournals(Storage, Protocol):
    """A storage whose reads include records in journals; any storage if there can be no journals.

    For all readers. Recording and recovery commit what journals hold, so they take the plain storage:
    `capabilities().journals.direct`. A type of its own, so that a type checker tells the two apart.
    """

    if TYPE_CHECKING:

        @property
        def sees_journals(self) -> Literal[True]:
            """No storage has it: only this module returns this type, by a cast (NewType takes no protocol)."""


def open_storage(
    db: str | os.PathLike[str] | Location | Storage | None,
    *,
    read_only: bool = False,
    wait_s: float = 10.0,
    later: bool = False,
) -> SeesJournals:
    """Open the storage that `db` names (see open_direct), for reading. Closing it closes the plain one, too."""
    storage = open_direct(db, read_only=read_only, wait_s=wait_s, later=later)
    journals = storage.capabilities().journals
    return cast(SeesJournals, storage) if journals is None else see_journals(journals, read_only=read_only)


def see_journals(storage: BesideJournals, *, read_only: bool) -> SeesJournals:
    """Return a storage whose reads include records in journals.

    A read-only storage also adopts the journals of dead programs, if its file is writable: they are a part of the
    recording that is not in the file yet.
    """
    return cast(SeesJournals, storage.seeing(_seen(storage, read_only=read_only)))


def without_adoption(storage: Storage) -> Storage:
    """Return a storage whose reads drain the journals of this process only.

    For a program that adopts those of dead programs in a thread (see adoption_beside), because that may take seconds.
    """
    journals = storage.capabilities().journals
    plain = None if journals is None else journals.direct.capabilities().journals
    return storage if plain is None else plain.seeing(partial(own_journals.drain, folder_of(plain.path)))


def adoption_beside(storage: Storage) -> "Adoption | None":
    """Return the Adoption for the journals beside a storage; None if there can be none."""
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
