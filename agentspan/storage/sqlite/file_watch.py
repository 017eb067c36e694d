"""Detects that something other than SQLite changed a file, its log or its index, and puts a sound copy in the place.

The log (`-wal`) has the latest commits, and the index (`-shm`) has their places in the log. SQLite does not check
whether both still belong to the file at the path: it keeps using the files that it has open.

A copy over an open file (`cp`) changes neither its inode nor the caches of connections. But it changes the time of
modification, which otherwise only a checkpoint does, and the index records checkpoints.

A sound copy is renamed over the path, so it has another inode. A process that still has the old file and its log open
writes to files without a name, and cannot damage the copy. Only the index is deleted; the log is renamed.
"""

import os
import sqlite3
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Literal, NamedTuple

from agentspan import disk, files
from agentspan.errors import DatabaseBusy, DatabaseUnusable
from agentspan.host import guard, let_through
from agentspan.storage.sqlite.migrations import APPLICATION_ID

Change = Literal["replaced", "log", "content"]
"""`replaced`: the path has another file, or none. `log`: the log or the index was deleted or replaced. `content`:
something other than a checkpoint has written to the file."""
Inode = tuple[int, int]
"""The device and the number of an inode."""


class _Index(NamedTuple):
    """The state of the log according to the index: see "WAL-Index File Format" in SQLite's walformat.html.

    Attributes:
        salt: the salt of the log. It changes when SQLite restarts the log, after all of it was copied into the file.
        copied: the number of frames that checkpoints have copied into the file.
        to_copy: the number of frames that are copied after the checkpoint under way.
        frames: the number of committed frames.
        size: the size of the file with all committed frames, in bytes.
        log_size: the least size of the log with all committed frames, in bytes.
        page_size: the size of a page, in bytes.
    """

    salt: bytes
    copied: int
    to_copy: int
    frames: int
    size: int
    log_size: int
    page_size: int


class _Content(NamedTuple):
    """The properties of a file that change when something writes to it.

    Attributes:
        blocks: the number of disk blocks of the file; a file system may change it later.
    """

    size: int
    modified_ns: int
    blocks: int


class Watch:
    """Remembers the file, log and index that a connection has opened, and compares them with those at their paths.

    Attributes:
        file: the inode of the file; None while no file is open.
        log: the inode of the log; None if there is no log.
        log_path: the path of the log.
    """

    def __init__(self, path: Path) -> None:
        self._path = self.log_path = self._index_path = str(path)
        self.end()

    def end(self) -> None:
        """Stop watching, until the next `begin`."""
        self.file: Inode | None = None
        self.log: Inode | None = None
        self._index: Inode | None = None
        self._content: _Content | None = None
        self._before: _Index | None = None

    def begin(self, file: Inode) -> None:
        """Watch a file that a connection has read.

        Args:
            file: the inode that the file had before it was opened.
        """
        real = os.path.realpath(self._path)  # SQLite resolves links before it names the log and the index
        self.log_path, self._index_path = f"{real}-wal", f"{real}-shm"
        log, index = inode_of(self.log_path), inode_of(self._index_path)
        # The index is read before the file: then it shows a later checkpoint, if one changes the file in between.
        before = None if index is None else _read_index(self._index_path, index)
        found = files.stat_of(self._path)
        content = None if found is None else _content_of(found)
        # Together, and without a call: a watch that was begun in part would take its own log for another one.
        self.log, self._index, self._before, self._content, self.file = log, index, before, content, file

    def is_replaced(self) -> bool:
        """Return whether the path has another file, or none."""
        return self.file is not None and inode_of(self._path) != self.file

    def is_whole(self) -> bool:
        """Return whether the log and the index are still the opened ones, and the file is not empty."""
        same = inode_of(self.log_path) == self.log and inode_of(self._index_path) == self._index
        return same and not self.is_empty

    @property
    def is_empty(self) -> bool:
        """True if the file has no bytes. SQLite would delete the log of an empty file when it opens the file."""
        found = files.stat_of(self._path)
        return found is not None and not found.st_size

    def changed(self) -> Change | None:
        """Return the kind of change by something other than SQLite, or None if there was no such change (3 µs)."""
        if self.file is None:
            return None
        index = None if self._index is None else _read_index(self._index_path, self._index)  # first: see begin
        found = files.stat_of(self._path)
        if found is None or (found.st_dev, found.st_ino) != self.file:
            return "replaced"
        if self._index is None:
            return None
        if self._has_another_log(index) or inode_of(self._index_path) != self._index:
            return "log"
        return self._written(_content_of(found), index)

    def _has_another_log(self, index: _Index | None) -> bool:
        """Return whether the log at its path is not the opened one, or does not match the index.

        The log may have been deleted right after a connection had opened it, and another program may have created one.
        """
        if self.log is None:
            return index is not None and index.frames > 0
        found = files.stat_of(self.log_path)
        if found is None or (found.st_dev, found.st_ino) != self.log:
            return True
        if index is None or self._index is None or found.st_size >= index.log_size:
            return False
        again = _read_index(self._index_path, self._index)  # SQLite may have restarted the log meanwhile
        return again is not None and again.salt == index.salt and again.frames >= index.frames

    def _written(self, content: _Content, index: _Index | None) -> Change | None:
        """Return "content" if something other than a checkpoint has written to the file, else None.

        The write may have happened at the same time as a checkpoint.
        """
        had, before = self._content, self._before
        if index is None or had is None or before is None:
            return None
        if content[:2] != had[:2]:
            if self._index is None or _is_copying(index, self._index):
                return None
            lacks_page = self._lacks_page(index, before)
            again = _read_index(self._index_path, self._index)
            if again is None or again[:3] != index[:3]:  # a checkpoint is under way: the next check decides
                return None
            least = had.size if index.salt == before.salt else min(before.size, index.size)
            is_whole = 0 < index.frames == index.copied
            if (
                index[:3] == before[:3]
                or (content.size != index.size if is_whole else content.size < least)
                or (content.blocks < had.blocks and content.size >= had.size)
                or lacks_page
            ):
                return "content"
        self._content, self._before = content, index
        return None

    def _lacks_page(self, index: _Index, before: _Index) -> bool:
        """Return whether the file lacks a page of the latest commit that checkpoints have copied into it (20 µs).

        If it lacks the page, something was copied over the file right after a checkpoint.
        """
        size = _FRAME_HEAD + index.page_size
        with guard(OSError), disk.stream(self.log_path, "rb") as log:
            frame = _copied_frame(partial(_read_frame, log.fileno(), size), index, before)
            if len(frame) == size and self.file is not None:
                descriptor = _descriptor(self._path, self.file)
                if descriptor is not None:
                    place = (int.from_bytes(frame[:4], "big") - 1) * index.page_size
                    stored = disk.pread(descriptor, index.page_size, place)
                    return len(stored) == index.page_size and stored != frame[_FRAME_HEAD:]
        return False


def _copied_frame(read: Callable[..., bytes], index: _Index, before: _Index) -> bytes:
    """Return the latest frame whose page checkpoints have copied into the file, with its page; b"" if it is unknown.

    While a reader uses an earlier state, a checkpoint copies the commits up to that state, without the pages that
    commits of later have written again. If SQLite has begun the log anew, the frame is the last one in the rest of the
    log of before. Begun anew a second time, the log of between is unknown, and may have written the page again.
    """
    if index.copied:
        later = {read(number, length=4) for number in range(index.copied + 1, index.frames + 1)}
        frames = map(read, range(index.copied, 0, -1))
        return next((frame for frame in frames if frame[:4] not in later), b"")
    found = b""
    if _begun(index) == (_begun(before) + 1) % 2**32:
        for number in count(max(index.frames + 1, before.frames)):
            frame = read(number)
            if frame[8:16] != before.salt:
                break
            found = frame if frame[4:8] != bytes(4) else found  # the last of a commit
    return found


def _read_frame(log: int, size: int, number: int, length: int = 0) -> bytes:
    return disk.pread(log, length or size, _LOG_HEAD + (number - 1) * size)


def _begun(index: _Index) -> int:
    """Return a number that is 1 larger each time SQLite begins the log anew."""
    return int.from_bytes(index.salt[:4], "big")


def inode_of(path: str | os.PathLike[str]) -> Inode | None:
    """Return the inode at a path; None if there is no file."""
    found = files.stat_of(path)
    return None if found is None else (found.st_dev, found.st_ino)


def _content_of(found: os.stat_result) -> _Content:
    return _Content(found.st_size, found.st_mtime_ns, getattr(found, "st_blocks", 0))


_LOCK = struct.Struct("hhqqi4x")
_CHECKPOINT_LOCK = 121
"""The byte of the index that is locked during a checkpoint."""
_SIZES = struct.Struct("=HII")
"""The layout at byte 14: page size, number of committed frames, and number of pages of the file with these frames."""
_NUMBER = struct.Struct("=I")
_LOG_HEAD, _FRAME_HEAD = 32, 24
_opened: dict[Inode, int] = {}
"""Inode of an index or a file → descriptor. A process that closes a file loses all its locks on the file, even those of
SQLite. So a descriptor is closed only after its file was deleted, as SQLite does with an index that nobody uses."""


def close_deleted() -> None:
    """Close the descriptors of deleted indexes and files."""
    for inode, each in list(_opened.items()):
        if not disk.fstat(each).st_nlink and _opened.pop(inode, None) is not None:
            disk.close(each)


def _is_copying(index: _Index, inode: Inode) -> bool:
    """Return whether a checkpoint is under way, from the locks on the index.

    The index alone cannot distinguish this from a log that SQLite has recovered after a crash. If the system cannot
    read the locks, both count as a checkpoint.
    """
    if index.copied == index.to_copy:
        return False
    with guard(ImportError, AttributeError, OSError, KeyError):
        import fcntl

        wanted = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _CHECKPOINT_LOCK, 1, 0)
        found = disk.fcntl(_opened[inode], fcntl.F_OFD_GETLK, wanted)  # sees those of this process, too
        return bool(_LOCK.unpack(found)[0] != fcntl.F_UNLCK)
    return True


def _read_index(path: str, inode: Inode) -> _Index | None:
    with guard(OSError):
        descriptor = _descriptor(path, inode)
        data = b"" if descriptor is None else disk.pread(descriptor, 136, 0)
        return None if len(data) < 136 else _index_in(data)
    return None


def _descriptor(path: str, inode: Inode) -> int | None:
    """Return a descriptor of the file with an inode, which stays open; None if the path has another file."""
    if inode not in _opened:
        close_deleted()
        descriptor = disk.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        found = disk.fstat(descriptor)
        _opened[found.st_dev, found.st_ino] = descriptor
    return _opened.get(inode)


def _index_in(data: bytes) -> _Index:
    page_size, frames, pages = _SIZES.unpack_from(data, 14)
    (copied,), (to_copy,) = _NUMBER.unpack_from(data, 96), _NUMBER.unpack_from(data, 128)
    page_size = 65536 if page_size == 1 else page_size
    log_size = _LOG_HEAD + frames * (_FRAME_HEAD + page_size) if frames else 0
    return _Index(data[32:40], copied, to_copy, frames, pages * page_size, log_size, page_size)


_ATTRIBUTE = "user.agentspan.file"
WAIT_S = 5.0


def mark(path: Path, file: Inode, log: Inode | None) -> None:
    """Mark the log of an open file as belonging to this file, in an extended attribute, unless it has a mark.

    If the file system has no extended attributes, the log stays unmarked.
    """
    if log is None or not hasattr(os, "setxattr"):
        return
    path = Path(os.path.realpath(path))
    log_path = f"{path}-wal"
    with suppress(OSError):
        if _attribute(log_path) is None and inode_of(log_path) == log:
            name = _attribute(path)
            if name is None:
                name = os.urandom(8).hex()
                disk.setxattr(path, _ATTRIBUTE, name.encode())
            disk.setxattr(log_path, _ATTRIBUTE, _said(file, name, log).encode())


def is_of_another(path: Path) -> bool:
    """Return whether the log beside a file is marked as belonging to another file (3 µs)."""
    path = Path(os.path.realpath(path))
    log_path = f"{path}-wal"
    attribute = _attribute(log_path)
    if attribute is None:
        return False
    file, log = inode_of(path), inode_of(log_path)
    if file is None or log is None or not attribute.endswith(f" {log[0]}:{log[1]}"):
        return False
    return attribute != _said(file, _attribute(path) or "", log)


def set_aside_foreign(path: Path) -> str | None:
    """If the log beside a file belongs to another file, rename it and delete its index. Return its new name, or None.

    Raises:
        DatabaseBusy: another process held the folder's lock.
        DatabaseUnusable: the log cannot be renamed.
    """
    real = Path(os.path.realpath(path))
    if not is_of_another(real):
        return None
    with locked(real):
        return set_aside(real) if is_of_another(real) else None


def set_aside(path: Path) -> str | None:
    """Rename the log beside a file, and delete its index. Return the new name, or None if there is no log.

    The caller has locked the folder.

    Raises:
        DatabaseUnusable: the log cannot be renamed.
    """
    name = f"{path}-wal.old-{disk.time_ns():x}"
    try:
        with suppress(FileNotFoundError):  # first: a process that opens the file meanwhile finds the log and waits
            disk.unlink(f"{path}-shm")
        disk.rename(f"{path}-wal", name)
    except FileNotFoundError:
        return None
    except OSError as raised:
        raise DatabaseUnusable(
            f"{path}-wal is the log of another file that had this path before, and cannot be renamed "
            f"({raised.strerror}); move it away before {path} is opened"
        ) from raised
    return name


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock the folder of a file, so that only one process at a time repairs or renames its files.

    Raises:
        DatabaseBusy: another process held the lock for WAIT_S seconds.
    """
    try:
        import fcntl
    except ImportError:  # Windows, where an open file is not renamed anyway
        yield
        return
    descriptor = disk.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        until = disk.monotonic() + WAIT_S
        while True:
            try:
                disk.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as raised:
                let_through(raised)
                if disk.monotonic() > until:
                    raise DatabaseBusy(f"another process puts the files of {path} in order; try again") from raised
            disk.sleep(0.005)
        yield
    finally:
        disk.close(descriptor)


def _said(file: Inode, name: str, log: Inode) -> str:
    return f"{file[0]}:{file[1]} {name} {log[0]}:{log[1]}"


def _attribute(path: str | Path) -> str | None:
    with guard(OSError, AttributeError):  # none is set, or there are none
        return disk.getxattr(path, _ATTRIBUTE).decode("ascii", "replace")
    return None


QUIET_S = 0.5
"""The seconds for which the file must not have been written to: else a copy over it may be under way."""
_keeping: list[object] = []


def mend(
    path: Path, watch: Watch, change: Change, own: sqlite3.Connection | None, *, is_first: bool = False
) -> str | None:
    """Put a sound copy at a path, and return a sentence about it; None if there is no sound content to copy yet.

    If the log or index was deleted, the copy has all rows that `own` can read. If something was copied over the file,
    the repaired file has the copied content.

    Args:
        watch: the watch of the file; it shows whether another process has replaced the file already.
        own: a connection that was opened before the change.
        is_first: whether this is the first attempt. After a deleted log, another process may be able to read the lost
            rows; without a usable `own`, the first attempt gives up, so that the other process repairs the file.

    Raises:
        DatabaseBusy: another process is repairing the file.
        OSError: a file cannot be created or renamed.
    """
    real = Path(os.path.realpath(path))
    with locked(real):
        if watch.is_replaced():
            return f"{path} was replaced"
        before = disk.stat(real)
        with aside(real) as name:
            is_whole = change == "log" and own is not None and _copy(own, name)
            if not is_whole:
                if change == "log" and is_first:
                    return None
                if _is_sound_with_its_log(real):  # others may use it: a copy would lack their log
                    return f"{path} is sound"
                if 0 <= disk.time() - before.st_mtime < QUIET_S:
                    return None
                with closing(_alone(real)) as source:
                    if not _copy(source, name):
                        return None
            after = disk.stat(real)
            if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                return None
            disk.chmod(name, stat.S_IMODE(before.st_mode))
            with suppress(OSError, AttributeError):  # if root repairs the file of another user
                disk.chown(name, before.st_uid, before.st_gid)
            log = set_aside(real)
            disk.rename(name, real)
    kept = "" if log is None else f"; its log of before is {log} now"
    return f"{path} is a sound copy now{kept}"


def is_sound(connection: sqlite3.Connection) -> bool:
    """Return whether SQLite's integrity check finds no fault in a connection's database."""
    try:
        return [*connection.execute("pragma integrity_check(1)")] == [("ok",)]
    except sqlite3.Error:
        return False


def abandon(connections: list[sqlite3.Connection]) -> bool:
    """Drop connections to a file that is not at its path any more; return whether they could be closed.

    A normal close of the last connection copies the log into the file, and deletes the file at the log's path, which
    may belong to another file. Before Python 3.12 this cannot be turned off, so the connections stay open until the
    process ends.
    """
    forbid = getattr(sqlite3, "SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE", None)
    if forbid is None:
        for each in connections:
            _keep_for_ever(each)
        return False
    for each in connections:
        close_one(each)
    return True


def close_one(connection: sqlite3.Connection) -> None:
    """Close a connection to a file that may not be at its path any more, without a checkpoint.

    Before Python 3.12 the checkpoint cannot be turned off. It does not happen then, because `abandon` keeps other
    connections open, so that this is not the last one.
    """
    forbid = getattr(sqlite3, "SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE", None)
    with suppress(sqlite3.Error):
        if forbid is not None:
            connection.setconfig(forbid, True)  # type: ignore[attr-defined]
        connection.close()


def _keep_for_ever(connection: sqlite3.Connection) -> None:
    """Keep a connection from being freed, even when the interpreter ends and frees the variables of modules."""
    _keeping.append(connection)
    with suppress(ImportError, AttributeError):  # not CPython, or built without it
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _alone(path: Path) -> sqlite3.Connection:
    """Return a read-only connection to a file that ignores the log beside it."""
    return sqlite3.connect(path.as_uri() + "?mode=ro&immutable=1", uri=True, isolation_level=None)


def _is_sound_with_its_log(path: Path) -> bool:
    if not disk.stat(path).st_size:  # SQLite deletes the log of an empty file
        return False
    try:
        with closing(sqlite3.connect(path.as_uri() + "?mode=ro", uri=True, isolation_level=None)) as connection:
            return _is_ours(connection) and is_sound(connection)  # read-only: no checkpoint
    except sqlite3.Error:
        return False


def _is_ours(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("pragma application_id").fetchone()[0] == APPLICATION_ID)


def _copy(source: sqlite3.Connection, name: str) -> bool:
    """Copy a connection's database to a file; return whether the copy is sound, and agentspan's or empty."""
    try:
        with closing(sqlite3.connect(name, isolation_level=None)) as target:
            source.backup(target)
            is_empty = target.execute("select 1 from sqlite_master").fetchone() is None
            return (_is_ours(target) or is_empty) and is_sound(target)
    except sqlite3.Error:
        return False


@contextmanager
def aside(path: Path) -> Iterator[str]:
    """Create a file beside a path, return its name, and delete it afterwards."""
    number, name = files.aside(path)
    disk.close(number)
    try:
        yield name
    finally:
        for end in ("", "-wal", "-shm", "-journal"):
            with suppress(FileNotFoundError):
                disk.unlink(name + end)


_SHARED_START, _SHARED_LENGTH, _SHM_IS_USED = 0x40000002, 510, 128
"""The bytes that SQLite locks in an open database file and in its `-shm` file (os_unix.c)."""
_inherited: list[object] = []
"""Connections that a forked child inherited. This reference keeps them from being closed."""


def keep_open(path: Path, file: Inode | None, opened: object) -> None:
    """Keep inherited connections open for ever, because closing them would drop locks on the file.

    Args:
        file: device and inode of the file that the connections had opened; None to take no lock.
        opened: the inherited connections.
    """
    _inherited.append(opened)
    if file is not None:
        _lock_again(path, file)


def _lock_again(path: Path, file: Inode) -> None:
    """Take again the locks that SQLite in a forked child believes to have on a file with inherited connections.

    SQLite counts its locks per process. The child inherits the count without the locks. Without them, another process
    that opens the file would consider itself the only one, and restart the log that the child's connections use.
    """
    import fcntl  # a system without fcntl has no forks

    for name, start, length in ((path, _SHARED_START, _SHARED_LENGTH), (f"{path}-shm", _SHM_IS_USED, 1)):
        with suppress(OSError):
            if name == path and file != (disk.stat(path).st_dev, disk.stat(path).st_ino):
                return  # the path has another file now, on which SQLite has no locks
            # Never closed: a process that closes a file loses all the locks that it has on it.
            opened = disk.open(name, os.O_RDONLY | os.O_CLOEXEC)
            disk.lockf(opened, fcntl.LOCK_SH | fcntl.LOCK_NB, length, start)
