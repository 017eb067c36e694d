"""Replaces a file that was changed while it was open by a sound copy, so that recording can go on.

The copy is renamed over the path, so it has another inode. A process that still has the old file and its log open
writes to files without a name, and cannot damage the copy. Only the index is deleted; the log is renamed.
"""

import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from agentspan import files
from agentspan.host import guard
from agentspan.storage.sqlite import file_watch, tables
from agentspan.storage.sqlite.file_watch import Change, Watch

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
    with file_watch.locked(real):
        if watch.is_replaced():
            return f"{path} was replaced"
        before = os.stat(real)
        with _aside(real) as name:
            is_whole = change == "log" and own is not None and _copy(own, name)
            if not is_whole:
                if change == "log" and is_first:
                    return None
                if _is_sound_with_its_log(real):  # others may use it: a copy would lack their log
                    return f"{path} is sound"
                if 0 <= time.time() - before.st_mtime < QUIET_S:
                    return None
                with closing(_alone(real)) as source:
                    if not _copy(source, name):
                        return None
            after = os.stat(real)
            if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                return None
            os.chmod(name, stat.S_IMODE(before.st_mode))
            with suppress(OSError, AttributeError):  # if root repairs the file of another user
                os.chown(name, before.st_uid, before.st_gid)
            log = file_watch.set_aside(real)
            os.rename(name, real)
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
    with guard(ImportError, AttributeError):  # not CPython, or built without it
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _alone(path: Path) -> sqlite3.Connection:
    """Return a read-only connection to a file that ignores the log beside it."""
    return sqlite3.connect(path.as_uri() + "?mode=ro&immutable=1", uri=True, isolation_level=None)


def _is_sound_with_its_log(path: Path) -> bool:
    if not os.stat(path).st_size:  # SQLite deletes the log of an empty file
        return False
    try:
        with closing(sqlite3.connect(path.as_uri() + "?mode=ro", uri=True, isolation_level=None)) as connection:
            return _is_ours(connection) and is_sound(connection)  # read-only: no checkpoint
    except sqlite3.Error:
        return False


def _is_ours(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("pragma application_id").fetchone()[0] == tables.APPLICATION_ID)


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
def _aside(path: Path) -> Iterator[str]:
    number, name = files.aside(path)
    os.close(number)
    try:
        yield name
    finally:
        for end in ("", "-wal", "-shm", "-journal"):
            with suppress(FileNotFoundError):
                os.unlink(name + end)
