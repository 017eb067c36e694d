"""Files that this process has locked.

A lock (`flock`) ends with the process. A forked child shares it with its parent, so it closes its descriptors of such
files; unlocking them would unlock the parent's.
"""

import os
import threading
import time
import weakref

from agentspan import forks
from agentspan.forks import Hold

FORK_WAIT_S = 0.5
_changing: list[int] = []
"""The threads that open or close a descriptor now: a fork waits for them, or the child would have descriptors that it
knows nothing of, and keep a lock with them. Nobody waits for a fork: who is interrupted here may do anything."""


class Changing:
    """A block in which a descriptor is opened or closed."""

    def __enter__(self) -> None:
        _changing.append(threading.get_ident())

    def __exit__(self, *exc_info: object) -> None:
        _changing.remove(threading.get_ident())


class Locked:
    """A file whose lock this process holds, as long as it has it open."""

    _file = -1

    def let_go(self) -> None:
        """Close it, which releases the lock unless another process has it open as well."""
        with Changing():
            # At once: a fork may come all the same, and the number be somebody else's.
            file, self._file = self._file, -1
            if file >= 0:
                os.close(file)

    def leave(self) -> None:
        """Close what belongs to it. Twice is fine."""
        self.let_go()


held: "weakref.WeakSet[Locked]" = weakref.WeakSet()
"""The files that this process has locked, unless they were closed."""


def _wait_for_changes() -> None:
    """Wait for other threads that open or close a descriptor."""
    own, slept = threading.get_ident(), 0.0
    while slept < FORK_WAIT_S and any(thread != own for thread in list(_changing)):
        time.sleep(0.0005)
        slept += 0.0005


def _stop_waiting() -> None:
    """Do nothing: no thread was made to wait."""


def _leave_all() -> None:
    """In a forked child: close the files that the parent has locked. Else the lock would outlive the parent."""
    _changing.clear()
    for each in list(held):
        each.leave()


forks.hold(Hold.DESCRIPTORS, _wait_for_changes, _stop_waiting)
forks.forget(_leave_all)
