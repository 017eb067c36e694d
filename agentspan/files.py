"""Files that only their owner may read, from the first moment on; and whether a file that is there already is ours.

A mode that is set after a file was made comes too late: who opened the file in between keeps it open. And in a folder
to which others may write, a name that we would use may be taken: a file there that is not ours is not used.
"""

import errno
import os
import stat
from pathlib import Path

from agentspan.interrupts import let_through

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def create(path: str | os.PathLike[str]) -> int:
    """Make a file that nobody else may read, and return its descriptor.

    Raises:
        FileExistsError: there is one, or a link.
    """
    return os.open(path, _CREATE, 0o600)


def ensure(path: Path) -> None:
    """Make an empty file that nobody else may read, unless there is one; of several processes, one makes it.

    Raises:
        OSError: no room for it, no permission, no such folder.
    """
    if not path.exists():
        try:
            os.close(create(os.path.realpath(path)))  # a link may name a file that is still to be made
        except FileExistsError:
            pass


def aside(target: Path) -> tuple[int, str]:
    """Make a file beside another one, to become it when it is whole; return its descriptor and its path.

    Raises:
        OSError: no room for it, no permission, no such folder.
    """
    path = str(target.parent / f".{target.name[:200]}.{os.urandom(6).hex()}")
    return create(path), path


def owners_of(path: str | os.PathLike[str]) -> frozenset[int]:
    """Return who may own what lies beside a file: this process's user, and the owner of the file.

    The second one, because root may work on a user's file.
    """
    owners = {os.geteuid()} if hasattr(os, "geteuid") else set()
    try:
        owners.add(os.stat(path).st_uid)
    except OSError as raised:  # it is still to be made
        let_through(raised)
    return frozenset(owners)


def why_others(found: os.stat_result, owners: frozenset[int]) -> str | None:
    """Say why a file or folder may be somebody else's; None where it is ours.

    Args:
        found: what lstat or fstat says of it.
        owners: who may own it.
    """
    if stat.S_ISLNK(found.st_mode):
        return "it is a symbolic link"
    if hasattr(os, "geteuid") and found.st_uid not in owners:
        return f"it belongs to another user (uid {found.st_uid})"
    return None


def why_foreign(found: os.stat_result, owners: frozenset[int]) -> str | None:
    """Say why a file or folder is not to be trusted: it may be somebody else's, or others may change it."""
    why = why_others(found, owners)
    if why is not None or not hasattr(os, "geteuid"):
        return why
    if found.st_mode & _OTHERS_WRITE:
        return f"others may write to it (mode {stat.S_IMODE(found.st_mode):o})"
    if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
        return "it has another name, too (a hard link)"
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
        return "it is neither a file nor a folder"
    return None


def check(path: Path, owners: frozenset[int]) -> None:
    """Refuse a file that is not to be trusted, if there is one.

    Raises:
        PermissionError: why, as its `strerror`.
    """
    try:
        why = why_foreign(os.lstat(path), owners)
    except FileNotFoundError:
        return
    if why is not None:
        raise PermissionError(errno.EPERM, f"{path} is not used: {why}; move it away", str(path))
