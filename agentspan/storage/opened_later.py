"""A storage that is opened when it is used first, so that making it waits for no server."""

import threading
import weakref
from collections.abc import Callable, Sequence
from typing import TypeVar

from agentspan import forks
from agentspan.errors import DatabaseBusy, StorageError
from agentspan.forks import Renewal, page
from agentspan.locks import Occupied, within
from agentspan.model.changes import Outcome, Unit
from agentspan.storage.location import Location
from agentspan.storage.patience import Unconnected, may_connect
from agentspan.storage.protocol import Capabilities, Storage
from agentspan.storage.questions import Question

T = TypeVar("T")


class OpenedLater:
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

    def opened(self) -> Storage:
        """Return the storage.

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

    def capabilities(self) -> Capabilities:
        """Return those of the storage, which is opened for it."""
        return self.opened().capabilities()

    def ask(self, question: Question[T]) -> T:
        """Pass the question on."""
        return self.opened().ask(question)

    def apply(self, units: Sequence[Unit], *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> list[Outcome]:
        """Pass the units on."""
        return self.opened().apply(units, stop_at_refusal=stop_at_refusal, wait_s=wait_s)

    def group(self, work: Callable[[Storage], T], wait_s: float) -> T:
        """Pass the work on."""
        return self.opened().group(work, wait_s)

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
