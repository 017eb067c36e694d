"""Opens a storage by the name of its backend, the text before the colon of a location.

SQLite, memory and PostgreSQL are part of agentspan. Other backends are entry points of the group `agentspan.storages`:
a function of a Location, `read_only` and `wait_s` that returns a Storage. An entry point is loaded when its name is
used.
"""

import os
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from agentspan import host
from agentspan.errors import AgentspanError, DatabaseBusy, DatabaseUnusable, InvalidValue, StorageError
from agentspan.host import Occupied, Renewal, let_through, page, within
from agentspan.storage import location as locations
from agentspan.storage.access import Wrapper
from agentspan.storage.location import Location
from agentspan.storage.patience import ENDLESS, Patience, Unconnected, sharing, waiting
from agentspan.storage.protocol import Storage
from agentspan.tuning import STANDARD, Tuning

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints


class OpenedLater(Wrapper[Storage]):
    """A storage that is opened at its first use. Any call, even capabilities(), may wait for the server.

    Every call raises StorageError while the storage cannot be opened.

    Args:
        location: the location of the storage, for messages.
        open: opens the storage; called again at each use until it succeeds.
        wait_s: seconds to wait for another thread that is opening the storage.
    """

    __slots__ = ("_kept", "_patience")

    def __init__(self, location: Location, open: Callable[[], Storage], *, wait_s: float) -> None:
        self.location = location
        self._open = open
        self._wait_s = wait_s
        self._storage: Storage | None = None
        self._lock = threading.RLock()
        self._patience = ENDLESS
        _all.add(self)
        self._closed = False

    def waiting(self, patience: Patience) -> Storage:
        """Return the same storage for a caller with this patience. It is opened at its first use, too."""
        patience = patience.within(self._patience)
        if self._storage is not None:
            return waiting(self._storage, patience)
        return sharing(self, _patience=patience, _kept=self)  # a fork knows only the kept one

    @property
    def direct(self) -> Storage:
        """The wrapped storage, opened now if it is not open yet.

        Raises:
            StorageError: the storage cannot be opened now, or was closed.
        """
        if not page[0]:
            host.renew()
        if self._closed:
            raise StorageError(f"{self.location} was closed here; open it again")
        if self._storage is None:
            if not self._patience.may_connect:
                raise Unconnected(f"{self.location} is not open yet")
            try:
                with within(self._lock, self._wait_s):
                    if self._storage is None:
                        self._storage = self._open()
                        if self._closed:  # another thread called close() during open(), and had nothing to close
                            self._storage.close()
            except Occupied:
                raise DatabaseBusy(f"another thread is opening {self.location}; try again") from None
        return self._storage if self._patience is ENDLESS else waiting(self._storage, self._patience)

    def renew(self) -> None:
        """In a forked child: replace the lock, which another thread of the parent may have held."""
        self._lock = threading.RLock()

    def close(self) -> None:
        """Close the storage if it was opened. It cannot be opened again."""
        self._closed = True
        if self._storage is not None:
            self._storage.close()


_all: weakref.WeakSet[OpenedLater] = weakref.WeakSet()


def _renew_all() -> None:
    for late in host.members(_all):
        late.renew()


host.renewal(Renewal.LOCKS, _renew_all)


_tell: list[Callable[[], Location | Storage | None]] = []


def set_configured(tell: Callable[[], Location | Storage | None]) -> None:
    """Set the function that `configured` calls. `import agentspan` does this, in the module `recording.tracer`."""
    _tell[:] = [tell]


def configured() -> Location | Storage | None:
    """Return the location of the configured storage, the storage itself if it has no location, else None."""
    return _tell[0]() if _tell else None


def chosen(db: str | os.PathLike[str] | Location | Storage | None) -> tuple[Any, bool]:
    """Return the storage or location that a reader opens, and whether the reader must close it.

    `db` wins over the configured storage. A reader never closes a storage that this process records into.
    """
    if db is not None:
        return db, True
    own = configured()
    return own, own is None or isinstance(own, Location)


GROUP = "agentspan.storages"


Opener = Callable[..., Storage]
"""A function that opens a storage; an entry point of GROUP must name one. It is called with the Location, and with
`read_only` and `wait_s` by name. It creates the storage if it does not exist and `read_only` is False.

It raises DatabaseUnusable if the storage cannot be opened. The message contains the reason and a remedy, no password.
"""


def open_direct(
    db: str | os.PathLike[str] | Location | Storage | None,
    *,
    read_only: bool = False,
    wait_s: float = 10.0,
    later: bool = False,
    tuning: Tuning = STANDARD,
) -> Storage:
    """Return the storage at `db`. Its reads do not drain journals; `journal.opening` opens storages whose reads do.

    Args:
        db: a path, URL or Location; None for the default location (see location_of). A Storage is returned unchanged.
        read_only: never write.
        wait_s: how many seconds opening may wait for other processes.
        later: if a file cannot be opened now, but perhaps later (another process locks it, its disk is full), return a
            storage that is opened at its first use. A server is always connected at the first use then.
        tuning: sizes and times, for tests; see agentspan/tuning.py. Backends from entry points do not receive it.

    Raises:
        InvalidValue: `db` names no storage, or an unknown backend.
        DatabaseUnusable: the storage cannot be opened.
    """
    if db is not None and not isinstance(db, (str, os.PathLike, Location)):
        if not hasattr(db, "apply"):
            raise InvalidValue("db", f"must be a path, a URL or a Storage, not a value of type {type(db).__name__}")
        return db
    location = location_of(db)
    if location.scheme in _LOCAL:
        return _LOCAL[location.scheme](location, read_only=read_only, wait_s=wait_s, later=later, tuning=tuning)
    is_postgres = location.scheme in _POSTGRES
    if later and is_postgres:
        _check_postgres(location)
        open_now = partial(open_direct, location, read_only=read_only, wait_s=wait_s, tuning=tuning)
        return OpenedLater(location, open_now, wait_s=wait_s)
    opener = partial(_open_postgres, tuning=tuning) if is_postgres else _installed_opener(location)
    try:
        return opener(location, read_only=read_only, wait_s=wait_s)
    except AgentspanError as error:
        if location.hidden_in(str(error)) == str(error):
            raise
        problem = str(error)
    except Exception as error:
        let_through(error)
        problem = f"{type(error).__name__}: {error}"
    raise DatabaseUnusable(f"{location} cannot be opened: {location.hidden_in(problem)}") from None


def location_of(db: str | os.PathLike[str] | Location | None) -> Location:
    """Return the location that `db` names. For None, it is the location in AGENTSPAN_DB, else ./agentspan.db.

    Raises:
        InvalidValue: `db` is empty, or names an unknown backend.
    """
    location = locations.default() if db is None else db if isinstance(db, Location) else locations.parse(db)
    if location.scheme not in {*_LOCAL, *_POSTGRES} and not _entries(location.scheme):
        raise InvalidValue(
            "db",
            f"there is no storage called {location.scheme!r}; known are {', '.join(known())}. A file whose name has a "
            f"colon is written with a folder: ./NAME",
        )
    return location


def known() -> list[str]:
    """Return the names of all installed backends, in alphabetical order."""
    return sorted({*_LOCAL, *_POSTGRES, *(entry.name for entry in _installed())})


def _installed_opener(location: Location) -> Opener:
    entry = next(iter(_entries(location.scheme)))
    try:
        with host.importing:
            opener: Opener = entry.load()
    except Exception as error:
        let_through(error)
        raise DatabaseUnusable(
            f"the storage {location.scheme!r} cannot be loaded from {entry.value}: {error}"
        ) from error
    return opener


def _entries(name: str) -> "list[EntryPoint]":
    return [entry for entry in _installed() if entry.name == name]


def _installed() -> "EntryPoints":
    with host.importing:  # imported late: it takes 10 ms, and the path of a file does not need it
        from importlib.metadata import entry_points

    return entry_points(group=GROUP)


def _open_sqlite(location: Location, *, read_only: bool, wait_s: float, later: bool, tuning: Tuning) -> Storage:
    with host.importing:
        from agentspan.storage.sqlite import SQLiteStorage

    return SQLiteStorage(location.text, read_only=read_only, wait_s=wait_s, later=later, tuning=tuning)


def _open_memory(location: Location, *, read_only: bool, wait_s: float, later: bool, tuning: Tuning) -> Storage:
    with host.importing:
        from agentspan.storage.memory import MemoryStorage

    if read_only:
        raise InvalidValue("read_only", "a new database in memory has nothing to read")
    return MemoryStorage(tuning=tuning)


def _open_postgres(location: Location, *, read_only: bool, wait_s: float, tuning: Tuning) -> Storage:
    with host.importing:
        from agentspan.storage.postgres import open_postgres

    return open_postgres(location, read_only=read_only, wait_s=wait_s, tuning=tuning)


def _check_postgres(location: Location) -> None:
    """Check a location without a connection; raise InvalidValue or DatabaseUnusable for errors that stay."""
    with host.importing:
        from agentspan.storage.postgres import check

    check(location)


_LOCAL: dict[str, Opener] = {"memory": _open_memory, locations.SQLITE: _open_sqlite}
_POSTGRES = ("postgresql", "postgres")
