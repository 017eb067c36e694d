"""Segments: the files of this process's journal, mapped for appending, and those that dead processes have left.

Bytes copied into a shared mapping are in the page cache, which outlives the process: a SIGKILL loses nothing. The space
of the file is allocated before the file is mapped, because a write to a hole on a full disk ends the process (SIGBUS).

The process that owns a segment holds its lock (`flock`), which ends with the process. A forked child shares the lock
with its parent, so the child closes its descriptors of segments; to unlock them would unlock the parent's. A process
locks the segment of a dead one, reads its records, and then deletes it.
"""

import errno
import itertools
import mmap
import os
import struct
import sys
import threading
import weakref
from contextlib import suppress
from functools import partial
from pathlib import Path
from zlib import crc32

from agentspan import disk, files, host
from agentspan.host import Hold, guard, undoing
from agentspan.journal import journal_folder
from agentspan.journal.records import END, HEADER

with suppress(ImportError):  # Windows, which has no journals
    import fcntl

FORK_WAIT_S = 0.5
_changing: list[int] = []
"""The ids of the threads that open or close a descriptor at this moment. A fork waits for them; otherwise the child
would inherit descriptors that are not registered yet, and hold their locks. No thread waits for a fork, because a
signal handler that interrupts this code may do anything."""


class Changing:
    """A with-block in which a descriptor is opened or closed. A fork waits for its end."""

    def __enter__(self) -> None:
        _changing.append(threading.get_ident())

    def __exit__(self, *exc_info: object) -> None:
        _changing.remove(threading.get_ident())


class Locked:
    """A file whose lock this process holds as long as the file is open."""

    _file = -1

    def let_go(self) -> None:
        """Close the file, which releases the lock unless another process shares the descriptor."""
        with Changing():
            # Cleared first: a fork may still interrupt, and the number may then belong to another file.
            file, self._file = self._file, -1
            if file >= 0:
                disk.close(file)

    def leave(self) -> None:
        """Close all resources of the file. A second call does nothing."""
        self.let_go()


held: "weakref.WeakSet[Locked]" = weakref.WeakSet()
"""The files that this process has locked. Closed files may still be in the set."""


def _wait_for_changes() -> None:
    """Wait up to FORK_WAIT_S until no other thread opens or closes a descriptor."""
    own, slept = threading.get_ident(), 0.0
    while slept < FORK_WAIT_S and any(thread != own for thread in list(_changing)):
        disk.sleep(0.0005)
        slept += 0.0005


def _stop_waiting() -> None:
    """Do nothing after a fork: `_wait_for_changes` holds nothing that must be released."""


def _leave_all() -> None:
    """In a forked child: close the files that the parent has locked. Otherwise the locks would outlive the parent."""
    _changing.clear()
    for each in list(held):
        each.leave()


host.hold(Hold.DESCRIPTORS, _wait_for_changes, _stop_waiting)
host.forget(_leave_all)


FORM = b"agentspan journal 3\n"
"""The first bytes of a segment, for people. Programs read the format from the file name, where no bit can flip."""
SUFFIX = ".v3.segment"
"""The suffix of segments of this format. Files of another format stay for a version that can read them. Formats 1 and 2
were never released."""
NEW = ".new"
START = 48
"""Position of the first record."""

MARK = 32
"""The position of the mark, which holds the position and the number of the first needed record, and a CRC of both."""
mark_form = struct.Struct("<IQ")
_WIPED = 64 * 1024
COLLECTS_ANYWHERE = sys.version_info < (3, 12)
"""True on Python 3.11, where making a slice may run the garbage collector, and so other code. A slice made just before
prevents that."""

_epochs = itertools.count(1)


class Segment(Locked):
    """A segment of this process. A new one is a spare, which no process reads, until `begin` moves it to its path.

    Args:
        is_mapped: append through a mapping. Otherwise by writes: on a full disk a write fails, where a mapping may end
            the process (see journal_folder.shares_blocks).

    Attributes:
        path: the path of the file, as a text: a Path cannot be created while the interpreter ends.
        end: the position of the next record.
        drained: the position of the first record that is not in the storage yet.
        kept: the position of the first record that may not be on the disk of the storage. Earlier records are not
            needed any more.
        epoch: a number that changes whenever records begin at the start again. A record may refer only to records of
            its own epoch.
        is_referred_to: whether a record refers to other records of the segment.

    Raises:
        OSError: there is no space, or no permission; no file is left behind.
    """

    _is_mapped = False

    def __init__(self, path: str, size: int, *, is_mapped: bool = True) -> None:
        journal_folder.check(os.path.dirname(path))
        self.path = path + NEW
        self.size = size
        self._maps = is_mapped
        self.end = self.drained = self.kept = self.synced = START
        self.epoch = next(_epochs)
        self.is_referred_to = False
        with Changing():
            self._file = files.create(self.path)
            held.add(self)
        with undoing(self.remove):
            disk.flock(self._file, fcntl.LOCK_EX)
            disk.posix_fallocate(self._file, 0, size)
            self._map()

    def fill(self) -> None:
        """Load the pages of the file into memory: 1 ms for 8 MB, or 20 ms if the machine must first free memory.

        Otherwise an append waits for each page. One system call for all pages, because this thread may wait 5 ms for
        its turn after each call while other threads append.
        """
        zeros = bytes(max(64 * 1024, self.size // 1000))
        whole, rest = divmod(self.size, len(zeros))
        with suppress(OSError):  # the append that touches a page allocates it
            disk.pwritev(self._file, [zeros] * whole + [zeros[:rest]], 0)

    def begin(self, path: str, sequence: int) -> None:
        """Move the spare segment to its path, ready for appending from the start.

        The file is locked before the move: another process would take over an unlocked segment.

        Args:
            path: the path of the segment in the journal.
            sequence: the number of the first record.
        """
        self._put(0, FORM)
        self._put(START, END)
        self.end, self.epoch, self.is_referred_to = START, next(_epochs), False
        self.drained = self.synced = START
        self.keep(START, sequence)
        disk.rename(self.path, path)
        self.path = path

    def recycle(self) -> None:
        """Turn a segment without needed records into a spare one. Its space is allocated, its pages are in memory."""
        disk.rename(self.path, self.path + NEW)
        self.path += NEW
        self._wipe()
        self._map()

    def _map(self) -> None:
        if not self._maps:
            return
        with Changing():
            self.map = disk.map(self._file, self.size)
            self._is_mapped = True

    def _put(self, start: int, data: bytes) -> None:
        if self._is_mapped:
            self.map[start : start + len(data)] = data
        elif disk.pwrite(self._file, data, start) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(self, start: int, head: bytes, body: bytes) -> None:
        """Write a record, without a mapping, at a position that the caller has reserved.

        Raises:
            OSError: there is no space.
        """
        record = head + body
        try:
            if start // mmap.PAGESIZE != (start + len(record) - 1) // mmap.PAGESIZE:
                # The header comes last: if the process is killed between two pages, the old end stays valid.
                self._put(start + HEADER, body)
                record = head
            self._put(start, record)
        except OSError:
            with suppress(OSError):
                self._put(start, END)
            raise

    def is_there(self) -> bool:
        """Return whether the file is still at its path. Records in a deleted file are lost when the process ends."""
        with guard(OSError):
            return os.path.samestat(disk.stat(self.path), disk.fstat(self._file))
        return False

    @property
    def is_mine(self) -> bool:
        """True while this process has the file open."""
        return self._file >= 0

    def read(self, start: int, size: int) -> bytes:
        """Return `size` bytes of the segment from position `start` on."""
        return self.map[start : start + size] if self._is_mapped else disk.pread(self._file, size, start)

    def sync(self) -> None:
        """Flush the appended records to the disk.

        Raises:
            OSError: the flush failed.
        """
        end, file = self.end, self._file
        if file >= 0 and self.synced != end:
            disk.fdatasync(file)
            self.synced = end

    def keep(self, kept: int, sequence: int) -> None:
        """Store the position and the number of the first needed record in the file, as its mark."""
        self.kept = kept
        with guard(OSError):  # no room for a copy of a shared block: it is read again, which changes nothing
            self._put(MARK, marked(kept, sequence))

    @property
    def keeps_records(self) -> bool:
        """True if the records must stay although they are drained, because later records may refer to them."""
        return self.is_referred_to and self.end < self.size * 3 // 4

    def unmap(self) -> None:
        """Remove the mapping, which counts as memory of the program. Records can still be read from the file."""
        with Changing():
            if self._is_mapped:
                self._is_mapped = False  # first: Ctrl-C may interrupt the call, and reads of a closed mapping fail
                self.map.close()

    def shrink(self) -> None:
        """Truncate the file after the last record. No record may be appended later, and the file must not be mapped."""
        with suppress(OSError):
            disk.ftruncate(self._file, self.end + len(END))
            self.size = self.end + len(END)

    def reset(self, sequence: int) -> None:
        """Reuse the segment from its start if none of its records is needed: existing pages cost less than new ones.

        Old records are overwritten with zeros, because they may belong to runs that were removed from the storage.

        Args:
            sequence: the number of the next record.
        """
        mark, epoch, end = marked(START, sequence), next(_epochs), self.end
        if not self._maps:  # an unmapped segment is never reused: the bytes after its end must be zeros
            return
        zeros = bytes(max(end - START, len(END)))
        stop = START + len(zeros)
        if COLLECTS_ANYWHERE:
            END[:0]
        if self.kept == self.end == end:  # no call from here: once the end is the start, other threads append
            self.map[MARK:START] = mark
            self.map[START:stop] = zeros
            self.epoch, self.is_referred_to = epoch, False
            self.kept = self.drained = self.synced = self.end = START

    def _wipe(self) -> None:
        """Overwrite all records with zeros."""
        size = self.kept - START
        with suppress(OSError):
            while size > 0:
                size -= disk.pwrite(self._file, bytes(min(size, _WIPED)), self.kept - size)

    def __del__(self) -> None:
        if self._file >= 0:  # the tracer was dropped: another process may recover the records
            self.leave()

    def leave(self) -> None:
        """Close the mapping and the file without deleting the file, for example in a forked child."""
        self.unmap()  # a mapping holds its own descriptor
        self.let_go()

    def remove(self) -> None:
        """Delete and close the file. If it cannot be deleted, it stays: all its records are in the storage."""
        if self._file >= 0:
            with guard(OSError):  # it was deleted, or its folder may not be written to, or is none any more
                disk.unlink(self.path)
            self.leave()


def marked(drained: int, sequence: int) -> bytes:
    """Return the bytes of a mark: a position, the number of the record at it, and a CRC."""
    mark = mark_form.pack(drained, sequence)
    return mark + crc32(mark).to_bytes(4, "little")


def room_for(length: int) -> int:
    """Return the smallest size of a segment that has room for a body of `length` bytes."""
    return START + HEADER + length + len(END)


class Left(Locked):
    """A segment of a dead process, locked by this process; a context manager that unlocks the file at the end.

    Attributes:
        data: the bytes of the whole file.
        start: the position of the first record that is not in the storage yet.
        after: the number of the record before `start`; None if it is not known.
        damaged: a description of damage in the first bytes of the file, or None.
        is_blank: whether the file holds nothing but zeros.

    Raises:
        OSError: the owner is alive, or the file does not exist any more.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # This object owns the descriptor from here on.
        self._file = disk.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with undoing(self.let_go):
            held.add(self)
            why = files.why_foreign(disk.fstat(self._file), journal_folder.owners(path.parent))
            if why is not None:
                _refuse(path, why)
                raise PermissionError(errno.EPERM, f"{path} may be of another user")
            disk.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not disk.fstat(self._file).st_nlink:
                raise FileNotFoundError(f"{path} was drained by somebody else")
            self.data = _contents(self._file)
            self._look()

    def _look(self) -> None:
        """Read the mark in the first bytes: up to which position the records are in the storage already."""
        mark, check = self.data[MARK : START - 4], self.data[START - 4 : START]
        self.start, after = mark_form.unpack(mark) if len(mark) == mark_form.size else (0, 0)
        known = crc32(mark).to_bytes(4, "little") == check and START <= self.start <= len(self.data)
        self.is_blank = not self.data.strip(b"\0")
        if not known:
            self.start = START
        self.after = after - 1 if known else None
        self.damaged: str | None = None
        if self.is_blank:  # a power failure came before any page of the file was on the disk
            return
        if not known:
            self.damaged = "where it is drained up to is damaged; all of it was read again"
        elif self.data[:MARK] != FORM.ljust(MARK, b"\0"):
            self.damaged = "its first bytes are damaged"

    def trim(self, drained: int, sequence: int) -> None:
        """Store in the file that all records before a position are in the storage, so that they are not read again."""
        disk.pwrite(self._file, marked(drained, sequence), MARK)

    def remove(self) -> None:
        """Delete the file, unless another file has its name now."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        folder = -1
        with guard(OSError), Changing():
            folder = disk.open(self.path.parent, flags)
        if folder < 0:  # it is gone, and the file with it
            return
        try:
            name = self.path.name
            if os.path.samestat(disk.stat(name, dir_fd=folder, follow_symlinks=False), disk.fstat(self._file)):
                disk.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            pass
        finally:
            with Changing():
                disk.close(folder)

    def __del__(self) -> None:
        if self._file >= 0:  # an exception from a signal handler kept the with-block from closing the file
            self.let_go()

    def __enter__(self) -> "Left":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.leave()


def take_over(path: Path) -> Left | None:
    """Lock a segment whose owner has died. None if the owner is alive, or another process has locked the segment.

    Also None for a file that another user may have made (see journal_folder); the reason is logged.
    """
    with Changing():
        return _taken_over(path)


@guard(OSError, otherwise=False)
def is_left(path: Path) -> bool:
    """Return whether the owner of a segment has died, and no process adopts it. Nothing of the segment is read."""
    with Changing():
        file = disk.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            disk.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        finally:
            disk.close(file)
    return True


def _taken_over(path: Path) -> Left | None:
    with guard(OSError, report=partial(_not_taken, path)):
        return Left(path)
    return None


def _not_taken(path: Path, error: Exception) -> None:
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        _refuse(path, "it is a symbolic link")


def _refuse(path: Path, why: str) -> None:
    journal_folder.warn(f"the segment {path} of a journal is not read: {why}; look at what it is, and move it away")


def _contents(file: int) -> bytes:
    size, data = disk.fstat(file).st_size, b""
    while len(data) < size and (more := disk.pread(file, size - len(data), len(data))):
        data += more
    return data
