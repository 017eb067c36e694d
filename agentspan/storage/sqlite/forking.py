"""Connections around a fork: closed before it in the parent, never closed in the child that inherits one open.

A fork must not happen while another thread is inside SQLite, so the threads that read from a file now are counted.
"""

import os
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from agentspan import forks
from agentspan.forks import Hold, Renewal
from agentspan.locks import is_mine


class Gate:
    """Tracks the threads that read. A fork shuts it: it waits until none reads, and no thread enters meanwhile."""

    def __init__(self) -> None:
        self._entrance = threading.RLock()  # reentrant: a signal handler may read while its own thread is in here
        self._inside: dict[int, tuple[weakref.ref[Inside], int]] = {}
        """Each block and its thread. An exception at the start of its __exit__ leaves it here: dead, it does not count.
        A counter would stay too high; a __del__ would swallow what signal handlers raise in it."""
        self._shut = False

    def inside(self) -> "Inside":
        """Return a with-block that a fork waits for."""
        return Inside(self)

    def shut(self, wait_s: float) -> None:
        """Block new readers, and wait for those of other threads to leave."""
        if not is_mine(self._entrance):
            self._shut = True  # first: a thread interrupted right after acquiring it still opens it
            self._entrance.acquire(timeout=wait_s)
        slept = 0.0
        while slept < wait_s and self.has_others():
            time.sleep(0.0005)
            slept += 0.0005

    def has_others(self) -> bool:
        """Return whether other threads are inside."""
        own = threading.get_ident()
        return any(thread != own and block() is not None for block, thread in list(self._inside.values()))

    def open(self) -> None:
        """Let readers in again."""
        if self._shut:
            if is_mine(self._entrance):
                self._entrance.release()
            self._shut = False


class Inside:
    """One block of one thread."""

    __slots__ = ("__weakref__", "_gate")

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def __enter__(self) -> None:
        try:
            with self._gate._entrance:
                self._gate._inside[id(self)] = weakref.ref(self), threading.get_ident()
        except BaseException:
            self.leave()
            raise

    def __exit__(self, *exc_info: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Let forks go on. Twice is fine."""
        self._gate._inside.pop(id(self), None)


_SHARED_START, _SHARED_LENGTH, _SHM_IS_USED = 0x40000002, 510, 128
"""The bytes of a file, and of the memory beside it, that SQLite locks while it has them open (os_unix.c)."""


class Held(Protocol):
    """The connections of one process to one file, as a fork treats them."""

    def hold(self) -> None:
        """Before a fork: wait until no other thread is inside SQLite, and close the connections."""
        ...

    def let_go(self) -> None:
        """In the parent after a fork: let other threads use the file again."""
        ...

    def is_in_use(self) -> bool:
        """In the child: return whether another thread of the parent was inside SQLite."""
        ...

    def leave_behind(self) -> None:
        """In the child: forget connections that are open, without closing them."""
        ...

    def renew(self) -> None:
        """In the child: make new locks."""
        ...


_all: weakref.WeakSet[Held] = weakref.WeakSet()
_inherited: list[object] = []
"""Connections of the parent, kept so that nothing closes them."""


def enrol(connections: Held) -> None:
    """Register connections, to be held before each fork for as long as they exist."""
    _all.add(connections)


def keep_open(path: Path, file: tuple[int, int] | None, opened: object) -> None:
    """Keep inherited connections from being closed, which would drop the locks of others on the file.

    Args:
        file: device and inode of the file that was opened.
    """
    _inherited.append(opened)
    if file is not None:
        _lock_again(path, file)


def _lock_again(path: Path, file: tuple[int, int]) -> None:
    """Take the locks that SQLite believes to have on a file whose connections were inherited open.

    It counts for the whole process, and a child has inherited its count without the locks: where nobody else has the
    file open, the next one who does would begin the log anew under the child's connections.
    """
    import fcntl  # there are no forks where there is none

    for name, start, length in ((path, _SHARED_START, _SHARED_LENGTH), (f"{path}-shm", _SHM_IS_USED, 1)):
        with suppress(OSError):
            if name == path and file != (os.stat(path).st_dev, os.stat(path).st_ino):
                return  # another one has taken its place, of which SQLite knows nothing
            # Never closed: a process that closes a file loses all the locks that it has on it.
            opened = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.lockf(opened, fcntl.LOCK_SH | fcntl.LOCK_NB, length, start)


_forking: list[Held] = []


def _hold_all() -> None:
    """Wait until no other thread is inside SQLite: the child would inherit its mutexes locked, and hang."""
    for interrupted in list(_forking):
        interrupted.hold()
    while fresh := [each for each in forks.members(_all) if each not in _forking]:  # some may be made meanwhile
        for connections in fresh:
            _forking.append(connections)
            connections.hold()


def _let_go_of_all() -> None:
    while _forking:
        _forking[-1].let_go()
        _forking.pop()


def _leave_all_behind() -> None:
    _forking.clear()
    if any(connections.is_in_use() for connections in forks.members(_all)):
        forks.cut_off()
    for connections in forks.members(_all):
        connections.leave_behind()


def _renew_all() -> None:
    for connections in forks.members(_all):
        connections.renew()


forks.hold(Hold.SQLITE, _hold_all, _let_go_of_all)
forks.forget(_leave_all_behind)
forks.renewal(Renewal.LOCKS, _renew_all)
