"""Segments of dead processes: a process locks such a file, reads its records, and then deletes it."""

import errno
import fcntl
import os
from pathlib import Path
from zlib import crc32

from agentspan import files
from agentspan.host import let_through
from agentspan.journal import journal_folder
from agentspan.journal.segments import FORM, MARK, START, Changing, Locked, held, mark_form, marked


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
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            held.add(self)
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
            self.let_go()
            raise

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
        os.pwrite(self._file, marked(drained, sequence), MARK)

    def remove(self) -> None:
        """Delete the file, unless another file has its name now."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with Changing():
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
            with Changing():
                os.close(folder)

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
