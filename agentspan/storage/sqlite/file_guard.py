"""Guards an open file: follows the path to a new file, checks or repairs a changed file, and makes forks safe."""

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from agentspan import host
from agentspan.errors import StorageError
from agentspan.host import Hold, Renewal, guard, is_mine, log
from agentspan.storage.protocol import NotTrustedYet
from agentspan.storage.sqlite import file_watch, mending
from agentspan.storage.sqlite.file_watch import Change, Inode, Watch, close_deleted


class Gate:
    """Tracks the threads that read. Before a fork the gate is shut: no thread enters, and the readers inside leave."""

    def __init__(self) -> None:
        self._entrance = threading.RLock()  # reentrant: a signal handler may read while its own thread is in here
        self._inside: dict[int, tuple[weakref.ref[Inside], int]] = {}
        """Each with-block inside, with its thread. If a signal handler raises at the start of `__exit__`, the entry
        stays, but its weak reference is dead and does not count. A counter would stay too high, and a `__del__` would
        swallow exceptions of signal handlers."""
        self._shut = False

    def inside(self) -> "Inside":
        """Return a with-block that a fork waits for."""
        return Inside(self)

    def shut(self, wait_s: float) -> None:
        """Block new readers, and wait at most `wait_s` seconds until the readers of other threads have left."""
        if not is_mine(self._entrance):
            self._shut = True  # first: a thread that is interrupted right after `acquire` still releases the lock
            self._entrance.acquire(timeout=wait_s)
        slept = 0.0
        while slept < wait_s and self.has_others():
            time.sleep(0.0005)
            slept += 0.0005

    def has_others(self) -> bool:
        """Return whether other threads are inside the gate."""
        own = threading.get_ident()
        return any(thread != own and block() is not None for block, thread in list(self._inside.values()))

    def open(self) -> None:
        """Allow new readers again, after `shut`."""
        if self._shut:
            if is_mine(self._entrance):
                self._entrance.release()
            self._shut = False


class Inside:
    """A with-block of one thread. A fork waits until the thread has left it."""

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
        """Leave the gate, so that forks no longer wait for this block. Leaving twice is fine."""
        self._gate._inside.pop(id(self), None)


_SHARED_START, _SHARED_LENGTH, _SHM_IS_USED = 0x40000002, 510, 128
"""The bytes that SQLite locks in an open database file and in its `-shm` file (os_unix.c)."""


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
"""Connections that a forked child inherited. This reference keeps them from being closed."""


def enrol(connections: Held) -> None:
    """Register connections, so that each fork waits for them as long as they exist."""
    _all.add(connections)


def keep_open(path: Path, file: tuple[int, int] | None, opened: object) -> None:
    """Keep inherited connections open for ever, because closing them would drop locks on the file.

    Args:
        file: device and inode of the file that the connections had opened; None to take no lock.
        opened: the inherited connections.
    """
    _inherited.append(opened)
    if file is not None:
        _lock_again(path, file)


def _lock_again(path: Path, file: tuple[int, int]) -> None:
    """Take again the locks that SQLite in a forked child believes to have on a file with inherited connections.

    SQLite counts its locks per process. The child inherits the count without the locks. Without them, another process
    that opens the file would consider itself the only one, and restart the log that the child's connections use.
    """
    import fcntl  # a system without fcntl has no forks

    for name, start, length in ((path, _SHARED_START, _SHARED_LENGTH), (f"{path}-shm", _SHM_IS_USED, 1)):
        with suppress(OSError):
            if name == path and file != (os.stat(path).st_dev, os.stat(path).st_ino):
                return  # the path has another file now, on which SQLite has no locks
            # Never closed: a process that closes a file loses all the locks that it has on it.
            opened = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.lockf(opened, fcntl.LOCK_SH | fcntl.LOCK_NB, length, start)


_forking: list[Held] = []


def _hold_all() -> None:
    """Before a fork: wait until no other thread is inside SQLite. A child that inherits a locked mutex would hang."""
    for interrupted in list(_forking):
        interrupted.hold()
    while fresh := [each for each in host.members(_all) if each not in _forking]:  # new ones may appear
        for connections in fresh:
            _forking.append(connections)
            connections.hold()


def _let_go_of_all() -> None:
    while _forking:
        _forking[-1].let_go()
        _forking.pop()


def _leave_all_behind() -> None:
    _forking.clear()
    if any(connections.is_in_use() for connections in host.members(_all)):
        host.cut_off()
    for connections in host.members(_all):
        connections.leave_behind()


def _renew_all() -> None:
    for connections in host.members(_all):
        connections.renew()


host.hold(Hold.SQLITE, _hold_all, _let_go_of_all)
host.forget(_leave_all_behind)
host.renewal(Renewal.LOCKS, _renew_all)


MEND_EVERY_S = 1.0
"""The time between two attempts to repair a file that another program changed."""
DOUBT_S = 0.75
"""The time after which a file that was overwritten and found sound is checked again. Until then, another program may
still write pages from its cache to it, because a program checks the file every 0.25 s only."""


class _Wrong(NamedTuple):
    """A changed file, which is not used until it is found sound or a sound file is at its path.

    Attributes:
        change: the kind of the change.
        own: if the log was deleted: a connection from before, which still reads all rows.
        watch: the watch of the file.
        try_at: the monotonic time of the next attempt to repair it.
    """

    change: Change
    own: sqlite3.Connection | None
    watch: Watch
    try_at: float = 0.0


class FileGuard:
    """Watches the file of a Connections object, which must hold its lock during each call.

    Args:
        connect: opens a connection to the file with an inode; for None, to the file that is open.
        take_out: removes all connections from their owner and returns them. The writer is the first, if there is one.

    Attributes:
        watch: the watch of the open file.
        waits: whether callers wait while a file is checked or copied, which may take seconds. If False, the checkpoint
            thread does this work.
        files: the number of files that were opened at the path (see BesideJournals).
    """

    def __init__(
        self,
        path: Path,
        *,
        read_only: bool,
        connect: Callable[[Inode | None], sqlite3.Connection],
        take_out: Callable[[], list[sqlite3.Connection]],
    ) -> None:
        self.path = path
        self.watch = Watch(path)
        self.files = 1
        self.waits = True
        self._read_only = read_only
        self._connect = connect
        self._take_out = take_out
        self._wrong: _Wrong | None = None
        self._accepted_at: float | None = None
        self._patient = threading.local()

    @contextmanager
    def patience(self) -> Iterator[None]:
        """Within the block, let this thread check and copy files, even if `waits` is False."""
        patient = self._patient
        patient.waits = True
        try:
            yield
        finally:
            patient.waits = False

    @property
    def is_wrong(self) -> bool:
        """True if another program changed the file, and it is not used at present."""
        return self._wrong is not None

    def confirm(self) -> None:
        """Check a file for the second time, DOUBT_S after it was overwritten and found sound.

        Raises:
            NotTrustedYet: it is too early for the second check.
            StorageError: the file is not sound any more.
        """
        if self._accepted_at is None:
            return
        if time.monotonic() < self._accepted_at + DOUBT_S:
            raise NotTrustedYet(
                f"{self.path} was overwritten a moment ago; it is looked through again before it is trusted"
            )
        self._accepted_at = None
        if self._wrong is None and self.watch.file is not None and not self._is_sound(self.watch):
            self.break_with("content")
            raise StorageError(self._why())

    def opened(self, file: Inode) -> None:
        """Watch the file that the first connection has opened, and mark its log as belonging to this file."""
        self.watch.begin(file)
        file_watch.mark(self.path, file, self.watch.log)

    def distrust(self, file: Inode) -> None:
        """Stop using a file until it is checked or repaired: it may have been read with the log of another file."""
        if self._wrong is None:
            watch = Watch(self.path)
            watch.begin(file)
            self._wrong = _Wrong("content", None, watch)

    def follow(self) -> bool:
        """Drop all connections if the path has another file now, and return whether it has.

        Raises:
            StorageError: something other than SQLite has changed the file, and it is not known to be sound.
        """
        change = self.watch.changed()
        if change is None:
            return False
        if change == "replaced":
            self.abandon()
            return True
        if change == "content" and self.watch.is_empty:
            change = "log"
        if change == "content" and self._may_wait and self._is_sound(self.watch):
            self._accept()
            self.close()  # their caches may have pages of the old content
            return False
        self.break_with(change)
        raise StorageError(self._why())

    def break_with(self, change: Change) -> None:
        """Stop using the file until it is found sound, or a sound file is at the path."""
        watch, opened = self.watch, self.end()
        own = opened.pop(0) if opened and change == "log" else None
        self._wrong = _Wrong(change, own, watch)
        self.files += 1
        mending.abandon(opened)

    def mend(self) -> None:
        """Repair the file if it is marked as wrong: check it again, or replace it by a sound copy.

        Raises:
            StorageError: the file cannot be repaired now.
        """
        wrong = self._wrong
        if wrong is None:
            return
        done = self._mended(wrong)
        if done is None:
            raise StorageError(self._why())
        if wrong.own is not None:
            mending.abandon([wrong.own])
        self._wrong = None
        if done:
            log.warning("%s, after it was changed while it was open; recording goes on in it", done)

    def _mended(self, wrong: _Wrong) -> str | None:
        """Return a sentence about the repair, "" if none was needed, or None if the file is still wrong."""
        if wrong.watch.is_replaced():
            return f"{self.path} was replaced"
        now = time.monotonic()
        if now < wrong.try_at or not self._may_wait:
            return None
        self._wrong = wrong._replace(try_at=now + MEND_EVERY_S)
        if wrong.change == "content" and wrong.watch.is_whole() and self._is_sound(wrong.watch):
            self._accept()
            return ""
        if self._read_only:
            return None
        with guard(OSError, StorageError):
            return mending.mend(self.path, wrong.watch, wrong.change, wrong.own, is_first=not wrong.try_at)
        return None

    def leave(self) -> None:
        """Close all connections. If the file was changed, try to repair it, and drop them without a checkpoint."""
        if self._wrong is None and self.watch.changed() is None:
            self.close()
            return
        with self.patience(), suppress(StorageError):
            self.follow()
        if self._wrong is not None:
            if self._wrong.try_at:
                self._wrong = self._wrong._replace(try_at=1.0)  # now: a last chance to save the rows of `own`
            with self.patience(), suppress(StorageError):
                self.mend()
        self.abandon()

    def take_own(self) -> sqlite3.Connection | None:
        """Return the connection that still reads all rows of a file whose log was deleted, and drop it here."""
        wrong = self._wrong
        if wrong is None:
            return None
        self._wrong = wrong._replace(own=None)
        return wrong.own

    def end(self) -> list[sqlite3.Connection]:
        """Stop watching the file, and return the connections that were open. The next one that opens starts anew."""
        opened = self._take_out()
        self.watch = Watch(self.path)
        return opened

    def close(self) -> None:
        """Close all connections. SQLite copies the log into the file, and deletes it unless another process uses it."""
        for each in self.end():
            with suppress(sqlite3.Error):  # a full disk: the commits stay in the log
                each.close()
        close_deleted()

    def abandon(self) -> None:
        """Drop all connections without a checkpoint, because the file was replaced or changed."""
        self.files += 1
        mending.abandon(self.end())

    @contextmanager
    def fresh(self, file: Inode | None = None) -> Iterator[sqlite3.Connection]:
        """Lend a new connection with an empty cache, to the open file or to the file with an inode."""
        connection = self._connect(file)
        try:
            yield connection
        finally:
            mending.close_one(connection)

    @property
    def _may_wait(self) -> bool:
        return self.waits or getattr(self._patient, "waits", False)

    def _is_sound(self, watch: Watch) -> bool:
        try:
            with self.fresh(watch.file) as connection:
                return mending.is_sound(connection)
        except sqlite3.Error:
            return False

    def _accept(self) -> None:
        self._accepted_at = time.monotonic()
        self.files += 1  # it counts as a new file: the latest commits may be missing in it
        log.info("something else has written to %s while it was open; it is sound, and used as it is", self.path)

    def _why(self) -> str:
        what = "left without its log" if self._wrong is not None and self._wrong.change == "log" else "overwritten"
        return (
            f"{self.path} was {what} while it was open; what is recorded waits until a sound file is there: rename one "
            f"over it (cp BACKUP {self.path}.new && mv {self.path}.new {self.path})"
        )
