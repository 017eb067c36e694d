"""A file of the journal of this process, which maps it and appends records. For those of dead ones see left_segments.

What is copied into a shared mapping is in the page cache, which outlives the process: a SIGKILL loses nothing. The
file's room is allocated before it is mapped, because writing to a hole on a full disk ends the process with SIGBUS.

Who owns a segment holds its lock (`flock`), which ends with the process. A forked child shares it with its parent, so
it closes its descriptors of such files; unlocking them would unlock the parent's.
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
from zlib import crc32

from agentspan import files, forks
from agentspan.forks import Hold
from agentspan.interrupts import guard
from agentspan.journal import journal_folder
from agentspan.journal.records import END, HEADER

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


FORM = b"agentspan journal 3\n"
"""The first bytes of a segment, for people. Programs check the format in the file name, where no bit can flip."""
SUFFIX = ".v3.segment"
"""Another format has another suffix. Such files are left for the version that can read them; 1 and 2 were before the
first release."""
NEW = ".new"
START = 48
"""Position of the first record."""

MARK = 32
"""Position of the mark: where the first record begins that is not in the storage yet, its number, and their CRC."""
mark_form = struct.Struct("<IQ")
_WIPED = 64 * 1024
COLLECTS_ANYWHERE = sys.version_info < (3, 12)
"""Python 3.11: to make a slice may run the garbage collector, and so other code, unless one was made just before."""

_epochs = itertools.count(1)


class Segment(Locked):
    """A segment of this process's own: a spare one at first, which is not read until it begins.

    Args:
        is_mapped: append through a mapping; else by writing, which fails on a full disk where a mapping ends the
            process (see journal_folder.shares_blocks).

    Attributes:
        path: where it lies; no Path, which cannot be made any more while the interpreter ends.
        end: where the next record will begin.
        drained: where the first record begins that was not given to the storage yet.
        kept: where the first record begins that may not be on the disk there. What comes before is not needed any more.
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
        self.end = self.drained = self.kept = self.synced = START
        self.epoch = next(_epochs)
        self.is_referred_to = False
        with Changing():
            self._file = files.create(self.path)
            held.add(self)
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
        self.drained = self.synced = START
        self.keep(START, sequence)
        os.rename(self.path, path)
        self.path = path

    def recycle(self) -> None:
        """Turn it into a spare again when nothing of it is needed: its space is allocated, its pages are in memory."""
        os.rename(self.path, self.path + NEW)
        self.path += NEW
        self._wipe()
        self._map()

    def _map(self) -> None:
        if not self._maps:
            return
        with Changing():
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
        with guard(OSError):
            return os.path.samestat(os.stat(self.path), os.fstat(self._file))
        return False

    @property
    def is_mine(self) -> bool:
        """True until the segment is left or removed."""
        return self._file >= 0

    def read(self, start: int, size: int) -> bytes:
        """Return bytes of it."""
        return self.map[start : start + size] if self._is_mapped else os.pread(self._file, size, start)

    def sync(self) -> None:
        """Have on the disk what was appended.

        Raises:
            OSError: the disk does not take it.
        """
        end, file = self.end, self._file
        if file >= 0 and self.synced != end:
            os.fdatasync(file)
            self.synced = end

    def keep(self, kept: int, sequence: int) -> None:
        """Store in the file that what comes before a position is not needed, and the number of the record there."""
        self.kept = kept
        with guard(OSError):  # no room for a copy of a shared block: it is read again, which changes nothing
            self._put(MARK, marked(kept, sequence))

    @property
    def keeps_records(self) -> bool:
        """True if the records stay although none is needed, because later ones can refer to them."""
        return self.is_referred_to and self.end < self.size * 3 // 4

    def unmap(self) -> None:
        """Remove the mapping, which counts as the program's memory. The records can still be read."""
        with Changing():
            if self._is_mapped:
                self._is_mapped = False  # first: Ctrl-C comes at calls, and what cannot be read stops all draining
                self.map.close()

    def shrink(self) -> None:
        """Give back the room after the last record: none is appended any more. It must not be mapped."""
        with suppress(OSError):
            os.ftruncate(self._file, self.end + len(END))
            self.size = self.end + len(END)

    def reset(self, sequence: int) -> None:
        """Begin again at the start, if nothing in it is needed: existing pages cost less than new ones.

        What was in it is overwritten: it may be of runs that were removed from the storage.

        Args:
            sequence: the number of the next record.
        """
        mark, epoch, end = marked(START, sequence), next(_epochs), self.end
        if not self._maps:  # it goes on: what was written after its end must be zeros
            return
        zeros = bytes(max(end - START, len(END)))
        stop = START + len(zeros)
        if COLLECTS_ANYWHERE:
            END[:0]
        if self.kept == self.end == end:  # no call from here: as soon as the end is the start, others append there
            self.map[MARK:START] = mark
            self.map[START:stop] = zeros
            self.epoch, self.is_referred_to = epoch, False
            self.kept = self.drained = self.synced = self.end = START

    def _wipe(self) -> None:
        """Overwrite what is not needed."""
        size = self.kept - START
        with suppress(OSError):
            while size > 0:
                size -= os.pwrite(self._file, bytes(min(size, _WIPED)), self.kept - size)

    def __del__(self) -> None:
        if self._file >= 0:  # its tracer was dropped: others may read what is in it
            self.leave()

    def leave(self) -> None:
        """Close the mapping and the file, as a forked child does. The file stays on disk."""
        self.unmap()  # a mapping has a descriptor of its own
        self.let_go()

    def remove(self) -> None:
        """Delete the file, and close it. If it cannot be deleted, it stays: all that was in it is in the storage."""
        if self._file >= 0:
            with guard(OSError):  # it was deleted, or its folder may not be written to, or is none any more
                os.unlink(self.path)
            self.leave()


def marked(drained: int, sequence: int) -> bytes:
    """Return the bytes of a mark."""
    mark = mark_form.pack(drained, sequence)
    return mark + crc32(mark).to_bytes(4, "little")


def room_for(length: int) -> int:
    """Return the least size of a segment for a body of so many bytes."""
    return START + HEADER + length + len(END)
