"""One file of a journal. The process that owns it maps it and appends; the process that drains or recovers it reads.

What is copied into a shared mapping is in the page cache, which outlives the process: a SIGKILL loses nothing. The
file's room is allocated before it is mapped, because writing to a hole on a full disk ends the process with SIGBUS.

Who owns a segment holds its `flock`, which ends with the process. A forked child shares the lock with its parent, so it
closes its descriptors of it; unlocking would unlock the parent's.
"""

import errno
import fcntl
import itertools
import mmap
import os
import struct
import sys
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path
from zlib import crc32

from agentspan import files, forks
from agentspan.forks import Hold
from agentspan.interrupts import let_through
from agentspan.journal import journal_folder
from agentspan.journal.records import END, HEADER

FORM = b"agentspan journal 3\n"
"""The first bytes of a segment, for people. Programs check the format in the file name, where no bit can flip."""
SUFFIX = ".v3.segment"
"""Another format has another suffix. Such files are left for the version that can read them."""
SUFFIXES = (".v1.segment", ".v2.segment", SUFFIX)  # it reads all; v1 has no records H, v1 and v2 have no R
NEW = ".new"
START = 48
"""Position of the first record."""

_FORMS = {suffix: FORM.replace(b"3", suffix[2].encode()).ljust(32, b"\0") for suffix in SUFFIXES}
_MARK = 32  # where the first record begins that is not in the storage yet, its number, and their CRC
_mark = struct.Struct("<IQ")
_SECOND = START + len(END)
COLLECTS_ANYWHERE = sys.version_info < (3, 12)
"""Python 3.11: to make a slice may run the garbage collector, and so other code, unless one was made just before."""

FORK_WAIT_S = 0.5
_epochs = itertools.count(1)
_changing: list[int] = []
"""The threads that open or close a descriptor now: a fork waits for them, or the child would have descriptors that it
knows nothing of, and keep a lock with them. Nobody waits for a fork: who is interrupted here may do anything."""


class _Changing:
    """A block in which a descriptor is opened or closed."""

    def __enter__(self) -> None:
        _changing.append(threading.get_ident())

    def __exit__(self, *exc_info: object) -> None:
        _changing.remove(threading.get_ident())


class _Locked:
    """A file whose lock this process holds, as long as it has it open."""

    _file = -1

    def _let_go(self) -> None:
        with _Changing():
            # At once: a fork may come all the same, and the number be somebody else's.
            file, self._file = self._file, -1
            if file >= 0:
                os.close(file)


class Segment(_Locked):
    """A segment of this process's own: a spare one at first, which is not read until it begins.

    Args:
        is_mapped: append through a mapping; else by writing, which fails on a full disk where a mapping ends the
            process (see journal_folder.shares_blocks).

    Attributes:
        path: where it lies; no Path, which cannot be made any more while the interpreter ends.
        end: where the next record will begin.
        drained: where the first record begins that is not in the storage yet.
        epoch: a new number whenever records begin at its start. A record may refer to those of its epoch.
        is_referred_to: whether a record refers to others.

    Raises:
        OSError: no room for it, or no permission; nothing is left behind.
    """

    _is_mapped = False

    def __init__(self, path: str, size: int, *, is_mapped: bool = True) -> None:
        journal_folder.check(os.path.dirname(path))
        self.path = path + NEW
        self.size = size
        self._maps = is_mapped
        self.end = self.drained = START
        self.epoch = next(_epochs)
        self.is_referred_to = False
        with _Changing():
            self._file = files.create(self.path)
            _held.add(self)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            os.posix_fallocate(self._file, 0, size)
            self._map()
        except BaseException:
            self.remove()
            raise

    def fill(self) -> None:
        """Load its pages into memory: 1 ms for 8 MB, or 20 ms if the machine must first free memory.

        Else those who append wait for each page. In one call: who works while others append waits 5 ms after each.
        """
        zeros = bytes(max(64 * 1024, self.size // 1000))
        whole, rest = divmod(self.size, len(zeros))
        with suppress(OSError):  # whoever touches them needs them, not this
            os.pwritev(self._file, [zeros] * whole + [zeros[:rest]], 0)

    def begin(self, path: str, sequence: int) -> None:
        """Move the spare to its path, ready for appending from the start.

        Args:
            path: where it belongs. It gets there only when locked: another process would take over an unlocked segment.
            sequence: the number of the first record.
        """
        self._put(0, FORM)
        self._put(START, END)
        self.end, self.epoch, self.is_referred_to = START, next(_epochs), False
        self.trim(START, sequence)
        os.rename(self.path, path)
        self.path = path

    def recycle(self) -> None:
        """Turn it into a spare again when everything is drained: its space is allocated and its pages are in memory."""
        os.rename(self.path, self.path + NEW)
        self.path += NEW
        self._map()

    def _map(self) -> None:
        if not self._maps:
            return
        with _Changing():
            self.map = mmap.mmap(self._file, self.size)
            self._is_mapped = True

    def _put(self, start: int, data: bytes) -> None:
        if self._is_mapped:
            self.map[start : start + len(data)] = data
        elif os.pwrite(self._file, data, start) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(self, start: int, head: bytes, body: bytes) -> None:
        """Write a record in a place that the caller has taken, where nothing is mapped.

        Raises:
            OSError: no room for it.
        """
        record = head + body
        try:
            if start // mmap.PAGESIZE != (start + len(record) - 1) // mmap.PAGESIZE:
                # The header last: a process that is killed between two pages leaves the end where it was.
                self._put(start + HEADER, body)
                record = head
            self._put(start, record)
        except OSError:
            with suppress(OSError):
                self._put(start, END)
            raise

    def is_there(self) -> bool:
        """Return whether the file is still at its path. Records in a deleted file are lost when the process ends."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._file))
        except OSError as raised:
            let_through(raised)
            return False

    @property
    def is_mine(self) -> bool:
        """True until the segment is left or removed."""
        return self._file >= 0

    def read(self, start: int, size: int) -> bytes:
        """Return bytes of it."""
        return self.map[start : start + size] if self._is_mapped else os.pread(self._file, size, start)

    def trim(self, drained: int, sequence: int) -> None:
        """Store in the file that everything before a position is in the storage, and the number of the record there."""
        self.drained = drained
        try:
            self._put(_MARK, _marked(drained, sequence))
        except OSError as raised:  # no room for a copy of a shared block: it is read again, which changes nothing
            let_through(raised)

    @property
    def keeps_records(self) -> bool:
        """True if the records stay when all are drained, because later ones can refer to them."""
        return self.is_referred_to and self.end < self.size * 3 // 4

    def unmap(self) -> None:
        """Remove the mapping, which counts as the program's memory. The records can still be read."""
        with _Changing():
            if self._is_mapped:
                self._is_mapped = False  # first: Ctrl-C comes at calls, and what cannot be read stops all draining
                self.map.close()

    def shrink(self) -> None:
        """Give back the room after the last record: none is appended any more. It must not be mapped."""
        with suppress(OSError):
            os.ftruncate(self._file, self.end + len(END))
            self.size = self.end + len(END)

    def reset(self, sequence: int) -> None:
        """Begin again at the start, if everything is drained: existing pages cost less than new ones.

        Args:
            sequence: the number of the next record.
        """
        mark, epoch = _marked(START, sequence), next(_epochs)
        if not self._maps:  # it goes on: what was written after its end must be zeros
            return
        if COLLECTS_ANYWHERE:
            END[:0]
        if self.drained == self.end:  # no call from here: as soon as the end is the start, others append there
            self.map[_MARK:START] = mark
            self.map[START:_SECOND] = END
            self.epoch, self.is_referred_to = epoch, False
            self.drained = self.end = START

    def __del__(self) -> None:
        if self._file >= 0:  # its tracer was dropped: others may read what is in it
            self.leave()

    def leave(self) -> None:
        """Close the mapping and the file, as a forked child does. The file stays on disk."""
        self.unmap()  # a mapping has a descriptor of its own
        self._let_go()

    def remove(self) -> None:
        """Delete the file, and close it."""
        if self._file >= 0:
            with suppress(FileNotFoundError):
                os.unlink(self.path)
            self.leave()


def _marked(drained: int, sequence: int) -> bytes:
    mark = _mark.pack(drained, sequence)
    return mark + crc32(mark).to_bytes(4, "little")


def room_for(length: int) -> int:
    """Return the least size of a segment for a body of so many bytes."""
    return START + HEADER + length + len(END)


class Left(_Locked):
    """A segment of a dead owner, locked by this process; a context manager that unlocks it at the end.

    Attributes:
        data: all of it.
        start: where the first record begins that is not in the storage yet.
        after: the number of the record before that; None where it is not known.
        damaged: what is wrong with its own start, or None.

    Raises:
        OSError: its owner is alive, or the file does not exist any more.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Its own from here on: nobody else closes it.
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            _held.add(self)
            why = files.why_foreign(os.fstat(self._file), journal_folder.owners(path.parent))
            if why is not None:
                _refuse(path, why)
                raise PermissionError(errno.EPERM, f"{path} may be of another user")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.fstat(self._file).st_nlink:
                raise FileNotFoundError(f"{path} was drained by somebody else")
            self.data = _contents(self._file)
            self._look()
        except BaseException:
            self._let_go()
            raise

    def _look(self) -> None:
        """Read from its first bytes how much is in the storage already."""
        mark, check = self.data[_MARK : START - 4], self.data[START - 4 : START]
        self.start, after = _mark.unpack(mark) if len(mark) == _mark.size else (0, 0)
        known = crc32(mark).to_bytes(4, "little") == check and START <= self.start <= len(self.data)
        if not known:
            self.start = START
        self.after = after - 1 if known else None
        self.damaged: str | None = None
        if not known:
            self.damaged = "where it is drained up to is damaged; all of it was read again"
        elif self.data[:_MARK] != _FORMS.get("".join(self.path.suffixes[-2:])):
            self.damaged = "its first bytes are damaged"

    def trim(self, drained: int, sequence: int) -> None:
        """Store in the file that everything before a position is in the storage, so that it is not read again."""
        os.pwrite(self._file, _marked(drained, sequence), _MARK)

    def remove(self) -> None:
        """Delete the file, unless its name is another file's now."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with _Changing():
                folder = os.open(self.path.parent, flags)
        except OSError as raised:  # it is gone, and the file with it
            let_through(raised)
            return
        try:
            name = self.path.name
            if os.path.samestat(os.stat(name, dir_fd=folder, follow_symlinks=False), os.fstat(self._file)):
                os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            pass
        finally:
            with _Changing():
                os.close(folder)

    def leave(self) -> None:
        """Close the file, which releases the lock."""
        self._let_go()

    def __del__(self) -> None:
        if self._file >= 0:  # an exception from a signal handler came before the end of the block
            self._let_go()

    def __enter__(self) -> "Left":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.leave()


def take_over(path: Path) -> Left | None:
    """Lock a segment whose owner has died; None if the owner is alive, or another process was faster.

    Also None for a file that another user may have put there (see journal_folder), and the log says why.
    """
    with _Changing():
        return _taken_over(path)


def _taken_over(path: Path) -> Left | None:
    try:
        return Left(path)
    except OSError as raised:
        let_through(raised)
        if raised.errno == errno.ELOOP:
            _refuse(path, "it is a symbolic link")
        return None


def _refuse(path: Path, why: str) -> None:
    journal_folder.warn(f"the segment {path} of a journal is not read: {why}; look at what it is, and move it away")


def _contents(file: int) -> bytes:
    size, data = os.fstat(file).st_size, b""
    while len(data) < size and (more := os.pread(file, size - len(data), len(data))):
        data += more
    return data


_held: "weakref.WeakSet[Segment | Left]" = weakref.WeakSet()


def _wait_for_changes() -> None:
    """Wait for other threads that open or close a descriptor."""
    own, slept = threading.get_ident(), 0.0
    while slept < FORK_WAIT_S and any(thread != own for thread in list(_changing)):
        time.sleep(0.0005)
        slept += 0.0005


def _stop_waiting() -> None:
    """Do nothing: no thread was made to wait."""


def _leave_all() -> None:
    """In a forked child: close the segments that the parent owns or reads. Else the lock would outlive the parent."""
    _changing.clear()
    for each in list(_held):
        each.leave()


forks.hold(Hold.DESCRIPTORS, _wait_for_changes, _stop_waiting)
forks.forget(_leave_all)
