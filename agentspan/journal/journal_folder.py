"""The folder of a storage's journal: its path, checks whether it may be used, and a cached account row beside it.

Imports no module that only Linux has.

The folder of `runs.db` is `runs.db.spool` beside it. It cannot be `runs.db-journal`: SQLite uses this name, and deletes
a file that has it. The folder of a server is in this user's state folder: `$XDG_STATE_HOME/agentspan/`, and a hash of
the server's location.
"""

import errno
import os
import stat
import sys
from functools import cache
from pathlib import Path
from typing import Any

from agentspan import disk, files, jsontext
from agentspan.host import guard, log
from agentspan.model.rows import AccountRow
from agentspan.storage.location import Location, memory

_SUFFIX = ".spool"
_UNSHARED = frozenset({"ext2", "ext3", "ext4", "tmpfs"})
"""File systems on which allocated space stays allocated, and all readers of a file share its mapped pages."""
_SOUND = _UNSHARED | {"xfs", "overlay"}
"""All file systems on which a journal may lie: `_UNSHARED`, and those on which files may share blocks. Excluded are
network file systems, and file systems that always copy on write (btrfs, zfs), on which even SQLite's own mapping can
end a process if the disk is full."""
_FICLONE = 0x40049409


def folder_of(path: Path) -> Path:
    """Return the journal folder of a file. Links are resolved, as SQLite does for its own log."""
    real = os.path.realpath(path)
    return Path(real + _SUFFIX)


def spool_of(location: Location) -> Path | None:
    """Return the journal folder of a storage; None for a storage in the memory of one process."""
    if location.path is not None:
        return folder_of(location.path)
    return None if location == memory() else state_folder() / location.key


def state_folder() -> Path:
    """Return the folder in which the journals of servers are; `~/.local/state/agentspan` by default."""
    configured = os.environ.get("XDG_STATE_HOME", "")
    state = Path(configured) if os.path.isabs(configured) else Path.home() / ".local" / "state"
    return state / "agentspan"


def make_state_folder() -> None:
    """Create the folder in which the journals of servers are.

    Raises:
        OSError: there is no permission, or no space.
    """
    disk.makedirs(state_folder(), 0o700, exist_ok=True)


def is_possible() -> bool:
    """Return whether this platform supports journals."""
    return sys.platform == "linux"


def why_not(folder: Path) -> str | None:
    """Return the reason why there can be no journal in a folder; None if there can."""
    if not is_possible():
        return f"a journal needs Linux, this is {sys.platform}"
    kind = _file_system(folder.parent)
    if kind not in _SOUND:
        return f"a journal cannot be trusted on the file system {kind} of {folder.parent}"
    return refusal(folder)


def shares_blocks(folder: Path) -> bool:
    """Return whether files in a folder may share blocks, as a file and its copy by `cp` do on XFS and btrfs.

    A write to a shared block allocates a new block. On a full disk, a write through a mapping then ends the process
    (SIGBUS), although the space of the segment was allocated. The function tests this with two files, because the name
    of the file system does not decide: XFS is formatted with or without shared blocks, and overlay depends on the file
    system under it.
    """
    beside = folder.parent
    if _file_system(beside) in _UNSHARED:
        return False
    opened: list[int] = []
    errors: list[Any] = []
    try:
        with guard(OSError, report=errors.append):
            flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
            opened = [disk.open(beside, flags, 0o600), disk.open(beside, flags, 0o600)]
            disk.ioctl(opened[0], _FICLONE, opened[1])
    finally:
        for each in opened:
            disk.close(each)
    return len(opened) < 2 or not errors or errors[0].errno != errno.EOPNOTSUPP


def owners(folder: str | os.PathLike[str]) -> frozenset[int]:
    """Return the ids of the users who may own a journal folder and the files in it."""
    file = str(folder).removesuffix(_SUFFIX)
    return files.owners_of(file if file != str(folder) else "")  # the folder of a server has no file beside it


def refusal(folder: str | os.PathLike[str]) -> str | None:
    """Return the reason why a journal folder is not used; None if it is used, or does not exist.

    If other users may write beside the file, one of them may have made the folder: to add records of their own to the
    file, or to have files deleted elsewhere.
    """
    found = files.stat_of(folder, follow_symlinks=False)
    if found is None:
        return None
    why = files.why_foreign(found, owners(folder))
    if why is None and not stat.S_ISDIR(found.st_mode):
        why = "it is not a folder"
    return None if why is None else f"the journal {folder} is not used: {why}; look at what is in it, and move it away"


def check(folder: str) -> None:
    """Raise if a journal folder must not be used.

    Raises:
        PermissionError: the folder must not be used; `strerror` has the reason.
    """
    why = refusal(folder)
    if why is not None:
        raise PermissionError(errno.EPERM, why, folder)


@cache
def warn(sentence: str) -> None:
    """Log the reason why a folder is not used, once in a process: each look at the folder finds it again."""
    log.warning("%s", sentence)


def _file_system(folder: Path) -> str:
    """Return the type of the file system that a folder lies on, as the kernel calls it."""
    real, best, kind = os.path.realpath(folder), "", "unknown"
    mounts = files.text_of("/proc/self/mountinfo", errors="surrogateescape") or ""  # a sandbox may have no /proc
    for line in mounts.split("\n")[:-1]:
        before, _, after = line.partition(" - ")
        place = before.split(" ")[4].replace("\\040", " ")
        if (real == place or real.startswith(place.rstrip("/") + "/")) and len(place) >= len(best):
            best, kind = place, after.split(" ")[0]
    return kind


SUFFIX = ".account"


def read(folder: Path) -> AccountRow | None:
    """Return the account row cached beside a journal folder; None if it is missing, or may be of another user."""
    path = folder.with_name(folder.name + SUFFIX)
    with guard(OSError, ValueError, TypeError):
        files.check(path, owners(folder))
        return AccountRow(*jsontext.decode(files.text_of(path) or ""))
    return None


def write(folder: Path, account: AccountRow) -> None:
    """Cache an account row beside a journal folder. A failure is ignored: the storage is read again."""
    path = folder.with_name(folder.name + SUFFIX)
    if read(folder) == account:
        return
    with guard(OSError), files.replacing(path, encoding="utf-8") as file:
        file.write(jsontext.encode(list(account))[0])
