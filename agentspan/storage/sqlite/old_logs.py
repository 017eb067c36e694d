"""Sets aside the log of a file that is not at its path any more, before SQLite takes it for that of the file that is.

A backup that is renamed over `runs.db` finds the log of the file of before beside it. Whoever opens it, SQLite replays
the log into the backup, which is malformed then. So a log is marked, while its file is open, with the file that it
belongs to. A mark is an extended attribute: it stays with the log whoever was killed, and a copy of the log has none
that counts, because it names the inode of the log as well.

A number of an inode that is freed is soon given to another file. So the file has a random name of its own, as such an
attribute, too.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agentspan.errors import DatabaseBusy, DatabaseUnusable
from agentspan.interrupts import let_through
from agentspan.storage.sqlite.file_watch import Inode, inode_of

_ATTRIBUTE = "user.agentspan.file"
WAIT_S = 5.0


def mark(path: Path, file: Inode, log: Inode | None) -> None:
    """Mark the log of an open file, once, as that of this file. Where no attributes can be set, it stays unmarked."""
    if log is None or not hasattr(os, "setxattr"):
        return
    path = Path(os.path.realpath(path))
    log_path = f"{path}-wal"
    with suppress(OSError):
        if _attribute(log_path) is None and inode_of(log_path) == log:
            name = _attribute(path)
            if name is None:
                name = os.urandom(8).hex()
                os.setxattr(path, _ATTRIBUTE, name.encode())
            os.setxattr(log_path, _ATTRIBUTE, _said(file, name, log).encode())


def is_of_another(path: Path) -> bool:
    """Return whether the log beside a file is marked as that of another file (3 µs)."""
    path = Path(os.path.realpath(path))
    log_path = f"{path}-wal"
    said = _attribute(log_path)
    if said is None:
        return False
    file, log = inode_of(path), inode_of(log_path)
    if file is None or log is None or not said.endswith(f" {log[0]}:{log[1]}"):
        return False
    return said != _said(file, _attribute(path) or "", log)


def set_aside_foreign(path: Path) -> str | None:
    """Rename the log beside a file if it is another file's, and delete its index; return its name then.

    Raises:
        DatabaseBusy: another process kept the lock.
        DatabaseUnusable: it cannot be renamed.
    """
    real = Path(os.path.realpath(path))
    if not is_of_another(real):
        return None
    with locked(real):
        return set_aside(real) if is_of_another(real) else None


def set_aside(path: Path) -> str | None:
    """Rename the log beside a file, and delete its index; return its name then. The caller has locked the folder.

    Raises:
        DatabaseUnusable: that is not permitted.
    """
    name = f"{path}-wal.old-{time.time_ns():x}"
    try:
        with suppress(FileNotFoundError):  # first: whoever comes in between sees the log, and waits for the lock
            os.unlink(f"{path}-shm")
        os.rename(f"{path}-wal", name)
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
    """Lock the folder of a file, so that of several processes one puts its files in order.

    Raises:
        DatabaseBusy: another process kept the lock for seconds.
    """
    try:
        import fcntl
    except ImportError:  # Windows, where an open file is not renamed anyway
        yield
        return
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        until = time.monotonic() + WAIT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as raised:
                let_through(raised)
                if time.monotonic() > until:
                    raise DatabaseBusy(f"another process puts the files of {path} in order; try again") from raised
            time.sleep(0.005)
        yield
    finally:
        os.close(descriptor)


def _said(file: Inode, name: str, log: Inode) -> str:
    return f"{file[0]}:{file[1]} {name} {log[0]}:{log[1]}"


def _attribute(path: str | Path) -> str | None:
    try:
        return os.getxattr(path, _ATTRIBUTE).decode("ascii", "replace")
    except (OSError, AttributeError) as raised:  # none is set, or there are none
        let_through(raised)
        return None
