"""A storage that is opened when it is used first, so that making it waits for no server."""

import threading
import weakref
from collections.abc import Callable

from agentspan import forks
from agentspan.errors import DatabaseBusy, StorageError
from agentspan.forks import Renewal, page
from agentspan.locks import Occupied, within
from agentspan.storage.location import Location
from agentspan.storage.patience import Unconnected, may_connect
from agentspan.storage.protocol import Storage, Wrapper


class OpenedLater(Wrapper[Storage]):
    """A storage that its first use opens. Each call, capabilities() too, may wait for the server or raise StorageError.

    Args:
        location: of the storage, for messages.
        open: opens it; called again as long as it raises.
        wait_s: seconds to wait for another thread that opens it.
    """

    def __init__(self, location: Location, open: Callable[[], Storage], *, wait_s: float) -> None:
        self.location = location
        self._open = open
        self._wait_s = wait_s
        self._storage: Storage | None = None
        self._lock = threading.RLock()
        _all.add(self)
        self._closed = False

    @property
    def direct(self) -> Storage:
        """The storage, which is opened where it is not.

        Raises:
            StorageError: it cannot be opened now, or was closed.
        """
        if not page[0]:
            forks.renew()
        if self._closed:
            raise StorageError(f"{self.location} was closed here; open it again")
        if self._storage is None:
            if not may_connect():
                raise Unconnected(f"{self.location} is not open yet")
            try:
                with within(self._lock, self._wait_s):
                    if self._storage is None:
                        self._storage = self._open()
                        if self._closed:  # meanwhile, by another thread, which had nothing to close
                            self._storage.close()
            except Occupied:
                raise DatabaseBusy(f"another thread is opening {self.location}; try again") from None
        return self._storage

    def renew(self) -> None:
        """In a forked child: another thread of the parent may have held the lock."""
        self._lock = threading.RLock()

    def close(self) -> None:
        """Close the storage, if it was opened; it is not opened any more."""
        self._closed = True
        if self._storage is not None:
            self._storage.close()


_all: weakref.WeakSet[OpenedLater] = weakref.WeakSet()


def _renew_all() -> None:
    for late in forks.members(_all):
        late.renew()


forks.renewal(Renewal.LOCKS, _renew_all)
