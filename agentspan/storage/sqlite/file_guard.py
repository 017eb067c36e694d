"""Goes on with the file that has the path, also after a fork; uses one that another program changed only if sound."""

import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from agentspan import forks
from agentspan.errors import StorageError
from agentspan.forks import Hold, Renewal
from agentspan.interrupts import guard
from agentspan.locks import is_mine
from agentspan.storage.protocol import NotTrustedYet
from agentspan.storage.sqlite import file_watch, mending
from agentspan.storage.sqlite.file_watch import Change, Inode, Watch, close_deleted

if TYPE_CHECKING:
    from agentspan.storage.sqlite.connections import Connections


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


_all: weakref.WeakSet["Connections"] = weakref.WeakSet()
_inherited: list[object] = []
"""Connections of the parent, kept so that nothing closes them."""


def enrol(connections: "Connections") -> None:
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


_forking: list["Connections"] = []


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


log = logging.getLogger("agentspan")

MEND_EVERY_S = 1.0
"""Time between two attempts to put a sound file in the place of one that was changed."""
DOUBT_S = 0.75
"""Time after which a file that was overwritten, and found sound, is looked through again. Meanwhile another program may
have written to it what it had in its cache; a program looks for the file every 0.25 s."""


class _Wrong(NamedTuple):
    """A file that is used no more until it is found sound, or a sound one is at its path.

    Attributes:
        change: what was changed.
        own: a connection that sees all of it, where its log was deleted.
        watch: of the file.
        try_at: when to try again to mend it.
    """

    change: Change
    own: sqlite3.Connection | None
    watch: Watch
    try_at: float = 0.0


class FileGuard:
    """Watches the file of some connections. Their owner holds its lock in each call.

    Args:
        connect: opens a connection to the file with an inode, or to the one that is open.
        take_out: takes all connections from their owner; the writer is the first one, where there is one.

    Attributes:
        watch: of the file that is open.
        waits: whether callers wait while a file is looked through or copied, which may take seconds. Where they do not,
            the checkpoints' thread does it.
        files: the number of files that were seen at the path; see BesideJournals.
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
        """Let this thread wait for what takes long, whatever others do."""
        patient = self._patient
        patient.waits = True
        try:
            yield
        finally:
            patient.waits = False

    @property
    def is_wrong(self) -> bool:
        """True if the file is not used at present."""
        return self._wrong is not None

    def confirm(self) -> None:
        """Look once more through a file that was overwritten and found sound, when it is time.

        Raises:
            NotTrustedYet: it is too early.
            StorageError: it is not sound any more.
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
        """Watch the file that a first connection has opened; its log is marked as that of this file."""
        self.watch.begin(file)
        file_watch.mark(self.path, file, self.watch.log)

    def distrust(self, file: Inode) -> None:
        """Use a file no more until it is mended: it may have been read with the log of another one."""
        if self._wrong is None:
            watch = Watch(self.path)
            watch.begin(file)
            self._wrong = _Wrong("content", None, watch)

    def follow(self) -> bool:
        """Go on with the file that has the path, if it is another one; return whether that is so.

        Raises:
            StorageError: something else than SQLite has changed the file.
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
            self.close()  # what they have in their caches may be of before
            return False
        self.break_with(change)
        raise StorageError(self._why())

    def break_with(self, change: Change) -> None:
        """Use the file no more until it is found sound, or a sound one is at the path."""
        watch, opened = self.watch, self.end()
        own = opened.pop(0) if opened and change == "log" else None
        self._wrong = _Wrong(change, own, watch)
        self.files += 1
        mending.abandon(opened)

    def mend(self) -> None:
        """Put a sound file at the path, where the one that is there is wrong.

        Raises:
            StorageError: that is not possible now.
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
        """Return what was done, empty where nothing was to be done; None if it is wrong still."""
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
        """Close all connections; or give them up, if the file is not as it was, after a last attempt to mend it."""
        if self._wrong is None and self.watch.changed() is None:
            self.close()
            return
        with self.patience(), suppress(StorageError):
            self.follow()
        if self._wrong is not None:
            if self._wrong.try_at:
                self._wrong = self._wrong._replace(try_at=1.0)  # perhaps the last chance to keep what only they see
            with self.patience(), suppress(StorageError):
                self.mend()
        self.abandon()

    def take_own(self) -> sqlite3.Connection | None:
        """Return the connection that sees all of a file whose log was deleted, and forget it."""
        wrong = self._wrong
        if wrong is None:
            return None
        self._wrong = wrong._replace(own=None)
        return wrong.own

    def end(self) -> list[sqlite3.Connection]:
        """Watch nothing until a connection is opened; return those that were open."""
        opened = self._take_out()
        self.watch = Watch(self.path)
        return opened

    def close(self) -> None:
        """Close all connections: SQLite copies the log into the file, and deletes it, unless others have it open."""
        for each in self.end():
            with suppress(sqlite3.Error):  # the disk is full: the log keeps what it has
                each.close()
        close_deleted()

    def abandon(self) -> None:
        """Give up all connections: the path has another file now, or this one is not as it was."""
        self.files += 1
        mending.abandon(self.end())

    @contextmanager
    def fresh(self, file: Inode | None = None) -> Iterator[sqlite3.Connection]:
        """Lend a connection that has nothing in its cache, to the file that is open, or to one with an inode."""
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
        self.files += 1  # perhaps it is the same file, but the latest commits may be missing in it
        log.info("something else has written to %s while it was open; it is sound, and used as it is", self.path)

    def _why(self) -> str:
        what = "left without its log" if self._wrong is not None and self._wrong.change == "log" else "overwritten"
        return (
            f"{self.path} was {what} while it was open; what is recorded waits until a sound file is there: rename one "
            f"over it (cp BACKUP {self.path}.new && mv {self.path}.new {self.path})"
        )
