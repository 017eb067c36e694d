"""Where the segments of a file lie, and whether they may: told without anything that only Linux has.

They lie in `runs.db.spool` beside `runs.db`; SQLite deletes what is called `runs.db-journal`.
"""

import errno
import logging
import os
import stat
import sys
from functools import cache
from pathlib import Path

from agentspan import files
from agentspan.interrupts import let_through

log = logging.getLogger("agentspan")

_SUFFIX = ".spool"
_UNSHARED = frozenset({"ext2", "ext3", "ext4", "tmpfs"})
"""File systems that keep the room which they have allocated, and share mapped pages with all who read the file."""
_SOUND = _UNSHARED | {"xfs", "overlay"}
"""Those, and file systems on which files may share blocks. Others copy on write always (btrfs, zfs), where SQLite's own
mapping, too, ends a process on a full disk, or lie across a network."""
_FICLONE = 0x40049409


def folder_of(path: Path) -> Path:
    """Return the folder of the segments of a file: the same by whichever link to it, as SQLite's own log."""
    real = os.path.realpath(path)
    return Path(real + _SUFFIX)


def is_possible() -> bool:
    """Tell whether there can be journals on this platform at all."""
    return sys.platform == "linux"


def why_not(path: Path) -> str | None:
    """Say why there can be no journal beside a file; None where there can be."""
    if not is_possible():
        return f"a journal needs Linux, this is {sys.platform}"
    folder = folder_of(path).parent
    kind = _file_system(folder)
    if kind not in _SOUND:
        return f"a journal cannot be trusted on the file system {kind} of {folder}"
    return refusal(folder_of(path))


def shares_blocks(folder: Path) -> bool:
    """Tell whether a copy of a segment in a folder may share its blocks with it, as `cp` makes one on XFS and btrfs.

    What is written to a shared block needs a new one. On a full disk, writing through a mapping then ends the process
    (SIGBUS), although the segment's room was allocated. Asked of the file system itself: XFS can share or cannot, as
    it was made, and overlay does what the one under it does.
    """
    beside = folder.parent
    if _file_system(beside) in _UNSHARED:
        return False
    import fcntl

    opened: list[int] = []
    try:
        flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
        opened = [os.open(beside, flags, 0o600), os.open(beside, flags, 0o600)]
        fcntl.ioctl(opened[0], _FICLONE, opened[1])
    except OSError as error:
        let_through(error)
        return error.errno != errno.EOPNOTSUPP or len(opened) < 2
    finally:
        for each in opened:
            os.close(each)
    return True


def owners(folder: str | os.PathLike[str]) -> frozenset[int]:
    """Return who may own a journal folder, and what is in it."""
    return files.owners_of(str(folder).removesuffix(_SUFFIX))


def refusal(folder: str | os.PathLike[str]) -> str | None:
    """Say why a journal folder is not used; None where it is, or there is none.

    Where others may write beside the file, one of them may have made the folder, to have records of their own read
    into the file, or files deleted elsewhere.
    """
    try:
        found = os.lstat(folder)
    except OSError as raised:
        let_through(raised)
        return None
    why = files.why_foreign(found, owners(folder))
    if why is None and not stat.S_ISDIR(found.st_mode):
        why = "it is not a folder"
    return None if why is None else f"the journal {folder} is not used: {why}; look at what is in it, and move it away"


def check(folder: str) -> None:
    """Refuse a folder that is not used.

    Raises:
        PermissionError: why, as its `strerror`.
    """
    why = refusal(folder)
    if why is not None:
        raise PermissionError(errno.EPERM, why, folder)


@cache
def warn(said: str) -> None:
    """Log a refusal, once: it is met again with every look."""
    log.warning("%s", said)


def _file_system(folder: Path) -> str:
    """Return the type of the file system that a folder lies on, as the kernel calls it."""
    real, best, kind = os.path.realpath(folder), "", "unknown"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                before, _, after = line.partition(" - ")
                place = before.split(" ")[4].replace("\\040", " ")
                if (real == place or real.startswith(place.rstrip("/") + "/")) and len(place) >= len(best):
                    best, kind = place, after.split(" ")[0]
    except OSError as raised:  # a sandbox without /proc
        let_through(raised)
    return kind
