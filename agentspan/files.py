"""Private files: creates and replaces files that only their owner may read, and checks that an existing file is ours.

`stat_of` and `text_of` return None instead of raising where there is no file.

The mode is set when the file is created. Set later, it would not affect a process that opened the file in between. In a
folder to which others may write, another user may have created a file under our name: such a file is not used.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from agentspan import disk
from agentspan.host import guard

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
OWN_FOLDER = ".agentspan"
"""The folder in a project for files that agentspan makes by itself."""
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def create(path: str | os.PathLike[str]) -> int:
    """Create a file that only its owner may read, and return its descriptor.

    Raises:
        FileExistsError: the path exists, as a file or a link.
    """
    return disk.open(path, _CREATE, 0o600)


def ensure(path: Path) -> None:
    """Create an empty file that only its owner may read, if it does not exist. Of several processes, one creates it.

    Raises:
        OSError: the disk is full, permission is missing, or the folder does not exist.
    """
    if not disk.exists(path):
        try:
            disk.close(create(os.path.realpath(path)))  # the path may be a link to a file that does not exist yet
        except FileExistsError:
            pass


def ensure_own_folder(folder: Path) -> None:
    """Create a missing folder with the name `.agentspan`, and a `.gitignore` in it that ignores all its files.

    The user creates folders with other names: a typing error in a path must not create one.

    Raises:
        OSError: permission is missing, or the folder above it does not exist.
    """
    if folder.name != OWN_FOLDER or disk.isdir(folder):
        return
    folder.mkdir(mode=0o700, exist_ok=True)  # another process may be making it
    try:
        with disk.stream(folder / ".gitignore", "x", encoding="ascii") as file:
            file.write("*\n")
    except FileExistsError:
        pass


def aside(target: Path) -> tuple[int, str]:
    """Create a temporary file in the folder of `target`. The caller renames it to `target` when it is complete.

    Returns:
        The descriptor and the path of the temporary file.

    Raises:
        OSError: the disk is full, permission is missing, or the folder does not exist.
    """
    path = str(target.parent / f".{target.name[:200]}.{os.urandom(6).hex()}")
    return create(path), path


def sync(path: str | os.PathLike[str]) -> None:
    """Flush the content of a file, or the names in a folder, to the disk (fsync).

    Raises:
        OSError: the disk does not accept the data, or the path does not exist.
    """
    descriptor = disk.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        disk.fsync(descriptor)
    finally:
        disk.close(descriptor)


def stat_of(path: str | bytes | os.PathLike[str], *, follow_symlinks: bool = True) -> os.stat_result | None:
    """Return the `os.stat` result for a path; None if the path does not exist or its properties cannot be read."""
    with guard(OSError):
        return disk.stat(path, follow_symlinks=follow_symlinks)
    return None


def text_of(path: str | os.PathLike[str], *, errors: str = "strict") -> str | None:
    """Return the text of a file in UTF-8; None of a missing or unreadable one, and of one that is no such text."""
    with guard(OSError, ValueError), disk.stream(path, encoding="utf-8", errors=errors) as file:
        return file.read()
    return None


@contextmanager
def replacing(path: Path, mode: str = "w", *, keeps_mode: bool = False, **as_text: Any) -> Iterator[IO[Any]]:
    """Yield a new file, which replaces the one at the path when the block ends, or is deleted when the block fails.

    Args:
        mode: `w` or `wb`.
        keeps_mode: whether the file has the permissions of the one that it replaces; else only its owner may read it.
        **as_text: the encoding and the like, as for `open`.

    Raises:
        OSError: the disk is full, permission is missing, or the folder does not exist.
    """
    descriptor, made = aside(path)
    try:
        with disk.fdopen(descriptor, mode, **as_text) as file:
            yield file
        if keeps_mode and disk.exists(path):
            disk.chmod(made, stat.S_IMODE(disk.stat(path).st_mode))
        disk.replace(made, path)
    except BaseException:
        with suppress(FileNotFoundError):  # an exception from a signal handler may come after the replacement
            disk.unlink(made)
        raise


def owners_of(path: str | os.PathLike[str]) -> frozenset[int]:
    """Return the users that may own the files beside a file: this process's user, and the owner of the file.

    The two users differ if root works on the file of a user.
    """
    owners = {os.geteuid()} if hasattr(os, "geteuid") else set()
    found = stat_of(path)
    return frozenset(owners if found is None else owners | {found.st_uid})


def why_others(found: os.stat_result, owners: frozenset[int]) -> str | None:
    """Return why a file or folder may belong to another user; None if it is ours.

    Args:
        found: the result of `lstat` or `fstat` for the file or folder.
        owners: the ids of the users that may own the file or folder.
    """
    if stat.S_ISLNK(found.st_mode):
        return "it is a symbolic link"
    if hasattr(os, "geteuid") and found.st_uid not in owners:
        return f"it belongs to another user (uid {found.st_uid})"
    return None


def why_foreign(found: os.stat_result, owners: frozenset[int]) -> str | None:
    """Return why a file or folder is not trusted: it may belong to another user, or others may change it; else None."""
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
    """Refuse a file that is not trusted. A missing file is accepted.

    Raises:
        PermissionError: the file is not trusted; its `strerror` says why.
    """
    try:
        why = why_foreign(disk.lstat(path), owners)
    except FileNotFoundError:
        return
    if why is not None:
        raise PermissionError(errno.EPERM, f"{path} is not used: {why}; move it away", str(path))
